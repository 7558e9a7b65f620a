"""Search against NumPy: the same tiles in the same order with the same distances, whatever the filters and engine."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from numpy.typing import NDArray
from pyarrow import csv
from pydantic import ValidationError

from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import State, read_manifest
from rasterembed.errors import DataError, RasterEmbedError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import tile_id
from rasterembed.search import class_tiles, examples
from rasterembed.search.answer import Answer
from rasterembed.search.engines.flat import FlatEngine
from rasterembed.search.engines.ivf import IvfEngine
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import Searcher, search
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset

ALWAYS = VectorIndexOptions(index="always", index_engine="vss")

ENGINE_NAMES = {"scan": "the exact scan", "flat": "the flat index", "ivf": "the ivf index", "vss": "the HNSW index"}

ROWS, COLS, DIMENSIONS = 24, 30, 32
SKIPPED = frozenset({0, 77, 78, 700})
TWINS = tuple(range(200, 260))
"""Tiles with one and the same vector."""


@dataclass(frozen=True)
class Known:
    """A dataset of which everything is known."""

    store: ObjectStore
    vectors: NDArray[np.float32]
    valid_fraction: NDArray[np.float32]
    footprints: NDArray[np.object_]

    def expected(
        self, vector: NDArray[Any], k: int, *, left_out: set[int] | None = None, where: NDArray[np.bool_] | None = None
    ) -> list[tuple[str, float]]:
        """Ids and distances of the k nearest by NumPy, in double precision."""
        wide = self.vectors.astype(np.float64)
        unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
        distances = 1 - unit @ (vector / np.linalg.norm(vector.astype(np.float64)))
        rows = [
            (float(distances[n]), name(n))
            for n in range(ROWS * COLS)
            if n not in SKIPPED | (left_out or set()) and (where is None or where[n])
        ]
        # twins differ in double precision by rounding alone
        rows.sort(key=lambda row: (round(row[0], 9), row[1]))
        return [(tile, distance) for distance, tile in rows[:k]]


def name(number: int) -> str:
    return tile_id(number // COLS, number % COLS)


def found(answer: Answer) -> list[str]:
    return [hit.tile_id for hit in answer.hits]


def check(answer: Answer, expected: list[tuple[str, float]]) -> None:
    assert found(answer) == [tile for tile, _ in expected]
    assert [hit.rank for hit in answer.hits] == list(range(1, len(expected) + 1))
    np.testing.assert_allclose([hit.distance for hit in answer.hits], [distance for _, distance in expected], atol=1e-5)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("known")
    random = np.random.default_rng(11)
    vectors = random.standard_normal((ROWS * COLS, DIMENSIONS)).astype(np.float32) + np.float32(0.5)
    vectors *= random.uniform(0.5, 30, (len(vectors), 1)).astype(np.float32)
    vectors[list(TWINS)] = vectors[TWINS[0]]
    valid_fraction = random.uniform(0.05, 1, len(vectors)).astype(np.float32)
    store = ObjectStore(root=str(folder / "store"))
    write_dataset(
        store,
        "known",
        blank_raster(folder / "known.tif", ROWS, COLS, when="2024:07:03 09:41:00"),
        Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS))),
        vectors,
        valid_fraction=valid_fraction,
        skip=SKIPPED,
        shard_tiles=90,
    )
    return Known(store, vectors, valid_fraction, footprints(store, "known"))


@pytest.fixture(scope="module", params=["scan", "flat", "ivf", "vss"])
def searcher(known: Known, request: pytest.FixtureRequest) -> Iterator[Searcher]:
    engine = request.param
    with pytest.MonkeyPatch.context() as patch:
        # The table is small. Without this, the query would be compared with all rows, and no engine would be asked.
        for codes in (FlatEngine, IvfEngine):
            patch.setattr(codes, "direct_rows", 3)
        if engine != "scan":
            build_vector_index(
                VectorFiles.of_dataset(Dataset.open(known.store, "known")),
                VectorIndexOptions(index="always", index_engine=engine, index_ef_search=512, index_lists=4),
            )
        with Searcher(known.store, ["known"], engine=engine) as searcher:
            yield searcher


def footprints(store: ObjectStore, dataset_id: str) -> NDArray[np.object_]:
    """Footprints by number of the tile, in degrees, from the tile index."""
    manifest = read_manifest(store, dataset_id)
    assert manifest is not None
    data = store.read(manifest.index)
    assert data is not None
    table = pq.read_table(io.BytesIO(data))
    numbers = np.array(table["row"]) * COLS + np.array(table["col"])
    placed = np.empty(len(numbers), dtype=object)
    placed[numbers] = shapely.from_wkb(table["geometry"].to_numpy())
    return placed


@pytest.mark.parametrize("number", [1, 431, 719])
@pytest.mark.parametrize("k", [1, 12, 100])
def test_the_nearest_are_those_of_numpy(known: Known, searcher: Searcher, number: int, k: int) -> None:
    answer = searcher.ask(Query(tile=name(number)), k=k)
    check(answer, known.expected(known.vectors[number], k, left_out={number}))


def test_the_answer_says_who_gave_it(searcher: Searcher) -> None:
    (engine,) = searcher.ask(Query(tile=name(1)), k=3).engines
    assert engine.dataset_id == "known"
    assert {
        "scan": "as requested",
        "flat": "exact, compared with the stored vectors",
        "ivf": "4 of 4 lists, recall@10 1.000 when built",
        "vss": "ef_search 512, recall@10 1.000 when built",
    }[engine.name] == engine.why
    assert f"answered by {ENGINE_NAMES[engine.name]} ({engine.why})" in str(searcher.ask(Query(tile=name(1)), k=3))


def test_the_query_itself_is_left_out_unless_asked_for(known: Known, searcher: Searcher) -> None:
    without = searcher.ask(Query(tile=name(431)), k=5)
    with_it = searcher.ask(Query(tile=name(431), include_query=True), k=5)
    assert found(with_it) == [name(431), *found(without)[:4]]
    assert with_it.hits[0].distance == pytest.approx(0, abs=1e-6)


def test_ties_are_in_the_order_of_tile_ids(known: Known, searcher: Searcher) -> None:
    answer = searcher.ask(Query(tile=name(TWINS[30])), k=20)
    expected = [name(n) for n in TWINS if n != TWINS[30]][:20]
    assert found(answer) == expected
    # The cut goes through the twins, and the HNSW index cannot tell which come first.
    assert answer.engines[0].name == searcher.ask(Query(tile=name(1)), k=3).engines[0].name.replace("vss", "scan")


def test_a_place_is_the_tile_that_contains_it(known: Known, searcher: Searcher) -> None:
    inside = known.footprints[431].centroid
    by_place = searcher.ask(Query(lonlat=(inside.x, inside.y)), k=7)
    by_tile = searcher.ask(Query(tile=name(431)), k=7)
    assert by_place.hits == by_tile.hits
    assert by_place.examples[0].label == name(431)


def test_hits_tell_where_they_are(known: Known, searcher: Searcher) -> None:
    for hit in searcher.ask(Query(tile=name(431)), k=9).hits:
        number = hit.row * COLS + hit.col
        assert hit.tile_id == name(number)
        assert (hit.col_off, hit.row_off, hit.width, hit.height) == (hit.col * 16, hit.row * 16, 16, 16)
        assert shapely.from_wkb(hit.geometry).equals(known.footprints[number])
        middle = known.footprints[number].centroid
        assert (hit.lon, hit.lat) == (pytest.approx(middle.x, abs=1e-6), pytest.approx(middle.y, abs=1e-6))
        assert hit.valid_fraction == pytest.approx(float(known.valid_fraction[number]))
        assert hit.acquired == datetime(2024, 7, 3, 9, 41, tzinfo=UTC)


def box_of(known: Known, first: int, last: int) -> tuple[float, float, float, float]:
    """Return the box around the centres of two tiles."""
    west, south, east, north = shapely.MultiPoint([known.footprints[n].centroid for n in (first, last)]).bounds
    return west, south, east, north


@pytest.mark.parametrize(("first", "last"), [(35, 38), (35, 400), (3, 716)])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_filters_come_before_the_cut(known: Known, searcher: Searcher, first: int, last: int, share: float) -> None:
    box = box_of(known, first, last)
    matches = shapely.intersects(known.footprints, shapely.box(*box)) & (known.valid_fraction >= np.float32(share))
    for k in (1, 12, 300):
        answer = searcher.ask(Query(tile=name(431)), Where(bbox=box, min_valid_fraction=share), k)
        check(answer, known.expected(known.vectors[431], k, left_out={431}, where=matches))


def test_a_share_is_compared_as_it_is_stored(known: Known, searcher: Searcher) -> None:
    number = 431
    share = float(np.format_float_positional(known.valid_fraction[number], unique=True))
    answer = searcher.ask(Query(tile=name(number), include_query=True), Where(min_valid_fraction=share), k=1)
    assert found(answer) == [name(number)]


def test_polygons_are_met_by_their_own_shape(known: Known, searcher: Searcher, tmp_path: Path) -> None:
    corners = [known.footprints[n].centroid.coords[0] for n in (62, 80, 500)]
    other = shapely.box(*box_of(known, 640, 645))
    area = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shapely.Polygon(corners))},
            {"type": "Feature", "properties": None, "geometry": shapely.geometry.mapping(other)},
        ],
    }  # fmt: skip
    file = tmp_path / "area.geojson"
    file.write_text(json.dumps(area))
    union = shapely.union(shapely.Polygon(corners), other)
    matches = shapely.intersects(known.footprints, union)
    assert 40 < matches.sum() < shapely.intersects(known.footprints, shapely.box(*union.bounds)).sum()
    for k in (5, 400):
        answer = searcher.ask(Query(tile=name(431)), Where(within=str(file)), k)
        check(answer, known.expected(known.vectors[431], k, left_out={431}, where=matches))
    both = searcher.ask(Query(tile=name(431)), Where(within=str(file), bbox=box_of(known, 640, 645)), 400)
    matches &= shapely.intersects(known.footprints, other)
    check(both, known.expected(known.vectors[431], 400, left_out={431}, where=matches))


def test_only_tiles_of_some_classes(known: Known, searcher: Searcher, tmp_path: Path) -> None:
    numbers = np.random.default_rng(8).permutation(ROWS * COLS)
    classes = numbers % 5
    table = {"tile_id": [name(n) for n in numbers], "class": classes, "dataset_id": ["known"] * len(numbers)}
    table["dataset_id"][:50] = ["other"] * 50
    pq.write_table(pa.table(table), tmp_path / "clusters.parquet")
    csv.write_csv(pa.table({key: table[key] for key in ("class", "tile_id")}), tmp_path / "clusters.csv")
    allowed = np.zeros(ROWS * COLS, bool)
    allowed[numbers[np.isin(classes, [1, 4])]] = True
    own = allowed.copy()
    own[numbers[:50]] = False
    for file, where in (("clusters.csv", allowed), ("clusters.parquet", own)):
        filters = Where(class_file=tmp_path / file, classes=(1, 4), min_valid_fraction=0.2)  # type: ignore[arg-type]
        expected = where & (known.valid_fraction >= np.float32(0.2))
        answer = searcher.ask(Query(tile=name(431)), filters, k=9)
        check(answer, known.expected(known.vectors[431], 9, left_out={431}, where=expected))


def test_several_threads_get_the_answers_of_one(known: Known, searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("tile_id,class\n" + "".join(f"{name(n)},{n % 3}\n" for n in range(400)))
    filters = [
        Where(),
        Where(bbox=box_of(known, 35, 400)),
        Where(min_valid_fraction=0.5),
        Where(bbox=box_of(known, 3, 716), min_valid_fraction=0.2),
        Where(class_file=str(tmp_path / "classes.csv"), classes=("0", "2")),
    ]
    questions = [(Query(tile=name(100 + 7 * n)), filters[n % len(filters)], 1 + n % 12) for n in range(16)]

    def ask(question: tuple[Query, Where, int]) -> Answer:
        return searcher.ask(*question).model_copy(update={"seconds": 0})

    expected = [ask(question) for question in questions]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, questions)) == expected


def test_an_area_without_tiles_gives_no_row(searcher: Searcher) -> None:
    answer = searcher.ask(Query(tile=name(431)), Where(bbox=(-70, -20, -69, -19)), k=4)
    assert answer.hits == ()
    assert answer.notes()[-2] == "0 of 4 tiles found: no tile matches"
    assert answer.notes()[-1].startswith("the area is outside the searched rasters, which have longitudes 24.44")


def test_all_tiles_come_where_more_are_asked_for(known: Known, searcher: Searcher) -> None:
    answer = searcher.ask(Query(tile=name(431)), k=5000)
    check(answer, known.expected(known.vectors[431], 5000, left_out={431}))
    assert len(answer.hits) == ROWS * COLS - len(SKIPPED) - 1
    assert "715 of 5,000 tiles found" in str(answer)


def test_liked_and_unliked_tiles_move_the_query_by_rocchios_formula(known: Known, searcher: Searcher) -> None:
    like, unlike, start = (3, 500, 501), (9, 650), 431
    unit = known.vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    moved = 0.75 * unit[list(like)].mean(axis=0) - 0.15 * unit[list(unlike)].mean(axis=0)
    texts = {"like": tuple(map(name, like)), "unlike": tuple(map(name, unlike))}

    answer = searcher.ask(Query(**texts), k=10)
    check(answer, known.expected(moved, 10, left_out={*like, *unlike}))

    answer = searcher.ask(Query(tile=name(start), **texts), k=10)
    check(answer, known.expected(unit[start] + moved, 10, left_out={*like, *unlike, start}))
    assert [(example.role, example.label) for example in answer.examples] == [
        ("query", name(431)), ("like", name(3)), ("like", name(500)), ("like", name(501)),
        ("unlike", name(9)), ("unlike", name(650)),
    ]  # fmt: skip


def test_commas_separate_tiles() -> None:
    one = Query.model_validate({"like": "r000001_c000002, r000003_c000004"})
    other = Query.model_validate({"like": ["r000001_c000002", "r000003_c000004"]})
    assert one == other
    assert one.like == ("r000001_c000002", "r000003_c000004")


def test_an_example_that_is_given_often_is_looked_up_once(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    find = examples.find_tile
    monkeypatch.setattr(examples, "find_tile", lambda *args: (looked_up.append(args[2]), find(*args))[1])
    with Searcher(known.store, ["known"], engine="scan") as scan:
        answer = scan.ask(Query(tile=name(5), like=(name(5),) * 700, unlike=(name(6),) * 300), k=3)
    assert looked_up == [name(5), name(6)]
    assert len(answer.examples) == 1001
    liked, unliked = (known.vectors[n] / np.linalg.norm(known.vectors[n]) for n in (5, 6))
    check(answer, known.expected(1.75 * liked - 0.15 * unliked, 3, left_out={5, 6}))
    with pytest.raises(UsageError, match="`like` and `unlike` have 1001 tiles: give at most 1000"):
        Query(tile=name(5), like=(name(5),) * 1000, unlike=(name(6),))


@pytest.mark.parametrize(
    ("file", "content", "classes", "message"),
    [
        ("c.txt", "", ("1",), "give a file with classes that ends in .parquet or .csv"),
        ("c.csv", None, ("1",), "there is no such file"),
        ("c.csv", "tile_id,class\n", ("1",), "it has no rows: give a file with a row for each tile"),
        ("c.csv", "tile_id,class\na,007\nb,x", ("7", "8"), "no tile has the class 7 or 8: its classes are 007, x"),
        ("c.csv", "tile_id,class\na,1\nb,2", ("1", "9"), "no tile has the class 9: its classes are 1, 2"),
        ("c.csv", "tile,class\na,1", ("1",), "it has no column tile_id"),
        ("c.csv", "tile_id,class\na", ("1",), "it cannot be read as a table of classes"),
        ("c.csv", "tile_id,class,class\na,1,2", ("1",), "it has several columns class"),
        ("c.parquet", "PAR1", ("1",), "it cannot be read as a table of classes"),
    ],
)
def test_a_file_that_holds_no_classes_is_named(
    known: Known, tmp_path: Path, file: str, content: str | None, classes: tuple[str, ...], message: str
) -> None:
    if content is not None:
        (tmp_path / file).write_text(content)
    where = Where(class_file=str(tmp_path / file), classes=classes)
    with pytest.raises(RasterEmbedError) as error:
        search(known.store, ["known"], Query(tile=name(5)), where)
    assert str(tmp_path / file) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_small_file_with_very_many_tiles_does_not_fill_the_memory(
    known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, rows = tmp_path / "c.parquet", 4_000_000
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["1"]))
    pq.write_table(pa.table({"tile_id": same.cast(pa.string()), "class": same.cast(pa.string())}), file)
    assert file.stat().st_size < 100_000
    where = Where(class_file=str(file), classes=("1",))
    monkeypatch.setattr(class_tiles, "_MAX_BYTES", 10_000_000)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match=r"c\.parquet: its rows take more than 9 MiB: split it by class"):
        search(known.store, ["known"], Query(tile=name(5)), where)
    assert pa.default_memory_pool().max_memory() - before < 40_000_000


def test_a_file_with_two_columns_of_classes_is_refused(known: Known, tmp_path: Path) -> None:
    columns = [pa.array([name(5)]), pa.array(["1"]), pa.array(["2"])]
    pq.write_table(pa.Table.from_arrays(columns, ["tile_id", "class", "class"]), tmp_path / "c.parquet")
    where = Where(class_file=str(tmp_path / "c.parquet"), classes=("1",))
    with pytest.raises(DataError, match=r"c\.parquet: it has several columns class: give each name once"):
        search(known.store, ["known"], Query(tile=name(5)), where)


def test_classes_of_several_datasets_need_their_names(
    two: tuple[ObjectStore, NDArray[np.float32]], tmp_path: Path
) -> None:
    store, _ = two
    rows = ["east,r000000_c000001,a", "west,r000000_c000002,a", "east,r000000_c000002,b"]
    store.write("classes/named.csv", "\n".join(["dataset_id,tile_id,class", *rows]).encode())
    store.write("classes/unnamed.csv", b"tile_id,class\nr000000_c000001,a")
    query = Query(tile="east/r000000_c000000")
    answer = search(store, ["east", "west"], query, Where(class_file="store:classes/named.csv", classes=("a",)))
    assert sorted((hit.dataset_id, hit.tile_id) for hit in answer.hits) == [
        ("east", "r000000_c000001"), ("west", "r000000_c000002"),
    ]  # fmt: skip
    store.write("classes/other.csv", b"dataset_id,tile_id,class\nnorth,r000000_c000001,a\neast,r000000_c000001,b")
    answer = search(store, ["east", "west"], query, Where(class_file="store:classes/other.csv", classes=("a",)))
    assert (answer.hits, answer.hint) == (
        (), "store:classes/other.csv has tiles of these classes only in other datasets: north",
    )  # fmt: skip
    with pytest.raises(UsageError, match="has no column dataset_id"):
        search(store, ["east", "west"], query, Where(class_file="store:classes/unnamed.csv", classes=("a",)))
    with pytest.raises(UsageError, match="give `class_file` and `classes` together"):
        Where(classes=("a",))


def test_tiles_that_cancel_each_other_out_are_refused(tmp_path: Path) -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    vectors[1] = -vectors[0]
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    write_dataset(store, "four", blank_raster(tmp_path / "four.tif", 1, 4), model, vectors)
    with pytest.raises(UsageError, match="cancel each other out"):
        search(store, ["four"], Query(like=("r000000_c000000", "r000000_c000001")))


@pytest.mark.parametrize(
    ("where", "matches"),
    [
        ({"since": "2024-07-03", "until": "2024-07-03"}, True),
        ({"since": "2024-07-04"}, False),
        ({"until": "2024-07-02"}, False),
        ({"since": "2024-07-03T09:41:00Z"}, True),
        ({"since": "2024-07-03T12:41:01+03:00"}, False),
        ({"until": "2024-07-03T09:40:59"}, False),
        ({"since": "2024-07-03t09:41z"}, True),
        ({"since": "2024-07", "until": "2024-07"}, True),
        ({"since": "2024", "until": "2024"}, True),
        ({"since": "2024-08"}, False),
        ({"since": "2025"}, False),
        ({"until": "2023"}, False),
        ({"until": "2024-06"}, False),
    ],
)
def test_dates_choose_datasets_by_their_acquisition(known: Known, where: dict[str, str], matches: bool) -> None:
    answer = search(known.store, ["known"], Query(tile=name(431)), Where.model_validate(where), k=3)
    assert len(answer.hits) == (3 if matches else 0)


def test_a_dataset_without_a_date_matches_no_date(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    write_dataset(store, "undated", blank_raster(tmp_path / "u.tif", 1, 4), model, np.eye(4, dtype=np.float32))
    query = Query(tile="r000000_c000001")
    assert len(search(store, ["undated"], query, k=3).hits) == 3
    assert search(store, ["undated"], query, Where.model_validate({"until": "2030-01-01"}), k=3).hits == ()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObjectStore, NDArray[np.float32]]:
    """Datasets `east` and `west` of one model, four by four tiles each; `east` is the first 16 vectors."""
    folder = tmp_path_factory.mktemp("two")
    vectors = np.random.default_rng(2).standard_normal((32, 8)).astype(np.float32)
    vectors[16 + 5] = vectors[5]
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", 8)))
    for dataset_id, own in (("east", vectors[:16]), ("west", vectors[16:])):
        write_dataset(store, dataset_id, blank_raster(folder / f"{dataset_id}.tif", 4, 4), model, own)
    return store, vectors


def test_several_datasets_answer_together(two: tuple[ObjectStore, NDArray[np.float32]]) -> None:
    store, vectors = two
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = 1 - unit @ unit[9]
    order = sorted(range(32), key=lambda n: (round(float(distances[n]), 6), tile_id(n % 16 // 4, n % 4), n // 16))
    answer = search(store, ["east", "west"], Query(tile="east/r000002_c000001", include_query=True), k=32)
    assert [(hit.dataset_id, hit.tile_id) for hit in answer.hits] == [
        (("east", "west")[n // 16], tile_id(n % 16 // 4, n % 4)) for n in order
    ]
    assert [engine.dataset_id for engine in answer.engines] == ["east", "west"]
    # one vector in both: the tile id is the same too, so the datasets' names decide
    twins = search(store, ["west", "east"], Query(tile="west/r000001_c000001", include_query=True), k=2)
    assert [(hit.dataset_id, hit.tile_id) for hit in twins.hits] == [
        ("east", "r000001_c000001"), ("west", "r000001_c000001"),
    ]  # fmt: skip


def test_only_the_query_s_own_tile_is_left_out(two: tuple[ObjectStore, NDArray[np.float32]]) -> None:
    answer = search(two[0], ["east", "west"], Query(tile="west/r000001_c000001"), k=31)
    assert ("west", "r000001_c000001") not in {(hit.dataset_id, hit.tile_id) for hit in answer.hits}
    assert (answer.hits[0].dataset_id, answer.hits[0].tile_id) == ("east", "r000001_c000001")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(tile="r000001_c000001"), r"2 searched datasets \(east, west\): .*, such as east/r000001_c000001"),
        (Query(tile="north/r000001_c000001"), "dataset 'north' is not searched"),
    ],
)
def test_a_question_that_does_not_fit_is_refused(
    two: tuple[ObjectStore, NDArray[np.float32]], query: Query, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        search(two[0], ["east", "west"], query)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"weights": b"other"}}, "weights: [0-9a-f]{64} and [0-9a-f]{64}"),
        ({"model": {"dimensions": 16}}, "model: .*model and .*other"),
        ({"pooling": "mean"}, "pooling: cls and mean"),
        ({"input_size": 64}, "input size: 16 and 64"),
        ({"dtype": "bfloat16"}, "dtype of the model: float32 and bfloat16"),
        ({"vector_dtype": "float16"}, "dtype of the vectors: float32 and float16"),
    ],
)
def test_vectors_of_different_models_never_meet(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 8)))
    write_dataset(store, "one", blank_raster(tmp_path / "one.tif", 1, 4), model, np.eye(4, 8, dtype=np.float32))
    dimensions = change.get("model", {}).get("dimensions", 8)
    if "model" in change:
        folder = "model" if "weights" in change["model"] else "other"
        checkpoint(tmp_path / folder, dimensions, change["model"].get("weights", b"none"))
        model = model.model_copy(update={"model": str(tmp_path / folder)})
    model = model.model_copy(
        update={name: change[name] for name in ("pooling", "input_size", "dtype") if name in change}
    )
    write_dataset(
        store, "two", blank_raster(tmp_path / "two.tif", 1, 4), model, np.eye(4, dimensions, dtype=np.float32),
        vector_dtype=change.get("vector_dtype", "float32"),
    )  # fmt: skip
    with pytest.raises(DataError, match=f"'one' and 'two' cannot be searched together.*{message}") as error:
        search(store, ["one", "two"], Query(tile="one/r000000_c000000"))
    assert "\n" not in str(error.value)
    assert len(search(store, ["two"], Query(tile="r000000_c000000")).hits) == 3


@pytest.mark.parametrize(
    ("kind", "query", "message"),
    [
        (UsageError, {"tile": "r000024_c000000"}, "no tile r000024_c000000: .* the nearest one is r000023_c000000"),
        (DataError, {"tile": "r000000_c000000"}, r"has no vector: it was skipped \(no valid pixel\)"),
        (DataError, {"lonlat": (0.0, 0.0)}, "no embedded tile of 'known' contains longitude 0, latitude 0; 'known'"),
        (DataError, {"image": "/nowhere/chip.png"}, "/nowhere/chip.png"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named(known: Known, kind: type[Exception], query: dict[str, Any], message: str) -> None:
    with pytest.raises(kind, match=message) as error:
        search(known.store, ["known"], Query(**query))
    assert "\n" not in str(error.value)


def test_a_point_in_a_skipped_tile_says_so(known: Known) -> None:
    place = known.footprints[77].centroid
    with pytest.raises(
        DataError, match=rf"tile {name(77)} of dataset 'known' does, but was skipped \(no valid pixel\)"
    ):
        search(known.store, ["known"], Query(lonlat=(place.x, place.y)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"tile": "12"}, {"tile": "r1_c1"}, {"tile": "r000001_c000001' OR 1=1 --"}, {"like": ["r000001_c000001", "x"]},
        {"lonlat": (400.0, 0.0)}, {"lonlat": (0.0, 91.0)}, {"lonlat": (float("nan"), 0.0)},
        {"tile": "r000001_c000001", "lonlat": (0.0, 0.0)}, {"image": "a.png", "lonlat": (0.0, 0.0)}, {"tiles": "x"},
    ],
)  # fmt: skip
def test_a_malformed_question_is_refused_before_anything_is_read(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Query.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bbox": (1.0, 2.0, 3.0)}, {"bbox": (0.0, 10.0, 1.0, 5.0)}, {"bbox": (0.0, 0.0, 400.0, 1.0)},
        {"bbox": (float("nan"), 0.0, 1.0, 1.0)}, {"min_valid_fraction": 1.1}, {"since": "yesterday"},
        {"since": 2025}, {"until": 1735689600.0}, {"since": "1735689600"}, {"until": "20240703"}, {"since": "2024-W27"},
        {"since": "٢٠٢٤"}, {"since": "0001-01-01T00:00+14:00"}, {"until": "9999-12-31T23:59-14:00"},
        {"until": "2024-13"}, {"since": "2023-02-29"},
    ],
)  # fmt: skip
def test_a_malformed_restriction_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Where.model_validate(wrong)


METRES = {
    "type": "Polygon",
    "coordinates": [[[385000, 6672000], [386000, 6672000], [386000, 6673000], [385000, 6672000]]],
}
TRIANGLE = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
EPSG_3067 = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3067"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not GeoJSON"),
        ("[]", "not GeoJSON"),
        ('{"type": "Polygon"}', "not GeoJSON"),
        ('{"type": "Point", "coordinates": [0, 0]}', "it holds Point, but polygons are needed"),
        ('{"type": "FeatureCollection", "features": []}', "it holds nothing, but polygons are needed"),
        (json.dumps(METRES), "not degrees"),
        (json.dumps(TRIANGLE | {"crs": EPSG_3067}), "its CRS is urn:ogc:def:crs:EPSG::3067"),
    ],
)
def test_a_file_that_holds_no_area_is_named(known: Known, tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "area.geojson"
    file.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        search(known.store, ["known"], Query(tile=name(1)), Where(within=str(file)))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(known: Known, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.geojson: there is no such file"):
        search(known.store, ["known"], Query(tile=name(1)), Where(within=str(tmp_path / "nowhere.geojson")))


def test_crs84_by_name_is_degrees_and_a_bow_tie_is_mended(known: Known, tmp_path: Path) -> None:
    west, south, east, north = box_of(known, 3, 716)
    bow_tie = [[west, south], [east, north], [east, south], [west, north], [west, south]]
    file = tmp_path / "area.geojson"
    file.write_text(
        json.dumps(
            {
                "type": "Polygon",
                "coordinates": [bow_tie],
                "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
            }
        )
    )
    answer = search(known.store, ["known"], Query(tile=name(431)), Where(within=str(file)), k=1000)
    matches = shapely.intersects(known.footprints, shapely.make_valid(shapely.Polygon(bow_tie)))
    check(answer, known.expected(known.vectors[431], 1000, left_out={431}, where=matches))


def test_a_box_may_cross_the_antimeridian(known: Known) -> None:
    west, south, east, north = box_of(known, 35, 400)
    turned = search(known.store, ["known"], Query(tile=name(431)), Where(bbox=(west, south, -170, north)), k=1000)
    matches = shapely.intersects(known.footprints, shapely.box(west, south, 180, north))
    check(turned, known.expected(known.vectors[431], 1000, left_out={431}, where=matches))
    assert east < 180


@pytest.mark.parametrize(
    ("state", "message"),
    [("embedded", "quality checks have not passed yet"), ("failed_qa", r"quality checks; see .*report\.md")],
)
def test_a_dataset_that_is_not_ready_is_refused(tmp_path: Path, state: State, message: str) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    raster = blank_raster(tmp_path / "new.tif", 1, 4)
    write_dataset(store, "new", raster, model, np.eye(4, dtype=np.float32), state=state)
    with pytest.raises(DataError, match=f"dataset 'new' cannot be used: .*{message}"):
        search(store, ["new"], Query(tile="r000000_c000000"))


def test_names_in_one_text_are_refused(known: Known) -> None:
    for text in ("known", "kn*", "*"):
        said = re.escape(f"the dataset ids are a list: give ['{text}'], not '{text}'")
        with pytest.raises(UsageError, match=f"^{said}$"):
            Searcher(known.store, text)
    with pytest.raises(UsageError, match=r"^the datasets are a list: give \['known'\], not 'known'$"):
        rebuild_collection(known.store, "new", datasets="known")


def test_an_unknown_dataset_is_named(known: Known) -> None:
    with pytest.raises(UsageError, match="there is no dataset 'nowhere' in"):
        search(known.store, ["nowhere"], Query(tile=name(1)))
    with pytest.raises(UsageError, match=r"dataset id '\.\./known' is not allowed"):
        search(known.store, ["../known"], Query(tile=name(1)))
    with pytest.raises(UsageError, match="at least one dataset"):
        search(known.store, [], Query(tile=name(1)))


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    raster, vectors = blank_raster(tmp_path / "t.tif", 4, 4), np.eye(16, 4, dtype=np.float32) + 1
    manifest = write_dataset(store, "torn", raster, model, vectors, shard_tiles=4)
    assert len(manifest.shards) > 1
    store.delete(manifest.shards[1].path)
    with pytest.raises(DataError, match=r"dataset 'torn': .*part-.*\.parquet") as error:
        search(store, ["torn"], Query(tile="r000000_c000000"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("names", [["town"], ["t*"]])
def test_a_dataset_that_a_run_replaces_while_it_is_opened_is_searched_as_it_is_now(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    for folder, rows in (("store", 4), ("new", 2)):
        raster, vectors = blank_raster(tmp_path / f"{folder}.tif", rows, 4), np.eye(4 * rows, 4, dtype=np.float32) + 1
        write_dataset(ObjectStore(root=str(tmp_path / folder)), "town", raster, model, vectors, shard_tiles=4)
    store, sizes = ObjectStore(root=str(tmp_path / "store")), ObjectStore.sizes

    def replace_and_list(self: ObjectStore, folder: str) -> dict[str, int]:
        if folder == "embeddings/town" and (tmp_path / "new").exists():
            shutil.rmtree(store.root)
            (tmp_path / "new").rename(store.root)
        return sizes(self, folder)

    monkeypatch.setattr(ObjectStore, "sizes", replace_and_list)
    assert len(search(store, names, Query(tile="r000000_c000000"), k=100).hits) == 7


@pytest.mark.parametrize("indexed", [False, True])
def test_a_shard_with_other_rows_is_named_and_one_listing_finds_it(
    indexed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    raster, vectors = blank_raster(tmp_path / "t.tif", 4, 4), np.eye(16, 4, dtype=np.float32) + 1
    manifest = write_dataset(store, "short", raster, model, vectors, shard_tiles=4)
    if indexed:
        build_vector_index(VectorFiles.of_dataset(Dataset.open(store, "short")), ALWAYS)
    listed: list[str] = []
    sizes = ObjectStore.sizes
    monkeypatch.setattr(ObjectStore, "sizes", lambda self, folder: (listed.append(folder), sizes(self, folder))[1])
    search(store, ["short"], Query(tile="r000000_c000000"))
    assert listed == ["embeddings/short"]
    path = store.uri(manifest.shards[1].path)
    table = pq.read_table(path)
    pq.write_table(table.slice(0, len(table) - 2), path)
    for names in (["short"], ["s*"]):
        with pytest.raises(
            DataError, match=rf"{path} has \d+ bytes, and .* says \d+: run `rasterembed datasets verify"
        ):
            search(store, names, Query(tile="r000000_c000000"))


@pytest.mark.parametrize("indexed", [False, True])
def test_a_raster_without_a_place_is_searched_by_tile_alone(tmp_path: Path, indexed: bool) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    write_dataset(store, "lost", blank_raster(tmp_path / "l.tif", 2, 2, crs=None), model, np.eye(4, dtype=np.float32))
    if indexed:
        build_vector_index(VectorFiles.of_dataset(Dataset.open(store, "lost")), ALWAYS)
    answer = search(store, ["lost"], Query(tile="r000000_c000000"), k=2)
    assert [(hit.tile_id, hit.lon, hit.place()) for hit in answer.hits] == [
        ("r000000_c000001", None, "px 24, 8"), ("r000001_c000000", None, "px 8, 24"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="no place on Earth"):
        search(store, ["lost"], Query(lonlat=(24.0, 60.0)))
    with pytest.raises(DataError, match="no place on Earth"):
        search(store, ["lost"], Query(tile="r000000_c000000"), Where(bbox=(0, 0, 1, 1)))


def test_half_precision_vectors_are_searched_as_they_are_stored(known: Known, tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS)))
    write_dataset(
        store, "half", blank_raster(tmp_path / "h.tif", ROWS, COLS), model, known.vectors, skip=SKIPPED,
        vector_dtype="float16",
    )  # fmt: skip
    stored = replace(known, vectors=known.vectors.astype(np.float16).astype(np.float32))
    answer = search(store, ["half"], Query(tile=name(431)), k=12)
    check(answer, stored.expected(stored.vectors[431], 12, left_out={431}))


def test_tiles_that_overlap_are_told_apart_by_their_middle(known: Known) -> None:
    corner = shapely.get_point(known.footprints[431].exterior, 0)
    answer = search(known.store, ["known"], Query(lonlat=(corner.x, corner.y)), k=1)
    around = {name(n) for n in (431, 430, 431 + COLS, 430 + COLS)}
    assert answer.examples[0].label in around
