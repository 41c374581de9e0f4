"""What the figures are measured on: processor, memory, versions and how busy the machine was; and one core of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe_machine() -> dict[str, str]:
    """Return facts that a reader needs to judge the figures; no host names."""
    cores = len(os.sched_getaffinity(0))
    packages = ", ".join(f"{name} {found}" for name in ("onnxruntime", "numpy", "torch") if (found := _version(name)))
    return {
        "processor": f"{_cpu_model()}, {cores} cores usable",
        "memory": f"{_memory_gb():.0f} GB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}",
        "packages": packages,
        "load before the run": f"{os.getloadavg()[0]:.1f} (1-minute average; 0 is an idle machine)",
    }


@contextmanager
def held_to_one_core() -> Iterator[None]:
    """Hold this process, and all that it starts meanwhile, to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
