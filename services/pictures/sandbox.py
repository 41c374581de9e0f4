"""Locks a process in for good: no file opens, no socket, no other program, bounded memory. Linux; ctypes alone.

Three fences, each useful without the others: resource limits (any Unix), no new privileges, and a seccomp filter that
lets through the few system calls that reading orders, decoding and answering need and refuses all others with EPERM.
What the kernel refuses to set up is told by ``lock_down``, so that somebody can say it aloud.
"""

from __future__ import annotations

import ctypes
import platform
import resource
import sys
from dataclasses import dataclass
from enum import IntFlag

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

# Instructions of the classic packet filter that seccomp runs, and its verdicts (linux/filter.h, linux/seccomp.h).
_LOAD_WORD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_GREATER_OR_EQUAL = 0x35
_JUMP_ANY_BIT = 0x45
_RETURN = 0x06
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_EPERM = 1
_ENOSYS = 38
# Offsets in struct seccomp_data: number, architecture, low halves of the arguments (both machines are little-endian).
_AT_NUMBER = 0
_AT_MACHINE = 4
_AT_ARGUMENT_0 = 16
_AT_ARGUMENT_2 = 32
_CLONE_THREAD = 0x00010000
_PROT_EXEC = 4
_X32_CALLS = 0x40000000  # a second set of numbers on x86-64


class Fence(IntFlag):
    """What holds a locked process in."""

    LIMITS = 1
    NO_NEW_PRIVILEGES = 2
    SYSTEM_CALLS = 4


ALL_FENCES = Fence.LIMITS | Fence.NO_NEW_PRIVILEGES | Fence.SYSTEM_CALLS


@dataclass(frozen=True)
class _Machine:
    """The numbers of one processor architecture.

    Source: Linux, include/uapi/linux/audit.h; arch/x86/entry/syscalls/syscall_64.tbl for x86-64 and, for ARM64, which
    takes the generic numbers, include/uapi/asm-generic/unistd.h. ``test_system_calls.py`` names each of them.
    """

    audit: int
    plain: tuple[int, ...]  # let through whatever their arguments
    mapping: tuple[int, ...]  # mmap, mprotect: refused where memory is to become executable
    clone: int  # threads (WebP decodes with two), never processes
    clone3: int  # "not there", so that libc falls back to clone, whose flags a filter can read


# read write close fstat lseek · munmap brk mremap madvise · rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack ·
# sched_yield nanosleep clock_gettime clock_nanosleep setitimer restart_syscall · futex set_robust_list rseq getrandom ·
# getpid gettid sched_getaffinity · exit exit_group
_MACHINES = {
    "x86_64": _Machine(
        audit=0xC000003E,
        plain=(
            *(0, 1, 3, 5, 8, 11, 12, 25, 28, 13, 14, 15, 131),
            *(24, 35, 228, 230, 38, 219, 202, 273, 334, 318, 39, 186, 204, 60, 231),
        ),
        mapping=(9, 10),
        clone=56,
        clone3=435,
    ),
    "aarch64": _Machine(
        audit=0xC00000B7,
        plain=(
            *(63, 64, 57, 80, 62, 215, 214, 216, 233, 134, 135, 139, 132),
            *(124, 101, 113, 115, 103, 128, 98, 99, 293, 278, 172, 178, 123, 93, 94),
        ),
        mapping=(222, 226),
        clone=220,
        clone3=435,
    ),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def lock_down(memory_bytes: int) -> Fence:
    """Fence this process in, which nothing can undo; return the fences that hold. Call it before any thread starts.

    Args:
        memory_bytes: the most address space that it may have.
    """
    fences = Fence(0)
    if _limit(memory_bytes):
        fences |= Fence.LIMITS
    if sys.platform != "linux":
        return fences
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody's debugger, and no picture of anybody in a core file
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        fences |= Fence.NO_NEW_PRIVILEGES
    machine = _MACHINES.get(platform.machine())
    if machine is not None and sys.maxsize > 2**32 and _install(libc, _write_filter(machine)):
        fences |= Fence.SYSTEM_CALLS
    return fences


def _limit(memory_bytes: int) -> bool:
    """Set the limits that hold on any Unix, also where there is no filter."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 0,  # what is open stays open; files and sockets can't be opened any more
    }
    held = True
    for limit, value in limits.items():
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError):  # e.g. macOS knows no limit of the address space
            held = False
    return held


def _write_filter(machine: _Machine) -> list[_Instruction]:
    refuse = [_step(_RETURN, _ERRNO | _EPERM)]
    program = [
        _step(_LOAD_WORD, _AT_MACHINE),
        _step(_JUMP_EQUAL, machine.audit, yes=1),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD_WORD, _AT_NUMBER),
        _step(_JUMP_GREATER_OR_EQUAL, _X32_CALLS, no=1),
        *refuse,
    ]
    for number in machine.plain:
        program += [_step(_JUMP_EQUAL, number, no=1), _step(_RETURN, _ALLOW)]
    for number in machine.mapping:
        program += [
            _step(_JUMP_EQUAL, number, no=4),
            _step(_LOAD_WORD, _AT_ARGUMENT_2),
            _step(_JUMP_ANY_BIT, _PROT_EXEC, yes=1),
            _step(_RETURN, _ALLOW),
            *refuse,
        ]
    program += [
        _step(_JUMP_EQUAL, machine.clone, no=4),
        _step(_LOAD_WORD, _AT_ARGUMENT_0),
        _step(_JUMP_ANY_BIT, _CLONE_THREAD, no=1),
        _step(_RETURN, _ALLOW),
        *refuse,
        _step(_JUMP_EQUAL, machine.clone3, no=1),
        _step(_RETURN, _ERRNO | _ENOSYS),
    ]
    return program + refuse


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> _Instruction:
    """Return one instruction; ``yes`` and ``no`` are how many it jumps over after a comparison."""
    return _Instruction(code, yes, no, value)


def _install(libc: ctypes.CDLL, steps: list[_Instruction]) -> bool:
    array = (_Instruction * len(steps))(*steps)
    program = _Program(len(steps), ctypes.cast(array, ctypes.POINTER(_Instruction)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)
