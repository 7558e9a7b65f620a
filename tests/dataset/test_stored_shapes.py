"""Manifests, plans and receipts of another shape: each ends in one line that names the file, and costs little."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rasterembed.commands.dataset_texts import table
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.listing import Unlisted, list_datasets
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.plan_checks import why_unusable
from rasterembed.dataset.shards import find_shard, read_receipt
from rasterembed.errors import DataError, StoreError
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.file_checks import ShardProblem, check_shards
from rasterembed.search.tile_lookup import Tile, read_vectors
from rasterembed.store import duck
from rasterembed.store.object_store import ObjectStore
from tests.support.runs import DATASET, choices, write_raster

MANIFEST = f"datasets/{DATASET}/manifest.json"

WHOLE_FILES = {
    "nothing": b"",
    "null": b"null",
    "a number": b"3",
    "a list": b"[]",
    "no keys": b"{}",
    "half": b'{"dataset_id": "scene", "shards": [',
    "deep": b"[" * 200_000,
    "deep objects": b'{"configuration":' * 200_000,
    "no text": bytes(range(256)),
    "a long number": b"9" * 10_000,
}

VALUES: tuple[Any, ...] = (None, "../x", [], -1, 10**30, float("nan"))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> ObjectStore:
    folder = tmp_path_factory.mktemp("embedded")
    store = ObjectStore(root=str(folder / "store"))
    options = EmbedOptions(**choices(tiny_vit), quality_checks=False)
    embed_raster(store, str(write_raster(folder / "scene.tif")), options)
    return store


@pytest.fixture
def store(embedded: ObjectStore, tmp_path: Path) -> ObjectStore:
    """A copy of the dataset that a test may damage."""
    shutil.copytree(embedded.root, tmp_path / "store")
    return ObjectStore(root=str(tmp_path / "store"))


def _open(store: ObjectStore) -> Plan:
    return Dataset.open(store, DATASET, states=ALL_STATES).plan


def _plan_key(store: ObjectStore) -> str:
    return next(f"datasets/{DATASET}/{name}" for name in store.sizes(f"datasets/{DATASET}") if "plan-" in name)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from _places(child, (*path, key))


def _changed(content: Any, path: tuple[Any, ...], value: Any) -> bytes:
    copy = json.loads(json.dumps(content))
    owner = copy
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    return json.dumps(copy).encode()


@pytest.mark.parametrize("content", WHOLE_FILES.values(), ids=WHOLE_FILES)
@pytest.mark.parametrize("which", ["manifest", "plan"])
def test_a_file_of_another_shape_is_named_in_one_line(which: str, content: bytes, store: ObjectStore) -> None:
    key = MANIFEST if which == "manifest" else _plan_key(store)
    store.write(key, content)
    with pytest.raises(DataError) as raised:
        _open(store)
    text = str(raised.value)
    assert text.startswith(f"{store.uri(key)}: this version cannot read the {which} (")
    remedies = {
        "manifest": "`rasterembed embed RASTER --dataset-id scene --replace`",
        "plan": ": embed the raster again with ",
    }
    assert remedies[which] in text
    assert len(text.splitlines()) == 1
    assert len(text) < 600


@pytest.mark.parametrize("which", ["manifest", "plan"])
def test_any_value_at_any_place_is_accepted_or_named_in_one_line(which: str, store: ObjectStore) -> None:
    key = MANIFEST if which == "manifest" else _plan_key(store)
    content = json.loads(store.read(key) or b"")
    path = Path(store.uri(key))
    texts = []
    for place in _places(content):
        for value in VALUES:
            path.write_bytes(_changed(content, place, value))
            try:
                _open(store)
            except DataError as error:
                texts.append(str(error))
    assert len(texts) > 300
    assert [text for text in texts if not text.startswith(f"{path}: ") or len(text.splitlines()) != 1] == []


@pytest.mark.parametrize("assets", ["abc", 5, None, [{}], [1], [{"uri": "/a", "size": "x", "version": "5"}]])
def test_files_of_a_scene_of_another_shape_are_named_in_one_line(assets: Any, store: ObjectStore) -> None:
    content = json.loads(store.read(MANIFEST) or b"")
    content["configuration"]["source"]["assets"] = assets
    store.write(MANIFEST, json.dumps(content).encode())
    with pytest.raises(DataError, match=r"cannot read the manifest \(configuration\.source\.assets"):
        _open(store)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a file system whose times go beyond the year 9999")
def test_a_manifest_of_the_far_future_is_listed(store: ObjectStore) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        far = ObjectStore(root=str(shutil.copytree(store.root, Path(folder) / "store")))
        os.utime(far.uri(MANIFEST), (1e12, 1e12))
        assert [dataset.id for dataset in list_datasets(far)] == [DATASET]
        far.delete(MANIFEST)
        for plan in Path(far.root).rglob("plan-*.json"):
            os.utime(plan, (1e12, 1e12))
        assert [dataset.state for dataset in list_datasets(far)] == [Unlisted.UNFINISHED]


def _of_model(content: Any, which: str) -> Any:
    return content["configuration"]["model"] if which == "manifest" else content["model"]


@pytest.mark.parametrize("which", ["manifest", "plan"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mean", float("inf")),
        ("mean", float("nan")),
        ("mean", 1e300),
        ("std", 0.0),
        ("std", float("inf")),
        ("std", -1.0),
    ],
)
def test_an_impossible_normalisation_is_refused_in_one_line(
    which: str, field: str, value: float, store: ObjectStore
) -> None:
    key = MANIFEST if which == "manifest" else _plan_key(store)
    content = json.loads(store.read(key) or b"")
    _of_model(content, which)[field][1] = value
    store.write(key, json.dumps(content).encode())
    place = f"{'configuration.' if which == 'manifest' else ''}model.{field}.1"
    text = rf"^{store.uri(key)}: this version cannot read the {which} \({place}: "
    with pytest.raises(DataError, match=text) as raised:
        _open(store)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("field", "value"), [("low", float("inf")), ("high", float("nan")), ("high", None)])
def test_an_impossible_radiometry_is_refused_in_one_line(field: str, value: float | None, store: ObjectStore) -> None:
    content = json.loads(store.read(MANIFEST) or b"")
    radiometry = content["configuration"]["radiometry"]
    radiometry[field][0] = radiometry["low"][0] if value is None else value
    store.write(MANIFEST, json.dumps(content).encode())
    dataset = Dataset.open(store, DATASET, states=ALL_STATES)
    with pytest.raises(DataError, match=r"manifest\.json: configuration\.radiometry: black or white is not finite"):
        _ = dataset.radiometry


MASK: dict[str, Any] = {
    "source": {"uri": "/mask.tif", "size": 9, "version": "1", "modified": "2026-01-01T00:00:00Z"},
    "dtype": "uint8",
    "block_height": 16,
    "block_width": 16,
}

IMPOSSIBLE_PLANS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "gigabytes of tiles": (("sharding", "rows"), 74 * 2**30),
    "as many shards": (("sharding", "shard_rows"), 0),
    "a raster beyond GDAL": (("profile", "width"), 2**40),
    "another size": (("sharding", "height"), 151),
    "an anchor of a grid that has none": (("sharding", "anchor"), {"col": 50_000, "row": 670_000}),
    "a grid without its anchor": (("sharding", "grid", "anchor"), "crs"),
    "no bands": (("profile", "count"), 0),
    "a band that does not exist": (("radiometry", "bands", 0), 4),
    "no range": (("radiometry", "high", 0), 0.0),
    "a range without end": (("radiometry", "high", 0), 1e999),
    "endless vectors": (("model", "dimensions"), 2**40),
    "another file system": (("source", "uri"), "/vsicurl/http://127.0.0.1:1/scene.tif"),
    "another format": (("source", "uri"), "NETCDF:scene.nc:x"),
    "a CRS that names a file": (("profile", "crs_wkt"), "+proj=longlat +nadgrids=/etc/passwd"),
    "another dataset": (("dataset_id",), "other"),
    "pixels of no type": (("profile", "dtype"), "object"),
    "nodata beyond all types": (("profile", "nodata", 0), 10**400),
    "a mask of no type": (("profile", "valid_mask"), MASK | {"dtype": "object"}),
    "a mask without rows": (("profile", "valid_mask"), MASK | {"block_height": 0}),
    "a mask in another file system": (
        ("profile", "valid_mask"),
        MASK | {"source": MASK["source"] | {"uri": "/vsicurl/http://127.0.0.1:1/mask.tif"}},
    ),
}


@pytest.mark.parametrize(("place", "value"), IMPOSSIBLE_PLANS.values(), ids=IMPOSSIBLE_PLANS)
def test_an_impossible_plan_is_refused(place: tuple[Any, ...], value: Any, store: ObjectStore) -> None:
    key = _plan_key(store)
    store.write(key, _changed(json.loads(store.read(key) or b""), place, value))
    with pytest.raises(DataError, match=r"cannot read the plan \(.*: embed the raster again"):
        _open(store)


def test_a_plan_of_0_1_may_have_dots_in_the_path_of_its_raster(store: ObjectStore) -> None:
    plan = _open(store)
    source = plan.source.model_copy(update={"uri": "/data/today/../scene.tif"})
    assert why_unusable(plan.model_copy(update={"source": source}), plan.dataset_id) is None


def test_settings_that_only_another_version_knows_leave_a_plan_usable(store: ObjectStore) -> None:
    plan = _open(store)
    content = plan.model_dump(mode="json") | {"requested": {"grid": {"size": 32, "shape": "hexagon"}}}
    assert Plan.model_validate(content) == plan.model_copy(update={"requested": None})


@pytest.mark.parametrize(
    "path",
    ["../../scene.tif", "embeddings/scene/*.parquet", "embeddings/scene", "embeddings/other/part-0.parquet", "/etc/x"],
)
def test_a_shard_has_no_other_path_than_the_layout_gives_it(path: str, store: ObjectStore) -> None:
    content = json.loads(store.read(MANIFEST) or b"")
    store.write(MANIFEST, _changed(content, ("shards", 1, "path"), path))
    with pytest.raises(DataError, match=r"cannot read the manifest \(shards: the path of shard 1 is not the one"):
        _open(store)
    for name in ("index", "stac_item"):
        store.write(MANIFEST, _changed(content, (name,), path))
        with pytest.raises(DataError, match="it names objects outside the dataset"):
            _open(store)


OTHER_SUMS: dict[str, Callable[[dict[str, Any]], None]] = {
    "two shards of four": lambda content: content.update(shards=content["shards"][:2]),
    "no shards": lambda content: content.update(shards=[]),
    "one shard many times": lambda content: content.update(shards=content["shards"][:1] * 3000),
    "another order": lambda content: content.update(shards=content["shards"][::-1]),
    "a row more": lambda content: content.update(rows=content["rows"] + 1),
    "a skipped tile more": lambda content: content.update(skipped=content["skipped"] + 1),
    "a byte more": lambda content: content.update(bytes=content["bytes"] + 1),
    "a planned tile more": lambda content: content.update(tiles=content["tiles"] + 1),
    "bytes beyond all files": lambda content: content.update(bytes=10**400),
    "a shard beyond all files": lambda content: content["shards"][0].update(bytes=10**400),
    "a model beyond all models": lambda content: content["configuration"]["model"].update(input_size=10**400),
}


@pytest.mark.parametrize("change", OTHER_SUMS.values(), ids=OTHER_SUMS)
def test_a_manifest_whose_numbers_contradict_its_shards_is_refused(
    change: Callable[[dict[str, Any]], None], store: ObjectStore
) -> None:
    content = json.loads(store.read(MANIFEST) or b"")
    change(content)
    store.write(MANIFEST, json.dumps(content).encode())
    with pytest.raises(
        DataError, match=r"cannot read the manifest \((shards|rows|skipped|bytes|tiles|configuration)"
    ) as raised:
        _open(store)
    assert len(str(raised.value).splitlines()) == 1
    (summary,) = store.datasets()
    assert "cannot read the manifest" in summary.problem
    assert DATASET in table([summary])


def test_a_tile_index_that_names_another_shard_ends_in_one_line(store: ObjectStore) -> None:
    dataset = Dataset.open(store, DATASET, states=ALL_STATES)
    tile = Tile(dataset_id=DATASET, tile_id="r000000_c000000", col_off=0, row_off=0, width=1, height=1, shard=99)
    with (
        duck.connect() as con,
        pytest.raises(DataError, match=r"^dataset 'scene': its tile index names shard 99 .*verify"),
    ):
        read_vectors(con, dataset, [tile])


def test_a_huge_file_is_not_read(store: ObjectStore) -> None:
    with open(store.uri(MANIFEST), "r+b") as file:
        file.truncate(100 * 2**30)  # Reading it all would need 100 GiB of memory.
    with pytest.raises(DataError, match=rf"^{store.uri(MANIFEST)}: it has more than 32 MiB, too much for a manifest: "):
        _open(store)


def test_a_named_pipe_is_no_file(store: ObjectStore) -> None:
    path = Path(store.uri(MANIFEST))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match=rf"^{path}: it is not a file$"):
        _open(store)
    with pytest.raises(StoreError, match=rf"^{path}: it is not a file$"):
        store.open(MANIFEST)


RECEIPTS: dict[str, Any] = {
    "nothing": None,
    "a list": [],
    "no fingerprint": {"dataset_id": DATASET},
    "a number for the fingerprint": {"dataset_id": DATASET, "fingerprint": 3},
    "an unknown reason": {"skipped": {"bored": [1]}},
    "positions as text": {"skipped": {"no_valid_pixel": "12"}},
    "a negative position": {"skipped": {"no_valid_pixel": [-1, 3, 7]}},
    "a position beyond the shard": {"skipped": {"no_valid_pixel": [3, 7, 10**12]}},
    "a position twice": {"skipped": {"no_valid_pixel": [3, 3, 7]}},
}


@pytest.mark.parametrize("receipt", RECEIPTS.values(), ids=RECEIPTS)
def test_a_receipt_of_another_shape_makes_a_shard_incomplete(receipt: Any, store: ObjectStore) -> None:
    manifest = Dataset.open(store, DATASET, states=ALL_STATES).manifest
    shard = next(shard for shard in manifest.shards if 0 < shard.skipped < 10)
    plan = _open(store)
    path = store.uri(shard.path)
    table = pq.read_table(path)
    if isinstance(receipt, dict) and "skipped" in receipt:
        receipt = {"dataset_id": DATASET, "fingerprint": plan.fingerprint} | receipt
    metadata = (table.schema.metadata or {}) | {b"raster_embeddings": json.dumps(receipt).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)

    problems = {finding.problem for finding in check_shards(store, manifest).findings}
    assert problems <= {ShardProblem.DAMAGED, ShardProblem.OTHER_SKIPPED, ShardProblem.OTHER_BYTES}
    assert problems
    assert find_shard(store, plan, shard.number) is None


def test_a_receipt_nested_too_deeply_is_no_receipt(store: ObjectStore) -> None:
    manifest = Dataset.open(store, DATASET, states=ALL_STATES).manifest
    path = store.uri(manifest.shards[0].path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"raster_embeddings": b"[" * 100_000}), path)
    with open(path, "rb") as file:
        assert read_receipt(file) is None
