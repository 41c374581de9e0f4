"""``animato animate``: one face and one sentence to a video in this very process; no service, no queue, no database."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import err, make_progress, out, quiet_logs
from services.errors import RequestError
from services.jobs.contract import (
    DEFAULT_DURATION_S,
    DEFAULT_FPS,
    MAX_FRAMES,
    MAX_PROMPT_CHARACTERS,
    AnimationOptions,
    FaceChoice,
    VideoFormat,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.animator import Animator
    from worker.composition import View, Whole
    from worker.events import VideoFacts

MAX_SEED = 2**32 - 1


class Align(StrEnum):
    """How the square that is animated is found."""

    AUTO = "auto"
    NONE = "none"


class Compose(StrEnum):
    """What the film shows."""

    CROP = "crop"
    PASTE_BACK = "paste_back"


def animate(
    image: Annotated[
        Path | None, typer.Argument(help="A picture of one face (JPEG, PNG or WebP).", exists=True, dir_okay=False)
    ] = None,
    *,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help='What the face does, e.g. "winks, then laughs".')],
    out_file: Annotated[Path, typer.Option("--out", "-o", help="The video to write.", dir_okay=False)],
    sampled: Annotated[bool, typer.Option("--sampled", help="No picture: a face sampled from the model.")] = False,
    model: Annotated[
        str | None, typer.Option(help="A model of `animato models` (default: the first one, human).")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, max=MAX_FRAMES, help="Number of frames (default: two seconds of them).")
    ] = None,
    fps: Annotated[int, typer.Option(min=1, max=60, help="Frames a second.")] = DEFAULT_FPS,
    intensity: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="0 keeps still, 1 as trained, 2 exaggerates.")
    ] = 1.0,
    sway: Annotated[bool, typer.Option(help="Let the head sway a little, or keep it still.")] = True,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same film (default: random).")
    ] = None,
    video_format: Annotated[
        VideoFormat | None, typer.Option("--format", help="Container (default: by the ending of --out, else mp4).")
    ] = None,
    compose: Annotated[
        Compose, typer.Option(help="crop: a film of the face; paste_back: of the whole photograph.")
    ] = Compose.CROP,
    align: Annotated[
        Align, typer.Option(help="auto: find the face and cut it out upright; none: take the centred square.")
    ] = Align.AUTO,
    face_index: Annotated[
        int | None, typer.Option("--face", min=0, help="Which of several faces, 0 is the largest.")
    ] = None,
    strip: Annotated[Path | None, typer.Option(help="Also write frames side by side as this PNG.")] = None,
) -> None:
    """Animate one face by one sentence, here and now."""
    if (image is None) != sampled:
        raise typer.BadParameter("Name a picture, or take --sampled instead of one; not both.", param_hint="IMAGE")
    if sampled and (compose is Compose.PASTE_BACK or face_index is not None):
        raise typer.BadParameter("--compose paste_back and --face are about a photograph.", param_hint="--sampled")
    if face_index is not None and align is Align.NONE:
        raise typer.BadParameter("--align none looks for no face to choose.", param_hint="--face")
    if not 0 < len(prompt.strip()) <= MAX_PROMPT_CHARACTERS:
        raise typer.BadParameter(f"Say it in 1 to {MAX_PROMPT_CHARACTERS} characters.", param_hint="--prompt")
    quiet_logs()
    began = time.perf_counter()
    seed = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
    count = frames or max(1, round(DEFAULT_DURATION_S * fps))
    kind = video_format or _format_of(out_file)
    picture = None if image is None else _read_picture(image)
    with make_progress() as progress:
        task = progress.add_task("Opening the model", total=count, frames="", left="")
        animator = open_animator(model)
        whole: Whole | None = None
        if picture is None:
            progress.update(task, description="Drawing a face")
            face = animator.sample_face(seed)
        else:
            progress.update(task, description="Learning the face")
            view = _look(picture, animator, align, compose, face_index)
            face = animator.invert(view.cut(animator.manifest.input_resolution))
            whole = view.whole(None) if compose is Compose.PASTE_BACK else None
        progress.update(task, description="Planning the motion")
        motion = animator.move(face, prompt, frames=count, seed=seed, intensity=intensity, sway=sway)
        progress.update(task, description="Drawing")

        def tell(done: int) -> None:
            left = progress.tasks[task].time_remaining
            progress.update(
                task, completed=done, frames=f"{done}/{count}", left="" if not left else f"{left:.0f} s left"
            )

        batches = animator.draw(face, motion)
        if whole is not None:
            batches = (whole.lay(frame)[None] for batch in batches for frame in batch)
        facts = write_video(batches, out_file, kind, fps, tell)
        if strip is not None:
            from worker.strip import write_strip

            progress.update(task, description="Laying out the strip", left="")
            write_strip(out_file, strip)
        progress.update(task, description="Done", left="")
    provider = animator.providers_in_use["synthesis"]
    err().print(
        f"{facts.frames} frames of {facts.width} × {facts.height} px, seed {seed}, "
        f"{time.perf_counter() - began:.1f} s on {provider}",
        style="dim",
    )
    for path in filter(None, (out_file, strip)):
        out().print(str(path))


def _look(
    picture: NDArray[np.uint8], animator: Animator, align: Align, compose: Compose, face_index: int | None
) -> View:
    """Find and choose the face as the service does when a picture is posted.

    Raises: RequestError no-face, multiple-faces, face-too-small, face-unusable.
    """
    from services.faces import FaceFinder
    from services.settings import load_settings
    from worker.composition import View

    choice = None if face_index is None else FaceChoice(index=face_index)
    options = AnimationOptions(prompt="-", align=align.value, compose=compose.value, face=choice)
    faces = FaceFinder(load_settings().bundles_dir).look(picture, animator.manifest, options)
    chosen = next((face for face in faces if face.selected), None)
    return View(picture, None if chosen is None else chosen.points)


def _read_picture(path: Path) -> NDArray[np.uint8]:
    from worker.picture import read_picture

    return read_picture(path)


def open_animator(model_id: str | None) -> Animator:
    """Open a bundle by its id, or the first one there is.

    Raises: ModelError with what is missing and how to get it; RequestError model-unknown.
    """
    from model.animator import Animator
    from model.bundle.reader import find_bundle, list_bundles
    from model.sessions import Tuning
    from services.settings import load_settings

    settings = load_settings()
    known = [manifest.id for manifest in list_bundles(settings.bundles_dir)]
    if not known:
        raise RequestError(
            "model-unknown",
            f"There is no model bundle in {settings.bundles_dir}.",
            "Set ANIMATO_BUNDLES_DIR to where they are.",
        )
    if model_id is not None and model_id not in known:
        raise RequestError("model-unknown", f"There is no model {model_id!r}.", f"Choose from: {', '.join(known)}.")
    return Animator.from_bundle(
        find_bundle(settings.bundles_dir, model_id or known[0]),
        providers=settings.providers,
        threads=settings.threads,
        tuning=Tuning(settings.precision, cuda_graphs=settings.cuda_graphs),
    )


def write_video(
    batches: Iterator[NDArray[np.uint8]], path: Path, video_format: VideoFormat, fps: int, tell: Callable[[int], None]
) -> VideoFacts:
    """Write frames as they are drawn; ``tell`` hears how many are done. An unfinished file is never left behind.

    Shapes: batches [n,H,W,3]. Raises: PermanentError encode-failed, TemporaryError storage-failed.
    """
    from worker.video import VideoWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    beginning = path.with_name(f".{path.name}.part")
    first = next(batches)
    _, height, width, _ = first.shape
    with VideoWriter(beginning, video_format, width_px=width, height_px=height, fps=fps) as writer:
        writer.write(first)
        done = len(first)
        tell(done)
        for batch in batches:
            writer.write(batch)
            done += len(batch)
            tell(done)
        facts = writer.finish()
    os.replace(beginning, path)
    return facts


def _format_of(path: Path) -> VideoFormat:
    """Return the format that the file's ending names; mp4 for an ending that names none."""
    ending = path.suffix.lower().lstrip(".")
    return VideoFormat(ending) if ending in set(VideoFormat) else VideoFormat.MP4
