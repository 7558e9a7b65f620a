"""Datasets and collections whose tiles were all skipped: one clear line, with every search engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rasterembed import Collection, DataError, Dataset, Dinov3, ObjectStore, rebuild_collection
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.index.building import BuildOutcome, build_vector_index
from rasterembed.search.index_options import BuiltEngine, TableIndexOptions, VectorIndexOptions
from rasterembed.search.not_searched import NotSearchedReason
from rasterembed.search.query import EngineChoice
from rasterembed.search.searcher import Searcher
from rasterembed.search.vector_files import VectorFiles
from tests.support.vectors import blank_raster, checkpoint, write_dataset

BUILT: tuple[BuiltEngine, ...] = ("flat", "ivf", "vss")
ENGINES: tuple[EngineChoice, ...] = ("auto", "scan", *BUILT)
VECTORS = np.eye(4, 8, dtype=np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """The datasets `full` and `none`, and the collections `survey` of `none` and `mixed` of both."""
    folder = tmp_path_factory.mktemp("rows")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", 8)))
    for name, skip in (("full", frozenset[int]()), ("none", frozenset(range(4)))):
        write_dataset(store, name, blank_raster(folder / f"{name}.tif", 2, 2), model, VECTORS, skip=skip)
    rebuild_collection(store, "survey", datasets=["none"])
    rebuild_collection(store, "mixed", datasets=["none", "full"])
    return store


@pytest.mark.parametrize("engine", ENGINES)
def test_a_search_of_a_dataset_without_rows(store: ObjectStore, engine: EngineChoice) -> None:
    with pytest.raises(DataError, match=r"^dataset 'none' has no embedded tile: all 4 tiles were skipped$"):
        Searcher(store, ["none"], engine=engine)
    with Searcher(store, ["*"], engine=engine) as searcher:
        answer = searcher.ask_vector(VECTORS[2], k=10)
    assert [(one.dataset_id, one.reason) for one in answer.not_searched] == [("none", NotSearchedReason.EMPTY)]
    assert [hit.distance for hit in answer.hits] == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_search_of_a_collection_without_rows(store: ObjectStore, engine: EngineChoice) -> None:
    with pytest.raises(
        DataError, match=r"^collection 'survey' has no vector: all tiles of its ready scenes were skipped$"
    ):
        CollectionSearcher(store, "survey", engine=engine)
    with CollectionSearcher(store, "mixed", engine=engine) as searcher:
        answer = searcher.ask_vector(VECTORS[2], k=10)
    assert [(hit.dataset_id, hit.distance) for hit in answer.hits] == [("full", 0.0), *[("full", 1.0)] * 3]


@pytest.mark.parametrize("engine", BUILT)
def test_no_index_is_built_without_rows(store: ObjectStore, engine: BuiltEngine) -> None:
    survey = Collection.open(store, "survey")
    assert survey.table is not None
    for files, options in (
        (VectorFiles.of_dataset(Dataset.open(store, "none")), VectorIndexOptions(index="always", index_engine=engine)),
        (VectorFiles.of_table(survey, survey.table), TableIndexOptions(index="always", index_engine=engine)),
    ):
        result = build_vector_index(files, options)
        assert (result.outcome, result.index) == (BuildOutcome.TOO_FEW_ROWS, None)
        assert result.describe() == "no index: 0 rows are below 1"


@pytest.mark.parametrize("question", ["neighbours", "deduplicate", "cluster", "diversify"])
def test_a_question_about_all_tiles_without_rows(store: ObjectStore, question: str, tmp_path: Path) -> None:
    for owner in (Dataset.open(store, "none"), Collection.open(store, "survey")):
        with pytest.raises(DataError, match=r"were skipped$"):
            getattr(owner, question)(tmp_path / "result.parquet")
    assert not list(tmp_path.iterdir())
