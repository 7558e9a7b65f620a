"""Asking datasets: the index answers where it can and the exact scan elsewhere, and the answer says which."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.model.choice import Device
from rasterembed.search.answer import Answer, Engine, Hit
from rasterembed.search.areas import areas_of
from rasterembed.search.datasets import open_datasets
from rasterembed.search.engines.scan import Filters, connect, exact_nearest
from rasterembed.search.engines.vss import Index, IndexUnusableError
from rasterembed.search.examples import resolve_examples
from rasterembed.search.query import DEFAULT_K, EngineChoice, Query, Where
from rasterembed.store.object_store import ObjectStore


class Searcher:
    """Datasets that are open for questions, with their indexes loaded. Not for several threads at once.

    Args:
        store: where the datasets are.
        dataset_ids: which; their vectors must compare.
        engine: let indexes answer where there are any (`auto`), or scan every vector (`scan`).
        ef_search: candidates that an index keeps; by default as it was built for.
        device: where the model runs, for images.
        hub_token: access token for gated weights.

    Raises:
        UsageError: if there is no dataset of a name.
        DataError: if a dataset is not ready, or models differ.
    """

    def __init__(
        self,
        store: ObjectStore,
        dataset_ids: Sequence[str],
        *,
        engine: EngineChoice = "auto",
        ef_search: int | None = None,
        device: Device = "auto",
        hub_token: str | None = None,
    ) -> None:
        self.datasets = open_datasets(store, dataset_ids)
        self._device = device
        self._hub_token = hub_token
        self._con = connect()
        self._indexes: dict[str, Index] = {}
        self._without: dict[str, str] = {}
        for dataset in self.datasets:
            if engine == "scan":
                self._without[dataset.id] = "as asked"
                continue
            try:
                self._indexes[dataset.id] = Index(store, dataset, ef_search)
            except IndexUnusableError as error:
                self._without[dataset.id] = str(error)

    def __enter__(self) -> Searcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and the indexes."""
        for index in self._indexes.values():
            index.close()
        self._con.close()

    def ask(self, query: Query, where: Where = Where(), k: int = DEFAULT_K) -> Answer:
        """The k nearest tiles that may answer, ties by tile id; fewer only where fewer match.

        Raises:
            UsageError: if the question does not fit the datasets.
            DataError: if a tile, the image or the area is not there, or a shard cannot be read.
        """
        started = time.monotonic()
        areas = areas_of(where)
        shown = resolve_examples(self._con, self.datasets, query, device=self._device, hub_token=self._hub_token)
        found: list[tuple[Dataset, dict[str, Any]]] = []
        engines = []
        for dataset in self.datasets:
            if not where.acquired_within(dataset.plan.profile.acquired):
                continue
            if areas:
                dataset.check_on_earth()
            filters = Filters(
                min_valid_fraction=where.min_valid_fraction or 0.0,
                areas=areas,
                excluded=frozenset() if query.include_query else shown.tiles_of(dataset.id),
            )
            rows, engine = self._nearest(dataset, shown.vector, k, filters)
            engines.append(engine)
            found += [(dataset, row) for row in rows.to_pylist()]
        found.sort(key=lambda pair: (pair[1]["distance"], pair[1]["tile_id"], pair[0].id))
        return Answer(
            query=query.text(),
            examples=shown.examples,
            model=self.datasets[0].manifest.model,
            k=k,
            hits=_hits(found[:k]),
            engines=tuple(engines),
            seconds=round(time.monotonic() - started, 4),
        )

    def _nearest(
        self, dataset: Dataset, vector: NDArray[np.float32], k: int, filters: Filters
    ) -> tuple[pa.Table, Engine]:
        index = self._indexes.get(dataset.id)
        if index is not None:
            try:
                rows = index.nearest(vector, k, filters)
            except IndexUnusableError as error:
                self._give_up(dataset.id, str(error))
            else:
                if rows is not None:
                    info = index.info
                    why = f"ef_search {index.ef_search}, recall@{info.recall_at} {info.recall:.3f} when built"
                    return rows, Engine(dataset_id=dataset.id, name="vss", why=why, recall=info.recall)
        why = self._without.get(dataset.id, "the index cannot tell the nearest that match")
        rows = exact_nearest(self._con, dataset, vector, k, filters)
        return rows, Engine(dataset_id=dataset.id, name="scan", why=why)

    def _give_up(self, dataset_id: str, why: str) -> None:
        self._indexes.pop(dataset_id).close()
        self._without[dataset_id] = why


def _hits(found: Sequence[tuple[Dataset, dict[str, Any]]]) -> tuple[Hit, ...]:
    hits = []
    for rank, (dataset, row) in enumerate(found, start=1):
        lon, lat = _middle(dataset, row)
        acquired: datetime | None = dataset.plan.profile.acquired
        hits.append(Hit(rank=rank, dataset_id=dataset.id, lon=lon, lat=lat, acquired=acquired, **row))
    return tuple(hits)


def _middle(dataset: Dataset, row: dict[str, Any]) -> tuple[float | None, float | None]:
    middle = dataset.lonlat(row["col_off"] + row["width"] / 2, row["row_off"] + row["height"] / 2)
    return middle if middle is not None else (None, None)


def search(
    store: ObjectStore, dataset_ids: Sequence[str], query: Query, where: Where = Where(), k: int = DEFAULT_K
) -> Answer:
    """Ask once; see `Searcher`."""
    with Searcher(store, dataset_ids) as searcher:
        return searcher.ask(query, where, k)
