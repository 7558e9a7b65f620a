"""When the digest of a file may be remembered."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from rasterembed.store.checked_files import seconds_until_notable


@pytest.mark.parametrize(
    ("written_ago", "whole_second", "waits"),
    [(0.001, False, True), (0.5, False, False), (0.5, True, True), (3.5, True, False), (-60.0, False, True)],
)
def test_a_file_must_be_older_than_a_tick_of_the_clock_of_its_file_system(
    written_ago: float, whole_second: bool, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that stores whole seconds shows two changes within a second as one."""
    written = 1_800_000_000 * 10**9 + (0 if whole_second else 123_456_789)
    monkeypatch.setattr(time, "time_ns", lambda: written + int(written_ago * 1e9))
    status: os.stat_result = SimpleNamespace(st_mtime_ns=written, st_ctime_ns=written)  # type: ignore[assignment]
    assert (seconds_until_notable(status) > 0) is waits
    assert seconds_until_notable(status) <= 2
