"""Count the bytes and requests of a search in a dataset on S3, with a vector index and by the exact scan.

LanceDB is measured beside it. It is the only compared package that reads its index from S3 (`benchmarks.search_peers`).

The server is Ceph's gateway on loopback, with a counting proxy in front of it. Its packages must be installed
(`tests.support.servers`). The dataset is written to a folder and then copied to the bucket.

- *Cold* is the first answer on a machine. An index is downloaded for it.
- *New process* is the first answer of another process on the same machine.
- *Warm* is the next answer of an open `Searcher`, or of LanceDB's open table.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import RESULTS, load, run, save, table
from benchmarks.peers import SCRIPTS, VENVS, python_of
from benchmarks.remote import BUCKET, Proxy, proxy_process, store_behind
from benchmarks.search import AREA, DATASET_ID, build, cache_below, part, write
from benchmarks.search_peers import LABELS, call, write_vectors
from benchmarks.vectors import made_up_vectors, questions
from rasterembed.search.query import EngineChoice, Where
from rasterembed.search.searcher import Searcher
from rasterembed.store.object_store import ObjectStore
from tests.support.servers import S3Server, ceph_gateway, moto_server

NAME = "search_s3"

_K = 10

_PROBES = 16
"""Lists that LanceDB reads: the smallest number with recall@10 of 0.99 among a million rows, by `search_peers`."""


def measure(
    *,
    rows: int = 1_000_000,
    engines: tuple[EngineChoice, ...] = ("scan", "flat", "ivf"),
    peers: tuple[str, ...] = ("lancedb_ivf_sq", "lancedb_scan"),
    only_peers: bool = False,
    gateway: bool = True,
    venvs: Path = VENVS,
    scratch: Path | None = None,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Count the bytes and requests of a search on S3.

    Args:
        rows: Number of vectors. A vector has 384 numbers.
        engines: Engines to measure.
        peers: Ways of LanceDB to measure, keys of `benchmarks.search_peers.LABELS`.
        only_peers: Measure only the peers. The result file keeps its figures of the engines.
        gateway: Use Ceph's gateway. Without it, moto answers, which needs no installed packages.
        venvs: Folder of the environment with LanceDB, which is made on first use.
        scratch: Folder for the dataset and the index; by default a temporary folder.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    vectors = made_up_vectors(384)
    asked = questions(vectors, 3)
    runs: dict[str, Any] = {}
    if only_peers:
        earlier = json.loads((results / f"{NAME}.json").read_text())
        if earlier["parameters"]["rows"] != rows:
            raise SystemExit(f"{results}: the figures of the engines are of {earlier['parameters']['rows']:,} rows")
        runs, dataset, engines = earlier["runs"], earlier["dataset"], ()
    with (
        tempfile.TemporaryDirectory(dir=scratch) as folder,
        cache_below(folder),
        ceph_gateway() if gateway else moto_server() as server,
        proxy_process(server) as proxy,
    ):
        root = Path(folder)
        server.create_bucket(BUCKET)
        if not only_peers:
            dataset = write(root, vectors, rows, "float32")
            _upload(server, root / "store")
        store = store_behind(proxy, server)
        for engine in engines:
            if engine != "scan":
                part(build, root, engine)
                _upload(server, root / "store" / "indexes", below="indexes/")
            with cache_below(str(root / f"cache-{engine}")):
                runs[engine] = _queries(store, proxy, engine, asked)
        if peers:
            python = python_of("vector_search", venvs)
            write_vectors(root, vectors, rows, len(asked))
            for way in peers:
                runs[way] = _queries_of_peer(python, way, root, server, proxy)
    return save(NAME, parameters, load_before, {"dataset": dataset, "runs": runs}, results)


def _upload(server: S3Server, folder: Path, below: str = "") -> None:
    """Copy a folder into the bucket, and delete it if it is an index, because the next one replaces it."""
    client = server.client()
    prefix = f"out/{below}"
    if below:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
            for entry in page.get("Contents", []):
                client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            client.upload_file(str(file), BUCKET, prefix + str(file.relative_to(folder)))


def _queries(
    store: ObjectStore, proxy: Proxy, engine: EngineChoice, asked: NDArray[np.float32]
) -> dict[str, dict[str, float]]:
    """Return the requests, bytes and seconds of the queries of one engine."""
    found: dict[str, dict[str, float]] = {}

    def counted(name: str, searcher: Searcher | None, query: int, where: Where = Where()) -> Searcher:
        proxy.begin()
        begun = time.monotonic()
        searcher = searcher or Searcher(store, [DATASET_ID], engine=engine)
        answer = searcher.ask_vector(asked[query], where, _K)
        seconds = time.monotonic() - begun
        assert [used.name for used in answer.engines] == [engine], answer.engines
        found[name] = {**proxy.begin(), "seconds": seconds}
        return searcher

    with counted("cold", None, 0) as searcher:
        counted("warm", searcher, 1)
    with counted("new process", None, 2):
        pass
    with counted("an area, new process", None, 0, Where(bbox=AREA)) as searcher:
        counted("an area, warm", searcher, 1, Where(bbox=AREA))
    return found


def _queries_of_peer(
    python: Path, way: str, folder: Path, server: S3Server, proxy: Proxy
) -> dict[str, dict[str, float]]:
    """Return the requests, bytes and seconds of the queries of another package, whose index is copied to the bucket.

    Args:
        python: Python of the package's environment.
        way: a key of `benchmarks.search_peers.LABELS`.
        folder: folder that `write_vectors` filled.
        server: the server.
        proxy: the proxy before the server.
    """
    call(python, way, "build", folder)
    _upload(server, folder / way, below=f"{way}/")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "AWS_ENDPOINT_URL": proxy.endpoint_url,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": "us-east-1",
    }
    probes = 0 if way == "lancedb_scan" else _PROBES
    command = [str(python), str(SCRIPTS / "vector_search.py"), way, "answer", str(folder)]
    command += ["--place", f"s3://{BUCKET}/out/{way}", "--parameter", str(probes)]
    found: dict[str, dict[str, float]] = {}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for query, name in enumerate(("cold", "warm")):
            proxy.begin()
            begun = time.monotonic()
            print(query, file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            seconds = time.monotonic() - begun
            assert len(answer) == _K, answer
            found[name] = {**proxy.begin(), "seconds": seconds}
        process.stdin.close()
    return found


def markdown(report: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    dataset, machine = report["dataset"], report["machine"]
    server = "Ceph's gateway" if report["parameters"]["gateway"] else "moto"
    rows = [
        [LABELS.get(engine, f"`{engine}`"), name, f"{one['requests']:,}", f"{one['bytes'] / 1e6:,.1f}"]
        for engine, queries in report["runs"].items()
        for name, one in queries.items()
    ]
    return (
        f"{dataset['rows']:,} rows of 384 numbers, {dataset['dtype']} at rest, {dataset['shards_mb']:,.0f} MB of "
        f"shards; {server}, DuckDB {machine['duckdb']}.\n\n" + table(["engine", "query", "requests", "MB"], rows)
    )


if __name__ == "__main__":
    run(measure, markdown)
