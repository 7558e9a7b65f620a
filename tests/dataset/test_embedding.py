"""How many shards a run computes at the same time."""

from __future__ import annotations

import pytest

from rasterembed.dataset.embedding import EmbeddingJob, Execution, default_shard_threads
from rasterembed.model.processor import usable_cores


@pytest.mark.parametrize(
    ("device", "cores", "threads"),
    [("cpu", 1, 2), ("cpu", 64, 2), ("mps", 64, 2), ("cuda", 1, 2), ("cuda", 8, 4), ("cuda", 16, 8), ("cuda", 64, 8)],
)
def test_a_gpu_gets_more_shards_at_the_same_time_if_cores_can_read_them(device: str, cores: int, threads: int) -> None:
    assert default_shard_threads(device, cores) == threads


def test_the_number_of_shards_that_a_person_gives_counts_on_every_device() -> None:
    for device in ("cpu", "cuda"):
        assert EmbeddingJob(Execution(shard_threads=3), device).shard_threads == 3
        assert EmbeddingJob(Execution(), device).shard_threads == default_shard_threads(device, usable_cores())
