"""The model on a CUDA device: copies, vectors, memory, and a whole dataset. These tests need a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from examples.landscape import make_scene
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.selection import Selection
from rasterembed.errors import DataError
from rasterembed.model.choice import ComputeDtype, Device, Dinov3, Pooling, ResolvedEngine, resolve_model
from rasterembed.model.cuda import DeviceCopy, Staging
from rasterembed.model.embedder import CUDA_BATCH, Embedder
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import ResolvedRadiometry
from rasterembed.store.object_store import ObjectStore
from tests.model.test_engines import AS_IT_IS, SIDE, cosines
from tests.support.embedding import embed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device on this machine")

COUNT = CUDA_BATCH + 45
"""Number of tiles in a batch. The network computes it in one whole slice and a shorter one."""

MIN_COSINE: dict[ComputeDtype, float] = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}
"""Smallest cosine between a vector on the GPU and the float32 vector on the CPU, as docs/models.md promises it."""

DTYPES: tuple[ComputeDtype, ...] = ("float32", "bfloat16", "float16")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@contextmanager
def memory(megabytes: float) -> Iterator[None]:
    """Let PyTorch take this much more of the device's memory than it has now."""
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + megabytes * 1e6) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def noise(count: int = COUNT, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def with_holes(count: int = COUNT) -> NDArray[np.bool_]:
    """Return masks of valid pixels. One tile in four has invalid pixels."""
    valid = np.ones((count, SIDE, SIDE), dtype=bool)
    valid[::4, :40, 20:] = False
    return valid


def load(
    folder: Path,
    device: Device,
    engine: ResolvedEngine = "eager",
    *,
    pooling: Pooling = "cls",
    dtype: ComputeDtype = "float32",
    side: int = SIDE,
) -> Embedder:
    chosen = Dinov3(model=str(folder), pooling=pooling, dtype=dtype, device=device)
    return Embedder(resolve_model(chosen, side), device, engine=engine)


def test_uploads_survive_later_changes_of_their_arrays() -> None:
    staging = Staging(torch.device("cuda", 0))
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 200, (count, 3, 200, 200)).astype(dtype) for count in (9, 40, 2) for dtype in "BHf"]
    uploads = []
    for array in arrays * 3:
        changed = array.copy()
        uploads.append(staging.upload(changed))
        changed[:] = 201
    for array, uploaded in zip(arrays * 3, uploads, strict=True):
        assert uploaded.device.type == "cuda"
        np.testing.assert_array_equal(uploaded.cpu().numpy(), array)


def test_copies_from_the_device_wait_for_what_was_computed() -> None:
    device = torch.device("cuda", 0)
    matrix = torch.full((4096, 4096), 2.0, device=device)
    copies = []
    for factor in range(1, 6):
        product = matrix
        for _ in range(5):
            product = product @ matrix / 8192
        copies.append(DeviceCopy(product * factor))
    with ThreadPoolExecutor(5) as threads:
        for factor, found in enumerate(threads.map(DeviceCopy.result, copies), start=1):
            np.testing.assert_array_equal(found, np.full((4096, 4096), 2.0 * factor, dtype=np.float32))


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
@pytest.mark.parametrize("family", ["tiny_vit", "tiny_convnext"])
def test_vectors_on_the_device_are_those_of_the_cpu(
    family: str, pooling: Pooling, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    folder: Path = request.getfixturevalue(family)
    pixels, valid = noise(), with_holes()
    reference = load(folder, "cpu", pooling=pooling).embed(pixels, valid, AS_IT_IS)
    for dtype in DTYPES:
        found = load(folder, "cuda", pooling=pooling, dtype=dtype).embed(pixels, valid, AS_IT_IS)
        assert (found.dtype, found.shape) == (np.float32, reference.shape)
        assert cosines(found, reference).min() >= MIN_COSINE[dtype], dtype
    assert "cannot be used" not in caplog.text


def test_float32_on_the_device_is_exact(tiny_vit: Path) -> None:
    pixels, valid = noise(), with_holes()
    reference = load(tiny_vit, "cpu").embed(pixels, valid, AS_IT_IS)
    found = load(tiny_vit, "cuda").embed(pixels, valid, AS_IT_IS)
    assert np.linalg.norm(found - reference, axis=1).max() <= 1e-4 * np.linalg.norm(reference, axis=1).min()


@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_vectors_on_the_device_are_those_of_the_cpu(dtype: ComputeDtype, tiny_vit: Path) -> None:
    pixels, valid = noise(), with_holes()
    reference = load(tiny_vit, "cpu", pooling="cls+mean").embed(pixels, valid, AS_IT_IS)
    compiled = load(tiny_vit, "cuda", "compile", pooling="cls+mean", dtype=dtype)
    pending = [compiled.submit(pixels, valid, AS_IT_IS) for _ in range(4)]
    first, *others = [waiting.result() for waiting in pending]
    assert cosines(first, reference).min() >= MIN_COSINE[dtype]
    for other in others:  # CUDA graphs use the same memory for each batch.
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_pixels_of_every_type_are_scaled_as_on_the_cpu(dtype: type, tiny_vit: Path) -> None:
    pixels = noise(20).astype(dtype)
    radiometry = ResolvedRadiometry(
        bands=(1, 2, 3), low=(10.0, 0.0, 20.0), high=(200.0, 255.0, 99.0), method="percentile"
    )
    valid = with_holes(20)
    reference = load(tiny_vit, "cpu").embed(pixels, valid, radiometry)
    found = load(tiny_vit, "cuda").embed(pixels, valid, radiometry)
    assert cosines(found, reference).min() >= 0.99999


def test_a_device_with_little_memory_computes_fewer_tiles_at_once(tiny_vit: Path) -> None:
    side = 256
    pixels, valid = noise(CUDA_BATCH, side), np.ones((CUDA_BATCH, side, side), dtype=bool)
    embedder = load(tiny_vit, "cuda", side=side)
    with memory(160):  # The images of 256 tiles need 201 MB.
        found = embedder.embed(pixels, valid, AS_IT_IS)
    assert 1 <= embedder._slice < CUDA_BATCH
    reference = load(tiny_vit, "cpu", side=side).embed(pixels[-8:], valid[-8:], AS_IT_IS)
    assert cosines(found[-8:], reference).min() >= 0.99999


def test_a_device_that_is_too_small_for_one_tile_is_named(tiny_vit: Path) -> None:
    side = 1024
    embedder = load(tiny_vit, "cuda", side=side)
    refused = pytest.raises(DataError, match=r"needs more memory than cuda has free for one tile of 1024 px")
    with memory(24), refused:  # It is enough for the pixels in uint8, but not for the image in float32.
        embedder.embed(noise(1, side), np.ones((1, side, side), dtype=bool), AS_IT_IS)


def test_a_device_that_is_too_small_for_the_pixels_of_a_batch_is_named(tiny_vit: Path) -> None:
    embedder = load(tiny_vit, "cuda")
    with (
        memory(0),
        pytest.raises(DataError, match=r"cuda has no memory for the pixels of 4000 tiles: take a smaller `batch_size`"),
    ):
        embedder.embed(noise(4000), np.ones((4000, SIDE, SIDE), dtype=bool), AS_IT_IS)


def vectors(store: ObjectStore, manifest: Manifest) -> NDArray[np.float32]:
    tables = [pq.read_table(store.uri(shard.path)).sort_by("tile_id") for shard in manifest.shards]
    return np.concatenate([np.stack(table["embedding"].to_numpy()) for table in tables])


def test_a_dataset_of_the_device_says_so_and_is_the_same_each_time(tiny_vit: Path, tmp_path: Path) -> None:
    raster = make_scene(tmp_path, width=1024, height=1024).raster

    def run(
        name: str, device: Device, shard_threads: int, dtype: Literal["auto", ComputeDtype] = "auto"
    ) -> tuple[ObjectStore, Manifest]:
        store = ObjectStore(root=str(tmp_path / name))
        manifest = embed(
            store,
            str(raster),
            dataset_id="scene",
            grid=Grid(size=SIDE),
            model=Dinov3(model=str(tiny_vit), device=device, dtype=dtype),
            selection=Selection(shard_tiles=50),
            execution=Execution(shard_threads=shard_threads),
        )
        return store, manifest

    store, manifest = run("one", "auto", 1)
    (computation,) = manifest.computations
    assert (computation.device, computation.processor) == ("cuda", torch.cuda.get_device_name(0))
    found = vectors(store, manifest)
    np.testing.assert_array_equal(vectors(*run("several", "cuda", 4, "bfloat16")), found)
    assert cosines(found, vectors(*run("cpu", "cpu", 2, "float32"))).min() >= 0.999
