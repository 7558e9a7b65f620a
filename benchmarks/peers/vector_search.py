"""Build an index of vectors with one package, or ask the index, and print the measurements as one line of JSON.

The part `answer` measures nothing. It answers a query for each line of standard input. The caller counts what each
answer reads.

    python vector_search.py WAY build FOLDER
    python vector_search.py WAY ask FOLDER --seconds 3
    python vector_search.py WAY answer FOLDER --place s3://bucket/folder --parameter 16

FOLDER holds these files:

- `vectors.npy` (n, d): float32, unit length.
- `share.npy` (n,): a number from 0 to 9999 for each row. A filter of P percent keeps the rows with `share < 100 * P`. A
  filter of 100 percent is no filter.
- `queries.npy` (m, d): the queries, unit length.
- `exact_P.npy` (m, k) for each filter of P percent: the row numbers of the exact answers.

The script needs only the packages of `vector_search.txt`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol

STARTED = time.perf_counter(), time.process_time()

import numpy as np  # noqa: E402

K = 10
CANDIDATES = 100
"""Rows that FAISS proposes, and that are compared again with the float32 vectors."""

_RECALL = 0.99
"""For each filter, the smallest search parameter with this recall@10 on half of the queries is measured on the rest."""


class Opened(Protocol):
    """An index that is open."""

    parameters: tuple[int, ...]
    """Search parameters to try, from the fastest to the best."""

    def nearest(self, query: np.ndarray, percent: int, parameter: int) -> np.ndarray:
        """Return the numbers of the rows nearest to `query`, shape (k,), of those that the filter keeps."""


class Numpy:
    """A matrix product with all vectors. A filter takes its rows first."""

    parameters = (0,)

    @staticmethod
    def build(folder: Path, own: Path) -> None:
        """Do nothing, because the vectors are the index."""

    def __init__(self, folder: Path, own: Path) -> None:
        self._vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self._share = np.load(folder / "share.npy")

    def nearest(self, query: np.ndarray, percent: int, parameter: int) -> np.ndarray:
        """See `Opened`."""
        if percent == 100:
            return nearest_of(self._vectors @ query)
        rows = np.flatnonzero(self._share < 100 * percent)
        return rows[nearest_of(self._vectors[rows] @ query)]


class Faiss:
    """FAISS, with the 100 best rows compared again in float32. The file is memory-mapped."""

    parameters: tuple[int, ...] = (0,)
    factory = "SQfp16"

    @classmethod
    def build(cls, folder: Path, own: Path) -> None:
        """Train with a sample, add the rows block by block, and write the index."""
        import faiss

        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        lists = lists_for(len(vectors))
        index = faiss.index_factory(vectors.shape[1], cls.factory.format(lists=lists), faiss.METRIC_INNER_PRODUCT)
        sample = np.sort(np.random.default_rng(0).choice(len(vectors), min(len(vectors), 64 * lists), replace=False))
        index.train(vectors[sample])
        for first in range(0, len(vectors), 65_536):
            index.add(vectors[first : first + 65_536])
        faiss.write_index(index, str(own / "codes.faiss"))

    def __init__(self, folder: Path, own: Path) -> None:
        import faiss

        self._faiss = faiss
        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(own / "codes.faiss"), faiss.IO_FLAG_MMAP_IFC)
        self._vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self._share = np.load(folder / "share.npy")

    def _search_parameters(self, selector: Any, parameter: int) -> Any:
        return self._faiss.SearchParameters(sel=selector)

    def nearest(self, query: np.ndarray, percent: int, parameter: int) -> np.ndarray:
        """See `Opened`."""
        selector = None
        if percent < 100:
            bits = np.packbits(self._share < 100 * percent, bitorder="little")
            selector = self._faiss.IDSelectorBitmap(bits)
        options = self._search_parameters(selector, parameter)
        _, found = self._index.search(query[None], CANDIDATES, params=options)
        rows = np.sort(found[0][found[0] >= 0])
        return rows[nearest_of(self._vectors[rows] @ query)]


class FaissIvf(Faiss):
    """FAISS: lists of near vectors, with 8 bits for each number."""

    parameters = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    factory = "IVF{lists},SQ8"

    def _search_parameters(self, selector: Any, parameter: int) -> Any:
        return self._faiss.SearchParametersIVF(sel=selector, nprobe=parameter)


class Usearch:
    """A graph (HNSW) of usearch, with float16 vectors. The file is memory-mapped.

    The Python package takes no filter, so more rows are asked for until enough of them pass.
    """

    parameters = (16, 32, 64, 128, 256, 512)

    @staticmethod
    def build(folder: Path, own: Path) -> None:
        """Add all rows with all cores, and write the index."""
        from usearch.index import Index

        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        index = Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
        for first in range(0, len(vectors), 65_536):
            block = vectors[first : first + 65_536]
            index.add(np.arange(first, first + len(block)), block, threads=os.cpu_count() or 1)
        index.save(str(own / "graph.usearch"))

    def __init__(self, folder: Path, own: Path) -> None:
        from usearch.index import Index

        self._index = Index.restore(str(own / "graph.usearch"), view=True)
        self._share = np.load(folder / "share.npy")

    def nearest(self, query: np.ndarray, percent: int, parameter: int) -> np.ndarray:
        """See `Opened`."""
        self._index.expansion_search = parameter
        for fetch in fetches(percent, len(self._share)):
            found = self._index.search(query, fetch, threads=1).keys.astype(np.int64)
            passing = found[self._share[found] < 100 * percent]
            if len(passing) >= K:
                return passing[:K]
        return passing


class Lance:
    """LanceDB with an index of lists, 8 bits for each number."""

    parameters: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    compared_again = CANDIDATES // K
    """LanceDB's refine_factor. The number of rows compared again is this times K."""

    @classmethod
    def build(cls, folder: Path, own: Path) -> None:
        """Write the table, then its index."""
        import lancedb
        import pyarrow as pa

        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        share = np.load(folder / "share.npy")
        kind = pa.list_(pa.float32(), vectors.shape[1])

        def blocks() -> Iterator[pa.RecordBatch]:
            for first in range(0, len(vectors), 16_384):
                last = min(first + 16_384, len(vectors))
                flat = pa.array(np.ascontiguousarray(vectors[first:last]).reshape(-1))
                columns = [np.arange(first, last), share[first:last]]
                arrays = [*map(pa.array, columns), pa.FixedSizeListArray.from_arrays(flat, type=kind)]
                yield pa.record_batch(arrays, schema)

        schema = pa.schema([("id", pa.int64()), ("share", pa.from_numpy_dtype(share.dtype)), ("vector", kind)])
        table = lancedb.connect(str(own)).create_table("rows", blocks(), schema=schema)
        config = cls.config(lists_for(len(vectors)))
        if config is not None:
            table.create_index("vector", config=config)

    @staticmethod
    def config(lists: int) -> Any:
        """Return the description of the index, or None for no index."""
        from lancedb.index import IvfSq

        return IvfSq(distance_type="cosine", num_partitions=lists)

    def __init__(self, folder: Path, own: Path) -> None:
        import lancedb

        self._table = lancedb.connect(str(own), storage_options=storage_options()).open_table("rows")

    def nearest(self, query: np.ndarray, percent: int, parameter: int) -> np.ndarray:
        """See `Opened`."""
        search = self._table.search(query).distance_type("cosine").select(["id"]).limit(K)
        if parameter:
            search = search.nprobes(parameter)
        if self.compared_again:
            search = search.refine_factor(self.compared_again)
        if percent < 100:
            search = search.where(f"share < {100 * percent}", prefilter=True)
        return search.to_arrow()["id"].to_numpy()


class LancePq(Lance):
    """LanceDB with its usual index: lists, product quantisation."""

    @staticmethod
    def config(lists: int) -> Any:
        """See `Lance.config`."""
        from lancedb.index import IvfPq

        return IvfPq(distance_type="cosine", num_partitions=lists)


class LanceScan(Lance):
    """LanceDB without an index."""

    parameters = (0,)
    compared_again = 0

    @staticmethod
    def config(lists: int) -> None:
        """See `Lance.config`."""


class DuckScan:
    """DuckDB's own table, read whole."""

    parameters: tuple[int, ...] = (0,)

    @classmethod
    def build(cls, folder: Path, own: Path) -> None:
        """Write the table, then its index."""
        import pyarrow as pa

        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        share = np.load(folder / "share.npy")
        dimensions = vectors.shape[1]
        con = connect_duckdb(own / "rows.duckdb")
        con.execute(f"CREATE TABLE rows (id BIGINT, share INTEGER, vector FLOAT[{dimensions}])")
        for first in range(0, len(vectors), 65_536):
            block = np.ascontiguousarray(vectors[first : first + 65_536])
            lists = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), dimensions)
            own_share = share[first : first + 65_536].astype(np.int32)
            con.register("block", pa.table({"id": np.arange(first, first + len(block)), "s": own_share, "v": lists}))
            con.execute("INSERT INTO rows SELECT * FROM block")
            con.unregister("block")
        cls.make_index(con)
        con.execute("CHECKPOINT")
        con.close()

    @staticmethod
    def make_index(con: Any) -> None:
        """Make no index."""

    def __init__(self, folder: Path, own: Path) -> None:
        self._con = connect_duckdb(own / "rows.duckdb", read_only=True)
        self._con.execute("SET threads = 1")
        self._local = threading.local()
        self._share = np.load(folder / "share.npy")

    def _cursor(self) -> Any:
        if not hasattr(self._local, "cursor"):
            self._local.cursor = self._con.cursor()
        return self._local.cursor

    def nearest(self, query: np.ndarray, percent: int, parameter: int) -> np.ndarray:
        """See `Opened`."""
        where = f"WHERE share < {100 * percent}" if percent < 100 else ""
        distance = f"array_cosine_distance(vector, $q::FLOAT[{len(query)}])"
        # The query is bound as text. Without pandas, DuckDB tries to import it for each number of a list.
        sql = f"SELECT id FROM rows {where} ORDER BY {distance} LIMIT {K}"
        return self._cursor().execute(sql, {"q": str(query.tolist())}).fetchnumpy()["id"]


class Vss(DuckScan):
    """A graph (HNSW) of DuckDB's extension `vss`.

    It takes no filter, so more rows are asked for until enough of them pass.
    """

    parameters = (32, 64, 128, 256, 512)

    @staticmethod
    def make_index(con: Any) -> None:
        """Make the index with the parameters that this project uses."""
        con.execute("SET hnsw_enable_experimental_persistence = true")
        con.execute(
            "CREATE INDEX graph ON rows USING HNSW (vector) WITH (metric = 'cosine', M = 16, ef_construction = 128)"
        )

    def nearest(self, query: np.ndarray, percent: int, parameter: int) -> np.ndarray:
        """See `Opened`."""
        cursor = self._cursor()
        cursor.execute(f"SET hnsw_ef_search = {parameter}")
        distance = f"array_cosine_distance(vector, $q::FLOAT[{len(query)}])"
        for fetch in fetches(percent, len(self._share)):
            sql = f"SELECT id FROM rows ORDER BY {distance} LIMIT {fetch}"
            found = cursor.execute(sql, {"q": str(query.tolist())}).fetchnumpy()["id"]
            passing = found[self._share[found] < 100 * percent]
            if len(passing) >= K:
                return passing[:K]
        return passing


WAYS: dict[str, Any] = {
    "numpy": Numpy,
    "faiss_flat": Faiss,
    "faiss_ivf": FaissIvf,
    "usearch": Usearch,
    "lancedb_scan": LanceScan,
    "lancedb_ivf_sq": Lance,
    "lancedb_ivf_pq": LancePq,
    "duckdb_scan": DuckScan,
    "vss": Vss,
}


def nearest_of(similarity: np.ndarray) -> np.ndarray:
    """Return the numbers of the K largest values, the largest first."""
    best = np.argpartition(-similarity, K)[:K] if len(similarity) > K else np.arange(len(similarity))
    return best[np.argsort(-similarity[best], kind="stable")]


def lists_for(rows: int) -> int:
    """Return the number of lists of an index: about twice the square root of the rows, as a power of 2."""
    return 1 << max(2, round(np.log2(2 * rows**0.5)))


def fetches(percent: int, rows: int) -> Iterator[int]:
    """Return how many rows to ask for: as many as should suffice, then four times as many, and so on up to all."""
    for step in count():
        fetch = min(rows, 2 * K * 100 // percent * 4**step) if percent < 100 else K
        yield fetch
        if fetch == rows or percent == 100:
            return


def connect_duckdb(path: Path, read_only: bool = False) -> Any:
    """Open a database with `vss` from its package."""
    import duckdb
    import duckdb_extension_vss

    con = duckdb.connect(str(path), read_only=read_only)
    folder = Path(duckdb_extension_vss.__path__[0]) / "extensions" / f"v{duckdb.__version__}"
    con.load_extension(str(folder / "vss.duckdb_extension"))
    con.execute("SET memory_limit = '8GB'")
    # Otherwise DuckDB joins the answer with the whole table, and takes longer.
    con.execute("SET late_materialization_max_rows = 0")
    return con


def storage_options() -> dict[str, str] | None:
    """Return LanceDB's options for a server in the variables of the AWS tools, or None."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return {"endpoint": endpoint, "allow_http": "true"} if endpoint else None


def memory_mib(key: str) -> float:
    """Return a size of memory from proc_pid_status(5)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def build(way: Any, folder: Path, own: Path) -> dict[str, float]:
    """Build the index in its own folder."""
    own.mkdir(parents=True, exist_ok=True)
    before, begun, cpu = memory_mib("VmHWM"), time.perf_counter(), time.process_time()
    way.build(folder, own)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    size = sum(file.stat().st_size for file in own.rglob("*") if file.is_file())
    return {"clock_s": seconds, "cpu_s": cpu, "peak_mib": memory_mib("VmHWM") - before, "file_mb": size / 1e6}


def ask(way: Any, folder: Path, own: Path, seconds: float, percents: list[int]) -> dict[str, Any]:
    """Open the index, choose the search parameter, and measure answers."""
    queries = np.load(folder / "queries.npy")
    before = memory_mib("RssAnon")
    opened: Opened = way(folder, own)
    opened.nearest(queries[0], 100, opened.parameters[-1])
    first_s, first_cpu_s = time.perf_counter() - STARTED[0], time.process_time() - STARTED[1]
    half = len(queries) // 2
    filters = {}
    for percent in percents:
        parameter = chosen_parameter(opened, folder, queries, range(half), percent)
        found = answers(opened, folder, queries, range(half, len(queries)), percent, parameter)
        filters[str(percent)] = {"parameter": parameter} | found
    grown = memory_mib("RssAnon") - before
    unfiltered = filters["100"]["parameter"]
    threads = {str(n): answers_a_second(opened, queries, unfiltered, n, seconds) for n in (1, 4)}
    return {
        "first_s": first_s, "first_cpu_s": first_cpu_s, "filters": filters, "answers_per_s": threads,
        "grown_mib": grown,
    }  # fmt: skip


def chosen_parameter(opened: Opened, folder: Path, queries: np.ndarray, which: range, percent: int) -> int:
    """Return the smallest search parameter with enough recall, or the largest one."""
    for parameter in opened.parameters[:-1]:
        if recall(opened, folder, queries, which, percent, parameter) >= _RECALL:
            return parameter
    return opened.parameters[-1]


def recall(opened: Opened, folder: Path, queries: np.ndarray, which: range, percent: int, parameter: int) -> float:
    """Return the share of the exact answers that the index finds."""
    exact = np.load(folder / f"exact_{percent}.npy")
    found = [np.isin(opened.nearest(queries[n], percent, parameter), exact[n]).sum() for n in which]
    return float(sum(found) / exact[which.start : which.stop].size)


def answers(
    opened: Opened, folder: Path, queries: np.ndarray, which: range, percent: int, parameter: int
) -> dict[str, float]:
    """Return the medians of clock and processor time of an answer in ms, and the recall."""
    exact = np.load(folder / f"exact_{percent}.npy")
    opened.nearest(queries[which[0]], percent, parameter)
    clocks, cpus, hits = [], [], 0
    stop = time.perf_counter() + 20
    for n in which:
        begun, cpu = time.perf_counter(), time.process_time()
        found = opened.nearest(queries[n], percent, parameter)
        clocks.append(time.perf_counter() - begun)
        cpus.append(time.process_time() - cpu)
        hits += int(np.isin(found, exact[n]).sum())
        if time.perf_counter() > stop and len(clocks) >= 3:
            break
    of = len(clocks) * exact.shape[1]
    return {
        "clock_ms": statistics.median(clocks) * 1e3, "cpu_ms": statistics.median(cpus) * 1e3, "recall": hits / of,
        "p95_clock_ms": float(np.quantile(clocks, 0.95)) * 1e3,
    }  # fmt: skip


def answers_a_second(opened: Opened, queries: np.ndarray, parameter: int, clients: int, seconds: float) -> float:
    """Return how many unfiltered answers a second some threads get together, each with one query at a time."""
    numbers, done = count(), [0] * clients
    begun = time.perf_counter()

    def client(own: int) -> None:
        while time.perf_counter() - begun < seconds:
            opened.nearest(queries[next(numbers) % len(queries)], 100, parameter)
            done[own] += 1

    threads = [threading.Thread(target=client, args=(own,)) for own in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - begun)


def answer_lines(way: Any, folder: Path, place: str, parameter: int) -> None:
    """Answer a query for each line of standard input, which is the query's number. Print a line after each answer.

    The index is opened for the first query.
    """
    queries = np.load(folder / "queries.npy")
    opened = None
    for line in sys.stdin:
        opened = opened or way(folder, place)
        found = opened.nearest(queries[int(line)], 100, parameter)
        print(json.dumps(found.tolist()), flush=True)


def main() -> None:
    """Read the arguments and run one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("part", choices=["build", "ask", "answer"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--percents", type=int, nargs="+", default=[100, 50, 10, 1])
    parser.add_argument("--place", help="folder or URI of the index for the part answer; by default FOLDER/WAY")
    parser.add_argument("--parameter", type=int, default=0, help="search parameter for the part answer")
    options = parser.parse_args()
    own = options.folder / options.way
    if options.part == "answer":
        answer_lines(WAYS[options.way], options.folder, options.place or str(own), options.parameter)
        return
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "build": lambda: build(WAYS[options.way], options.folder, own),
        "ask": lambda: ask(WAYS[options.way], options.folder, own, options.seconds, options.percents),
    }
    json.dump(parts[options.part](), sys.stdout)


if __name__ == "__main__":
    main()
