"""Search over patterns and whole stores: unusable datasets are left out and named, and the rest answers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.search.answer import Answer, UsedEngine
from rasterembed.search.contact_sheet import shown_datasets, write_sheet
from rasterembed.search.not_searched import NotSearchedReason
from rasterembed.search.output import write_answer
from rasterembed.search.output_file import find_output
from rasterembed.search.query import Query, Where, dataset_names
from rasterembed.search.searcher import Searcher, search
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset

VECTORS = np.random.default_rng(5).standard_normal((3, 4, 8)).astype(np.float32)
"""Vectors of the datasets in-1, in-2 and out, shape (datasets, tiles, dimensions)."""
TILES = [f"r00000{n // 2}_c00000{n % 2}" for n in range(4)]
QUERY = Query(tile=f"in-1/{TILES[0]}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a store with three usable datasets, and one for each reason why a dataset is not searched."""
    folder = tmp_path_factory.mktemp("patterns")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", 8)))
    other = Dinov3(model=str(checkpoint(folder / "other", 8, weights=b"other")))
    raster, lost = blank_raster(folder / "r.tif", 2, 2), blank_raster(folder / "lost.tif", 2, 2, crs=None)
    for dataset_id, vectors in zip(("in-1", "in-2", "out"), VECTORS, strict=True):
        write_dataset(store, dataset_id, raster, model, vectors)
    write_dataset(store, "in-embedded", raster, model, VECTORS[0], state="embedded")
    write_dataset(store, "in-failed", raster, model, VECTORS[0], state="failed_qa")
    write_dataset(store, "in-empty", raster, model, VECTORS[0], skip=frozenset(range(4)))
    write_dataset(store, "in-lost", lost, model, VECTORS[0])
    write_dataset(store, "in-other", raster, other, VECTORS[0])
    for dataset_id in ("in-broken", "in-noplan", "in-torn"):
        write_dataset(store, dataset_id, raster, model, VECTORS[0])
    store.write("datasets/in-broken/manifest.json", b"{")
    (plan,) = (folder / "store/datasets/in-noplan").glob("plan-*.json")
    plan.unlink()
    store.delete(Dataset.open(store, "in-torn").manifest.shards[0].path)
    return folder / "store"


@pytest.fixture
def store(made: Path) -> ObjectStore:
    return ObjectStore(root=str(made))


REASONS = {
    "in-embedded": NotSearchedReason.NOT_CHECKED,
    "in-failed": NotSearchedReason.FAILED_QA,
    "in-empty": NotSearchedReason.EMPTY,
    "in-other": NotSearchedReason.OTHER_MODEL,
    "in-broken": NotSearchedReason.UNREADABLE,
    "in-noplan": NotSearchedReason.UNREADABLE,
    "in-torn": NotSearchedReason.UNREADABLE,
}


def expected(*datasets: int) -> list[tuple[str, str]]:
    """Return dataset and tile of the answer to QUERY by NumPy."""
    unit = VECTORS.astype(np.float64) / np.linalg.norm(VECTORS, axis=2, keepdims=True)
    distances = 1 - unit @ unit[0, 0]
    names = ["in-1", "in-2", "out"]
    rows = [(distances[d, n], names[d], TILES[n]) for d in datasets for n in range(4) if (d, n) != (0, 0)]
    return [(dataset, tile) for _, dataset, tile in sorted(rows)]


def tiles(answer: Answer) -> list[tuple[str, str]]:
    return [(hit.dataset_id, hit.tile_id) for hit in answer.hits if hit.dataset_id != "in-lost"]


@pytest.mark.parametrize(("pattern", "datasets"), [("in-*", (0, 1)), ("*", (0, 1, 2)), ("in-[12]", (0, 1))])
def test_a_pattern_searches_what_is_usable_and_names_the_rest(
    store: ObjectStore, pattern: str, datasets: tuple[int, ...]
) -> None:
    answer = search(store, [pattern], QUERY, k=50)
    assert tiles(answer) == expected(*datasets)
    assert {one.dataset_id: one.reason for one in answer.not_searched} == (REASONS if pattern != "in-[12]" else {})
    searched = len(datasets) + (pattern != "in-[12]")  # in-lost has vectors, but no place
    assert f"searched {searched} of {searched + len(answer.not_searched)} datasets" in answer.notes()


def test_the_answer_says_why_a_dataset_was_not_searched(store: ObjectStore) -> None:
    lines = str(search(store, ["in-*"], QUERY)).splitlines()
    (line,) = [line for line in lines if line.startswith("not searched: ")]
    assert "in-embedded (quality checks have not passed yet)" in line
    assert "in-failed (failed its quality checks)" in line
    assert "in-empty (all tiles were skipped)" in line
    assert re.search(r"in-broken \(cannot be read: [^)]*manifest\.json", line)
    assert re.search(r"in-torn \(cannot be read: dataset 'in-torn': [^)]*\.parquet", line)
    assert "in-other (vectors cannot be compared: model: " in line
    assert "in-1  " in str(lines)


def test_a_named_dataset_must_be_usable(store: ObjectStore) -> None:
    with pytest.raises(DataError, match="dataset 'in-failed' cannot be used"):
        search(store, ["in-1", "in-failed"], QUERY)
    with pytest.raises(DataError, match="'in-1' and 'in-other' cannot be searched together"):
        search(store, ["in-1", "in-other"], QUERY)
    with pytest.raises(DataError, match=r"dataset 'in-torn': .*\.parquet"):
        search(store, ["in-torn", "out*"], Query(tile=f"out/{TILES[0]}"))
    both = search(store, ["in-2", "in-[12]", "in-1"], QUERY, k=50)
    assert tiles(both) == expected(0, 1)


def test_a_pattern_that_matches_nothing_is_named_with_what_the_store_has(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no dataset in .* matches 'inn-\*': the store has in-"):
        search(store, ["inn-*"], QUERY)
    with pytest.raises(UsageError, match=r"matches 'mosaic\*': no dataset of the store has a similar id: list all "):
        search(store, ["mosaic*"], QUERY)
    with pytest.raises(UsageError, match="the store has no dataset"):
        search(ObjectStore(root=str(tmp_path)), ["*"], QUERY)
    with pytest.raises(DataError, match=r"no dataset can be searched: in-empty \(all tiles were skipped\); in-failed"):
        search(store, ["in-e[m]pty", "in-f*"], QUERY)


def test_the_model_is_that_of_the_query_s_dataset_else_of_most_datasets(store: ObjectStore) -> None:
    answer = search(store, ["*"], Query(tile=f"in-other/{TILES[1]}"), k=50)
    assert {hit.dataset_id for hit in answer.hits} == {"in-other"}
    assert {one.dataset_id for one in answer.not_searched} > {"in-1", "in-2", "out"}
    with Searcher(store, ["*"]) as searcher:
        assert "in-other" not in {dataset.id for dataset in searcher.datasets}
    with Searcher(store, ["in-other", "in-*"]) as searcher:
        assert [dataset.id for dataset in searcher.datasets] == ["in-other"]
        with pytest.raises(UsageError, match=r"dataset 'in-1' is not searched: vectors cannot be compared: model: "):
            searcher.ask(QUERY)
    # A pattern names the query's dataset, and a name another model.
    with pytest.raises(DataError, match="'in-1' and 'in-other' cannot be searched together"):
        search(store, ["in-*", "in-other"], QUERY)


def test_a_place_becomes_a_tile_and_the_answer_says_which(store: ObjectStore) -> None:
    hit = search(store, ["in-1"], Query(tile=TILES[1], include_query=True), k=1).hits[0]
    assert hit.lon is not None
    assert hit.lat is not None
    answer = search(store, ["in-*"], Query(lonlat=(hit.lon, hit.lat)), k=3)
    assert answer.notes()[0] == (
        f"longitude {hit.lon:.5f}, latitude {hit.lat:.5f} is in tile {TILES[1]} of dataset in-1 (column 1, row 0)"
    )
    empty = search(store, ["in-*"], Query(lonlat=(hit.lon, hit.lat)), Where(scenes=("nowhere",)))
    assert not any("is in tile" in note for note in empty.notes())
    (example,) = (one for one in answer.examples if one.lonlat is not None)
    crowded = answer.model_copy(update={"examples": (example,) * 9})
    assert crowded.notes()[:4] == [answer.notes()[0]] * 3 + ["and in tiles of 6 more scenes"]
    with pytest.raises(DataError, match="no dataset of this search has a place on Earth"):
        search(store, ["in-l*"], Query(lonlat=(hit.lon, hit.lat)))


def test_a_place_is_looked_up_in_readable_tile_indexes(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "root")
    store = ObjectStore(root=str(tmp_path / "root"))
    hit = search(store, ["in-1"], Query(tile=TILES[1], include_query=True), k=1).hits[0]
    assert hit.lon is not None
    assert hit.lat is not None
    store.write(Dataset.open(store, "in-1").manifest.index, b"damaged")
    answer = search(store, ["in-[12]"], Query(lonlat=(hit.lon, hit.lat)), k=9)
    assert f"is in tile {TILES[1]} of dataset in-2 " in answer.notes()[0]
    assert [(one.dataset_id, one.reason) for one in answer.not_searched] == [("in-1", NotSearchedReason.UNREADABLE)]


def test_an_area_and_a_time_leave_datasets_out_and_name_them(store: ObjectStore) -> None:
    area = search(store, ["in-*"], QUERY, Where(bbox=(20, 55, 30, 65)), k=50)
    assert {one.dataset_id for one in area.not_searched if one.reason is NotSearchedReason.NO_PLACE} == {"in-lost"}
    dated = search(store, ["in-1"], Query(tile=TILES[0]), Where.model_validate({"since": "2020-01-01"}))
    assert dated.notes()[:2] == [
        "searched 0 of 1 dataset",
        "not searched: in-1 (its time of acquisition is not known)",
    ]


def test_tables_and_sheets_show_the_dataset_of_a_tile(store: ObjectStore, tmp_path: Path) -> None:
    several, one = search(store, ["in-[12]"], QUERY, k=5), search(store, ["in-1"], Query(tile=TILES[0]), k=3)
    for answer, name in ((several, "several"), (one, "one")):
        write_answer(answer, tmp_path / f"{name}.csv")
        assert (tmp_path / f"{name}.csv").read_text().startswith("rank,dataset_id,tile_id,")
        write_sheet(answer, shown_datasets(store, answer), tmp_path / f"{name}.png")
    # One more line under each picture: of the example, and of one or two rows of hits.
    height = [Image.open(tmp_path / f"{name}.png").height for name in ("several", "one")]
    assert height[0] > height[1]
    assert "dataset  " in str(several)


def test_many_datasets_are_counted(store: ObjectStore) -> None:
    answer = search(store, ["in-1"], Query(tile=TILES[0]))
    engines = tuple(UsedEngine(dataset_id=f"d{n}", name="scan", no_index="absent") for n in range(12))  # type: ignore[arg-type]
    notes = answer.model_copy(update={"engines": engines}).notes()
    assert notes[:2] == ["searched 12 of 12 datasets", "12 datasets: answered by the exact scan (there is no index)"]


def test_names_or_all_datasets() -> None:
    assert dataset_names(" a, in-* ", False) == ["a", "in-*"]
    assert dataset_names(None, True) == ["*"]
    for dataset, every in ((None, False), (" ,", False), ("a", True)):
        with pytest.raises(UsageError, match="`all`"):
            dataset_names(dataset, every)


def test_results_in_the_store_never_replace_a_file_of_a_dataset(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(made, root)
    store = ObjectStore(root=str(root))
    answer = search(store, ["in-1"], Query(tile=TILES[0]), k=3)
    for text in ("store:searches/a.csv", f"{root}/searches/b.csv"):
        output = find_output(store, text, ".csv", local=False)
        write_answer(answer, output)
        assert Path(str(output)).read_text().startswith("rank,dataset_id")
    assert {path.name for path in (root / "searches").iterdir()} == {"a.csv", "b.csv"}
    for key in (
        "datasets/in-1/x.csv",
        "embeddings/in-1/x.csv",
        "../x.csv",
        "a//x.csv",
        "a/./x.csv",
        "/x.csv",
        "a\n/x.csv",
    ):
        with pytest.raises(UsageError, match=r"is no key|belongs to datasets"):
            find_output(store, f"store:{key}", ".csv")
    with pytest.raises(UsageError, match=r"this run is in a container.* store:searches/x\.csv"):
        find_output(store, str(tmp_path / "x.csv"), ".csv", local=False)
    bucket = ObjectStore(root="s3://bucket/at")
    assert find_output(bucket, "s3://bucket/at/found/x.csv", ".csv", local=False).place == "found/x.csv"
    for uri in ("s3://bucket/x.csv", "s3://other/at/x.csv", "https://host/x.csv"):
        with pytest.raises(UsageError, match="it is not below s3://bucket/at"):
            find_output(bucket, uri, ".csv")


@pytest.mark.parametrize("ending", [".parquet", ".png"])
def test_no_spelling_of_a_path_reaches_a_file_of_a_dataset(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, disk, elsewhere = tmp_path / "s", tmp_path / "disk", tmp_path / "elsewhere"
    for folder in (root / "embeddings/a", disk, elsewhere):
        folder.mkdir(parents=True)
    (root / "qa").symlink_to(disk)
    (root / "mine").symlink_to("embeddings")
    (elsewhere / "link").symlink_to(root / "embeddings")
    (tmp_path / "same").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    for store in (ObjectStore(root="s"), ObjectStore(root=str(tmp_path / "same"))):
        for folder in (
            "s/embeddings/a",
            "./s//embeddings/a",
            f"{tmp_path}//s/embeddings/a",
            f"{tmp_path}/elsewhere/../s/embeddings/a",
            "same/embeddings/a",
            "elsewhere/link/a",
            "elsewhere/link/../embeddings/a",
            "s/mine/a",
            "store:mine/a",
            "disk",
            "s/datasets/not-yet",
        ):
            with pytest.raises(UsageError, match="belongs to datasets"):
                find_output(store, f"{folder}/x{ending}", ending)
        assert find_output(store, f"elsewhere/x{ending}", ending).store is None
        for allowed in (f"s/x{ending}", f"same/x{ending}", f"s/found//x{ending}"):
            assert find_output(store, allowed, ending, local=False).place.removeprefix("found/") == f"x{ending}"
