"""Declarations of valid pixels: they agree with the masks of GDAL for a virtual raster with the same declaration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.windows import Window

from rasterembed.commands import embed
from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.dataset.receipts import receipt_of
from rasterembed.errors import DataError, ObjectMissingError, RasterChangedError, StoreError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.raster.radiometry import Radiometry, resolve_radiometry
from rasterembed.raster.shard_reader import ShardReader, block_cache_bytes
from rasterembed.raster.source import register
from rasterembed.raster.validity import Validity, apply_validity
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write
from tests.support.servers import S3Server
from tests.support.vectors import checkpoint


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def declared(store: ObjectStore, path: Path, **declarations: Any) -> RasterProfile:
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    return apply_validity(store, str(path), profile, Validity(**declarations))


def validity(
    store: ObjectStore, path: Path, bands: tuple[int, ...], **declarations: Any
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the validity of pixels, and of each band."""
    profile = declared(store, path, **declarations)
    window = Window(0, 0, profile.width, profile.height)
    with open_pixels(store, str(path), profile) as raster:
        return raster.read(bands, window)[1], raster.read_by_band(bands, window)[1]


def masks_of_gdal(path: Path, nodata: float | str, bands: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return GDAL's mask of each band, for a virtual raster that shows the pixels of `path` with a nodata value."""
    virtual = path.with_suffix(".vrt")
    with rasterio.Env(GDAL_PAM_ENABLED="NO"):
        rasterio.shutil.copy(path, virtual, driver="VRT")
    text = re.sub("<NoDataValue>.*?</NoDataValue>|<MDI key=.NODATA_VALUES.>.*?</MDI>", "", virtual.read_text())
    text = re.sub("<VRTRasterBand [^>]*>", lambda band: f"{band[0]}<NoDataValue>{nodata}</NoDataValue>", text)
    virtual.write_text(text)
    with rasterio.open(virtual) as dataset:
        masks: NDArray[np.bool_] = dataset.read_masks(list(bands)) > 0
        return masks


INTEGERS = np.array([[0, 1, 7, 200, 255, 7]])
FLOATS = np.array([[-9999, np.nextafter(np.float32(-9999), np.float32(0)), -9998, 0.1, 0, 3.4e38]])


@pytest.mark.parametrize(
    ("pixels", "nodata"),
    [
        (INTEGERS.astype(np.uint8), 7),
        (INTEGERS.astype(np.uint8), "nan"),
        (INTEGERS.astype(np.uint16), 255),
        (-INTEGERS.astype(np.int16), -7),
        (INTEGERS + 2**53, 2**53 + 1),
        (INTEGERS.astype(np.uint64) + np.uint64(2**64 - 256), 2**64 - 1),
        (FLOATS.astype(np.float32), -9999),
        (FLOATS.astype(np.float32), 0.1),
        (FLOATS.astype(np.float32), 3.4e38),
        (FLOATS.astype(np.float32), 0),
        (FLOATS, -9999),
        (FLOATS, "nan"),
    ],
)
@pytest.mark.parametrize("in_file", [None, 0])
def test_a_declared_nodata_value(
    store: ObjectStore, tmp_path: Path, pixels: NDArray[Any], nodata: float | str, in_file: float | None
) -> None:
    """It replaces the value in the file."""
    three = np.stack([pixels, pixels[:, ::-1], pixels])
    path = write(tmp_path / "r.tif", three, nodata=in_file)
    for bands in ((1, 2, 3), (2,)):
        masks = masks_of_gdal(path, nodata, bands)
        valid, by_band = validity(store, path, bands, nodata=str(nodata))
        np.testing.assert_array_equal(valid, masks.any(axis=0))
        np.testing.assert_array_equal(by_band, masks)


def test_not_a_number_stays_invalid_beside_a_declared_nodata_value(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", np.array([[[np.nan, 1, 2, np.inf]]], np.float32), nodata=2)
    assert validity(store, path, (1,), nodata=1)[0].tolist() == [[False, False, True, False]]
    assert validity(store, path, (1,), nodata="nan")[0].tolist() == [[False, True, True, False]]


def test_a_declared_nodata_value_replaces_transparent_colours(store: ObjectStore, tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "r.png", "w", driver="PNG", width=3, height=1, count=3, dtype="uint8", nodata=5
    ) as dataset:
        dataset.write(np.array([[[5, 6, 7]]] * 3, np.uint8))
    with rasterio.open(tmp_path / "r.png") as dataset:
        assert dataset.dataset_mask().tolist() == [[0, 255, 255]]
    assert validity(store, tmp_path / "r.png", (1, 2, 3))[0].tolist() == [[False, True, True]]
    assert validity(store, tmp_path / "r.png", (1, 2, 3), nodata=7)[0].tolist() == [[True, True, False]]


def test_a_declared_nodata_value_does_not_enter_the_stretch(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(1000, 3000, (1, 40, 50)).astype(np.uint16)
    pixels[0, :20] = 65535
    path = write(tmp_path / "r.tif", pixels)
    found = resolve_radiometry(store, str(path), declared(store, path, nodata=65535), Radiometry())
    assert (found.low[0], found.high[0]) == tuple(np.percentile(pixels[pixels < 65535], (2, 98)))


def test_infrared_that_the_file_calls_alpha_hides_no_water(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(1, 255, (4, 40, 50)).astype(np.uint8)
    pixels[3, :, :30] = 0  # Water is black in infrared.
    pixels[:, 5, 5] = 255
    path = write(tmp_path / "r.tif", pixels, nodata=255, photometric="rgb", alpha="yes")
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
        # GDAL's mask of nodata, with the interpretation of the band corrected.
        rasterio.shutil.copy(dataset, tmp_path / "corrected.tif")
    with rasterio.open(tmp_path / "corrected.tif", "r+") as dataset:
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
    assert validity(store, path, (1, 2, 3))[0][:, :30].sum() == 0
    for bands in ((1, 2, 3), (4, 1, 2), (4,)):
        with rasterio.open(tmp_path / "corrected.tif") as dataset:
            masks = dataset.read_masks(list(bands)) > 0
        valid, by_band = validity(store, path, bands, ignore_alpha=True)
        np.testing.assert_array_equal(valid, masks.any(axis=0))
        np.testing.assert_array_equal(by_band, masks)
    profile = declared(store, path, ignore_alpha=True)
    assert resolve_radiometry(store, str(path), profile, Radiometry(bands="4,1,2")).bands == (4, 1, 2)
    assert resolve_radiometry(store, str(path), profile, Radiometry()).bands == (1, 2, 3)


HEIGHT, WIDTH = 70, 100
STRIPED: dict[str, Any] = {"blockysize": 3}
TILED: dict[str, Any] = {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate"}


def scene(path: Path, **options: Any) -> Path:
    """Write a raster with noise. Some of its pixels are nodata."""
    pixels = np.random.default_rng(3).integers(0, 3, (3, HEIGHT, WIDTH)).astype(np.uint16)
    return write(path, pixels, **({"nodata": 0} | options))


def patches(dtype: str, seed: int = 5) -> NDArray[Any]:
    """Return a mask with values other than 0 and 255, shape (1, HEIGHT, WIDTH)."""
    values = np.random.default_rng(seed).integers(0, 3, (1, HEIGHT, WIDTH)).astype(dtype) * 100
    values[:, 20:50, 20:50] = 0
    return values


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize(("of_raster", "of_mask"), [(STRIPED, TILED), (TILED, STRIPED), (STRIPED, STRIPED)])
def test_a_mask_is_combined_with_the_file_s_own_validity(
    store: ObjectStore, tmp_path: Path, dtype: str, of_raster: dict[str, Any], of_mask: dict[str, Any]
) -> None:
    path = scene(tmp_path / "r.tif", **of_raster)
    mask = write(tmp_path / "m.tif", patches(dtype), **of_mask)
    with rasterio.open(path) as dataset:
        masks = dataset.read_masks() > 0
    valid, by_band = validity(store, path, (1, 2, 3), mask=str(mask))
    np.testing.assert_array_equal(valid, masks.any(axis=0) & (patches(dtype)[0] != 0))
    np.testing.assert_array_equal(by_band, masks & (patches(dtype) != 0))


def plan_with(store: ObjectStore, raster: str, folder: Path, **declarations: Any) -> Plan:
    settings = PlanSettings(
        grid=Grid(size=32),
        radiometry=Radiometry(range=(0, 3)),
        validity=Validity(**declarations),
        model=Dinov3(model=str(checkpoint(folder / "model", 8))),
    )
    return make_plan(store, register(store, raster), "dataset", settings)


def fractions(store: ObjectStore, plan: Plan) -> dict[str, float]:
    """Read all tiles, and return the valid fraction of each tile that is not skipped."""
    reader = ShardReader(
        store=store,
        source=plan.source,
        profile=plan.profile,
        sharding=plan.sharding,
        bands=plan.radiometry.distinct_bands,
        palette=None,
        batch_size=4,
        min_valid_fraction=0.0,
        on_bad_window="fail",
        cache_bytes=block_cache_bytes(plan.source, plan.profile, plan.sharding, 1),
    )
    names = reader.sharding.tiles(0).ids()
    return {
        str(names[position]): float(fraction)
        for batch in reader.batches(0)
        for position, fraction in zip(batch.positions, batch.valid_fraction, strict=True)
    }


@pytest.mark.parametrize(
    ("raster_at", "mask_at"), [("folder", "folder"), ("s3", "folder"), ("folder", "s3"), ("s3", "s3")]
)
def test_tiles_of_a_raster_with_a_mask(
    tmp_path: Path, moto: S3Server, bucket: str, raster_at: str, mask_at: str
) -> None:
    keys = {"access_key": moto.access_key, "secret_key": moto.secret_key}
    store = ObjectStore.model_validate({"root": str(tmp_path / "s"), "endpoint_url": moto.endpoint_url} | keys)
    moto.create_bucket(bucket)
    places = []
    files = ((scene(tmp_path / "r.tif"), raster_at), (write(tmp_path / "m.tif", patches("uint8")), mask_at))
    for file, place in files:
        moto.client().upload_file(str(file), bucket, file.name)
        places.append(str(file) if place == "folder" else f"s3://{bucket}/{file.name}")
    plan = plan_with(store, places[0], tmp_path, mask=places[1])
    with rasterio.open(files[0][0]) as dataset:
        valid = (dataset.dataset_mask() > 0) & (patches("uint8")[0] != 0)
    expected = {
        f"r{row:06d}_c{col:06d}": valid[32 * row : 32 * row + 32, 32 * col : 32 * col + 32].mean()
        for row in range(3)
        for col in range(4)
    }
    assert fractions(store, plan) == pytest.approx({name: share for name, share in expected.items() if share})


def test_a_mask_belongs_to_the_plan(store: ObjectStore, tmp_path: Path) -> None:
    path = scene(tmp_path / "r.tif")
    mask = write(tmp_path / "m.tif", patches("uint8"))
    plain, plan = plan_with(store, str(path), tmp_path), plan_with(store, str(path), tmp_path, mask=str(mask))
    assert "valid_mask" not in plain.configuration()["source"]
    state = mask.stat()
    assert plan.configuration()["source"]["valid_mask"] == {
        "uri": str(mask), "size": state.st_size, "version": str(state.st_mtime_ns),
    }  # fmt: skip
    assert receipt_of(plan)["validity"] == {"valid_mask": plan.configuration()["source"]["valid_mask"]}
    assert "validity" not in receipt_of(plain)
    plan.write(store)
    assert Plan.read(store, "dataset", plan.fingerprint) == plan
    assert fractions(store, plan)
    write(mask, patches("uint8", seed=6))
    with pytest.raises(RasterChangedError, match=r"m\.tif: the mask was changed"):
        fractions(store, plan)
    assert len({p.fingerprint for p in (plain, plan, plan_with(store, str(path), tmp_path, mask=str(mask)))}) == 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"width": WIDTH - 1}, f"it has {WIDTH - 1}x{HEIGHT} px, and the raster has {WIDTH}x{HEIGHT} px"),
        ({"count": 3}, "it has 3 bands, and a mask has one: .*gdal_translate"),
        ({"crs": "EPSG:32636"}, "its CRS is .* zone 36N', and that of the raster is .* zone 35N': .*rio warp"),
        ({"crs": None}, "its CRS is missing, and that of the raster is .* zone 35N': .*rio edit-info"),
        (
            {"transform": Affine(10, 0, 500_001, 0, -10, 6_700_000)},
            r"its transform is \[10\.0, 0\.0, 500001\.0, .* the raster is \[10\.0, 0\.0, 500000\.0",
        ),
        ({"transform": Affine(10.01, 0, 500_000, 0, -10, 6_700_000)}, r"its transform is \[10\.01"),
    ],
)
def test_a_mask_on_another_grid_is_refused(
    store: ObjectStore, tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    path = scene(tmp_path / "r.tif")
    shape = options.get("count", 1), HEIGHT, options.get("width", WIDTH)
    mask = write(tmp_path / "m.tif", np.ones(shape, np.uint8), **options)
    with pytest.raises(DataError, match=rf"m\.tif: this mask does not fit .*r\.tif: {problem}") as error:
        declared(store, path, mask=str(mask))
    assert "\n" not in str(error.value)


def test_a_mask_is_opened_as_safely_as_a_raster(store: ObjectStore, tmp_path: Path) -> None:
    path = scene(tmp_path / "r.tif")
    mask = write(tmp_path / "m.tif", patches("uint8"))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(mask.read_bytes()[:-100])
    with rasterio.Env(GDAL_PAM_ENABLED="NO"):
        rasterio.shutil.copy(mask, tmp_path / "v.tif", driver="VRT")
    for name, error, text in (
        ("cut.tif", DataError, r"cut\.tif: the file is cut off"),
        ("v.tif", DataError, r"v\.tif: not a raster that can be read here"),
        ("missing.tif", ObjectMissingError, r"missing\.tif: there is no such file"),
    ):
        with pytest.raises(error, match=text):
            declared(store, path, mask=str(tmp_path / name))
    with pytest.raises(UsageError, match=r"mask 'http://example.org/m\.tif' is neither a file nor s3"):
        declared(store, path, mask="http://example.org/m.tif")
    with pytest.raises(StoreError, match=r"https://example.org/m\.tif: the host example.org is not one of those"):
        declared(store, path, mask="https://example.org/m.tif")


def test_the_pixels_of_a_mask_without_overviews_are_counted(store: ObjectStore, tmp_path: Path) -> None:
    path = scene(tmp_path / "r.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    mask = write(tmp_path / "m.tif", patches("uint8"))
    assert inspect_raster(store, str(path)).decoded_pixels(17, 25) == HEIGHT * WIDTH / 16
    assert declared(store, path, mask=str(mask)).decoded_pixels(17, 25) == HEIGHT * WIDTH


@pytest.mark.parametrize(
    ("dtype", "nodata", "advice"),
    [
        ("uint16", -9999, "-9999: give a whole number from 0 to 65535"),
        ("uint8", 0.5, "0.5: give a whole number from 0 to 255"),
        ("float32", 1e39, "1e\\+39: the largest number is 3.4028235e\\+38"),
        ("float32", 1e-46, "1e-46, because it would become 0: the smallest number is 1e-45"),
        ("float32", -1e-50, "-1e-50, because it would become 0"),
    ],
)
def test_a_nodata_value_that_no_pixel_can_have_is_refused(
    store: ObjectStore, tmp_path: Path, dtype: str, nodata: float, advice: str
) -> None:
    path = write(tmp_path / "r.tif", np.ones((1, 4, 5), dtype))
    with pytest.raises(UsageError, match=rf"r\.tif: no pixel of type {dtype} can have the nodata value {advice}"):
        declared(store, path, nodata=nodata)


def test_nodata_values_that_people_type() -> None:
    typed = {
        "-9999": -9999,
        "1e3": 1000,
        "9007199254740993": 2**53 + 1,
        "0.5": 0.5,
        " NaN": "nan",
        "-0.0": 0,
        "0e-400": 0,
        "1_0.5": 10.5,
    }
    for text, value in typed.items():
        found = Validity(nodata=text).nodata
        assert (found, type(found)) == (value, type(value))
    assert Validity(nodata=-9999.0) == Validity(nodata=-9999)
    assert Validity(nodata=float("nan")) == Validity(nodata="nan")
    for text in ("none", "1,2", "", "inf", "1" * 400, "1e-400", "-1e-400", True):
        with pytest.raises(UsageError):
            Validity(nodata=text)


def test_options_of_the_command() -> None:
    words = ["r.tif", "--nodata", "-9999", "--mask", "s3://bucket/m.tif", "--ignore-alpha"]
    _, bound, _ = embed.app.parse_args(words, print_error=False, exit_on_error=False)
    assert bound.arguments["validity"] == Validity(nodata=-9999, mask="s3://bucket/m.tif", ignore_alpha=True)


def test_the_pixels_of_a_mask_file_without_overviews_are_counted(store: ObjectStore, tmp_path: Path) -> None:
    path = scene(tmp_path / "r.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    mask = write(tmp_path / "r.tif.msk", patches("uint8"))
    assert inspect_raster(store, str(path)).decoded_pixels(17, 25) == HEIGHT * WIDTH
    with rasterio.open(mask, "r+") as dataset:
        dataset.build_overviews([2])
    profile = inspect_raster(store, str(path))
    assert profile.mask_overviews == (2,)
    assert profile.decoded_pixels(17, 25) == HEIGHT * WIDTH / 4
