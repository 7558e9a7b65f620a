"""Load a checkpoint into an engine, and compare the engine's vectors with those of transformers' network in float32."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

from rasterembed.errors import DataError, one_line
from rasterembed.model.checkpoints import Checkpoint
from rasterembed.model.choice import ComputeDtype, LoadedEngine, ResolvedEngine, ResolvedModel
from rasterembed.model.config_file import Family
from rasterembed.model.folded_vit import FoldedViT
from rasterembed.model.measurement import pick_fastest
from rasterembed.model.networks import SLICE, CompiledNetwork, EagerNetwork, Network, TransformersNetwork
from rasterembed.model.openvino import OpenVinoNetwork
from rasterembed.model.processor import processor_name, usable_cores
from rasterembed.model.weights import load_weights
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.write_aside import remove_folder

MIN_COSINE: dict[ComputeDtype, float] = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}
"""Smallest allowed cosine between an engine's vectors and those of transformers' float32 network, by dtype."""

FOLDING_ERROR = 1e-4
"""Largest allowed error of the folded network in float32: the norm of the difference between its vectors and
transformers' vectors, divided by the norm of transformers' vectors."""

_EXPORT_VERSION = 3
"""Version of the export. Increase it when the export's code changes. Older exports in the cache are then not used."""

_NETWORKS: dict[Family, tuple[Any, Literal["sdpa", "eager"]]] = {
    "dinov3_vit": (transformers.DINOv3ViTModel, "sdpa"),
    "dinov3_convnext": (transformers.DINOv3ConvNextModel, "eager"),
}
"""Class of the network, and the implementation of its attention. A ConvNeXt has no attention."""

_log = logging.getLogger(__name__)


def load_network(
    checkpoint: Checkpoint, model: ResolvedModel, device: torch.device, engine: ResolvedEngine
) -> tuple[LoadedEngine, Network]:
    """Load the weights into an engine, and check the engine's vectors.

    This function also sets the number of PyTorch's threads for the whole process.

    Returns:
        The engine and its network. If `engine` is `measure`, the returned engine is the fastest one.

    Raises:
        DataError: If the weights do not load, or if the network's vectors differ from those of transformers' network.
    """
    torch.set_num_threads(engine_threads())
    builder = _NetworkBuilder(checkpoint, model, device)
    loaded, network = builder.build_fastest() if engine == "measure" else (engine, builder.build(engine))
    if loaded == "openvino":
        # Give PyTorch one thread. It now only turns pixels into colours. More threads would be idle, but an idle thread
        # of PyTorch keeps its core busy, and OpenVINO needs the cores.
        torch.set_num_threads(1)
    return loaded, network


@cache
def engine_threads() -> int:
    """Return the number of threads for an engine: the number of usable cores, or OMP_NUM_THREADS if it is smaller.

    The first result is kept for the whole process, because `load_network` changes PyTorch's number of threads later.
    """
    return min(usable_cores(), torch.get_num_threads())


class _NetworkBuilder:
    """Builds the networks of one checkpoint.

    Args:
        checkpoint: The checkpoint to load.
        model: The model of the plan.
        device: The device for the networks.

    Raises:
        DataError: If the weights do not load.
    """

    def __init__(self, checkpoint: Checkpoint, model: ResolvedModel, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._model = model
        self._device = device
        self._patches = model.pooling != "cls"
        self._loaded = _load(checkpoint).to(device)
        unfolded = self._unfolded(torch.float32)
        self._expected = _summary(unfolded(self._noise(2)))
        folded = self._checked_folded()
        self._folds = folded is not None
        self._float32: nn.Module = unfolded if folded is None else folded

    def build(self, engine: LoadedEngine) -> Network:
        """Load the network of an engine, check the network's vectors, and return the network.

        Raises:
            DataError: If the engine cannot run the network, or if the network's vectors differ from those of
                transformers' network.
        """
        if engine == "openvino":
            return self._build_openvino()
        module = self._module()
        network = EagerNetwork(module) if engine == "eager" else CompiledNetwork(module, self._device)
        try:
            cosine = self._cosine(network)
        except Exception as error:
            if engine == "eager":
                raise
            # The machine has no compiler, or torch.compile cannot compile the network. Both cases can raise many
            # classes of exceptions.
            raise DataError(
                f"model {self._model.name!r} cannot be compiled here: {one_line(error)}: use engine eager"
            ) from error
        self._check(cosine, engine)
        return network

    def build_fastest(self) -> tuple[LoadedEngine, Network]:
        """Measure eager and OpenVINO. Return the faster engine and its network."""
        eager = self.build("eager")
        try:
            openvino = self._build_openvino()
        except DataError as error:
            _log.warning("engine eager is used instead of openvino: %s", error)
            return "eager", eager
        networks: dict[LoadedEngine, Network] = {"eager": eager, "openvino": openvino}
        images = self._noise(SLICE * max(2, openvino.parallel_slices))
        cases: dict[LoadedEngine, Callable[[], object]] = {
            "eager": lambda: _run(eager, images),
            "openvino": lambda: _run(openvino, images),
        }
        answer_file = self._cache_path("engine", processor_name(), engine_threads(), self._model.dtype)
        chosen = pick_fastest(cases, answer_file.with_suffix(".json"))
        return chosen, networks[chosen]

    def _build_openvino(self) -> OpenVinoNetwork:
        dtype: Literal["float32", "bfloat16"] = "bfloat16" if self._model.dtype == "bfloat16" else "float32"
        folder = self._cache_path("openvino")
        was_exported = folder.is_dir()

        def load() -> tuple[OpenVinoNetwork, float]:
            network = OpenVinoNetwork(self._float32, self._model.input_size, dtype, engine_threads(), folder)
            return network, self._cosine(network)

        try:
            network, cosine = load()
            if was_exported and not cosine >= MIN_COSINE[dtype]:
                # OpenVINO can load a damaged export without an error. The vectors are then wrong. Write a new export.
                remove_folder(folder)
                network, cosine = load()
        except Exception as error:  # An unknown operation or processor can raise many classes of exceptions.
            raise DataError(
                f"model {self._model.name!r} cannot be run by OpenVINO here: {one_line(error)}: use engine eager"
            ) from error
        self._check(cosine, "openvino")
        return network

    def _cache_path(self, kind: str, *more: object) -> Path:
        """Return a path in the cache folder.

        The path is different for other weights, networks, library versions, input sides and values of `more`.
        """
        packages = [version(package) for package in ("torch", "transformers", "openvino")]
        config = (self._checkpoint.folder / "config.json").read_text()
        key = [_EXPORT_VERSION, self._checkpoint.weights_sha256, config, packages, self._model.input_size]
        text = json.dumps([*key, SLICE, self._patches, self._folds, *more])
        return cache_folder() / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _module(self) -> nn.Module:
        """Return the PyTorch network in the model's dtype: the folded network, if the checkpoint can be folded."""
        dtype: torch.dtype = getattr(torch, self._model.dtype)
        if dtype == torch.float32:
            return self._float32
        return self._folded(dtype) if self._folds else self._unfolded(dtype)

    def _unfolded(self, dtype: torch.dtype) -> TransformersNetwork:
        return TransformersNetwork(self._loaded, self._checkpoint.prefix_tokens, patches=self._patches, dtype=dtype)

    def _folded(self, dtype: torch.dtype) -> FoldedViT:
        folded = FoldedViT(self._loaded, self._model.input_size, patches=self._patches, dtype=dtype)
        return folded.to(self._device)

    def _checked_folded(self) -> FoldedViT | None:
        """Return the folded float32 network, or None if the checkpoint cannot be folded.

        A new version of transformers may build the network in a way that `FoldedViT` does not expect. A warning is then
        logged, and the unfolded network is used. The unfolded network is slower, but its vectors are correct.
        """
        if self._checkpoint.family != "dinov3_vit":
            return None
        try:
            folded = self._folded(torch.float32)
            vectors = _summary(folded(self._noise(2)))
        except (AttributeError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
        else:
            difference = float((vectors - self._expected).norm() / self._expected.norm())
            if difference <= FOLDING_ERROR:
                return folded
            reason = f"its vectors differ by {difference:.1e} of their norm"
        _log.warning(
            "model %r: the network with folded weights cannot be used with transformers %s (%s): transformers' own "
            "network is used. It is slower",
            self._model.name,
            transformers.__version__,
            reason,
        )
        return None

    def _check(self, cosine: float, engine: LoadedEngine) -> None:
        """Raise a DataError if the cosine is too small or NaN."""
        dtype = self._model.dtype
        if not cosine >= MIN_COSINE[dtype]:
            raise DataError(
                f"model {self._model.name!r} gives other vectors in {dtype} than in float32 "
                f"(cosine {cosine:.4f}, engine {engine}): "
                + ("use another engine" if dtype == "float32" else "use dtype bfloat16 or float32")
            )

    def _cosine(self, network: Network) -> float:
        """Return the smallest cosine between the vectors of a network and those of transformers' float32 network.

        The images for this comparison are noise.
        """
        vectors = _summary(_run(network, self._noise(2)))
        return float(functional.cosine_similarity(vectors, self._expected, dim=-1).min())

    def _noise(self, count: int) -> Tensor:
        """Return images of noise for checks and timings. Every call returns the same images."""
        side = self._model.input_size
        generator = torch.Generator().manual_seed(0)
        return torch.randn((2, 3, side, side), generator=generator).repeat(-(-count // 2), 1, 1, 1).to(self._device)


def _run(network: Network, images: Tensor) -> Tensor:
    """Return a network's tokens for images."""
    slices = [images[i : i + SLICE] for i in range(0, len(images), SLICE)]
    return torch.cat([tokens.clone() for tokens in network.map(slices, SLICE)])


def _summary(tokens: Tensor) -> Tensor:
    """Return the CLS token and, if patch tokens exist, their mean. The shape is (n, 1 or 2, hidden)."""
    parts = [tokens[:, :1]]
    if tokens.shape[1] > 1:
        parts.append(tokens[:, 1:].mean(dim=1, keepdim=True))
    return torch.cat(parts, dim=1).cpu().double()


def _load(checkpoint: Checkpoint) -> Any:
    """Load a checkpoint with transformers, in float32.

    transformers gets only the checked configuration and the tensors. It does not read the checkpoint's folder. Other
    files and fields of a checkpoint could make transformers fetch a kernel, or load weights that are not part of the
    digest.

    Raises:
        DataError: If a file is damaged, or if the weights are not those of the network that config.json describes.
    """
    # Turn off transformers' progress bar, because it would break the run's own output. Also turn off its table of
    # wrong tensors.
    transformers.utils.logging.disable_progress_bar()
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    network_class, attention = _NETWORKS[checkpoint.family]
    try:
        tensors = load_weights(checkpoint.name, checkpoint.folder)
        _check_buildable(checkpoint, sum(tensor.numel() for tensor in tensors.values()))
        network, report = network_class.from_pretrained(
            None,
            config=network_class.config_class(**checkpoint.architecture.model_dump()),
            state_dict=tensors,
            attn_implementation=attention,
            ignore_mismatched_sizes=True,  # The report lists these tensors, and `_check_complete` refuses them.
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except DataError:
        raise
    except Exception as error:  # A damaged file can raise many classes of exceptions.
        raise DataError(
            f"model {checkpoint.name!r} does not load from {checkpoint.folder}: {one_line(error)}"
        ) from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    _check_complete(checkpoint, report)
    return network.eval()  # In training mode, the network would vary the rotary positions at random.


def _check_buildable(checkpoint: Checkpoint, weights: int) -> None:
    """Refuse a network that is larger than its weights, before memory is allocated for the network.

    Args:
        checkpoint: The checkpoint.
        weights: Number of weights in the files.
    """
    architecture = checkpoint.architecture
    problem = architecture.problem(weights)
    if problem is None and architecture.hidden_act not in ACT2FN:
        problem = f"hidden_act {architecture.hidden_act!r} is not known to transformers {transformers.__version__}"
    if problem is not None:
        raise DataError(f"model {checkpoint.name!r}: {checkpoint.folder / 'config.json'}: {problem}")


def _check_complete(checkpoint: Checkpoint, report: dict[str, Any]) -> None:
    """Refuse weights that lack tensors, or that have tensors of another shape than the network.

    Args:
        checkpoint: The checkpoint.
        report: Transformers' report of the load.
    """
    place = f"model {checkpoint.name!r}: the weights in {checkpoint.folder}"
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, found, expected = mismatched[0]
        raise DataError(
            f"{place} do not fit config.json: {name} has the shape {tuple(found)}, and config.json asks for "
            f"{tuple(expected)}: download the checkpoint again"
        )
    # Transformers fills missing tensors with random numbers. The mask token may be missing: only training uses it.
    missing = sorted(key for key in report["missing_keys"] if "mask_token" not in key)
    if missing:
        raise DataError(
            f"{place} lack {len(missing)} tensors of the model that config.json describes (such as {missing[0]}): "
            "download the checkpoint again"
        )
