"""How many processors this process may really use. Standard library only.

``os.cpu_count()`` tells what the machine has. A container with a quota of two processors on a machine of 64 would then
run 64 threads that the kernel throttles against each other; so we ask the scheduler and the control groups.
"""

from __future__ import annotations

import os
from pathlib import Path


def count_processors(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of threads worth starting: at least 1, at most the processors this process may run on.

    A fractional quota is rounded down: a thread that is throttled for half of the time holds up all the others.
    """
    allowed = _count_allowed()
    quota = read_quota(proc, cgroup)
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def read_quota(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the processor quota of this process's control group in processors, or None where there is none.

    Knows cgroup v2 (``cpu.max``) and v1 (``cpu.cfs_quota_us``); a group's parents limit it too, so the least counts.
    """
    quotas: list[float] = []
    for folder in _list_groups(proc, cgroup):
        quota = _read_v2(folder) or _read_v1(folder)
        if quota is not None:
            quotas.append(quota)
    return min(quotas, default=None)


def _count_allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _list_groups(proc: Path, cgroup: Path) -> list[Path]:
    """Return the folders of our control groups and of their parents, v1 and v2."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    # Without a namespace of its own a container is told the host's paths and can't open them; the mount's root it can.
    folders = [cgroup, cgroup / "cpu", cgroup / "cpu,cpuacct"]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroup / controllers if controllers else cgroup
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        folders += [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return list(dict.fromkeys(folders))


def _read_v2(folder: Path) -> float | None:
    fields = _read_fields(folder / "cpu.max")
    if len(fields) != 2 or fields[0] == "max":
        return None
    return _divide(fields[0], fields[1])


def _read_v1(folder: Path) -> float | None:
    quota, period = _read_fields(folder / "cpu.cfs_quota_us"), _read_fields(folder / "cpu.cfs_period_us")
    if len(quota) != 1 or len(period) != 1:
        return None
    return _divide(quota[0], period[0])


def _read_fields(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _divide(quota: str, period: str) -> float | None:
    try:
        quota_us, period_us = int(quota), int(period)
    except ValueError:
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None
