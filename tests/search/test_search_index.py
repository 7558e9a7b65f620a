"""The HNSW index: what `vss` answers wrongly, and that a bad index never makes a bad answer."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.search.engines import vss
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.engines.vss import VssEngine
from rasterembed.search.filters import Filters
from rasterembed.search.index import hnsw_building
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index.description import HnswDatabase, SegmentFile, VectorIndex
from rasterembed.search.index.hnsw_database import open_database, quote_path
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.query import EngineChoice, Query, Where
from rasterembed.search.searcher import Searcher, search
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store import duck, own_files
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.own_files import is_own_file, note_own_file
from tests.support.servers import S3Server
from tests.support.vectors import blank_raster, checkpoint, write_dataset

ALWAYS = VectorIndexOptions(index="always", index_engine="vss")
QUERY = Query(tile="r000005_c000005")


class Table:
    """5000 random vectors in DuckDB with an HNSW index, and one of them as the query."""

    def __init__(self) -> None:
        vectors = np.random.default_rng(0).standard_normal((5000, 16)).astype(np.float32)
        self.query = {"q": vectors[7].tolist()}
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self.order = np.argsort(1 - unit @ unit[7])
        self.con = duck.connect()
        assert duck.load_vss(self.con)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 16)
        self.con.register("made", pa.table({"id": np.arange(5000), "embedding": column}))
        self.con.execute("CREATE TABLE v AS SELECT id, embedding::FLOAT[16] AS embedding FROM made")
        self.con.execute("CREATE INDEX h ON v USING HNSW (embedding) WITH (metric = 'cosine')")

    def ask(self, sql: str) -> tuple[bool, list[int]]:
        """Whether the index was used, and the ids that came back."""
        sql = sql.replace("DISTANCE", "array_cosine_distance(embedding, $q::FLOAT[16])")
        plan = self.con.execute(f"EXPLAIN {sql}", self.query).fetchall()[0][1]
        return "HNSW_INDEX_SCAN" in plan, [row[0] for row in self.con.execute(sql, self.query).fetchall()]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    table = Table()
    yield table
    table.con.close()


# What vss does, pinned: when a later one does better, these fail, and the code can do with less.


def test_vss_answers_the_one_form_that_is_used(table: Table) -> None:
    used, ids = table.ask("SELECT id FROM v ORDER BY DISTANCE LIMIT 10")
    assert used
    assert ids == table.order[:10].tolist()


def test_vss_filters_after_the_cut(table: Table) -> None:
    used, ids = table.ask("SELECT id FROM v WHERE id % 50 = 0 ORDER BY DISTANCE LIMIT 10")
    assert used
    assert len(ids) < 10  # 100 rows match


def test_vss_ignores_an_offset(table: Table) -> None:
    used, ids = table.ask("SELECT id FROM v ORDER BY DISTANCE LIMIT 10 OFFSET 10")
    assert used
    assert ids == table.order[:10].tolist()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT v.id FROM v JOIN made ON v.id = made.id WHERE made.id % 50 = 0 ORDER BY DISTANCE LIMIT 10",
        "SELECT id FROM v WHERE id IN (SELECT id FROM made WHERE id % 50 = 0) ORDER BY DISTANCE LIMIT 10",
        "WITH f AS MATERIALIZED (SELECT * FROM v WHERE id % 50 = 0) SELECT id FROM f ORDER BY DISTANCE LIMIT 10",
    ],
)
def test_vss_does_not_join_with_its_index(table: Table, sql: str) -> None:
    table.con.execute("CREATE OR REPLACE TEMP VIEW made AS SELECT id FROM v")
    used, ids = table.ask(sql.replace("embedding", "v.embedding"))
    assert not used
    assert ids == [n for n in table.order.tolist() if n % 50 == 0][:10]


@pytest.mark.parametrize("order", ["DISTANCE, id", "1 - DISTANCE DESC", "array_distance(embedding, $q::FLOAT[16])"])
def test_vss_needs_its_own_metric_alone_in_the_order(table: Table, order: str) -> None:
    assert not table.ask(f"SELECT id FROM v ORDER BY {order} LIMIT 10")[0]


def test_vss_joins_several_queries_by_comparing_all_with_all(table: Table) -> None:
    plan = table.con.execute(
        "EXPLAIN SELECT a.id, b.id FROM (SELECT id, embedding AS e FROM v WHERE id < 4) a, LATERAL "
        "(SELECT id FROM v ORDER BY array_cosine_distance(embedding, e) LIMIT 3) b"
    ).fetchall()[0][1]
    assert "HNSW_INDEX_JOIN" not in plan
    assert "CROSS_PRODUCT" in plan


# The index as a cache


@dataclass(frozen=True)
class Indexed:
    dataset: Dataset
    index: VectorIndex

    @property
    def info(self) -> SegmentFile:
        """The database in the index."""
        return hnsw(self.index).file

    @property
    def folder(self) -> Path:
        return Path(self.dataset.store.root) / "indexes" / self.dataset.id

    def search(self, where: Where = Where(), k: int = 10) -> tuple[str, str, list[str]]:
        """Which engine answered, why, and the tiles."""
        answer = search(self.dataset.store, [self.dataset.id], QUERY, where, k)
        return answer.engines[0].name, answer.engines[0].why, [hit.tile_id for hit in answer.hits]


def hnsw(index: VectorIndex) -> HnswDatabase:
    """Return the database of an index."""
    assert index.database is not None
    return index.database


def build(dataset: Dataset, options: VectorIndexOptions) -> tuple[VectorIndex | None, str]:
    """Build an index; return it, and what the build says of it."""
    result = build_vector_index(VectorFiles.of_dataset(dataset), options)
    return result.index, result.describe()


def vectors_of(count: int, seed: int = 4) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 24)).astype(np.float32)


def make(store: ObjectStore, folder: Path, vectors: NDArray[np.float32], **options: Any) -> Dataset:
    model = Dinov3(model=str(checkpoint(folder / "model", 24)))
    raster = folder / "blank.tif"
    if not raster.exists():
        blank_raster(raster, 20, 20)
    write_dataset(store, "made", raster, model, vectors, **options)
    return Dataset.open(store, "made")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """Make a dataset with an index that no test changes."""
    folder = tmp_path_factory.mktemp("index")
    dataset = make(ObjectStore(root=str(folder / "store")), folder, vectors_of(400))
    info, why = build(dataset, ALWAYS)
    assert info is not None
    assert why == "built, because there is no index"
    return Indexed(dataset, info)


@pytest.fixture
def indexed(pristine: Indexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Indexed:
    """Copy that dataset, for tests that change it."""
    monkeypatch.setattr(hnsw_building, "RECALL_SAMPLE", 5)
    root = tmp_path / "st'ore"
    shutil.copytree(pristine.dataset.store.root, root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    note_own_file(pristine.info.sha256)
    return Indexed(Dataset.open(ObjectStore(root=str(root)), "made"), pristine.index)


def test_an_index_is_one_database_named_by_a_file(indexed: Indexed) -> None:
    assert {path.name for path in indexed.folder.iterdir()} == {"index.json", indexed.info.name}
    stored = json.loads((indexed.folder / "index.json").read_text())
    database = stored["database"]
    assert (stored["version"], stored["engine"], stored["segments"]) == (2, "vss", [])
    assert stored["digest"] == indexed.dataset.manifest.fingerprint
    assert database["file"]["name"].startswith(f"hnsw-{indexed.dataset.manifest.fingerprint[:12]}-")
    assert database["file"]["bytes"] == (indexed.folder / database["file"]["name"]).stat().st_size
    assert (stored["rows"], stored["metric"]) == (400, "cosine")
    assert (database["m"], database["ef_construction"], database["ef_search"]) == (16, 128, 128)
    assert (stored["recall_at"], stored["recall_sample"]) == (10, 200)
    assert stored["recall"] > 0.99


def test_the_description_that_version_0_1_wrote_is_read(indexed: Indexed) -> None:
    assert indexed.search()[0] == "vss"
    written = {
        "fingerprint": indexed.index.digest, "file": indexed.info.name, "bytes": indexed.info.bytes,
        "sha256": indexed.info.sha256, "rows": 400, "metric": "cosine", "m": 16, "ef_construction": 128,
        "ef_search": 128, "recall": 0.998, "recall_at": 10, "recall_sample": 200, "build_seconds": 0.412,
        "duckdb": "1.5.5", "built": "2026-11-22T17:41:26.123456Z",
    }  # fmt: skip
    (indexed.folder / "index.json").write_text(json.dumps(written, indent=1))
    assert indexed.search()[:2] == ("vss", "ef_search 128, recall@10 0.998 when built")
    assert build(indexed.dataset, ALWAYS)[1] == "the index is current"
    flat = VectorIndexOptions(index="always")
    assert build(indexed.dataset, flat)[1] == "built, because the earlier index was for the engine vss"
    assert indexed.search()[0] == "flat"
    assert not list(indexed.folder.glob("hnsw-*"))


def test_a_current_index_is_kept(indexed: Indexed) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in indexed.folder.iterdir()}
    info, why = build(indexed.dataset, ALWAYS)
    assert (info, why) == (indexed.index, "the index is current")
    assert {path.name: path.stat().st_mtime_ns for path in indexed.folder.iterdir()} == before


@pytest.mark.parametrize("options", [{"index_m": 8}, {"index_ef_construction": 64}, {"index_ef_search": 50}])
def test_other_parameters_build_it_anew(indexed: Indexed, options: dict[str, int]) -> None:
    info, why = build(indexed.dataset, VectorIndexOptions(index="always", index_engine="vss", **options))
    assert info is not None
    assert why == "built, because the earlier index had other parameters"
    new = hnsw(info)
    assert new.file != indexed.info
    built = {"index_m": new.m, "index_ef_construction": new.ef_construction, "index_ef_search": new.ef_search}
    assert built.items() >= options.items()
    assert {path.name for path in indexed.folder.iterdir()} == {"index.json", new.file.name}


def test_few_vectors_need_no_index_and_keep_one_that_exists(indexed: Indexed) -> None:
    for few in (VectorIndexOptions(index_min_rows=401), VectorIndexOptions(index_engine="vss", index_min_rows=401)):
        assert build(indexed.dataset, few) == (indexed.index, "the index is current")
    info, why = build(indexed.dataset, VectorIndexOptions(index="never"))
    assert (info, why) == (None, "the index was removed: the options turn it off")
    info, why = build(indexed.dataset, VectorIndexOptions(index_engine="vss", index_min_rows=401))
    assert (info, why) == (None, "no index: 400 rows are below 401")
    assert list(indexed.folder.iterdir()) == []
    assert indexed.search()[:2] == ("scan", "there is no index")
    info, _ = build(indexed.dataset, VectorIndexOptions(index_engine="vss", index_min_rows=400))
    assert info is not None
    assert indexed.search()[0] == "vss"


def cut_off(indexed: Indexed) -> None:
    file = indexed.folder / indexed.info.name
    file.write_bytes(file.read_bytes()[:-4096])


def remove(indexed: Indexed) -> None:
    (indexed.folder / indexed.info.name).unlink()


def damage(indexed: Indexed, place: float) -> None:
    file = indexed.folder / indexed.info.name
    data = bytearray(file.read_bytes())
    at = int(len(data) * place)
    data[at : at + 64] = bytes(byte ^ 0xFF for byte in data[at : at + 64])
    file.write_bytes(data)


def rewrite(indexed: Indexed, *place: str, **changes: Any) -> None:
    """Change entries of index.json: those of the whole, or of the entry at `place`."""
    info = entry = json.loads((indexed.folder / "index.json").read_text())
    for name in place:
        entry = entry[name]
    entry.update(changes)
    (indexed.folder / "index.json").write_text(json.dumps(info))


FILE = ("database", "file")


BROKEN: dict[str, tuple[Callable[[Indexed], None], str]] = {
    "absent": (lambda i: (i.folder / "index.json").unlink(), "there is no index"),
    "no database": (remove, "the index is broken: a file of it is missing, cut off or damaged"),
    "cut off": (cut_off, "the index is broken: a file of it is missing, cut off or damaged"),
    "damaged head": (lambda i: damage(i, 0.0), "the index is broken: a file of it is missing, cut off or damaged"),
    # unchecked, damage among the vectors ends the process
    "damaged vectors": (lambda i: damage(i, 0.6), "the index is broken: a file of it is missing, cut off or damaged"),
    "no json": (lambda i: (i.folder / "index.json").write_text("{"), "the index is broken: index.json cannot be read"),
    "led astray": (
        lambda i: rewrite(i, *FILE, name="../../../x.duckdb"),
        "the index is broken: index.json cannot be read",
    ),
    "huge numbers": (
        lambda i: rewrite(i, "database", ef_search=10**30),
        "the index is broken: index.json cannot be read",
    ),
    "negative size": (lambda i: rewrite(i, *FILE, bytes=-1), "the index is broken: index.json cannot be read"),
    "recall of nan": (lambda i: rewrite(i, recall=float("nan")), "the index is broken: index.json cannot be read"),
    "stale": (lambda i: rewrite(i, digest="0" * 64), "the index is stale: it was built from other vectors"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_bad_index_is_passed_over_and_then_rebuilt(indexed: Indexed, how: str) -> None:
    good = indexed.search()
    assert good[0] == "vss"
    change, why = BROKEN[how]
    change(indexed)
    for path in indexed.folder.iterdir():
        os.utime(path, (0, 0))  # A file that no index.json names is removed when it is a day old.
    assert indexed.search() == ("scan", why, good[2])
    info, reason = build(indexed.dataset, ALWAYS)
    assert info is not None
    assert reason == f"built, because {why}"
    assert indexed.search()[::2] == ("vss", good[2])
    assert {path.name for path in indexed.folder.iterdir()} == {"index.json", hnsw(info).file.name}


def test_a_file_that_is_no_database_is_passed_over(indexed: Indexed) -> None:
    junk = b"not a database" * 400
    (indexed.folder / indexed.info.name).write_bytes(junk)
    sha256 = hashlib.sha256(junk).hexdigest()
    rewrite(indexed, *FILE, bytes=len(junk), sha256=sha256)
    note_own_file(sha256)
    engine, why, tiles = indexed.search()
    assert engine == "scan"
    assert why.startswith("the index is broken: ")
    assert "\n" not in why
    assert len(tiles) == 10


def plant(indexed: Indexed, *statements: str, copy: bool = True) -> str:
    """Replace the index's database, as anybody may who can write to the bucket: with a matching digest.

    Returns:
        The digest.
    """
    file = indexed.folder / indexed.info.name
    kept = file.rename(indexed.folder.parent / "kept.duckdb")
    con = duckdb.connect()
    duck.load_vss(con)
    con.execute(f"ATTACH {quote_path(kept)} AS old (READ_ONLY); ATTACH {quote_path(file)} AS ix; USE ix")
    con.execute("SET hnsw_enable_experimental_persistence = true")
    if copy:
        con.execute("CREATE TABLE vectors AS SELECT * FROM old.vectors")
        con.execute(
            "CREATE INDEX hnsw ON vectors USING HNSW (embedding) "
            "WITH (metric = 'cosine', M = 16, ef_construction = 128)"
        )
    for statement in statements:
        con.execute(statement)
    con.execute("CHECKPOINT ix")
    con.close()
    kept.unlink()
    data = file.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    rewrite(indexed, *FILE, bytes=len(data), sha256=sha256)
    return sha256


VIEW = """
CREATE VIEW vectors AS SELECT tile_id || content AS tile_id, "row", col, col_off, row_off, width, height,
valid_fraction, geometry, embedding, 'HNSW_INDEX_SCAN' AS scan FROM inner_table, read_text('SECRET')
"""

PLANTED = {
    "view": ("CREATE TABLE inner_table AS SELECT * FROM old.vectors", VIEW),
    "view beside the table": ("CREATE VIEW other AS SELECT * FROM read_text('SECRET')",),
    "macro": ("CREATE MACRO array_cosine_distance(a, b) AS (SELECT length(content) FROM read_text('SECRET'))",),
    "table macro": ("CREATE MACRO m() AS TABLE SELECT * FROM read_text('SECRET')",),
    "generated column": (
        'CREATE TABLE vectors (tile_id VARCHAR, "row" INTEGER, col INTEGER, col_off INTEGER, row_off INTEGER, '
        "width INTEGER, height INTEGER, valid_fraction FLOAT, geometry GEOMETRY, "
        "embedding FLOAT[24], x VARCHAR GENERATED ALWAYS AS (repeat(tile_id, 2)))",
        "INSERT INTO vectors SELECT * FROM old.vectors",
        "CREATE INDEX hnsw ON vectors USING HNSW (embedding) WITH (metric = 'cosine')",
    ),
    "default": ("ALTER TABLE vectors ALTER tile_id SET DEFAULT repeat('x', 9)",),
    "second index": ("CREATE INDEX other ON vectors ((repeat(tile_id, 2)))",),
    "second table": ("CREATE TABLE other (a INTEGER)",),
    "schema": ("CREATE SCHEMA ix",),
    "sequence": ("CREATE SEQUENCE s",),
    "type": ("CREATE TYPE t AS ENUM ('a')",),
}


@pytest.mark.parametrize("how", PLANTED)
def test_a_planted_database_is_not_read(indexed: Indexed, tmp_path: Path, how: str) -> None:
    good = indexed.search()
    assert good[0] == "vss"
    secret = tmp_path / "secret.txt"
    secret.write_text("-secret")
    copy = how not in ("view", "generated column", "default")
    statements = [text.replace("SECRET", str(secret)) for text in PLANTED[how]]
    if how == "default":
        statements = ["CREATE TABLE vectors AS SELECT * FROM old.vectors", *statements, PLANTED["generated column"][-1]]
    sha256 = plant(indexed, *statements, copy=copy)
    assert indexed.search() == ("scan", NOT_OWN, good[2])
    note_own_file(sha256)  # Even if it were trusted, it would not be read.
    why = "the index is broken: a file of it holds something that no build writes"
    assert indexed.search() == ("scan", why, good[2])


NOT_OWN = "the index is a database that you did not build on this machine, so it is not opened"


def forget_own_files(_: Path) -> None:
    """Forget the databases that this user built, as if the search ran on another machine."""
    shutil.rmtree(cache_folder() / "own-files")


def let_others_write_the_notes(_: Path) -> None:
    (cache_folder() / "own-files").chmod(0o777)


def corrupt_a_block(file: Path) -> None:
    """Change bytes among the vectors. DuckDB's own checksums do not fit any more."""
    data = bytearray(file.read_bytes())
    at = len(data) * 3 // 5
    data[at : at + 64] = bytes(byte ^ 0xFF for byte in data[at : at + 64])
    file.write_bytes(data)


@pytest.mark.parametrize("change", [forget_own_files, let_others_write_the_notes, corrupt_a_block])
def test_a_database_of_somebody_else_is_never_opened(
    indexed: Indexed, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = indexed.search()
    assert good[0] == "vss"
    file = indexed.folder / indexed.info.name
    change(file)
    rewrite(indexed, *FILE, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    opened: list[Path] = []
    monkeypatch.setattr(vss, "open_database", lambda path, *_: opened.append(path))
    engines: tuple[EngineChoice, ...] = ("auto", "vss")
    for engine in engines:
        with Searcher(indexed.dataset.store, ["made"], engine=engine) as searcher:
            answer = searcher.ask(QUERY, k=10)
        assert answer.engines[0].no_index is NoIndexReason.NOT_OWN
        assert [hit.tile_id for hit in answer.hits] == good[2]
        assert f"made: answered by the exact scan ({NOT_OWN})" in answer.notes()
    # A run with the same options takes the description for true, and leaves the database as it is.
    assert build(indexed.dataset, ALWAYS)[1] == "the index is current"
    assert opened == []


def test_only_the_newest_own_files_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(own_files, "_MOST_FILES", 3)
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(5)]
    for number, digest in enumerate(digests):
        note_own_file(digest)
        os.utime(cache_folder() / "own-files" / digest, (number, number))
    assert [is_own_file(digest) for digest in digests] == [False, False, True, True, True]
    assert not is_own_file("0" * 64)


def test_a_connection_to_an_index_opens_no_other_file(indexed: Indexed, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    con = open_database(indexed.folder / indexed.info.name, VectorFiles.of_dataset(indexed.dataset), 128)
    for statement in (
        f"SELECT * FROM read_text({quote_path(secret)})",
        f"SELECT * FROM glob({quote_path(tmp_path / '*')})",
        f"COPY (SELECT 1) TO {quote_path(tmp_path / 'new.csv')}",
        f"ATTACH {quote_path(tmp_path / 'new.duckdb')} AS new",
    ):
        with pytest.raises(duckdb.PermissionException):
            con.execute(statement)
    for statement in ("SET enable_external_access = true", "SET allowed_paths = ['/']", "SET memory_limit = '1TB'"):
        with pytest.raises(duckdb.InvalidInputException):
            con.execute(statement)
    con.close()


def test_a_log_beside_an_index_is_not_executed(indexed: Indexed) -> None:
    good = indexed.search()
    file = indexed.folder / indexed.info.name
    other = indexed.folder.parent / "other.duckdb"
    shutil.copy(file, other)
    con = duckdb.connect()
    duck.load_vss(con)
    con.execute(f"SET hnsw_enable_experimental_persistence = true; ATTACH {quote_path(other)} AS ix")
    con.execute("SET wal_autocheckpoint = '1TB'; CREATE VIEW ix.planted AS SELECT 1")
    shutil.copy(f"{other}.wal", f"{file}.wal")
    con.close()
    why = "the index is broken: a file of it holds something that no build writes"
    assert indexed.search() == ("scan", why, good[2])


def test_vectors_that_were_replaced_make_the_index_stale(indexed: Indexed, tmp_path: Path) -> None:
    new = make(indexed.dataset.store, tmp_path, vectors_of(400, seed=5), vector_dtype="float16")
    assert new.manifest.fingerprint != indexed.dataset.manifest.fingerprint
    assert indexed.search()[:2] == ("scan", "the index is stale: it was built from other vectors")
    info, _ = build(new, ALWAYS)
    assert info is not None
    assert indexed.search()[0] == "vss"


def test_a_build_that_fails_leaves_the_old_index(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in indexed.folder.iterdir()}
    monkeypatch.setattr("rasterembed.search.index.hnsw_building.measure_recall", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(indexed.dataset, VectorIndexOptions(index="always", index_engine="vss", index_m=8))
    assert {path.name: path.read_bytes() for path in indexed.folder.iterdir()} == before
    assert indexed.search()[0] == "vss"


def test_a_dataset_too_large_for_the_memory_is_searched_without_an_index(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rasterembed.search.index.hnsw_building.BUILD_MEMORY", "1MB")
    info, why = build(indexed.dataset, VectorIndexOptions(index_engine="vss", index_min_rows=1, index_m=8))
    assert info is None
    assert "Out of Memory" in why
    with pytest.raises(DataError, match="Out of Memory"):
        build(indexed.dataset, VectorIndexOptions(index="always", index_engine="vss", index_m=8))


def test_without_vss_the_exact_scan_answers(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    good = indexed.search()
    monkeypatch.setattr(duck, "load_vss", lambda _: False)
    why = f"DuckDB {duckdb.__version__} has no vss extension here"
    assert indexed.search() == ("scan", why, good[2])
    assert build(indexed.dataset, VectorIndexOptions(index_engine="vss", index_min_rows=10)) == (
        None,
        f"no index: {why}",
    )
    with pytest.raises(DataError, match=r"install the wheel duckdb-extension-vss of the same version") as error:
        build(indexed.dataset, ALWAYS)
    assert "\n" not in str(error.value)


def test_the_extension_comes_from_its_wheel_with_its_signature_checked() -> None:
    con = duck.connect()
    assert duck.load_vss(con)
    (row,) = con.execute("SELECT loaded, install_path FROM duckdb_extensions() WHERE extension_name = 'vss'").fetchall()
    assert row[0]
    settings = dict(con.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    assert settings["allow_unsigned_extensions"] == "false"
    assert settings["autoinstall_known_extensions"] == "false"
    assert settings["allow_extensions_metadata_mismatch"] == "false"


def test_an_index_that_breaks_while_it_is_open_gives_way(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    with Searcher(indexed.dataset.store, ["made"]) as searcher:
        good = searcher.ask(QUERY, k=10)
        assert good.engines[0].name == "vss"

        def fail(*_: Any) -> str:
            return "SELECT * FROM ix.nothing WHERE $vector IS NULL OR $n = 0"

        monkeypatch.setattr(vss, "nearest_sql", fail)
        for _ in range(2):
            answer = searcher.ask(QUERY, k=10)
            assert answer.hits == good.hits
            assert answer.engines[0].name == "scan"
            assert answer.engines[0].why.startswith("the index is broken: Catalog Error")


def test_more_rows_than_an_index_should_give_are_scanned_for(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vss, "MAX_FETCH", 50)
    assert indexed.search(k=20)[0] == "vss"
    engine, why, tiles = indexed.search(k=100)
    assert (engine, why, len(tiles)) == ("scan", "the index cannot tell which matching tiles are nearest", 100)


def test_ef_search_is_a_parameter_of_the_question(indexed: Indexed) -> None:
    with Searcher(indexed.dataset.store, ["made"], engine="vss", ef_search=9) as searcher:
        assert searcher.ask(QUERY, k=3).engines[0].why.startswith("ef_search 9, recall@10 ")
    choices: tuple[EngineChoice, ...] = ("auto", "scan", "flat", "ivf")
    for engine in choices:
        with pytest.raises(
            UsageError, match=f"^`ef_search` is a setting of the engine vss, and the engine is {engine}"
        ):
            Searcher(indexed.dataset.store, ["made"], engine=engine, ef_search=9)


def test_an_index_of_another_engine_is_not_used_and_the_answer_says_so(indexed: Indexed) -> None:
    with Searcher(indexed.dataset.store, ["made"], engine="flat") as searcher:
        answer = searcher.ask(QUERY, k=3)
    assert answer.engines[0].no_index == NoIndexReason.OTHER_ENGINE
    assert "made: answered by the exact scan (the index is for the engine vss)" in answer.notes()


def test_recall_is_measured_against_the_exact_neighbours(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    vectors = random.standard_normal((3000, 24)).astype(np.float32)
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 24)))
    write_dataset(store, "made", blank_raster(tmp_path / "made.tif", 50, 60), model, vectors)
    dataset = Dataset.open(store, "made")
    poor, _ = build(
        dataset,
        VectorIndexOptions(index="always", index_engine="vss", index_m=2, index_ef_construction=8, index_ef_search=8),
    )
    assert poor is not None
    index = VssEngine(VectorFiles.of_dataset(dataset))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = 0
    asked = range(0, 3000, 15)
    for number in asked:
        rows = index.nearest(vectors[number], 11, Filters())
        assert rows is not None
        order = np.argsort(1 - unit @ unit[number])[:11]
        exact = {f"r{n // 60:06d}_c{n % 60:06d}" for n in order if n != number}
        found += len(exact & set(rows["tile_id"].to_pylist()))
    index.close()
    assert poor.recall < 0.9
    assert poor.recall == pytest.approx(found / 10 / len(asked), abs=0.08)
    good, _ = build(dataset, ALWAYS)
    assert good is not None
    assert good.recall > 0.97 > poor.recall


def test_an_index_that_cannot_be_loaded_is_closed(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_files() -> list[str]:
        return [os.path.basename(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]

    files = VectorFiles.of_dataset(indexed.dataset)
    index = VssEngine(files)
    assert indexed.info.name in open_files()
    index.close()
    # DuckDB does not answer a query with a second sort key from the index.
    sql = vss.nearest_sql
    monkeypatch.setattr(vss, "nearest_sql", lambda *args: sql(*args).replace("BY distance", "BY distance, tile_id"))
    with pytest.raises(IndexUnusableError) as caught:
        VssEngine(files)
    assert caught.value.reason == NoIndexReason.NOT_USED
    assert indexed.info.name not in open_files()


def test_an_index_on_s3_is_fetched_once_and_checked(
    moto: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hnsw_building, "RECALL_SAMPLE", 5)
    moto.create_bucket(bucket)
    store = ObjectStore(
        root=f"s3://{bucket}/at", endpoint_url=moto.endpoint_url, access_key=moto.access_key, secret_key=moto.secret_key
    )
    dataset = make(store, tmp_path, vectors_of(400))
    first, _ = build(dataset, ALWAYS)
    assert first is not None
    indexed = Indexed(dataset, first)
    good = indexed.search()
    assert good[0] == "vss"
    (cached,) = (tmp_path / "cache").rglob("*.duckdb")
    fetched = cached.stat().st_mtime_ns
    assert indexed.search() == good
    assert cached.stat().st_mtime_ns == fetched

    cached.write_bytes(cached.read_bytes()[::-1])
    assert indexed.search() == ("scan", "the index is broken: a file of it is missing, cut off or damaged", good[2])
    assert indexed.search() == good

    second, _ = build(dataset, VectorIndexOptions(index="always", index_engine="vss", index_m=8))
    assert second is not None
    assert indexed.search()[0] == "vss"
    assert [path.name for path in (tmp_path / "cache").rglob("*.duckdb")] == [hnsw(second).file.name]
    assert set(store.sizes("indexes/made")) == {"index.json", hnsw(second).file.name}
    store.delete(f"indexes/made/{hnsw(second).file.name}")
    (tmp_path / "cache").rename(tmp_path / "gone")
    why = "the index is broken: a file of it is missing, cut off or damaged"
    assert indexed.search() == ("scan", why, good[2])
