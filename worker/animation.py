"""The middle of a job: align → invert → move → render → encode; a picture and a sentence in, a video file out.

Runs in the inference child, or in process for ``animato animate``. Drawing and encoding overlap: every batch of
frames goes to ffmpeg while the next one is drawn. No SQL, no queue and no object store in here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.jobs.contract import Stage
from worker.composition import View, Whole
from worker.events import Done, Event, FramesDrawn, Order, Preview, StageStarted
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
        # The face was found and chosen when the picture was posted, so that a bad photo never becomes a job.
        view = None if order.picture is None else View(read_picture(order.picture), order.landmarks)
        crop = None if view is None else view.cut(animator.manifest.input_resolution)
        whole = None if view is None or options.compose == "crop" else view.whole(options.output.size)
    del view
    checkpoint()

    emit(StageStarted(order.job_id, Stage.INVERT))
    with watch.time("invert_s"):
        face = animator.sample_face(order.seed) if crop is None else animator.invert(crop)
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
            sway=options.sway,
        )
    checkpoint()

    with watch.time("encode_s"):  # to start ffmpeg takes a while of its own
        begun = _open_writer(animator, order, whole)
    with begun as writer:
        emit(StageStarted(order.job_id, Stage.RENDER))
        first, peak = _draw(animator, face, motion, whole, order, writer, emit, checkpoint, watch)

        emit(StageStarted(order.job_id, Stage.ENCODE))
        writer.end_frames()
        # ffmpeg ends the file meanwhile
        with watch.time("judge_s"):
            quality = _judge(animator, options.prompt, first, peak)
        with watch.time("encode_s"):
            poster = _write_poster(order, peak, whole, writer.width_px) if options.output.poster else None

            def tick() -> None:
                emit(FramesDrawn(order.job_id, motion.frames, motion.frames))  # encoding says so too that it lives
                checkpoint()

            video = writer.finish(tick)
            with video.path.open("rb") as written:
                sha256 = hashlib.file_digest(written, "sha256").hexdigest()
    return Done(order.job_id, video, sha256, poster, watch.seconds, quality or None)


def _open_writer(animator: Animator, order: Order, whole: Whole | None) -> VideoWriter:
    """Start what writes the film: of the face alone, or of the whole photograph that it is in."""
    options = order.options
    edge = animator.manifest.resolution
    width, height = (edge, edge) if whole is None else whole.size_px
    return VideoWriter(
        order.scratch / f"video.{options.output.format.value}",
        options.output.format,
        width_px=width,
        height_px=height,
        fps=options.fps,
        size_px=options.output.size if whole is None else None,
        quality=options.output.quality,
        loop=options.loop,
    )


def _write_poster(order: Order, peak: NDArray[np.uint8], whole: Whole | None, width_px: int) -> Path:
    """Store the judged frame as a JPEG, as wide as the film."""
    poster = order.scratch / "poster.jpg"
    shown = (
        encode_jpeg(peak, quality=POSTER_QUALITY, edge_px=width_px)
        if whole is None
        else encode_jpeg(whole.lay(peak), quality=POSTER_QUALITY)
    )
    poster.write_bytes(shown)
    return poster


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
    animator: Animator,
    face: Face,
    motion: Motion,
    whole: Whole | None,
    order: Order,
    writer: VideoWriter,
    emit: Emit,
    checkpoint: Checkpoint,
    watch: Stopwatch,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw every frame into the writer; return the first and the judged frame as they were drawn.

    Args:
        whole: the photograph that the film shows; None: the film shows the face alone.
    """
    kept: dict[int, NDArray[np.uint8]] = {}
    drawn = 0
    previewed_s = 0.0
    batches = animator.draw(face, motion, animator.batch_size)
    while True:
        with watch.time("render_s"):
            batch = next(batches, None)
        if batch is None:
            return kept[0], kept[motion.peak_frame]
        for index in (0, motion.peak_frame):
            if drawn <= index < drawn + len(batch):
                kept[index] = batch[index - drawn].copy()
        drawn += len(batch)
        emit(FramesDrawn(order.job_id, drawn, motion.frames))
        if time.monotonic() - previewed_s >= PREVIEW_EVERY_S:
            previewed_s = time.monotonic()
            newest = batch[-1] if whole is None else whole.lay(batch[-1])
            emit(Preview(order.job_id, encode_jpeg(newest, quality=75, at_most_px=PREVIEW_EDGE_PX)))
        for shown in _compose(batch, whole, watch):
            with watch.time("encode_s"):
                writer.write(shown)
            checkpoint()


def _compose(batch: NDArray[np.uint8], whole: Whole | None, watch: Stopwatch) -> Iterator[NDArray[np.uint8]]:
    """Yield what the film shows of a batch: the batch, or whole photographs one at a time, as these are large."""
    if whole is None:
        yield batch
        return
    for frame in batch:
        with watch.time("paste_s"):
            shown = whole.lay(frame)[None]
        yield shown
