"""Where a DINOv3 checkpoint's weights are, and what they are: from the hub, a folder, or made here.

Nothing in this module loads a model, so that a run that has nothing left to do never pays for one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rasterembed.errors import DataError, one_line
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.write_aside import new_folder

DEMO = "demo"
"""Name of the small, untrained model that needs no download."""

_DEMO_SEED = 3
_DEMO_VERSION = 2
"""Raised whenever the demo checkpoint's making changes, so that an old one in a cache is not taken for it."""

Family = Literal["dinov3_vit", "dinov3_convnext"]
_FAMILIES: dict[str, int] = {"dinov3_vit": 16, "dinov3_convnext": 32}
"""`model_type` of the checkpoints that can be loaded, and the px a side that one token stands for."""

_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine."""

    name: str
    """Hub id, absolute path of a folder, or `demo`."""
    folder: Path
    """Where its files are."""
    revision: str | None
    """Commit of the hub's repository."""
    weights_sha256: str
    """Digest of the weights: of the file, or of the digests of several in the order of their names."""
    family: Family
    token_side: int
    """Side in px of the square that one patch token stands for."""
    hidden_size: int
    """Length of a token's vector."""
    prefix_tokens: int
    """CLS and register tokens before the first patch token."""
    mean: tuple[float, float, float]
    """Mean of red, green and blue in 0..1, from the checkpoint's preprocessor file."""
    std: tuple[float, float, float]
    """Standard deviation, likewise."""


def find_checkpoint(name: str, revision: str | None = None, token: str | None = None) -> Checkpoint:
    """Find a checkpoint's files, downloading them from the hub if need be.

    Args:
        name: a hub id as `facebook/dinov3-vits16-pretrain-lvd1689m`, a local folder, or `demo`.
        revision: branch, tag or commit on the hub.
        token: access token for gated weights; by default the one that `hf auth login` or HF_TOKEN set.

    Raises:
        DataError: if the weights cannot be had, or are not a DINOv3 checkpoint in safetensors.
    """
    if name == DEMO:
        return _read(name, _demo_folder(), None)
    if _is_folder(name):
        folder = Path(name).expanduser().absolute()
        if not folder.is_dir():
            raise DataError(f"model {name!r}: there is no such folder")
        return _read(str(folder), folder, None)
    folder = _from_hub(name, revision, token)
    return _read(name, folder, folder.name)


def _is_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def _from_hub(name: str, revision: str | None, token: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    page = f"https://huggingface.co/{name}"
    try:
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=list(_FILES)))
    except errors.GatedRepoError as error:
        raise DataError(
            f"model {name!r} is gated: accept its licence at {page}, then log in (hf auth login) or set "
            "HF_TOKEN, or give a model block with your token"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"model {name!r} has no revision {revision!r}: see {page}") from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"model {name!r} is not on the hub, or is private: check the id at {page}; "
            "for a private or gated one log in (hf auth login) or set HF_TOKEN"
        ) from error
    except errors.HFValidationError as error:
        raise DataError(f"model {name!r} is neither a hub id (owner/name), a folder, nor {DEMO!r}") from error
    except errors.LocalEntryNotFoundError as error:
        raise DataError(
            f"model {name!r} cannot be downloaded and is not in the local cache: check the connection to "
            f"{page}, or give a local folder"
        ) from error
    except Exception as error:  # the connection or the disk, as the HTTP library's and Python's many kinds
        raise DataError(
            f"model {name!r} could not be downloaded ({type(error).__name__}: {one_line(error)}): try again, "
            "or give a local folder"
        ) from error


def _read(name: str, folder: Path, revision: str | None) -> Checkpoint:
    config = _json(name, folder / "config.json")
    family = config.get("model_type")
    if family not in _FAMILIES:
        raise DataError(f"model {name!r} is of type {family!r}: DINOv3 ViT and ConvNeXt checkpoints are supported")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise DataError(f"model {name!r} has no safetensors weights in {folder}; other formats are not loaded")
    processor = _json(name, folder / "preprocessor_config.json")
    mean, std = _three(processor.get("image_mean")), _three(processor.get("image_std"))
    if mean is None or std is None or min(std) <= 0:
        raise DataError(
            f"model {name!r}: {folder / 'preprocessor_config.json'} needs image_mean and image_std, three numbers each"
        )
    vit = family == "dinov3_vit"
    try:
        token_side = int(config["patch_size"]) if vit else _FAMILIES[family]
        hidden_size = int(config["hidden_size"] if vit else config["hidden_sizes"][-1])
        prefix_tokens = 1 + int(config.get("num_register_tokens", 0)) if vit else 1
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"model {name!r}: {folder / 'config.json'} lacks the patch or hidden size of a {family} model"
        ) from error
    return Checkpoint(
        name=name,
        folder=folder,
        revision=revision,
        weights_sha256=_digest(weights),
        family=family,
        token_side=token_side,
        hidden_size=hidden_size,
        prefix_tokens=prefix_tokens,
        mean=mean,
        std=std,
    )


def _json(name: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"model {name!r}: {path} is missing") from error
    except ValueError as error:
        raise DataError(f"model {name!r}: {path} is not JSON") from error
    if not isinstance(content, dict):
        raise DataError(f"model {name!r}: {path} is not a JSON object")
    return content


def _three(values: object) -> tuple[float, float, float] | None:
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        return None
    red, green, blue = map(float, values)
    return red, green, blue


def _digest(files: list[Path]) -> str:
    digests = [_file_digest(file) for file in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(file: Path) -> str:
    # the hub's cache names a large file's blob by its sha256: no need to read gigabytes again
    blob = Path(os.path.realpath(file))
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    state = file.stat()
    return _content_digest(file, state.st_ino, state.st_size, state.st_mtime_ns)


@cache  # a process that embeds many rasters reads its weights once
def _content_digest(file: Path, *_state: int) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _demo_folder() -> Path:
    folder = cache_folder() / f"demo-{_DEMO_VERSION}"
    if folder.is_dir():
        return folder
    try:
        with new_folder(folder) as aside:
            make_demo_checkpoint(aside)
    except OSError as error:
        raise DataError(
            f"model {DEMO!r} cannot be kept in {folder}: {error.strerror}: set XDG_CACHE_HOME to a folder that can "
            "be written"
        ) from error
    return folder


def make_demo_checkpoint(folder: Path) -> None:
    """Write the demo checkpoint: a small DINOv3 ViT with random weights from a fixed seed.

    The weights are drawn with the deviation that keeps a token's variance through a layer (1 / sqrt(inputs)), two to
    four times the one that training starts from: untrained as it is, its vectors then follow the picture's colour and
    texture instead of being all alike. Sharper or flatter attention, fewer layers and larger MLP weights all found
    fewer neighbours of a tile's own kind. The draws are uniform and NumPy's, for these are the same bits on every
    processor, and so the weights have one digest everywhere.
    """
    import torch
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_register_tokens=4,
    )
    generator = np.random.Generator(np.random.PCG64(_DEMO_SEED))
    model = DINOv3ViTModel(config)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.ndim >= 2 and "mask_token" not in name:
                bound = np.float32(math.sqrt(3 / weight[0].numel()))
                draws = generator.random(tuple(weight.shape), dtype=np.float32)
                weight.copy_(torch.from_numpy((2 * draws - 1) * bound))
    model.save_pretrained(folder)
    write_preprocessor(folder, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def write_preprocessor(folder: Path, *, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
    """Write the `preprocessor_config.json` that goes with a checkpoint."""
    content = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "do_resize": True,
        "size": {"height": 224, "width": 224},
        "resample": 2,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2))
