"""Find a DINOv3 checkpoint on the Hugging Face hub or in a folder, or write the demo model's checkpoint.

This module never loads a model. A run without missing shards therefore needs no model in memory.
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
"""Version of the demo checkpoint. Increase it when `make_demo_checkpoint` changes. Older demo checkpoints in the cache
are then not used."""

Family = Literal["dinov3_vit", "dinov3_convnext"]
_FAMILIES: dict[str, int] = {"dinov3_vit": 16, "dinov3_convnext": 32}
"""Model types that can be loaded, each with the default side in px of the square that one token represents."""

_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files on this machine, and the properties of the model from these files."""

    name: str
    """Hub id, absolute path of a folder, or `demo`."""
    folder: Path
    """Folder of the checkpoint's files."""
    revision: str | None
    """Commit of the hub's repository; None for folders and the demo model."""
    weights_sha256: str
    """SHA-256 digest of the weights file. For several files, the digest of the files' digests in the order of names."""
    family: Family
    """`model_type` in config.json."""
    token_side: int
    """Side in px of the square that one patch token represents."""
    hidden_size: int
    """Length of a token's vector."""
    prefix_tokens: int
    """Number of CLS and register tokens before the first patch token."""
    mean: tuple[float, float, float]
    """Mean of red, green and blue in 0..1, from the checkpoint's preprocessor file."""
    std: tuple[float, float, float]
    """Standard deviation of red, green and blue in 0..1, from the same file."""


def find_checkpoint(name: str, revision: str | None = None, token: str | None = None) -> Checkpoint:
    """Find a checkpoint's files. If files are missing in the local cache, download them from the hub.

    Args:
        name: A hub id such as `facebook/dinov3-vits16-pretrain-lvd1689m`, a local folder, or `demo`.
        revision: Branch, tag or commit on the hub.
        token: Access token for gated weights. The default is the token of `hf auth login` or HF_TOKEN.

    Raises:
        DataError: If the files are missing, cannot be downloaded, or are not a DINOv3 checkpoint with safetensors
            weights.

    Example:
        >>> find_checkpoint("demo").hidden_size
        192
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
    """Return True if a name is a folder, and False if it is a hub id."""
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def _from_hub(name: str, revision: str | None, token: str | None) -> Path:
    """Download the missing files of a checkpoint, and return the checkpoint's folder in the hub's local cache.

    Raises:
        DataError: If the checkpoint is not in the cache and cannot be downloaded.
    """
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
    except Exception as error:  # A bad connection or a full disk can raise many classes of exceptions.
        raise DataError(
            f"model {name!r} could not be downloaded ({type(error).__name__}: {one_line(error)}): try again, "
            "or give a local folder"
        ) from error


def _read(name: str, folder: Path, revision: str | None) -> Checkpoint:
    """Read the properties of a model from its checkpoint's files.

    Raises:
        DataError: If a file is missing or broken, or if the model has an unsupported type.
    """
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
    """Read a JSON object from a file of the model `name`."""
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
    """Return the numbers of a list, or None if `values` is not a list of three numbers."""
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        return None
    red, green, blue = map(float, values)
    return red, green, blue


def _digest(files: list[Path]) -> str:
    """Return the digest of weights files. See `Checkpoint.weights_sha256`."""
    digests = [_file_digest(file) for file in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(file: Path) -> str:
    # The hub's cache uses the SHA-256 digest of a large file as the name of its blob. The name saves reading gigabytes.
    blob = Path(os.path.realpath(file))
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    state = file.stat()
    return _content_digest(file, state.st_ino, state.st_size, state.st_mtime_ns)


@cache  # A process that embeds many rasters then reads the weights only once.
def _content_digest(file: Path, *_state: int) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _demo_folder() -> Path:
    """Write the demo checkpoint into the cache if it is missing, and return its folder."""
    folder = cache_folder() / f"demo-{_DEMO_VERSION}"
    if folder.is_dir():
        return folder
    try:
        with new_folder(folder) as aside:
            make_demo_checkpoint(aside)
    except OSError as error:
        raise DataError(
            f"model {DEMO!r} cannot be written to {folder}: {error.strerror}: set XDG_CACHE_HOME to a folder that can "
            "be written"
        ) from error
    return folder


def make_demo_checkpoint(folder: Path) -> None:
    """Write the demo checkpoint: a small, untrained DINOv3 ViT with random weights from a fixed seed.

    The standard deviation of the weights is 1 / sqrt(inputs). With this value, a layer does not change the variance of
    a token. The value is two to four times as large as at the start of training. Vectors then depend on the colour and
    texture of the picture. With smaller weights, all vectors were similar. Sharper or flatter attention, fewer layers
    and larger MLP weights were tried. With each of them, a search for a tile found fewer tiles of the same kind.

    NumPy draws the weights from a uniform distribution. NumPy's random numbers have the same bits on every processor,
    so the weights have the same digest everywhere.

    Args:
        folder: An existing folder for the files.
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
    """Write a checkpoint's `preprocessor_config.json`.

    Args:
        folder: The checkpoint's folder.
        mean: Mean of red, green and blue in 0..1.
        std: Standard deviation of red, green and blue in 0..1.
    """
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
