"""Search as a flow and a command: what is printed, written and kept, and how it fails."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from PIL import Image
from prefect.artifacts import Artifact
from prefect.logging import disable_run_logger

from flows.command import run
from flows.search_embeddings import search_embeddings
from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.escape import escape_markdown
from rasterembed.model.choice import Dinov3
from rasterembed.search.answer import Answer
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.store.object_store import ObjectStore
from tasks.index import index_vectors
from tests.conftest import PROJECT
from tests.support.prefect_server import PrefectServer
from tests.support.vectors import blank_raster, checkpoint, write_dataset

TILE = "r000003_c000004"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with the datasets `made`, of 8 by 10 tiles, and `new`, which is not ready."""
    folder = tmp_path_factory.mktemp("flow")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", 16)))
    vectors = np.random.default_rng(9).standard_normal((80, 16)).astype(np.float32)
    raster = blank_raster(folder / "made.tif", 8, 10)
    write_dataset(store, "made", raster, model, vectors, skip=frozenset({0}))
    write_dataset(store, "new", raster, model, vectors, state="embedded")
    return Path(store.root)


@pytest.fixture
def search(root: Path, prefect_api: object) -> Callable[..., Answer]:
    """Run the flow as the command does."""

    def search(*arguments: str) -> Answer:
        answer = run(search_embeddings, ["--root", str(root), *arguments])
        assert isinstance(answer, Answer)
        return answer

    return search


def test_a_search_writes_what_was_asked_for(search: Callable[..., Answer], tmp_path: Path) -> None:
    out, sheet = tmp_path / "found.geojson", tmp_path / "sheet.png"
    answer = search("--dataset", "made", "--tile", TILE, "-k", "6", "--out", str(out), "--sheet", str(sheet))
    assert len(answer.hits) == 6
    assert geopandas.read_file(out)["tile_id"].tolist() == [hit.tile_id for hit in answer.hits]
    assert Image.open(sheet).format == "PNG"


def test_a_search_keeps_an_artifact_with_thumbnails(search: Callable[..., Answer]) -> None:
    answer = search("made", "--tile", TILE, "-k", "30")
    artifact = Artifact.get("search-made")
    assert artifact is not None
    assert artifact.type == "markdown"
    text = str(artifact.data)
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")][2:]
    assert [row[0] for row in table] == [str(rank) for rank in range(1, 31)]
    assert {row[2] for row in table} == {"made"}
    assert [row[3] for row in table] == [escape_markdown(hit.tile_id) for hit in answer.hits]
    assert [float(row[4]) for row in table] == pytest.approx([hit.distance for hit in answer.hits], abs=5e-7, rel=5e-3)
    assert table[0][5] == answer.hits[0].place()
    pictures = [re.fullmatch(r"!\[tile .*\]\(data:image/webp;base64,([A-Za-z0-9+/=]+)\)", row[1]) for row in table]
    assert [picture is not None for picture in pictures] == [True] * 24 + [False] * 6
    assert pictures[0] is not None
    with Image.open(io.BytesIO(base64.b64decode(pictures[0][1]))) as thumbnail:
        assert thumbnail.size == (80, 80)
    assert len(text) < 200_000
    assert "made: answered by the exact scan" in text
    assert str(artifact.description).startswith("30 tiles most similar to tile ")


def test_every_kind_of_question_has_its_option(search: Callable[..., Answer], tmp_path: Path) -> None:
    by_tile = search("made", "--tile", TILE, "-k", "3")
    middle = by_tile.examples[0].tile
    assert middle is not None
    place = search("made", "--tile", TILE, "--include-query", "-k", "1").hits[0]
    by_place = search("made", "--lonlat", str(place.lon), str(place.lat), "-k", "3")
    assert by_place.hits == by_tile.hits

    liked = search("made", "--like", f"{TILE},r000001_c000001", "--unlike", "r000002_c000002", "-k", "100")
    assert len(liked.hits) == 79 - 3

    assert place.lon is not None
    assert place.lat is not None
    box = [str(value) for value in (place.lon - 1e-4, place.lat - 1e-4, place.lon + 1e-4, place.lat + 1e-4)]
    area = tmp_path / "area.geojson"
    ring = [[place.lon + x, place.lat + y] for x, y in ((-1e-4, -1e-4), (1e-4, -1e-4), (0, 1e-4), (-1e-4, -1e-4))]
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    options = ["--bbox", *box, "--within", str(area), "--engine", "scan"]
    inside = search("made", "--tile", TILE, "--include-query", *options)
    assert [hit.tile_id for hit in inside.hits] == [TILE]
    assert inside.engines[0].why == "as requested"
    assert search("made", "--tile", TILE, "--since", "2020-01-01").hits == ()


def test_a_search_of_the_whole_store_writes_into_the_store(search: Callable[..., Answer], root: Path) -> None:
    answer = search("--all", "--tile", f"made/{TILE}", "-k", "4", "--out", "store:searches/found.geojson")
    assert geopandas.read_file(root / "searches/found.geojson")["dataset_id"].tolist() == ["made"] * 4
    assert [one.dataset_id for one in answer.not_searched] == ["new"]
    artifact = Artifact.get("search-all")
    assert artifact is not None
    assert "searched 1 of 2 datasets" in str(artifact.data)


def test_a_collection_is_searched_by_its_name(search: Callable[..., Answer], root: Path) -> None:
    rebuild_collection(ObjectStore(root=str(root)), "group", datasets=["made"])
    by_dataset = search("made", "--tile", TILE, "-k", "5")
    answer = search("--collection", "group", "--tile", f"made/{TILE}", "-k", "5", "--sheet", "store:searches/sheet.png")
    assert [hit.tile_id for hit in answer.hits] == [hit.tile_id for hit in by_dataset.hits]
    assert Image.open(root / "searches/sheet.png").format == "PNG"
    artifact = Artifact.get("search-group")
    assert artifact is not None
    text = str(artifact.data)
    assert "| # | | dataset | tile | distance | place | valid | date | cloud |" in text
    assert text.count("data:image/webp") == 5
    assert "searched 1 of 1 scene of collection group" in text
    assert search("--collection", "group", "--tile", f"made/{TILE}", "--max-cloud-cover", "10").hits == ()
    assert len(search("--collection", "group", "--tile", f"made/{TILE}", "--scenes", "*made.tif").hits) == 12


def test_a_search_takes_a_file_of_classes(search: Callable[..., Answer], tmp_path: Path) -> None:
    everything = search("made", "--tile", TILE, "-k", "100")
    classes = {hit.tile_id: number % 3 for number, hit in enumerate(everything.hits)}
    (tmp_path / "classes.csv").write_text("tile_id,class\n" + "".join(f"{one},{of}\n" for one, of in classes.items()))
    answer = search(
        "made", "--tile", TILE, "-k", "100", "--class-file", str(tmp_path / "classes.csv"), "--classes", "0,2"
    )
    assert [hit.tile_id for hit in answer.hits] == [one for one, of in classes.items() if of in (0, 2)]
    assert len(answer.hits) == 52


def test_in_a_container_a_local_file_is_refused_before_the_search(
    search: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.search_embeddings.is_worker_container", lambda: True)
    with pytest.raises(SystemExit) as end:
        search("made", "--tile", TILE, "--out", "found.csv")
    assert end.value.code == 2
    assert "found.csv: this run is in a container" in capfd.readouterr().err


def test_the_command_prints_a_table(root: Path, prefect: PrefectServer) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.search_embeddings", "made", "--root", str(root), "--tile", TILE, "-k", "2"],
        env=prefect.environment(), cwd=PROJECT, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"tile {TILE}; model: ")
    assert lines[2].split() == ["#", "tile", "distance", "place", "valid"]
    assert [line.split()[0] for line in lines[3:5]] == ["1", "2"]
    assert lines[-1] == "made: answered by the exact scan (there is no index)"


def _text(folder: Path) -> str:
    (folder / "chip.png").write_text("no picture")
    return str(folder / "chip.png")


USAGE, DATA = 2, 1


@pytest.mark.parametrize(
    ("status", "arguments", "reason"),
    [
        (USAGE, ["made", "--tile", "12"], "--tile: '12' is not a tile id"),
        (USAGE, ["made", "--tile", "r000099_c000000"], "dataset 'made' has no tile r000099_c000000"),
        (DATA, ["made", "--tile", "r000000_c000000"], "has no vector: it was skipped"),
        (DATA, ["made", "--lonlat", "0", "0"], "no embedded tile of 'made' contains longitude 0, latitude 0"),
        (USAGE, ["made", "--lonlat", "0", "99"], "--lonlat: give longitude"),
        (USAGE, ["made", "--lonlat", "0"], "--lonlat"),
        (DATA, ["made", "--image", _text], "chip.png: not a raster that can be read here"),
        (DATA, ["made", "--image", "nowhere.png"], "nowhere.png: there is no such file"),
        (USAGE, ["made", "--tile", TILE, "-k", "0"], "-k: give 1 or more, not 0"),
        (USAGE, ["made", "--tile", TILE, "-k", "1000000"], "-k: give 10000 or less"),
        (USAGE, ["nowhere", "--tile", TILE], "there is no dataset 'nowhere'"),
        (USAGE, ["../made", "--tile", TILE], "dataset id '../made' is not allowed"),
        (DATA, ["new", "--tile", TILE], "dataset 'new' cannot be used"),
        (USAGE, ["made"], "give an example of what to look for"),
        (USAGE, ["made", "--tile", TILE, "--lonlat", "0", "0"], "give only one of --tile, --lonlat and --image"),
        (USAGE, ["made", "--tile", TILE, "--bbox", "3", "2", "1", "0"], "--bbox: give west, south, east, north"),
        (USAGE, ["made", "--tile", TILE, "--since", "soon"], "--since"),
        (DATA, ["made", "--tile", TILE, "--within", "nowhere.geojson"], "nowhere.geojson: there is no such file"),
        (USAGE, ["made", "--tile", TILE, "--out", "found.xlsx"], "found.xlsx: give a file name that ends in .geojson"),
        (USAGE, ["made", "--tile", TILE, "--sheet", "/nowhere/s.png"], "/nowhere/s.png: there is no folder /nowhere"),
        (USAGE, ["made,new2", "--tile", TILE], "there is no dataset 'new2'"),
        (USAGE, ["--tile", TILE], "give the name of a dataset, several names with commas, a pattern"),
        (USAGE, ["made", "--all", "--tile", TILE], "give names of datasets, or --all, but not both"),
    ],
)
def test_what_a_person_gets_wrong_is_one_line_and_a_status(
    status: int,
    arguments: list[Any],
    reason: str,
    search: Callable[..., Answer],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = [argument(tmp_path) if callable(argument) else argument for argument in arguments]
    with pytest.raises(SystemExit) as end:
        search(*words)
    output = capfd.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, output.err
    assert reason in errors[0]
    assert end.value.code == status
    assert "Traceback" not in output.err + output.out


def test_the_index_task_builds_once(root: Path) -> None:
    from rasterembed.dataset.manifest import read_manifest

    store = ObjectStore(root=str(root))
    manifest = read_manifest(store, "made")
    assert manifest is not None
    with disable_run_logger():
        assert index_vectors.fn(store, manifest, VectorIndexOptions()) is None
        first = index_vectors.fn(store, manifest, VectorIndexOptions(index="always", index_engine="vss"))
        again = index_vectors.fn(store, manifest, VectorIndexOptions(index="always", index_engine="vss"))
        assert first is not None
        assert first == again
        assert first.rows == 79
        assert index_vectors.fn(store, manifest, VectorIndexOptions(index="never")) is None
    assert store.sizes("indexes/made") == {}
