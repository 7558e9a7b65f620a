"""The engine `ivf`: lists, probes, measured recall, growth, and files that are not its own."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3
from rasterembed.search.answer import UsedEngine
from rasterembed.search.engines import ivf_building, ivf_lists
from rasterembed.search.engines.codes import CodesParameters, open_codes, write_codes
from rasterembed.search.engines.engine import RECALL_GOAL, CodesEngine, CodesInfo, IndexUnusableError
from rasterembed.search.engines.ivf import IvfEngine
from rasterembed.search.engines.ivf_building import default_lists
from rasterembed.search.engines.ivf_file import header_dtype
from rasterembed.search.engines.scan import ScanEngine, connect
from rasterembed.search.filters import Filters
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.indexed_search import IndexedSearch
from rasterembed.search.row_selection import RowSelection
from rasterembed.search.searcher import Searcher
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.search.engine_vectors import clusters, cosines, store, unit
from tests.support.vectors import blank_raster, checkpoint, write_dataset

ROWS, DIMENSIONS, LISTS = 2000, 16, 32
OWNER = "dataset 'scene'"
IVF = CodesParameters("ivf", OWNER, LISTS)


def write(vectors: NDArray[np.float32], path: Path, parameters: CodesParameters = IVF) -> CodesInfo:
    return write_codes(store(vectors, path.parent, f"{path.stem}.bin"), path, parameters)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return clusters(ROWS, DIMENSIONS)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ivf") / "codes.faiss"


@pytest.fixture(scope="module")
def info(vectors: NDArray[np.float32], file: Path) -> CodesInfo:
    return write(vectors, file)


@pytest.fixture(scope="module")
def engine(file: Path, info: CodesInfo) -> CodesEngine:
    return open_codes(file, info, ROWS, DIMENSIONS)


def _share_found(found: NDArray[np.int64], exact: NDArray[np.float64], k: int) -> float:
    """Return the share of the k rows with the highest cosines that are among the found ones."""
    nearest = np.argsort(-exact, axis=1)[:, :k]
    return float(np.mean([np.isin(wanted, rows).mean() for wanted, rows in zip(nearest, found, strict=True)]))


@pytest.mark.vectors
def test_the_measured_probes_find_99_of_100_neighbours(
    engine: CodesEngine, info: CodesInfo, vectors: NDArray[np.float32]
) -> None:
    queries = unit(vectors[::5])
    found = engine.candidates(queries, 50, None).rows
    assert (info.engine, info.lists, info.recall_at, info.recall_sample) == ("ivf", LISTS, 10, 200)
    assert info.recall is not None
    assert info.recall >= 0.99
    assert _share_found(found, cosines(queries, vectors), 11) >= 0.98
    assert info.probes < LISTS


def test_fewer_probes_than_measured_have_too_little_recall(
    monkeypatch: pytest.MonkeyPatch, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    monkeypatch.setattr(ivf_building, "_FEWEST_PROBES", 1)
    info = write(vectors, tmp_path / "codes.faiss")
    engine = open_codes(tmp_path / "codes.faiss", info, ROWS, DIMENSIONS)
    assert isinstance(engine, IvfEngine)
    assert info.probes > 1
    sample = np.sort(np.random.default_rng(1234).choice(ROWS, 200, replace=False))
    queries = unit(vectors[sample])
    exact = cosines(queries, vectors)
    exact[np.arange(200), sample] = -2.0  # the vector itself is not a neighbour
    numbers = (info.probes - 1, info.probes, LISTS)
    nearest = np.argsort(-exact, axis=1)[:, :10]
    fewer, chosen, every = (
        [float(np.isin(wanted, rows).mean()) for wanted, rows in zip(nearest, found, strict=True)]
        for found in (engine.probe(queries, 50, None, probes) for probes in numbers)
    )
    assert np.mean(chosen) == pytest.approx(info.recall, abs=1e-9)
    lower = [statistics.fmean(shares) - 1.645 * statistics.stdev(shares) / 200**0.5 for shares in (fewer, chosen)]
    assert lower[0] < 0.99 <= lower[1]
    assert np.mean(every) == 1.0


def test_new_queries_find_99_of_100_neighbours(
    monkeypatch: pytest.MonkeyPatch, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    """The queries are not rows of the index, and are more than the build measured."""
    monkeypatch.setattr(ivf_building, "_FEWEST_PROBES", 1)
    info = write(vectors, tmp_path / "codes.faiss")
    engine = open_codes(tmp_path / "codes.faiss", info, ROWS, DIMENSIONS)
    queries = unit(clusters(800, DIMENSIONS, seed=5))
    found = engine.candidates(queries, 50, None).rows
    assert info.probes < LISTS
    assert _share_found(found, cosines(queries, vectors), 10) >= 0.99


def test_every_row_is_in_the_list_of_its_nearest_centroid(file: Path, engine: CodesEngine) -> None:
    import faiss

    assert isinstance(engine, IvfEngine)
    index = faiss.read_index(str(file))
    assert (index.ntotal, index.d, index.nlist) == (ROWS, DIMENSIONS, LISTS)
    stored = unit(clusters(ROWS, DIMENSIONS))
    expected = cosines(stored, engine.training.centroids).argmax(axis=1)
    sizes = [index.invlists.list_size(number) for number in range(LISTS)]
    for number, size in enumerate(sizes):
        rows = faiss.rev_swig_ptr(index.invlists.get_ids(number), size) if size else []
        assert list(rows) == np.flatnonzero(expected == number).tolist()
    assert engine.info.imbalance == pytest.approx(index.invlists.imbalance_factor())


def test_blocks_of_any_size_give_the_same_file(
    monkeypatch: pytest.MonkeyPatch, file: Path, info: CodesInfo, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    monkeypatch.setattr(ivf_building, "_BLOCK_NUMBERS", 77 * DIMENSIONS)
    monkeypatch.setattr(ivf_building, "_PRODUCT_NUMBERS", 99 * (LISTS + 200))
    assert write(vectors, tmp_path / "codes.faiss") == info
    assert (tmp_path / "codes.faiss").read_bytes() == file.read_bytes()


def test_faiss_finds_the_same_rows_in_the_file(file: Path, engine: CodesEngine, vectors: NDArray[np.float32]) -> None:
    import faiss

    index = faiss.read_index(str(file))
    index.nprobe = engine.info.probes
    queries = unit(vectors[:50])
    assert np.array_equal(index.search(queries, 20)[1], engine.candidates(queries, 20, None).rows)


@pytest.mark.parametrize("numbers", [[], [3], list(range(0, ROWS, 100)), list(range(500, 1500))])
def test_only_selected_rows_are_candidates_and_few_rows_are_all_found(
    engine: CodesEngine, vectors: NDArray[np.float32], numbers: list[int]
) -> None:
    selection = RowSelection.of_numbers(np.array(numbers, np.int64), ROWS)
    found = engine.candidates(unit(vectors[:3]), 10, selection)
    assert found.rows.shape == (3, min(10, len(numbers)))
    assert np.isin(found.rows, numbers).all()
    if len(numbers) <= 10:
        assert found.missed.tolist() == [np.inf] * 3
    else:
        assert found.missed.tolist() == [-np.inf] * 3
        selected = np.where(np.isin(np.arange(ROWS), numbers), cosines(vectors[:3], vectors), -2.0)
        assert _share_found(found.rows, selected, 10) >= 0.9


def test_widening_reads_more_lists_until_all_rows_are_found(vectors: NDArray[np.float32], tmp_path: Path) -> None:
    spread = vectors[:300]
    info = write(spread, tmp_path / "codes.faiss").model_copy(update={"probes": 1})
    engine = open_codes(tmp_path / "codes.faiss", info, 300, DIMENSIONS)
    query = unit(spread[:1])
    counts = [np.count_nonzero(engine.candidates(query, 300, None, widening).rows >= 0) for widening in (1, 4, 1000)]
    assert counts[0] < counts[1] < counts[2] == 300
    assert engine.candidates(query, 300, None, 1).missed[0] == -np.inf
    assert engine.candidates(query, 300, None, 1000).missed[0] == np.inf


@pytest.mark.parametrize("noise", [0.0, 1e-5], ids=["equal vectors", "equal codes"])
def test_equally_far_tiles_are_in_the_order_of_their_ids(tmp_path: Path, noise: float) -> None:
    embeddings = ObjectStore(root=str(tmp_path / "store"))
    raster, vectors = blank_raster(tmp_path / "blank.tif", 8, 200), clusters(1600, 24)
    random = np.random.default_rng(0)
    same = random.choice(1600, 1000, replace=False)
    vectors[same] = vectors[0]
    # Vectors that differ so little have the code of the equal ones.
    vectors[same[:500]] += noise * random.standard_normal((500, 24)).astype(np.float32)
    # A shard has 8 rows and 8 columns of tiles, so the order of the rows is not that of the ids.
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 24)))
    write_dataset(embeddings, "scene", raster, model, vectors, shard_tiles=64)
    files = VectorFiles.of_dataset(Dataset.open(embeddings, "scene"))
    build_vector_index(files, VectorIndexOptions(index="always", index_engine="ivf"))
    with Searcher(embeddings, ["scene"], engine="ivf") as searcher:
        answer = searcher.ask_vector(vectors[same[-1]], k=50)
    assert answer.engines[0].name == "ivf"
    equal = np.sort(same[500:] if noise else same)[:50]
    assert [hit.tile_id for hit in answer.hits] == [f"r{n // 200:06}_c{n % 200:06}" for n in equal]
    assert {hit.distance for hit in answer.hits} == {0.0}
    searcher.close()  # A second time, which does nothing.


def test_threads_get_the_same_candidates(engine: CodesEngine, vectors: NDArray[np.float32]) -> None:
    queries = unit(vectors[:400])
    together = engine.candidates(queries, 5, None).rows
    with ThreadPoolExecutor(8) as threads:
        alone = list(threads.map(lambda n: engine.candidates(queries[n : n + 1], 5, None).rows[0], range(400)))
    assert np.array_equal(alone, together)


@pytest.mark.parametrize("share", [None, 0.5, 0.02])
def test_threads_that_share_the_lists_of_a_query_find_the_same_rows(
    monkeypatch: pytest.MonkeyPatch, engine: CodesEngine, vectors: NDArray[np.float32], share: float | None
) -> None:
    selection = None if share is None else RowSelection.of_mask(np.random.default_rng(0).random(ROWS) < share)
    queries = [unit(vectors[number : number + 1]) for number in range(20)]
    alone = [engine.candidates(query, 50, selection).rows for query in queries]
    monkeypatch.setattr(ivf_lists, "_SHARED_ROWS", 1)
    assert np.array_equal([engine.candidates(query, 50, selection).rows for query in queries], alone)


def test_a_copy_of_the_selected_rows_finds_what_the_lists_find(
    engine: CodesEngine, vectors: NDArray[np.float32]
) -> None:
    selection, queries = RowSelection.of_numbers(np.arange(1, ROWS, 9), ROWS), unit(vectors[:50])
    size = header_dtype(LISTS, DIMENSIONS).itemsize + selection.count * (DIMENSIONS + 8) + selection.nbytes
    copy = engine.copy_selected(selection, size)
    assert copy is not None
    assert copy.nbytes == size
    assert engine.copy_selected(selection, size - 1) is None, "more bytes than allowed"
    for count, widening in ((20, 1), (20, 2), (selection.count, 1), (selection.count, LISTS)):
        expected, found = (
            engine.candidates(queries, count, selection, widening),
            copy.candidates(queries, count, widening),
        )
        assert np.array_equal(found.rows, expected.rows)
        assert np.array_equal(found.missed, expected.missed)
        assert found.tied is not None
        assert np.array_equal(found.tied, expected.tied)
    assert np.array_equal(np.sort(found.rows), np.tile(selection.numbers, (50, 1))), "all lists have all selected rows"


def test_many_rows_are_not_copied(engine: CodesEngine) -> None:
    copied = [engine.copy_selected(RowSelection.of_numbers(np.arange(0, ROWS, step), ROWS), 2**30) for step in (8, 7)]
    assert [copy is None for copy in copied] == [False, True]


def test_a_new_segment_shares_the_lists_of_the_first(engine: CodesEngine, tmp_path: Path) -> None:
    more = clusters(700, DIMENSIONS, seed=5)
    info = write(more, tmp_path / "more.faiss", CodesParameters("ivf", OWNER, like=engine))
    second = open_codes(tmp_path / "more.faiss", info, 700, DIMENSIONS)
    assert isinstance(engine, IvfEngine)
    assert isinstance(second, IvfEngine)
    assert np.array_equal(second.training.centroids, engine.training.centroids)
    assert np.array_equal(second.training.ranges, engine.training.ranges)
    queries = unit(more[::7])
    assert _share_found(second.candidates(queries, 50, None).rows, cosines(queries, more), 11) >= 0.98


def test_a_new_segment_may_have_fewer_rows_than_lists(engine: CodesEngine, tmp_path: Path) -> None:
    more = clusters(3, DIMENSIONS, seed=5)
    info = write(more, tmp_path / "more.faiss", CodesParameters("ivf", OWNER, like=engine))
    second = open_codes(tmp_path / "more.faiss", info, 3, DIMENSIONS)
    assert info.lists == LISTS
    assert sorted(second.candidates(unit(more[:1]), 3, None, widening=LISTS).rows[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_few_rows_have_few_lists(rows: int, tmp_path: Path) -> None:
    few = clusters(rows, DIMENSIONS)
    info = write(few, tmp_path / "codes.faiss", CodesParameters("ivf", OWNER))
    engine = open_codes(tmp_path / "codes.faiss", info, rows, DIMENSIONS)
    assert info.lists == default_lists(rows) <= rows
    found = engine.candidates(unit(few), rows, None, widening=rows)
    assert [sorted(one) for one in found.rows.tolist()] == [list(range(rows))] * rows


def test_equal_and_zero_vectors_can_be_in_lists(tmp_path: Path) -> None:
    same = np.zeros((100, DIMENSIONS), np.float32)
    same[50:] = 1.0
    info = write(same, tmp_path / "codes.faiss", CodesParameters("ivf", OWNER, 4))
    engine = open_codes(tmp_path / "codes.faiss", info, 100, DIMENSIONS)
    found = engine.candidates(unit(np.ones((1, DIMENSIONS))), 50, None, widening=4).rows[0]
    assert sorted(found.tolist()) == list(range(50, 100))
    assert info.recall == 1.0


@pytest.mark.parametrize(("rows", "lists"), [(1, 1), (2, 2), (100, 16), (10_000, 128), (10**6, 2048), (10**7, 4096)])
def test_the_number_of_lists_follows_from_the_number_of_rows(rows: int, lists: int) -> None:
    assert default_lists(rows) == lists


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(vectors: NDArray[np.float32], tmp_path: Path, number: float) -> None:
    bad = vectors.copy()
    bad[1234, 4] = number
    with pytest.raises(DataError, match=r"^dataset 'scene': the vector of row 1234 has a number that is not finite"):
        write(bad, tmp_path / "codes.faiss")


def test_a_file_that_no_build_writes_is_refused(file: Path, info: CodesInfo, tmp_path: Path) -> None:
    good = bytearray(file.read_bytes())
    path = tmp_path / "codes.faiss"
    fields = header_dtype(LISTS, DIMENSIONS)
    header = np.frombuffer(good, fields, 1)
    inside = [name for name in fields.names if name not in ("centroids", "ranges", "sizes")]
    flipped = [fields.fields[name][1] + n for name in inside for n in range(fields[name].itemsize)]
    for at in (*flipped, header.nbytes - 8, header.nbytes - 1):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(IndexUnusableError, match="the index is broken"):
            open_codes(path, info, ROWS, DIMENSIONS)
    for name, value in (("centroids", np.nan), ("ranges", np.inf), ("sizes", 2**63), ("sizes", 0)):
        changed = header.copy()
        changed[name][0].flat[3] = value
        path.write_bytes(changed.tobytes() + good[header.nbytes :])
        with pytest.raises(IndexUnusableError, match="no build writes"):
            open_codes(path, info, ROWS, DIMENSIONS)
    for content in (b"", good[:100], good[:-1], good + b"\0"):
        path.write_bytes(content)
        with pytest.raises(IndexUnusableError, match="damaged"):
            open_codes(path, info, ROWS, DIMENSIONS)


def test_a_row_number_that_the_segment_does_not_have_is_refused(
    file: Path, info: CodesInfo, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    header = np.frombuffer(file.read_bytes(), header_dtype(LISTS, DIMENSIONS), 1)
    size = int(header["sizes"][0][0])
    queries, selection = unit(vectors), RowSelection.of_mask(np.ones(ROWS, bool))
    for number in (-5, ROWS, 2**62, 0):
        content = bytearray(file.read_bytes())
        at = header.nbytes + size * DIMENSIONS
        content[at : at + 8 * size] = np.full(size, number, "<i8").tobytes()
        path = tmp_path / "codes.faiss"
        path.write_bytes(content)
        with pytest.raises(IndexUnusableError, match="no build writes"):
            open_codes(path, info, ROWS, DIMENSIONS)
        engine = open_codes(path, info, ROWS, DIMENSIONS, validate=False)
        engine.candidates(queries, 10, selection)  # No bit is read outside the selection.
        with pytest.raises(IndexUnusableError, match="no build writes"):
            engine.copy_selected(RowSelection.of_numbers(np.arange(9), ROWS), 2**30)
        if number:
            with pytest.raises(IndexUnusableError, match="no build writes"):
                engine.candidates(queries, 10, None)


def test_a_file_that_is_overwritten_while_it_is_searched_ends_in_the_scan(tmp_path: Path) -> None:
    embeddings = ObjectStore(root=str(tmp_path / "store"))
    raster, vectors = blank_raster(tmp_path / "blank.tif", 34, 34), clusters(34 * 34, 24)
    write_dataset(embeddings, "scene", raster, Dinov3(model=str(checkpoint(tmp_path / "model", 24))), vectors)
    dataset = Dataset.open(embeddings, "scene")
    files = VectorFiles.of_dataset(dataset)
    index = build_vector_index(files, VectorIndexOptions(index="always", index_engine="ivf")).index
    assert index is not None
    codes = tmp_path / "store" / files.layout.vector_index_file(index.segments[0].codes_file.name)
    search = IndexedSearch(files, "auto", None)

    def tiles() -> tuple[list[str], UsedEngine]:
        with closing(connect()) as con:
            scan = partial(ScanEngine(dataset, con).nearest, vectors[0], 10, Filters())
            rows, used = search.nearest(vectors[0], 10, Filters(), scan)
        return [row["tile_id"] for row in rows], used

    good, used = tiles()
    assert used.name == "ivf"
    with codes.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(header_dtype(index.segments[0].codes.lists, 24).itemsize)
        file.write(b"\x7f" * (size - file.tell()))
    again, used = tiles()
    assert (used.name, used.why) == ("scan", "the index is broken: a file of it holds something that no build writes")
    assert again == good


def test_codes_that_are_too_coarse_do_not_make_a_query_read_all_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # A few rows are far away, so that a step of the codes is larger than the differences between all other rows.
    far = (rng.random((8000, 1)) < 0.01) * rng.standard_normal((8000, 16))
    vectors = (1 + far + 1e-4 * rng.standard_normal((8000, 16))).astype(np.float32)
    info = write_codes(store(vectors, tmp_path), tmp_path / "codes", CodesParameters("ivf", "rows", 32))
    assert info.recall is not None
    assert info.recall < RECALL_GOAL
    assert info.probes < 32
