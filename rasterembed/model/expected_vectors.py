"""Remember the vectors that transformers' network computes for images of noise.

At every load of a model, its vectors are compared with those of transformers' network. To compute the latter, a process
must import transformers, which takes more than a second. The first process on a machine therefore leaves a note in the
user's cache folder. Later processes compare with the vectors in this note.

A note is used only for the same weights, configuration, images, library versions and processor, and only if no other
user can write it. A wrong note never changes a vector: if the vectors of a network differ from those in the note, or if
the note cannot be read, the process computes them with transformers again.
"""

from __future__ import annotations

import hashlib
import json
import stat
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rasterembed.model.checkpoints import Checkpoint
from rasterembed.model.processor import processor_name
from rasterembed.store.local_cache import cache_folder, is_private
from rasterembed.store.write_aside import new_file

_FORM = 1
"""Version of a note. Increase it when the images of noise, or the content of a note, change."""

_LARGEST_NOTE = 4 * 2**20
"""Largest size of a note in bytes. The note of the largest DINOv3 has 0.4 MB."""


class ExpectedVectors:
    """The note about the vectors of one checkpoint.

    Args:
        checkpoint: The checkpoint.
        side: Side of the images in px.
        patches: Whether the vectors contain the mean of the patch tokens.
        device: The device that computes the vectors.
    """

    def __init__(self, checkpoint: Checkpoint, side: int, device: torch.device, *, patches: bool) -> None:
        self._key: dict[str, Any] = {
            "form": _FORM,
            "weights": checkpoint.weights_sha256,
            "family": checkpoint.family,
            "architecture": checkpoint.architecture.model_dump(mode="json"),
            "side": side,
            "patches": patches,
            "versions": {name: version(name) for name in ("raster-embeddings", "torch", "transformers")},
            "device": _device_name(device),
        }
        self._shape = [2, 2 if patches else 1, checkpoint.hidden_size]

    @property
    def path(self) -> Path:
        """The file of the note. It may not exist."""
        digest = hashlib.sha256(json.dumps(self._key, sort_keys=True).encode()).hexdigest()
        return cache_folder() / "expected" / f"{digest[:32]}.json"

    def read(self) -> Tensor | None:
        """Return the vectors of transformers' network, shape (2, 1 or 2, hidden), float64. None without a usable note.

        The second axis has the CLS token and, with `patches`, the mean of the patch tokens.
        """
        path = self.path
        try:
            status = path.lstat()
            # A link could lead to a file without an end, and a pipe could wait for ever.
            if not (is_private(path.parent) and stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_NOTE):
                return None
            content = json.loads(path.read_bytes())
            if content["key"] != self._key:
                return None
            vectors = torch.tensor(content["vectors"], dtype=torch.float64)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, RuntimeError):
            return None
        return vectors if list(vectors.shape) == self._shape and bool(vectors.isfinite().all()) else None

    def write(self, vectors: Tensor) -> None:
        """Remember the vectors of transformers' network. Nothing is remembered if the cache folder cannot be written.

        Args:
            vectors: As `read` returns them.
        """
        path = self.path
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with new_file(path) as part:
                part.write_text(json.dumps({"key": self._key, "vectors": vectors.tolist()}))


def _device_name(device: torch.device) -> str:
    """Return the device and its processor. Another processor may run other code, with other faults."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {processor_name()} {torch.backends.cpu.get_cpu_capability()}"
