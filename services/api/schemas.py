"""The JSON that the API answers with, and how a record becomes it. The documents here are the public contract."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from services.jobs.contract import FaceFacts, JobRecord, JobState, Stage, VideoFormat

PREFIX = "/v1/animations"


class AnimationInput(BaseModel):
    """What was asked for. The picture's facts are null for a sampled face."""

    prompt: str
    seed: int = Field(description="The seed in use; drawn at random when none was sent.")
    sha256: str | None = Field(description="Of the clean picture that was stored.")
    width: int | None
    height: int | None


class FaceRefusal(BaseModel):
    """Why this picture would not be animated as it is; the problem document of `POST /v1/animations` says the same."""

    code: str
    detail: str
    hint: str


class FaceDetection(BaseModel):
    """What would be found in a picture if it was posted."""

    object: Literal["face_detection"] = "face_detection"
    model: str
    width: int = Field(description="Of the picture, after its EXIF orientation.")
    height: int
    faces: list[FaceFacts] = Field(description="The largest first.")
    region: list[list[float]] | None = Field(
        description="Corners of the square that would be cut out and animated, in px: top left, top right, bottom"
        " right, bottom left when the face is upright. Null where no face is chosen."
    )
    problem: FaceRefusal | None = Field(description="What a job with this face would be refused with; null: nothing.")


class AnimationOutput(BaseModel):
    """The result. The URLs stay the same; what they redirect to does not."""

    url: str
    format: VideoFormat
    width: int
    height: int
    fps: int
    frames: int
    bytes: int
    sha256: str
    poster_url: str | None


class AnimationModel(BaseModel):
    """The bundle that runs the job; ``sha256`` is that of its manifest."""

    id: str
    sha256: str | None


class AnimationError(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    hint: str
    retryable: bool


class AnimationUrls(BaseModel):
    """Where to go from here."""

    self: str
    events: str
    cancel: str


class Animation(BaseModel):
    """One job."""

    id: str
    object: Literal["animation"] = "animation"
    status: JobState
    stage: Stage | None = Field(
        description="What a running job is doing; of one that failed or was canceled, what it was doing last."
    )
    progress: float = Field(ge=0, le=1)
    frames_done: int
    frames_total: int
    queue_position: int | None = Field(description="1 is next; null when the job is not queued.")
    eta_s: float | None = Field(description="Estimated seconds until the end; null when nothing is known yet.")
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None = Field(description="When the stored result is removed.")
    attempt: int
    cancel_requested: bool
    input: AnimationInput
    faces: list[FaceFacts] = Field(description="Faces found in the picture; empty where none was looked for.")
    output: AnimationOutput | None
    quality: dict[str, float | str] | None = Field(
        description=(
            "What the model can tell of its answer; null when it can't. `identity`: cosine of the face's identity "
            "before and after. `similarity`, 0 to 1: how near the prompt is to what the model was taught; near 0 it "
            "asks for nothing that the model knows, and the face hardly moves. `understood_as`: what was understood."
        )
    )
    metrics: dict[str, float] = Field(description="Seconds spent, by stage.")
    model: AnimationModel
    error: AnimationError | None
    metadata: dict[str, str]
    urls: AnimationUrls


class AnimationList(BaseModel):
    """One page of jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[Animation]
    next_cursor: str | None


class Model(BaseModel):
    """One model; see docs/bundle.md for the bundle behind it."""

    id: str
    object: Literal["model"] = "model"
    version: str
    domain: str
    kind: str
    sha256: str = Field(description="Of the bundle's manifest, which names every other file's.")
    resolution: int = Field(description="Edge length of a frame in px.")
    fps: int
    expressions: list[str]
    presets: list[str] = Field(description="Prompts to start with.")
    finds_faces: bool = Field(
        description="Whether `align: auto` cuts out the face of a photograph, which must have one; false: the centred"
        " square, unless a `face` or `paste_back` is asked for."
    )
    license: str
    providers: list[str] = Field(description="What live workers run it on; empty where no worker has it loaded.")
    fallbacks: list[str] = Field(
        description="What failed on a live worker, as 'synthesis: cuda failed, cpu took over'; its log says why."
    )
    warm: bool


class ModelList(BaseModel):
    """All models; the first one is the default."""

    object: Literal["list"] = "list"
    data: list[Model]


class Check(BaseModel):
    """One thing that the service needs."""

    ok: bool
    required: bool
    detail: str


class Readiness(BaseModel):
    """Whether a job posted now would be accepted and run."""

    status: Literal["ready", "not-ready"]
    checks: dict[str, Check]


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Sample(BaseModel):
    """A sample face to try the service with."""

    name: str
    url: str
    model: str | None = Field(description="The model whose kind of face it is; null: any that has none of its own.")


class SampleList(BaseModel):
    """All sample faces."""

    object: Literal["list"] = "list"
    data: list[Sample]


def describe_job(record: JobRecord, queue_position: int | None = None, now: datetime | None = None) -> dict[str, Any]:
    """Return the job as the API shows it, in plain JSON types."""
    return describe_animation(record, queue_position, now).model_dump(mode="json")


def describe_animation(record: JobRecord, queue_position: int | None = None, now: datetime | None = None) -> Animation:
    """Return the job as the API shows it."""
    base = f"{PREFIX}/{record.id}"
    return Animation(
        id=record.id,
        status=record.state,
        stage=None if record.state is JobState.SUCCEEDED else record.stage,
        progress=record.progress,
        frames_done=record.frames_done,
        frames_total=record.frames_total,
        queue_position=queue_position,
        eta_s=estimate_eta_s(record, now),
        created_at=record.created_at,
        started_at=record.started_at,
        completed_at=record.completed_at,
        expires_at=record.expires_at,
        attempt=record.attempt,
        cancel_requested=record.cancel_requested,
        input=AnimationInput(
            prompt=record.options.prompt,
            seed=record.seed,
            sha256=record.input.sha256,
            width=record.input.width,
            height=record.input.height,
        ),
        faces=record.input.faces,
        output=_describe_output(record, base),
        quality=record.quality,
        metrics=record.metrics,
        model=AnimationModel(id=record.model_id, sha256=record.model_sha256),
        error=None if record.error is None else AnimationError(**record.error.model_dump()),
        metadata=record.options.metadata,
        urls=AnimationUrls(self=base, events=f"{base}/events", cancel=f"{base}/cancel"),
    )


def estimate_eta_s(record: JobRecord, now: datetime | None = None) -> float | None:
    """Return the seconds that are left if the job goes on as it did; None while there is nothing to reckon with."""
    if record.state is not JobState.RUNNING or record.started_at is None or record.progress < 0.02:
        return None
    elapsed_s = ((now or datetime.now(UTC)) - record.started_at).total_seconds()
    return round(max(0.0, elapsed_s) * (1 - record.progress) / record.progress, 1)


def _describe_output(record: JobRecord, base: str) -> AnimationOutput | None:
    output = record.output
    if output is None:
        return None
    return AnimationOutput(
        url=f"{base}/video",
        format=output.format,
        width=output.width,
        height=output.height,
        fps=output.fps,
        frames=output.frames,
        bytes=output.bytes,
        sha256=output.sha256,
        poster_url=None if output.poster_key is None else f"{base}/poster",
    )
