"""The STAC item of a dataset, read by somebody who knows only its address."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from rasterio.control import GroundControlPoint
from referencing.exceptions import NoSuchResource

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.dataset.shards import Shard
from rasterembed.dataset.stac import stac_item
from rasterembed.model.choice import Dinov3
from rasterembed.raster.footprints import Footprinter
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import embed
from tests.support.stac_schemas import EMBEDDINGS, check
from tests.support.vectors import blank_raster, checkpoint, write_dataset

DIMENSIONS = 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return ObjectStore(root=str(tmp_path_factory.mktemp("root")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Dinov3:
    return Dinov3(model=str(checkpoint(tmp_path_factory.mktemp("checkpoint"), DIMENSIONS)))


@pytest.fixture(scope="module")
def scene(store: ObjectStore, model: Dinov3, rasters: Path) -> Manifest:
    """Several shards of float16."""

    def zeros(numbers: Any) -> Any:
        return np.zeros((len(numbers), DIMENSIONS), np.float32)

    raster = rasters / "RGB.byte.tif"
    return write_dataset(store, "scene", raster, model, zeros, shard_tiles=600, vector_dtype="float16")


def strict(text: str | bytes) -> Any:
    """JSON without the NaN and Infinity that Python alone lets pass."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def check_item(item: dict[str, Any]) -> None:
    """Check an item against core STAC 1.1 and the schemas of its extensions."""
    check(item)
    assert EMBEDDINGS in item["stac_extensions"]


def plan_of(store: ObjectStore, raster: Path, model: Dinov3, dataset_id: str = "planned", **choices: Any) -> Plan:
    return make_plan(
        store, register(store, str(raster)), dataset_id, PlanSettings(grid=Grid(size=64), model=model, **choices)
    )


def one_shard(plan: Plan) -> list[Shard]:
    path = plan.layout.shard(plan.fingerprint, 0)
    return [Shard(number=0, path=path, rows=1, skipped=0, bytes=1, sha256="0" * 64)]


def item_of(plan: Plan) -> tuple[dict[str, Any], pystac.Item]:
    """The item as JSON and as pystac reads it, checked."""
    item = strict(json.dumps(stac_item(plan, one_shard(plan))))
    check_item(item)
    return item, pystac.Item.from_dict(item)


def test_hrefs_lead_from_the_item_to_files_that_are_there(store: ObjectStore, scene: Manifest, rasters: Path) -> None:
    item = pystac.Item.from_file(store.uri(scene.stac_item))
    check_item(strict(Path(store.uri(scene.stac_item)).read_bytes()))
    hrefs = {name: asset.get_absolute_href() for name, asset in item.assets.items()}
    assert all(Path(str(href)).exists() for href in hrefs.values())
    found = {name: Path(str(href)).resolve() for name, href in hrefs.items()}
    shards = [Path(store.uri(shard.path)).resolve() for shard in scene.shards]
    assert len(shards) == 4
    assert found == {
        "embeddings": shards[0].parent,
        **{f"embeddings-{number:05d}": path for number, path in enumerate(shards)},
        "index": Path(store.uri(scene.index)).resolve(),
        "manifest": Path(store.uri("datasets/scene/manifest.json")).resolve(),
        "source": (rasters / "RGB.byte.tif").resolve(),
    }
    assert all(not asset.href.startswith("/") for name, asset in item.assets.items() if name != "source")
    assert {asset.media_type for name, asset in item.assets.items() if name.startswith("emb")} == {
        "application/vnd.apache.parquet"
    }
    links = [link.get_absolute_href() for link in item.links if link.rel == "emb:source-data"]
    assert links == [str(rasters / "RGB.byte.tif")]


@pytest.mark.parametrize(
    "name",
    [
        "a b#1.tif",
        "what?x=1&y=2.tif",
        "50%25 #?.tif",
        "100%.tif",
        "Mäntsälä [2].tif",
        "a;b,c=d+e@f!.tif",
        "back\\slash.tif",
    ],
)
def test_hrefs_of_odd_file_names(store: ObjectStore, model: Dinov3, tmp_path: Path, name: str) -> None:
    (tmp_path / "100% #?").mkdir()
    raster = blank_raster(tmp_path / "100% #?" / name, 4, 4)
    plan = plan_of(store, raster, model)
    item, read = item_of(plan)
    read.save_object(dest_href=str(tmp_path / "item.json"))
    read = pystac.Item.from_file(tmp_path / "item.json")
    link = next(link for link in item["links"] if link["rel"] == "emb:source-data")
    for href in (item["assets"]["source"]["href"], link["href"], read.assets["source"].get_absolute_href()):
        parts = urlsplit(href)
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
        assert unquote(parts.path) == str(raster)
        with rasterio.open(unquote(parts.path)) as file:
            assert file.width == 64


def test_hrefs_of_odd_keys(store: ObjectStore, model: Dinov3, rasters: Path) -> None:
    plan = plan_of(store, rasters / "RGB.byte.tif", model)
    for key in ("a b#1.tif", "what?x=1.tif", "a%2Fb/100%.tif", "plain/key-1_2.tif"):
        there = plan.model_copy(update={"source": plan.source.model_copy(update={"uri": f"s3://bucket/{key}"})})
        item, _ = item_of(there)
        parts = urlsplit(item["assets"]["source"]["href"])
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("s3", "bucket", "", "")
        assert unquote(parts.path) == f"/{key}"
    assert item["assets"]["source"]["href"] == "s3://bucket/plain/key-1_2.tif"


def test_one_shard_is_the_embeddings_itself(store: ObjectStore, model: Dinov3, rasters: Path) -> None:
    manifest = embed(store, str(rasters / "all-nodata.tif"), dataset_id="one", grid=Grid(size=64), model=model)
    item = pystac.Item.from_file(store.uri(manifest.stac_item))
    check_item(strict(Path(store.uri(manifest.stac_item)).read_bytes()))
    assert [name for name in item.assets if name.startswith("embeddings")] == ["embeddings"]
    embeddings = Path(str(item.assets["embeddings"].get_absolute_href()))
    assert embeddings.resolve() == Path(store.uri(manifest.shards[0].path)).resolve()
    assert embeddings.is_file()


@pytest.mark.parametrize(
    "name", ["RGB.byte.tif", "RGBA.uint16.tif", "cogeo.tif", "world.rgb.tif", "cog_world.tif", "cog_dateline.tif"]
)
def test_projection_and_bands_are_the_rasters(store: ObjectStore, model: Dinov3, rasters: Path, name: str) -> None:
    plan = plan_of(store, rasters / name, model)
    _, item = item_of(plan)
    projection = ProjectionExtension.ext(item)
    with rasterio.open(rasters / name) as raster:
        assert projection.code == f"EPSG:{raster.crs.to_epsg()}"
        assert projection.shape == [raster.height, raster.width]
        assert projection.transform == list(raster.transform)[:6]
        bands = RasterExtension.ext(item.assets["source"]).bands
        assert bands is not None
        assert [str(band.data_type) for band in bands] == list(raster.dtypes)
        assert [band.nodata for band in bands] == list(raster.nodatavals)


def test_geometry_is_the_whole_rasters(store: ObjectStore, model: Dinov3, rasters: Path) -> None:
    plan = plan_of(store, rasters / "RGB.byte.tif", model)
    item, _ = item_of(plan)
    outline = shapely.geometry.shape(item["geometry"])
    sharding = plan.sharding
    tiles = [Footprinter(plan.profile)(sharding.tiles(number)).geometry for number in range(sharding.count)]
    together = shapely.union_all(np.concatenate(tiles))
    assert outline.symmetric_difference(together).area < 1e-4 * together.area
    assert item["bbox"] == list(outline.bounds)
    with rasterio.open(rasters / "RGB.byte.tif") as raster:
        bounds = rasterio.warp.transform_bounds(raster.crs, "OGC:CRS84", *raster.bounds, densify_pts=100)
    assert item["bbox"] == pytest.approx(bounds, abs=1e-4)


def test_a_bbox_across_the_antimeridian_runs_from_west_to_east(
    store: ObjectStore, model: Dinov3, rasters: Path
) -> None:
    item, _ = item_of(plan_of(store, rasters / "cog_dateline.tif", model))
    assert item["geometry"]["type"] == "MultiPolygon"
    west, south, east, north = item["bbox"]
    assert 177 < west < 180
    assert -180 < east < -178
    with rasterio.open(rasters / "cog_dateline.tif") as raster:
        lon, lat = rasterio.warp.transform(
            raster.crs,
            "OGC:CRS84",
            *zip(*(raster.transform @ c for c in [(0, 0), (0, 2355), (2325, 0), (2325, 2355)]), strict=True),
        )
    assert west == pytest.approx(min(lon[:2]), abs=1e-3)
    assert east == pytest.approx(max(lon[2:]), abs=1e-3)
    assert (south, north) == pytest.approx((min(lat), max(lat)), abs=0.05)


def test_the_whole_world_is_one_polygon(store: ObjectStore, model: Dinov3, rasters: Path) -> None:
    item, _ = item_of(plan_of(store, rasters / "world.rgb.tif", model))
    assert item["geometry"]["type"] == "Polygon"
    assert item["bbox"] == [-180.0, -90.0, 180.0, 90.0]


def test_ground_control_points_have_no_transform(store: ObjectStore, model: Dinov3, rasters: Path) -> None:
    item, read = item_of(plan_of(store, rasters / "cog_gcps.tif", model))
    projection = ProjectionExtension.ext(read)
    assert (projection.code, projection.shape, projection.transform) == ("EPSG:4326", [837, 1280], None)
    with rasterio.open(rasters / "cog_gcps.tif") as raster:
        points: list[GroundControlPoint] = raster.gcps[0]
    outline = shapely.geometry.shape(item["geometry"]).buffer(0.01)
    assert all(outline.contains(shapely.Point(point.x, point.y)) for point in points)


@pytest.mark.parametrize(
    "crs",
    ["+proj=laea +lat_0=60.6 +lon_0=24.5 +datum=WGS84", "+proj=utm +zone=35 +ellps=GRS80"],
    ids=["one's own", "without a datum"],
)
def test_a_crs_without_a_code_is_written_out(store: ObjectStore, model: Dinov3, tmp_path: Path, crs: str) -> None:
    raster = blank_raster(tmp_path / "own.tif", 8, 8, crs=crs)
    _, item = item_of(plan_of(store, raster, model))
    projection = ProjectionExtension.ext(item)
    assert projection.code is None
    with rasterio.open(raster) as dataset:
        assert rasterio.crs.CRS.from_wkt(str(projection.wkt2)) == dataset.crs


def test_a_raster_without_a_place_has_no_geometry(store: ObjectStore, model: Dinov3, tmp_path: Path) -> None:
    raster = blank_raster(tmp_path / "nowhere.tif", 8, 8, crs=None)
    item, read = item_of(plan_of(store, raster, model, selection=Selection(allow_no_crs=True)))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert ProjectionExtension.ext(read).shape == [128, 128]
    assert ProjectionExtension.ext(read).code is None


def test_datetime_is_that_of_the_scene_or_of_the_file(store: ObjectStore, model: Dinov3, tmp_path: Path) -> None:
    dated = blank_raster(tmp_path / "dated.tif", 8, 8, when="2024:05:06 07:08:09")
    item, _ = item_of(plan_of(store, dated, model))
    assert item["properties"]["datetime"] == "2024-05-06T07:08:09Z"
    assert item["properties"]["rasterembed:datetime_from"] == "acquired"
    undated = blank_raster(tmp_path / "undated.tif", 8, 8)
    item, read = item_of(plan_of(store, undated, model))
    assert read.datetime is not None
    assert read.datetime.timestamp() == pytest.approx(undated.stat().st_mtime, abs=1e-3)
    assert item["properties"]["rasterembed:datetime_from"] == "modified"


@pytest.mark.parametrize(("nodata", "written"), [(np.nan, "nan"), (-9999.0, -9999.0)])
def test_nodata_that_json_has_no_number_for(
    store: ObjectStore, model: Dinov3, tmp_path: Path, nodata: float, written: str | float
) -> None:
    path = tmp_path / "float.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=64, height=64, count=1, dtype="float32", nodata=nodata,
        crs="EPSG:32633", transform=Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as raster:  # fmt: skip
        raster.write(np.arange(4096, dtype=np.float32).reshape(1, 64, 64))
    item, _ = item_of(plan_of(store, path, model))
    assert item["assets"]["source"]["raster:bands"] == [{"data_type": "float32", "nodata": written}]


def test_size_and_digest_of_each_shard_are_in_the_item(store: ObjectStore, scene: Manifest) -> None:
    item = strict(Path(store.uri(scene.stac_item)).read_bytes())
    for shard in scene.shards:
        asset, data = item["assets"][f"embeddings-{shard.number:05d}"], Path(store.uri(shard.path)).read_bytes()
        assert asset["file:size"] == len(data)
        # A multihash of SHA-256 is its code, the length 32, and the digest.
        assert bytes.fromhex(asset["file:checksum"]) == b"\x12\x20" + hashlib.sha256(data).digest()


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "core": lambda item: item.pop("id"),
    "file": lambda item: item["assets"]["embeddings"].update({"file:checksum": "no digest"}),
    "projection": lambda item: item["properties"].update({"proj:shape": [1, 2, 3]}),
    "raster": lambda item: item["assets"]["source"].update({"raster:bands": [{"data_type": "text"}]}),
    "embeddings": lambda item: item["assets"].pop("embeddings"),
    "processing": lambda item: item["properties"].update({"emb:preprocessing": {"expression": 1}}),
    "unknown": lambda item: item["stac_extensions"].append("https://example.com/schema.json"),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_the_schemas_find_a_wrong_field(
    spoil: Callable[[dict[str, Any]], Any], store: ObjectStore, model: Dinov3, rasters: Path
) -> None:
    """The tests in this file would notice a wrong Item."""
    item, _ = item_of(plan_of(store, rasters / "RGB.byte.tif", model))
    spoil(item)
    with pytest.raises((AssertionError, NoSuchResource)):
        check(item)


def test_how_the_vectors_were_made(store: ObjectStore, scene: Manifest, model: Dinov3, rasters: Path) -> None:
    properties = strict(Path(store.uri(scene.stac_item)).read_bytes())["properties"]
    parameters = properties["emb:runtime_parameters"]
    assert parameters["fingerprint"] == scene.fingerprint
    assert parameters["grid"] == {"size": 16, "stride": 16, "edge": "pad"}
    assert (parameters["model_id"], parameters["pooling"], parameters["dimensions"]) == (model.model, "cls", 8)
    assert properties["emb:quantization"] == {
        "method": "cast", "original_dtype": "float32", "quantized_dtype": "float16",
    }  # fmt: skip
    plan = plan_of(
        store, rasters / "mosaic_cog1.tif", model, radiometry=Radiometry(range=(100.5, 4000), bands=(3, 2, 1))
    )
    item, _ = item_of(plan)
    assert "emb:quantization" not in item["properties"]
    text = item["properties"]["emb:preprocessing"]["expression"]
    assert text == (
        "([clip((b3 - 100.5) / (4000.0 - 100.5), 0, 1), clip((b2 - 100.5) / (4000.0 - 100.5), 0, 1), "
        "clip((b1 - 100.5) / (4000.0 - 100.5), 0, 1)] - [0.5, 0.5, 0.5]) / [0.5, 0.5, 0.5]"
    )
