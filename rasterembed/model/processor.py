"""Find the name of the processor, and the number of cores that this process may use."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def processor_name() -> str:
    """Return the name of the CPU, such as `AMD EPYC 9654 96-Core Processor`."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return the number of cores that the process's affinity and its control groups allow, at least 1.

    Container engines limit a process by the quota of its control group. Libraries that count processors ignore this
    limit. In a container with two cores on a machine with 64 cores, such libraries start 64 threads.

    Args:
        cgroups: Folder in which the kernel shows control groups. It may be missing.
        membership: File that lists the process's control groups. It may be missing.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _own_groups(cgroups, membership) if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *map(math.ceil, quotas)]))


def _own_groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of the process's control groups and of all groups above them.

    The limits of all these groups apply. In a container, `membership` may hold a path that exists only on the host. The
    container's own group is then the root of `cgroups`. This root is always among the folders.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    # Version 2 of control groups has one hierarchy, with an empty list of controllers. Version 1 has one hierarchy for
    # each list of controllers.
    hierarchies = {"": "/", "cpu": "/"}
    for line in lines:
        _, _, group = line.partition(":")
        controllers, _, path = group.partition(":")
        if not controllers:
            hierarchies[""] = path
        elif "cpu" in controllers.split(","):
            hierarchies["cpu"] = path
            hierarchies[controllers] = path
    for controllers, path in hierarchies.items():
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # The group is outside of the process's namespace: only the root is used.
            parts = []
        for length in range(len(parts) + 1):
            yield cgroups.joinpath(controllers, *parts[:length])


def _quota(group: Path) -> float | None:
    """Return the number of cores that a control group may use, or None if the group has no limit.

    Version 2 of control groups keeps the quota and its period in one file. Version 1 keeps them in two files.
    """
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        cores = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # Version 2 writes `max` if the group has no limit.
        return None
    return cores if cores > 0 else None  # Version 1 writes -1 if the group has no limit.
