"""Find a DINOv3 checkpoint on the Hugging Face hub or in a folder, or write the demo model's checkpoint.

This module never loads a model. A run that finds all shards complete therefore needs no model in memory.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rasterembed.errors import DataError, one_line
from rasterembed.model.config_file import Architecture, Family, read_architecture
from rasterembed.model.normalisation import Normalisation, read_normalisation
from rasterembed.model.weights import digest_of, weights_files
from rasterembed.near_names import known_names
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.local_path import absolute_path
from rasterembed.store.write_aside import new_folder

DEMO = "demo"
"""Name of the small, untrained model that needs no download."""

KNOWN_MODELS = (
    *(
        f"facebook/dinov3-{network}-pretrain-lvd1689m"
        for network in ("vits16", "vits16plus", "vitb16", "vitl16", "vith16plus", "vit7b16")
    ),
    *(f"facebook/dinov3-{network}-pretrain-sat493m" for network in ("vitl16", "vit7b16")),
    *(f"facebook/dinov3-convnext-{size}-pretrain-lvd1689m" for size in ("tiny", "small", "base", "large")),
)
"""Hub ids of the DINOv3 checkpoints that Meta published. Errors about an unknown model name the nearest of them. Any
other checkpoint of DINOv3 can be used too."""

_DEMO_SEED = 3
_DEMO_VERSION = 2
"""Version of the demo checkpoint. Increase it when `make_demo_checkpoint` changes. Older demo checkpoints in the cache
are then not used."""

_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
"""Names of the files that are downloaded from the hub, as patterns."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its files on this machine, and the model's properties that were read from these files."""

    name: str
    """Hub id, absolute path of a folder, or `demo`."""
    folder: Path
    """Folder of the checkpoint's files."""
    revision: str | None
    """Commit of the hub's repository; None for folders and the demo model."""
    weights_sha256: str
    """SHA-256 digest of the weights file. See `digest_of` for a checkpoint with several weights files."""
    family: Family
    """`model_type` in config.json."""
    architecture: Architecture
    """The fields of config.json that describe the network."""
    normalisation: Normalisation
    """Mean and standard deviation from the checkpoint's preprocessor file."""

    @property
    def token_side(self) -> int:
        """Side in px of the square that one patch token represents."""
        return self.architecture.token_side

    @property
    def hidden_size(self) -> int:
        """Length of a token's vector."""
        return self.architecture.token_size

    @property
    def prefix_tokens(self) -> int:
        """Number of CLS and register tokens before the first patch token."""
        return self.architecture.prefix_tokens


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
        folder = absolute_path(name)
        if folder.is_file():
            raise DataError(f"model {name!r} is a file: give its folder, {folder.parent}")
        if not folder.is_dir():
            raise DataError(f"model {name!r}: there is no such folder")
        return _read(str(folder), folder, None)
    folder = _from_hub(name, revision, token)
    return _read(name, folder, folder.name)


def _is_folder(name: str) -> bool:
    """Return True if a name is a path of a folder or file, and False if it is a hub id."""
    return name.startswith((".", "/", "~")) or Path(name).exists()


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
            f"model {name!r} is not on the hub, or is private: check the id at {page}{_known(name)}; "
            "for a private or gated model, log in (hf auth login) or set HF_TOKEN"
        ) from error
    except errors.HFValidationError as error:
        raise DataError(
            f"model {name!r} is neither a hub id (owner/name), a folder, nor {DEMO!r}{_known(name)}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        where = "is not in the local cache, and cannot be downloaded"
        if name in KNOWN_MODELS:
            text = f"{where}: check the connection to {page}, or give a local folder, such as ./model"
        else:
            # The name may be wrong, or the network. Nobody but the hub knows which.
            text = (
                f"is no folder, {where}: check the name{_known(name)}; for another model, check the connection to "
                f"{page}, or give a local folder, such as ./model"
            )
        raise DataError(f"model {name!r} {text}") from error
    except Exception as error:  # A bad connection or a full disk can raise many classes of exceptions.
        raise DataError(
            f"model {name!r} could not be downloaded ({type(error).__name__}: {one_line(error)}): try again, "
            "or give a local folder"
        ) from error


def _known(name: str) -> str:
    """Return words for an error about a model that was not found: known models with a similar name."""
    return "" if name in KNOWN_MODELS else f" (known models: {known_names(name, KNOWN_MODELS)})"


def _read(name: str, folder: Path, revision: str | None) -> Checkpoint:
    """Read the properties of a model from its checkpoint's files.

    Raises:
        DataError: If a file is missing or broken, or if the model has an unsupported type.
    """
    family, architecture = read_architecture(name, folder)
    files = weights_files(name, folder)
    return Checkpoint(
        name=name,
        folder=folder,
        revision=revision,
        family=family,
        architecture=architecture,
        normalisation=read_normalisation(name, folder),
        weights_sha256=digest_of(files),
    )


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
    a token. At the start of training, the weights are two to four times smaller. With such small weights, all vectors
    were similar. With the demo's weights, the vectors depend on the colour and texture of the picture.

    Sharper or flatter attention, fewer layers and larger MLP weights were tried. With each of these changes, a search
    for a tile found fewer tiles of the same kind.

    NumPy draws the weights from a uniform distribution. NumPy's random numbers have the same bits on every processor,
    so the weights have the same digest everywhere.

    Args:
        folder: An existing folder for the files.
    """
    import torch
    from transformers import DINOv3ViTConfig, DINOv3ViTModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # transformers would show a bar for one small file in the run's own output.
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
