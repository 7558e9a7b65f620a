"""One shard from pixels to file, and a whole raster from one call."""

from __future__ import annotations

import ctypes
import threading
import uuid
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rasterembed.dataset.manifest import Manifest, commit, standing
from rasterembed.dataset.plan import Plan, Selection, make_plan
from rasterembed.dataset.shards import EmbeddedBatch, Shard, find_shard, write_shard
from rasterembed.dataset.tile_index import write_index
from rasterembed.errors import Cancelled, DataError, ObjectMissingError
from rasterembed.model.choice import Dinov3, Engine, resolve_device
from rasterembed.raster.grid import Grid, tile_id
from rasterembed.raster.radiometry import Radiometry, palette_table
from rasterembed.raster.read_ahead import read_ahead
from rasterembed.raster.shard_reader import ShardReader, TileBatch, block_cache_bytes
from rasterembed.raster.source import default_dataset_id, register
from rasterembed.store.layout import check_dataset_id
from rasterembed.store.lease import hold_lease
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterembed.model.embedder import Embedder, Pending

_BATCH_BYTES = 64 * 2**20
"""Pixels of a batch whose size was not asked for; several are in memory at once."""


class Execution(BaseModel):
    """How a run goes about its work.

    Nothing here changes what comes out beyond rounding: vectors of other batches and engines have a cosine of at least
    0.99999 to each other in float32, 0.999 in bfloat16 and float16, which is checked when the model is loaded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Engine = Field(
        default="auto",
        description="What computes; auto: eager, or OpenVINO where it is installed and was measured to be faster.",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Tiles that are read and handed to the model together; by default as many as suit the device.",
    )
    shard_threads: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Shards worked on at once: one reads and decodes while another holds the device.",
    )
    lease_wait: float = Field(
        default=3600.0,
        ge=0.0,
        description="Seconds to wait while another run writes the same dataset; 0 stops at once.",
    )


@dataclass
class Progress:
    """Tiles dealt with so far, counted by every thread; and the word to stop."""

    total: int
    """Tiles planned."""
    on_change: Callable[[int], object] = lambda _: None
    """Told of more tiles, from any thread."""
    done: int = 0
    """Tiles embedded or skipped."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Once set, shards end at the next batch and leave nothing behind."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, tiles: int) -> None:
        """Count tiles."""
        with self._lock:
            self.done += tiles
            self.on_change(tiles)


def embed_shard(
    plan: Plan,
    store: ObjectStore,
    number: int,
    *,
    execution: Execution = Execution(),
    device: str = "cpu",
    hub_token: str | None = None,
    run_id: str | None = None,
    progress: Progress | None = None,
) -> Shard:
    """Compute one shard, unless the store has it complete.

    Raises:
        DataError: for a window that cannot be read, or weights that are not the plan's.
        StoreError: if the store refuses.
        Cancelled: if `progress.stop` was set.
    """
    progress = progress or Progress(plan.sharding.planned(number))
    there = find_shard(plan, store, number)
    if there is not None:
        progress.add(plan.sharding.planned(number))
        return there
    made: dict[str, Any] = {"engine": None}
    parts = _parts(plan, store, number, execution, device, hub_token, progress, made)
    try:
        with closing(parts):
            return write_shard(plan, store, number, parts, run_id, made)
    finally:
        _return_memory()


def _return_memory() -> None:
    """Give back to the system what a shard's arrays took.

    glibc keeps freed blocks of up to 32 MiB for itself, and what the next shard takes does not fit between what is
    still in use: a raster of 13,000 tiles came to 1.5 times the memory of one of 1,300.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


def _parts(
    plan: Plan,
    store: ObjectStore,
    number: int,
    execution: Execution,
    device: str,
    hub_token: str | None,
    progress: Progress,
    made: dict[str, Any],
) -> Generator[EmbeddedBatch]:
    """The vectors of a shard's tiles, batch by batch; `made` learns what computed them."""
    from rasterembed.model.embedder import load_embedder  # planning and resuming do without PyTorch

    reader = ShardReader(
        store=store,
        source=plan.source,
        profile=plan.profile,
        sharding=plan.sharding,
        bands=plan.radiometry.distinct_bands,
        palette=palette_table(plan.profile) if plan.radiometry.palette else None,
        batch_size=execution.batch_size or _batch_size(plan, device),
        min_valid_fraction=plan.selection.min_valid_fraction,
        on_bad_window=plan.selection.on_bad_window,
        cache_bytes=block_cache_bytes(plan.source, plan.profile, plan.sharding, execution.shard_threads),
    )
    computing: deque[tuple[TileBatch, Pending | None]] = deque()
    embedder: Embedder | None = None  # loaded with the first batch: a shard may have none

    def finish() -> EmbeddedBatch:
        batch, pending = computing.popleft()
        vectors = pending.result() if pending else np.empty((0, plan.model.dimensions), np.float32)
        _check_finite(plan, number, batch.positions, vectors)
        return EmbeddedBatch(batch.positions, batch.valid_fraction, vectors, batch.skipped)

    with closing(read_ahead(reader.batches(number))) as batches:
        for batch in chain(batches, [None]):
            if progress.stop.is_set():
                raise Cancelled("the run was told to stop")
            if batch is not None and not len(batch.positions):
                computing.append((batch, None))  # only skipped tiles
            elif batch is not None:
                embedder = embedder or load_embedder(
                    plan.model, device, hub_token, engine=execution.engine, tiles=plan.sharding.tile_count
                )
                made["engine"] = embedder.engine
                computing.append((batch, embedder.submit(batch.pixels, batch.valid, plan.radiometry)))
            # the next batch is handed over before this one is waited for, so that the device never waits for the writer
            while len(computing) > (batch is not None):
                part = finish()
                yield part
                progress.add(len(part.positions) + len(part.skipped))


def _batch_size(plan: Plan, device: str) -> int:
    """Tiles in a batch if none is asked for: in memory that does not grow with the tile's side."""
    grid = plan.sharding.grid
    tile = 3 * grid.size**2 * np.dtype(plan.profile.dtype).itemsize
    return max(1, min(256 if device == "cuda" else 32, _BATCH_BYTES // tile))


def _check_finite(plan: Plan, number: int, positions: NDArray[np.intp], vectors: NDArray[np.float32]) -> None:
    limit = np.finfo(np.float16).max if plan.selection.vector_dtype == "float16" else np.inf
    bad = ~(np.abs(vectors) < limit).all(axis=1)
    if bad.any():
        tiles = plan.sharding.tiles(number)
        first = int(positions[np.flatnonzero(bad)[0]])
        name = tile_id(int(tiles.row[first]), int(tiles.col[first]))
        raise DataError(
            f"tile {name}: {plan.model.name} in {plan.model.dtype} gives a vector that is not finite in "
            f"{plan.selection.vector_dtype}: use dtype float32 or bfloat16, or vector_dtype float32"
        )


def embed_raster(
    raster: str,
    store: ObjectStore,
    *,
    dataset_id: str | None = None,
    grid: Grid = Grid(),
    radiometry: Radiometry = Radiometry(),
    model: Dinov3 = Dinov3(),
    selection: Selection = Selection(),
    execution: Execution = Execution(),
    replace: bool = False,
    hub_token: str | None = None,
) -> Manifest:
    """Embed a raster in this process, for notebooks and benchmarks: the flow without Prefect and quality checks.

    Args:
        raster: a path, or s3://bucket/key.
        store: where the dataset goes; its credentials read a raster on S3.
        dataset_id: its name; by default made of the raster's key.
        grid: the tile grid.
        radiometry: how values become colour.
        model: which model.
        selection: which tiles, and how vectors are kept.
        execution: how the work is done.
        replace: embed anew if the dataset exists with another configuration.
        hub_token: access token for gated weights.

    Raises:
        RasterEmbedError: with one line that says what was wrong.
    """
    if dataset_id is not None:
        check_dataset_id(dataset_id)
    source = register(store, raster)
    plan = make_plan(
        store,
        source,
        dataset_id or default_dataset_id(source.uri),
        grid=grid,
        radiometry=radiometry,
        model=model,
        selection=selection,
        hub_token=hub_token,
    )
    there = standing(plan, store, replace=replace)
    if there is not None:
        return there
    run_id = uuid.uuid4().hex
    with hold_lease(store, plan.layout, run_id, wait_s=execution.lease_wait, on_wait=print) as lease:
        there = standing(plan, store, replace=replace)  # another run may have ended meanwhile
        if there is not None:
            return there
        prepare(plan, store)
        progress = Progress(plan.sharding.tile_count)
        device = resolve_device(model.device)

        def one(number: int) -> Shard:
            return embed_shard(
                plan,
                store,
                number,
                execution=execution,
                device=device,
                hub_token=hub_token,
                run_id=run_id,
                progress=progress,
            )

        lease.on_lost = progress.stop.set
        try:
            shards = _in_threads(one, plan.sharding.count, execution.shard_threads, progress.stop)
        except (Cancelled, ObjectMissingError):
            lease.check()  # another run stopped this one, or took its file away
            raise
        return commit(plan, store, shards, run_id, lease, state="ready")


def prepare(plan: Plan, store: ObjectStore) -> None:
    """Put the plan, and for a new dataset the index of planned tiles, into the store; clear what a dead run left.

    A dataset that is being replaced keeps its index until the manifest switches.
    """
    for key in (plan.layout.shard(plan.fingerprint, 0), plan.layout.tile_index, plan.layout.manifest):
        store.clear_scratch(key.rsplit("/", 1)[0])
    plan.write(store)
    if store.read(plan.layout.manifest) is None:
        write_index(plan, store)


def _in_threads(one: Callable[[int], Shard], count: int, threads: int, stop: threading.Event) -> Sequence[Shard]:
    with ThreadPoolExecutor(threads, thread_name_prefix="shard") as pool:
        futures = [pool.submit(one, number) for number in range(count)]
        try:
            return [future.result() for future in as_completed(futures)]  # the first failure ends the run
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
