"""What a job is: its request, its states and its record. No SQL, no HTTP, no models in here.

``queued → running → succeeded | failed``; ``queued | running → canceled``; ``queued → expired`` past its deadline;
``running → queued`` when its worker is lost. Terminal states never change.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_FRAMES = 960
# Of a whole photograph with a moving face: its longer edge, and frames × width × height of a film of it.
MAX_WHOLE_EDGE_PX = 2048
MAX_WHOLE_PIXELS = 2**30
MAX_PROMPT_CHARACTERS = 300
DEFAULT_FPS = 24
DEFAULT_DURATION_S = 2.0
_JOB_ID = re.compile(r"anm_[0-9a-f]{32}")


class JobState(StrEnum):
    """Where a job stands; the last four are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


TERMINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.EXPIRED})


class Stage(StrEnum):
    """What a running job is doing; in the order in which it does it."""

    FETCH = "fetch"
    ALIGN = "align"
    INVERT = "invert"
    MOVE = "move"
    RENDER = "render"
    ENCODE = "encode"
    STORE = "store"


class VideoFormat(StrEnum):
    """Container and codec of the result."""

    MP4 = "mp4"
    WEBM = "webm"
    GIF = "gif"
    WEBP = "webp"
    APNG = "apng"


MEDIA_TYPES: dict[VideoFormat, str] = {
    VideoFormat.MP4: "video/mp4",
    VideoFormat.WEBM: "video/webm",
    VideoFormat.GIF: "image/gif",
    VideoFormat.WEBP: "image/webp",
    VideoFormat.APNG: "image/apng",
}

Pixel = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]
MetadataText = Annotated[str, StringConstraints(max_length=500)]


class OutputOptions(BaseModel):
    """How the frames become a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: VideoFormat = VideoFormat.MP4
    size: int | None = Field(
        None,
        ge=64,
        le=1024,
        description="Edge length in px, even; default: the model's resolution. Of a whole photograph the longer edge;"
        f" default: the photograph's own, at most {MAX_WHOLE_EDGE_PX} px.",
    )
    quality: int = Field(80, ge=1, le=100, description="Encoder quality, 100 is best.")
    poster: bool = Field(True, description="Also store the judged frame as a JPEG poster.")


class FaceChoice(BaseModel):
    """Which of several faces is meant: exactly one of the three ways to say it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int | None = Field(None, ge=0, le=999, description="As numbered in `faces`; 0 is the largest.")
    box: Annotated[list[Pixel], Field(min_length=4, max_length=4)] | None = Field(
        None, description="Left, top, right, bottom in px of the picture: the face that overlaps it most."
    )
    select: Literal["largest"] | None = Field(
        None, description="The largest face, even where another is nearly as large."
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(way is not None for way in (self.index, self.box, self.select)) != 1:
            raise ValueError("exactly one of index, box and select must be given")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError("box must be left < right and top < bottom")
        return self


class WebhookEvent(StrEnum):
    """What a webhook tells: that a job has ended, and how."""

    SUCCEEDED = "animation.succeeded"
    FAILED = "animation.failed"
    CANCELED = "animation.canceled"
    EXPIRED = "animation.expired"


class WebhookOptions(BaseModel):
    """Whom to tell when the job has ended."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=2048, description="https, a public address, no redirect.")
    events: list[WebhookEvent] = Field(
        default_factory=lambda: list(WebhookEvent), min_length=1, max_length=4, description="Default: every end."
    )


class AnimationOptions(BaseModel):
    """What to animate and how; everything of a request but the picture. Stored with the job as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
    model: str | None = Field(None, max_length=64, description="A model id of GET /v1/models; default: the first one.")
    source: Literal["image", "sampled"] = Field(
        "image", description='"sampled": no picture, a face sampled from the model.'
    )
    intensity: float = Field(1.0, ge=0.0, le=2.0, allow_inf_nan=False)
    duration_s: float | None = Field(None, gt=0.0, le=40.0, allow_inf_nan=False)
    frames: int | None = Field(None, ge=1, le=MAX_FRAMES)
    fps: int = Field(DEFAULT_FPS, ge=1, le=60)
    loop: Literal["none", "pingpong"] = "none"
    easing: Literal["smooth", "linear"] = "smooth"
    sway: bool = Field(
        True,
        description="Let the head sway a little while the face moves; false keeps it still.",
    )
    seed: int | None = Field(
        None, ge=0, le=2**32 - 1, description="Another seed is another take; default: drawn at random."
    )
    align: Literal["auto", "none"] = Field(
        "auto", description='"auto": find the face and cut it out upright; "none": take the centred square.'
    )
    compose: Literal["crop", "paste_back"] = Field(
        "crop", description='"crop": a film of the face; "paste_back": of the whole photograph with its face moving.'
    )
    face: FaceChoice | None = Field(
        None, description="Which face; default: the largest, unless another is nearly as large."
    )
    output: OutputOptions = OutputOptions()
    webhook: WebhookOptions | None = Field(None, description="Called once the job has ended.")
    metadata: dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], MetadataText] = Field(
        default_factory=dict, max_length=16
    )
    deadline_s: int | None = Field(None, ge=1, le=86_400, description="Expire if not started within this many seconds.")
    ttl_s: int | None = Field(None, ge=60, le=30 * 86_400, description="Keep the result this long.")

    @property
    def frames_total(self) -> int:
        """Number of distinct frames to draw (a pingpong loop repeats them and draws no more)."""
        if self.frames is not None:
            return self.frames
        seconds = DEFAULT_DURATION_S if self.duration_s is None else self.duration_s
        return max(1, min(MAX_FRAMES, round(seconds * self.fps)))


class FaceFacts(BaseModel):
    """A face found in the picture; boxes and landmarks in px of the picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int = Field(description="0 is the largest face.")
    box: list[float] = Field(description="Left, top, right, bottom.", min_length=4, max_length=4)
    score: float = Field(ge=0, le=1)
    landmarks: list[list[float]] = Field(
        description="[x, y] of the viewer's left eye, right eye, the nose, the left and the right corner of the mouth."
    )
    selected: bool = Field(False, description="The face that moves.")

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """The five landmarks as ``model.align.face_region`` takes them."""
        return tuple((x, y) for x, y in self.landmarks)

    @property
    def edge_px(self) -> float:
        """The shorter edge of the box."""
        left, top, right, bottom = self.box
        return min(right - left, bottom - top)


class InputFacts(BaseModel):
    """What is known of the accepted picture. ``key`` is its place in the object store, None for a sampled face."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    faces: list[FaceFacts] = Field(default_factory=list, description="Empty where none was looked for.")

    @property
    def selected_face(self) -> FaceFacts | None:
        """The face that moves; None: the centred square."""
        return next((face for face in self.faces if face.selected), None)


class OutputFacts(BaseModel):
    """What is known of the stored result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    format: VideoFormat
    width: int
    height: int
    fps: int
    frames: int
    bytes: int
    sha256: str
    poster_key: str | None = None


class JobError(BaseModel):
    """Why a job failed, in words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    message: str
    hint: str = ""
    retryable: bool = False


class JobRecord(BaseModel):
    """One job as the store knows it. ``revision`` grows with every change (ETag and SSE ids are made of it)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    owner: str
    state: JobState
    cancel_requested: bool = False
    revision: int
    options: AnimationOptions
    input: InputFacts
    seed: int
    model_id: str
    model_sha256: str | None = None
    stage: Stage | None = None
    progress: float = 0.0
    frames_done: int = 0
    frames_total: int
    preview_jpeg: bytes | None = None
    attempt: int = 0
    crashes: int = 0
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    output: OutputFacts | None = None
    quality: dict[str, float | str] | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    error: JobError | None = None
    worker: str | None = None
    traceparent: str | None = None

    @property
    def terminal(self) -> bool:
        """True when nothing can change any more but the life of the stored result."""
        return self.state in TERMINAL_STATES


class Lease(BaseModel):
    """A worker's right to run one attempt: every write of that attempt carries ``token``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    record: JobRecord
    token: str
    expires_at: datetime


def whole_frame_size(width: int, height: int, size: int | None) -> tuple[int, int]:
    """Return width and height of a film of a whole photograph: even, because video codecs halve the colour planes.

    Args:
        width, height: of the photograph.
        size: the wanted longer edge; None: the photograph's own, at most MAX_WHOLE_EDGE_PX.
    """
    longer = max(width, height)
    wanted = min(longer, MAX_WHOLE_EDGE_PX) if size is None else size
    if wanted == longer:  # nothing is scaled for the sake of evenness: an odd row or column is left out
        return max(2, width - width % 2), max(2, height - height % 2)
    return max(2, round(width * wanted / longer / 2) * 2), max(2, round(height * wanted / longer / 2) * 2)


def make_job_id() -> str:
    """Return a new unguessable job id, e.g. ``anm_3f9c…`` (128 random bits)."""
    return "anm_" + secrets.token_hex(16)


def is_job_id(text: str) -> bool:
    """Return whether ``make_job_id`` could have made this."""
    return _JOB_ID.fullmatch(text) is not None


def json_safe(value: BaseModel) -> dict[str, Any]:
    """Return the model as plain JSON types, for a JSON column."""
    return value.model_dump(mode="json")
