"""The one task of the queue, ``animato.look``: claim, run, finish, until nothing is due."""

from __future__ import annotations

from celery import Celery

from services.queue import TASK_LOOK
from worker.runner import Runner


def register_look(celery: Celery, runner: Runner) -> None:
    """Serve hints with this runner.

    The task ends when the runner is idle again. While it lasts the worker takes no other hint, so that hints go to
    workers with time.
    """

    def look(job_id: str) -> None:
        runner.look()

    celery.task(name=TASK_LOOK, ignore_result=True)(look)
