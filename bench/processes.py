"""Memory of running processes, read from /proc: whose child is who, and how much each held at most."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def list_descendants(pid: int | None = None) -> list[int]:
    """Return every living descendant of a process (default: this one)."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            # The name in parentheses may hold spaces; the parent's id is the second word after it.
            parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # ended while we looked
        children.setdefault(parent, []).append(int(folder.name))
    found, todo = [], [os.getpid() if pid is None else pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def read_command(pid: int) -> str:
    """Return a process's command line, or an empty string when it has ended."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def read_peak_mb(pid: int) -> float:
    """Return the largest resident size that a process ever had (since ``reset_peak``), in MB."""
    for line in (PROC / str(pid) / "status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"process {pid} has no resident memory")


def reset_peak(pid: int) -> None:
    """Let a process's peak start again at what it holds now."""
    (PROC / str(pid) / "clear_refs").write_text("5", encoding="utf-8")


def find_roles(pid: int | None = None) -> dict[str, list[int]]:
    """Return the service's processes below ``pid`` by role: api, worker, inference, queue."""
    roles: dict[str, list[int]] = {"api": [], "worker": [], "inference": [], "queue": []}
    for child in list_descendants(pid):
        command = read_command(child)
        if "-m services.api.server" in command:
            roles["api"].append(child)
        elif "-m worker.app" in command:
            roles["worker"].append(child)
        elif "-m worker.child" in command:
            roles["inference"].append(child)
        elif "valkey-server" in command or "redis-server" in command:
            roles["queue"].append(child)
    return roles
