"""What a worker and its inference child say to each other: two commands one way, seven events back.

::

    worker → child     Order, Cancel
    child  → worker    Ready            bundles are loaded and warm; at the start, after each bundle loaded later, and
                                        when a provider has failed and another one does its work
                       StageStarted     the job is in this stage now
                       FramesDrawn      so many frames are drawn
                       Preview          how the newest frame looks
                       Done | Failed    the job is over, one way or the other
    (made here)        Died             the child is gone; in words

A job's events come in this order, between its Order and its Done or Failed. The messages are pickled over a private
socket pair: both ends are this program. No SQL, no queue, no models in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from services.errors import AnimatoError, JobCanceled, PermanentError, TemporaryError
from services.jobs.contract import AnimationOptions, Stage, VideoFormat


@dataclass(frozen=True)
class ChildOptions:
    """What a child needs to know for life. ``warm`` lists the bundles to load before it is ready."""

    providers: tuple[str, ...]
    threads: int
    warm: tuple[Path, ...] = ()
    precision: Literal["full", "half"] = "full"
    cuda_graphs: bool = False
    cache_dir: Path | None = None
    log_format: Literal["json", "console"] = "json"
    log_level: str = "info"


@dataclass(frozen=True)
class Order:
    """One job to do. ``picture`` is the fetched file, None for a sampled face.

    ``landmarks`` are the chosen face's five points in px of the picture; None: its centred square is the face.
    Everything is written into ``scratch``.
    """

    job_id: str
    bundle: Path
    picture: Path | None
    options: AnimationOptions
    seed: int
    scratch: Path
    landmarks: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class Cancel:
    """Stop this job before its next batch of frames."""

    job_id: str


@dataclass(frozen=True)
class BundleFacts:
    """One loaded bundle: its hash and, for each graph, the provider that runs it.

    ``fallbacks`` says in words which providers gave up on it since it was opened, as "synthesis: cuda failed, cpu took
    over".
    """

    sha256: str
    providers: Mapping[str, str]
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready:
    """These bundles are loaded and warm; ``broken`` says in words why others are not (bundle folder → sentence)."""

    pid: int
    bundles: Mapping[str, BundleFacts]
    broken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StageStarted:
    """The job is in this stage from now on."""

    job_id: str
    stage: Stage


@dataclass(frozen=True)
class FramesDrawn:
    """``done`` of ``total`` frames are drawn."""

    job_id: str
    done: int
    total: int


@dataclass(frozen=True)
class Preview:
    """The newest frame as a small JPEG."""

    job_id: str
    jpeg: bytes


@dataclass(frozen=True)
class VideoFacts:
    """What was written. Units: width and height in px, fps in frames a second, ``bytes`` of the file."""

    path: Path
    format: VideoFormat
    width: int
    height: int
    fps: int
    frames: int
    bytes: int


@dataclass(frozen=True)
class Done:
    """The video lies in the scratch folder.

    ``metrics`` are seconds a stage; ``quality`` is None where nothing measures it.
    """

    job_id: str
    video: VideoFacts
    sha256: str
    poster: Path | None
    metrics: Mapping[str, float]
    quality: Mapping[str, float | str] | None


@dataclass(frozen=True)
class Failed:
    """The job came to an end without a video, in a child that lives on."""

    job_id: str
    code: str
    message: str
    hint: str
    retryable: bool = False
    delay_s: float = 5.0

    @classmethod
    def from_error(cls, job_id: str, error: AnimatoError) -> Failed:
        """Return the event that says what the error says."""
        delay_s = error.delay_s if isinstance(error, TemporaryError) else 0.0
        return cls(job_id, error.code, error.message, error.hint, error.retryable, delay_s)

    def to_error(self) -> AnimatoError:
        """Return the error again, on the other side."""
        if self.code == "canceled":
            return JobCanceled()
        if self.retryable:
            return TemporaryError(self.code, self.message, self.hint, delay_s=self.delay_s)
        return PermanentError(self.code, self.message, self.hint)


@dataclass(frozen=True)
class Died:
    """The child is gone. ``sentence`` says how, for people."""

    exit_code: int | None
    sentence: str


Command = Order | Cancel
Event = Ready | StageStarted | FramesDrawn | Preview | Done | Failed | Died
