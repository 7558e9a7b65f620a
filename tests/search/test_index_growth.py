"""The vector index of a collection grows when scenes are added, drops scenes that are gone, and is rebuilt in time."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from rasterio.transform import Affine

from rasterembed import collection_upkeep
from rasterembed.collection.collection import Collection
from rasterembed.collection_pipeline import CollectionSteps, embed_collection
from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.dataset.deletion import delete_dataset
from rasterembed.dataset.verify import DamageKind
from rasterembed.model.choice import Dinov3
from rasterembed.search.batch.all_tiles import open_all_tiles
from rasterembed.search.batch.joined_segments import join_segments
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.engines.engine import CodesInfo
from rasterembed.search.engines.scan import connect
from rasterembed.search.filter_columns import FilterColumns
from rasterembed.search.index import building, growth
from rasterembed.search.index.building import BuildOutcome, BuildResult, build_vector_index
from rasterembed.search.index.description import Segment
from rasterembed.search.index.growth import RebuildReason
from rasterembed.search.index.opening import OpenIndex, open_segments
from rasterembed.search.index_options import BuiltEngine, TableIndexOptions
from rasterembed.search.query import Pick
from rasterembed.search.row_selection import RowSelection
from rasterembed.search.table_filters import TableFilters
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.scenes import collection_options, write_scene
from tests.support.servers import S3Server
from tests.support.vectors import blank_raster, checkpoint, write_dataset

DIMENSIONS = 24
SIDE = 12
"""Rows and columns of tiles of a scene."""


@dataclass(frozen=True)
class Survey:
    """A collection of scenes with random vectors."""

    folder: Path
    model: Dinov3

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(root=str(self.folder / "store"))

    @property
    def index_folder(self) -> Path:
        return self.folder / "store" / "collections" / "survey" / "index"

    def write(self, name: str, seed: int | None = None) -> None:
        """Write a scene. Scenes of other names have other vectors and other places."""
        number = ord(name) - ord("a")
        place = Affine(10, 0, 360_000 + 500 * number, 0, -10, 6_720_000)
        raster = blank_raster(self.folder / f"{name}.tif", SIDE, SIDE, transform=place)
        vectors = vectors_of(SIDE * SIDE, number if seed is None else seed)
        write_dataset(self.store, name, raster, self.model, vectors, shard_tiles=64)

    def collect(self, names: Sequence[str]) -> Collection:
        """Make the catalogue and the table of the scenes with these names, and of earlier ones that still exist."""
        rebuild_collection(self.store, "survey", datasets=list(names))
        return Collection.open(self.store, "survey")

    def files(self) -> VectorFiles:
        collection = Collection.open(self.store, "survey")
        assert collection.table is not None
        return VectorFiles.of_table(collection, collection.table)

    def build(self, engine: BuiltEngine = "flat") -> BuildResult:
        return build_vector_index(self.files(), TableIndexOptions(index="always", index_engine=engine))

    def table(self) -> dict[tuple[str, str], NDArray[np.float32]]:
        """Return the vectors in the Parquet files of the table, by dataset id and tile id."""
        files = self.files()
        rows: dict[tuple[str, str], NDArray[np.float32]] = {}
        for key in files.keys:
            table = pq.read_table(files.store.uri(key))
            names = zip(table["dataset_id"].to_pylist(), table["tile_id"].to_pylist(), strict=True)
            rows |= dict(zip(names, np.array(table["embedding"].to_pylist(), np.float32), strict=True))
        return rows


def vectors_of(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)


def rows_of(index: OpenIndex) -> dict[tuple[str, str], NDArray[np.float32]]:
    """Return the unit vectors of the live rows of an index, by dataset id and tile id. No row may occur twice."""
    rows: dict[tuple[str, str], NDArray[np.float32]] = {}
    for segment in index.segments:
        numbers = np.arange(len(segment.rows.table)) if segment.live is None else segment.live.numbers
        table = segment.rows.take(numbers, ["dataset_id", "tile_id"]).to_pylist()
        for row, vector in zip(table, segment.rows.vectors.unit(numbers), strict=True):
            assert (row["dataset_id"], row["tile_id"]) not in rows
            rows[row["dataset_id"], row["tile_id"]] = vector
    return rows


def check(survey: Survey) -> OpenIndex:
    """Check that the live rows of the index are those of the table, and that no other file is in its folder.

    A search then finds the nearest tiles.
    """
    index = open_segments(survey.files())
    found, wanted = rows_of(index), survey.table()
    assert found.keys() == wanted.keys()
    for name, vector in wanted.items():
        np.testing.assert_allclose(found[name], vector / np.linalg.norm(vector), atol=1e-6)
    assert {path.name for path in survey.index_folder.iterdir()} == {
        "index.json",
        *(file.name for file in index.description.files),
    }
    assert survey.build().outcome is BuildOutcome.CURRENT
    query = vectors_of(1, 99)[0]
    with CollectionSearcher(survey.store, "survey") as searcher:
        answer = searcher.ask_vector(query, k=30)
    assert answer.engines[0].name == "flat"
    cosine = {name: vector @ query / np.linalg.norm(vector) / np.linalg.norm(query) for name, vector in wanted.items()}
    nearest = sorted(cosine, key=lambda name: -cosine[name])[:30]
    assert [(hit.dataset_id, hit.tile_id) for hit in answer.hits] == nearest
    return index


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Make a collection of the scenes a and b, with an index, and a scene c that is not in it. No test changes it."""
    folder = tmp_path_factory.mktemp("growth")
    survey = Survey(folder / "made", Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS))))
    survey.folder.mkdir()
    for name in "abc":
        survey.write(name)
    survey.collect("ab")
    result = survey.build()
    assert result.describe() == "built, because there is no index"
    return survey


@pytest.fixture
def survey(pristine: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    """Copy that collection, for tests that change it. Small segments are not joined."""
    monkeypatch.setattr(growth, "SMALL_SEGMENT_ROWS", 0)
    monkeypatch.setattr(growth, "MAX_GROWTH", 10.0)
    # The tests build the index themselves.
    monkeypatch.setattr(collection_upkeep, "update_table_index", lambda *_: None)
    shutil.copytree(pristine.folder, tmp_path / "copy", copy_function=shutil.copy2)
    return Survey(tmp_path / "copy", pristine.model)


def test_a_rebuilt_catalogue_updates_the_index(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    survey.collect("c")
    index = open_segments(survey.files())
    assert rows_of(index).keys() == survey.table().keys()
    shutil.rmtree(survey.index_folder)
    survey.write("d")
    survey.collect("d")
    assert not survey.index_folder.exists()


def test_questions_about_all_tiles_read_the_vectors_of_several_segments(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "MAX_DROPPED", 0.6)
    survey.collect("c")
    survey.build()
    Collection.open(survey.store, "survey").remove_scene("a")
    survey.build()
    index = open_segments(survey.files())
    assert [segment.dropped for segment in index.description.segments] == [("a",), ()]
    collection, table = Collection.open(survey.store, "survey"), survey.table()
    with open_all_tiles(collection) as tiles:
        assert [path.name for path in tiles.folder.iterdir()] == ["rows.arrow"], "no vector is copied"
        assert list(zip(tiles.dataset_ids.to_pylist(), tiles.tile_ids.to_pylist(), strict=True)) == list(table)
        wanted = np.array([vector / np.linalg.norm(vector) for vector in table.values()])
        np.testing.assert_allclose(np.concatenate(list(tiles.vectors.blocks(50))), wanted, atol=1e-6)
        backwards = np.arange(len(wanted))[::-1]
        np.testing.assert_allclose(tiles.vectors.unit(backwards), wanted[::-1], atol=1e-6)
        # The rows of an index in another order would get the vectors of other rows.
        batch, schema = tiles.rows.table.combine_chunks().to_batches()[0], tiles.rows.table.schema
        for batches, fits in (([batch], True), ([batch.take(pa.array(backwards))], False), ([batch.slice(1)], False)):
            joined = join_segments(index, pa.array(["b", "c"]), batches, schema, tmp_path / "rows.arrow")
            assert (joined is not None) == fits
    index.close()
    questions = {"neighbours": {"k": 5}, "cluster": {"classes": 4}, "deduplicate": {"threshold": 0.5}}
    for question, options in questions.items():
        getattr(collection, question)(tmp_path / f"{question}-index.parquet", **options)
    shutil.rmtree(survey.index_folder)
    for question, options in questions.items():
        getattr(collection, question)(tmp_path / f"{question}-table.parquet", **options)
        assert pq.read_table(tmp_path / f"{question}-index.parquet").equals(
            pq.read_table(tmp_path / f"{question}-table.parquet")
        )


def test_a_removed_scene_is_removed_from_the_index_too(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(growth, "MAX_DROPPED", 0.6)
    Collection.open(survey.store, "survey").remove_scene("a")
    index = open_segments(survey.files())
    assert {dataset for dataset, _ in rows_of(index)} == {"b"}
    assert [segment.dropped for segment in index.description.segments] == [("a",)]
    # The command does the same. Without a scene, the collection has no index.
    run(app, ["collection", "remove-scene", "survey", "b", "--root", survey.store.root, "--yes"])
    assert not list(survey.index_folder.iterdir())


def test_verify_finds_a_changed_byte_of_the_index_also_if_a_search_has_checked_the_file(
    survey: Survey, capsys: pytest.CaptureFixture[str]
) -> None:
    survey.collect("c")
    survey.build()
    check(survey).close()
    collection = Collection.open(survey.store, "survey")
    assert collection.verify() == ()
    vectors = min(survey.index_folder.glob("vectors-*"))
    before = vectors.stat()
    content = vectors.read_bytes()
    vectors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(vectors, ns=(before.st_atime_ns, before.st_mtime_ns))
    (damage,) = collection.verify()
    assert (damage.key, damage.kind) == (f"collections/survey/index/{vectors.name}", DamageKind.OTHER_CONTENT)
    with pytest.raises(SystemExit):
        run(app, ["collection", "verify", "survey", "--root", survey.store.root])
    printed = capsys.readouterr()
    assert re.search(
        rf"{vectors.name}: its sha256 is \w+…, index.json says \w+…: delete this file, then embed the collection again",
        printed.out,
    )
    # One segment has four files, and the index has two segments.
    assert "1 of 36 checks failed" in printed.err
    vectors.unlink()
    (damage,) = collection.verify()
    assert damage.kind is DamageKind.MISSING
    assert damage.remedy.startswith("embed the collection again (`rasterembed collection embed SCENES ")
    assert survey.build().outcome is BuildOutcome.BUILT
    assert collection.verify() == ()
    (survey.index_folder / "index.json").write_text("{")
    (damage,) = collection.verify()
    assert (damage.key, damage.kind) == ("collections/survey/index/index.json", DamageKind.UNREADABLE)


def test_a_deleted_collection_leaves_no_file_of_its_index(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MAX_DROPPED", 0.6)
    survey.collect("c")
    survey.build()
    delete_dataset(survey.store, "a")
    survey.collect("bc")
    survey.build()
    (first, second) = check(survey).description.segments
    assert (first.dropped, second.dropped) == (("a",), ())
    (survey.index_folder / "rows-0123456789abcdef.arrow").write_bytes(b"a build was killed")
    Collection.open(survey.store, "survey").delete()
    assert not [path for path in (Path(survey.store.root) / "collections").rglob("*") if path.is_file()]


def test_scenes_that_are_added_become_a_segment(survey: Survey) -> None:
    first = {path.name: path.stat().st_mtime_ns for path in survey.index_folder.glob("*-*")}
    survey.collect("c")
    result = survey.build()
    assert result.outcome is BuildOutcome.GREW
    assert result.describe() == "brought up to date (scenes that are new or changed: 1; that are gone or changed: 0)"
    index = check(survey)
    assert [segment.rows for segment in index.description.segments] == [2 * SIDE * SIDE, SIDE * SIDE]
    kept = {path.name: path.stat().st_mtime_ns for path in survey.index_folder.glob("*-*")}
    assert first.items() <= kept.items()


def test_the_lists_of_the_first_segment_serve_the_next_ones(survey: Survey) -> None:
    options = TableIndexOptions(index="always", index_engine="ivf", index_lists=3)
    built = build_vector_index(survey.files(), options)
    assert built.describe() == "built, because the earlier index was for the engine flat"
    survey.collect("c")
    grown = build_vector_index(survey.files(), options)
    assert grown.outcome is BuildOutcome.GREW
    assert grown.index is not None
    assert [segment.codes.lists for segment in grown.index.segments] == [3, 3]
    assert build_vector_index(survey.files(), options).outcome is BuildOutcome.CURRENT
    other = TableIndexOptions(index="always", index_engine="ivf", index_lists=4)
    assert (
        build_vector_index(survey.files(), other).describe() == "built, because the earlier index had other parameters"
    )


def test_a_scene_that_is_gone_is_masked(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MAX_DROPPED", 0.6)
    delete_dataset(survey.store, "a")
    survey.collect("b")
    result = survey.build()
    assert result.describe() == "brought up to date (scenes that are new or changed: 0; that are gone or changed: 1)"
    (segment,) = check(survey).description.segments
    assert (segment.dropped, segment.dropped_rows) == (("a",), SIDE * SIDE)


def test_a_scene_that_changed_is_masked_and_added_again(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MAX_DROPPED", 0.6)
    for seed in (50, 51):  # The second time, the segment with only this scene is replaced as a whole.
        survey.write("b", seed)
        survey.collect("b")
        assert (
            survey.build().describe()
            == "brought up to date (scenes that are new or changed: 1; that are gone or changed: 1)"
        )
        index = check(survey)
        assert [segment.dropped for segment in index.description.segments] == [("b",), ()]


def test_small_segments_are_joined(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SMALL_SEGMENT_ROWS", 1000)
    survey.write("d")
    for name, rows in (("c", SIDE * SIDE), ("d", 2 * SIDE * SIDE)):
        survey.collect(name)
        assert survey.build().outcome is BuildOutcome.GREW
        assert [segment.rows for segment in check(survey).description.segments] == [2 * SIDE * SIDE, rows]


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_GROWTH", 1.2, RebuildReason.GREW),
        ("MAX_SEGMENTS", 1, RebuildReason.MANY_SEGMENTS),
        ("MAX_IMBALANCE", 0.9, RebuildReason.IMBALANCED),
    ],
)
def test_an_index_that_grew_too_much_is_rebuilt(
    survey: Survey, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, reason: RebuildReason
) -> None:
    monkeypatch.setattr(growth, limit, value)
    survey.collect("c")
    assert survey.build().describe() == f"built, because {reason}"
    assert len(check(survey).segments) == 1


def test_an_index_with_many_dropped_rows_is_rebuilt(survey: Survey) -> None:
    delete_dataset(survey.store, "a")
    survey.collect("b")
    assert survey.build().describe() == f"built, because {RebuildReason.MANY_DROPPED}"
    assert len(check(survey).segments) == 1


def test_a_table_that_is_older_than_the_catalogue_gets_an_index_that_cannot_grow(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(collection_upkeep, "write_table", lambda *_: survey.files().collection.table)
        survey.collect("c")
    shutil.rmtree(survey.index_folder)
    assert survey.build().outcome is BuildOutcome.BUILT
    assert rows_of(open_segments(survey.files())).keys() == survey.table().keys()
    survey.collect("c")
    assert survey.build().describe() == f"built, because {RebuildReason.UNKNOWN_SCENES}"
    check(survey)


def test_a_damaged_list_of_scenes_leads_to_a_rebuild(survey: Survey) -> None:
    (scenes,) = survey.index_folder.glob("scenes-*")
    scenes.write_bytes(scenes.read_bytes()[::-1])
    survey.collect("c")
    assert survey.build().describe().startswith("built, because the index is broken: a file of it is missing")
    assert len(check(survey).segments) == 1


def test_the_imbalance_of_all_segments_is_bounded() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes = rng.integers(0, 50, (3, 8)) ** 2 + 1
        segments = [
            Segment.model_construct(
                rows=int(of_one.sum()), codes=CodesInfo(engine="ivf", lists=8, probes=1, imbalance=factor)
            )
            for of_one in sizes
            for factor in [8 * (of_one**2).sum() / of_one.sum() ** 2]
        ]
        together = sizes.sum(0)
        assert growth.imbalance(segments) >= 8 * (together**2).sum() / together.sum() ** 2 - 1e-9


def test_an_index_that_another_build_replaces_meanwhile_is_not_broken(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One build grows the index, while another one rebuilds it and deletes the segment that the first one keeps."""
    survey.collect("c")
    write = building.write_segment
    others: list[BuildResult] = []

    def interrupted(*arguments: Any) -> Segment:
        segment = write(*arguments)
        if not others:
            monkeypatch.setattr(growth, "MAX_SEGMENTS", 1)
            others.append(BuildResult(BuildOutcome.CURRENT, None))
            others[0] = survey.build()
        return segment

    monkeypatch.setattr(building, "write_segment", interrupted)
    result = survey.build()
    assert others[0].outcome is BuildOutcome.BUILT
    assert (result.outcome, result.index) == (BuildOutcome.CURRENT, others[0].index)
    check(survey)


def test_fresh_files_of_another_build_are_kept(survey: Survey) -> None:
    fresh = survey.index_folder / "rows-0123456789ab-01234567.arrow"
    dead = [survey.index_folder / name for name in ("codes-0123456789ab-89abcdef.faiss", "89abcdef.part")]
    for path in (fresh, *dead):
        path.write_bytes(b"rows")
    for path in dead:
        os.utime(path, (0, 0))
    survey.build()
    assert fresh.exists()
    assert not any(path.exists() for path in dead)
    fresh.unlink()
    check(survey)


@pytest.mark.parametrize("pick", ["latest", "clearest"])
def test_a_dropped_row_is_not_picked(pick: Pick) -> None:
    """The scene a changed. Its old row in the first segment is dropped, and its new row is in the second one."""
    con = connect()
    scenes = pa.table({"dataset_id": ["a", "b"], "time": [2, 1], "cloud_cover": [0.0, 50.0]})
    row = {"tile_id": ["x+000001_y+000001"], "lattice": ["one"], "valid_fraction": pa.array([1.0], pa.float32())}
    old = pa.table({"dataset_id": ["b", "a"]} | {name: [*values, *values] for name, values in row.items()})
    live = RowSelection.of_mask(np.array([True, False]))
    segments = [FilterColumns("made", old, live), FilterColumns("made", pa.table({"dataset_id": ["a"]} | row))]
    filters = TableFilters(con, cast(VectorFiles, None), scenes, every_scene=True, pick=pick)
    chosen = [selection for selection in filters.select(segments) if selection is not None]
    assert [selection.numbers.tolist() for selection in chosen] == [[], [0]]
    con.close()


class Recorder(CollectionSteps):
    """Steps that keep what became of the vector index."""

    def __init__(self) -> None:
        self.results: list[BuildResult] = []

    def on_indexed(self, result: BuildResult) -> None:
        self.results.append(result)


@pytest.mark.usefixtures("plain_pictures")
def test_a_run_lets_the_index_grow(tmp_path: Path, tiny_vit: Path) -> None:
    store, steps = ObjectStore(root=str(tmp_path / "store")), Recorder()
    wanted = TableIndexOptions(index="always")
    write_scene(tmp_path / "scenes/a.tif", 0)
    write_scene(tmp_path / "scenes/b.tif", 1)
    others = [tmp_path / "scenes/c.tif", tmp_path / "scenes/d.tif"]
    for index in (wanted, wanted, TableIndexOptions(), TableIndexOptions(), TableIndexOptions(index="never")):
        chosen = collection_options(tiny_vit, quality_checks=True, vector_index=index)
        embed_collection(store, "survey", str(tmp_path / "scenes"), chosen, steps=steps)
        if others:
            write_scene(others.pop(0), 3 - len(others))
    assert [result.describe() for result in steps.results] == [
        "built, because there is no index",
        "brought up to date (scenes that are new or changed: 1; that are gone or changed: 0)",
        # Without --index, the index of a small table stays and grows.
        "brought up to date (scenes that are new or changed: 1; that are gone or changed: 0)",
        "the index is current",
        "the index was removed: the options turn it off",
    ]
    assert [result.removed for result in steps.results] == [False, False, False, False, True]
    assert not list((tmp_path / "store/collections/survey/index").iterdir())


def test_an_index_on_s3_grows_without_a_download_of_rows_and_vectors(
    moto: S3Server, bucket: str, pristine: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(collection_upkeep, "update_table_index", lambda *_: None)
    moto.create_bucket(bucket)
    keys = {"access_key": moto.access_key, "secret_key": moto.secret_key}
    store = ObjectStore(root=f"s3://{bucket}/at", endpoint_url=moto.endpoint_url, **keys)
    options = TableIndexOptions(index="always", index_engine="ivf", index_lists=3)

    def build() -> BuildResult:
        collection = Collection.open(store, "survey")
        assert collection.table is not None
        return build_vector_index(VectorFiles.of_table(collection, collection.table), options)

    def cached() -> set[str]:
        return {path.name.partition("-")[0] for path in (tmp_path / "cache").rglob("indexes/*/*")}

    for path in Path(pristine.store.root).rglob("*"):
        key = str(path.relative_to(pristine.store.root))
        if path.is_file() and "/index/" not in key and "/lease/" not in key:
            store.write(key, path.read_bytes())
    assert build().outcome is BuildOutcome.BUILT
    rebuild_collection(store, "survey", datasets=["c"])
    assert build().outcome is BuildOutcome.GREW
    assert build().outcome is BuildOutcome.CURRENT
    assert cached() == {"codes", "scenes"}
    collection = Collection.open(store, "survey")
    assert collection.table is not None
    index = open_segments(VectorFiles.of_table(collection, collection.table))
    assert len(rows_of(index)) == 3 * SIDE * SIDE
    assert cached() == {"codes", "scenes", "rows", "vectors"}
