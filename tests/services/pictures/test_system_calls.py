"""The numbers of the system calls that a decoding child keeps, held against the kernel's own tables.

A wrong number on a processor that nobody tests on would let something in and keep something needed out.

Source: Linux, arch/x86/entry/syscalls/syscall_64.tbl and, for ARM64, include/uapi/asm-generic/unistd.h, where its
numbers are the generic ones; the architectures: include/uapi/linux/audit.h and elf-em.h.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.pictures.sandbox import _MACHINES

MACHINES = ("x86_64", "aarch64")
# Name: number on x86-64, on ARM64.
PLAIN = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "sched_yield": (24, 124),
    "nanosleep": (35, 101),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "setitimer": (38, 103),
    "restart_syscall": (219, 128),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "sched_getaffinity": (204, 123),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
MAPPING = {"mmap": (9, 222), "mprotect": (10, 226)}
CLONE = {"clone": (56, 220), "clone3": (435, 435)}
AUDIT = (0x80000000 | 0x40000000 | 62, 0x80000000 | 0x40000000 | 183)  # 64 bits, little-endian, EM_X86_64, EM_AARCH64
# Installed by the C compiler's kernel headers (Debian: linux-libc-dev), the generic ones on every machine.
HEADERS = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h")
_DEFINITION = re.compile(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", re.MULTILINE)


@pytest.mark.parametrize("column", [0, 1], ids=MACHINES)
def test_the_filter_lets_these_calls_through_and_no_others(column: int) -> None:
    machine = _MACHINES[MACHINES[column]]
    assert machine.audit == AUDIT[column]
    assert machine.plain == tuple(numbers[column] for numbers in PLAIN.values())
    assert machine.mapping == tuple(numbers[column] for numbers in MAPPING.values())
    assert (machine.clone, machine.clone3) == (CLONE["clone"][column], CLONE["clone3"][column])


@pytest.mark.parametrize("column", [0, 1], ids=MACHINES)
def test_the_kernel_s_own_headers_say_the_same(column: int) -> None:
    header = Path(HEADERS[column])
    if not header.exists():
        pytest.skip(
            f"THE NUMBERS OF {MACHINES[column]} WERE NOT HELD AGAINST THE KERNEL'S HEADERS: {header} is missing"
        )
    told = {name: int(number) for name, number in _DEFINITION.findall(header.read_text())}
    ours = PLAIN | MAPPING | CLONE
    assert {name: told[name] for name in ours} == {name: numbers[column] for name, numbers in ours.items()}


def test_every_machine_is_compared() -> None:
    assert set(_MACHINES) == set(MACHINES)
