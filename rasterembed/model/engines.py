"""Load a checkpoint into an engine, and compare the engine's vectors with those of transformers' network in float32."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from rasterembed.errors import DataError, one_line
from rasterembed.model.checkpoints import Checkpoint
from rasterembed.model.choice import ComputeDtype, LoadedEngine, ResolvedEngine, ResolvedModel
from rasterembed.model.config_file import VitArchitecture
from rasterembed.model.expected_vectors import ExpectedVectors
from rasterembed.model.folded_vit import FoldedViT
from rasterembed.model.measurement import pick_fastest
from rasterembed.model.networks import SLICE, CompiledNetwork, EagerNetwork, Network, TransformersNetwork
from rasterembed.model.openvino import OpenVinoNetwork
from rasterembed.model.processor import processor_name, usable_cores
from rasterembed.model.vit_weights import VitWeights
from rasterembed.model.weights import load_weights
from rasterembed.slow_imports import collector_paused
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.write_aside import remove_folder

MIN_COSINE: dict[ComputeDtype, float] = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}
"""Smallest allowed cosine between an engine's vectors and those of transformers' float32 network, by dtype."""

FOLDING_ERROR = 1e-4
"""Largest allowed error of the folded network in float32: the norm of the difference between its vectors and
transformers' vectors, divided by the norm of transformers' vectors."""

_EXPORT_VERSION = 3
"""Version of the export. Increase it when the export's code changes. Older exports in the cache are then not used."""

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


@dataclass(frozen=True)
class _Loaded:
    """The weights of a checkpoint, and their network in float32."""

    weights: nn.Module
    """Transformers' network, or `VitWeights`."""
    expected: Tensor
    """Vectors of transformers' network for images of noise. `_summary` describes the shape."""
    network: nn.Module
    """The folded network, or transformers' network if it cannot be folded."""
    vectors: Tensor
    """Vectors of `network` for the same images."""

    def error(self) -> float:
        """Return the norm of the difference between the vectors and the expected vectors, relative to the latter."""
        return float((self.vectors - self.expected).norm() / self.expected.norm())


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
        self._note = ExpectedVectors(checkpoint, model.input_size, device, patches=self._patches)
        self._loaded = self._load_as_noted() or self._load_with_transformers()
        self._folds = isinstance(self._loaded.network, FoldedViT)

    def _load_as_noted(self) -> _Loaded | None:
        """Load the weights without transformers, and compare the vectors with those that transformers computed before.

        Returns:
            None if this model was not compared with transformers on this machine before, or if the vectors differ. The
            model must then be loaded with transformers.
        """
        architecture, expected = self._checkpoint.architecture, self._note.read()
        if expected is None or not isinstance(architecture, VitArchitecture):
            return None
        try:
            weights = VitWeights(architecture)
            weights.fill(load_weights(self._checkpoint.name, self._checkpoint.folder))
            loaded = self._loaded_folded(weights.to(self._device), expected)
        except Exception as error:  # Loading with transformers finds the same fault, and describes it.
            _log.debug("model %r cannot be loaded without transformers: %s", self._model.name, error)
            return None
        return loaded if loaded.error() <= FOLDING_ERROR else None

    def _load_with_transformers(self) -> _Loaded:
        """Load the weights with transformers. Use the folded network if its vectors are those of transformers' network.

        A new version of transformers may build the network in a way that `FoldedViT` does not expect. A warning is then
        logged, and the unfolded network is used. The unfolded network is slower, but its vectors are correct.

        Raises:
            DataError: If the weights do not load, or if the vectors are zero or not finite.
        """
        with collector_paused():  # transformers takes long to import, and most processes do not need it.
            from rasterembed.model.transformers_loading import load_with_transformers
        weights = load_with_transformers(self._checkpoint).to(self._device)
        network = self._unfolded(weights, torch.float32)
        expected = _summary(network(self._noise(2)))
        if not expected.isfinite().all() or not expected.norm(dim=-1).all():
            raise DataError(
                f"model {self._model.name!r}: the weights in {self._checkpoint.folder} give vectors that are zero or "
                "not finite: download the checkpoint again"
            )
        unfolded = _Loaded(weights, expected, network, expected)
        if self._checkpoint.family != "dinov3_vit":
            return unfolded
        try:
            folded = self._loaded_folded(weights, expected)
        except (AttributeError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
        else:
            if folded.error() <= FOLDING_ERROR:
                self._leave_note(folded)
                return folded
            reason = f"its vectors differ by {folded.error():.1e} of their norm"
        _log.warning(
            "model %r: the network with folded weights cannot be used with transformers %s (%s): transformers' own "
            "network is used. It is slower",
            self._model.name,
            version("transformers"),
            reason,
        )
        return unfolded

    def _loaded_folded(self, weights: nn.Module, expected: Tensor) -> _Loaded:
        """Fold the weights, and compute the vectors of the folded network."""
        folded = self._folded(weights, torch.float32)
        return _Loaded(weights, expected, folded, _summary(folded(self._noise(2))))

    def _leave_note(self, loaded: _Loaded) -> None:
        """Remember the vectors of transformers' network, if the next process can do without transformers.

        Args:
            loaded: The folded network, with the weights of transformers' network.
        """
        architecture = self._checkpoint.architecture
        if not isinstance(architecture, VitArchitecture):
            return
        with suppress(ValueError):  # `VitWeights` does not know every activation that transformers knows.
            tensors = load_weights(self._checkpoint.name, self._checkpoint.folder)
            if VitWeights(architecture).can_replace(loaded.weights, tensors):
                self._note.write(loaded.expected)

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
            network = OpenVinoNetwork(self._loaded.network, self._model.input_size, dtype, engine_threads(), folder)
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
            return self._loaded.network
        return (self._folded if self._folds else self._unfolded)(self._loaded.weights, dtype)

    def _unfolded(self, weights: nn.Module, dtype: torch.dtype) -> TransformersNetwork:
        return TransformersNetwork(weights, self._checkpoint.prefix_tokens, patches=self._patches, dtype=dtype)

    def _folded(self, weights: nn.Module, dtype: torch.dtype) -> FoldedViT:
        folded = FoldedViT(weights, self._model.input_size, patches=self._patches, dtype=dtype)
        return folded.to(self._device)

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
        if isinstance(network, EagerNetwork) and network.runs(self._loaded.network):
            vectors = self._loaded.vectors  # The same network has computed the same images before.
        else:
            vectors = _summary(_run(network, self._noise(2)))
        return float(functional.cosine_similarity(vectors, self._loaded.expected, dim=-1).min())

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
