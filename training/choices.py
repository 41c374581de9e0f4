"""What a command line chose, and what a job is that does it; every kind of job stands on this.

Must not import: services, worker, cli, nor any kind of job.
"""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from training.adversarial.pictures import Fit
from training.plan import StagePlan


@dataclass(frozen=True)
class Choices:
    """What a command line chose."""

    recipe: str
    out: Path | None = None
    data: Path | None = None
    bundle: Path | None = None
    base: Path | None = None
    clip: Path | None = None
    text: Path | None = None
    inception: Path | None = None
    generator: Path | None = None
    encoder: Path | None = None
    identity: Path | None = None
    label: int | None = None
    fit: Fit = "refuse"
    share_text: bool = False

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / self.recipe


class Job(Protocol):
    """One recipe in one folder."""

    kind: str
    folder: Path
    stages: tuple[str, ...]  # in order, `all` and compare left out

    def check(self, stage: str) -> list[str]:
        """Look at what a stage (or `all`) needs; lines that describe it. Nothing is written or trained.

        Raises: TrainingError with what is wrong and where.
        """

    def plan(self) -> list[StagePlan]:
        """Give every stage's state."""

    def run(self, stage: str) -> None:
        """Run a stage, or `all` of them."""


def count_processes() -> int:
    """Give the number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Say whether this is the process that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def say_command() -> str:
    """Give the command line as somebody would type it."""
    return shlex.join(["animato-train", *sys.argv[1:]])
