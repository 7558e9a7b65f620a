"""The vectors in the shards against an independent reference: one window at a time, plain transformers, float32.

The reference shares nothing with the library but the files: it reads with rasterio, scales and paints in a few lines,
resizes with Pillow and runs `AutoModel` on a batch of one.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.windows import Window
from safetensors.torch import load_file, save_file

from rasterembed.dataset.embedding import Execution, embed_shard
from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.errors import DataError
from rasterembed.model.checkpoints import find_checkpoint, write_preprocessor
from rasterembed.model.choice import ComputeDtype, Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import embed
from tests.support.servers import S3Server

pytestmark = pytest.mark.vectors

RELATIVE = 1e-4
"""Norm of the difference over the norm, up to which two float32 vectors of one tile are the same."""

BF16_COSINE = 0.999
"""Cosine to float32 that bfloat16 must reach with the tiny models."""

GTIFF: dict[str, Any] = {
    "driver": "GTiff",
    "dtype": "uint8",
    "crs": "EPSG:32635",
    "transform": Affine(10, 0, 500_000, 0, -10, 6_700_000),
    "photometric": "RGB",
}

Vectors = dict[str, NDArray[np.float64]]


@cache
def _network(folder: Path) -> Any:
    import transformers

    return transformers.AutoModel.from_pretrained(folder).eval()


@dataclass(frozen=True)
class Reference:
    """How the reference sees a raster: band numbers and the values that become black and white."""

    raster: Path
    model: Path
    size: int
    bands: tuple[int, ...] = (1, 2, 3)
    low: tuple[float, ...] = (0.0, 0.0, 0.0)
    high: tuple[float, ...] = (255.0, 255.0, 255.0)
    input_size: int | None = None

    def __call__(self, dataset: rasterio.DatasetReader, col: int, row: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """CLS and the weighted mean of the patch tokens of the tile whose corner is at `col`, `row`."""
        import torch

        width, height = min(self.size, dataset.width - col), min(self.size, dataset.height - row)
        window = Window(col, row, width, height)
        valid = np.zeros((self.size, self.size), bool)
        valid[:height, :width] = dataset.dataset_mask(window=window) > 0
        processor = json.loads((self.model / "preprocessor_config.json").read_text())
        side = self.input_size or self.size
        image = np.zeros((3, side, side), np.float32)
        for c, band in enumerate(self.bands):
            colour = np.zeros((self.size, self.size))
            colour[:height, :width] = dataset.read(band, window=window)
            colour = np.clip((colour - self.low[c]) / (self.high[c] - self.low[c]), 0, 1)
            colour[~valid] = processor["image_mean"][c]
            normal = (colour - processor["image_mean"][c]) / processor["image_std"][c]
            picture = Image.fromarray(normal.astype(np.float32), mode="F")
            image[c] = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
        network = _network(self.model)
        with torch.inference_mode():
            tokens = network(pixel_values=torch.from_numpy(image)[None]).last_hidden_state[0].double().numpy()
        registers = getattr(network.config, "num_register_tokens", 0)
        patch = getattr(network.config, "patch_size", 32)
        return tokens[0], self._mean(tokens[1 + registers :], valid, side // patch)

    @staticmethod
    def _mean(patches: NDArray[Any], valid: NDArray[Any], side: int) -> NDArray[Any]:
        """Mean weighted by the valid share of the square of the tile that each patch stands for."""
        edges = np.arange(side + 1) * len(valid) / side
        total, weights = np.zeros(patches.shape[1]), 0.0
        for i in range(side):
            for j in range(side):
                top, bottom = int(np.floor(edges[i])), int(np.ceil(edges[i + 1]))
                left, right = int(np.floor(edges[j])), int(np.ceil(edges[j + 1]))
                weight = valid[top:bottom, left:right].mean()
                total += weight * patches[i * side + j]
                weights += weight
        return total / weights


def assert_same(found: NDArray[Any], expected: NDArray[Any], name: str) -> None:
    difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert difference <= RELATIVE, (name, difference)


def rows_of(store: ObjectStore, manifest: Manifest) -> pa.Table:
    tables = []
    for shard in manifest.shards:
        data = store.read(shard.path)
        assert data is not None
        tables.append(pq.read_table(pa.BufferReader(data)))
    return pa.concat_tables(tables)


def vectors_of(table: pa.Table) -> Vectors:
    matrix = np.stack(table["embedding"].to_numpy()).astype(np.float64)
    return dict(zip(table["tile_id"].to_pylist(), matrix, strict=True))


def check_against(reference: Reference, table: pa.Table, pooling: str, every: int = 1) -> None:
    """Compare every n-th row of a shard with the reference."""
    rows = table.to_pylist()
    assert rows
    with rasterio.open(reference.raster) as dataset:
        for row in rows[::every]:
            cls, mean = reference(dataset, row["col_off"], row["row_off"])
            expected = {"cls": cls, "mean": mean, "cls+mean": np.concatenate([cls, mean])}[pooling]
            assert_same(np.array(row["embedding"]), expected, row["tile_id"])
            assert row["norm"] == pytest.approx(np.linalg.norm(expected), rel=1e-4)


def embedded(store: ObjectStore, raster: Path, dataset_id: str = "d", **options: Any) -> pa.Table:
    return rows_of(store, embed(store, str(raster), dataset_id=dataset_id, **options))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
@pytest.mark.parametrize("family", ["tiny_vit", "tiny_convnext"])
def test_a_striped_raster_with_nodata(
    rasters: Path, store: ObjectStore, family: str, pooling: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(family)
    raster = rasters / "RGB.byte.tif"
    table = embedded(store, raster, model=Dinov3(model=str(folder), pooling=pooling))
    assert len(table) == 12  # of 16: the corners are nodata
    assert len(table["embedding"][0]) == (128 if pooling == "cls+mean" else 64)
    check_against(Reference(raster, folder, 224), table, pooling)


def test_bgr_order_alpha_and_16_bits(store: ObjectStore, tiny_vit: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    pixels = (rng.gamma(2.0, 400.0, (4, 120, 150)) * np.array([1.0, 1.7, 0.6, 1.0])[:, None, None]).astype(np.uint16)
    pixels[3] = np.where(np.hypot(*np.mgrid[-60:60, -75:75]) < 70, rng.integers(1, 65535), 0)
    raster = tmp_path / "bgra.tif"
    profile = GTIFF | {"width": 150, "height": 120, "count": 4, "dtype": "uint16", "photometric": "MINISBLACK"}
    with rasterio.open(raster, "w", **profile) as dataset:
        dataset.write(pixels)
        dataset.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha]
    bands, valid = (3, 2, 1), pixels[3] > 0
    low, high = zip(*(np.percentile(pixels[band - 1][valid], (2, 98)) for band in bands), strict=True)
    model = Dinov3(model=str(tiny_vit), pooling="cls+mean")
    table = embedded(store, raster, grid=Grid(size=64), model=model)
    assert len(table) == 6
    check_against(Reference(raster, tiny_vit, 64, bands, low, high), table, "cls+mean")


def test_the_real_bgr_raster(rasters: Path, store: ObjectStore, tiny_vit: Path) -> None:
    raster = rasters / "RGBA.uint16.tif"
    with rasterio.open(raster) as dataset:
        names = dataset.colorinterp
        bands = tuple(names.index(c) + 1 for c in (ColorInterp.red, ColorInterp.green, ColorInterp.blue))
        valid = dataset.read(names.index(ColorInterp.alpha) + 1) > 0
        assert {np.ptp(dataset.read(band)[valid]) for band in bands} == {0}
        value = float(dataset.read(1)[valid][0])
    assert bands == (3, 2, 1)
    low, high = (value,) * 3, (value + 1,) * 3  # a scene of one colour is black
    table = embedded(store, raster, model=Dinov3(model=str(tiny_vit), pooling="cls+mean"))
    assert len(table) == 6
    check_against(Reference(raster, tiny_vit, 224, bands, low, high), table, "cls+mean")


@pytest.mark.parametrize("family", ["tiny_vit", "tiny_convnext"])
@pytest.mark.parametrize("name", ["cogeo.tif", "TCI.tif"])
def test_a_cog(rasters: Path, store: ObjectStore, name: str, family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(family)
    table = embedded(store, rasters / name, model=Dinov3(model=str(folder), pooling="cls+mean"))
    assert len(table) == 25 if name == "cogeo.tif" else len(table) > 5
    check_against(Reference(rasters / name, folder, 224), table, "cls+mean")


def test_one_shard_of_a_large_raster(rasters: Path, store: ObjectStore, tiny_vit: Path) -> None:
    raster = rasters / "cog_world.tif"
    plan = make_plan(
        store,
        register(store, str(raster)),
        "world",
        PlanSettings(model=Dinov3(model=str(tiny_vit)), selection=Selection(shard_tiles=256)),
    )
    number = next(n for n in range(plan.sharding.count) if plan.sharding.block(n) == ((16, 32), (80, 96)))
    shard = embed_shard(store, plan, number)
    table = pq.read_table(store.uri(shard.path))
    assert len(table) + shard.skipped == 256
    assert len(table) > 100
    check_against(Reference(raster, tiny_vit, 224, bands=(1, 1, 1)), table, "cls", every=9)


def test_gaps_between_tiles_of_a_large_raster(rasters: Path, store: ObjectStore, tiny_vit: Path) -> None:
    raster = rasters / "cog_world.tif"
    table = embedded(store, raster, grid=Grid(size=224, stride=4480), model=Dinov3(model=str(tiny_vit)))
    with rasterio.open(raster) as dataset:
        corners = [(col, row) for row in range(0, 18000, 4480) for col in range(0, 36000, 4480)]
        shares = [(dataset.read(1, window=Window(c, r, 224, 224)) != 0).mean() for c, r in corners]
    assert len(table) == sum(share >= 0.05 for share in shares)
    check_against(Reference(raster, tiny_vit, 224, bands=(1, 1, 1)), table, "cls")


@pytest.mark.parametrize(("size", "side"), [(160, 224), (256, 128), (224, 96)])
def test_tiles_resized_to_the_models_side(
    rasters: Path, store: ObjectStore, tiny_vit: Path, size: int, side: int
) -> None:
    raster = rasters / "RGB.byte.tif"
    model = Dinov3(model=str(tiny_vit), pooling="cls+mean", input_size=side)
    table = embedded(store, raster, grid=Grid(size=size), model=model)
    check_against(Reference(raster, tiny_vit, size, input_size=side), table, "cls+mean")


def test_the_preprocessors_mean_and_deviation_are_used(
    rasters: Path, store: ObjectStore, tiny_vit: Path, tmp_path: Path
) -> None:
    satellite = tmp_path / "satellite"
    shutil.copytree(tiny_vit, satellite)
    write_preprocessor(satellite, mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143))
    raster = rasters / "TCI.tif"
    table = embedded(store, raster, model=Dinov3(model=str(satellite), pooling="cls+mean"))
    check_against(Reference(raster, satellite, 224), table, "cls+mean")
    other = vectors_of(embedded(store, raster, "other", model=Dinov3(model=str(tiny_vit), pooling="cls+mean")))
    for name, vector in vectors_of(table).items():
        assert np.linalg.norm(vector - other[name]) > 0.05 * np.linalg.norm(vector)


@pytest.fixture(scope="module")
def usual(rasters: Path, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """RGB.byte.tif in tiles of 64 px, as the defaults have it."""
    store = ObjectStore(root=str(tmp_path_factory.mktemp("usual")))
    model = Dinov3(model=str(tiny_vit), pooling="cls+mean")
    return embedded(store, rasters / "RGB.byte.tif", grid=Grid(size=64), model=model)


@pytest.mark.parametrize(
    ("shard_tiles", "execution"),
    [
        (2048, Execution(batch_size=1)),
        (2048, Execution(batch_size=5, shard_threads=1)),
        (7, Execution(batch_size=32)),
        (30, Execution(batch_size=5, shard_threads=4)),
    ],
)
def test_batches_shards_and_threads_change_nothing(
    rasters: Path, store: ObjectStore, tiny_vit: Path, usual: pa.Table, shard_tiles: int, execution: Execution
) -> None:
    table = embedded(
        store,
        rasters / "RGB.byte.tif",
        grid=Grid(size=64),
        model=Dinov3(model=str(tiny_vit), pooling="cls+mean"),
        selection=Selection(shard_tiles=shard_tiles),
        execution=execution,
    )
    check_same_rows(table, usual)


def test_s3_changes_nothing(rasters: Path, moto: S3Server, bucket: str, tiny_vit: Path, usual: pa.Table) -> None:
    moto.create_bucket(bucket)
    moto.client().upload_file(str(rasters / "RGB.byte.tif"), bucket, "in/RGB.byte.tif")
    store = ObjectStore.model_validate(
        {
            "root": f"s3://{bucket}/out",
            "endpoint_url": moto.endpoint_url,
            "access_key": moto.access_key,
            "secret_key": moto.secret_key,
        }
    )
    manifest = embed(
        store,
        f"s3://{bucket}/in/RGB.byte.tif",
        dataset_id="d",
        grid=Grid(size=64),
        model=Dinov3(model=str(tiny_vit), pooling="cls+mean"),
    )
    check_same_rows(rows_of(store, manifest), usual)


def check_same_rows(table: pa.Table, usual: pa.Table) -> None:
    """The same tiles with the same places and vectors; shards may come in another order."""
    found, expected = vectors_of(table), vectors_of(usual)
    assert found.keys() == expected.keys()
    for name in expected:
        assert_same(found[name], expected[name], name)
    plain = ["tile_id", "row", "col", "col_off", "row_off", "width", "height", "valid_fraction", "geometry"]
    assert table.select(plain).sort_by("tile_id").equals(usual.select(plain).sort_by("tile_id"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrower_type_is_close(
    dtype: ComputeDtype, rasters: Path, store: ObjectStore, tiny_vit: Path, usual: pa.Table
) -> None:
    model = Dinov3(model=str(tiny_vit), pooling="cls+mean", dtype=dtype)
    found = vectors_of(embedded(store, rasters / "RGB.byte.tif", grid=Grid(size=64), model=model))
    expected = vectors_of(usual)
    assert found.keys() == expected.keys()
    cosines = [found[n] @ expected[n] / np.linalg.norm(found[n]) / np.linalg.norm(expected[n]) for n in expected]
    assert min(cosines) >= BF16_COSINE
    assert any((found[name] != expected[name]).any() for name in expected)  # it was narrower indeed


def test_float16_is_refused_where_it_gives_other_vectors(
    rasters: Path, store: ObjectStore, tiny_vit: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "large"
    shutil.copytree(tiny_vit, folder)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if "mlp.up_proj.weight" in name:
            weights[name] = weights[name] * 1e6  # activations beyond 65504
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = Dinov3(model=str(folder), dtype="float16")
    with pytest.raises(DataError, match=r"other vectors in float16 than in float32 .*use dtype bfloat16 or float32"):
        embedded(store, rasters / "RGB.byte.tif", grid=Grid(size=64), model=model)


def test_float16_vectors_are_the_same_rounded(
    rasters: Path, store: ObjectStore, tiny_vit: Path, usual: pa.Table
) -> None:
    table = embedded(
        store,
        rasters / "RGB.byte.tif",
        grid=Grid(size=64),
        model=Dinov3(model=str(tiny_vit), pooling="cls+mean"),
        selection=Selection(vector_dtype="float16"),
    )
    assert table.schema.field("embedding").type.value_type == pa.float16()
    found, expected = vectors_of(table), vectors_of(usual)
    assert found.keys() == expected.keys()
    for name, vector in expected.items():
        # half a unit in the last of the 11 bits, and what float32 itself may differ by
        np.testing.assert_allclose(found[name], vector, rtol=2**-11 + 1e-5, atol=1e-5)


@pytest.mark.parametrize("marked_by", ["mask", "alpha", "nodata"])
def test_what_invalid_pixels_hold_does_not_matter(
    store: ObjectStore, tiny_vit: Path, tmp_path: Path, marked_by: str
) -> None:
    rng = np.random.default_rng(5)
    colours = rng.integers(1, 255, (3, 150, 150), dtype=np.uint8)
    valid = rng.random((150, 150)) < 0.7
    found = []
    for number in range(2):
        image = colours.copy()
        hidden = np.zeros((3, 150, 150), np.uint8) if number == 0 else rng.integers(0, 255, (3, 150, 150), np.uint8)
        if marked_by == "nodata":
            hidden[:] = 0
        image[:, ~valid] = hidden[:, ~valid]
        path = tmp_path / f"{number}.tif"
        profile = GTIFF | {"width": 150, "height": 150, "count": 4 if marked_by == "alpha" else 3}
        profile["nodata"] = 0 if marked_by == "nodata" else None
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"), rasterio.open(path, "w", **profile) as dataset:
            dataset.write(image, [1, 2, 3])
            if marked_by == "alpha":
                dataset.write(valid.astype(np.uint8) * 255, 4)
                dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
            elif marked_by == "mask":
                dataset.write_mask(valid)
        model = Dinov3(model=str(tiny_vit), pooling="cls+mean")
        table = embedded(store, path, f"d{number}", grid=Grid(size=96), model=model)
        assert len(table) == 4
        check_against(Reference(path, tiny_vit, 96), table, "cls+mean")
        found.append(vectors_of(table))
    for name, vector in found[0].items():
        np.testing.assert_array_equal(found[1][name], vector)


def test_the_reference_tells_a_wrong_vector(rasters: Path, store: ObjectStore, tiny_vit: Path) -> None:
    """Bands in another order, a tile off by one pixel and unpainted nodata all fail the comparison."""
    raster = rasters / "RGB.byte.tif"
    model = Dinov3(model=str(tiny_vit), pooling="cls+mean")
    wrong = embedded(store, raster, model=model, radiometry=Radiometry(bands=(3, 2, 1)))
    for reference in (
        Reference(raster, tiny_vit, 224),
        Reference(raster, tiny_vit, 224, bands=(3, 2, 1), low=(1.0, 0.0, 0.0)),
    ):
        with pytest.raises(AssertionError):
            check_against(reference, wrong, "cls+mean")
    check_against(Reference(raster, tiny_vit, 224, bands=(3, 2, 1)), wrong, "cls+mean")


def test_the_demo_model_follows_the_picture(rasters: Path, store: ObjectStore) -> None:
    """Untrained as it is, its vectors are not all alike, and neighbours are more alike than other tiles."""
    table = embedded(store, rasters / "RGB.byte.tif", grid=Grid(size=64), model=Dinov3(model="demo"))
    vectors = np.stack(list(vectors_of(table).values()))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    apart = np.abs(np.subtract.outer(table["row"].to_numpy(), table["row"].to_numpy())) + np.abs(
        np.subtract.outer(table["col"].to_numpy(), table["col"].to_numpy())
    )
    assert cosines[apart > 0].mean() < 0.8
    assert cosines[apart == 1].mean() > cosines[apart > 1].mean() + 0.05
    shares = np.linalg.svd(vectors, compute_uv=False)
    shares /= shares.sum()
    assert np.exp(-(shares * np.log(shares)).sum()) > 15
    assert find_checkpoint("demo").hidden_size == vectors.shape[1] == 192
