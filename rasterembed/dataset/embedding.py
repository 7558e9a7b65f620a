"""Embed a shard: read pixels, compute vectors and write the shard. The three steps run at the same time."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import EmbeddedBatch, Shard, find_shard, write_shard
from rasterembed.dataset.vector_column import largest_number
from rasterembed.dataset.vector_summary import VectorSummary, summarise_shard, summarised, summary_of
from rasterembed.errors import Cancelled, DataError
from rasterembed.model.choice import Engine
from rasterembed.model.processor import usable_cores
from rasterembed.options_model import OptionsModel
from rasterembed.raster.radiometry import palette_table
from rasterembed.raster.read_ahead import read_ahead
from rasterembed.raster.shard_reader import ShardReader, block_cache_bytes
from rasterembed.raster.tile_batch import TileBatch
from rasterembed.slow_imports import collector_paused
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterembed.model.embedder import Embedder, Pending

_Result = TypeVar("_Result")

_BATCH_BYTES = 64 * 2**20
"""Largest size in bytes of a batch's pixels, if the batch size is not given. Several batches are in memory at once."""


class Execution(OptionsModel):
    """Options for how a run does its work.

    These options change the result only by rounding. Another batch size or engine gives slightly different vectors. The
    cosine between the old and the new vector of a tile is at least 0.99999 in float32, and at least 0.999 in bfloat16
    and float16. The cosine is checked when the model is loaded.
    """

    engine: Engine = Field(
        default="auto",
        description="Engine that runs the model. auto: OpenVINO if it is installed and faster in a measurement, "
        "else eager.",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Number of tiles in a batch for the model. The default depends on the device.",
    )
    shard_threads: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Number of shards that are computed at the same time. One shard reads pixels while another uses "
        "the device. The default is 2, and on CUDA half the number of processor cores, from 2 to 8.",
    )
    lease_wait: float = Field(
        default=3600.0,
        ge=0.0,
        description="Longest wait in seconds while another run writes the same dataset. 0: do not wait.",
    )


@dataclass(frozen=True)
class EmbeddingJob:
    """Inputs of `embed_shard` that are the same for all shards of a run."""

    execution: Execution = field(default_factory=Execution)
    """How the work is done."""
    device: str = "cpu"
    """Name of the device in PyTorch."""
    hub_token: str | None = field(default=None, repr=False)
    """Access token for gated weights."""
    run_id: str | None = None
    """Name of the run in the receipts."""
    tiles: int | None = None
    """Number of tiles for which the engine `auto` chooses. None: the planned tiles of the dataset."""

    @cached_property
    def shard_threads(self) -> int:
        """Number of shards that are computed at the same time."""
        return self.execution.shard_threads or default_shard_threads(self.device, usable_cores())


def default_shard_threads(device: str, processor_cores: int) -> int:
    """Return the number of shards that are computed at the same time if a person gives none.

    On a CPU, two are enough: one shard is read while the model computes the other. A GPU computes faster than one core
    reads. On an H100 with 16 cores, 8 shards were as fast as 12, and 1.6 to 2 times as fast as 2
    (`benchmarks/gpu_pipeline.py`).

    Args:
        device: name of the device in PyTorch.
        processor_cores: number of processor cores that this process may use.
    """
    return max(2, min(8, processor_cores // 2)) if device == "cuda" else 2


@dataclass
class Progress:
    """Counts the finished tiles of a run, and can stop the run. All threads of the run share it."""

    total: int
    """Number of planned tiles."""
    on_change: Callable[[int], object] = lambda _: None
    """Function that is called, from any thread, with the change of `shown`. It is negative if a worker died."""
    done: int = 0
    """Number of finished tiles, embedded or skipped."""
    computed: int = 0
    """Number of finished tiles that this run computed. The other finished tiles were in the store before."""
    underway: int = 0
    """Number of tiles that workers report as finished, in shards that are not complete. 0 without workers."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Event that stops the run when it is set. Each shard then stops at its next batch and writes nothing."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def shown(self) -> int:
        """Number of tiles that a progress bar shows: finished tiles, and those that workers report."""
        return min(self.done + self.underway, self.total)

    def add(self, tiles: int, *, found: bool = False, underway: int = 0) -> None:
        """Add a number of finished tiles.

        Args:
            tiles: number of tiles.
            found: whether the tiles were in the store before this run.
            underway: new value of `underway`.
        """
        with self._lock:
            before = self.shown
            self.done += tiles
            self.computed += 0 if found else tiles
            self.underway = underway
            self.on_change(self.shown - before)


def embed_shard(
    store: ObjectStore,
    plan: Plan,
    number: int,
    job: EmbeddingJob = EmbeddingJob(),
    progress: Progress | None = None,
) -> Shard:
    """Compute one shard, unless the store already has the complete shard.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.
        number: number of the shard, from 0.
        job: how the work is done.
        progress: counts the finished tiles, and can stop the work.

    Raises:
        DataError: if a window cannot be read, or if the model's weights differ from the plan's weights.
        StoreError: if the store refuses.
        Cancelled: if `progress.stop` was set.
    """
    progress = progress or Progress(plan.sharding.planned(number))
    existing = find_shard(store, plan, number)
    if existing is not None:
        progress.add(plan.sharding.planned(number), found=True)
        return existing
    return _compute_shard(store, plan, number, job, progress)


def embed_summarised_shard(
    store: ObjectStore,
    plan: Plan,
    number: int,
    job: EmbeddingJob,
    progress: Progress,
    *,
    sample_rows: int,
    first: bool,
) -> tuple[Shard, VectorSummary]:
    """Compute one shard as `embed_shard` does, and return numbers about its vectors too.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.
        number: number of the shard, from 0.
        job: how the work is done.
        progress: counts the finished tiles, and can stop the work.
        sample_rows: approximate number of vectors in the samples of all shards together.
        first: whether the store had nothing of this dataset before this run, so that no shard has to be looked for.

    Raises:
        Exception: as `embed_shard` does.
    """
    existing = None if first else find_shard(store, plan, number)
    if existing is not None:
        progress.add(plan.sharding.planned(number), found=True)
        return existing, summarise_shard(store, plan, existing.path, sample_rows)
    summary = summary_of(plan, sample_rows)
    return _compute_shard(store, plan, number, job, progress, summary), summary


def _compute_shard(
    store: ObjectStore,
    plan: Plan,
    number: int,
    job: EmbeddingJob,
    progress: Progress,
    summary: VectorSummary | None = None,
) -> Shard:
    """Compute and write one shard. Add its rows and its skipped tiles to the summary, if one is given."""
    batches = _embedded_batches(store, plan, number, job, progress)
    try:
        with closing(batches):
            written = batches if summary is None else summarised(batches, plan, summary)
            return write_shard(store, plan, number, written, job.run_id)
    finally:
        _return_memory()


def in_threads(function: Callable[[int], _Result], plan: Plan, threads: int, stop: threading.Event) -> list[_Result]:
    """Call a function for the number of each shard, several at a time. The first failure stops all other calls.

    Args:
        function: function of a shard's number.
        plan: plan of the dataset.
        threads: number of calls at the same time.
        stop: event that is set if a call fails.

    Returns:
        The results in any order.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="shard") as pool:
        futures = [pool.submit(function, number) for number in range(plan.sharding.count)]
        try:
            return [future.result() for future in as_completed(futures)]
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise


def _return_memory() -> None:
    """Return the memory of a shard's arrays to the system.

    glibc keeps freed blocks of up to 32 MiB. The next shard's arrays do not fit between the blocks that are still in
    use, so the process would use more and more memory. In a measurement, a raster of 13,000 tiles took 1.5 times the
    memory of a raster of 1,300 tiles.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # Only glibc has this function.
    if trim is not None:
        trim(0)


def _shard_reader(store: ObjectStore, plan: Plan, job: EmbeddingJob) -> ShardReader:
    return ShardReader(
        store=store,
        source=plan.source,
        profile=plan.profile,
        sharding=plan.sharding,
        bands=plan.radiometry.distinct_bands,
        palette=palette_table(plan.profile) if plan.radiometry.palette else None,
        batch_size=job.execution.batch_size or _batch_size(plan, job.device),
        min_valid_fraction=plan.selection.min_valid_fraction,
        on_bad_window=plan.selection.on_bad_window,
        cache_bytes=block_cache_bytes(plan.source, plan.profile, plan.sharding, job.shard_threads),
    )


def _embedded_batches(
    store: ObjectStore, plan: Plan, number: int, job: EmbeddingJob, progress: Progress
) -> Generator[EmbeddedBatch]:
    """Yield the shard's batches with their vectors.

    While the model computes a batch, the next batch is being read and the previous batch is being written.
    """
    # PyTorch is imported here, because planning and resuming must work without PyTorch.
    with collector_paused():
        from rasterembed.model.embedder import load_embedder

    reader = _shard_reader(store, plan, job)
    computing: deque[tuple[TileBatch, Embedder | None, Pending | None]] = deque()
    # The model is loaded for the first batch that has a tile to embed. Some shards have no such batch.
    embedder: Embedder | None = None

    with closing(read_ahead(reader.batches(number))) as batches:
        for batch in chain(batches, [None]):
            if progress.stop.is_set():
                raise Cancelled("the run was told to stop")
            if batch is not None:
                pending = None
                if len(batch.positions):
                    embedder = embedder or load_embedder(
                        plan.model,
                        job.device,
                        job.hub_token,
                        engine=job.execution.engine,
                        tiles=plan.sharding.tile_count if job.tiles is None else job.tiles,
                    )
                    pending = embedder.submit(batch.pixels, batch.valid, plan.radiometry)
                computing.append((batch, embedder, pending))
            # Keep the newest batch in the queue while an older batch is written. The device then never waits for the
            # writer. After the last batch, empty the queue.
            while len(computing) > (batch is not None):
                embedded = _finish(plan, number, *computing.popleft())
                yield embedded
                progress.add(len(embedded.positions) + len(embedded.skipped))


def _finish(
    plan: Plan, number: int, batch: TileBatch, embedder: Embedder | None, pending: Pending | None
) -> EmbeddedBatch:
    """Wait for the vectors of a batch, and check them."""
    if pending is None or embedder is None:
        vectors = np.empty((0, plan.model.dimensions), np.float32)
        return EmbeddedBatch(batch.positions, batch.valid_fraction, vectors, batch.skipped)
    vectors = pending.result()
    _check_finite(plan, number, batch.positions, vectors)
    return EmbeddedBatch(batch.positions, batch.valid_fraction, vectors, batch.skipped, embedder.computation)


def _batch_size(plan: Plan, device: str) -> int:
    """Return the default number of tiles in a batch. Larger tiles give smaller batches. This limits the memory."""
    grid = plan.sharding.grid
    tile_bytes = 3 * grid.size**2 * np.dtype(plan.profile.dtype).itemsize
    return max(1, min(256 if device == "cuda" else 32, _BATCH_BYTES // tile_bytes))


def _check_finite(plan: Plan, number: int, positions: NDArray[np.intp], vectors: NDArray[np.float32]) -> None:
    bad = ~(np.abs(vectors) < largest_number(plan.selection.vector_dtype)).all(axis=1)
    if bad.any():
        name = plan.sharding.tiles(number).id(int(positions[np.flatnonzero(bad)[0]]))
        raise DataError(
            f"tile {name}: the vector that {plan.model.name} computes in {plan.model.dtype} is not finite in "
            f"{plan.selection.vector_dtype}: use `dtype=float32`, `dtype=bfloat16` or `vector_dtype=float32`"
        )
