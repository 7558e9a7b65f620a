"""The files of a vector index: what they hold, when they are checked, and what a killed or failed build leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.geoparquet import BBOX_TYPE
from rasterembed.dataset.verify import DamageKind
from rasterembed.errors import DataError, StoreUnavailableError
from rasterembed.model.choice import Dinov3
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.index import local_files, opening
from rasterembed.search.index.arrow_file import arrow_file, map_arrow_file
from rasterembed.search.index.building import BuildOutcome, build_vector_index
from rasterembed.search.index.opening import open_segments
from rasterembed.search.index.stored_rows import StoredRows, StoredVectors, unit_vectors
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.searcher import Searcher
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store import checked_files, s3
from rasterembed.store.layout import name_of
from rasterembed.store.object_store import ObjectStore
from tests.search.engine_vectors import unit
from tests.support.proxy import Fault, proxy_before
from tests.support.servers import S3Server
from tests.support.vectors import blank_raster, checkpoint, write_dataset

ALWAYS = VectorIndexOptions(index="always", index_engine="flat")
ROWS, DIMENSIONS = 400, 24


@dataclass(frozen=True)
class Indexed:
    """A dataset of 20 x 20 tiles in several shards, and its index."""

    store: ObjectStore

    @property
    def files(self) -> VectorFiles:
        return VectorFiles.of_dataset(Dataset.open(self.store, "made"))

    @property
    def folder(self) -> Path:
        return Path(self.store.root) / "indexes" / "made"

    def path(self, kind: str) -> Path:
        (path,) = self.folder.glob(f"{kind}-*")
        return path

    def why_unusable(self) -> NoIndexReason | None:
        try:
            open_segments(self.files).close()
        except IndexUnusableError as error:
            return error.reason
        return None


def make(store: ObjectStore, folder: Path, **options: Any) -> Indexed:
    vectors = np.random.default_rng(4).standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
    vectors[7] = 0.0
    model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)))
    write_dataset(store, "made", blank_raster(folder / "blank.tif", 20, 20), model, vectors, shard_tiles=128, **options)
    indexed = Indexed(store)
    assert build_vector_index(indexed.files, ALWAYS).describe() == "built, because there is no index"
    return indexed


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """Make a dataset with an index that no test changes."""
    folder = tmp_path_factory.mktemp("files")
    return make(ObjectStore(root=str(folder / "store")), folder)


@pytest.fixture
def indexed(pristine: Indexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Indexed:
    """Copy that dataset, for tests that change it, and give this test a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(pristine.store.root, tmp_path / "store")
    return Indexed(ObjectStore(root=str(tmp_path / "store")))


def shards(indexed: Indexed) -> pa.Table:
    """Return the rows of the shards as pyarrow reads them."""
    files = indexed.files
    return pa.concat_tables([pq.read_table(files.store.uri(key)).replace_schema_metadata() for key in files.keys])


def test_verify_compares_the_files_of_the_index_and_delete_deletes_them(
    indexed: Indexed, capsys: pytest.CaptureFixture[str]
) -> None:
    root = indexed.store.root
    whole = str(run(app, ["datasets", "verify", "made", "--root", root]))
    assert whole.endswith("; 3 of them are the vector index, as index.json says")
    damage(indexed.path("codes"))
    rows = indexed.path("rows")
    rows.unlink()
    found = {name_of(one.key): (one.kind, one.remedy) for one in Dataset.open(indexed.store, "made").verify()}
    again = (
        "embed the raster again (`rasterembed embed RASTER --dataset-id made`) to build a new index; "
        "until then, a search compares all "
    )
    assert found == {
        indexed.path("codes").name: (DamageKind.OTHER_CONTENT, f"delete this file, then {again}vectors"),
        rows.name: (DamageKind.MISSING, f"{again}vectors"),
    }
    with pytest.raises(SystemExit):
        run(app, ["datasets", "verify", "made", "--root", root])
    assert f"{indexed.path('codes')}: its sha256 is " in capsys.readouterr().out
    # Only the description knows the engine. Without it, a run without the option builds nothing for few rows.
    (indexed.folder / "index.json").write_text("{")
    (unreadable,) = Dataset.open(indexed.store, "made").verify()
    assert "`rasterembed embed RASTER --dataset-id made --index always`" in unreadable.remedy
    run(app, ["datasets", "delete", "made", "--root", root, "--yes"])
    assert not [path for path in Path(root).rglob("*") if path.is_file() and path.parent.name != "lease"]


# What the files hold


@pytest.mark.parametrize("kind", ["struct", "list", "text"])
def test_vectors_of_another_type_are_named_in_one_line(indexed: Indexed, kind: str) -> None:
    shard = Path(indexed.store.uri(indexed.files.keys[1]))
    rows = pq.read_table(shard)
    other = pa.array([{"struct": {"x": 1}, "list": [1.0] * DIMENSIONS, "text": "x"}[kind]] * len(rows))
    pq.write_table(rows.set_column(rows.schema.get_field_index("embedding"), "embedding", other), shard)
    indexed.store.delete("indexes/made/index.json")
    with pytest.raises(DataError, match=rf"^dataset 'made': .*{shard.name} cannot be read \(its column `embedding`"):
        build_vector_index(indexed.files, ALWAYS)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_segment_has_the_rows_and_vectors_of_the_shards(tmp_path: Path, dtype: str) -> None:
    indexed = make(ObjectStore(root=str(tmp_path / "store")), tmp_path, vector_dtype=dtype)
    (segment,) = open_segments(indexed.files).segments
    wanted = shards(indexed)
    for name in segment.rows.table.column_names:
        assert segment.rows.table[name].to_pylist() == wanted[name].to_pylist()
    vectors = np.array(wanted["embedding"].to_pylist(), dtype)
    assert np.fromfile(indexed.path("vectors"), dtype).tobytes() == vectors.tobytes()
    assert segment.live is None
    stored = json.loads((indexed.folder / "index.json").read_text())
    assert (stored["version"], stored["engine"], stored["rows"], stored["dimensions"]) == (2, "flat", ROWS, DIMENSIONS)
    assert {path.name for path in indexed.folder.iterdir()} == {
        "index.json",
        *(stored["segments"][0][f"{kind}_file"]["name"] for kind in ("rows", "vectors", "codes")),
    }


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_stored_vectors_have_length_one(tmp_path: Path, dtype: Any) -> None:
    values = (np.random.default_rng(0).standard_normal((50, DIMENSIONS)) * 40).astype(dtype)
    values[3] = 0
    values.tofile(tmp_path / "vectors.bin")
    vectors = StoredVectors.of_file(tmp_path / "vectors.bin", 50, DIMENSIONS, dtype)
    np.testing.assert_allclose(np.concatenate(list(vectors.blocks(16))), unit(values), atol=2e-7)
    numbers = np.array([49, 3, 3, 0])
    np.testing.assert_allclose(vectors.unit(numbers), unit(values)[numbers], atol=2e-7)
    with pytest.raises(IndexError):
        vectors.unit(np.array([50]))


def test_very_long_and_very_short_vectors_have_a_direction() -> None:
    values = np.array([[3e38, 3e38], [1e-38, 0], [1e-25, 1e-25], [0, 0], [2, 0]], np.float32)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(unit_vectors(values), [[half, half], [1, 0], [half, half], [0, 0], [1, 0]], atol=1e-6)


def test_rows_are_taken_in_any_order_from_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("stored_rows", "arrow_file"):
        monkeypatch.setattr(f"rasterembed.search.index.{module}.BLOCK_ROWS", 8)
    schema = pa.schema([pa.field("name", pa.string(), nullable=False), pa.field("number", pa.int32())])
    table = pa.table({"name": [f"row {n}" for n in range(30)], "number": pa.array(range(30), pa.int32())})
    with arrow_file(tmp_path / "rows.arrow", schema) as target:
        for start in range(0, 30, 7):
            target.write(table.slice(start, 7))
    mapped = map_arrow_file(tmp_path / "rows.arrow", schema, 30, validate=True)
    assert [len(batch) for batch in mapped.to_batches()] == [8, 8, 8, 6]
    rows = StoredRows(mapped, None)  # type: ignore[arg-type]
    for numbers in ([29, 0, 8, 8, 17], [5], [], [*range(29, -1, -1), 8, *range(30), 17, 3, 3, 0]):
        assert rows.take(np.array(numbers, np.int64))["number"].to_pylist() == numbers
        found = rows.values(np.array(numbers, np.int64), ("number", "name"))
        assert found == [{"number": number, "name": f"row {number}"} for number in numbers]
    assert rows.take(np.array([9, 1]), ["name"]).to_pydict() == {"name": ["row 9", "row 1"]}
    for wrong in (-1, 30):
        with pytest.raises(pa.ArrowIndexError):
            rows.take(np.array([wrong]))
        with pytest.raises(IndexError):
            rows.values(np.array([wrong]), ("name",))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_values_of_rows_are_those_that_arrow_returns(data: st.DataObject) -> None:
    columns: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
        "text": (pa.string(), st.text()),
        "bytes": (pa.binary(), st.binary()),
        "int": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
        "float": (pa.float32(), st.floats(width=32, allow_nan=False)),
        "time": (
            pa.timestamp("ms", tz="UTC"),
            st.datetimes().map(lambda time: time.replace(microsecond=0, tzinfo=UTC)),
        ),
        "box": (BBOX_TYPE, st.fixed_dictionaries({name: st.floats(-180, 180) for name in BBOX_TYPE.names})),
    }
    count = data.draw(st.integers(1, 12))
    arrays = {}
    for name, (kind, values) in columns.items():
        one = st.none() | values if data.draw(st.booleans()) else values
        # A column of a batch need not begin where its memory begins.
        arrays[name] = pa.array(data.draw(st.lists(one, min_size=count + 2, max_size=count + 2)), kind).slice(2)
    table = pa.Table.from_arrays(list(arrays.values()), list(arrays))
    numbers = data.draw(st.lists(st.integers(0, count - 1)))
    rows = StoredRows(table, None)  # type: ignore[arg-type]
    assert (
        rows.values(np.array(numbers, np.int64), tuple(columns))
        == table.take(pa.array(numbers, pa.int64())).to_pylist()
    )


# Foreign Arrow files


def foreign(schema: pa.Schema, table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


SCHEMA = pa.schema([pa.field("name", pa.string(), nullable=False)])
NAMES = pa.table({"name": ["a", "b", "c"]}, schema=SCHEMA)
FOREIGN = {
    "no Arrow file": b"not an Arrow file" * 9,
    "other columns": foreign(SCHEMA, pa.table({"name": [1, 2, 3]})),
    "other rows": foreign(SCHEMA, NAMES.slice(0, 2)),
    "several batches": foreign(SCHEMA, pa.concat_tables([NAMES.slice(0, 1), NAMES.slice(1)])),
    "compressed": foreign(SCHEMA, NAMES, compression="zstd"),
    "null": foreign(SCHEMA, pa.table({"name": pa.array(["a", None, "c"])}, schema=SCHEMA)),
    "offsets": foreign(SCHEMA, NAMES).replace(bytes([0, 0, 0, 0, 1, 0, 0, 0]), bytes([0, 0, 0, 0, 1, 0, 0, 127])),
    "no UTF-8": foreign(SCHEMA, NAMES).replace(b"abc\0", b"\xff\xff\xff\0"),
}


@pytest.mark.parametrize("how", FOREIGN)
def test_a_foreign_arrow_file_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "rows.arrow"
    path.write_bytes(foreign(SCHEMA, NAMES))
    assert map_arrow_file(path, SCHEMA, 3, validate=True).equals(NAMES)
    path.write_bytes(FOREIGN[how])
    with pytest.raises(IndexUnusableError, match="a file of it holds something that no build writes"):
        map_arrow_file(path, SCHEMA, 3, validate=True)


# When files are checked


@pytest.mark.parametrize("kind", ["rows", "vectors", "codes"])
def test_an_impossible_size_is_not_believed(indexed: Indexed, kind: str) -> None:
    """A file on S3 is downloaded as a whole, so its size must fit the number of rows."""
    path = indexed.folder / "index.json"
    stored = json.loads(path.read_text())
    stored["segments"][0][f"{kind}_file"]["bytes"] = 10**9
    path.write_text(json.dumps(stored))
    assert indexed.why_unusable() is NoIndexReason.INFO_UNREADABLE


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes(byte ^ 1 for byte in data[-9:-8]) + data[-8:])


@pytest.mark.parametrize("kind", ["rows", "vectors", "codes"])
def test_a_damaged_or_missing_file_leads_to_a_rebuild(indexed: Indexed, kind: str) -> None:
    assert indexed.why_unusable() is None
    for change in (damage, Path.unlink):
        change(indexed.path(kind))
        assert indexed.why_unusable() is NoIndexReason.FILE_DAMAGED
        result = build_vector_index(indexed.files, ALWAYS)
        assert result.describe() == f"built, because {NoIndexReason.FILE_DAMAGED.describe()}"
        assert indexed.why_unusable() is None


def test_a_file_is_read_whole_once(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = local_files._digest

    def counted(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(local_files, "_digest", counted)
    monkeypatch.setattr(checked_files, "_SAME_TICK_NS", 0)
    names = sorted(indexed.path(kind).name for kind in ("rows", "vectors", "codes"))
    for _ in range(2):
        assert indexed.why_unusable() is None
        assert sorted(read) == names
    # The same bytes again are read again, because the file has another time.
    rows = indexed.path("rows")
    rows.write_bytes(rows.read_bytes())
    assert indexed.why_unusable() is None
    assert sorted(read[3:]) == [rows.name]


def test_notes_that_others_can_write_are_not_used(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_files, "_SAME_TICK_NS", 0)
    path = indexed.path("rows")
    sha256 = json.loads((indexed.folder / "index.json").read_text())["segments"][0]["rows_file"]["sha256"]
    assert not checked_files.was_checked(path, sha256)
    assert indexed.why_unusable() is None
    assert checked_files.was_checked(path, sha256)
    assert not checked_files.was_checked(path, "0" * 64)
    (folder,) = (Path(os.environ["XDG_CACHE_HOME"]) / "rasterembed" / "checked").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    assert not checked_files.was_checked(path, sha256)


def test_notes_of_deleted_files_are_removed(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_files, "_SAME_TICK_NS", 0)
    for _ in range(2):
        indexed.path("rows").unlink()
        build_vector_index(indexed.files, ALWAYS)
        assert indexed.why_unusable() is None
    (folder,) = (Path(os.environ["XDG_CACHE_HOME"]) / "rasterembed" / "checked").iterdir()
    assert len(list(folder.iterdir())) == 3


def test_the_index_that_a_build_replaces_is_opened_anew(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader has read index.json. Before it opens the files, a build replaces them."""
    old = (indexed.folder / "index.json").read_bytes()
    (indexed.folder / "index.json").unlink()
    new = build_vector_index(indexed.files, ALWAYS).index
    for path in indexed.folder.glob("*-*"):
        if new is not None and path.name not in {file.name for file in new.files}:
            path.unlink()
    read, files = ObjectStore.read, indexed.files
    answers = [old]
    monkeypatch.setattr(ObjectStore, "read", lambda *args: answers.pop() if answers else read(*args))
    assert open_segments(files).description == new


@pytest.mark.parametrize(
    ("owner", "step"),
    [(local_files, "_digest"), (StoredVectors, "of_file"), (opening, "map_arrow_file"), (opening, "open_codes")],
)
def test_a_build_may_replace_the_index_at_any_step_of_the_opening(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str
) -> None:
    """The build deletes the files of the old index just before the first call of `step`."""
    monkeypatch.setattr(local_files, "was_checked", lambda *_: False)
    call = getattr(owner, step)

    def after_a_build(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(owner, step, call)
        build_vector_index(indexed.files, VectorIndexOptions(index="always", index_engine="ivf"))
        return call(*args, **options)

    monkeypatch.setattr(owner, step, after_a_build)
    index = open_segments(indexed.files)
    assert index.description.engine == "ivf"
    assert index.description == open_segments(indexed.files).description
    index.close()


# Builds that do not end well

_BUILD = """
import os, resource, signal, sys
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import RasterEmbedError
from rasterembed.search.index import building
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore

how, root = sys.argv[1:]
if how == "killed":
    building.VectorIndex = lambda **_: os.kill(os.getpid(), signal.SIGKILL)
else:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(how), resource.RLIM_INFINITY))
files = VectorFiles.of_dataset(Dataset.open(ObjectStore(root=root), "made"))
try:
    building.build_vector_index(files, VectorIndexOptions(index="always", index_engine="ivf"))
except RasterEmbedError as error:
    print(type(error).__name__, error)
"""


def build_in_child(indexed: Indexed, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _BUILD, how, indexed.store.root]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_a_killed_build_leaves_the_old_index(indexed: Indexed) -> None:
    before = {path.name for path in indexed.folder.iterdir()}
    assert build_in_child(indexed, "killed").returncode == -signal.SIGKILL
    left = {path.name for path in indexed.folder.iterdir()} - before
    assert {name.partition("-")[0] for name in left} == {"rows", "vectors", "codes"}
    assert indexed.why_unusable() is None
    for name in left:
        os.utime(indexed.folder / name, (time.time() - 90_000,) * 2)
    assert build_vector_index(indexed.files, ALWAYS).outcome is BuildOutcome.CURRENT
    assert {path.name for path in indexed.folder.iterdir()} == before


@pytest.mark.parametrize("most", [5_000, 39_000])
@pytest.mark.slow  # A process starts.
def test_a_full_disk_is_one_line_and_leaves_the_old_index(indexed: Indexed, most: int) -> None:
    """A limit of the size of a file stands for a full disk. The vectors have 38,400 bytes, and the rows have more."""
    before = {path.name for path in indexed.folder.iterdir()}
    result = build_in_child(indexed, str(most))
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"StoreError {indexed.folder}: ")
    assert {path.name for path in indexed.folder.iterdir()} == before
    assert indexed.why_unusable() is None


_BUILD_OFTEN = """
import sys
from rasterembed.dataset.dataset import Dataset
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore

files = VectorFiles.of_dataset(Dataset.open(ObjectStore(root=sys.argv[1]), "made"))
for lists in range(int(sys.argv[2]), 20, 2):
    build_vector_index(files, VectorIndexOptions(index="always", index_engine="ivf", index_lists=lists))
"""


@pytest.mark.slow  # Two processes start, and each builds ten times.
def test_two_builds_at_once_leave_one_whole_index(indexed: Indexed) -> None:
    command = [sys.executable, "-c", _BUILD_OFTEN, indexed.store.root]
    builds = [subprocess.Popen([*command, first]) for first in ("1", "2")]
    while any(build.poll() is None for build in builds):
        assert indexed.why_unusable() is None
    assert [build.returncode for build in builds] == [0, 0]
    index = open_segments(indexed.files).description
    assert index.lists in (18, 19)
    assert {file.name for file in index.files} <= {path.name for path in indexed.folder.iterdir()}


# S3


def test_files_on_s3_are_fetched_once(
    moto: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    moto.create_bucket(bucket)
    store = ObjectStore(
        root=f"s3://{bucket}/at", endpoint_url=moto.endpoint_url, access_key=moto.access_key, secret_key=moto.secret_key
    )
    indexed = make(store, tmp_path)

    def cached() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache/rasterembed/indexes").glob("*/*")}

    assert indexed.why_unusable() is None
    # Another process has just renamed its download, and a folder cannot be deleted like a file.
    (folder,) = (tmp_path / "cache/rasterembed/indexes").iterdir()
    (folder / "gone.part").symlink_to("nowhere")
    (folder / "folder").mkdir()
    (folder / "old").touch()
    assert indexed.why_unusable() is None
    assert not (folder / "old").exists()
    (folder / "folder").rmdir()
    (folder / "gone.part").unlink()
    first = cached()
    assert set(first) == set(store.sizes("indexes/made")) - {"index.json"}
    assert indexed.why_unusable() is None
    assert cached() == first

    (vectors,) = (tmp_path / "cache/rasterembed/indexes").glob("*/vectors-*")
    damage(vectors)
    assert indexed.why_unusable() is NoIndexReason.FILE_DAMAGED
    assert indexed.why_unusable() is None  # It was fetched again.

    store.delete("indexes/made/index.json")
    build_vector_index(indexed.files, ALWAYS)
    assert indexed.why_unusable() is None
    assert not set(first) & set(cached())

    (codes,) = (name for name in cached() if name.startswith("codes"))
    store.write(f"indexes/made/{codes}", b"x" * 10)
    shutil.rmtree(tmp_path / "cache")
    assert indexed.why_unusable() is NoIndexReason.FILE_DAMAGED
    assert not any(name.startswith("codes") for name in cached())


_OPENER = """
import sys

from rasterembed.dataset.dataset import Dataset
from rasterembed.search.index import local_files
from rasterembed.search.index.opening import open_segments
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore

root, endpoint_url, access_key, secret_key = sys.argv[1:]
store = ObjectStore(root=root, endpoint_url=endpoint_url, access_key=access_key, secret_key=secret_key)
download = local_files._download


def download_and_wait(*args):
    path = download(*args)
    print(path, flush=True)
    sys.stdin.readline()
    return path


local_files._download = download_and_wait
open_segments(VectorFiles.of_dataset(Dataset.open(store, "made"))).close()
print("opened", flush=True)
"""


def test_a_process_with_an_older_description_deletes_no_download_that_another_one_opens(
    moto: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    moto.create_bucket(bucket)
    login = (moto.endpoint_url, moto.access_key, moto.secret_key)
    store = ObjectStore(root=f"s3://{bucket}/at", endpoint_url=login[0], access_key=login[1], secret_key=login[2])
    indexed = make(store, tmp_path)
    with closing(open_segments(indexed.files)) as opened:
        old = opened.description
    store.delete("indexes/made/index.json")
    build_vector_index(indexed.files, ALWAYS)
    # The other process stops between the download of a file and its opening.
    command = [sys.executable, "-c", _OPENER, store.root, *login]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        downloads = []
        for line in map(str.strip, other.stdout):
            if line == "opened":
                break
            downloads.append(Path(line))
            local_files.forget_old_downloads(indexed.files, old)
            assert downloads[-1].exists()
            other.stdin.write("\n")
            other.stdin.flush()
    assert other.returncode == 0
    assert len(downloads) == len(set(downloads)) == 3
    local_files.forget_old_downloads(indexed.files, old)
    assert not any(path.exists() for path in downloads)
    assert indexed.why_unusable() is None


@pytest.mark.parametrize("fault", ["unavailable", "unanswered", "cut short"])
def test_a_store_that_is_away(
    fault: Fault, moto: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(s3, "RETRY_DELAYS_S", (0.0,) * len(s3.RETRY_DELAYS_S))
    moto.create_bucket(bucket)
    keys = {"access_key": moto.access_key, "secret_key": moto.secret_key}
    query = np.ones(DIMENSIONS)
    with proxy_before(moto.endpoint_url) as proxy:
        store = ObjectStore(root=f"s3://{bucket}/at", endpoint_url=proxy.endpoint_url, **keys)
        make(store, tmp_path)
        with Searcher(store, ["made"]) as searcher:
            right = searcher.ask_vector(query)
            assert right.engines[0].name == "flat"
            # An open index needs no store.
            proxy.fault = lambda method, path: fault
            assert searcher.ask_vector(query).hits == right.hits
        with pytest.raises(StoreUnavailableError) as error:
            Searcher(store, ["made"])
        assert "\n" not in str(error.value)
        # Only the files of the index cannot be fetched.
        shutil.rmtree(tmp_path / "cache")
        proxy.fault = lambda method, path: fault if "/indexes/" in path else None
        with Searcher(store, ["made"]) as searcher:
            answer = searcher.ask_vector(query)
    assert answer.hits == right.hits
    assert (answer.engines[0].name, answer.engines[0].no_index) == ("scan", NoIndexReason.FAILED)
    assert not any("\n" in note for note in answer.notes())
