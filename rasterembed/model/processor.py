"""The processor: its name, and how many of its cores this process may use."""

from __future__ import annotations

import math
import os
import platform
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def processor_name() -> str:
    """Return the name of the CPU, such as `AMD EPYC 9654 96-Core Processor`."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that the process's affinity and its control group's quota leave it, at least 1.

    Container engines set the quota; libraries that count processors see those of the whole machine.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return there if quota is None else max(1, min(there, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time: `cpu.max` in version 2 of control groups, two files in version 1."""
    try:
        allowed, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            allowed = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        cores = float(allowed) / float(period)
    except ValueError:  # max
        return None
    return cores if cores > 0 else None
