"""The record of how vectors were computed: with which engine, on which hardware. Each shard's receipt holds it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rasterembed.model.choice import LoadedEngine


class Computation(BaseModel):
    """The engine that computes vectors, and the hardware that runs the engine.

    The vectors of two runs are equal bit by bit if the computation, the library versions and the batch size are equal.
    Otherwise, float32 vectors differ by at most 1e-5 of their norm. See docs/models.md, "How exact the vectors are".
    """

    model_config = ConfigDict(frozen=True)

    engine: LoadedEngine
    """Engine that runs the model."""
    device: str
    """Name of the device in PyTorch: `cpu`, `cuda` or `mps`."""
    threads: int
    """Number of CPU threads that the engine uses."""
    processor: str
    """Name of the CPU with its instruction set, such as `AMD EPYC (AVX512)`. On CUDA, the name of the GPU."""

    def __str__(self) -> str:
        """Return the computation in one line, for people."""
        return f"{self.engine} on {self.device}, {self.threads} threads, {self.processor}"
