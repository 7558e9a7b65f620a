"""Embed scenes of several files, and compare them with the same bands stacked in one file."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.windows import Window

from rasterembed.commands.dataset_texts import describe
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest, set_state
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.errors import ConfigurationChangedError, DataError, RasterChangedError, RasterEmbedError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.run import judge_dataset
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.radiometry import Radiometry, resolve_radiometry
from rasterembed.raster.scene import register_scene
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.source import default_dataset_id
from rasterembed.raster.stac_item_file import ItemAsset, ItemFile, asset_uri, parse_item
from rasterembed.raster.validity import Validity, apply_validity
from rasterembed.search.query import Query
from rasterembed.search.thumbnails import thumbnails
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.server_settings import SourceStore
from tests.support.rasters import PLACE, write

WIDTH, HEIGHT = 100, 70
WHOLE = Window(0, 0, WIDTH, HEIGHT)
COLOURS = ("red", "green", "blue")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def bands(count: int = 3, *, dtype: str = "uint16", seed: int = 2) -> NDArray[Any]:
    """Return noise without zeros, and a corner of zeros in every band and one more in each single band."""
    values = np.random.default_rng(seed).integers(1, 4000, (count, HEIGHT, WIDTH)).astype(dtype)
    values[:, :20, :20] = 0
    for band in range(count):
        values[band, 40:45, 10 * band : 10 * band + 10] = 0
    return values


def write_bands(folder: Path, pixels: NDArray[Any], **options: Any) -> dict[str, str]:
    """Write each band to its own file. Return the mapping of channels to files."""
    files = {c: folder / f"{c}.tif" for c in COLOURS}
    return {colour: str(write(file, pixels[i : i + 1], **options)) for i, (colour, file) in enumerate(files.items())}


def write_item(path: Path, assets: dict[str, Any], **properties: Any) -> Path:
    """Write a STAC Item of version 1.0."""
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2B_35VLG_20260601_0_L2A",
        "properties": {"datetime": "2026-06-01T09:50:31.024000Z"} | properties,
        "assets": assets,
    }
    path.write_text(json.dumps(item))
    return path


def sentinel_assets(files: dict[str, str], **raster_band: Any) -> dict[str, Any]:
    """Return assets in the form of Earth Search's Sentinel-2 Items."""
    tiff = "image/tiff; application=geotiff; profile=cloud-optimized"
    assets: dict[str, Any] = {
        colour: {
            "href": os.path.basename(file),
            "type": tiff,
            "roles": ["data", "reflectance"],
            "eo:bands": [{"name": colour, "common_name": colour}],
            "raster:bands": [{"nodata": 0, "data_type": "uint16"} | raster_band],
        }
        for colour, file in files.items()
    }
    return assets | {
        "thumbnail": {"href": "preview.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "granule_metadata": {"href": "metadata.xml", "type": "application/xml", "roles": ["metadata"]},
    }


def read_scene(store: ObjectStore, scene: Any, *, assets: tuple[str, ...] = (), validity: Validity = Validity()) -> Any:
    """Return pixels and validity of all bands, and the pixels and the validity by band."""
    source = register_scene(store, scene, assets)
    profile = apply_validity(store, source.uri, inspect_scene(store, source), validity)
    numbers = tuple(range(1, profile.count + 1))
    with open_pixels(store, source.uri, profile) as raster:
        return profile, *raster.read(numbers, WHOLE), *raster.read_by_band(numbers, WHOLE)


def same(one: Any, other: Any) -> None:
    """Check that two results of `read_scene` have equal pixels and equal validity."""
    for mine, theirs in zip(one[1:], other[1:], strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def vectors(store: ObjectStore, manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of a dataset by tile id."""
    dataset = Dataset(store, manifest)
    names = [name for batch in dataset.batches(["tile_id"]) for name in batch["tile_id"].to_pylist()]
    return dict(zip(names, dataset.vectors(), strict=True))


@pytest.mark.parametrize(
    "options",
    [{"nodata": 0}, {}, {"nodata": 0, "tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "deflate"}],
    ids=["nodata", "no nodata", "tiled"],
)
def test_pixels_and_validity_equal_those_of_the_stacked_bands(
    tmp_path: Path, store: ObjectStore, options: dict[str, Any]
) -> None:
    pixels = bands()
    files, stack = write_bands(tmp_path, pixels, **options), str(write(tmp_path / "stack.tif", pixels, **options))
    scene = read_scene(store, files)
    same(scene, read_scene(store, stack))
    beyond = Window(-8, 50, 40, 40)
    found = []
    for name in (files, stack):
        source = register_scene(store, name)
        with open_pixels(store, source.uri, inspect_scene(store, source)) as raster:
            found.append(raster.read((1, 2, 3), beyond))
    same((None, *found[0]), (None, *found[1]))
    np.testing.assert_array_equal(scene[1], pixels)
    np.testing.assert_array_equal(scene[2], (pixels != 0).any(axis=0) | ("nodata" not in options))


def test_vectors_equal_those_of_the_stacked_bands(tmp_path: Path, store: ObjectStore, tiny_vit: Path) -> None:
    pixels = bands()
    files = write_bands(tmp_path, pixels, nodata=0)
    item = write_item(tmp_path / "item.json", sentinel_assets(files), **{"eo:cloud_cover": 12.5})
    stack = write(tmp_path / "stack.tif", pixels, nodata=0)
    options: dict[str, Any] = {
        "grid": Grid(size=32),
        "model": Dinov3(model=str(tiny_vit), device="cpu"),
        "selection": Selection(shard_tiles=4),
        "quality_checks": False,
    }
    scenes: dict[str, Any] = {"stack": str(stack), "mapping": files, "item": item}
    results = {
        name: embed_raster(store, scene, EmbedOptions(dataset_id=name, **options)) for name, scene in scenes.items()
    }
    expected = vectors(store, results["stack"].manifest)
    assert expected
    for name in ("mapping", "item"):
        found = vectors(store, results[name].manifest)
        assert found.keys() == expected.keys()
        for tile, vector in expected.items():
            np.testing.assert_array_equal(found[tile], vector)
    assert len({result.plan.fingerprint for result in results.values()}) == 3
    # Quality checks and pictures read the scene too.
    judged, pictures = [], []
    for name in results:
        manifest = set_state(store, results[name].manifest, "ready")
        report = judge_dataset(store, manifest, QaThresholds())
        judged.append([(metric.name, metric.value) for metric in report.metrics])
        hits = Dataset(store, manifest).search(Query(tile=min(expected)), k=3).hits
        pictures.append([np.asarray(picture) for picture in thumbnails(Dataset(store, manifest), hits, 32).values()])
    assert judged[0] == judged[1] == judged[2]
    for drawn in pictures[1:]:
        np.testing.assert_array_equal(drawn, pictures[0])
    # Read again what other processes read.
    dataset = Dataset.open(store, "item", states=("ready",))
    assert dataset.plan == results["item"].plan
    written = json.loads(store.read(dataset.layout.stac_item) or b"")
    assert written["properties"]["eo:cloud_cover"] == 12.5
    assert written["properties"]["datetime"].startswith("2026-06-01T09:50:31.024")
    assert [key for key in written["assets"] if key.startswith("source")] == [f"source-{c}" for c in COLOURS]
    shown = [line for line in describe(dataset).splitlines() if line.startswith(("raster:", "file:"))]
    assert [line.split(",")[0] for line in shown] == [f"raster: {item}", *(f"file: {files[c]}" for c in COLOURS)]
    assert "{" not in "".join(shown)
    assert "\nSTAC Item: acquired 2026-06-01T09:50:31.024000Z, cloud_cover 12.5" in describe(dataset)
    assert embed_raster(store, item, EmbedOptions(dataset_id="item", **options)).already_complete
    changed = (tmp_path / "green.tif").stat().st_mtime_ns
    write(tmp_path / "green.tif", pixels[1:2] + 1, nodata=0)
    with pytest.raises(RasterChangedError, match=r"green\.tif"):
        dataset.plan.profile.check_unchanged(store, dataset.plan.source)
    write(tmp_path / "green.tif", pixels[1:2], nodata=0)
    os.utime(tmp_path / "green.tif", ns=(changed, changed))
    write_item(tmp_path / "item.json", sentinel_assets(files), **{"eo:cloud_cover": 7})
    with pytest.raises(ConfigurationChangedError, match="dataset 'item' was made before its raster was changed"):
        embed_raster(store, item, EmbedOptions(dataset_id="item", **options))


def test_masks_of_files_hide_a_pixel_if_every_file_hides_it(tmp_path: Path, store: ObjectStore) -> None:
    pixels = bands()
    files = write_bands(tmp_path, pixels)
    hidden = np.zeros((3, HEIGHT, WIDTH), dtype=bool)
    for i, file in enumerate(files.values()):
        hidden[i, 10 : 30 + i, 5:60] = True
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(file, "r+") as dataset:
            dataset.write_mask(~hidden[i])
    _, read, valid, _, each = read_scene(store, files)
    np.testing.assert_array_equal(read, pixels)
    np.testing.assert_array_equal(valid, ~hidden.all(axis=0))
    np.testing.assert_array_equal(each, ~hidden)


def test_an_alpha_band_is_no_band_of_the_scene(tmp_path: Path, store: ObjectStore) -> None:
    pixels = np.concatenate([bands(dtype="uint8"), np.full((1, HEIGHT, WIDTH), 255, "uint8")])
    pixels[3, 50:, :] = 0
    write(tmp_path / "visual.tif", pixels, photometric="RGB", alpha="YES")
    asset = {"href": "./visual.tif", "type": "image/tiff", "roles": ["visual"]}
    item = write_item(tmp_path / "item.json", {"visual": asset})
    profile, read, valid, _, _ = read_scene(store, str(item))
    assert (profile.count, profile.alpha_band, profile.colorinterp) == (3, None, COLOURS)
    np.testing.assert_array_equal(read, pixels[:3])
    np.testing.assert_array_equal(valid, pixels[3] > 0)
    profile, read, valid, _, _ = read_scene(store, str(item), validity=Validity(ignore_alpha=True))
    np.testing.assert_array_equal(read, pixels)
    assert valid.all()


def test_files_of_different_dtypes_keep_their_values(tmp_path: Path, store: ObjectStore) -> None:
    pixels = bands()
    files = write_bands(tmp_path, pixels, nodata=0)
    write(Path(files["green"]), (pixels[1:2] % 200).astype("uint8"), nodata=0)
    profile, read, valid, _, each = read_scene(store, files)
    pixels[1] %= 200
    assert profile.dtype == "uint16"
    np.testing.assert_array_equal(read, pixels)
    np.testing.assert_array_equal(valid, (pixels != 0).any(axis=0))
    np.testing.assert_array_equal(each, pixels != 0)


def test_declared_validity_holds_for_every_file(tmp_path: Path, store: ObjectStore) -> None:
    pixels = bands()
    shown = np.random.default_rng(1).integers(0, 2, (1, HEIGHT, WIDTH)).astype("uint8")
    validity = Validity(nodata=7, mask=str(write(tmp_path / "mask.tif", shown)))
    pixels[:, 60, 30:50] = 7
    scene = read_scene(store, write_bands(tmp_path, pixels, nodata=0), validity=validity)
    same(scene, read_scene(store, str(write(tmp_path / "stack.tif", pixels, nodata=0)), validity=validity))
    np.testing.assert_array_equal(scene[2], (pixels != 7).any(axis=0) & (shown[0] != 0))


def test_nodata_of_the_item_is_used_if_the_file_has_none(tmp_path: Path, store: ObjectStore) -> None:
    pixels = bands()
    item = write_item(tmp_path / "item.json", sentinel_assets(write_bands(tmp_path, pixels)))
    same(read_scene(store, str(item)), read_scene(store, str(write(tmp_path / "stack.tif", pixels, nodata=0))))
    write_bands(tmp_path, pixels, nodata=7)
    assert read_scene(store, str(item))[0].nodata == (7, 7, 7)


@pytest.mark.parametrize(
    ("raster_band", "properties", "black", "white"),
    [
        ({"scale": 0.0001, "offset": -0.1}, {}, 1000, 4558),  # Since baseline 04.00.
        ({"scale": 0.0001, "offset": 0}, {}, 0, 3558),  # Before it.
        ({"scale": 0.0001}, {}, 0, 3558),
        ({"scale": 0.0001, "offset": -0.1}, {"earthsearch:boa_offset_applied": True}, 0, 3558),
        ({"scale": 0.0001, "offset": -0.1}, {"earthsearch:boa_offset_applied": False}, 1000, 4558),
        ({}, {}, 1000, 4558),  # The preset's own values.
    ],
)
def test_a_preset_follows_scale_and_offset_of_the_item(
    tmp_path: Path,
    store: ObjectStore,
    raster_band: dict[str, Any],
    properties: dict[str, Any],
    black: float,
    white: float,
) -> None:
    files = write_bands(tmp_path, bands())
    item = write_item(tmp_path / "item.json", sentinel_assets(files, **raster_band), **properties)
    source = register_scene(store, str(item))
    profile = inspect_scene(store, source)
    radiometry = resolve_radiometry(store, source.uri, profile, Radiometry(scale="sentinel2-l2a"))
    assert (radiometry.bands, radiometry.low, radiometry.high) == ((1, 2, 3), (black,) * 3, (white,) * 3)


def test_scale_and_offset_of_the_file_are_used_before_those_of_the_item(tmp_path: Path, store: ObjectStore) -> None:
    files = write_bands(tmp_path, bands())
    for file in files.values():
        with rasterio.open(file, "r+") as dataset:
            dataset.scales, dataset.offsets = (0.0000275,), (-0.2,)
    item = write_item(tmp_path / "item.json", sentinel_assets(files, scale=0.0001, offset=-0.1))
    source = register_scene(store, str(item))
    radiometry = resolve_radiometry(store, source.uri, inspect_scene(store, source), Radiometry(scale="landsat-c2-l2"))
    np.testing.assert_allclose(radiometry.low, 0.2 / 0.0000275)
    np.testing.assert_allclose(radiometry.high, 0.5 / 0.0000275)


def test_channels_are_found_by_name(tmp_path: Path, store: ObjectStore) -> None:
    pixels = bands(4)
    files = write_bands(tmp_path, pixels)
    mapping = {"nir": str(write(tmp_path / "nir.tif", pixels[3:])), **dict(reversed(files.items()))}
    source = register_scene(store, mapping)
    profile = inspect_scene(store, source)
    assert profile.descriptions == ("nir", "blue", "green", "red")
    assert resolve_radiometry(store, source.uri, profile, Radiometry(range=(0, 1))).bands == (4, 3, 2)
    chosen = resolve_radiometry(store, source.uri, profile, Radiometry(range=(0, 1), bands=(1, 4, 3))).bands
    assert chosen == (1, 4, 3)


def test_a_scene_without_one_of_the_three_colours_is_refused(tmp_path: Path, store: ObjectStore) -> None:
    """It would become grey, from its first channel, without a word."""
    files = write_bands(tmp_path, bands())
    del files["blue"]
    source = register_scene(store, files)
    profile = inspect_scene(store, source)
    with pytest.raises(UsageError, match=r"the scene has no channel blue: add it, or choose channels with `bands`"):
        resolve_radiometry(store, source.uri, profile, Radiometry(range=(0, 1)))
    grey = resolve_radiometry(store, source.uri, profile, Radiometry(range=(0, 1), bands=(2,)))
    assert grey.bands == (2, 2, 2)


def test_two_channels_without_names_of_colours_must_be_chosen(tmp_path: Path, store: ObjectStore) -> None:
    """Only the first channel would be embedded, without a word."""
    files = write_bands(tmp_path, bands())
    source = register_scene(store, {"VV": files["red"], "VH": files["green"]})
    profile = inspect_scene(store, source)
    with pytest.raises(UsageError) as refused:
        resolve_radiometry(store, source.uri, profile, Radiometry(range=(0, 1)))
    assert (
        "the scene has the two channels VV and VH, and an image has one or three: choose with `bands`: 1 or 2 for"
        in (str(refused.value))
    )
    for chosen, expected in (("2", (2, 2, 2)), ("1,2,1", (1, 2, 1))):
        radiometry = Radiometry.model_validate({"range": (0, 1), "bands": chosen})
        assert resolve_radiometry(store, source.uri, profile, radiometry).bands == expected


ONE = {"href": "red.tif", "type": "image/tiff"}


@pytest.mark.parametrize(
    ("assets", "wanted", "names"),
    [
        ({"visual": ONE, "red": ONE | {"eo:bands": [{"common_name": "red"}]}}, (), ["visual"]),
        # Planetary Computer's keys are names of bands.
        ({k: ONE | {"eo:bands": [{"name": k, "common_name": c}]} for k, c in
          (("B02", "blue"), ("B04", "red"), ("B03", "green"))}, (), ["B04", "B03", "B02"]),
        # STAC 1.1.
        ({k: ONE | {"bands": [{"name": k, "eo:common_name": c}]} for k, c in
          (("B02", "blue"), ("B04", "red"), ("B03", "green"))}, ("blue", "B04"), ["B02", "B04"]),
        # NAIP: one file of four bands.
        ({"image": ONE | {"roles": ["data"], "eo:bands": [{"common_name": c} for c in (*COLOURS, "nir")]},
          "thumbnail": ONE | {"roles": ["thumbnail"]}}, (), ["image"]),
        # A drone orthomosaic without names of bands.
        ({"ortho": ONE | {"roles": ["data"]}, "report": {"href": "report.pdf", "type": "application/pdf"}}, (),
         ["ortho"]),
        # The same band as COG and as JPEG 2000: the key decides.
        ({f"{c}{end}": ONE | {"eo:bands": [{"common_name": c}]} for c in COLOURS for end in ("", "-jp2")}, (),
         list(COLOURS)),
    ],
    ids=["visual", "common names", "STAC 1.1", "NAIP", "only data asset", "key decides"],
)  # fmt: skip
def test_the_assets_of_an_item_are_chosen(
    tmp_path: Path, store: ObjectStore, assets: dict[str, Any], wanted: tuple[str, ...], names: list[str]
) -> None:
    write_bands(tmp_path, bands())
    source = register_scene(store, str(write_item(tmp_path / "item.json", assets)), wanted)
    assert source.scene is not None
    assert [asset.name for asset in source.scene.assets] == names


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"crs": "EPSG:32634"}, "its CRS is 'WGS 84 / UTM zone 34N', and that of .*red.tif is 'WGS 84 / UTM zone 35N'"),
        ({"transform": Affine(10, 0, 500_010, 0, -10, 6_700_000)}, r"500010.*and that of .*red.tif is .*500000"),
        ({"width": 50}, r"its bounds are \[.* 500500.0, .*and those of .*red.tif are \[.* 501000.0"),
    ],
    ids=["CRS", "transform", "size"],
)
def test_files_that_do_not_fit_are_refused_with_both_shown(
    tmp_path: Path, store: ObjectStore, change: dict[str, Any], text: str
) -> None:
    files = write_bands(tmp_path, bands())
    width = change.pop("width", WIDTH)
    write(Path(files["blue"]), bands()[2:, :, :width], **change)
    with pytest.raises(DataError, match=rf"blue\.tif: .*{text}"):
        inspect_scene(store, register_scene(store, files))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it is not a STAC Item. An Item is a Feature with a member named assets: give an Item"),
        (
            '{"type": "FeatureCollection", "features": []}',
            r"'FeatureCollection'.*`rasterembed collection embed",
        ),
        ('{"type": "Collection", "links": []}', r"'Collection'.*`rasterembed collection embed"),
        ('{"type": "Feature", "assets": {}}', r"0 data assets.*it has none"),
        (
            '{"type": "Feature", "assets": {"a": 5, "b": {"href": 3, "type": "image/tiff"}}}',
            "asset 'b': it has no href",
        ),
        (
            '{"type": "Feature", "assets": {"a": {"href": "https://x/a.tif"}}}',
            "the host x is not one of those that may be read",
        ),
        ('{"type": "Feature", "assets": {"a": {"href": "/vsicurl/x.tif"}}}', "neither a file nor s3"),
        (
            '{"type": "Feature", "assets": {"a": {"href": "a.tif"}, "b": {"href": "b.tif"}}}',
            "choose with `assets` from",
        ),
        ('{"type": "Feature", "assets": {"a": {"href": "none.tif"}}}', "none.tif"),
        ('{"type": "Feature", "assets": {"a": {"href": "http://[", "type": "image/tiff"}}}', "asset 'a': 'http://\\['"),
    ],
)
def test_an_item_that_cannot_be_used_is_refused(tmp_path: Path, store: ObjectStore, content: str, text: str) -> None:
    (tmp_path / "item.json").write_text(content)
    with pytest.raises(RasterEmbedError, match=text):
        register_scene(store, str(tmp_path / "item.json"))


def test_a_scene_that_a_person_names_wrongly_is_refused(tmp_path: Path, store: ObjectStore) -> None:
    files = write_bands(tmp_path, bands())
    item = write_item(tmp_path / "item.json", sentinel_assets(files))
    with pytest.raises(UsageError, match="no asset has the key or the common name 'swir': choose from 'red', 'green'"):
        register_scene(store, str(item), ("swir",))
    with pytest.raises(UsageError, match="`assets` chooses files of a STAC Item"):
        register_scene(store, files, ("red",))
    with pytest.raises(UsageError, match="0 channels"):
        register_scene(store, {})
    with pytest.raises(UsageError, match=rf"has one channel, and a mapping has .* give {files['red']}$"):
        register_scene(store, f"red={files['red']}")
    stack = write(tmp_path / "stack.tif", bands())
    with pytest.raises(DataError, match="it has 3 bands, and the file of channel 'red' needs one"):
        inspect_scene(store, register_scene(store, {"red": str(stack)}))


def test_the_default_dataset_id_covers_every_file_of_a_mapping(tmp_path: Path, store: ObjectStore) -> None:
    files = write_bands(tmp_path, bands())
    swapped = {"red": files["red"], "green": files["blue"], "blue": files["green"]}
    sources = [register_scene(store, scene) for scene in (files, swapped, files["red"])]
    assert len({default_dataset_id(source.uri, *source.other_files) for source in sources}) == 3


def test_a_stored_plan_with_other_files_than_its_source_is_refused(
    tmp_path: Path, store: ObjectStore, tiny_vit: Path
) -> None:
    settings = PlanSettings(grid=Grid(size=32), model=Dinov3(model=str(tiny_vit), device="cpu"))
    source = register_scene(store, write_bands(tmp_path, bands()))
    plan = make_plan(store, source, "scene", settings)
    plan.write(store)
    assert type(plan).read(store, "scene", plan.fingerprint) == plan
    text = plan.model_dump_json().replace("green.tif", "other.tif", 1)
    store.write(plan.layout.plan(plan.fingerprint), text.encode())
    with pytest.raises(DataError, match="they are not the files of the source"):
        type(plan).read(store, "scene", plan.fingerprint)


def test_a_mapping_can_be_written_as_text(tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_bands(tmp_path, bands())
    text = ",".join(f"{channel}={file}" for channel, file in files.items())
    assert register_scene(store, text) == register_scene(store, files)
    with pytest.raises(UsageError, match="channel 'red' has two files"):
        register_scene(store, f"red={files['red']}, red={files['green']}")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "year=2026,month=6.tif", bands())
    assert register_scene(store, "year=2026,month=6.tif").scene is None


def test_an_item_on_a_server_names_files_on_servers_only(tmp_path: Path, store: ObjectStore) -> None:
    asset = ItemAsset("red", ("x",), frozenset(), "image/tiff", ())
    item = ItemFile("s3://bucket/a/b/item.json", "id", {}, None, None)
    listed = ObjectStore(root=store.root, source_store=SourceStore(https_hosts=("host",)))

    def uri_of(*hrefs: str, store: ObjectStore = store) -> str:
        return asset_uri(store, item, replace(asset, hrefs=hrefs))

    assert uri_of("./B04.tif") == "s3://bucket/a/b/B04.tif"
    assert uri_of("../B04.tif") == "s3://bucket/a/B04.tif"
    assert uri_of("https://host/B04.tif", "s3://other/B04.tif") == "s3://other/B04.tif"
    for href in ("/etc/scene.tif", "file:///etc/scene.tif", "../../../x.tif", "http://169.254.169.254/x.tif"):
        with pytest.raises(DataError, match="asset 'red'"):
            uri_of(href)
    assert uri_of("https://host/B04.tif", "s3://other/B04.tif", store=listed) == "https://host/B04.tif"
    assert uri_of("https://other/B04.tif", "s3://other/B04.tif", store=listed) == "s3://other/B04.tif"
    item = replace(item, uri="https://host/a/b/item.json")
    assert uri_of("../B04.tif", store=listed) == "https://host/a/B04.tif"
    assert uri_of("/c d.tif", store=listed) == "https://host/c%20d.tif"
    assert uri_of("s3://other/B04.tif") == "s3://other/B04.tif"
    for href in ("file:///etc/scene.tif", "//other/x.tif", "http://host/x.tif", "https://u:p@host/x.tif", "x.tif?a=b"):
        with pytest.raises(DataError, match="asset 'red'") as caught:
            uri_of(href, store=listed)
        assert "a=b" not in str(caught.value)
        assert "u:p" not in str(caught.value)


def bilinear(coarse: NDArray[Any], factor: int) -> NDArray[np.float64]:
    """Return a band at `factor` times the resolution, by bilinear interpolation between the centres of pixels."""
    fine = coarse.astype(np.float64)
    for axis in (0, 1):
        length = fine.shape[axis]
        place = np.clip((np.arange(length * factor) + 0.5) / factor - 0.5, 0, length - 1)
        low = np.floor(place).astype(int)
        weight = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
        above = np.minimum(low + 1, length - 1)
        fine = np.take(fine, low, axis) * (1 - weight) + np.take(fine, above, axis) * weight
    return fine


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_coarser_file_is_resampled_to_the_finest(tmp_path: Path, store: ObjectStore, dtype: str) -> None:
    pixels = np.maximum(bands(dtype=dtype), 1)
    files = write_bands(tmp_path, pixels, nodata=0)
    coarse = np.maximum(bands(1, dtype=dtype, seed=5)[:, ::2, ::2], 1)
    hidden = (slice(None), slice(10, 15), slice(20, 30))
    coarse[hidden] = 0
    place = PLACE["transform"] @ Affine.scale(2)
    mapping = {"swir": str(write(tmp_path / "swir.tif", coarse, transform=place, nodata=0)), **files}
    profile, read, valid, _, each = read_scene(store, mapping)
    assert (profile.width, profile.height, profile.transform) == (WIDTH, HEIGHT, tuple(PLACE["transform"])[:6])
    np.testing.assert_array_equal(read[1:], pixels)
    assert valid.all()
    expected_valid = np.repeat(np.repeat(coarse[0] != 0, 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(each[0], expected_valid)
    assert (read[0][~expected_valid] == 0).all()
    # Far from pixels without data, all four weights are used.
    near_hidden = np.zeros((HEIGHT, WIDTH), dtype=bool)
    near_hidden[18:32, 38:62] = True
    expected = bilinear(coarse[0], 2)
    np.testing.assert_allclose(read[0][~near_hidden], expected[~near_hidden], atol=0.51 if dtype == "uint16" else 0.01)
    # At the edge of the data, pixels without data have no weight.
    assert read[0][near_hidden & expected_valid].min() >= coarse[coarse > 0].min()
    # A window gives the same pixels as the whole.
    source = register_scene(store, mapping)
    with open_pixels(store, source.uri, profile) as raster:
        part, _ = raster.read((1, 2), Window(33, 21, 41, 30))
    np.testing.assert_array_equal(part, read[:2, 21:51, 33:74])


def test_a_coarser_file_whose_values_are_nan_hides_only_its_own_pixels(tmp_path: Path, store: ObjectStore) -> None:
    files = write_bands(tmp_path, bands(dtype="float32"))
    coarse = bands(1, dtype="float32", seed=5)[:, ::2, ::2] + 1
    coarse[0, 10, 20] = np.nan
    write(Path(files["blue"]), coarse, transform=PLACE["transform"] @ Affine.scale(2))
    _, _, valid, _, _ = read_scene(store, files)
    expected = np.ones((HEIGHT, WIDTH), dtype=bool)
    expected[20:22, 40:42] = False
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"crs": "EPSG:32634"}, "its CRS is 'WGS 84 / UTM zone 34N', and that of .* is 'WGS 84 / UTM zone 35N'"),
        ({"transform": Affine(20, 0, 500_020, 0, -20, 6_700_000)}, r"its bounds are \[500020.0.*are \[500000.0"),
        ({"mask": True}, "a mask or several nodata values is not resampled"),
    ],
    ids=["CRS", "bounds", "mask"],
)
def test_a_coarser_file_that_does_not_fit_is_refused(
    tmp_path: Path, store: ObjectStore, change: dict[str, Any], text: str
) -> None:
    files = write_bands(tmp_path, bands())
    mask = change.pop("mask", False)
    options = {"transform": PLACE["transform"] @ Affine.scale(2)} | change
    write(Path(files["blue"]), bands()[2:, ::2, ::2], **options)
    if mask:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(files["blue"], "r+") as dataset:
            dataset.write_mask(np.ones((HEIGHT // 2, WIDTH // 2), dtype=bool))
    with pytest.raises(DataError, match=rf"blue\.tif: .*{text}"):
        inspect_scene(store, register_scene(store, files))


def test_vectors_of_two_resolutions_equal_those_of_an_independent_warp(
    tmp_path: Path, store: ObjectStore, tiny_vit: Path
) -> None:
    pixels = np.maximum(bands(), 1)
    files = write_bands(tmp_path, pixels)
    coarse = np.maximum(bands(1, seed=5)[:, ::2, ::2], 1)
    place = PLACE["transform"] @ Affine.scale(2)
    write(Path(files["blue"]), coarse, transform=place)
    warped = np.zeros((HEIGHT, WIDTH), "uint16")
    reproject(
        coarse[0],
        warped,
        src_transform=place,
        src_crs=PLACE["crs"],
        dst_transform=PLACE["transform"],
        dst_crs=PLACE["crs"],
        resampling=Resampling.bilinear,
        tolerance=1e-9,
    )
    stack = write(tmp_path / "stack.tif", np.stack([pixels[0], pixels[1], warped]))
    options: dict[str, Any] = {
        "grid": Grid(size=32),
        "model": Dinov3(model=str(tiny_vit), device="cpu"),
        "radiometry": Radiometry(range=(0, 4000)),
        "quality_checks": False,
    }
    scenes: dict[str, Any] = {"by-file": files, "stack": str(stack)}
    manifests = [
        set_state(store, embed_raster(store, scene, EmbedOptions(dataset_id=name, **options)).manifest, "ready")
        for name, scene in scenes.items()
    ]
    found, expected = (vectors(store, manifest) for manifest in manifests)
    assert found.keys() == expected.keys()
    for tile, vector in expected.items():
        np.testing.assert_allclose(found[tile], vector, rtol=0, atol=1e-4 * np.abs(vector).max())
    # Quality checks, searches and pictures read the resampled pixels too.
    judged = [
        {metric.name: metric.value or 0.0 for metric in judge_dataset(store, manifest, QaThresholds()).metrics}
        for manifest in manifests
    ]
    assert judged[0] == pytest.approx(judged[1], rel=1e-3, abs=1e-4)
    answers = [Dataset(store, manifest).search(Query(tile=min(expected)), k=5).hits for manifest in manifests]
    assert [hit.tile_id for hit in answers[0]] == [hit.tile_id for hit in answers[1]]
    drawn, whole = (
        np.stack([np.asarray(picture) for picture in thumbnails(Dataset(store, manifest), hits, 32).values()])
        for manifest, hits in zip(manifests, answers, strict=True)
    )
    assert np.abs(drawn.astype(int) - whole.astype(int)).max() <= 1


_NAMES = ["href", "type", "roles", "bands", "eo:bands", "raster:bands", "common_name", "name", "nodata", "scale",
          "raster:offset", "alternate", "datetime", "eo:cloud_cover", "visual", "red"]  # fmt: skip
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(_NAMES)
_JSON = st.recursive(
    _LEAVES
    | st.sampled_from(
        ["image/tiff", "a.tif", "s3://b/a.tif", "file:///a.tif", "http://[", "https://[", "https://host/a", "10" * 400]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5),
    max_leaves=15,
)


@settings(max_examples=40)
@given(properties=_JSON, assets=st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=4))
def test_an_item_with_any_content_is_read_or_refused(properties: Any, assets: Any) -> None:
    store = ObjectStore(root="s3://results", source_store=SourceStore(https_hosts=("host",)))
    value = {"type": "Feature", "id": properties, "properties": properties, "assets": assets}
    servers = ("s3://", "https://host/")
    for uri in ("/data/item.json", "s3://bucket/item.json", "https://host/item.json"):
        item = parse_item(uri, value)
        for asset in item.assets.values():
            try:
                found = asset_uri(store, item, asset)
            except RasterEmbedError:
                continue
            assert found.startswith((*servers, "/") if uri.startswith("/") else servers)
