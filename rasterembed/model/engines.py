"""A checkpoint's network as this machine computes it best, checked against transformers' own in float32."""

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

from rasterembed.errors import DataError, one_line
from rasterembed.model.checkpoints import Checkpoint
from rasterembed.model.choice import LoadedEngine, ResolvedEngine, ResolvedModel
from rasterembed.model.folded_vit import FoldedViT
from rasterembed.model.measurement import fastest
from rasterembed.model.networks import Compiled, Eager, Network, OwnNetwork
from rasterembed.model.openvino import SLICE, Exported
from rasterembed.model.processor import processor_name, usable_cores
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.write_aside import remove_folder

MIN_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}
"""Cosine to the vectors of transformers' own float32 network below which a way to compute them is refused."""

FOLDING_ERROR = 1e-4
"""Norm of the difference over the norm, in float32, above which transformers' own network is used unfolded."""

_EXPORT_VERSION = 2
"""Raised whenever exports are made in another way, so that an old one in a cache is not taken for it."""

_log = logging.getLogger(__name__)


def load_network(
    checkpoint: Checkpoint, model: ResolvedModel, device: torch.device, asked: ResolvedEngine
) -> tuple[LoadedEngine, Network]:
    """Load the weights, and make of them the network that was asked for; see `Network` for what it takes and gives.

    PyTorch is left with as many threads as the network needs of it, in this thread and in those to come.

    Raises:
        DataError: if the weights do not load, or the network gives other vectors than transformers' own.
    """
    torch.set_num_threads(engine_threads())
    making = _Making(checkpoint, model, device)
    engine, network = _fastest(making, model.dtype) if asked == "measure" else (asked, making.network(asked))
    if engine == "openvino":
        # what is left to PyTorch is little, and threads of its that wait for more of it spin on OpenVINO's cores
        torch.set_num_threads(1)
    return engine, network


@cache
def engine_threads() -> int:
    """Threads for a network; kept, for what PyTorch says of itself is changed here."""
    return min(usable_cores(), torch.get_num_threads())  # the latter heeds OMP_NUM_THREADS


def _fastest(making: _Making, dtype: str) -> tuple[Literal["eager", "openvino"], Network]:
    eager = making.network("eager")
    try:
        exported = making.exported()
    except DataError as error:
        _log.warning("eager instead of OpenVINO: %s", error)
        return "eager", eager
    networks: dict[Literal["eager", "openvino"], Network] = {"eager": eager, "openvino": exported}
    batch = making.noise(SLICE * max(2, exported.at_once))
    cases: dict[Literal["eager", "openvino"], Callable[[], object]] = {
        "eager": lambda: _run(eager, batch),
        "openvino": lambda: _run(exported, batch),
    }
    chosen = fastest(cases, making.kept("engine", processor_name(), engine_threads(), dtype).with_suffix(".json"))
    return chosen, networks[chosen]


class _Making:
    """The networks that can be made of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, model: ResolvedModel, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._model = model
        self._device = device
        self._patches = model.pooling != "cls"
        self._own = _load(checkpoint).to(device)
        self._reference = OwnNetwork(self._own, checkpoint.prefix_tokens, patches=self._patches)
        self._expected = _summary(self._reference(self.noise(2)))
        folded = self._folded(torch.float32)
        self._folds = folded is not None and self._error(folded) <= FOLDING_ERROR
        self._exact: nn.Module = folded if folded is not None and self._folds else self._reference

    def noise(self, count: int) -> Tensor:
        """The same images every time."""
        side = self._model.input_size
        generator = torch.Generator().manual_seed(0)
        return torch.randn((2, 3, side, side), generator=generator).repeat(-(-count // 2), 1, 1, 1).to(self._device)

    def kept(self, what: str, *more: object) -> Path:
        """A name in the cache for something that depends on weights, network, libraries and the input's shape."""
        packages = [version(package) for package in ("torch", "transformers", "openvino")]
        config = (self._checkpoint.folder / "config.json").read_text()
        key = [_EXPORT_VERSION, self._checkpoint.weights_sha256, config, packages, self._model.input_size]
        text = json.dumps([*key, SLICE, self._patches, self._folds, *more])
        return cache_folder() / f"{what}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def network(self, engine: LoadedEngine) -> Network:
        """A network, checked.

        Raises:
            DataError: if it gives other vectors than transformers' own.
        """
        if engine == "openvino":
            return self.exported()
        module = self._module()
        network = Eager(module) if engine == "eager" else Compiled(module, self._device)
        try:
            cosine = self._cosine(network)
        except Exception as error:
            if engine == "eager":
                raise
            raise DataError(  # no compiler, or a network that it cannot compile
                f"model {self._model.name!r} cannot be compiled here: {one_line(error)}: use engine eager"
            ) from error
        self._check(cosine, engine)
        return network

    def exported(self) -> Exported:
        dtype: Literal["float32", "bfloat16"] = "bfloat16" if self._model.dtype == "bfloat16" else "float32"
        kept = self.kept("openvino")
        there = kept.is_dir()
        try:
            network = Exported(self._exact, self._model.input_size, dtype, engine_threads(), kept)
            cosine = self._cosine(network)
        except Exception as error:  # an architecture that it cannot convert, a processor that it does not know
            raise DataError(
                f"model {self._model.name!r} cannot be run by OpenVINO here: {one_line(error)}: use engine eager"
            ) from error
        if there and not cosine >= MIN_COSINE[dtype]:  # the files may be damaged and yet be read
            remove_folder(kept)
            network = Exported(self._exact, self._model.input_size, dtype, engine_threads(), kept)
            cosine = self._cosine(network)
        self._check(cosine, "openvino")
        return network

    def _check(self, cosine: float, engine: str) -> None:
        dtype = self._model.dtype
        if not cosine >= MIN_COSINE[dtype]:  # NaN too
            raise DataError(
                f"model {self._model.name!r} gives other vectors in {dtype} than in float32 "
                f"(cosine {cosine:.4f}, engine {engine}): "
                + ("use another engine" if dtype == "float32" else "use dtype bfloat16 or float32")
            )

    def _module(self) -> nn.Module:
        dtype: torch.dtype = getattr(torch, self._model.dtype)
        if dtype == torch.float32:
            return self._exact
        folded = self._folded(dtype) if self._folds else None
        return folded or OwnNetwork(self._own, self._checkpoint.prefix_tokens, patches=self._patches, dtype=dtype)

    def _folded(self, dtype: torch.dtype) -> nn.Module | None:
        if self._checkpoint.family != "dinov3_vit":
            return None
        try:
            return FoldedViT(self._own, self._model.input_size, patches=self._patches, dtype=dtype).to(self._device)
        except (AttributeError, RuntimeError):  # transformers builds it in another way
            return None

    def _error(self, module: nn.Module) -> float:
        try:
            found = _summary(module(self.noise(2)))
        except RuntimeError:
            return float("inf")
        return float((found - self._expected).norm() / self._expected.norm())

    def _cosine(self, network: Network) -> float:
        found = _summary(_run(network, self.noise(2)))
        return float(functional.cosine_similarity(found, self._expected, dim=-1).min())


def _run(network: Network, images: Tensor) -> Tensor:
    slices = [images[i : i + SLICE] for i in range(0, len(images), SLICE)]
    return torch.cat([tokens.clone() for tokens in network.map(slices, SLICE)])


def _summary(tokens: Tensor) -> Tensor:
    """What vectors are made of, shape (n, 1 or 2, hidden): the CLS token, and the mean of the patch tokens."""
    parts = [tokens[:, :1]]
    if tokens.shape[1] > 1:
        parts.append(tokens[:, 1:].mean(dim=1, keepdim=True))
    return torch.cat(parts, dim=1).cpu().double()


def _load(checkpoint: Checkpoint) -> Any:
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would break up the run's own
    try:
        network, report = transformers.AutoModel.from_pretrained(
            checkpoint.folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged file
        raise DataError(
            f"model {checkpoint.name!r} does not load from {checkpoint.folder}: {one_line(error)}"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if "mask_token" not in key)
    if missing:  # transformers would draw them at random
        raise DataError(
            f"model {checkpoint.name!r}: the weights in {checkpoint.folder} lack {len(missing)} tensors of the model "
            f"that config.json describes (as {missing[0]}): get the checkpoint anew"
        )
    return network.eval()  # in training mode the rotary positions are jittered
