"""Files of a vector index that are damaged, replaced or made by an attacker: the search answers, and no process ends.

Two kinds of faults are told apart:

- In a **damaged** index, the digests in `index.json` do not fit the files. The exact scan must answer.
- In a **forged** index, an attacker has also written fitting digests. Whatever a file holds, the process must not end,
  and must give an answer or one line of error. Vectors and codes of the right size can make the answer wrong, so wrong
  tiles are allowed.

Each engine has one process that answers all cases.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3
from rasterembed.search.index.building import BuildOutcome, build_vector_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.query import EngineChoice, Query
from rasterembed.search.searcher import Searcher
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.search_child import Case, Ended, run_cases
from tests.support.search_world import Scene, Tiles, special_vectors, tiles_of, write_scene_and_dataset
from tests.support.vectors import blank_raster, checkpoint, write_dataset

pytestmark = pytest.mark.timeout(900)  # The first test of an engine waits for all of its cases.

ENGINES = ("flat", "ivf", "vss")
DIMENSIONS = 16
K = 10
KNOWN = Scene("known", 35, 36)
OTHERS = {
    "other": (Scene("other", 35, 36), DIMENSIONS),
    "wider": (Scene("wider", 3, 4), 2 * DIMENSIONS),
    "fewer": (Scene("fewer", 3, 4), DIMENSIONS),
}
"""Datasets whose files take the place of files of `known`: with other vectors, longer vectors, and fewer rows."""


@dataclass(frozen=True)
class Built:
    """A store with an index of each dataset."""

    folder: Path
    tiles: Tiles
    environment: dict[str, str]

    def build(self, engine: str) -> None:
        """Make a copy of the store with the indexes of an engine."""
        root = self.folder / engine
        if root.exists():
            return
        shutil.copytree(self.folder / "scan", root)
        options = VectorIndexOptions.model_validate({"index": "always", "index_engine": engine})
        for name in ("known", *OTHERS):
            dataset = Dataset.open(ObjectStore(root=str(root)), name)
            with patch.dict(os.environ, self.environment):  # A search opens only databases that its user has built.
                result = build_vector_index(VectorFiles.of_dataset(dataset), options)
            assert result.outcome is BuildOutcome.BUILT

    def vector(self) -> np.ndarray:
        return np.random.default_rng(9).standard_normal(DIMENSIONS)

    def right(self, vector: np.ndarray, k: int = K) -> list[str]:
        names, _ = self.tiles.nearest(vector, k, np.ones(len(self.tiles), bool))
        return [tile for _, tile in names]

    def copy(self, engine: str, name: str) -> Index:
        """Make a store for one case. Its index is a copy, and its dataset is a link to that of the engine's store."""
        root, source = self.folder / "cases" / engine / name, self.folder / engine
        if engine != "scan":
            shutil.copytree(source / "indexes/known", root / "indexes/known")
        root.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            if path.name != "indexes":
                (root / path.name).symlink_to(path)
        return Index(root, engine)


@dataclass(frozen=True)
class Index:
    """The folder of the index of `known`, or of another dataset in the same store."""

    root: Path
    engine: str
    dataset: str = "known"

    @property
    def folder(self) -> Path:
        return self.root / "indexes" / self.dataset

    @property
    def info(self) -> Path:
        return self.folder / "index.json"

    def file(self, kind: str) -> Path:
        """Return the file of a kind: rows, vectors, codes, or hnsw."""
        (path,) = self.folder.glob(f"{kind}-*")
        return path

    def other(self, dataset: str) -> Index:
        """Return the index of another dataset, which no case changes."""
        return Index(self.root.parents[2] / self.engine, self.engine, dataset)

    def change(self, change: Callable[[Any], None]) -> None:
        """Change the content of `index.json`."""
        content = json.loads(self.info.read_bytes())
        change(content)
        self.info.write_text(json.dumps(content))

    def forge(self) -> None:
        """Write the sizes and digests of all files into `index.json`, as an attacker would."""

        def visit(value: Any) -> None:
            if isinstance(value, dict):
                if {"name", "bytes", "sha256"} <= set(value) and (self.folder / value["name"]).is_file():
                    data = (self.folder / value["name"]).read_bytes()
                    value |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for each in value.values():
                    visit(each)
            elif isinstance(value, list):
                for each in value:
                    visit(each)

        self.change(visit)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("faults")
    store = ObjectStore(root=str(folder / "scan"))
    random = np.random.default_rng(1)
    for name, (scene, dimensions) in {"known": (KNOWN, DIMENSIONS), **OTHERS}.items():
        model = Dinov3(model=str(checkpoint(folder / f"model-{name}", dimensions)), device="cpu")
        valid = random.uniform(0.5, 1, scene.count).astype(np.float32)
        write_scene_and_dataset(folder, store, scene, model, special_vectors(random, scene.count, dimensions), valid)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    yield Built(folder, tiles_of(store, ["known"]), environment)
    shutil.rmtree(folder)


# --- faults of any file ----------------------------------------------------------------------------------------------


def flip(path: Path, place: float) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data)) if place < 1 else int(place)] ^= 0x10
    path.write_bytes(data)


def replaced_by(dataset: str) -> Callable[[Index, str], None]:
    def replace(index: Index, kind: str) -> None:
        shutil.copyfile(index.other(dataset).file(kind), index.file(kind))

    return replace


def linked_to(target: Callable[[Index, str], Path | str]) -> Callable[[Index, str], None]:
    def link(index: Index, kind: str) -> None:
        path, to = index.file(kind), target(index, kind)
        path.unlink()
        path.symlink_to(to)

    return link


def fifo(index: Index, kind: str) -> None:
    path = index.file(kind)
    path.unlink()
    os.mkfifo(path)


def folder_in_its_place(index: Index, kind: str) -> None:
    path = index.file(kind)
    path.unlink()
    path.mkdir()


FILE_FAULTS: dict[str, Callable[[Index, str], None]] = {
    "missing": lambda index, kind: index.file(kind).unlink(),
    "empty": lambda index, kind: index.file(kind).write_bytes(b""),
    "cut by a byte": lambda index, kind: os.truncate(index.file(kind), index.file(kind).stat().st_size - 1),
    "cut in half": lambda index, kind: os.truncate(index.file(kind), index.file(kind).stat().st_size // 2),
    "one byte left": lambda index, kind: os.truncate(index.file(kind), 1),
    "grown by a byte": lambda index, kind: index.file(kind).write_bytes(index.file(kind).read_bytes() + b"\0"),
    "grown by zeros": lambda index, kind: os.truncate(index.file(kind), 2 * index.file(kind).stat().st_size),
    "first byte flipped": lambda index, kind: flip(index.file(kind), 0),
    "header flipped": lambda index, kind: flip(index.file(kind), 12),
    "middle flipped": lambda index, kind: flip(index.file(kind), 0.5),
    "end flipped": lambda index, kind: flip(index.file(kind), 0.999),
    "of another dataset": replaced_by("other"),
    "of other dimensions": replaced_by("wider"),
    "of fewer rows": replaced_by("fewer"),
    "zeros": lambda index, kind: index.file(kind).write_bytes(bytes(index.file(kind).stat().st_size)),
    "ones": lambda index, kind: index.file(kind).write_bytes(b"\xff" * index.file(kind).stat().st_size),
    "named pipe": fifo,
    "folder": folder_in_its_place,
    "link to nothing": linked_to(lambda index, kind: index.root / "nowhere"),
    "link to a device": linked_to(lambda index, kind: "/dev/zero"),
    "link to another file": linked_to(lambda index, kind: index.other("other").file(kind)),
}


def kinds(engine: str) -> tuple[str, ...]:
    return ("hnsw",) if engine == "vss" else ("rows", "vectors", "codes")


# --- the table of faults ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A fault of an index, and what must happen."""

    make: Callable[[Index], None]
    reasons: frozenset[str] = frozenset()
    """Reasons for which the exact scan answers. Empty: the index is forged, and any answer or error will do."""
    box: tuple[float, float, float, float] | None = None
    """Box of the query, so that the footprints are read."""


def damaged(engine: str) -> dict[str, Fault]:
    """Return the faults of single files whose digests are those of the undamaged files."""
    return {
        f"damaged {kind}: {name}": Fault(lambda index, make=make, kind=kind: make(index, kind), DAMAGED)
        for kind in kinds(engine)
        for name, make in FILE_FAULTS.items()
    }


DAMAGED = frozenset({"file_damaged"})


def forged(engine: str) -> dict[str, Fault]:
    """Return the faults of single files whose digests an attacker has adjusted."""
    table = {f"{kind}: {name}": (kind, make) for kind in kinds(engine) for name, make in FILE_FAULTS.items()}
    return {
        f"forged {name}": Fault(lambda index, make=make, kind=kind: (make(index, kind), index.forge()))
        for name, (kind, make) in table.items()
    }


def nonsense(content: bytes) -> Callable[[Index], None]:
    return lambda index: index.info.write_bytes(content) and None


def with_value(value: Any, *path: str | int) -> Callable[[Index], None]:
    """Return a fault that gives a field of `index.json` another value."""

    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return lambda index: index.change(change)


def info_as(make: Callable[[Path], None]) -> Callable[[Index], None]:
    def change(index: Index) -> None:
        index.info.unlink()
        make(index.info)

    return change


def described(engine: str) -> dict[str, Fault]:
    """Return the faults of `index.json`."""
    unreadable, stale = frozenset({"info_unreadable"}), frozenset({"stale"})
    faults = {
        "missing": Fault(lambda index: index.info.unlink(), frozenset({"absent"})),
        "folder is gone": Fault(lambda index: shutil.rmtree(index.folder), frozenset({"absent"})),
        "named pipe": Fault(info_as(os.mkfifo), frozenset({"absent", "info_unreadable", "failed"})),
        "folder": Fault(info_as(Path.mkdir), frozenset({"absent", "info_unreadable", "failed"})),
        "link to a device": Fault(
            info_as(lambda path: path.symlink_to("/dev/zero")), frozenset({"absent", "info_unreadable", "failed"})
        ),
        "empty": Fault(nonsense(b""), unreadable),
        "cut": Fault(lambda index: os.truncate(index.info, 100), unreadable),
        "no JSON": Fault(nonsense(b"\xff\xfe no"), unreadable),
        "null": Fault(nonsense(b"null"), unreadable),
        "list": Fault(nonsense(b"[1]"), unreadable),
        "deep": Fault(nonsense(b"[" * 200_000), unreadable),
        "long": Fault(nonsense(b'{"version": 2, "engine": "' + b"x" * (40 * 2**20) + b'"}'), unreadable),
        "from the future": Fault(with_value(3, "version"), unreadable),
        "another digest": Fault(with_value("0" * 64, "digest"), stale),
        "more rows": Fault(with_value(10**6, "rows"), stale | unreadable),
        "too many rows": Fault(with_value(10**13, "rows"), unreadable),
        "other dimensions": Fault(with_value(DIMENSIONS + 1, "dimensions"), stale),
        "another engine": Fault(
            with_value("flat" if engine == "vss" else "vss", "engine"), frozenset({"info_unreadable"})
        ),
        "an unknown engine": Fault(with_value("hnswlib", "engine"), unreadable),
        "recall of NaN": Fault(with_value(float("nan"), "recall"), unreadable),
        "an unknown field": Fault(with_value("rm -rf", "hook"), unreadable),
    }
    place: tuple[str | int, ...] = ("database", "file") if engine == "vss" else ("segments", 0, "codes_file")
    for name in ("../../datasets/known/manifest.json", "/etc/passwd", "codes-\0", "", "index.json", "rows-*.arrow"):
        faults[f"file called {name!r}"] = Fault(with_value(name, *place, "name"), unreadable)
    faults["bytes that are too many"] = Fault(with_value(10**30, *place, "bytes"), unreadable)
    faults["another size"] = Fault(with_value(5, *place, "bytes"), DAMAGED)
    faults["another sha256"] = Fault(with_value("0" * 64, *place, "sha256"), DAMAGED)
    if engine != "vss":
        codes: dict[str, Any] = {"lists": 2**20, "probes": 2**20, "imbalance": float("inf"), "engine": "vss"}
        for name, value in codes.items():
            faults[f"codes of {name} {value}"] = Fault(
                with_value(value, "segments", 0, "codes", name), unreadable | DAMAGED | {"foreign_content"}
            )
        for name, value in {"rows": 2, "dtype": "float16", "dropped": ["known"], "dropped_rows": 7}.items():
            faults[f"segment of {name} {value}"] = Fault(
                with_value(value, "segments", 0, name), unreadable | {"foreign_content", "stale"}
            )
        faults["no segment"] = Fault(with_value([], "segments"), unreadable)
        faults["segment twice"] = Fault(
            lambda index: index.change(lambda content: content["segments"].append(content["segments"][0])), unreadable
        )
        faults["file names mixed up"] = Fault(_mix_up, unreadable | DAMAGED)
    return {f"index.json: {name}": fault for name, fault in faults.items()}


def _mix_up(index: Index) -> None:
    def change(content: Any) -> None:
        (segment,) = content["segments"]
        segment["rows_file"], segment["codes_file"] = segment["codes_file"], segment["rows_file"]

    index.change(change)


# --- forged content --------------------------------------------------------------------------------------------------


def with_bytes(kind: str, find: Callable[[Index, bytes], int], data: bytes) -> Fault:
    """Return a forged file in which some bytes are replaced at a place that `find` returns."""

    def make(index: Index) -> None:
        content = bytearray(index.file(kind).read_bytes())
        at = find(index, bytes(content))
        assert 0 <= at <= len(content) - len(data)
        content[at : at + len(data)] = data
        index.file(kind).write_bytes(content)
        index.forge()

    return Fault(make)


def place_of_sizes(index: Index, content: bytes) -> int:
    """Return the place of the sizes of the lists in a file of FAISS, as FAISS itself reads them."""
    import faiss

    found = faiss.read_index(str(index.file("codes")))
    return content.index(np.array([found.get_list_size(number) for number in range(found.nlist)], "<u8").tobytes())


def place_of_centroids(index: Index, content: bytes) -> int:
    import faiss

    found = faiss.read_index(str(index.file("codes")))
    return content.index(found.quantizer.reconstruct_n(0, 1).tobytes())


def at(place: int) -> Callable[[Index, bytes], int]:
    """Return a function for a place in a file. A negative place is counted from the end."""
    return lambda index, content: place % len(content)


def _other_rows(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Index], None]:
    """Return a fault that changes the row numbers in all inverted lists, which FAISS itself writes."""

    def make(index: Index) -> None:
        import faiss

        path = index.file("codes")
        found = faiss.read_index(str(path))
        content = bytearray(path.read_bytes())
        for number in range(found.nlist):
            if size := found.get_list_size(number):
                rows = faiss.rev_swig_ptr(found.invlists.get_ids(number), size).astype("<i8")
                at = content.index(rows.tobytes())
                content[at : at + 8 * size] = change(rows).astype("<i8").tobytes()
        path.write_bytes(content)
        index.forge()

    return make


def lists_of_faiss() -> dict[str, Fault]:
    """Return forged inverted lists."""
    numbers = struct.Struct("<Q").pack
    rest = KNOWN.count * (DIMENSIONS + 8)
    return {
        "a list larger than the file": with_bytes("codes", place_of_sizes, numbers(2**40)),
        "a list of the largest number": with_bytes("codes", place_of_sizes, numbers(2**64 - 1)),
        "sizes whose sum overflows": with_bytes("codes", place_of_sizes, numbers(2**63) + numbers(2**63 + 20)),
        "a row number beyond the rows": with_bytes("codes", at(-8), numbers(2**40)),
        "row numbers beyond the rows": Fault(_other_rows(lambda rows: rows + 10**9)),
        "row numbers below zero": Fault(_other_rows(lambda rows: -rows - 2)),
        "row numbers of other rows": Fault(_other_rows(lambda rows: rows[::-1].copy())),
        "row numbers just beyond the rows": with_bytes("codes", at(-80), numbers(KNOWN.count) * 10),
        "negative row numbers": with_bytes("codes", at(-80), struct.pack("<10q", *range(-2, -12, -1))),
        "everything is row 7": with_bytes(
            "codes", lambda index, content: len(content) - rest, numbers(7) * (rest // 8)
        ),
        "centroid of NaN": with_bytes("codes", place_of_centroids, struct.pack("<f", np.nan)),
        "centroid of infinity": with_bytes("codes", place_of_centroids, struct.pack("<f", np.inf)),
        "centroids of the largest numbers": with_bytes("codes", place_of_centroids, struct.pack("<16f", *[3e38] * 16)),
    }


def copies_of_floats() -> dict[str, Fault]:
    """Return forged float16 copies of vectors."""
    size = KNOWN.count * DIMENSIONS
    numbers = {"NaN": b"\0\x7e", "infinity": b"\0\x7c", "minus infinity": b"\0\xfc"}
    return {
        f"codes of {name}": with_bytes("codes", at(-2 * size), number * size) for name, number in numbers.items()
    } | {"one code of NaN": with_bytes("codes", at(-2), numbers["NaN"])}


def headers(engine: str) -> dict[str, Fault]:
    """Return files of codes with an impossible number at each place of the header."""
    last = 84 if engine == "flat" else 200
    return {
        f"forged: header with {number.hex()} at {place}": with_bytes("codes", at(place), number)
        for place in range(0, last, 4)
        for number in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0")
    }


def random_flips() -> dict[str, Fault]:
    """Return files with some flipped bits at places that a seed chooses."""

    def flipped(seed: int, kind: str) -> Callable[[Index], None]:
        def make(index: Index) -> None:
            random, size = np.random.default_rng(seed), index.file(kind).stat().st_size
            for _ in range(random.integers(1, 4)):
                # Many places are at the begin and the end, where lengths and offsets are.
                place = int(
                    random.choice([random.integers(size), random.integers(1500), size - 1 - random.integers(1500)])
                )
                flip(index.file(kind), max(place, 1))
            index.forge()

        return make

    return {
        f"forged {kind}: bits flipped by seed {seed}": Fault(flipped(seed, kind))
        for kind in ("rows", "codes")
        for seed in range(40)
    }


def place_of_offsets(index: Index, content: bytes) -> int:
    """Return the place of the offsets of the tile ids in an Arrow file, as Arrow itself reads them."""
    with pa.memory_map(str(index.file("rows"))) as source:
        offsets = pa.ipc.open_file(source).get_batch(0)["tile_id"].buffers()[1]
        return content.index(offsets.to_pybytes()) + 4 * 100


def rewritten(change: Callable[[pa.Table], pa.Table], **options: Any) -> Fault:
    """Return a forged Arrow file whose rows `change` returns."""

    def make(index: Index) -> None:
        with pa.memory_map(str(index.file("rows"))) as source:
            table = pa.ipc.open_file(source).read_all()
            table = pa.Table.from_pydict(
                {name: pa.array(table[name].to_pylist(), table.schema.field(name).type) for name in table.column_names},
                schema=table.schema,
            )
        table = change(table)
        with pa.ipc.new_file(str(index.file("rows")), table.schema, options=pa.ipc.IpcWriteOptions(**options)) as sink:
            sink.write_table(table)
        index.forge()

    return Fault(make)


def with_column(name: str, value: object, every: int = 1) -> Fault:
    """Return a forged Arrow file with the same value in every n-th row of a column."""

    def change(table: pa.Table) -> pa.Table:
        field = table.schema.field(name)
        values = [old if number % every else value for number, old in enumerate(table[name].to_pylist())]
        column = pa.array(values, field.type)
        return table.set_column(table.column_names.index(name), field, column)

    return rewritten(change)


NESTED = struct.pack("<BII", 1, 7, 1) * 30_000 + struct.pack("<BIdd", 1, 1, 24.0, 60.0)


def arrow_files() -> dict[str, Fault]:
    number = struct.Struct("<i").pack
    return {
        "an offset beyond the texts": with_bytes("rows", place_of_offsets, number(2**31 - 1)),
        "a negative offset": with_bytes("rows", place_of_offsets, number(-1)),
        "a descending offset": with_bytes("rows", place_of_offsets, number(0)),
        "no row": rewritten(lambda table: table.slice(0, 0)),
        "one row less": rewritten(lambda table: table.slice(1)),
        "rows twice": rewritten(lambda table: pa.concat_tables([table, table])),
        "compressed": rewritten(lambda table: table, compression="zstd"),
        "in many batches": rewritten(lambda table: pa.Table.from_batches(table.to_batches(max_chunksize=7))),
        "a column less": rewritten(lambda table: table.drop_columns(["col"])),
        "a column of another name": rewritten(
            lambda table: table.rename_columns(["x" if name == "col" else name for name in table.column_names])
        ),
        "a column of another type": rewritten(
            lambda table: table.set_column(0, table.column_names[0], pa.array([1] * len(table)))
        ),
        "tile ids of another grid": with_column("tile_id", "r999999_c999999"),
        "long tile ids": with_column("tile_id", "r" * 70_000, every=40),
        "nested footprints": with_column("geometry", NESTED, every=40),
        "footprints that are none": with_column("geometry", b"no"),
        "boxes of NaN": with_column("bbox", dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), float("nan"))),
        "windows outside the raster": with_column("col_off", -(2**31)),
        "negative rows": with_column("row", -1),
    }


def stored_vectors() -> dict[str, Fault]:
    size = KNOWN.count * DIMENSIONS
    return {
        f"vectors of {name}": with_bytes("vectors", at(0), struct.pack("<f", value) * size)
        for name, value in {"NaN": np.nan, "infinity": np.inf, "zero": 0.0, "the largest number": 3.4e38}.items()
    } | {"one vector of NaN": with_bytes("vectors", at(4 * 500), struct.pack("<f", np.nan))}


def contents(engine: str) -> dict[str, Fault]:
    """Return forged files whose content is aimed at a library."""
    if engine == "vss":
        return {}
    own = lists_of_faiss() if engine == "ivf" else copies_of_floats()
    rows = arrow_files()
    rows |= {f"{name}, asked in a box": replace(fault, box=(20.0, 60.0, 30.0, 61.0)) for name, fault in rows.items()}
    return {f"forged: {name}": fault for name, fault in (rows | stored_vectors() | own).items()}


def faults_of(engine: str) -> dict[str, Fault]:
    """Return all faults of the index of an engine."""
    flips = {} if engine == "vss" else random_flips() | headers(engine)
    return damaged(engine) | forged(engine) | described(engine) | contents(engine) | flips


QUICK = {
    *(f"damaged {kind}: {fault}" for kind in ("rows", "vectors", "codes") for fault in ("missing", "middle flipped")),
    *(f"damaged codes: {fault}" for fault in ("cut by a byte", "of another dataset", "named pipe", "link to a device")),
    *(f"forged {kind}: {fault}" for kind in ("rows", "vectors", "codes") for fault in ("cut in half", "ones")),
    "index.json: named pipe",
    "index.json: from the future",
    "index.json: file called '../../datasets/known/manifest.json'",
    "index.json: codes of lists 1048576",
    *(f"forged: {name}" for name in ("a list larger than the file", "sizes whose sum overflows", "centroid of NaN")),
    *(f"forged: {name}" for name in ("row numbers beyond the rows", "a negative offset", "vectors of NaN")),
    "forged: nested footprints, asked in a box",
}
"""Faults of `ivf` that every run of the tests shows. The others are slow, because there are hundreds of them."""

TABLE = [
    pytest.param(
        engine,
        name,
        engine == "ivf" and name in {"none", *QUICK},
        id=f"{engine}, {name}",
        marks=() if engine == "ivf" and name in {"none", *QUICK} else pytest.mark.slow,
    )
    for engine in ENGINES
    for name in ("none", *faults_of(engine))
]


@pytest.fixture(scope="module")
def outcomes(built: Built) -> Callable[[str, bool], dict[str, Ended]]:
    """Return a function that searches with the quick or the slow faults of an engine. Each is done once."""

    @cache
    def search(engine: str, quick: bool) -> dict[str, Ended]:
        built.build(engine)
        faults = faults_of(engine)
        assert set(faults) >= QUICK or engine != "ivf"
        cases = [Case("none", str(built.folder / engine), engine, tuple(built.vector()))]
        for number, (name, fault) in enumerate(faults.items()):
            if (engine == "ivf" and name in QUICK) is quick:
                index = built.copy(engine, str(number))
                fault.make(index)
                cases.append(Case(name, str(index.root), engine, tuple(built.vector()), box=fault.box))
        return run_cases(cases, built.environment)

    return search


@pytest.mark.parametrize(("engine", "name", "quick"), TABLE)
def test_a_fault_of_an_index_ends_no_process(
    engine: str, name: str, quick: bool, built: Built, outcomes: Callable[[str, bool], dict[str, Ended]]
) -> None:
    ended = outcomes(engine, quick)[name]
    assert (ended.crash, ended.unexpected) == ("", "")
    assert not ended.said  # Nothing but the answer is written to the terminal.
    assert "\n" not in ended.error
    right = built.right(built.vector())
    found = [tile for tile, _ in ended.found]
    if name == "none":
        assert (found, ended.engine, ended.reason) == (right, engine, "")
        return
    reasons = faults_of(engine)[name].reasons
    if reasons:
        assert (found, ended.engine, ended.error) == (right, "scan", "")
        assert ended.reason in reasons
    elif not ended.error:
        # An attacker can make the answer of the index wrong. The exact scan does not believe the index.
        assert len(found) <= K
        assert ended.engine == engine or found == right


@pytest.mark.slow
def test_a_file_that_changes_after_its_check_is_checked_again(built: Built) -> None:
    """The time of the change is set back, as somebody would do who wants to hide it."""
    built.build("flat")
    vector, index = built.vector(), built.copy("flat", "changed")
    case = Case("search", str(index.root), "flat", tuple(vector))
    time.sleep(0.2)  # A file that was just written is not remembered as checked.
    for _ in range(2):
        assert run_cases([case], built.environment)["search"].engine == "flat"
    for kind in kinds("flat"):
        path = index.file(kind)
        status = path.stat()
        flip(path, 0.5)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        ended = run_cases([case], built.environment)["search"]
        assert (ended.engine, ended.reason) == ("scan", "file_damaged")
        assert [tile for tile, _ in ended.found] == built.right(vector)
        flip(path, 0.5)


# --- builds ----------------------------------------------------------------------------------------------------------


def follow(built: Built, engine: str, roots: dict[str, Path]) -> None:
    """Check that a search is right after a build ended in some way, and that the next build completes the index."""
    vector = tuple(built.vector())
    cases = [
        case
        for name, root in roots.items()
        for case in (
            Case(f"{name}: search", str(root), engine, vector),
            Case(f"{name}: build", str(root), engine),
            Case(f"{name}: again", str(root), engine, vector),
        )
    ]
    for name, ended in run_cases(cases, built.environment).items():
        assert (ended.crash, ended.unexpected, ended.error, ended.said) == ("", "", "", ""), name
        if name.endswith("build"):
            assert ended.reason in ("built", "current"), name
        else:
            assert [tile for tile, _ in ended.found] == built.right(built.vector()), name
        if name.endswith("again"):
            assert ended.engine == engine, name


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_build_that_is_killed_at_any_file_leaves_right_answers(engine: str, built: Built) -> None:
    """The build replaces the index of another engine, which it deletes at its end."""
    old = "flat" if engine == "ivf" else "ivf"
    built.build(old)
    roots, cases = {}, []
    # A build for `vss` takes a second, so it is killed at every third moment.
    for number in range(1, MOST_MOMENTS + 1, 3 if engine == "vss" else 1):
        name = f"killed {number}"
        roots[name] = built.copy(old, f"{engine} {name}").root
        cases.append(Case(name, str(roots[name]), engine, kill_at=number))
    reasons = [one.reason for one in run_cases(cases, built.environment).values()]
    assert set(reasons) == {"killed", "built"}
    assert reasons.count("killed") >= 5
    assert reasons[-1] == "built"  # The last build was not killed, so all moments were tried.
    follow(built, engine, roots)


MOST_MOMENTS = 60
"""More moments than a build has at which it opens, renames, links or removes a file."""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_full_disk_is_one_line_and_leaves_right_answers(engine: str, built: Built) -> None:
    roots, cases = {}, []
    for most in (1, 1000, 25_000, 79_000, 81_000, 150_000, 10**9):
        name = f"{most} bytes"
        roots[name] = built.copy("scan", f"{engine} {name}").root
        cases.append(Case(name, str(roots[name]), engine, file_limit=most))
    for name, ended in run_cases(cases, built.environment).items():
        assert (ended.crash, ended.unexpected, ended.said) == ("", "", ""), name
        if ended.error:
            assert "\n" not in ended.error
            # DuckDB words the error of the operating system in another way.
            assert re.search("larger than the system allows|File too large", ended.error)
            left = [path.name for path in (roots[name] / "indexes/known").glob("*")]
            assert not [file for file in left if not file.startswith(".")], left
        else:
            assert ended.reason == "built"
    follow(built, engine, roots)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_builds_at_the_same_time_leave_one_good_index(engine: str, built: Built) -> None:
    roots = {}
    for number in range(4):
        name = f"{engine} together {number}"
        roots[name] = built.copy("scan", name).root
    # Each process builds the indexes of all four stores, so the builds meet at different moments.
    with ThreadPoolExecutor(2) as threads:
        cases = [Case(name, str(root), engine) for name, root in roots.items()]
        for done in threads.map(lambda cases: run_cases(cases, built.environment), [cases, cases]):
            for name, ended in done.items():
                assert (ended.crash, ended.unexpected, ended.error) == ("", "", ""), name
    follow(built, engine, roots)


@pytest.mark.parametrize("engine", ["flat", "ivf"])
def test_an_example_of_another_length_never_reaches_faiss(engine: EngineChoice, tmp_path: Path) -> None:
    """FAISS gets only the address of a query. It would read beyond the end of a shorter one."""
    store = ObjectStore(root=str(tmp_path / "store"))
    vectors = np.random.default_rng(4).normal(size=(1600, 64)).astype(np.float32)
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 64)))
    write_dataset(store, "made", blank_raster(tmp_path / "blank.tif", 40, 40), model, vectors)
    dataset = Dataset.open(store, "made")
    options = VectorIndexOptions.model_validate({"index": "always", "index_engine": engine})
    build_vector_index(VectorFiles.of_dataset(dataset), options)
    with Searcher(store, ["made"], engine=engine) as searcher:
        (hit,) = searcher.ask_vector(vectors[7], k=1).hits
        assert hit.lon is not None
        assert hit.lat is not None
        for shard in dataset.shards:
            rows = pq.read_table(store.uri(shard.path), partitioning=None)
            short = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(len(rows), np.float32)), 1)
            rows = rows.set_column(rows.column_names.index("embedding"), "embedding", short)
            pq.write_table(rows, store.uri(shard.path))
        with pytest.raises(DataError, match="has 1 numbers, and those of the tiles have 64"):
            searcher.ask(Query(lonlat=(hit.lon, hit.lat)))
