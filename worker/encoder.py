"""One running ffmpeg: frames go in, its words and its progress come out. Knows no formats and no jobs."""

from __future__ import annotations

import errno
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

import structlog

from services.errors import AnimatoError, PermanentError, TemporaryError

log = structlog.get_logger(__name__)

# Linux' default upper limit of a pipe: ffmpeg can be this far behind before drawing waits for it.
PIPE_BYTES = 1 << 20
# Frames that wait here while the pipe is full, so that drawing goes on; one frame at least, however large.
AHEAD_BYTES = 4 << 20
STDERR_TAIL_BYTES = 4096
# An ffmpeg that gets no frame further for so long hangs.
STALL_S = 300.0
_LOOK_EVERY_S = 0.25


class Encoder:
    """An ffmpeg that reads raw frames from its standard input and tells its progress on its standard output.

    Both of its outputs are drained by threads, so that it never blocks on them, and a third feeds it.

    Args:
        command: the argument list; it must hold ``-progress pipe:1``.
    """

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdin, self._stdout, self._stderr = self._process.stdin, self._process.stdout, self._process.stderr
        _widen(self._stdin)
        self._tail = b""
        self._progress = b""
        self._ahead: queue.Queue[memoryview | None] | None = None
        self._feeder: threading.Thread | None = None
        self._deaf = self._ended = False
        self._drains = [
            threading.Thread(target=drain, name="ffmpeg-drain", daemon=True)
            for drain in (self._drain_words, self._drain_progress)
        ]
        for drain in self._drains:
            drain.start()

    @property
    def pid(self) -> int:
        """The process id of ffmpeg."""
        return self._process.pid

    def send(self, frame: memoryview | bytes) -> None:
        """Hand one frame over, which must not change any more; waits while AHEAD_BYTES are waiting.

        Raises: what ``finish`` raises.
        """
        if self._ahead is None:
            self._ahead = queue.Queue(max(1, AHEAD_BYTES // max(1, len(memoryview(frame).cast("B")))))
            self._feeder = threading.Thread(target=self._feed, args=(self._ahead,), name="ffmpeg-feed", daemon=True)
            self._feeder.start()
        if self._deaf:
            raise self._failure()
        self._ahead.put(memoryview(frame).cast("B"))

    def end(self) -> None:
        """Say that no frame follows, and don't wait for the file; harmless when it was said before."""
        if self._ended:
            return
        self._ended = True
        if self._ahead is None:
            self._stdin.close()
        else:
            self._ahead.put(None)

    def finish(self, tick: Callable[[], None]) -> None:
        """Say that no frame follows, and wait for the file; ``tick`` is called whenever ffmpeg has got on.

        Raises: PermanentError("encode-failed"); TemporaryError("storage-failed") on a full disk; what ``tick`` raises.
        """
        self.end()
        seen, moved_s = self._progress, time.monotonic()
        while (code := self._wait()) is None:
            if self._progress != seen:
                seen, moved_s = self._progress, time.monotonic()
                tick()
            elif time.monotonic() - moved_s > STALL_S:
                raise self._failure()
        if code != 0:
            raise self._failure()
        self._close()

    def abort(self) -> None:
        """End ffmpeg at once; harmless when it has ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._ahead is None:
            self._stdin.close()
        else:
            self._deaf = True
            if self._feeder is not None and self._feeder.is_alive():
                self._ahead.put(None)  # it throws away what waits, so there is room
        self._close()

    def _wait(self) -> int | None:
        # It ends and its output ends: that wakes a join at once, while Popen.wait naps for longer and longer.
        self._drains[-1].join(timeout=_LOOK_EVERY_S)
        if self._drains[-1].is_alive():
            return self._process.poll()
        try:
            return self._process.wait(timeout=_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            return None

    def _close(self) -> None:
        for thread in (*self._drains, self._feeder):
            if thread is not None:
                thread.join(timeout=5)
        self._stdout.close()
        self._stderr.close()

    def _feed(self, ahead: queue.Queue[memoryview | None]) -> None:
        """Write frames until there are no more; after an ffmpeg that has gone only take them away."""
        while (rest := ahead.get()) is not None:
            try:
                while rest and not self._deaf:
                    rest = rest[self._stdin.write(rest) or 0 :]
            except OSError:  # its end of the pipe is closed: it has failed, and the next send or finish says why
                self._deaf = True
        with suppress(OSError):
            self._stdin.close()

    def _drain_words(self) -> None:
        while chunk := self._stderr.read(1024):
            self._tail = (self._tail + chunk)[-STDERR_TAIL_BYTES:]

    def _drain_progress(self) -> None:
        """Keep the newest ``frame=`` and ``total_size=``: only these show that it got on, its clock always does."""
        for line in self._stdout:
            if line.startswith((b"frame=", b"total_size=")):
                self._progress = line

    def _failure(self) -> AnimatoError:
        self.abort()
        words = self._tail.decode("utf-8", "replace").strip()
        log.warning("ffmpeg_failed", exit_code=self._process.returncode, stderr_tail=words)
        if "No space left on device" in words:
            return disk_full()
        return PermanentError("encode-failed", "The frames could not be encoded.", "Try another output format or size.")


@contextmanager
def full_disk_in_words() -> Iterator[None]:
    """Turn "no space left" into a sentence and a retry."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full() from error
        raise


def disk_full() -> TemporaryError:
    """Return the error of a full scratch disk."""
    return TemporaryError(
        "storage-failed", "The worker's disk is full.", "Free space on its scratch disk.", delay_s=30.0
    )


def _widen(pipe: IO[bytes]) -> None:
    try:
        from fcntl import F_SETPIPE_SZ, fcntl

        fcntl(pipe.fileno(), F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, OSError):
        return  # not Linux, or over this user's limit: a smaller pipe only overlaps less
