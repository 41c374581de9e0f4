"""The middle of a job: align → invert → move → render → encode; a picture and a sentence in, a video file out.

Runs in the inference child, or in process for ``animato animate``. Drawing and encoding overlap: every batch of
frames goes to ffmpeg while the next one is drawn. No SQL, no queue and no object store in here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.jobs.contract import Stage
from worker.events import Done, Event, FramesDrawn, Order, Preview, StageStarted, VideoFacts
from worker.picture import PREVIEW_EDGE_PX, encode_jpeg, read_picture
from worker.stopwatch import Stopwatch
from worker.video import VideoWriter

if TYPE_CHECKING:
    from model.animator import Animator, Face
    from model.motion import Motion

Emit = Callable[[Event], None]
Checkpoint = Callable[[], None]

PREVIEW_EVERY_S = 0.5
POSTER_QUALITY = 90
# One batch should take a moment only, even on a processor: cancel works between batches. 8 frames up to 256 px, 1 at
# 1024 px.
BATCH_PIXELS = 8 * 256 * 256
MAX_BATCH = 8


def make_video(animator: Animator, order: Order, emit: Emit, checkpoint: Checkpoint) -> Done:
    """Do the whole job but fetching and storing, and return what to store.

    Args:
        animator: the opened bundle.
        order: what to do.
        emit: told of every stage, batch and preview.
        checkpoint: called between batches; raises JobCanceled to stop.

    Raises: PermanentError with the code of what went wrong; model errors pass as they are.
    """
    watch = Stopwatch()
    options = order.options

    emit(StageStarted(order.job_id, Stage.ALIGN))
    with watch.time("align_s"):
        # Aligning by a detector is up to the bundle; what is left to do here is the same for "auto" and "none".
        picture = None if order.picture is None else read_picture(order.picture)
    checkpoint()

    emit(StageStarted(order.job_id, Stage.INVERT))
    with watch.time("invert_s"):
        face = animator.sample_face(order.seed) if picture is None else animator.invert(picture)
    del picture
    checkpoint()

    emit(StageStarted(order.job_id, Stage.MOVE))
    with watch.time("move_s"):
        motion = animator.move(
            face,
            options.prompt,
            frames=options.frames_total,
            seed=order.seed,
            intensity=options.intensity,
            easing=options.easing,
        )
    checkpoint()

    emit(StageStarted(order.job_id, Stage.RENDER))
    video, first, peak = _draw(animator, face, motion, order, emit, checkpoint, watch)

    with watch.time("encode_s"):
        poster = None
        if options.output.poster:
            poster = order.scratch / "poster.jpg"
            poster.write_bytes(encode_jpeg(peak, quality=POSTER_QUALITY, edge_px=video.width))
        with video.path.open("rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
    quality = _judge(animator, options.prompt, first, peak)
    return Done(order.job_id, video, sha256, poster, watch.seconds, quality or None)


def _judge(
    animator: Animator, prompt: str, first: NDArray[np.uint8], peak: NDArray[np.uint8]
) -> dict[str, float | str]:
    """What the bundle can tell of its own answer; empty where it can't."""
    quality: dict[str, float | str] = {}
    identity = animator.measure_identity(first, peak)
    if identity is not None:
        quality["identity"] = round(identity, 4)
    understood = animator.measure_language(prompt)
    if understood is not None:
        quality["similarity"] = round(understood.similarity, 4)
        quality["understood_as"] = understood.understood_as
    return quality


def _draw(
    animator: Animator, face: Face, motion: Motion, order: Order, emit: Emit, checkpoint: Checkpoint, watch: Stopwatch
) -> tuple[VideoFacts, NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw and encode; return the video's facts, the first and the judged frame."""
    options = order.options
    edge = animator.manifest.resolution
    total = motion.frames
    kept: dict[int, NDArray[np.uint8]] = {}
    drawn = 0
    previewed_s = 0.0

    def tick() -> None:
        emit(FramesDrawn(order.job_id, total, total))  # encoding says so too that it lives
        checkpoint()

    writer = VideoWriter(
        order.scratch / f"video.{options.output.format.value}",
        options.output.format,
        width_px=edge,
        height_px=edge,
        fps=options.fps,
        size_px=options.output.size,
        quality=options.output.quality,
        loop=options.loop,
    )
    with writer:
        batches = animator.draw(face, motion, batch_size=max(1, min(MAX_BATCH, BATCH_PIXELS // (edge * edge))))
        while True:
            with watch.time("render_s"):
                batch = next(batches, None)
            if batch is None:
                break
            for index in (0, motion.peak_frame):
                if drawn <= index < drawn + len(batch):
                    kept[index] = batch[index - drawn].copy()
            drawn += len(batch)
            emit(FramesDrawn(order.job_id, drawn, total))
            if time.monotonic() - previewed_s >= PREVIEW_EVERY_S:
                previewed_s = time.monotonic()
                emit(Preview(order.job_id, encode_jpeg(batch[-1], quality=75, at_most_px=PREVIEW_EDGE_PX)))
            with watch.time("encode_s"):
                writer.write(batch)
            checkpoint()
        emit(StageStarted(order.job_id, Stage.ENCODE))
        with watch.time("encode_s"):
            video = writer.finish(tick)
    return video, kept[0], kept[motion.peak_frame]
