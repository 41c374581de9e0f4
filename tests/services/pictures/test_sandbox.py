"""The fences of a decoding child, tried from inside: a process that is locked in attempts what hostile code would.

Each attempt is made twice: in a free process, where it must work or the test would show nothing, and behind the fences.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from services.pictures.sandbox import _MACHINES, ALL_FENCES, Fence

MEMORY_BYTES = 400 * 2**20
ATTEMPTS = """
import ctypes, errno, json, mmap, os, platform, resource, signal, socket, sys, tempfile, threading
locked, memory_bytes, machine = sys.argv[1] == "locked", int(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
folder = tempfile.mkdtemp()
victim = os.path.join(folder, "victim")
open(victim, "w").close()
report = os.dup(1)
numbers = {
    "x86_64": dict(ptrace=101, memfd_create=319, unshare=272, io_uring_setup=425, pidfd_open=434, bpf=321,
                   process_vm_readv=310, tgkill=234, connect=42, sendto=44),
    "aarch64": dict(ptrace=117, memfd_create=279, unshare=97, io_uring_setup=425, pidfd_open=434, bpf=280,
                    process_vm_readv=270, tgkill=131, connect=203, sendto=206),
}[platform.machine()]

def call(name, *arguments):
    ctypes.set_errno(0)
    if libc.syscall(numbers[name], *arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def run(program):
    if os.fork() == 0:
        try:
            os.execv(program, [program])
        finally:
            os._exit(77)
    if os.waitstatus_to_exitcode(os.wait()[1]):
        raise OSError(errno.ENOEXEC, "it did not run")

def map_code():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()

def make_code_of_data():
    libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 4
    at = libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if libc.mprotect(at, 4096, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect")

def swell():
    ctypes.memset(ctypes.create_string_buffer(2 * memory_bytes), 0, 1)

def take_more():
    try:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    except ValueError as error:  # Python's word for it
        raise PermissionError(errno.EPERM, "setrlimit") from error

def start_thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()

attempts = {
    "internet socket": lambda: socket.socket().close(),
    "datagram socket": lambda: socket.socket(type=socket.SOCK_DGRAM).close(),
    "local socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "pair of sockets": socket.socketpair,
    "read a file": lambda: open(victim).close(),
    "read own environment": lambda: open("/proc/self/environ").close(),
    "write a file": lambda: open(victim, "w").close(),
    "make a file": lambda: open(victim + "2", "x").close(),
    "rename a file": lambda: os.rename(victim, victim + "3"),
    "remove a file": lambda: os.unlink(victim + "3"),
    "list a folder": lambda: os.listdir("/"),
    "make a folder": lambda: os.mkdir(victim + "4"),
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "signal a thread of the parent": lambda: call("tgkill", os.getppid(), os.getppid(), 0),
    "fork": lambda: os._exit(0) if os.fork() == 0 else os.wait(),
    "run a program": lambda: run("/bin/true"),
    "file in memory": lambda: call("memfd_create", b"x", 0),
    "new namespaces": lambda: call("unshare", 0),
    "handle of a process": lambda: call("pidfd_open", os.getpid(), 0),
    "trace": lambda: call("ptrace", 0, 0, 0, 0),
    "map code": map_code,
    "make code of data": make_code_of_data,
    "swell": swell,
    "more memory": take_more,
    "start a thread": start_thread,
    "compute": lambda: sum(range(1000)),
}
platform.machine = lambda: machine
fences = 0
if locked:
    from services.pictures.sandbox import lock_down
    fences = int(lock_down(memory_bytes))
outcome = {}
for name, attempt in attempts.items():
    try:
        attempt()
        outcome[name] = "done"
    except OSError as error:
        outcome[name] = errno.errorcode.get(error.errno, str(error.errno))
    except (MemoryError, RuntimeError, ValueError) as error:
        outcome[name] = type(error).__name__
os.write(report, json.dumps([fences, outcome]).encode())
"""
ALLOWED = {"start a thread", "compute"}


def attempt_all(*, locked: bool, machine: str = platform.machine()) -> tuple[Fence, dict[str, str]]:
    """Run the attempts in a fresh process; returns the fences that held and how each attempt ended."""
    words = ["locked" if locked else "free", str(MEMORY_BYTES), machine]
    done = subprocess.run([sys.executable, "-c", ATTEMPTS, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    fences, outcome = json.loads(done.stdout)
    return Fence(fences), outcome


@pytest.fixture(scope="module")
def free() -> dict[str, str]:
    return attempt_all(locked=False)[1]


def test_all_attempts_work_where_nothing_is_fenced(free: dict[str, str]) -> None:
    # A test run in a container may itself be forbidden some of it; most of it must show something.
    assert sum(outcome == "done" for outcome in free.values()) >= len(free) - 4, free


def test_nothing_but_computing_is_left(free: dict[str, str]) -> None:
    if platform.system() != "Linux" or platform.machine() not in _MACHINES:
        pytest.skip("THE SYSTEM CALL FILTER WAS NOT TRIED: it is for Linux on x86-64 and ARM64")
    fences, outcome = attempt_all(locked=True)
    assert fences == ALL_FENCES, f"this kernel refuses some of the fences: {fences!r}"
    assert {name for name, result in outcome.items() if result == "done"} == ALLOWED
    by_the_filter = {name: result for name, result in outcome.items() if name not in {*ALLOWED, "swell"}}
    assert set(by_the_filter.values()) == {"EPERM"}, by_the_filter
    assert outcome["swell"] == "MemoryError"
    assert set(outcome) == set(free)


def test_limits_hold_where_there_is_no_filter() -> None:
    """On a processor whose system calls we do not know: nothing opens, memory stays bounded, and it is told."""
    fences, outcome = attempt_all(locked=True, machine="riscv64")
    assert Fence.LIMITS in fences
    assert Fence.SYSTEM_CALLS not in fences
    for name in ("internet socket", "local socket", "read a file", "write a file", "make a file"):
        assert outcome[name] == "EMFILE", (name, outcome)
    assert outcome["swell"] == "MemoryError"
