"""Decodes uploaded pictures in locked-in children: a few long-lived ones, replaced when one dies or has done enough.

What a picture does to a child it does to that child alone: it is refused, the next one finds another child. Knows
processes and sockets; no HTTP, no store.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from subprocess import DEVNULL, Popen
from types import TracebackType
from typing import Self

import structlog

from services.errors import TemporaryError
from services.parentage import start_child
from services.pictures.child import ANSWER, ORDER, READY
from services.pictures.cleaning import Picture, clean_picture
from services.pictures.decoding import FORMATS, Pixels, UndecodableError
from services.pictures.headers import MAX_SIDE_PX, PictureLimits
from services.pictures.sandbox import ALL_FENCES, Fence
from services.settings import Settings

log = structlog.get_logger(__name__)

# What the largest picture with the most scans takes of a slow processor, and more than anything honest does.
CPU_LIMIT_S = 10.0
# A child that stays silent for so long was stopped, or waits for something that never comes.
SILENCE_LIMIT_S = 30.0
START_LIMIT_S = 60.0
MOST_CHILDREN = 8
PROGRAM = ("-m", "services.pictures.child")
PICTURES_A_CHILD = 1_000
# Address space: the interpreter with Pillow; then a picture decoded, turned, and laid over white, 4 bytes a pixel each.
_IDLE_BYTES = 192 * 2**20
_BYTES_A_PIXEL = 28
# All that a child is told of our environment: it must not hold what it could give away.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "SYSTEMROOT")


class Death(StrEnum):
    """How a child ended that nobody had told to end."""

    CRASHED = "crashed"  # by itself: what it decoded led it astray
    TIMEOUT = "timeout"  # the processor time of its picture was used up, or it fell silent
    LIED = "lied"  # it gave an answer that no picture has, and was ended for it
    KILLED = "killed"  # from outside: by an operator, or by a kernel short of memory


class PictureCleaner:
    """Cleans uploaded pictures. Thread-safe; children are started when they are first needed.

    Args:
        limits: what a picture may be.
        max_bytes: of one upload.
        most_children: how many pictures are decoded at once; further callers wait.
        cpu_limit_s: the processor time that one picture may take.
        silence_limit_s: the time after which a child that says nothing is given up.
        on_death: told of each child that ended and was not told to.
    """

    def __init__(
        self,
        limits: PictureLimits,
        max_bytes: int,
        *,
        most_children: int = 0,
        cpu_limit_s: float = CPU_LIMIT_S,
        silence_limit_s: float = SILENCE_LIMIT_S,
        on_death: Callable[[Death], None] = lambda _death: None,
    ) -> None:
        self._limits = limits
        self._memory_bytes = _IDLE_BYTES + _BYTES_A_PIXEL * limits.max_pixels + 3 * max_bytes
        self._cpu_limit_s = cpu_limit_s
        self._silence_limit_s = silence_limit_s
        self._on_death = on_death
        self._places = threading.Semaphore(most_children or min(MOST_CHILDREN, max(2, os.cpu_count() or 2)))
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._told_fences = False
        self._closed = False

    @classmethod
    def from_settings(cls, settings: Settings, on_death: Callable[[Death], None] = lambda _death: None) -> Self:
        """Return a cleaner with the limits that the settings name."""
        limits = PictureLimits(settings.max_pixels, settings.min_side_px)
        return cls(limits, settings.max_body_bytes, on_death=on_death)

    def clean(self, data: bytes) -> Picture:
        """Check, decode in a child, and re-encode a picture.

        Raises:
            RequestError: unsupported-media-type, image-corrupt, image-too-small or image-too-large.
            TemporaryError: not-ready where no child can be started.
        """
        return clean_picture(data, self._limits, self._decode)

    def close(self) -> None:
        """End all children; busy ones end when their picture is done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def __enter__(self) -> Self:
        """Return the cleaner itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all children."""
        self.close()

    def _decode(self, data: bytes, picture_format: str, max_pixels: int) -> Pixels:
        with self._places:
            # Whatever kills processes at random (an operator, a kernel short of memory) must not cost an innocent
            # picture; one that a fresh child does not outlive either is not innocent.
            for find_child in (self._take, self._start):
                child = find_child()
                try:
                    pixels = child.decode(data, picture_format, max_pixels, self._cpu_limit_s, self._silence_limit_s)
                except _ChildDiedError as error:
                    self._report(error)
                    if error.by_its_picture:
                        break
                    continue
                except UndecodableError:
                    self._give_back(child)
                    raise
                except BaseException:
                    child.kill()
                    raise
                self._give_back(child)
                return pixels
            raise UndecodableError("no child outlived it")

    def _take(self) -> _Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    return child
                self._report(child.bury())
        return self._start()

    def _report(self, error: _ChildDiedError) -> None:
        log.warning("picture_child_died", reason=error.reason, death=error.death)
        self._on_death(error.death)

    def _start(self) -> _Child:
        child = _Child(self._memory_bytes)
        if child.fences != ALL_FENCES and not self._told_fences:
            self._told_fences = True
            missing = [fence.name for fence in Fence if fence not in child.fences]
            log.warning("picture_sandbox_incomplete", missing=missing, reason="this kernel or system refuses it")
        return child

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            if not self._closed and child.decoded < PICTURES_A_CHILD:
                self._idle.append(child)
                return
        child.kill()


class _ChildDiedError(Exception):
    """A child ended, or was ended, before it had answered."""

    def __init__(self, death: Death, reason: str, *, by_its_picture: bool) -> None:
        super().__init__(reason)
        self.death = death
        self.reason = reason
        self.by_its_picture = by_its_picture


class _Child:
    """One decoding process and our end of its socket. Used by one thread at a time.

    Raises: TemporaryError("not-ready") when it does not start.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.decoded = 0
        self._exited = threading.Event()
        self._socket, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with theirs:
            try:
                self._process: Popen[bytes] = start_child(
                    [sys.executable, *PROGRAM, str(theirs.fileno()), str(os.getpid()), str(memory_bytes)],
                    on_exit=lambda _code: self._exited.set(),
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    # One arena: each further one would reserve 64 MB of the address space that it may have.
                    env=environment | {"MALLOC_ARENA_MAX": "1"},
                )
            except OSError as error:
                self._socket.close()
                raise _cannot_start(str(error.strerror)) from error
        try:
            (fences,) = READY.unpack(self._receive(READY.size, time.monotonic() + START_LIMIT_S))
        except (EOFError, OSError) as error:
            raise _cannot_start(self.bury().reason) from error
        self.fences = Fence(fences)

    @property
    def alive(self) -> bool:
        """False once the process has ended."""
        return not self._exited.is_set()

    def decode(
        self, data: bytes, picture_format: str, max_pixels: int, cpu_limit_s: float, silence_limit_s: float
    ) -> Pixels:
        """Have one picture decoded.

        Raises: UndecodableError, _ChildDiedError; after the latter the process is gone.
        """
        self.decoded += 1
        deadline_s = time.monotonic() + silence_limit_s
        order = ORDER.pack(FORMATS.index(picture_format), round(cpu_limit_s * 1000), max_pixels, len(data))
        try:
            self._socket.settimeout(silence_limit_s)
            self._socket.sendall(order)
            self._socket.sendall(data)
            done, width, height = ANSWER.unpack(self._receive(ANSWER.size, deadline_s))
            if not done:
                raise UndecodableError("said the child")
            # Nothing that a decoder of hostile bytes says is believed, not even a size.
            if not 0 < width * height <= max_pixels or max(width, height) > MAX_SIDE_PX:
                self.kill()
                raise _ChildDiedError(Death.LIED, "it told of a size that can't be", by_its_picture=True)
            return Pixels(width, height, self._receive(width * height * 3, deadline_s))
        except (EOFError, OSError) as error:
            raise self.bury(hung=isinstance(error, TimeoutError)) from error

    def kill(self) -> None:
        """End the process now and wait for it."""
        self._socket.close()
        self._process.kill()
        self._exited.wait(10.0)

    def _receive(self, length: int, deadline_s: float) -> bytes:
        """Return the next ``length`` bytes. Raises: EOFError, OSError (TimeoutError when they don't come)."""
        buffer = bytearray(length)
        view, filled = memoryview(buffer), 0
        while filled < length:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            got = self._socket.recv_into(view[filled:])
            if not got:
                raise EOFError
            filled += got
        return bytes(buffer)

    def bury(self, *, hung: bool = False) -> _ChildDiedError:
        """Make sure that the process is gone and say how it went."""
        # One that closed its end is on its way out, however slow the machine is.
        if hung or not self._exited.wait(10.0):
            self.kill()
            return _ChildDiedError(Death.TIMEOUT, "it did not answer in time", by_its_picture=False)
        self._socket.close()
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return _ChildDiedError(Death.KILLED, "somebody killed it", by_its_picture=False)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        death = Death.TIMEOUT if code == -signal.SIGPROF else Death.CRASHED
        return _ChildDiedError(death, f"it ended with {name}", by_its_picture=True)


def _cannot_start(reason: str) -> TemporaryError:
    log.error("picture_child_can_not_start", reason=reason)
    return TemporaryError(
        "not-ready",
        "Pictures can't be looked at right now.",
        "Try again in a few seconds; if it stays so, read the API's log.",
        delay_s=5.0,
    )
