"""The inference child: a process of its own that holds the bundles and makes the videos.

Run as ``python -m worker.child DESCRIPTOR PARENT_PID`` by ``worker.inference``.

It is started fresh, never forked, because onnxruntime and CUDA don't survive a fork. It dies with its parent: by the
kernel's parent-death signal, and where there is none by the end of the socket between them. It knows the protocol and
the stages; no SQL, no queue, no object store.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from services.errors import AnimatoError, JobCanceled, PermanentError
from services.logs import configure_logging
from services.parentage import die_with_parent
from worker.animation import make_video
from worker.events import BundleFacts, Cancel, ChildOptions, Event, Failed, Order, Ready

if TYPE_CHECKING:
    from model.animator import Animator

log = structlog.get_logger(__name__)


class Child:
    """The bundles of one process and its side of the conversation."""

    def __init__(self, connection: Connection, options: ChildOptions) -> None:
        self._connection = connection
        self._news = select.poll()  # Connection.poll would make one for every look, and there is one after every batch
        self._news.register(connection.fileno(), select.POLLIN)
        self._options = options
        self._animators: dict[Path, Animator] = {}
        self._broken: dict[str, str] = {}
        self._told: Ready | None = None

    def run(self) -> None:
        """Warm up, say so, then take orders until the worker closes the connection."""
        for bundle in self._options.warm:
            try:
                self._open(bundle)
            except PermanentError as error:
                log.error("bundle_refused", bundle=bundle.name, code=error.code, reason=error.message)  # noqa: TRY400 - the sentence says it
                self._broken[str(bundle)] = f"{error.message} {error.hint}".strip()
        gc.freeze()  # what is loaded by now stays: no collection need ever walk through it again
        self._tell_ready()
        while True:
            message = self._connection.recv()
            if isinstance(message, Order):
                self._take(message)
            # a Cancel that comes here is about a job that has ended meanwhile

    def _take(self, order: Order) -> None:
        structlog.contextvars.bind_contextvars(job_id=order.job_id)
        try:
            if order.bundle not in self._animators:
                self._open(order.bundle)
                self._tell_ready()
            with _errors_in_words():
                done = make_video(self._animators[order.bundle], order, self._emit, lambda: self._check(order))
            self._tell_ready()  # a provider may have failed on the way
            self._emit(done)
        except AnimatoError as error:
            self._emit(Failed.from_error(order.job_id, error))
        except (EOFError, ConnectionError):
            raise
        except (
            Exception
        ):  # the boundary of a job: whatever its picture or prompt sets off must not take the bundles with it
            log.exception("job_failed_unexpectedly")
            self._emit(
                Failed(
                    order.job_id,
                    "internal",
                    "Something went wrong inside the worker.",
                    "Its log says what; report it if it comes again.",
                )
            )
        finally:
            structlog.contextvars.clear_contextvars()

    def _open(self, bundle: Path) -> None:
        from model.animator import Animator
        from model.sessions import Tuning

        with _errors_in_words():
            options = self._options
            tuning = Tuning(options.precision, options.cache_dir, options.cuda_graphs)
            animator = Animator.from_bundle(bundle, options.providers, options.threads or None, tuning)
            animator.warm_up()
        self._animators[bundle] = animator
        log.info("bundle_loaded", model=animator.manifest.id, providers=animator.providers_in_use)

    def _tell_ready(self) -> None:
        """Say what is loaded and what runs it, unless that was said already."""
        loaded = {animator.manifest.id: _facts_of(animator) for animator in self._animators.values()}
        ready = Ready(os.getpid(), loaded, dict(self._broken))
        if ready != self._told:
            self._emit(ready)
            self._told = ready

    def _emit(self, event: Event) -> None:
        self._connection.send(event)

    def _check(self, order: Order) -> None:
        while self._news.poll(0):
            message = self._connection.recv()
            if isinstance(message, Cancel) and message.job_id == order.job_id:
                raise JobCanceled


def _facts_of(animator: Animator) -> BundleFacts:
    told = tuple(f"{fall.graph}: {fall.failed} failed, {fall.using} took over" for fall in animator.fallbacks)
    return BundleFacts(animator.manifest.sha256, animator.providers_in_use, told)


class _errors_in_words:  # noqa: N801 - read as a clause of a with statement
    """Translates the model's and the machine's errors into the service's."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from model.errors import ModelError

        if isinstance(error, ModelError):
            raise PermanentError(error.code, error.message, error.hint) from error
        if isinstance(error, MemoryError):
            raise PermanentError(
                "out-of-memory",
                "The worker had too little memory for this job.",
                "Ask for a smaller size or fewer frames.",
            ) from error


def main(arguments: list[str]) -> int:
    """Serve the worker at the other end of the inherited socket."""
    descriptor, parent_pid = int(arguments[0]), int(arguments[1])
    die_with_parent(parent_pid)
    # Ctrl-C reaches the whole terminal group, but when to stop is for the worker to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(descriptor)
    try:
        options = connection.recv()
        assert isinstance(options, ChildOptions)
        configure_logging(service="inference", log_format=options.log_format, level=options.log_level)
        Child(connection, options).run()
    except (EOFError, ConnectionError):
        return 0  # the worker has closed the connection: there is nobody left to work for
    return 0


if __name__ == "__main__":
    # At once: the runtime's own clean-up takes a second, and the worker waits for this process before it ends.
    os._exit(main(sys.argv[1:]))
