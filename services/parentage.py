"""Processes that end with the process that started them, however that one ends (kill -9 too). Standard library only.

Linux has a parent-death signal for this. The kernel sends it when the *thread* that started the child ends, so children
must be started from a thread that lives as long as they may: ``start_child`` keeps one for each child. Elsewhere a
watching thread looks at the parent's id every second.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1

# Runs in a bare interpreter (no site, no environment) and becomes the command: a preexec_fn is unsafe in a program with
# threads.
_WRAPPER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def die_with_parent(parent_pid: int) -> None:
    """Make the kernel kill this process when its parent ends; ends at once when the parent is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent_pid,), name="parent-watch", daemon=True).start()
    if os.getppid() != parent_pid:
        os._exit(1)


def _watch_parent(parent_pid: int) -> None:
    pause = threading.Event()
    while os.getppid() == parent_pid:
        pause.wait(1.0)
    os._exit(1)


def wrap_command(command: Sequence[str]) -> list[str]:
    """Return the command so that it dies with this process; works for any program, also for one that is not Python."""
    return [sys.executable, "-I", "-S", "-c", _WRAPPER, str(os.getpid()), *command]


def start_child(
    command: Sequence[str], on_exit: Callable[[int], None] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a process from a thread of its own that waits for its end, so that it never stays a zombie.

    Args:
        command: what to run; it must call ``die_with_parent`` or be wrapped by ``wrap_command``.
        on_exit: called with the exit code, on that thread.
        options: of ``subprocess.Popen``.

    Raises: OSError when the program can't be started.
    """
    started = threading.Event()
    outcome: list[subprocess.Popen[bytes] | BaseException] = []

    def run() -> None:
        try:
            process = subprocess.Popen(command, **options)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who waits for it
            outcome.append(error)
            started.set()
            return
        outcome.append(process)
        started.set()
        code = process.wait()
        if on_exit is not None:
            on_exit(code)

    threading.Thread(target=run, name="child-keeper", daemon=True).start()
    started.wait()
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result
