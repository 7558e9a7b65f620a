"""Numbers about the vectors of a shard that are collected while the shard is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rasterembed.dataset.geoparquet import PARQUET_ERRORS
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import EmbeddedBatch, read_receipt
from rasterembed.dataset.vector_column import decode_vectors, store_vectors, vector_columns
from rasterembed.errors import StoreError, one_line
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.store.object_store import ObjectStore


@dataclass
class VectorSummary:
    """Numbers about the vectors of a shard, or of several shards.

    A vector is good if it is finite and not zero. The numbers do not depend on the batches that the vectors come in.
    """

    every: int = 1
    """Of the rows of a shard, each `every`th good one belongs to the sample."""
    rows: int = 0
    """Number of vectors."""
    not_finite: int = 0
    """Number of vectors with a NaN or an infinity."""
    zero: int = 0
    """Number of vectors whose norm is zero."""
    norm_low: float = np.inf
    """Smallest norm of the good vectors."""
    norm_high: float = 0.0
    """Largest norm of the good vectors."""
    valid_sum: float = 0.0
    """Sum of the valid fractions of the tiles with a good vector."""
    valid_wrong: int = 0
    """Number of vectors of tiles whose valid fraction is above 1 or below the smallest one that the plan allows."""
    skipped: dict[SkipReason, list[int]] = field(default_factory=dict)
    """Positions of the skipped tiles in the tile order of the shard, by reason."""
    sample: list[NDArray[np.float32]] = field(default_factory=list)
    """Good vectors, arrays of shape (n, dimensions)."""

    @property
    def good(self) -> int:
        """Number of good vectors."""
        return self.rows - self.not_finite - self.zero

    def add_rows(self, plan: Plan, vectors: NDArray[np.float32], valid_fraction: NDArray[np.float32]) -> None:
        """Add vectors.

        Args:
            plan: plan of the dataset.
            vectors: vectors, rounded as they are stored, shape (n, dimensions).
            valid_fraction: share of valid pixels of each tile, shape (n,).
        """
        finite = np.isfinite(vectors).all(axis=1)
        norms = np.zeros(len(vectors))
        norms[finite] = np.linalg.norm(vectors[finite].astype(np.float64), axis=1)
        good = norms > 0
        self.not_finite += int((~finite).sum())
        self.zero += int((finite & ~good).sum())
        self.norm_low = min(self.norm_low, float(norms[good].min(initial=np.inf)))
        self.norm_high = max(self.norm_high, float(norms[good].max(initial=0.0)))
        self.valid_sum += float(valid_fraction[good].sum(dtype=np.float64))
        least = np.float32(plan.selection.min_valid_fraction)
        self.valid_wrong += int((~((valid_fraction >= least) & (valid_fraction <= 1))).sum())
        chosen = good & ((self.rows + np.arange(len(vectors))) % self.every == 0)
        if chosen.any():
            self.sample.append(vectors[chosen])
        self.rows += len(vectors)

    def add_skipped(self, reason: SkipReason, positions: Sequence[int]) -> None:
        """Add skipped tiles."""
        self.skipped.setdefault(reason, []).extend(positions)


def summary_of(plan: Plan, sample_rows: int) -> VectorSummary:
    """Return an empty summary for a shard of a dataset.

    Args:
        plan: plan of the dataset.
        sample_rows: approximate number of vectors in the samples of all shards together.
    """
    return VectorSummary(every=-(-plan.sharding.tile_count // sample_rows))


def summarised(batches: Iterator[EmbeddedBatch], plan: Plan, summary: VectorSummary) -> Iterator[EmbeddedBatch]:
    """Yield the batches of a shard, and add each to the summary, with the numbers as the shard stores them."""
    for batch in batches:
        stored = store_vectors(batch.vectors, plan.selection.vector_dtype)
        summary.add_rows(plan, stored.vectors(), batch.valid_fraction)
        for tile in batch.skipped:
            summary.add_skipped(tile.reason, [tile.position])
        yield batch


def summarise_shard(store: ObjectStore, plan: Plan, key: str, sample_rows: int) -> VectorSummary:
    """Read a complete shard, and return its summary.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.
        key: key of the shard.
        sample_rows: approximate number of vectors in the samples of all shards together.

    Raises:
        StoreError: if the shard is missing or cannot be read.
    """
    summary = summary_of(plan, sample_rows)
    try:
        with store.open(key) as file:
            receipt = read_receipt(file)
            columns = ["valid_fraction", *vector_columns(plan.selection.vector_dtype)]
            for batch in pq.ParquetFile(file).iter_batches(columns=columns):
                summary.add_rows(plan, decode_vectors(batch), batch["valid_fraction"].to_numpy())
    except PARQUET_ERRORS as error:
        raise StoreError(f"{store.uri(key)}: the shard cannot be read ({one_line(error)}): run again") from error
    for reason, positions in ({} if receipt is None else receipt.receipt.skipped).items():
        summary.add_skipped(reason, positions)
    return summary
