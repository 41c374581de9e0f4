"""The one task of the queue, ``animato.look``: claim, run, finish, until nothing is due; and the pool that runs it."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.concurrency.thread import ApplyResult, TaskPool

from services.queue import TASK_LOOK
from worker.runner import Runner


class ListeningPool(TaskPool):  # type: ignore[misc]  # Celery has no types
    """Celery's threads, and whoever listens to the queue is told when one of them is free again.

    Celery asks the queue server for the next hint when its loop comes by, and between two rounds the loop sleeps for up
    to a second. A look that has ended does not wake it by itself, so that a worker would be deaf for that long.
    """

    _loop: Any = None

    def register_with_event_loop(self, loop: Any) -> None:
        """Remember whom to wake. Called by Celery, again for each new connection."""
        super().register_with_event_loop(loop)
        self._loop = loop

    def on_apply(self, *args: Any, **kwargs: Any) -> ApplyResult:
        """Run a task; called by Celery."""
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(lambda _: self._wake())  # by then Celery has counted the task as done
        return result

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(_nothing)


def _nothing() -> None:
    """Wake the loop and no more: it looks by itself what it may take."""


def register_look(celery: Celery, runner: Runner) -> None:
    """Serve hints with this runner.

    The task ends when the runner is idle again. While it lasts the worker takes no other hint, so that hints go to
    workers with time.
    """

    def look(job_id: str) -> None:
        runner.look()

    celery.task(name=TASK_LOOK, ignore_result=True)(look)
