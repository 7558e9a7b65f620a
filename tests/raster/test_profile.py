"""The profile of a raster, the rasters that are refused, and the only files that are opened: raster and mask."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.windows import Window

from rasterembed.errors import DataError, StoreError, StoreUnavailableError
from rasterembed.raster.drivers import open_raster
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.place_on_earth import why_not_on_earth
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import PLACE
from tests.support.servers import S3Server


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def make(path: Path, value: int = 1, *, side: int = 64, count: int = 1, dtype: str = "uint8", **options: Any) -> Path:
    """Write a raster of one value."""
    size = {"width": side, "height": side} | options
    with rasterio.open(path, "w", **(PLACE | {"driver": "GTiff", "dtype": dtype, "count": count} | size)) as dataset:
        for band in range(1, count + 1):
            dataset.write(np.full((size["height"], size["width"]), value, dtype), band)
    return path


def empty(path: Path, width: int, height: int, **options: Any) -> Path:
    """Write a sparse GeoTIFF without a single block."""
    with rasterio.open(
        path, "w", width=width, height=height,
        **({"driver": "GTiff", "dtype": "uint8", "count": 1, "sparse_ok": True, "bigtiff": "YES"} | PLACE | options),
    ):  # fmt: skip
        pass
    return path


def vrt(path: Path, source: Path) -> Path:
    """Write a virtual raster that shows another file, under any name."""
    made = path.with_name("made.vrt")
    rasterio.shutil.copy(source, made, driver="VRT")
    text = made.read_text().replace('relativeToVRT="1"', 'relativeToVRT="0"')
    path.write_text(text.replace(f">{source.name}<", f">{source}<"))
    with rasterio.open(path, driver="VRT") as dataset:  # GDAL itself would follow it
        assert dataset.read(1).max() == 1
    return path


def test_a_header(rasters: Path, store: ObjectStore) -> None:
    profile = inspect_raster(store, str(rasters / "RGB.byte.tif"))
    with rasterio.open(rasters / "RGB.byte.tif") as dataset:
        crs, transform = dataset.crs, dataset.transform
    assert profile.model_dump(exclude={"crs_wkt"}) == {
        "driver": "GTiff",
        "width": 791,
        "height": 718,
        "count": 3,
        "dtype": "uint8",
        "colorinterp": ("red", "green", "blue"),
        "descriptions": (None, None, None),
        "transform": tuple(transform)[:6],
        "gcps": (),
        "nodata": (0.0, 0.0, 0.0),
        "nodata_nan": False,
        "masked": False,
        "mask_file": None,
        "block_height": 3,
        "block_width": 791,
        "interleave": "PIXEL".lower(),
        "compression": None,
        "bits": None,
        "overviews": (),
        "palette": None,
        "transparent": (),
        "acquired": None,
        "on_earth": True,
        "declared_nodata": None,
        "alpha_ignored": False,
        "valid_mask": None,
    }
    assert rasterio.crs.CRS.from_wkt(profile.crs_wkt) == crs
    assert profile.striped
    assert RasterProfile.model_validate_json(profile.model_dump_json()) == profile


def test_the_header_of_a_cog(rasters: Path, store: ObjectStore) -> None:
    profile = inspect_raster(store, str(rasters / "cogeo.tif"))
    assert (profile.block_height, profile.block_width, profile.striped) == (512, 512, False)
    assert (profile.masked, profile.mask_file, profile.overviews) == (True, None, (2, 4, 8, 16, 32, 64))


def test_ground_control_points(rasters: Path, store: ObjectStore) -> None:
    profile = inspect_raster(store, str(rasters / "cog_gcps.tif"))
    with rasterio.open(rasters / "cog_gcps.tif") as dataset:
        points, crs = dataset.gcps
    assert len(profile.gcps) == len(points) == 210
    last, found = points[-1], profile.gcps[-1]
    assert (found.row, found.col, found.x, found.y, found.z) == (last.row, last.col, last.x, last.y, last.z)
    assert rasterio.crs.CRS.from_wkt(profile.crs_wkt) == crs


def test_an_affine_goes_before_ground_control_points(store: ObjectStore, tmp_path: Path) -> None:
    path = make(tmp_path / "r.tif")
    points = [GroundControlPoint(0, 0, 1, 1), GroundControlPoint(9, 0, 1, 2), GroundControlPoint(0, 9, 2, 1)]
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, rasterio.crs.CRS.from_user_input(PLACE["crs"]))
        dataset.transform = PLACE["transform"]
    assert inspect_raster(store, str(path)).transform == tuple(PLACE["transform"])[:6]


@pytest.mark.parametrize(
    ("tag", "text", "when"),
    [
        ("TIFFTAG_DATETIME", "2021:07:03 09:12:45", datetime(2021, 7, 3, 9, 12, 45, tzinfo=UTC)),
        ("TIFFTAG_DATETIME", "2021-07-03T09:12:45Z", datetime(2021, 7, 3, 9, 12, 45, tzinfo=UTC)),
        ("ACQUISITIONDATETIME", "2021-07-03 09:12:45.25", datetime(2021, 7, 3, 9, 12, 45, 250_000, tzinfo=UTC)),
        ("ACQUISITIONDATETIME", "2021-07-03T11:12:45+02:00", datetime(2021, 7, 3, 9, 12, 45, tzinfo=UTC)),
        ("ACQUISITIONDATETIME", "2021-07-03", datetime(2021, 7, 3, tzinfo=UTC)),
        ("TIFFTAG_DATETIME", "last summer", None),
    ],
)
def test_time_of_acquisition(store: ObjectStore, tmp_path: Path, tag: str, text: str, when: datetime | None) -> None:
    path = make(tmp_path / "r.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{tag: text})
    assert inspect_raster(store, str(path)).acquired == when


@pytest.mark.parametrize("name", ["a b.tif", "a#b.tif", "a?b=c.tif", "a%20b.tif", "ä.tif", "a:b.tif", "no suffix"])
def test_odd_names(store: ObjectStore, tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "r.tif")
    path.rename(tmp_path / name)
    assert inspect_raster(store, str(tmp_path / name)).width == 64


@pytest.mark.parametrize("text", ["description", "tag", "CRS"])
def test_texts_that_are_not_utf_8(store: ObjectStore, tmp_path: Path, text: str) -> None:
    path = make(
        tmp_path / "r.tif", **({"crs": "ESRI:54042", "GEOTIFF_KEYS_FLAVOR": "ESRI_PE"} if text == "CRS" else {})
    )
    with rasterio.open(path, "r+") as dataset:
        if text == "description":
            dataset.set_band_description(1, "caf_")
        if text == "tag":
            dataset.update_tags(place="caf_", TIFFTAG_DATETIME="2021:07:03 09:12:45")
    data = path.read_bytes()
    changed = data.replace(b"caf_", b"caf\xe9").replace(b'"D_WGS_1984"', b'"D_WGS_198\xe9"')
    assert changed != data
    path.write_bytes(changed)
    if text == "CRS":
        with pytest.raises(DataError, match=r"r\.tif: a text of its CRS is not UTF-8: assign the CRS anew"):
            inspect_raster(store, str(path))
    else:
        assert inspect_raster(store, str(path)).descriptions == (None,)


def test_damaged_headers_end_in_one_line(store: ObjectStore, tmp_path: Path) -> None:
    """Change single bytes of a small COG's header. Whatever the libraries raise, people see one line."""
    path = tmp_path / "r.tif"
    source = make(tmp_path / "source.tif", side=600, count=3)
    with rasterio.open(source, "r+") as dataset:
        dataset.write_mask(True)
    rasterio.shutil.copy(source, path, driver="COG", blocksize=128, compress="deflate")
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    errors = []
    for _ in range(300):
        data = bytearray(whole)
        for position in random.integers(0, 1500, 3):
            data[position] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            inspect_raster(store, str(path))
        except DataError as error:
            errors.append(str(error))
    assert 50 < len(errors) < 300
    assert not any("\n" in error for error in errors)


# Places


def test_no_crs(store: ObjectStore, tmp_path: Path) -> None:
    path = make(tmp_path / "r.tif", crs=None)
    with pytest.raises(DataError, match=r"r\.tif: it has no CRS: assign its CRS .* or allow footprints in pixels"):
        inspect_raster(store, str(path))
    assert not inspect_raster(store, str(path), allow_no_crs=True).on_earth


def test_rasterios_warning_does_not_precede_the_error(store: ObjectStore, tmp_path: Path) -> None:
    path = unplaced(tmp_path / "r.tif", crs=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="or allow footprints in pixels"):
            inspect_raster(store, str(path))


def unplaced(path: Path, **options: Any) -> Path:
    """Write a GeoTIFF that has a CRS and no georeferencing."""
    with pytest.warns(NotGeoreferencedWarning):
        return make(path, transform=None, **options)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32635"])
def test_a_crs_without_georeferencing(store: ObjectStore, tmp_path: Path, crs: str) -> None:
    path = unplaced(tmp_path / "r.tif", crs=crs)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as dataset:
        assert (dataset.crs, dataset.transform) == (rasterio.crs.CRS.from_string(crs), Affine.identity())
    with pytest.raises(DataError, match=r"it has a CRS but no georeferencing.*rio edit-info --transform") as caught:
        inspect_raster(store, str(path))
    assert "--crs" not in str(caught.value)
    assert "\n" not in str(caught.value)
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    assert not profile.on_earth
    # These formats have no place to write a transform into.
    for driver in ("PNG", "JPEG", "JP2OpenJPEG"):
        problem = why_not_on_earth(profile.model_copy(update={"driver": driver}), has_rpcs=False)
        assert problem is not None
        assert "-a_srs EPSG:... -a_ullr" in problem
        assert "edit-info" not in problem


def test_rpcs_alone(store: ObjectStore, tmp_path: Path) -> None:
    path = unplaced(tmp_path / "r.tif", crs="EPSG:4326")
    ones = [1.0] + [0.0] * 19
    with rasterio.open(path, "r+") as dataset:
        dataset.rpcs = RPC(
            height_off=0, height_scale=1, lat_off=45, lat_scale=1, long_off=10, long_scale=1, line_off=32,
            line_scale=32, samp_off=32, samp_scale=32, line_num_coeff=ones, line_den_coeff=ones, samp_num_coeff=ones,
            samp_den_coeff=ones,
        )  # fmt: skip
    with pytest.raises(
        DataError, match=r"no georeferencing except RPCs.*gdalwarp -rpc .* or allow footprints in pixels"
    ):
        inspect_raster(store, str(path))
    assert not inspect_raster(store, str(path), allow_no_crs=True).on_earth


def test_a_transform_next_to_the_identity_is_a_place(store: ObjectStore, tmp_path: Path) -> None:
    for i, transform in enumerate([Affine(1, 0, 0, 0, -1, 0), Affine(1, 0, 0.001, 0, 1, 0)]):
        assert inspect_raster(store, str(make(tmp_path / f"{i}.tif", transform=transform))).on_earth


@pytest.mark.parametrize("driver", ["PNG", "JPEG"])
def test_the_advice_for_an_image_without_a_crs_helps(store: ObjectStore, tmp_path: Path, driver: str) -> None:
    path = tmp_path / "r.img"
    rasterio.shutil.copy(make(tmp_path / "source.tif"), path, driver=driver)
    with pytest.raises(DataError, match=r"it has no CRS: assign its CRS and its place, .* -a_ullr") as caught:
        inspect_raster(store, str(path))
    assert "edit-info" not in str(caught.value)


def test_a_jpeg_2000_with_a_transform_and_no_usable_crs(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "r.jp2"
    rasterio.shutil.copy(make(tmp_path / "source.tif", crs=None), path, driver="JP2OpenJPEG")
    with pytest.raises(
        DataError,
        match=r"its CRS 'unnamed' is not tied to Earth: assign its CRS in a GeoTIFF \(gdal_translate -a_srs EPSG",
    ):
        inspect_raster(store, str(path))


ELSEWHERE = {
    "IAU_2015:49900": "is of another body (radius 3396190 m)",
    "IAU_2015:30100": "is of another body (radius 1737400 m)",
    'LOCAL_CS["site",UNIT["metre",1]]': "is not tied to Earth",
}


@pytest.mark.parametrize("crs", ELSEWHERE)
def test_not_on_earth(store: ObjectStore, tmp_path: Path, crs: str) -> None:
    path = make(tmp_path / "r.tif", crs=crs)
    with pytest.raises(DataError, match="allow_no_crs") as caught:
        inspect_raster(store, str(path))
    assert ELSEWHERE[crs] in str(caught.value)
    assert not inspect_raster(store, str(path), allow_no_crs=True).on_earth


# Files that are no rasters, or hold nothing that can be embedded


def test_not_a_raster(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "r.tif"
    path.write_text("once upon a time")
    advice = "give a GeoTIFF, JPEG 2000, PNG or JPEG file$"
    with pytest.raises(DataError, match=rf"r\.tif: not a raster that can be read here: {advice}") as e:
        inspect_raster(store, str(path))
    assert "\n" not in str(e.value)


def test_half_a_raster(store: ObjectStore, tmp_path: Path) -> None:
    path = make(tmp_path / "r.tif")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        DataError, match=r"r\.tif: the file is cut off: it has 100 bytes and needs at least \d+: upload"
    ):
        inspect_raster(store, str(path))


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_pixels(store: ObjectStore, tmp_path: Path, dtype: str) -> None:
    path = empty(tmp_path / "r.tif", 64, 64, dtype=dtype)
    with pytest.raises(DataError, match=r"r\.tif: complex pixels \(complex"):
        inspect_raster(store, str(path))


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tiled": True, "blockxsize": 256, "blockysize": 256},
    "compressed tiles by pixel": {
        "count": 3, "tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "pixel", "compress": "deflate",
    },
    "tiles by band": {"count": 2, "tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "band"},
    "strips": {"compress": "lzw"},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_large_raster_without_data(store: ObjectStore, tmp_path: Path, layout: str) -> None:
    path = empty(tmp_path / "r.tif", 200_000, 200_000, **LAYOUTS[layout])
    with pytest.raises(
        DataError, match=r"r\.tif: the header declares 200000x200000x\d px \(\d+ GiB\) but the file has"
    ):
        inspect_raster(store, str(path))
    with rasterio.open(path, "r+") as dataset:
        last = dataset.count
        dataset.write(np.ones((64, 64), np.uint8), last, window=Window(150_000, 170_000, 64, 64))
    assert inspect_raster(store, str(path)).width == 200_000


def test_a_block_too_large_to_decode(store: ObjectStore, tmp_path: Path) -> None:
    path = empty(tmp_path / "r.tif", 600_000, 1_800, blockysize=1_800, compress="deflate")
    with pytest.raises(
        DataError, match=r"r\.tif: one block is 600000x1800 px \(1\.0 GiB\) and cannot be read in parts"
    ):
        inspect_raster(store, str(path))


def test_several_pages(store: ObjectStore, tmp_path: Path) -> None:
    """GDAL opens the first page without a word about the others."""
    path = make(tmp_path / "r.tif")
    for _ in range(2):
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2])
        make_page(path)
    with rasterio.open(path) as dataset:
        assert len(dataset.subdatasets) == 3
    with pytest.raises(DataError, match=r"it has 3 pages, .* gdal_translate GTIFF_DIR:N:FILE"):
        inspect_raster(store, str(path))


def make_page(path: Path) -> None:
    """Append one page to a TIFF file."""
    rasterio.shutil.copy(make(path.with_name("page.tif")), path, driver="GTiff", APPEND_SUBDATASET="YES")


# Files that lead to other files


@pytest.mark.parametrize("name", ["r.vrt", "r.tif"])
def test_virtual_rasters(store: ObjectStore, tmp_path: Path, name: str) -> None:
    path = vrt(tmp_path / name, make(tmp_path / "secret.tif"))
    with pytest.raises(DataError, match=r"not a raster that can be read here: .*; VRT and other files") as caught:
        inspect_raster(store, str(path))
    assert "secret" not in str(caught.value)


def test_a_web_service_as_a_raster(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "r.tif"
    path.write_text(
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${z}/${x}/${y}</ServerUrl></Service>'
        "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX>"
        "<LowerRightY>0</LowerRightY><SizeX>256</SizeX><SizeY>256</SizeY></DataWindow></GDAL_WMS>"
    )
    with rasterio.open(path) as dataset:
        assert dataset.driver == "WMS"
    with pytest.raises(DataError, match="not a raster that can be read here"):
        inspect_raster(store, str(path))


@pytest.mark.parametrize("form", ["NC", "NC2", "NC4"])
def test_netcdf_is_not_opened(store: ObjectStore, tmp_path: Path, form: str) -> None:
    """netCDF-4 is HDF5, which can name other files; of the classic forms, a damaged header can end the process."""
    path = tmp_path / "r.nc"
    rasterio.shutil.copy(make(tmp_path / "r.tif"), path, driver="netCDF", format=form)
    with rasterio.open(path) as dataset:
        assert dataset.driver == "netCDF"
    advice = "gdal_translate -of COG NETCDF:FILE:VARIABLE"
    with pytest.raises(DataError, match=f"not a raster that can be read here: .* HDF5 .*{advice}"):
        inspect_raster(store, str(path))


SIBLINGS = ["{}.ovr", "{}.OVR", "{}.msk.ovr", "{}.aux", "{}.AUX", "{}.MSK", "r.aux", "r.ovr", "r.msk"]


@pytest.mark.parametrize("name", SIBLINGS)
@pytest.mark.parametrize(
    ("driver", "suffix"), [("GTiff", "tif"), ("PNG", "png"), ("JPEG", "jpg"), ("JP2OpenJPEG", "jp2")]
)
def test_files_beside_the_raster_are_not_opened(
    store: ObjectStore, tmp_path: Path, driver: str, suffix: str, name: str
) -> None:
    """Whatever lies beside the raster, all pixels, overviews and masks come from the raster itself."""
    secret = make(tmp_path / "secret.tif", value=1, side=64)
    path = tmp_path / f"r.{suffix}"
    rasterio.shutil.copy(make(tmp_path / "plain.tif", value=9, side=128), path, driver=driver)
    vrt(path.with_name(name.format(path.name)), secret)
    for beside in tmp_path.glob("*.aux.xml"):
        beside.write_text(
            '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">secret.tif</MDI></Metadata></PAMDataset>'
        )
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    assert (profile.overviews, profile.mask_file, profile.masked) == ((), None, False)
    with open_pixels(store, str(path), profile) as raster:
        for shape in ((128, 128), (64, 64), (32, 32)):
            pixels, valid = raster.read((1,), Window(0, 0, 128, 128), shape=shape)
            assert pixels.min() > 1
            assert valid.all()


@pytest.mark.parametrize("driver", ["GTiff", "JP2OpenJPEG"])
def test_an_overview_elsewhere(store: ObjectStore, tmp_path: Path, driver: str) -> None:
    secret = make(tmp_path / "secret.tif", side=32)
    path = make(tmp_path / "r.bin", value=9, side=128)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(secret))
    with rasterio.open(path) as dataset:  # GDAL itself would follow it
        assert dataset.read(1, out_shape=(32, 32)).max() == 1
    if driver != "GTiff":
        path = path.rename(tmp_path / "plain.tif")
        rasterio.shutil.copy(path, tmp_path / "r.bin", driver=driver, CODEC="JP2", WRITE_METADATA="YES")
        path = tmp_path / "r.bin"
    with pytest.raises(DataError, match=r"r\.bin: its metadata names another file as its overview"):
        inspect_raster(store, str(path))


@pytest.mark.parametrize("suffix", [".ovr", ".msk.ovr"])
def test_overviews_beside_the_raster_are_not_opened(store: ObjectStore, tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / "r.tif", value=9, side=128)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(True)
    vrt(Path(f"{path}{suffix}"), make(tmp_path / "secret.tif", side=64))
    profile = inspect_raster(store, str(path))
    assert profile.mask_file is not None
    assert profile.overviews == ()
    with open_pixels(store, str(path), profile) as raster:
        pixels, valid = raster.read((1,), Window(0, 0, 128, 128), shape=(64, 64))
    assert pixels.min() == 9
    assert valid.all()


def test_a_virtual_mask_file(store: ObjectStore, tmp_path: Path) -> None:
    path = make(tmp_path / "r.tif")
    vrt(tmp_path / "r.tif.msk", make(tmp_path / "secret.tif"))
    with pytest.raises(DataError, match=r"r\.tif\.msk: not a raster that can be read here"):
        inspect_raster(store, str(path))


def test_metadata_beside_the_raster_is_not_read(store: ObjectStore, tmp_path: Path) -> None:
    path = make(tmp_path / "r.tif")
    Path(f"{path}.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>1</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    with rasterio.open(path) as dataset:
        assert dataset.nodata == 1
    assert inspect_raster(store, str(path)).nodata == (None,)


def test_a_mask_file_is_looked_for_with_keys_that_may_not_list(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To such keys S3 answers "access denied" for an object that does not exist."""
    path = make(tmp_path / "r.tif")
    describe = ObjectStore.describe

    def answer_with(error: Exception) -> None:
        def refuse(self: ObjectStore, uri: str) -> Any:
            if uri.endswith(".msk"):
                raise error
            return describe(self, uri)

        monkeypatch.setattr(ObjectStore, "describe", refuse)

    answer_with(StoreError("access denied"))
    assert inspect_raster(store, str(path)).mask_file is None
    answer_with(StoreUnavailableError("no answer"))
    with pytest.raises(StoreUnavailableError):
        inspect_raster(store, str(path))


@pytest.mark.parametrize("key", ["plain.tif", "with space/ä+%20#1.tif"])
def test_on_s3(tmp_path: Path, moto: S3Server, bucket: str, key: str) -> None:
    moto.create_bucket(bucket)
    path = make(tmp_path / "r.tif", side=96)
    moto.client().upload_file(str(path), bucket, key)
    store = ObjectStore.model_validate(
        {
            "root": f"s3://{bucket}/out",
            "endpoint_url": moto.endpoint_url,
            "access_key": moto.access_key,
            "secret_key": moto.secret_key,
        }
    )
    profile = inspect_raster(store, f"s3://{bucket}/{key}")
    assert profile == inspect_raster(ObjectStore(root=str(tmp_path)), str(path))
    make(tmp_path / "m.tif", side=96)
    moto.client().upload_file(str(tmp_path / "m.tif"), bucket, f"{key}.msk")
    masked = inspect_raster(store, f"s3://{bucket}/{key}")
    assert masked == profile.model_copy(update={"mask_file": masked.mask_file})
    assert masked.mask_file is not None
    moto.client().upload_file(str(vrt(tmp_path / "v.vrt", path)), bucket, f"{key}.msk")
    with pytest.raises(DataError, match=r"\.msk: not a raster"):
        inspect_raster(store, f"s3://{bucket}/{key}")


def test_what_is_not_there(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.tif: there is no such file"):
        inspect_raster(store, str(tmp_path / "none.tif"))
    with (
        pytest.raises(StoreError, match=r"none\.tif: there is no such file"),
        open_raster(store, str(tmp_path / "none.tif")),
    ):
        pass
