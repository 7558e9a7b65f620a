"""Each engine against transformers' own network in float32, and how an engine is chosen."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from examples.landscape import make_scene
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.selection import Selection
from rasterembed.errors import DataError, UsageError
from rasterembed.model import choice, openvino
from rasterembed.model.checkpoints import write_preprocessor
from rasterembed.model.choice import (
    AUTO_TILES,
    ComputeDtype,
    Dinov3,
    Engine,
    Pooling,
    ResolvedEngine,
    resolve_engine,
    resolve_model,
)
from rasterembed.model.embedder import Embedder
from rasterembed.model.folded_vit import FoldedViT
from rasterembed.model.measurement import pick_fastest
from rasterembed.model.networks import EagerNetwork, TransformersNetwork
from rasterembed.model.processor import processor_name, usable_cores
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import ResolvedRadiometry
from rasterembed.search.engines.codes import CodesParameters, open_codes, write_codes
from rasterembed.store.object_store import ObjectStore
from tests.search.engine_vectors import clusters, store
from tests.support.embedding import embed

SIDE = 64

AS_IT_IS = ResolvedRadiometry(bands=(1, 2, 3), low=(0.0,) * 3, high=(255.0,) * 3, method="uint8")

ALL_VALID = np.ones((19, SIDE, SIDE), dtype=bool)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder in which each network is exported once for the whole module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _with_shared_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))


@pytest.fixture
def cache(_with_shared_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache folder that only this test uses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rasterembed"


@pytest.fixture(scope="session")
def gated_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the 7B checkpoint: a gated MLP with SiLU, no bias of query, key and value; every other parameter random."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=96,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_register_tokens=4,
        use_gated_mlp=True,
        hidden_act="silu",
        query_bias=False,
        value_bias=False,
        patch_size=16,
    )
    return _save(tmp_path_factory.mktemp("gated"), DINOv3ViTModel(config))


@pytest.fixture(scope="session")
def scaled_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every parameter random: biases, norms, LayerScale; a bias of the key too, and no registers."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_register_tokens=0,
        key_bias=True,
        rope_theta=50.0,
    )
    return _save(tmp_path_factory.mktemp("scaled"), DINOv3ViTModel(config))


def _save(folder: Path, network: Any) -> Path:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in sorted(network.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if "lambda" in name or ("norm" in name and "weight" in name):
                weight.copy_(1 + 0.3 * noise)
            elif weight.ndim >= 2:
                weight.copy_(noise / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.1 * noise)
    network.save_pretrained(folder)
    write_preprocessor(folder, mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143))
    return folder


def noise(count: int = 19) -> NDArray[np.uint8]:
    """Tiles of a batch that no slice length divides."""
    return np.random.default_rng(3).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)


def expected(folder: Path, pooling: Pooling, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Plain transformers, one tile at a time."""
    import transformers

    network = transformers.AutoModel.from_pretrained(folder).eval()
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    mean, std = (np.array(processor[name])[:, None, None] for name in ("image_mean", "image_std"))
    vectors = []
    for tile in pixels:
        image = torch.from_numpy(((tile / 255 - mean) / std).astype(np.float32))
        with torch.inference_mode():
            tokens = network(pixel_values=image[None]).last_hidden_state[0].double().numpy()
        registers = getattr(network.config, "num_register_tokens", 0)
        cls, patches = tokens[0], tokens[1 + registers :].mean(axis=0)
        vectors.append({"cls": cls, "mean": patches, "cls+mean": np.concatenate([cls, patches])}[pooling])
    return np.array(vectors)


def embedder(
    folder: Path, engine: ResolvedEngine = "eager", *, pooling: Pooling = "cls", dtype: ComputeDtype = "float32"
) -> Embedder:
    model = Dinov3(model=str(folder), pooling=pooling, dtype=dtype, device="cpu")
    return Embedder(resolve_model(model, SIDE), "cpu", engine=engine)


def cosines(found: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    return np.asarray((found.astype(np.float64) * reference).sum(axis=1) / norms)


@pytest.mark.vectors
@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
@pytest.mark.parametrize("family", ["tiny_vit", "gated_vit", "scaled_vit", "tiny_convnext"])
@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_vectors_are_those_of_transformers(
    engine: ResolvedEngine, family: str, pooling: Pooling, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(family)
    if engine == "openvino":
        pytest.importorskip("openvino")
    pixels = noise()
    reference = expected(folder, pooling, pixels)
    exact = embedder(folder, engine, pooling=pooling).embed(pixels, ALL_VALID, AS_IT_IS)
    assert exact.dtype == np.float32
    assert np.linalg.norm(exact - reference, axis=1).max() <= 1e-4 * np.linalg.norm(reference, axis=1).min()
    narrow = embedder(folder, engine, pooling=pooling, dtype="bfloat16").embed(pixels, ALL_VALID, AS_IT_IS)
    assert cosines(narrow, reference).min() >= 0.9995  # of noise; of pictures it is 0.9999, see below
    assert cosines(exact, reference).min() >= 0.99999


@pytest.mark.slow
def test_compiled_vectors_are_those_of_transformers(tiny_vit: Path) -> None:
    pixels = noise()
    reference = expected(tiny_vit, "cls+mean", pixels)
    found = embedder(tiny_vit, "compile", pooling="cls+mean").embed(pixels, ALL_VALID, AS_IT_IS)
    assert cosines(found, reference).min() >= 0.99999


@pytest.mark.vectors
@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_invalid_pixels_weigh_nothing_with_any_engine(engine: ResolvedEngine, tiny_vit: Path) -> None:
    pixels, valid = noise(9), np.ones((9, SIDE, SIDE), dtype=bool)
    valid[3:, :40], valid[5, 20:] = False, False
    valid[5, 60:] = True
    hidden = pixels.copy()
    hidden[np.broadcast_to(~valid[:, None], hidden.shape)] = 77
    there = embedder(tiny_vit, engine, pooling="cls+mean")
    first, second = (there.embed(images, valid, AS_IT_IS) for images in (pixels, hidden))
    np.testing.assert_array_equal(first, second)
    singly = embedder(tiny_vit, pooling="cls+mean")
    for number in range(9):
        one = singly.embed(pixels[number : number + 1], valid[number : number + 1], AS_IT_IS)[0]
        np.testing.assert_allclose(first[number], one, rtol=0, atol=1e-4 * np.linalg.norm(one))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_bfloat16_keeps_directions_and_neighbours_of_a_scene(engine: Engine, tmp_path: Path) -> None:
    raster = make_scene(tmp_path, width=960, height=960).raster
    _keeps_directions_and_neighbours([raster], engine, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_bfloat16_keeps_directions_and_neighbours_of_real_tiles(engine: Engine, rasters: Path, tmp_path: Path) -> None:
    names = "TCI.tif", "cogeo.tif", "RGB.byte.tif"
    _keeps_directions_and_neighbours([rasters / name for name in names], engine, tmp_path)


def _keeps_directions_and_neighbours(rasters: Sequence[Path], engine: Engine, folder: Path) -> None:
    def vectors(raster: Path, dtype: ComputeDtype, how: Engine) -> NDArray[np.float64]:
        store = ObjectStore(root=str(folder / dtype))
        manifest = embed(
            store,
            str(raster),
            dataset_id=raster.stem.lower().replace(".", "-"),
            grid=Grid(size=SIDE),
            model=Dinov3(dtype=dtype, device="cpu"),
            execution=Execution(engine=how),
        )
        table = pq.read_table(store.uri(manifest.shards[0].path)).sort_by("tile_id")
        return np.stack(table["embedding"].to_numpy()).astype(np.float64)

    exact = np.concatenate([vectors(raster, "float32", "eager") for raster in rasters])
    narrow = np.concatenate([vectors(raster, "bfloat16", engine) for raster in rasters])
    assert len(exact) >= 200
    assert cosines(narrow, exact).min() >= 0.9999
    assert recall_at_10(narrow, exact) >= 0.99


def recall_at_10(found: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    """Share of each exact vector's ten nearest that are as near among the found ones; equally near ones count."""
    shares = []
    unit, other = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (exact, found))
    exactly, roughly = unit @ unit.T, other @ other.T
    for number in range(len(exact)):
        nearest = np.argsort(-roughly[number])[:11]
        tenth = np.sort(exactly[number])[-11]
        shares.append((exactly[number][nearest] >= tenth - 1e-4).mean())
    return float(np.mean(shares))


@pytest.mark.vectors
def test_folding_is_used_where_the_architecture_is_known(tiny_vit: Path, tiny_convnext: Path) -> None:
    for folder, folds in ((tiny_vit, True), (tiny_convnext, False)):
        network = embedder(folder)._network
        assert isinstance(network, EagerNetwork)
        assert isinstance(network._module, FoldedViT) is folds


def test_weights_are_folded_on_the_device_where_they_are(tiny_vit: Path) -> None:
    from transformers import AutoModel

    network = AutoModel.from_pretrained(tiny_vit).to("meta")  # as strict about other devices as a GPU
    folded = FoldedViT(network, SIDE, patches=False)
    assert {weight.device.type for weight in folded.parameters()} == {"meta"}


def test_transformers_own_network_counts_where_folding_goes_wrong(
    tiny_vit: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FoldedViT, "forward", lambda self, images: torch.ones(len(images), 1, 64))
    pixels = noise()
    found = embedder(tiny_vit).embed(pixels, ALL_VALID, AS_IT_IS)
    assert "folded weights cannot be used" in caplog.text
    assert "its vectors differ by" in caplog.text
    assert cosines(found, expected(tiny_vit, "cls", pixels)).min() >= 0.99999


@pytest.mark.parametrize("error", [AttributeError("no layer_scale1"), RuntimeError("tensors on two devices")])
def test_a_network_that_cannot_be_folded_is_used_unfolded_with_a_warning(
    error: Exception, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: FoldedViT, images: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(FoldedViT, "forward", broken)
    network = embedder(tiny_vit)._network
    assert isinstance(network, EagerNetwork)
    assert isinstance(network._module, TransformersNetwork)
    (record,) = [record for record in caplog.records if record.name == "rasterembed.model.engines"]
    assert f"({type(error).__name__}: {error}): transformers' own network is used" in record.getMessage()


def test_an_engine_that_gives_other_vectors_is_refused(tiny_vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: object, slices: Iterable[torch.Tensor], length: int) -> Iterator[torch.Tensor]:
        return (torch.ones(len(images), 1, 64) for images in slices)

    monkeypatch.setattr(openvino.OpenVinoNetwork, "map", wrong)
    with pytest.raises(DataError, match=r"other vectors in float32 .*cosine .*engine openvino.*use another engine$"):
        embedder(tiny_vit, "openvino")
    assert embedder(tiny_vit, "measure").engine == "eager"


def test_an_export_is_used_again(tiny_vit: Path, cache: Path) -> None:
    first = embedder(tiny_vit, "openvino").embed(noise(), ALL_VALID, AS_IT_IS)
    (kept,) = cache.glob("openvino-*")
    times = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert sorted(times) == ["network.bin", "network.xml"]
    again = embedder(tiny_vit, "openvino").embed(noise(), ALL_VALID, AS_IT_IS)
    np.testing.assert_array_equal(first, again)
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == times
    embedder(tiny_vit, "openvino", dtype="bfloat16")  # the same export
    assert list(cache.glob("openvino-*")) == [kept]
    embedder(tiny_vit, "openvino", pooling="mean")
    assert len(list(cache.glob("openvino-*"))) == 2


@pytest.mark.skipif(platform.machine() != "x86_64", reason="OpenVINO has the step on x86-64 alone")
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_openvino_turns_queries_and_keys_in_a_step_each(
    dtype: ComputeDtype, pooling: Pooling, tiny_vit: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache / "steps" / pooling))
    embedder(tiny_vit, "openvino", pooling=pooling, dtype=dtype)
    (kept,) = (shared_cache / "steps" / pooling / "rasterembed").glob("openvino-*")
    precision = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype]}
    network = openvino.Core().compile_model(kept / "network.xml", "CPU", precision)
    steps = Counter(str(step.get_rt_info()["layerType"].value) for step in network.get_runtime_model().get_ops())
    assert steps["RoPE"] == (3 if pooling == "cls" else 4)  # two layers; CLS, the last query, is not turned
    assert not steps["Split"]  # of products that were made as one
    assert not steps["Gather"]


def test_faiss_leaves_the_threads_of_pytorch_alone_and_the_other_way_round(tmp_path: Path) -> None:
    import faiss

    stored = store(clusters(500, 16), tmp_path)
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    info = write_codes(stored, tmp_path / "codes.faiss", CodesParameters("ivf", "dataset 'scene'"))
    engine = open_codes(tmp_path / "codes.faiss", info, 500, 16)
    engine.candidates(stored.unit(np.arange(500)), 5, None)
    assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == before
    # An embedder has a thread of its own, in which it sets PyTorch's threads.
    with ThreadPoolExecutor(1) as other:
        other.submit(torch.set_num_threads, before[0] + 1).result()
        assert faiss.omp_get_max_threads() == before[1]
        other.submit(torch.set_num_threads, before[0]).result()


def test_pytorch_has_its_threads_back_after_openvino(tiny_vit: Path) -> None:
    def threads(engine: ResolvedEngine) -> int:
        return embedder(tiny_vit, engine)._thread.submit(torch.get_num_threads).result()

    before = threads("eager")
    assert threads("openvino") == 1
    assert threads("eager") == before


@pytest.mark.parametrize(
    "damage", ["cut", *(pytest.param(how, marks=pytest.mark.slow) for how in ("empty", "zeros", "no weights"))]
)
def test_a_damaged_export_is_made_anew(damage: str, tiny_vit: Path, cache: Path) -> None:
    first = embedder(tiny_vit, "openvino").embed(noise(), ALL_VALID, AS_IT_IS)
    (kept,) = cache.glob("openvino-*")
    whole = (kept / "network.bin").read_bytes()
    if damage == "cut":
        (kept / "network.xml").write_bytes((kept / "network.xml").read_bytes()[:5000])
    elif damage == "empty":
        (kept / "network.xml").write_bytes(b"")
    elif damage == "zeros":
        (kept / "network.bin").write_bytes(bytes(len(whole)))
    else:
        (kept / "network.bin").unlink()
    again = embedder(tiny_vit, "openvino").embed(noise(), ALL_VALID, AS_IT_IS)
    np.testing.assert_array_equal(first, again)
    assert list(cache.glob("openvino-*")) == [kept]
    assert (kept / "network.bin").read_bytes() == whole


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_done_without(
    tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    pixels = noise()
    found = embedder(tiny_vit, "openvino").embed(pixels, ALL_VALID, AS_IT_IS)
    assert cosines(found, expected(tiny_vit, "cls", pixels)).min() >= 0.99999
    assert embedder(tiny_vit, "measure").engine in ("eager", "openvino")


_LOAD = """
import sys
from rasterembed.model.embedder import Embedder
from rasterembed.model.choice import Dinov3, resolve_model
there = Embedder(resolve_model(Dinov3(model=sys.argv[1], device="cpu"), 64), "cpu", engine="measure")
print(there.engine, "openvino_telemetry" in sys.modules and sys.modules["openvino_telemetry"] is not None)
"""


@pytest.mark.slow
def test_two_processes_at_once_agree_and_leave_one_export_and_one_choice(tiny_vit: Path, cache: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", _LOAD, str(tiny_vit)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    (choice,) = cache.glob("engine-*.json")
    chosen = json.loads(choice.read_text())["chosen"]
    assert said == [[chosen, "False"]] * 2  # and neither could report to OpenVINO's makers
    assert len(list(cache.glob("openvino-*"))) == 1


def test_the_first_case_counts_unless_another_is_much_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def takes(seconds: float) -> Any:
        def case() -> None:
            nonlocal now
            now += seconds

        return case

    monkeypatch.setattr("time.perf_counter", lambda: now)
    assert pick_fastest({"a": takes(1.0), "b": takes(0.95)}, tmp_path / "near") == "a"
    assert pick_fastest({"a": takes(1.0), "b": takes(0.8), "c": takes(0.75)}, tmp_path / "far") == "b"
    assert pick_fastest({"a": takes(0.1), "b": takes(0.9)}, tmp_path / "far") == "b"  # it was measured once
    (tmp_path / "far").write_text("{")
    assert pick_fastest({"a": takes(0.1), "b": takes(0.9)}, tmp_path / "far") == "a"
    assert json.loads((tmp_path / "far").read_text())["chosen"] == "a"


def test_an_engine_is_resolved_from_device_dtype_and_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    many = 10**6
    found = {
        (engine, device, dtype, tiles): resolve_engine(engine, device, dtype, tiles)
        for engine, device, dtype, tiles in (
            ("auto", "cpu", "float32", AUTO_TILES - 1),
            ("auto", "cpu", "float32", AUTO_TILES),
            ("auto", "cpu", "float16", many),
            ("auto", "cuda", "bfloat16", 1000),
            ("auto", "cuda", "bfloat16", many),
            ("auto", "mps", "float32", many),
            ("compile", "cpu", "float32", 1),
        )
    }
    assert list(found.values()) == ["eager", "measure", "eager", "eager", "compile", "eager", "compile"]
    with pytest.raises(UsageError, match="engine openvino runs on the CPU, not on cuda: use eager or compile"):
        resolve_engine("openvino", "cuda", "bfloat16", many)
    with pytest.raises(UsageError, match="does not compute in float16"):
        resolve_engine("openvino", "cpu", "float16", many)
    monkeypatch.setattr(choice, "has_openvino", lambda: False)
    assert resolve_engine("auto", "cpu", "float32", many) == "eager"


def test_openvino_that_is_not_installed(tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "has_openvino", lambda: False)
    raster = make_scene(tmp_path, width=128, height=128).raster
    with pytest.raises(UsageError, match=r"needs OpenVINO, which is not installed: pip install openvino$"):
        embed(
            ObjectStore(root=str(tmp_path / "store")),
            str(raster),
            grid=Grid(size=SIDE),
            model=Dinov3(model=str(tiny_vit), device="cpu"),
            execution=Execution(engine="openvino"),
        )


@pytest.mark.parametrize(("engine", "named"), [("auto", "eager"), ("eager", "eager"), ("openvino", "openvino")])
def test_the_receipt_names_what_computed(engine: Engine, named: str, tiny_vit: Path, tmp_path: Path) -> None:
    raster = make_scene(tmp_path, width=256, height=256).raster
    store = ObjectStore(root=str(tmp_path / "store"))
    manifest = embed(
        store,
        str(raster),
        dataset_id="d",
        grid=Grid(size=SIDE),
        model=Dinov3(model=str(tiny_vit), device="cpu"),
        selection=Selection(shard_tiles=8),
        execution=Execution(engine=engine),
    )
    assert len(manifest.shards) > 1
    for shard in manifest.shards:
        footer = pq.read_metadata(store.uri(shard.path)).metadata
        computation = json.loads(footer[b"raster_embeddings"])["computation"]
        assert (computation and computation["engine"]) == (named if shard.rows else None)


class _Short:
    """A network on a device that has memory for so many tiles at a time."""

    def __init__(self, network: Any, most: int) -> None:
        self._network, self.most = network, most
        self.lengths: list[int] = []

    def map(self, slices: Iterable[torch.Tensor], length: int) -> Iterator[torch.Tensor]:
        for images in slices:
            self.lengths.append(len(images))
            if len(images) > self.most:
                raise torch.OutOfMemoryError("short of memory")
            yield from self._network.map([images], length)


def test_short_memory_halves_the_slices_for_good(tiny_vit: Path) -> None:
    there = embedder(tiny_vit)
    pixels = noise()
    whole = there.embed(pixels, ALL_VALID, AS_IT_IS)
    there._network = short = _Short(there._network, most=3)
    found = there.embed(pixels, ALL_VALID, AS_IT_IS)
    assert short.lengths == [8, 4, *[2] * 9, 1]
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-4)
    short.lengths.clear()
    there.embed(pixels, ALL_VALID, AS_IT_IS)
    assert short.lengths == [*[2] * 9, 1]
    short.most = 0
    with pytest.raises(DataError, match=r"needs more memory than cpu has free for one tile of 64 px: take a smaller"):
        there.embed(pixels, ALL_VALID, AS_IT_IS)


@pytest.mark.vectors
def test_batches_that_are_not_waited_for_are_those_that_are(tiny_vit: Path) -> None:
    there = embedder(tiny_vit)
    batches = [noise()[first : first + 5] for first in range(0, 15, 5)]
    pending = [there.submit(batch, ALL_VALID[:5], AS_IT_IS) for batch in batches]
    for batch, vectors in zip(batches, pending, strict=True):
        np.testing.assert_array_equal(vectors.result(), there.embed(batch, ALL_VALID[:5], AS_IT_IS))


@pytest.mark.parametrize(
    ("threads", "pooling"),
    [
        (1, "cls"),
        (2, "mean"),
        pytest.param(1, "mean", marks=pytest.mark.slow),
        pytest.param(2, "cls", marks=pytest.mark.slow),
    ],
)
def test_a_vector_does_not_depend_on_the_rest_of_its_batch(threads: int, pooling: Pooling, tiny_vit: Path) -> None:
    loaded = embedder(tiny_vit, pooling=pooling)
    loaded._thread.submit(torch.set_num_threads, threads).result()
    try:
        together = loaded.embed(noise(), ALL_VALID, AS_IT_IS)
        for length in (1, 3, 5):
            parts = [noise()[first : first + length] for first in range(0, 19, length)]
            apart = [loaded.embed(part, ALL_VALID[: len(part)], AS_IT_IS) for part in parts]
            difference = np.linalg.norm(np.concatenate(apart) - together, axis=1) / np.linalg.norm(together, axis=1)
            assert difference.max() <= 1e-5
            again = [loaded.embed(part, ALL_VALID[: len(part)], AS_IT_IS) for part in parts]
            np.testing.assert_array_equal(np.concatenate(again), np.concatenate(apart))
    finally:
        loaded._thread.submit(torch.set_num_threads, loaded.computation.threads).result()


def test_an_embedder_says_what_computes(tiny_vit: Path) -> None:
    computation = embedder(tiny_vit).computation
    assert (computation.engine, computation.device) == ("eager", "cpu")
    assert computation.threads == min(usable_cores(), torch.get_num_threads())
    assert processor_name()
    assert computation.processor == f"{processor_name()} ({torch.backends.cpu.get_cpu_capability()})"


@pytest.mark.parametrize(
    ("groups", "membership", "cores"),
    [
        ({}, None, 64),  # no control groups at all
        ({"cpu.max": "max 100000\n"}, None, 64),
        ({"cpu.max": "50000 100000\n"}, None, 1),
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, 64),
        ({"cpu/cpu.cfs_quota_us": "90000\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, 1),
        # nested groups of version 2: the smallest quota of the group and the groups above it counts
        ({"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "250000 100000\n"}, "0::/a/b\n", 3),
        ({"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "max 100000\n", "c/cpu.max": "1 1\n"}, "0::/a/b\n", 4),
        # nested groups of version 1, in a folder for one controller or for several
        (
            {"cpu/a/cpu.cfs_quota_us": "200000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            "9:memory:/a\n4:cpu,cpuacct:/a/b\n0::/\n",
            2,
        ),
        (
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "500000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            "4:cpu,cpuacct:/a\n",
            5,
        ),
        # in a container the path is the host's, and the container's own group is the root
        ({"cpu.max": "200000 100000\n"}, "0::/system.slice/docker-1.scope\n", 2),
        ({"cpu.max": "200000 100000\n"}, "0::/../other\n", 2),
        ({"cpu.max": "broken\n"}, "broken\n\n", 64),
    ],
)
def test_cores_by_affinity_and_quota(
    groups: dict[str, str], membership: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name, text in groups.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    assert usable_cores(tmp_path / "groups", tmp_path / "membership") == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert usable_cores(tmp_path / "groups", tmp_path / "membership") == 1


def test_a_small_quota_on_a_large_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cores(tmp_path / "no cgroup") == 64
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert usable_cores(tmp_path) == 2


def test_planning_imports_neither_torch_nor_openvino() -> None:
    code = (
        "import sys, rasterembed, rasterembed.pipeline, rasterembed.dataset.plan\n"
        "print([name for name in ('torch', 'openvino', 'transformers') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
