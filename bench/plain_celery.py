"""What most people would write first: a Celery task that makes the film, with the settings that Celery comes with.

The baseline of ``bench.queue_overhead``: ``celery -A bench.plain_celery worker``. The same picture, the same film by
the same ``worker.animation.make_video``, into a folder; the result goes back through Redis. It loses jobs: see
docs/reliability.md.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from model.animator import Animator
from services.jobs.contract import AnimationOptions
from worker.animation import make_video
from worker.events import Order

# Told through the environment, because Celery finds this module by its name.
BUNDLE = "BENCH_BUNDLE"
FOLDER = "BENCH_FOLDER"
BROKER = "BENCH_BROKER"

celery = Celery("plain", broker=os.environ.get(BROKER), backend=os.environ.get(BROKER))
_opened: list[Animator] = []


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def open_bundle(**_facts: Any) -> None:
    """Open the bundle in each of the pool's processes: onnxruntime does not outlive a fork."""
    _opened[:] = [Animator.from_bundle(Path(os.environ[BUNDLE]), ("cpu",), threads=1)]


@celery.task(name="plain.animate")  # type: ignore[untyped-decorator]
def animate(job_id: str, picture: str, options: dict[str, Any]) -> dict[str, Any]:
    """Make one film and tell where it is."""
    folder = Path(os.environ[FOLDER])
    with tempfile.TemporaryDirectory(prefix="bench-plain-") as scratch:
        order = Order(job_id, folder, Path(picture), AnimationOptions(**options), 7, Path(scratch))
        done = make_video(_opened[0], order, lambda event: None, lambda: None)
        kept = folder / f"{job_id}.{done.video.format.value}"
        shutil.move(done.video.path, kept)
        if done.poster is not None:
            shutil.move(done.poster, folder / f"{job_id}.jpg")
        return {"path": str(kept), "sha256": done.sha256, "frames": done.video.frames}
