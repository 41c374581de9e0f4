"""Threads follow what the container may use, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model import quota
from model.quota import count_processors, read_quota


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path / "proc"


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def allow(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)


def test_v2_quota(proc: Path, cgroup: Path) -> None:
    write(proc / "self" / "cgroup", "0::/\n")
    write(cgroup / "cpu.max", "250000 100000\n")
    assert read_quota(proc, cgroup) == 2.5


def test_v2_without_limit(proc: Path, cgroup: Path) -> None:
    write(proc / "self" / "cgroup", "0::/\n")
    write(cgroup / "cpu.max", "max 100000\n")
    assert read_quota(proc, cgroup) is None


def test_v2_parent_limits_its_children(proc: Path, cgroup: Path) -> None:
    write(proc / "self" / "cgroup", "0::/kubepods/pod1/main\n")
    write(cgroup / "kubepods" / "pod1" / "main" / "cpu.max", "800000 100000")
    write(cgroup / "kubepods" / "pod1" / "cpu.max", "300000 100000")
    write(cgroup / "kubepods" / "cpu.max", "max 100000")
    assert read_quota(proc, cgroup) == 3.0


def test_v1_quota(proc: Path, cgroup: Path) -> None:
    write(proc / "self" / "cgroup", "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n")
    write(cgroup / "cpu,cpuacct" / "docker" / "a" / "cpu.cfs_quota_us", "150000")
    write(cgroup / "cpu,cpuacct" / "docker" / "a" / "cpu.cfs_period_us", "100000")
    assert read_quota(proc, cgroup) == 1.5


def test_v1_inside_a_container_that_sees_the_hosts_paths(proc: Path, cgroup: Path) -> None:
    write(proc / "self" / "cgroup", "4:cpu,cpuacct:/docker/of-the-host\n")
    write(cgroup / "cpu" / "cpu.cfs_quota_us", "400000")
    write(cgroup / "cpu" / "cpu.cfs_period_us", "100000")
    assert read_quota(proc, cgroup) == 4.0


def test_v1_without_limit(proc: Path, cgroup: Path) -> None:
    write(cgroup / "cpu" / "cpu.cfs_quota_us", "-1")
    write(cgroup / "cpu" / "cpu.cfs_period_us", "100000")
    assert read_quota(proc, cgroup) is None


@pytest.mark.parametrize("text", ["", "max", "x 100000", "100000 0", "-5 100000", "1 2 3"])
def test_nonsense_is_no_limit(proc: Path, cgroup: Path, text: str) -> None:
    write(cgroup / "cpu.max", text)
    assert read_quota(proc, cgroup) is None


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    assert read_quota(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize(
    ("quota_us", "allowed", "expected"),
    [(200_000, 64, 2), (150_000, 64, 1), (50_000, 64, 1), (800_000, 4, 4), (None, 6, 6)],
)
def test_threads(
    monkeypatch: pytest.MonkeyPatch, proc: Path, cgroup: Path, quota_us: int | None, allowed: int, expected: int
) -> None:
    allow(monkeypatch, allowed)
    write(cgroup / "cpu.max", f"{'max' if quota_us is None else quota_us} 100000")
    assert count_processors(proc, cgroup) == expected


def test_this_very_process() -> None:
    assert 1 <= quota.count_processors() <= (os.cpu_count() or 1)
