"""Run `embed_raster` in separate processes, which a test can pause, kill and start again.

Each run is forked from a server process that has imported PyTorch already. This saves seconds for each run.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import Affine

from rasterembed.dataset import embedding as shard_embedding
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.manifest import Manifest, read_manifest
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.run import PICTURES
from rasterembed.raster.grid import Grid
from rasterembed.store import lease
from rasterembed.store.object_store import ObjectStore

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "rasterembed.pipeline",
        "rasterembed.model.embedder",
        "rasterembed.qa.measure",
        "rasterembed.search.index.building",
        "rasterembed.store.s3",
        "tests.support.pictures",
        "PIL.JpegImagePlugin",
        "pandas",
        "pyarrow.csv",
        "pyarrow.pandas_compat",
        "s3fs",
        "transformers.models.auto.modeling_auto",
        "transformers.models.dinov3_vit.modeling_dinov3_vit",
    ]
)

DATASET = "scene"
SHARDS = 4
"""Number of shards when the raster of `write_raster` is embedded with `choices`."""

Hook = Callable[[], None]
"""Function that the process calls before the run. It must be a module's function or a `partial` of one, because it is
pickled."""


def write_raster(path: Path) -> Path:
    """Write a raster of 5 rows and 7 columns of 32 px tiles. Its last column and last shard have no valid pixel."""
    random = np.random.default_rng(5)
    pixels = random.integers(1, 256, (3, 150, 224), dtype=np.uint8)
    pixels[:, :, 192:] = 0
    pixels[:, 128:, 128:] = 0
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
    place = {"crs": "EPSG:32635", "transform": Affine(10, 0, 500_000, 0, -10, 6_700_000)}
    with rasterio.open(path, "w", width=224, height=150, count=3, dtype="uint8", nodata=0, **profile, **place) as file:
        file.write(pixels)
    return path


def choices(model: Path) -> dict[str, Any]:
    """Return the choices for a small, quick run: 4 shards of up to 16 tiles in batches of 4."""
    return {
        "dataset_id": DATASET,
        "grid": Grid(size=32),
        "model": Dinov3(model=str(model), device="cpu"),
        "selection": Selection(shard_tiles=16),
        "execution": Execution(batch_size=4, shard_threads=1),
    }


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    exit_code: int | None
    """Exit status. -n means that signal n killed the process."""
    error: str = ""
    """Class and text of the exception that ended the run. Empty if there was none."""
    said: str = ""
    """Text that the run printed."""
    embedded: int = 0
    """Number of shards that the run computed."""
    loaded: int = 0
    """Number of times that the run loaded the model."""
    environment: tuple[str, ...] = ()
    """Names of the environment variables that the run added to its process."""


class Run:
    """A run in another process."""

    def __init__(self, raster: str | Path, store: ObjectStore, hook: Hook | None, lease_s: float, options: Any) -> None:
        fields = {name: getattr(store, name) for name in ObjectStore.model_fields}
        self._report, theirs = _processes.Pipe(duplex=False)
        self._process = _processes.Process(target=_run, args=(theirs, str(raster), fields, hook, lease_s, options))
        self._process.start()
        theirs.close()
        self._said = ""

    def wait_for(self, words: str) -> None:
        """Wait until the run has printed these words."""
        while words not in self._said:
            kind, value = self._report.recv()
            assert kind == "print", value
            self._said += value

    def signal(self, number: signal.Signals) -> None:
        """Send the run a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def end(self) -> Outcome:
        """Wait for the end of the run."""
        result: dict[str, Any] = {}
        try:
            while True:
                kind, value = self._report.recv()
                if kind == "print":
                    self._said += value
                else:
                    result = value
        except EOFError:
            pass
        self._process.join()
        return Outcome(self._process.exitcode, said=self._said, **result)


def start(
    raster: str | Path,
    store: ObjectStore,
    *,
    hook: Hook | None = None,
    lease_s: float = lease.DURATION_S,
    **options: Any,
) -> Run:
    """Start a run; see `choices` for `options`."""
    return Run(raster, store, hook, lease_s, options)


def run(
    raster: str | Path,
    store: ObjectStore,
    *,
    hook: Hook | None = None,
    lease_s: float = lease.DURATION_S,
    **options: Any,
) -> Outcome:
    """Start a run and wait for its end."""
    return start(raster, store, hook=hook, lease_s=lease_s, **options).end()


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module's function in another process, and return its result."""
    report, theirs = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    answer = report.recv()
    process.join()
    return answer


def _answer(report: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    report.send(function(*arguments))


class Pause:
    """A point at which a run waits for the test."""

    def __init__(self) -> None:
        self._arrival, self._arrive = _processes.Pipe(duplex=False)
        self._permission, self._permit = _processes.Pipe(duplex=False)

    def stay(self) -> None:
        """Tell the test that the run is at this point, and wait until the test calls `end`. The run calls this."""
        self.arrive()
        self._permission.recv()

    def arrive(self) -> None:
        """Tell the test that the run is at this point, and do not wait. The run calls this."""
        self._arrive.send(None)

    def reached(self) -> None:
        """Wait until the run has arrived. The test calls this."""
        assert self._arrival.poll(120)

    def end(self) -> None:
        """Let the run go on. The test calls this."""
        self._permit.send(None)


class _Said:
    """Standard output that sends each text to the test."""

    def __init__(self, report: Connection) -> None:
        self._report = report

    def write(self, text: str) -> int:
        self._report.send(("print", text))
        return len(text)

    def flush(self) -> None:
        pass


def _run(
    report: Connection, raster: str, store: dict[str, Any], hook: Hook | None, lease_s: float, options: dict[str, Any]
) -> None:
    from rasterembed.model import embedder
    from tests.support.pictures import draw_plain_pictures

    draw_plain_pictures()
    sys.stdout = _Said(report)  # type: ignore[assignment]
    lease.DURATION_S, lease.POLL_S = lease_s, 0.05
    embedded = _count(shard_embedding, "write_shard")
    loaded = _count(embedder, "load_embedder")
    if hook:
        hook()
    error, environment = "", set(os.environ)
    try:
        embed_raster(ObjectStore(**store), raster, EmbedOptions(**options))
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
    new = tuple(sorted(set(os.environ) - environment))
    report.send(("result", {"error": error, "embedded": len(embedded), "loaded": len(loaded), "environment": new}))
    report.close()
    sys.exit(1 if error else 0)


def _count(module: Any, name: str) -> list[None]:
    calls: list[None] = []
    before(module, name, lambda *_: calls.append(None))
    return calls


def before(owner: Any, name: str, do: Callable[..., None]) -> None:
    """Make every call of `owner.name` call `do` first, with the same positional arguments."""
    function = getattr(owner, name)

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        do(*args)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, do: Callable[..., None]) -> None:
    """Make every call of `owner.name` call `do` afterwards, with the same positional arguments."""
    function = getattr(owner, name)

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        do(*args)
        return result

    setattr(owner, name, wrapped)


def kill() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_after(seconds: float) -> None:
    """End this process as a power cut would, after some seconds. The function returns at once."""
    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()


def on_change(number: int, do: Hook) -> None:
    """Call `do` before the run's `number`th change to the store, counted from 1. Changes of the lease do not count."""
    changes = 0

    def count(_: ObjectStore, key: str, *__: Any) -> None:
        nonlocal changes
        changes += "/lease/" not in key
        if changes == number and "/lease/" not in key:
            do()

    for name in ("write", "write_from_file", "create", "create_from_file", "delete"):
        before(ObjectStore, name, count)


@dataclass(frozen=True)
class Vectors:
    """Tiles and vectors of a shard, in the order of its rows."""

    tiles: tuple[str, ...]
    sha256: str
    """Digest of the embedding column's bytes."""


def embedding(store: ObjectStore, key: str) -> Vectors:
    """Read the vectors of one shard."""
    table = pq.read_table(io.BytesIO(store.read(key) or b""))
    values = table["embedding"].combine_chunks().flatten().to_numpy()
    return Vectors(tuple(table["tile_id"].to_pylist()), hashlib.sha256(values.tobytes()).hexdigest())


def tiles(store: ObjectStore, dataset_id: str = DATASET) -> pa.Table:
    """Return the rows of all shards in the manifest's order, without the receipts."""
    manifest = read_manifest(store, dataset_id)
    assert manifest is not None
    tables = [pq.read_table(io.BytesIO(store.read(shard.path) or b"")) for shard in manifest.shards]
    return pa.concat_tables(table.replace_schema_metadata(None) for table in tables)


def vectors(store: ObjectStore, dataset_id: str = DATASET) -> dict[str, Vectors]:
    """Read the vectors of each shard in the manifest, by file name, and check each shard's size and digest."""
    manifest = read_manifest(store, dataset_id)
    assert manifest is not None
    found = {}
    for shard in manifest.shards:
        data = store.read(shard.path)
        assert data is not None, f"{shard.path} is listed but missing"
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
        found[PurePosixPath(shard.path).name] = embedding(store, shard.path)
        assert len(found[PurePosixPath(shard.path).name].tiles) == shard.rows
    return found


def files(root: Path) -> dict[str, tuple[str, int]]:
    """Return the digest and the modification time of every file below a folder. The keys are paths below the folder."""
    return {
        str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def expected_files(manifest: Manifest) -> set[str]:
    """Return the paths of all files that a finished dataset has, without its lease."""
    name, plan = manifest.dataset_id, f"plan-{manifest.fingerprint[:12]}.json"
    fixed = {f"datasets/{name}/{file}" for file in ("manifest.json", "stac-item.json", plan)}
    report = {f"qa/{name}/{file}" for file in ("report.json", "report.md", *PICTURES)}
    return fixed | report | {f"tiles/{name}/index.parquet"} | {shard.path for shard in manifest.shards}


def exit_code_of(hook: Hook | None, function: Callable[..., Any], *arguments: Any) -> int | None:
    """Call a hook and then a module's function in another process. Return the exit status of the process.

    Args:
        hook: function that the process calls first. See `Hook`.
        function: function of a module.
        arguments: arguments of `function`.
    """
    process = _processes.Process(target=_call, args=(hook, function, arguments))
    process.start()
    process.join()
    return process.exitcode


def _call(hook: Hook | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if hook is not None:
        hook()
    function(*arguments)
