"""The computation: by what, and where, vectors are computed. Each shard's receipt records it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rasterembed.model.choice import LoadedEngine


class Computation(BaseModel):
    """What computed a shard's vectors.

    Two computations that are equal give the same bits, if the library versions in the receipt are equal too.
    """

    model_config = ConfigDict(frozen=True)

    engine: LoadedEngine
    """Engine that ran the model."""
    device: str
    """Name of the device in PyTorch: `cpu`, `cuda` or `mps`."""
    threads: int
    """Number of CPU threads of the engine."""
    processor: str
    """Name of the CPU, or on CUDA of the GPU."""

    def __str__(self) -> str:
        """Return the computation in one line, for people."""
        return f"{self.engine} on {self.device}, {self.threads} threads, {self.processor}"
