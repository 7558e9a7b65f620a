"""What a notebook or a Python prompt shows of the public objects: a few lines, and no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rasterembed
from rasterembed import (
    CollectionSearcher,
    Dataset,
    EmbedOptions,
    Grid,
    ObjectStore,
    QaThresholds,
    Query,
    Searcher,
    SourceStore,
    Where,
    check_collection,
    embed_collection,
    embed_raster,
)
from rasterembed.model.choice import Dinov3
from rasterembed.qa.metrics import Status
from tests.support.pictures import plain_pictures
from tests.support.scenes import collection_options, write_scene

KEYS: dict[str, Any] = {"access_key": "very-secret-key", "secret_key": "even-more-secret"}
TILE = "r000002_c000005"

MOST_LINES, MOST_LETTERS = 6, 700


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> dict[str, Any]:
    """The objects that a person gets by following the documentation, by the name of their class."""
    folder = tmp_path_factory.mktemp("objects")
    store = ObjectStore(root=str(folder / "store"), source_store=SourceStore(**KEYS), **KEYS)
    raster = str(write_scene(folder / "scene.tif", side=384))
    options = EmbedOptions(
        dataset_id="scene",
        grid=Grid(size=32),
        model=Dinov3(model=str(tiny_vit), device="cpu"),
        qa=QaThresholds(min_neighbour_z=-100),  # The pixels are random, so neighbours are not alike.
    )
    with plain_pictures():
        result = embed_raster(store, raster, options)
        collected = embed_collection(store, "survey", raster, collection_options(tiny_vit, quality_checks=True))
    dataset = Dataset.open(store, "scene")
    with Searcher(store, ["scene"]) as searcher, CollectionSearcher(store, "survey") as collection_searcher:
        pass
    made = [
        store, options, result, result.manifest, result.plan, result.report, dataset, searcher, collection_searcher,
        dataset.search(Query(tile=TILE), k=50), collected, collected.collection, check_collection(store, "survey"),
        dataset.cluster(str(folder / "classes.parquet"), 3), store.collections()[0], SourceStore(**KEYS),
        Query(tile=TILE), Where(bbox=(24, 60, 25, 61), pick="latest"),
    ]  # fmt: skip
    return {type(one).__name__: one for one in made}


def test_every_object_takes_a_few_lines(objects: dict[str, Any]) -> None:
    for name, one in objects.items():
        text = repr(one)
        assert text.startswith(name), text
        assert len(text.splitlines()) <= MOST_LINES, text
        assert len(text) <= MOST_LETTERS, text
        assert not any(key in text for key in KEYS.values()), name


@pytest.mark.parametrize("name", ["Manifest", "Plan", "QaReport", "CollectionReport", "EmbedResult", "Hit"])
def test_print_shows_a_line_too(name: str, objects: dict[str, Any]) -> None:
    one = objects["Answer"].hits[0] if name == "Hit" else objects[name]
    assert str(one) == repr(one)


def test_a_control_character_of_a_file_is_shown_as_a_code(objects: dict[str, Any]) -> None:
    odd = "\x1b[2J"
    hit, plan = objects["Answer"].hits[0], objects["Plan"]
    source = plan.source.model_copy(update={"uri": f"/{odd}.tif"})
    changed = [hit.model_copy(update={"tile_id": odd}), plan.model_copy(update={"source": source})]
    for name in ("QaReport", "CollectionReport"):
        first, *rest = objects[name].metrics
        first = first.model_copy(update={"status": Status.NOT_JUDGED, "note": odd})
        changed.append(objects[name].model_copy(update={"metrics": (first, *rest)}))
    for one in changed:
        assert r"\x1b[2J" in repr(one)
        assert odd not in repr(one)


def test_options_without_a_value_take_one_line() -> None:
    for name in rasterembed.__all__:
        kind = getattr(rasterembed, name)
        if name.endswith(("Options", "Thresholds")) or name in ("Grid", "Radiometry", "Validity", "PlanSettings"):
            assert repr(kind()) == f"{name}()"


def test_an_answer_shows_the_nearest_tiles(objects: dict[str, Any]) -> None:
    answer = objects["Answer"]
    head, columns, *rows, more = repr(answer).splitlines()
    assert head == f"Answer: {answer.summary()}; 50 of k = 50 tiles, answered by the exact scan"
    assert columns.split() == ["#", "tile", "distance", "place", "valid"]
    assert [row.split()[1] for row in rows] == [hit.tile_id for hit in answer.hits[:3]]
    assert more == "and 47 more tiles: print the answer to see them"
    assert repr(answer.hits[0]).startswith(f"Hit 1: scene/{answer.hits[0].tile_id}, distance ")
    assert answer.model_copy(update={"hits": answer.hits[:2]}) != answer
    nothing = objects["Dataset"].search(Query(tile=TILE), Where(scenes=("zzz",)))
    head, why = repr(nothing).splitlines()
    assert head.endswith("; 0 of k = 12 tiles")
    assert why == nothing.hint


def test_the_result_of_a_run(objects: dict[str, Any]) -> None:
    text = repr(objects["EmbedResult"])
    assert text.startswith("EmbedResult: dataset 'scene': ready, 144 rows of 144 tiles; embedded in ")
    assert text.endswith(objects["QaReport"].summary())
