"""The worker's side of its inference child: start it, order, listen, stop it, and say in words how it died.

One child at a time, started fresh (never forked: onnxruntime and CUDA don't survive it) as ``python -m worker.child``
rather than by ``multiprocessing``, whose spawn would import the worker's main module, Celery and SQL included, and
keep a third process for tracking. It knows the protocol; no models, no SQL, no queue.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection
from subprocess import Popen
from typing import cast

import structlog

from services.parentage import start_child
from worker.events import Cancel, ChildOptions, Command, Died, Done, Event, Failed, Order, Ready

log = structlog.get_logger(__name__)

# Long enough for one batch of frames and for ffmpeg to be ended.
CANCEL_PATIENCE_S = 3.0


class InferenceChild:
    """One child process. Not shared between threads, but for ``kill``.

    Args:
        options: what it needs to know for life.
    """

    def __init__(self, options: ChildOptions) -> None:
        self._options = options
        self._connection: Connection | None = None
        self._news = select.poll()  # Connection.poll would make one for every look
        self._process: Popen[bytes] | None = None
        self._exited = threading.Event()
        self._killed_here = False
        self._busy_with: str | None = None
        self.ready: Ready | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None before it was started."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """True from ``start`` until the process has ended."""
        return self._process is not None and not self._exited.is_set()

    def start(self) -> None:
        """Start the process; it says ``Ready`` when its bundles are warm."""
        assert self._process is None, "a child is started once; make another one"
        ours, theirs = socket.socketpair()
        exited = self._exited
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self._process = start_child(
                [sys.executable, "-m", "worker.child", str(theirs.fileno()), str(os.getpid())],
                on_exit=lambda _code: exited.set(),
                pass_fds=(theirs.fileno(),),
            )
        self._connection = Connection(ours.detach())
        self._news.register(self._connection.fileno(), select.POLLIN)
        try:
            self._connection.send(self._options)
        except ConnectionError:
            log.debug("child_gone_at_start")  # the next poll says how

    def begin(self, order: Order) -> None:
        """Hand over a job; its events follow. A child that has died meanwhile says so at the next ``poll``."""
        self._busy_with = order.job_id
        self._send(order)

    def poll(self, timeout_s: float) -> Event | None:
        """Return the next event, or None when none came in time."""
        assert self._connection is not None, "start the child first"
        try:
            if not self._news.poll(1000 * timeout_s):
                return None
            event = cast(Event, self._connection.recv())
        except (EOFError, ConnectionError, OSError):
            return self._bury()
        if isinstance(event, Ready):
            self.ready = event
        elif isinstance(event, Done | Failed) and event.job_id == self._busy_with:
            self._busy_with = None
        return event

    def wait_ready(self, timeout_s: float) -> Ready | Died | None:
        """Wait until the bundles are warm; None when that takes longer."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            event = self.poll(left_s)
            if isinstance(event, Ready | Died):
                return event
        return None

    def stop_job(self, job_id: str) -> None:
        """End the running job: ask, wait a moment, then kill. Afterwards the child is idle or dead.

        A job that was never handed over, or has ended, is none of its affairs: an idle child would answer nothing.
        """
        if self._busy_with != job_id:
            return
        self._send(Cancel(job_id))
        deadline_s = time.monotonic() + CANCEL_PATIENCE_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            event = self.poll(left_s)
            if isinstance(event, Died):
                return
            if isinstance(event, Done | Failed) and event.job_id == job_id:
                return
        log.warning("child_killed", reason="it did not stop in time", job_id=job_id)
        self.kill()

    def kill(self) -> None:
        """End the process now and wait for it."""
        self._killed_here = True
        if self._process is not None and self.alive:
            self._process.kill()
            self._exited.wait(timeout=10.0)

    def close(self, patience_s: float = 2.0) -> None:
        """Close the connection, which an idle child takes as its end; kill a busy one."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None and not self._exited.wait(timeout=patience_s):
            self.kill()

    def _send(self, command: Command) -> None:
        assert self._connection is not None, "start the child first"
        try:
            self._connection.send(command)
        except (ConnectionError, OSError):
            log.debug("child_gone_while_sending")  # the next poll says how

    def _bury(self) -> Died:
        assert self._process is not None
        if not self._exited.wait(timeout=5.0):  # it closed its end but did not leave
            self.kill()
        code = self._process.returncode
        return Died(code, describe_death(code, killed_here=self._killed_here))


def describe_death(exit_code: int | None, *, killed_here: bool = False) -> str:
    """Return in one sentence how the process that ran the model ended, and the likeliest reason."""
    if killed_here:
        return "The process that runs the model was ended by its worker because it did not answer."
    if exit_code is None or exit_code >= 0:
        return f"The process that runs the model ended by itself with exit code {exit_code}."
    number = -exit_code
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        return f"The process that runs the model was killed by {name}; most often because memory ran out."
    if number in {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}:
        return f"The process that runs the model crashed with {name}; most often a fault of its runtime or driver."
    return f"The process that runs the model was ended by {name}."
