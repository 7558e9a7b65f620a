"""Engines with compressed vectors, alone: what they propose, and what they promise about rows that they leave out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rasterembed.search.engines.codes import CodesParameters, open_codes, write_codes
from rasterembed.search.engines.engine import RECALL_GOAL, CodesInfo, CodesName, IndexUnusableError
from rasterembed.search.engines.ivf_building import default_lists
from rasterembed.search.engines.ivf_file import most_lists
from rasterembed.search.row_selection import RowSelection
from tests.search.engine_vectors import cosines, store, unit
from tests.support.search_world import special_vectors

NAMES = ("flat", "ivf")


def distances(queries: NDArray[Any], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return cosine distances in float64, shape (queries, vectors). A zero vector is at a right angle."""
    return 1.0 - cosines(queries, vectors)


def selections(rows: int) -> st.SearchStrategy[RowSelection | None]:
    def of_seed(seed: int, share: float) -> RowSelection:
        return RowSelection.of_mask(np.random.default_rng(seed).random(rows) < share)

    some = st.builds(of_seed, st.integers(0, 1000), st.sampled_from([0.01, 0.1, 0.3, 0.9]))
    return st.one_of(st.none(), some, st.just(RowSelection.of_mask(np.zeros(rows, bool))))


def check_candidates(name: str, engine: Any, vectors: NDArray[Any], data: st.DataObject) -> None:
    rows, dimensions = vectors.shape
    seed = data.draw(st.integers(0, 1000))
    queries = np.random.default_rng(seed).standard_normal((data.draw(st.integers(1, 3)), dimensions))
    if data.draw(st.booleans()):
        queries[0] = vectors[np.flatnonzero(vectors.any(axis=1))[0]]
    selection = data.draw(selections(rows))
    count = data.draw(st.sampled_from([1, 2, 10, rows - 1, rows, 10 * rows]).filter(bool))
    widening = data.draw(st.sampled_from([1, 4, 1000]))
    found = engine.candidates(unit(queries), count, selection, widening)
    copied = engine.copy_selected(selection, 2**20) if selection is not None and selection.count else None
    if copied is not None:
        again = copied.candidates(unit(queries), count, widening)
        for one, other in ((found.rows, again.rows), (found.missed, again.missed), (found.tied, again.tied)):
            assert np.array_equal(one, other)
    mask = np.ones(rows, bool) if selection is None else selection.mask
    exact = distances(queries, vectors)
    assert len(found.rows) == len(found.missed) == len(queries)
    for line, missed, each in zip(found.rows, found.missed, exact, strict=True):
        chosen = line[line >= 0]
        assert len(chosen) <= count
        assert len(set(chosen.tolist())) == len(chosen)
        assert mask[chosen].all()
        assert (line[len(chosen) :] == -1).all()
        left_out = mask.copy()
        left_out[chosen] = False
        # The promise: no row that was left out is nearer than `missed`.
        assert not left_out.any() or each[left_out].min() >= missed
        if name == "flat" or widening == 1000:
            assert len(chosen) == min(count, mask.sum())
        if not left_out.any():
            assert missed == np.inf
        if name == "flat" and left_out.any():
            # The bound is close, so that few rows are compared twice.
            assert missed > each[chosen].max() - 0.003


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], tuple[Any, NDArray[Any]]]]:
    """Engines over vectors of three dtypes, with special vectors among them, and the vectors."""
    folder = tmp_path_factory.mktemp("codes")
    engines = {}
    for dtype, rows in {"float32": 1003, "float16": 257, "int8": 40, "one": 1}.items():
        vectors = special_vectors(np.random.default_rng(rows), rows, 24)
        if dtype == "int8":
            vectors *= 127 / np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9)
        vectors = vectors.astype("float32" if dtype == "one" else dtype)
        source = store(vectors, folder, f"{dtype}.bin")
        for name in NAMES:
            path = folder / f"{name}-{dtype}.faiss"
            info = write_codes(source, path, CodesParameters(engine=name, owner="dataset 'x'"))  # type: ignore[arg-type]
            engines[name, dtype] = open_codes(path, info, rows, 24), vectors
    yield engines
    for engine, _ in engines.values():
        engine.close()


@pytest.mark.parametrize("name", NAMES)
def test_no_nearer_row_is_left_out_than_the_engine_says(name: str, opened: dict[Any, Any]) -> None:
    @settings(max_examples=60)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        engine, vectors = opened[name, data.draw(st.sampled_from(["float32", "float16", "int8", "one"]))]
        check_candidates(name, engine, vectors, data)

    check()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_recall_in_the_description_is_that_of_numpy(dtype: str, tmp_path: Path) -> None:
    """The vectors have no structure, which is hardest for inverted lists."""
    rows = 3000
    vectors = np.random.default_rng(1).standard_normal((rows, 16)).astype(dtype)
    info = write_codes(
        store(vectors, tmp_path),
        tmp_path / "codes.faiss",
        CodesParameters(engine="ivf", owner="dataset 'x'"),
    )
    assert info.lists == default_lists(rows)
    assert info.recall is not None
    assert info.recall >= RECALL_GOAL
    assert info.recall_sample == 200
    engine = open_codes(tmp_path / "codes.faiss", info, rows, 16)
    # Other queries than those of the measurement. The ten nearest are compared again, as a search does.
    asked = np.arange(0, rows, 7)
    found = engine.candidates(unit(vectors[asked].astype(np.float64)), 50, None)
    right = 0
    for line, each, own in zip(found.rows, distances(vectors[asked], vectors), asked, strict=True):
        others = line[(line >= 0) & (line != own)]
        nearest = others[np.argsort(each[others])][:10]
        limit = np.sort(np.delete(each, own))[9]
        right += int((each[nearest] <= limit + 1e-9).sum())
    assert right / (10 * len(asked)) >= 0.98


def test_the_same_vectors_give_the_same_file(tmp_path: Path) -> None:
    vectors = store(special_vectors(np.random.default_rng(0), 500, 16), tmp_path)
    for name in NAMES:
        files = [tmp_path / f"{name}-{number}.faiss" for number in range(2)]
        infos = [write_codes(vectors, file, CodesParameters(engine=name, owner="x")) for file in files]  # type: ignore[arg-type]
        assert infos[0] == infos[1]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_any_length_are_compared_by_direction(name: Any, tmp_path: Path) -> None:
    """In float32 the squares of the first would be zero, and those of the last infinite."""
    directions = unit(np.random.default_rng(3).standard_normal((60, 8)))
    scale = np.float32(10.0) ** np.linspace(-30, 37, 60, dtype=np.float32)[:, None]
    source = store(directions * scale, tmp_path)
    path = tmp_path / "codes.faiss"
    info = write_codes(source, path, CodesParameters(engine=name, owner="x"))
    found = open_codes(path, info, 60, 8).candidates(directions, 1, None, 1000)
    assert found.rows[:, 0].tolist() == list(range(60))


def test_descriptions_that_no_build_writes_are_refused() -> None:
    for values in (
        {"engine": "ivf"},
        {"engine": "ivf", "lists": 4, "probes": 0},
        {"engine": "ivf", "lists": 4, "probes": 5},
        {"engine": "ivf", "lists": 2**20 + 1, "probes": 1},
        {"engine": "flat", "lists": 4},
        {"engine": "flat", "probes": 1},
        {"engine": "vss"},
    ):
        with pytest.raises(ValueError, match="validation error"):
            CodesInfo.model_validate(values)


def test_more_lists_than_a_header_holds_are_refused(tmp_path: Path) -> None:
    assert 2**17 < most_lists(dimensions=1024) < 2**19
    (tmp_path / "codes.faiss").write_bytes(b"IwSq")
    info = CodesInfo(engine="ivf", lists=2**20, probes=8)
    for rows in (100, 10**8):
        with pytest.raises(IndexUnusableError):
            open_codes(tmp_path / "codes.faiss", info, rows=rows, dimensions=4096)


@pytest.mark.parametrize("name", NAMES)
def test_queries_of_another_length_are_refused(name: CodesName, tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(3).normal(size=(200, 24)).astype(np.float32))
    info = write_codes(store(vectors, tmp_path), tmp_path / "codes", CodesParameters(name, "rows"))
    engine = open_codes(tmp_path / "codes", info, *vectors.shape)
    for wrong in (vectors[:2, :1], vectors[:2, :23], np.zeros((2, 25), np.float32), vectors[0]):
        with pytest.raises(ValueError, match="for vectors of 24 numbers"):
            engine.candidates(wrong, 5, None)
