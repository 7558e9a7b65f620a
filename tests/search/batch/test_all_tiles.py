"""All tiles come from the shards, from the table, or from the files of a vector index."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rasterembed import DataError, Dataset, Dinov3, ObjectStore, UsageError, VectorIndexOptions
from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.search.batch import neighbours
from rasterembed.search.batch.all_tiles import open_all_tiles
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.vector_files import VectorFiles
from tests.search.batch.conftest import COLS, DIMENSIONS, ROWS, TILES, VALID, VECTORS
from tests.support.vectors import blank_raster, checkpoint, write_dataset


@pytest.mark.parametrize("vector_dtype", ["float32", "float16", "int8"])
def test_the_files_of_an_index_give_the_same_result(tmp_path: Path, vector_dtype: str) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS)))
    raster = blank_raster(tmp_path / "blank.tif", ROWS, COLS)
    write_dataset(store, "small", raster, model, VECTORS, vector_dtype=vector_dtype)
    dataset = Dataset.open(store, "small")
    dataset.neighbours(tmp_path / "before.parquet", 5)
    build_vector_index(VectorFiles.of_dataset(dataset), VectorIndexOptions(index="always", index_engine="flat"))
    with open_all_tiles(dataset) as tiles:
        assert not list(tiles.folder.iterdir()), "the tiles are those of the index"
        assert tiles.tile_ids.to_pylist() == TILES
        assert set(tiles.dataset_ids.to_pylist()) == {"small"}
    dataset.neighbours(tmp_path / "after.parquet", 5)
    before, after = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("before", "after"))
    assert before.drop_columns("distance").equals(after.drop_columns("distance"))
    np.testing.assert_allclose(before["distance"].to_numpy(), after["distance"].to_numpy(), atol=1e-6)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_a_vector_without_a_direction_is_refused(tmp_path: Path, bad: float) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS)))
    vectors = VECTORS.copy()
    vectors[17] = bad
    write_dataset(store, "bad", blank_raster(tmp_path / "blank.tif", ROWS, COLS), model, vectors)
    with pytest.raises(DataError, match=f"the vector of tile bad/{TILES[17]} has no direction"):
        Dataset.open(store, "bad").neighbours(tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_dataset_that_is_not_ready_is_refused(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS)))
    raster = blank_raster(tmp_path / "blank.tif", ROWS, COLS)
    write_dataset(store, "early", raster, model, VECTORS, state="embedded")
    dataset = Dataset.open(store, "early", ("embedded",))
    for ask in (dataset.neighbours, dataset.deduplicate, dataset.cluster, dataset.diversify):
        with pytest.raises(DataError, match="quality checks have not passed yet"):
            ask(tmp_path / "out.parquet")


def test_a_result_never_replaces_a_file_of_the_dataset(dataset: Dataset, tmp_path: Path) -> None:
    shard = dataset.store.uri(dataset.shards[0].path)
    for ask in (dataset.neighbours, dataset.deduplicate, dataset.cluster, dataset.diversify):
        with pytest.raises(UsageError, match="belongs to datasets"):
            ask(shard)
        with pytest.raises(UsageError, match="give a file name that ends in"):
            ask(tmp_path / "out.txt")


def test_the_files_of_a_killed_process_are_removed_by_the_next_one(dataset: Dataset, out: Path) -> None:
    """A folder that a running process uses is locked, and stays."""
    with open_all_tiles(dataset) as tiles:
        assert any(tiles.folder.iterdir())
        left = tiles.folder.with_name("all-tiles-left")
        left.mkdir()
        (left / "vectors.bin").write_bytes(b"1234")
        for folder in (left, tiles.folder):
            os.utime(folder, (0, 0))
        dataset.cluster(out, 4)
        assert not left.exists()
        assert any(tiles.folder.iterdir())
    assert not tiles.folder.exists()


@pytest.mark.parametrize("scale", [1e38, 1e-40])
def test_very_long_and_very_short_vectors_give_the_same_answers(dataset: Dataset, tmp_path: Path, scale: float) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS)))
    vectors = (VECTORS / np.abs(VECTORS).max() * scale).astype(np.float32)
    raster = blank_raster(tmp_path / "blank.tif", ROWS, COLS)
    write_dataset(store, "small", raster, model, vectors, valid_fraction=VALID, shard_tiles=64)
    scaled = Dataset.open(store, "small")
    for question in ("neighbours", "deduplicate", "cluster", "diversify"):
        tables = []
        for one in (dataset, scaled):
            getattr(one, question)(tmp_path / "result.parquet")
            tables.append(pq.read_table(tmp_path / "result.parquet"))
        assert tables[0]["tile_id"].equals(tables[1]["tile_id"]), question
        np.testing.assert_allclose(tables[1]["distance"], tables[0]["distance"], atol=1e-4, err_msg=question)


def test_a_name_that_cannot_be_written_is_found_before_the_work(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.parquet").mkdir()
    monkeypatch.setattr(neighbours, "open_all_tiles", None)
    with pytest.raises(UsageError, match=r"folder\.parquet: it is a folder"):
        dataset.neighbours(tmp_path / "folder.parquet")
    with pytest.raises(UsageError, match="zero character"):
        dataset.neighbours(f"{tmp_path}/a\0b.parquet")


def test_an_error_of_a_picture_says_that_the_result_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model, raster = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS))), tmp_path / "blank.tif"
    write_dataset(store, "four", blank_raster(raster, 2, 2), model, VECTORS[:4])
    raster.unlink()
    questions = [
        ["neighbours", "four", "--picture"],
        ["deduplicate", "four", "--threshold", "0.99", "--picture"],
        ["cluster", "four", "--classes", "2", "--picture"],
        ["diversify", "four", "--picture"],
        ["search", "four", "--tile", "r000000_c000000", "--sheet"],
    ]
    for question in questions:
        out, picture = tmp_path / f"{question[0]}.parquet", tmp_path / "picture.png"
        with pytest.raises(SystemExit) as end:
            run(app, [*question, str(picture), "--root", store.root, "--out", str(out)])
        assert end.value.code == 1
        assert capsys.readouterr().err == (
            f"error: {raster}: there is no such file; no picture was drawn, but {out} is complete\n"
        )
        assert pq.read_table(out).num_rows > 0
        assert not picture.exists()


def test_a_single_tile_has_no_neighbour(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS)))
    write_dataset(store, "one", blank_raster(tmp_path / "blank.tif", 1, 1), model, VECTORS[:1])
    dataset = Dataset.open(store, "one")
    dataset.neighbours(tmp_path / "a.parquet", picture=tmp_path / "a.png")
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0
    assert (tmp_path / "a.png").stat().st_size > 0
    dataset.deduplicate(tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "b.parquet")["keep"].to_pylist() == [True]
    dataset.diversify(tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text().count("\n") == 2
