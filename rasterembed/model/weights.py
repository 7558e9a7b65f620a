"""The weights files of a checkpoint: their digest, and their tensors."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rasterembed.errors import DataError
from rasterembed.model.config_file import read_json
from rasterembed.store.checked_files import file_digest

if TYPE_CHECKING:
    from torch import Tensor

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def weights_files(model: str, folder: Path) -> list[Path]:
    """Return all safetensors files of a checkpoint, sorted by name.

    Args:
        model: name of the model in errors.
        folder: folder of the checkpoint.

    Raises:
        DataError: if there is no such file.
    """
    files = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if not files:
        raise DataError(f"model {model!r} has no safetensors weights in {folder}; other formats are not loaded")
    return files


def digest_of(files: list[Path]) -> str:
    """Return the SHA-256 digest of a file. For several files, return the digest of their digests in the given order.

    The digests are computed from the files' content. The hub's cache names a large file by its digest. This name is not
    trusted, because anybody who can write into that cache can give any name to a file.

    Raises:
        DataError: if a file cannot be read.
    """
    digests = [_file_digest(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(file: Path) -> str:
    try:
        real = Path(os.path.realpath(file))
        state = real.stat()
        return _content_digest(real, state.st_size, state.st_ctime_ns, state.st_mtime_ns, state.st_ino, state.st_dev)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error


@cache  # A process that embeds many rasters then hashes the weights only once.
def _content_digest(file: Path, *state: int) -> str:
    """Return the digest of a file. `state` is its size, times and numbers, which change with the file."""
    return file_digest(file)


def load_weights(model: str, folder: Path) -> dict[str, Tensor]:
    """Load the tensors of a checkpoint. Only files that are part of the checkpoint's digest are read.

    The tensors are in `model.safetensors`, or in the files that `model.safetensors.index.json` lists.

    Args:
        model: name of the model in errors.
        folder: folder of the checkpoint.

    Raises:
        DataError: if neither file exists, or if the index lists a file that is not in the folder.
        safetensors.SafetensorError: if a file is damaged.
    """
    from safetensors.torch import load_file

    files = {file.name: file for file in weights_files(model, folder)}
    if _SINGLE in files:
        return load_file(files[_SINGLE])
    listed = read_json(model, folder / _INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise DataError(f"model {model!r}: {folder / _INDEX}: weight_map is not a list of tensors and their files")
    tensors: dict[str, Tensor] = {}
    for name in dict.fromkeys(map(str, listed.values())):
        if name not in files:
            raise DataError(f"model {model!r}: {folder / _INDEX} lists {name!r}, which is not a file in that folder")
        tensors |= load_file(files[name])
    return tensors
