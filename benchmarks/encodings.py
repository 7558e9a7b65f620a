"""Compare encodings of vectors in Parquet: size, loss of precision, and time to write, scan and find vectors.

The vectors come from a model. The tiles overlap. Each vector therefore has similar vectors in the dataset.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.harness import (
    RESULTS,
    Timing,
    embed,
    figure,
    load,
    make_checkpoint,
    run,
    save,
    spread,
    table,
    take_turns,
    where,
)
from examples.landscape import make_scene
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.selection import VectorDtype
from rasterembed.dataset.vector_column import decode_vectors, store_vectors, vector_fields
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore

NAME = "encodings"

_TILE = 64
"""Side of a tile, px. A tile has only 16 patches, so the model is fast. The vectors have the same length as for larger
tiles."""

_NUMBERS = "embedding.list.element"
"""Path of the numbers of the vectors in the schema of a Parquet file."""

_QUERIES = 300
_NEIGHBOURS = 10

Vectors = NDArray[np.float32]


def _bits(kept: int) -> Callable[[Vectors], Vectors]:
    """Return a function that rounds float32 numbers to `kept` bits of mantissa. A float32 has 23 bits of mantissa."""

    def rounded(vectors: Vectors) -> Vectors:
        dropped = 23 - kept
        whole = vectors.view(np.uint32) + np.uint32(1 << (dropped - 1))
        return (whole & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)).view(np.float32)

    return rounded


@dataclass(frozen=True)
class Encoding:
    """An encoding of the column of vectors."""

    compression: str = "none"
    level: int | None = None
    split: bool = False
    """Whether to use byte-stream-split: the first bytes of all numbers, then the second bytes, and so on."""
    rounding: Callable[[Vectors], Vectors] | None = None
    vector_dtype: VectorDtype = "float32"
    other: str | None = None
    """Parquet encoding of the numbers, if it is neither plain nor split: `dictionary`, or a name of Parquet."""
    rows: int = 8192
    """Number of rows in a row group."""

    def write(self, path: Path, vectors: Vectors) -> None:
        """Write a file with row numbers and vectors. The column of vectors has the same type as in a shard."""
        values = vectors if self.rounding is None else self.rounding(vectors)
        fields = vector_fields(self.vector_dtype, vectors.shape[1])
        arrays = [pa.array(np.arange(len(values))), *store_vectors(values, self.vector_dtype).arrays(fields)]
        schema = pa.schema([pa.field("number", pa.int64()), *fields])
        dictionary = self.other == "dictionary"
        encoding = "BYTE_STREAM_SPLIT" if self.split else None if dictionary else self.other
        with pq.ParquetWriter(
            path,
            schema,
            compression=self.compression,
            compression_level=self.level,
            use_dictionary=[_NUMBERS] if dictionary else False,
            column_encoding=None if encoding is None else {_NUMBERS: encoding},
        ) as writer:
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=self.rows)


ENCODINGS: dict[str, Encoding] = {
    "float32": Encoding(),
    "float32, lz4": Encoding("lz4"),
    "float32, zstd 1": Encoding("zstd", 1),
    "float32, zstd 3": Encoding("zstd", 3),
    "float32 split": Encoding(split=True),
    "float32 split, lz4": Encoding("lz4", split=True),
    "float32 split, zstd 1": Encoding("zstd", 1, split=True),
    "float32 split, zstd 1, 2048 rows": Encoding("zstd", 1, split=True, rows=2048),
    "float32 split, zstd 1, 16384 rows": Encoding("zstd", 1, split=True, rows=16384),
    "float32 split, zstd 3": Encoding("zstd", 3, split=True),
    "float32 split, zstd 9": Encoding("zstd", 9, split=True),
    "15 bits of mantissa, split, zstd 1": Encoding("zstd", 1, split=True, rounding=_bits(15)),
    "bfloat16 values in float32, split, lz4": Encoding("lz4", split=True, rounding=_bits(7)),
    "bfloat16 values in float32, split, zstd 1": Encoding("zstd", 1, split=True, rounding=_bits(7)),
    "float16": Encoding(vector_dtype="float16"),
    "float16, lz4": Encoding("lz4", vector_dtype="float16"),
    "float16, zstd 1": Encoding("zstd", 1, vector_dtype="float16"),
    "float16 split, zstd 1": Encoding("zstd", 1, split=True, vector_dtype="float16"),
    "int8, zstd 1": Encoding("zstd", 1, vector_dtype="int8"),
    "int8 split, zstd 1": Encoding("zstd", 1, split=True, vector_dtype="int8"),
    "int8 deltas, zstd 1": Encoding("zstd", 1, vector_dtype="int8", other="DELTA_BINARY_PACKED"),
    "int8 dictionary": Encoding(vector_dtype="int8", other="dictionary"),
    "int8 dictionary, lz4": Encoding("lz4", vector_dtype="int8", other="dictionary"),
    "int8 dictionary, zstd 1": Encoding("zstd", 1, vector_dtype="int8", other="dictionary"),
}


def measure(
    *, side: int = 4000, stride: int = 27, tiny: bool = False, rounds: int = 3, results: Path = RESULTS
) -> dict[str, Any]:
    """Compare the encodings.

    Args:
        side: Side of the generated scene, px.
        stride: Distance between the left sides of neighbouring tiles, px. A tile has 64 px.
        tiny: Use vectors of a tiny model, to try the script.
        rounds: Number of measurements of each case.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch:
        vectors = _vectors(Path(scratch), side, stride, tiny)
        runs = _measure(Path(scratch), vectors, rounds)
    shape = {"rows": len(vectors), "dimensions": vectors.shape[1]}
    return save(NAME, parameters, load_before, {**shape, "runs": runs}, results)


def _vectors(scratch: Path, side: int, stride: int, tiny: bool) -> Vectors:
    """Embed a scene. The model has the width of ViT-S, and a third of the layers of ViT-S."""
    width = 64 if tiny else 384
    weights = make_checkpoint(
        scratch / "model",
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=4,
        num_attention_heads=width // 32,
    )
    store = ObjectStore(root=str(scratch / "store"))
    manifest = embed(
        store,
        str(make_scene(scratch, width=side, height=side).raster),
        grid=Grid(size=_TILE, stride=stride),
        model=Dinov3(model=str(weights), device="cpu"),
        execution=Execution(batch_size=256),
    )
    return Dataset(store, manifest).vectors()


def _measure(scratch: Path, vectors: Vectors, rounds: int) -> dict[str, Any]:
    paths = {name: scratch / f"{i}.parquet" for i, name in enumerate(ENCODINGS)}
    raw_mb = vectors.nbytes / 1e6
    written = take_turns({name: partial(e.write, paths[name], vectors) for name, e in ENCODINGS.items()}, rounds)
    dimensions = vectors.shape[1]
    question = vectors[len(vectors) // 2].tolist()
    with duckdb.connect(config={"threads": 1}) as connection:

        def ask(sql: str, path: Path) -> None:
            connection.execute(
                sql.format(vector=f"FLOAT[{dimensions}]"), {"path": str(path), "question": question}
            ).fetchall()

        scan = "SELECT min(array_cosine_distance(embedding::{vector}, $question::{vector})) FROM read_parquet($path)"
        row = f"SELECT embedding, len($question) FROM read_parquet($path) WHERE number = {len(vectors) // 2}"
        readable = {name: path for name, path in paths.items() if _reads(partial(ask, scan, path))}
        scanned = take_turns({name: partial(ask, scan, path) for name, path in readable.items()}, rounds)
        found = take_turns({name: partial(ask, row, path) for name, path in readable.items()}, rounds)
    queries = np.random.default_rng(0).choice(len(vectors), min(_QUERIES, len(vectors)), replace=False)
    nearest = _nearest(vectors, queries)
    runs = {}
    for name, path in paths.items():
        back = decode_vectors(pq.read_table(path))
        error = np.linalg.norm(back - vectors, axis=1) / np.linalg.norm(vectors, axis=1)
        same = [len(np.intersect1d(a, b)) for a, b in zip(nearest, _nearest(back, queries), strict=True)]
        runs[name] = {
            "bytes_per_number": path.stat().st_size / vectors.size,
            "write_mb_per_s": figure([raw_mb / t.cpu for t in written[name]]),
            "scan_ms": _ms(scanned.get(name)),
            "lookup_ms": _ms(found.get(name)),
            "relative_error": float(error.max()),
            "recall_at_10": sum(same) / nearest.size,
        }
    return runs


def _reads(case: Callable[[], object]) -> bool:
    """Return whether DuckDB can read the encoding."""
    try:
        case()
    except duckdb.Error:
        return False
    return True


def _ms(times: list[Timing] | None) -> Any:
    """Return processor times in milliseconds.

    Processor times are used because other processes on the machine hardly change them. DuckDB's connection has one
    thread, so on a quiet machine the processor time equals the wall time.
    """
    return None if times is None else figure([t.cpu * 1e3 for t in times])


def _nearest(vectors: Vectors, queries: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the nearest neighbours of some rows by cosine similarity.

    Args:
        vectors: all vectors, shape (n, dimensions).
        queries: numbers of the rows, shape (queries,).

    Returns:
        Row numbers of the neighbours, shape (queries, neighbours). A row is not its own neighbour.
    """
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    likeness = unit[queries] @ unit.T
    likeness[np.arange(len(queries)), queries] = -np.inf
    return np.argpartition(-likeness, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    head = ["vectors", "bytes a number", "write, MB/s", "scan, ms", "one row, ms", "relative error", "recall@10"]
    rows = [
        [
            name,
            f"{run['bytes_per_number']:.2f}",
            spread(run["write_mb_per_s"], 0),
            spread(run["scan_ms"], 0) if run["scan_ms"] else "unreadable",
            spread(run["lookup_ms"], 0) if run["lookup_ms"] else "unreadable",
            f"{run['relative_error']:.1e}" if run["relative_error"] else "0",
            f"{run['recall_at_10']:.4f}",
        ]
        for name, run in report["runs"].items()
    ]
    return where(report) + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
