"""A plan holds everything that decides a dataset's bytes. It travels as JSON, and its fingerprint identifies it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from rasterembed.dataset import plan as plan_module
from rasterembed.dataset.embedding import EmbeddingJob, Execution, embed_shard
from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.source import default_dataset_id, register
from rasterembed.raster.validity import Validity
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.runs import DATASET, choices, elsewhere, embedding, write_raster


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif")


@pytest.fixture
def asked(tiny_vit: Path) -> dict[str, Any]:
    return {name: value for name, value in choices(tiny_vit).items() if name != "execution"}


def _plan(store: ObjectStore, raster: Path, asked: dict[str, Any]) -> Plan:
    settings = {name: value for name, value in asked.items() if name not in ("dataset_id", "hub_token", "profile")}
    others = {name: asked[name] for name in ("hub_token", "profile") if name in asked}
    return make_plan(store, register(store, str(raster)), asked["dataset_id"], PlanSettings(**settings), **others)


def _write(path: Path, dtype: str, count: int = 1, **options: Any) -> Path:
    pixels = np.random.default_rng(2).integers(0, 200, (count, 70, 90)).astype(dtype)
    place = {"crs": "EPSG:32635", "transform": Affine(10, 0, 500_000, 0, -10, 6_700_000)}
    tags = options.pop("tags", {})
    profile = place | {"driver": "GTiff", "width": 90, "height": 70, "count": count, "dtype": dtype} | options
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.update_tags(**tags)
    return path


RASTERS: dict[str, dict[str, Any]] = {
    "plain": {"dtype": "uint8", "count": 3},
    "nodata": {"dtype": "int16", "nodata": -32768},
    "infinite nodata": {"dtype": "float32", "nodata": float("-inf")},
    "nodata that is no number": {"dtype": "float32", "nodata": float("nan")},
    "a value without a short decimal": {"dtype": "float64", "nodata": 0.1 + 0.2},
    "a date": {"dtype": "uint8", "tags": {"TIFFTAG_DATETIME": "2024:06:21 09:30:15"}},
    "control points": {
        "dtype": "uint8",
        "transform": None,
        "gcps": [GroundControlPoint(r, c, 24 + c / 1e3, 60 - r / 1e3) for r in (0, 70) for c in (0, 90)],
        "crs": "EPSG:4326",
    },
    "no place": {"dtype": "uint8", "crs": None, "transform": None},
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("options", RASTERS.values(), ids=RASTERS)
def test_a_plan_is_the_same_after_json(
    options: dict[str, Any], store: ObjectStore, asked: dict[str, Any], tmp_path: Path
) -> None:
    plan = _plan(store, _write(tmp_path / "r.tif", **options), asked | {"selection": Selection(allow_no_crs=True)})
    plan.write(store)
    read = Plan.read(store, DATASET, plan.fingerprint)
    assert read == plan
    assert read.fingerprint == plan.fingerprint
    assert read.profile.nodata == plan.profile.nodata


def test_the_fingerprint_is_the_digest_of_the_configuration_as_canonical_json(
    store: ObjectStore, raster: Path, asked: dict[str, Any]
) -> None:
    plan = _plan(store, raster, asked)
    as_readers_have_it = json.loads(json.dumps(plan.configuration(), indent=1))
    canonical = json.dumps(as_readers_have_it, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert plan.fingerprint == hashlib.sha256(canonical.encode()).hexdigest()
    assert set(as_readers_have_it) == {
        "schema_version",
        "source",
        "grid",
        "shard",
        "radiometry",
        "model",
        "pooling",
        "dtype",
        "selection",
    }


def _asking(name: str, **changes: Any) -> Any:
    return lambda asked: asked | {name: asked[name].model_copy(update=changes)}


CHOICES = {
    "tile size": lambda asked: asked | {"grid": Grid(size=64)},
    "stride": lambda asked: asked | {"grid": Grid(size=32, stride=16)},
    "edge": lambda asked: asked | {"grid": Grid(size=32, edge="shift")},
    "anchor": lambda asked: asked | {"grid": Grid(size=32, anchor="crs")},
    "origin": lambda asked: asked | {"grid": Grid(size=32, anchor="crs", origin=(10.0, 0.0))},
    "range": lambda asked: asked | {"radiometry": Radiometry(range=(0.0, 100.0))},
    "bands": lambda asked: asked | {"radiometry": Radiometry(bands=(3, 2, 1))},
    "nodata": lambda asked: asked | {"validity": Validity(nodata=7)},
    "alpha as data": lambda asked: asked | {"validity": Validity(ignore_alpha=True)},
    "pooling": _asking("model", pooling="mean"),
    "compute dtype": _asking("model", dtype="bfloat16"),
    "input size": _asking("model", input_size=64),
    "vector dtype": _asking("selection", vector_dtype="float16"),
    "valid fraction": _asking("selection", min_valid_fraction=0.5),
    "bad windows": _asking("selection", on_bad_window="skip"),
    "no CRS": _asking("selection", allow_no_crs=True),
    "shards": _asking("selection", shard_tiles=4),
}


@pytest.mark.parametrize("change", CHOICES.values(), ids=CHOICES)
def test_what_decides_the_bytes_changes_the_fingerprint(
    change: Any, store: ObjectStore, raster: Path, asked: dict[str, Any]
) -> None:
    plan = _plan(store, raster, asked)
    assert _plan(store, raster, asked).fingerprint == plan.fingerprint
    assert _plan(store, raster, change(asked)).fingerprint != plan.fingerprint


def test_other_weights_change_the_fingerprint(
    store: ObjectStore, raster: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(asked["model"].model, model)
    asked = asked | {"model": Dinov3(model=str(model))}
    fingerprints = {_plan(store, raster, asked).fingerprint}
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    fingerprints.add(_plan(store, raster, asked).fingerprint)
    processor = model / "preprocessor_config.json"
    processor.write_text(processor.read_text().replace("0.485", "0.484"))
    fingerprints.add(_plan(store, raster, asked).fingerprint)
    assert len(fingerprints) == 3


def test_another_state_or_place_of_the_raster_changes_the_fingerprint(
    store: ObjectStore, raster: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    fingerprints = {_plan(store, raster, asked).fingerprint}
    os.utime(raster, ns=(1, 1))
    fingerprints.add(_plan(store, raster, asked).fingerprint)
    with raster.open("ab") as file:
        file.write(b"\0")
    os.utime(raster, ns=(1, 1))
    fingerprints.add(_plan(store, raster, asked).fingerprint)
    moved = tmp_path / "moved.tif"
    raster.rename(moved)
    fingerprints.add(_plan(store, moved, asked).fingerprint)
    assert len(fingerprints) == 4


def test_another_schema_changes_the_fingerprint(
    store: ObjectStore, raster: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = _plan(store, raster, asked).fingerprint
    monkeypatch.setattr(plan_module, "SCHEMA_VERSION", plan_module.SCHEMA_VERSION + 1)
    assert _plan(store, raster, asked).fingerprint != fingerprint


def test_a_changed_copy_has_a_fingerprint_of_its_own(store: ObjectStore, raster: Path, asked: dict[str, Any]) -> None:
    plan = _plan(store, raster, asked)
    changed = {"model": plan.model.model_copy(update={"weights_sha256": "0" * 64})}
    assert plan.fingerprint != plan.model_copy(update=changed).fingerprint


def test_what_does_not_decide_the_bytes_leaves_the_fingerprint(
    store: ObjectStore, raster: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    fingerprint = _plan(store, raster, asked).fingerprint
    elsewhere_kept = ObjectStore(root=str(tmp_path / "other"))
    for same in (
        _plan(elsewhere_kept, raster, asked),
        _plan(store, raster, asked | {"dataset_id": "other"}),
        _plan(store, raster, asked | {"hub_token": "token"}),
        _plan(store, raster, asked | {"grid": Grid(size=32, stride=32)}),
        _plan(store, raster, asked | {"model": asked["model"].model_copy(update={"dtype": "float32"})}),
    ):
        assert same.fingerprint == fingerprint
    planned = json.dumps(_plan(store, raster, asked).model_dump(mode="json"))
    assert not [name for name in Execution.model_fields if f'"{name}"' in planned]


def _embed(root: str, fingerprint: str, number: int) -> str:
    store = ObjectStore(root=root)
    plan = Plan.read(store, DATASET, fingerprint)
    shard = embed_shard(store, plan, number, EmbeddingJob(execution=Execution(batch_size=4)))
    return embedding(store, shard.path).sha256


@pytest.mark.vectors
def test_another_process_computes_the_same_vectors_from_the_plan_alone(
    store: ObjectStore, raster: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    plan = _plan(store, raster, asked)
    plan.write(store)
    theirs = elsewhere(_embed, store.root, plan.fingerprint, 1)

    other = ObjectStore(root=str(tmp_path / "other"))
    shard = embed_shard(other, plan, 1, EmbeddingJob(execution=Execution(batch_size=4)))
    assert shard.rows == 8
    assert embedding(other, shard.path).sha256 == theirs


REMEDY = "embed the raster again with the same options to write the plan again"


def test_a_plan_that_is_missing_broken_or_anothers_is_refused(
    store: ObjectStore, raster: Path, asked: dict[str, Any]
) -> None:
    plan = _plan(store, raster, asked)
    path = Path(store.root) / plan.layout.plan(plan.fingerprint)
    with pytest.raises(DataError, match=rf"^{path}: the plan is missing: {REMEDY}$"):
        Plan.read(store, DATASET, plan.fingerprint)
    plan.write(store)
    path.write_text(path.read_text().replace('"pooling": "cls"', '"pooling": "mean"'))
    with pytest.raises(
        DataError, match=rf"^{path}: the plan's fingerprint is [0-9a-f]{{64}}, expected {plan.fingerprint}: {REMEDY}$"
    ):
        Plan.read(store, DATASET, plan.fingerprint)
    path.write_text(path.read_text()[:-50])
    with pytest.raises(
        DataError, match=rf"^{path}: this version cannot read the plan \(Invalid JSON: EOF .*\): {REMEDY}$"
    ):
        Plan.read(store, DATASET, plan.fingerprint)


URIS = {
    "s3://bucket/input.tif": "bucket-input",
    "s3://bucket/a/Input 1.TIF": "bucket-a-input-1",
    "s3://bucket/b/input.tif": "bucket-b-input",
    "s3://other/b/input.tif": "other-b-input",
    "s3://bucket/b-input.tif": "bucket-b-input",
    "/data/a/input.tif": "input",
    "/data/b/input.tif": "input",
    "/data/b/input.tiff": "input",
    "/data/Ä.tif": "a",
    "/data/Köln.tif": "koln",
    "/data/Ko\u0308ln.tif": "koln",
    "/data/Großer Łódź-Fjørd.tif": "grosser-lodz-fjord",
    "/data/東京.tif": "raster",
    "/data/.tif": "tif",
    "/data/" + "x" * 300 + ".tif": "x" * 96,
    "s3://bucket/" + "../" * 5 + "x.tif": "bucket-x",
    "s3://bucket/" + "x" * 300 + ".tif": "bucket-" + "x" * 89,
    "s3://" + "b" * 63 + "/" + "x" * 300 + ".tif": "b" * 48 + "-" + "x" * 47,
}


def test_rasters_get_readable_names_and_no_two_the_same() -> None:
    names = {uri: default_dataset_id(uri) for uri in URIS}
    assert {uri: name[:-17] for uri, name in names.items()} == URIS
    assert len(set(names.values())) == len(URIS)
    for name in names.values():
        DatasetLayout(name)
