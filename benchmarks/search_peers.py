"""Compare packages that search vectors, in one run: FAISS, usearch, LanceDB, DuckDB with and without `vss`, and NumPy.

Each package has the same vectors and queries, and finds the ten nearest rows by cosine. The packages run in their own
environment (`benchmarks/peers/vector_search.txt`), with one process for each part, one after the other.

For each filter, an index is asked with the smallest search parameter that has recall@10 of 0.99 on half of the queries,
or with the largest one. The other half is measured.

Vectors are clustered (`benchmarks.vectors.made_up_vectors`), or have the shape of a real model's output
(`benchmarks.vectors.raster_vectors`). The latter are left out if the folder of rasters is absent. A filter keeps random
rows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from benchmarks.harness import RESULTS, default_rasters, load, run, save, table
from benchmarks.peers import SCRIPTS, VENVS, Unavailable, python_of
from benchmarks.vectors import Nearest, Vectors, made_up_vectors, questions, raster_vectors, unit

NAME = "search_peers"

_K = 10
_BLOCK = 16_384
_SCRIPT = "vector_search"

LABELS = {
    "numpy": "NumPy, float32",
    "faiss_flat": "FAISS, float16, all rows",
    "faiss_ivf": "FAISS, IVF, 8 bits",
    "usearch": "usearch, HNSW, float16",
    "lancedb_scan": "LanceDB, all rows",
    "lancedb_ivf_sq": "LanceDB, IVF, 8 bits",
    "lancedb_ivf_pq": "LanceDB, IVF, PQ",
    "duckdb_scan": "DuckDB, all rows",
    "vss": "DuckDB `vss`, HNSW",
}
"""Ways of `benchmarks/peers/vector_search.py`, with their names in tables."""

KINDS = {"clustered": "Clustered vectors", "rasters": "Vectors in the shape of a real model's output"}
"""Kinds of vectors, with their names in tables."""

_READS_VECTORS = ("faiss_flat", "faiss_ivf", "numpy")
"""Ways that also read the file of float32 vectors. Its size counts as theirs."""


def measure(
    *,
    rows: tuple[int, ...] = (100_000, 1_000_000),
    kinds: tuple[str, ...] = ("clustered", "rasters"),
    ways: tuple[str, ...] = tuple(LABELS),
    vss_up_to: int = 100_000,
    queries: int = 100,
    seconds: float = 3.0,
    rasters: Path | None = None,
    venvs: Path = VENVS,
    scratch: Path | None = None,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Compare packages that search vectors.

    Args:
        rows: Numbers of vectors. A vector has 384 numbers.
        kinds: Kinds of vectors, `clustered` and `rasters`. See `benchmarks.vectors`.
        ways: Packages to compare, keys of `benchmarks.search_peers.LABELS`.
        vss_up_to: Largest number of rows for `vss`, whose build takes 18 to 40 minutes for a million rows.
        queries: Number of queries; half of them choose the search parameter.
        seconds: Seconds in which answers are counted, with one thread and with four threads.
        rasters: Folder of real rasters; by default the variable RASTERS or ../shared/data/rasters.
        venvs: Folder of the environment, which is made on first use.
        scratch: Folder for vectors and indexes, several GB; by default a temporary folder.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    python = python_of(_SCRIPT, venvs)
    by_kind, notes = vector_kinds(kinds, rasters or default_rasters())
    runs: dict[str, Any] = {}
    for kind, vectors in by_kind.items():
        for count in rows:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                write_vectors(Path(folder), vectors, count, queries)
                chosen = [way for way in ways if way != "vss" or count <= vss_up_to]
                runs[f"{kind}/{count}"] = {way: measure_way(python, way, Path(folder), seconds) for way in chosen}
    return save(NAME, parameters, load_before, {"runs": runs, "notes": notes, "versions": versions()}, results)


def vector_kinds(kinds: Sequence[str], rasters: Path) -> tuple[dict[str, Vectors], list[str]]:
    """Return the functions that generate vectors, by kind, and one line for each kind that is left out.

    Args:
        kinds: `clustered`, `rasters` or both.
        rasters: folder of real rasters.
    """
    by_kind = {"clustered": made_up_vectors(384)} if "clustered" in kinds else {}
    if "rasters" not in kinds:
        return by_kind, []
    try:
        return by_kind | {"rasters": raster_vectors(rasters)}, []
    except FileNotFoundError as error:
        return by_kind, [f"Vectors of real rasters are left out: {error}."]


def versions() -> list[str]:
    """Return the packages of the environment with their versions."""
    return (SCRIPTS / f"{_SCRIPT}.txt").read_text().split()


def write_vectors(folder: Path, vectors: Vectors, rows: int, queries: int) -> None:
    """Write the files that the script reads: vectors, shares, queries and exact answers.

    Args:
        folder: folder of the files.
        vectors: function that generates vectors.
        rows: number of rows.
        queries: number of queries. They are not among the rows.
    """
    asked = questions(vectors, queries)
    file = open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(rows, asked.shape[1]))
    share = np.random.default_rng(2).integers(0, 10_000, rows, dtype=np.int32)
    exact = {percent: Nearest(asked, _K) for percent in (100, 50, 10, 1)}
    for first in range(0, rows, _BLOCK):
        numbers = np.arange(first, min(first + _BLOCK, rows), dtype=np.intp)
        block = unit(vectors(numbers))
        file[numbers] = block
        for percent, nearest in exact.items():
            kept = share[numbers] < 100 * percent
            nearest.add(block[kept], numbers[kept])
    file.flush()
    np.save(folder / "share.npy", share)
    np.save(folder / "queries.npy", asked)
    for percent, nearest in exact.items():
        np.save(folder / f"exact_{percent}.npy", nearest.rows)


def measure_way(python: Path, way: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Build and ask one index, each in its own process.

    Args:
        python: Python of the environment.
        way: a key of `LABELS`.
        folder: folder that `write_vectors` filled.
        seconds: see `measure`.

    Returns:
        The measurements, or only `failed` with the reason.
    """
    print(f"{datetime.now():%H:%M:%S} {way}", file=sys.stderr, flush=True)
    try:
        found: dict[str, Any] = {
            "build": call(python, way, "build", folder),
            "ask": call(python, way, "ask", folder, "--seconds", str(seconds)),
        }
    except Unavailable as error:
        return {"failed": str(error)}
    found["file_mb"] = found["build"].pop("file_mb")
    if way in _READS_VECTORS:
        found["file_mb"] += (folder / "vectors.npy").stat().st_size / 1e6
    subprocess.run(["rm", "-r", str(folder / way)], check=True)
    return found


def call(python: Path, way: str, part: str, folder: Path, *options: str) -> dict[str, Any]:
    """Run a part of the script, and return its measurements.

    Args:
        python: Python of the environment.
        way: a key of `LABELS`.
        part: `build` or `ask`.
        folder: folder that `write_vectors` filled.
        options: further options of the script.

    Raises:
        Unavailable: if the script fails.
    """
    command = [str(python), str(SCRIPTS / f"{_SCRIPT}.py"), way, part, str(folder), *options]
    # An answer uses one thread wherever a package lets the caller choose. OpenBLAS reads its number at the import.
    threads = {"OPENBLAS_NUM_THREADS": "1"} if part == "ask" else {}
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | threads
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    if done.returncode < 0:
        raise Unavailable(f"its process was ended by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        last = done.stderr.strip().splitlines()
        raise Unavailable(f"it ends with status {done.returncode}: {last[-1][:300] if last else 'it says nothing'}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def markdown(report: dict[str, Any]) -> str:
    """Return the results as Markdown tables."""
    machine = report["machine"]
    text = (
        f"{machine['processor']}, {machine['cores']} cores, load before {machine['load_before']}; "
        f"{', '.join(report['versions'])}.\n"
    )
    head = [
        "package", "build, s of processor", "file with vectors, MB", "peak of build, MiB", "memory when open, MiB",
        "first answer, s", "answer, ms", "at 50 %", "at 10 %", "at 1 %", "recall@10", "smallest, filtered",
        "answers a second, 1 thread", "4 threads",
    ]  # fmt: skip
    for name, ways in report["runs"].items():
        kind, _, count = name.partition("/")
        text += f"\n{KINDS[kind]}, {int(count):,} rows:\n\n"
        text += table(head, [_row(way, found) for way, found in ways.items() if "failed" not in found])
        text += "".join(f"\n{LABELS[way]}: {found['failed']}.\n" for way, found in ways.items() if "failed" in found)
    return text + "".join(f"\n{note}\n" for note in report["notes"])


def _row(way: str, found: dict[str, Any]) -> list[str]:
    build, ask = found["build"], found["ask"]
    filters = ask["filters"]
    return [
        LABELS[way],
        f"{build['cpu_s']:,.1f}",
        f"{found['file_mb']:,.0f}",
        f"{build['peak_mib']:,.0f}",
        f"{ask['grown_mib']:,.0f}",
        f"{ask['first_cpu_s']:.2f}",
        *(f"{filters[percent]['cpu_ms']:,.2f}" for percent in ("100", "50", "10", "1")),
        f"{filters['100']['recall']:.3f}",
        f"{min(filters[percent]['recall'] for percent in ('50', '10', '1')):.3f}",
        *(f"{ask['answers_per_s'][threads]:,.0f}" for threads in ("1", "4")),
    ]


if __name__ == "__main__":
    run(measure, markdown)
