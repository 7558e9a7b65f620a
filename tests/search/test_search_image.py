"""Image chips as queries: a chip cut from a tile has the tile's vector, in every file format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.errors import DataError, RasterEmbedError, StoreError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.source import register
from rasterembed.raster.validity import Validity
from rasterembed.search.answer import Answer
from rasterembed.search.chip import MAX_SIDE, embed_chip, read_chip
from rasterembed.search.query import Query
from rasterembed.search.searcher import search
from rasterembed.store.object_store import ObjectStore
from tests.support.pictures import plain_pictures
from tests.support.vectors import checkpoint

pytestmark = pytest.mark.vectors

SIDE, ACROSS = 32, 4
TILE = "r000002_c000001"


@dataclass(frozen=True)
class Embedded:
    """A dataset by a real, tiny model, and its raster's values."""

    dataset: Dataset
    pixels: NDArray[Any]
    """Shape (bands, rows, columns)."""

    @property
    def plan(self) -> Plan:
        return self.dataset.plan

    def tile(self) -> NDArray[Any]:
        """Values of `TILE`, shape (bands, SIDE, SIDE)."""
        return self.pixels[:, 2 * SIDE : 3 * SIDE, SIDE : 2 * SIDE]

    def ask(self, image: Path, k: int = 3) -> Answer:
        return search(self.dataset.store, [self.dataset.id], Query(image=str(image)), k=k)

    def vector(self, image: Path) -> NDArray[np.float32]:
        return embed_chip(self.dataset.store, self.plan, str(image), device="cpu")


def textures(bands: int, highest: int, dtype: str) -> NDArray[Any]:
    """Tiles that differ in colour, with stripes and some noise."""
    random = np.random.default_rng(3)
    rows, cols = np.indices((SIDE * ACROSS, SIDE * ACROSS))
    colour = random.uniform(0.15, 0.85, (bands, ACROSS, ACROSS)).repeat(SIDE, 1).repeat(SIDE, 2)
    stripes = 0.1 * np.sin(rows / 3 + cols / random.uniform(2, 9, (bands, 1, 1)))
    noise = 0.03 * random.standard_normal((bands, *rows.shape))
    return (np.clip(colour + stripes + noise, 0, 1) * highest).astype(dtype)


def embed(
    folder: Path, name: str, pixels: NDArray[Any], model: Path, interpretation: list[ColorInterp], **options: Any
) -> Embedded:
    raster = write_tif(folder / f"{name}.tif", pixels, interpretation)
    store = ObjectStore(root=str(folder / "store"))
    chosen = EmbedOptions(
        dataset_id=name,
        grid=Grid(size=SIDE),
        model=Dinov3(model=str(model), device="cpu"),
        execution=Execution(shard_threads=1),
        **options,
    )
    with plain_pictures():
        embed_raster(store, str(raster), chosen)
    return Embedded(Dataset.open(store, name), pixels)


def write_tif(
    path: Path, pixels: NDArray[Any], interpretation: list[ColorInterp] | None = None, **options: Any
) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=pixels.shape[2], height=pixels.shape[1], count=len(pixels), dtype=pixels.dtype,
        crs="EPSG:32635", transform=Affine(10, 0, 360_000, 0, -10, 6_720_000), **options,
    ) as file:  # fmt: skip
        file.write(pixels)
        if interpretation:
            file.colorinterp = interpretation
    return path


def write_image(path: Path, pixels: NDArray[np.uint8], **options: Any) -> Path:
    """Pixels of shape (bands, rows, columns) as a picture."""
    Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)).squeeze()).save(path, **options)
    return path


RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
BGR_AND_MORE = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]


@pytest.fixture(scope="module")
def photo(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    """Embed an 8-bit RGB raster."""
    return embed(tmp_path_factory.mktemp("photo"), "photo", textures(3, 255, "uint8"), tiny_vit, RGB)


@pytest.fixture(scope="module")
def bands(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    """Embed a 16-bit raster with bands in the order blue, green, red, infrared, where 3000 is white."""
    options = {"radiometry": Radiometry(range=(0.0, 3000.0))}
    pixels = textures(4, 3000, "uint16")
    return embed(tmp_path_factory.mktemp("bands"), "bands", pixels, tiny_vit, BGR_AND_MORE, **options)


@pytest.fixture
def plan_for_images(tmp_path: Path) -> Plan:
    """Return the plan of an 8-bit RGB raster. Its model cannot be loaded."""
    raster = write_tif(tmp_path / "raster.tif", np.zeros((3, SIDE, SIDE), np.uint8))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 8)))
    settings = PlanSettings(grid=Grid(size=SIDE), model=model)
    store = ObjectStore(root=str(tmp_path / "store"))
    return make_plan(store, register(store, str(raster)), "dataset", settings)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_chip_cut_from_a_tile_has_its_vector(photo: Embedded, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"chip.{ending}"
    chip = write_tif(path, photo.tile()) if ending == "tif" else write_image(path, photo.tile())
    answer = photo.ask(chip)
    assert answer.hits[0].tile_id == TILE
    assert answer.hits[0].distance == pytest.approx(0, abs=1e-6)
    assert answer.hits[1].distance > 1e-3
    assert (answer.examples[0].role, answer.examples[0].label) == ("query", path.name)


def test_a_jpeg_of_a_tile_finds_it(photo: Embedded, tmp_path: Path) -> None:
    answer = photo.ask(write_image(tmp_path / "chip.jpg", photo.tile(), quality=95))
    assert answer.hits[0].tile_id == TILE
    assert 0 < answer.hits[0].distance < answer.hits[1].distance / 2


def test_a_chip_of_the_raster_s_type_is_scaled_as_the_raster(bands: Embedded, tmp_path: Path) -> None:
    answer = bands.ask(write_tif(tmp_path / "chip.tif", bands.tile(), BGR_AND_MORE))
    assert answer.hits[0].tile_id == TILE
    assert answer.hits[0].distance == pytest.approx(0, abs=1e-6)


def test_a_chip_with_fewer_bands_is_taken_by_its_own_colours(bands: Embedded, tmp_path: Path) -> None:
    rgb = bands.tile()[[2, 1, 0]]
    answer = bands.ask(write_tif(tmp_path / "chip.tif", rgb, RGB, photometric="rgb"))
    assert answer.hits[0].tile_id == TILE
    assert answer.hits[0].distance == pytest.approx(0, abs=1e-6)


def test_a_picture_of_a_16_bit_tile_finds_it(bands: Embedded, tmp_path: Path) -> None:
    seen = (bands.tile()[[2, 1, 0]] / 3000 * 255).round().astype(np.uint8)
    answer = bands.ask(write_image(tmp_path / "chip.png", seen))
    assert answer.hits[0].tile_id == TILE
    assert answer.hits[0].distance < 1e-4


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (20, 20), (100, 100), (70, 131), (301, 90)])
def test_the_size_of_a_chip_does_not_matter(photo: Embedded, tmp_path: Path, shape: tuple[int, int]) -> None:
    colour = np.array([200, 120, 40], np.uint8).reshape(3, 1, 1)
    plain = write_image(tmp_path / "plain.png", np.broadcast_to(colour, (3, SIDE, SIDE)))
    chip = write_image(tmp_path / "chip.png", np.broadcast_to(colour, (3, *shape)))
    np.testing.assert_allclose(photo.vector(chip), photo.vector(plain), rtol=1e-4, atol=1e-4)


def test_a_larger_chip_is_resized_without_aliasing(photo: Embedded, tmp_path: Path) -> None:
    # a fine checkerboard has the mean colour at every scale
    checks = (np.indices((8 * SIDE, 8 * SIDE)).sum(axis=0) % 2 * 200 + 20).astype(np.uint8)
    pixels, valid, _ = read_chip(
        photo.dataset.store, photo.plan, str(write_image(tmp_path / "c.png", np.stack([checks] * 3)))
    )
    assert valid.all()
    assert pixels.shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(pixels[:, 2:-2, 2:-2], 120, atol=1)


def test_the_middle_of_an_oblong_chip_counts(photo: Embedded, tmp_path: Path) -> None:
    wide = np.zeros((3, SIDE, 3 * SIDE), np.uint8)
    wide[:, :, SIDE : 2 * SIDE] = photo.tile()
    answer = photo.ask(write_image(tmp_path / "wide.png", wide))
    assert (answer.hits[0].tile_id, answer.hits[0].distance) == (TILE, pytest.approx(0, abs=1e-6))


def test_transparent_pixels_are_invalid_and_bleed_into_nothing(photo: Embedded, tmp_path: Path) -> None:
    big = photo.tile().repeat(2, 1).repeat(2, 2)
    alpha = np.full((1, 2 * SIDE, 2 * SIDE), 255, np.uint8)
    alpha[:, :, SIDE:] = 0
    files = []
    for hidden in (0, 255):
        painted = np.where(alpha > 0, big, np.uint8(hidden))
        files.append(write_image(tmp_path / f"{hidden}.png", np.concatenate([painted, alpha])))
    store = photo.dataset.store
    (one, valid, _), (other, _, _) = (read_chip(store, photo.plan, str(file)) for file in files)
    assert valid[:, : SIDE // 2].all()
    assert not valid[:, SIDE // 2 + 1 :].any()
    np.testing.assert_array_equal(one[:, valid], other[:, valid])
    np.testing.assert_array_equal(photo.vector(files[0]), photo.vector(files[1]))


def test_one_band_is_grey_and_a_palette_is_expanded(photo: Embedded, tmp_path: Path) -> None:
    grey = photo.tile()[:1]
    as_rgb = photo.vector(write_image(tmp_path / "rgb.png", grey.repeat(3, axis=0)))
    np.testing.assert_allclose(photo.vector(write_image(tmp_path / "grey.png", grey)), as_rgb, rtol=1e-5, atol=1e-5)

    flat = Image.fromarray(np.moveaxis(photo.tile() // 64 * 64, 0, -1))
    flat.save(tmp_path / "flat.png")
    flat.quantize(256, dither=Image.Dither.NONE).save(tmp_path / "palette.png")
    expected, found = photo.vector(tmp_path / "flat.png"), photo.vector(tmp_path / "palette.png")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_an_image_much_larger_than_a_tile_is_remarked(photo: Embedded, tmp_path: Path) -> None:
    whole = write_image(tmp_path / "whole.png", photo.pixels)
    side = SIDE * ACROSS
    assert (
        f"whole.png: the image has {side} x {side} px, a tile has {SIDE} px: only the central square of {side} px"
        in (photo.ask(whole).notes()[0])
    )
    tile = write_image(tmp_path / "tile.png", photo.tile())
    assert not any("the image has" in note for note in photo.ask(tile).notes())


def test_an_image_and_liked_tiles_are_combined(photo: Embedded, tmp_path: Path) -> None:
    chip = write_image(tmp_path / "chip.png", photo.tile())
    query = {"like": ("r000000_c000000",), "unlike": ("r000003_c000003",)}
    store = photo.dataset.store
    by_image = search(store, ["photo"], Query(image=str(chip), **query), k=5)
    by_tile = search(store, ["photo"], Query(tile=TILE, include_query=True, **query), k=7)
    left = [hit.tile_id for hit in by_tile.hits if hit.tile_id not in ("r000000_c000000", "r000003_c000003")]
    assert [hit.tile_id for hit in by_image.hits] == left[:5]


@pytest.mark.parametrize(("ending", "shape"), [("png", (40, 53)), ("tif", (53, 40)), ("jpg", (48, 33))])
def test_photos_are_turned_upright_as_pillow_does(
    tmp_path: Path, plan_for_images: Plan, ending: str, shape: tuple[int, int]
) -> None:
    """Orientations 0 and 9 are not defined, and Pillow leaves such photos as they are."""
    store = ObjectStore(root=str(tmp_path / "store"))
    pixels = np.random.default_rng(4).integers(0, 255, (3, *shape), dtype=np.uint8)
    lossless = {"quality": 100, "subsampling": 0} if ending == "jpg" else {}
    # libtiff refuses values that are not defined.
    for orientation in range(1, 9) if ending == "tif" else range(10):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        photo = write_image(tmp_path / f"{orientation}.{ending}", pixels, exif=exif, **lossless)
        with Image.open(photo) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.save(tmp_path / "upright.png", exif=b"")
        found, valid, _ = read_chip(store, plan_for_images, str(photo))
        expected, _, _ = read_chip(store, plan_for_images, str(tmp_path / "upright.png"))
        np.testing.assert_allclose(found, expected, atol=3 if ending == "jpg" else 0)
        assert valid.all()


def test_damaged_exif_data_is_ignored(tmp_path: Path, plan_for_images: Plan) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    pixels = np.random.default_rng(4).integers(0, 255, (3, SIDE, SIDE), dtype=np.uint8)
    photo = write_image(tmp_path / "photo.png", pixels, exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff\xff")
    found, _, _ = read_chip(store, plan_for_images, str(photo))
    np.testing.assert_array_equal(found, pixels)


def test_a_chip_of_a_raster_with_declared_validity_is_read_as_the_raster(tmp_path: Path) -> None:
    pixels = textures(4, 255, "uint8")[:, :SIDE, :SIDE]
    pixels[3, :10], pixels[:3, 20:] = 0, 7
    raster = write_tif(tmp_path / "raster.tif", pixels, photometric="rgb", alpha="yes")
    store = ObjectStore(root=str(tmp_path / "store"))
    settings = PlanSettings(
        grid=Grid(size=SIDE),
        radiometry=Radiometry(bands="1,2,3"),
        validity=Validity(ignore_alpha=True, nodata=7),
        model=Dinov3(model=str(checkpoint(tmp_path / "model", 8))),
    )
    plan = make_plan(store, register(store, str(raster)), "dataset", settings)
    _, valid, _ = read_chip(store, plan, str(raster))
    np.testing.assert_array_equal(valid, (pixels[:3] != 7).any(axis=0))


def _text(folder: Path, _: Embedded) -> Path:
    (folder / "notes.png").write_text("not a picture")
    return folder / "notes.png"


def _torn(folder: Path, photo: Embedded) -> Path:
    whole = write_image(folder / "whole.png", np.random.default_rng(1).integers(0, 255, (3, 90, 90), dtype=np.uint8))
    (folder / "torn.png").write_bytes(whole.read_bytes()[:9000])
    return folder / "torn.png"


def _floats(folder: Path, photo: Embedded) -> Path:
    return write_tif(folder / "floats.tif", photo.tile().astype(np.float32))


def _transparent(folder: Path, photo: Embedded) -> Path:
    return write_image(folder / "clear.png", np.concatenate([photo.tile(), np.zeros((1, SIDE, SIDE), np.uint8)]))


def _large(folder: Path, photo: Embedded) -> Path:
    return write_tif(folder / "large.tif", np.zeros((1, 16, MAX_SIDE + 16), np.uint8), compress="zstd")


def _vrt(folder: Path, photo: Embedded) -> Path:
    (folder / "chip.tif").write_text(
        '<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{photo.plan.source.uri}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return folder / "chip.tif"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_text, "not a raster that can be read here"),
        (_torn, "cannot be read"),
        (_floats, "its pixels are float32, those of GTiff .*photo.tif are uint8"),
        (_transparent, "no valid pixel"),
        (_large, f"{MAX_SIDE + 16}x16 px"),
        (_vrt, "not a raster that can be read here"),
    ],
)
def test_an_image_that_is_no_use_is_named(photo: Embedded, tmp_path: Path, make: Any, message: str) -> None:
    chip = make(tmp_path, photo)
    with pytest.raises(DataError, match=message) as error:
        photo.ask(chip)
    assert str(chip) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_address_that_is_no_file_is_refused(photo: Embedded) -> None:
    with pytest.raises(StoreError, match=r"the host example\.org is not one of those that may be read"):
        search(photo.dataset.store, ["photo"], Query(image="https://example.org/chip.png"))
    with pytest.raises(UsageError):
        search(photo.dataset.store, ["photo"], Query(image="/vsicurl/http://example.org/x.tif"))


def test_other_weights_than_the_dataset_s_are_refused(photo: Embedded, tmp_path: Path) -> None:
    chip = write_image(tmp_path / "chip.png", photo.tile())
    weights = Path(photo.plan.model.id) / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))

    from rasterembed.model import embedder

    embedder._loaded.clear()
    try:
        with pytest.raises(RasterEmbedError, match="has other weights here") as error:
            photo.ask(chip)
    finally:
        weights.write_bytes(kept)
    assert "\n" not in str(error.value)
    assert photo.ask(chip).hits[0].tile_id == TILE
