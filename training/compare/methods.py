"""Who is compared: our bundle, its rivals and the renderer itself, all behind two verbs.

Every rival's motion is a `delta_ws` beside the bundle's own inversion and is drawn by the bundle's own synthesis graph,
so that only the motion differs. A motion has a scale: for ours the intensity of the request, for a rival a factor on
its `delta_ws`, for the renderer the strength of the expression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.animator import Animator, Face
from model.motion import Motion
from training.compare.gates import OURS, STILL
from training.errors import DataError
from training.faces.domains import Domain
from training.faces.expressions import CYCLIC, apply_expression
from training.faces.parameters import Parameters

Frames = npt.NDArray[np.uint8]
Deltas = npt.NDArray[np.float32]
Move = Callable[[npt.NDArray[np.uint8], str, int, int], Deltas]
"""(picture [S,S,3], sentence, frames, seed) → delta_ws [T,num_ws,w_dim]."""

MAX_INTENSITY = 2.0
"""What the service takes at most."""
MAX_RIVAL_SCALE = 4.0
"""A rival's motion may be made up to four times as large to reach the same progress."""


@dataclass(frozen=True)
class Case:
    """One thing to do: a held-out person, a sentence, a seed.

    `expression` is the gate's name; `candidates` are the renderer's expressions that count as right (both winks).
    """

    person: Parameters
    face: Face
    expression: str
    candidates: tuple[str, ...]
    sentence: str
    frames: int
    seed: int


class Method(Protocol):
    """One that animates cases."""

    name: str
    title: str
    max_scale: float
    finished: bool

    def film(self, case: Case, scale: float) -> Frames:
        """Draw a case's video → [T,H,W,3] uint8 RGB."""
        ...

    def sample(self, case: Case, scales: Sequence[float], frame: int) -> Frames:
        """Draw one frame of it at several scales → [S,H,W,3] uint8 RGB."""
        ...


class Rival(Protocol):
    """What `training.baselines.rivals.open_rivals` gives: a name and a way to move faces."""

    @property
    def name(self) -> str:
        """Short, as in "interpolation"."""
        ...

    @property
    def title(self) -> str:
        """What a reader of the report should know it as."""
        ...

    @property
    def move(self) -> Move:
        """Picture, sentence, number of frames, seed → delta_ws."""
        ...


def draw(animator: Animator, face: Face, delta_ws: Deltas) -> Frames:
    """Draw ws + delta_ws. Shapes: delta_ws [T,num_ws,w_dim] → [T,H,W,3]."""
    codes = np.zeros((len(delta_ws), 0), np.float32)
    return np.concatenate(list(animator.draw(face, Motion(delta_ws.astype(np.float32), codes, 0))))


class Ours:
    """The bundle as it is served; and with its head kept still, which says what the sway does for each figure."""

    max_scale, finished = MAX_INTENSITY, True

    def __init__(self, animator: Animator, sway: bool = True) -> None:
        self.animator, self.sway = animator, sway
        self.name = OURS if sway else STILL
        self.title = "ours (this bundle)" if sway else "ours, the head kept still (sway: false)"

    def film(self, case: Case, scale: float) -> Frames:
        """Draw the video at an intensity."""
        return draw(self.animator, case.face, self._move(case, scale))

    def sample(self, case: Case, scales: Sequence[float], frame: int) -> Frames:
        """Draw one frame at several intensities."""
        return draw(self.animator, case.face, np.stack([self._move(case, scale)[frame] for scale in scales]))

    def _move(self, case: Case, scale: float) -> Deltas:
        asked = case.face, case.sentence, case.frames, case.seed
        return self.animator.move(*asked, intensity=scale, sway=self.sway).delta_ws


class ScaledRival:
    """A rival whose delta_ws is multiplied by the scale, its frame 0 too where it does not start at the still face."""

    max_scale = MAX_RIVAL_SCALE

    def __init__(self, rival: Rival, animator: Animator, training: str = "") -> None:
        """`training`: how far an unfinished rival is, "" for a finished one."""
        self.name, self.animator, self._rival = rival.name, animator, rival
        self.finished = not training
        self.title = rival.title if self.finished else f"{rival.title} ({training})"
        self._last: tuple[int, Deltas] | None = None

    def film(self, case: Case, scale: float) -> Frames:
        """Draw the video with its motion scaled."""
        return draw(self.animator, case.face, scale * self._move(case))

    def sample(self, case: Case, scales: Sequence[float], frame: int) -> Frames:
        """Draw one frame with its motion scaled in several ways."""
        row = self._move(case)[frame]
        return draw(self.animator, case.face, np.stack([scale * row for scale in scales]))

    def _move(self, case: Case) -> Deltas:
        # One case is asked for several times in a row, and some rivals optimise for seconds.
        if self._last is None or self._last[0] != id(case):
            delta_ws = self._rival.move(case.face.crop, case.sentence, case.frames, case.seed)
            expected = (case.frames, *case.face.ws.shape)
            if delta_ws.shape != expected or not np.isfinite(delta_ws).all():
                raise DataError(
                    f"{self.name} gave delta_ws {list(delta_ws.shape)} where finite numbers {list(expected)} were "
                    "asked for: it was trained for another bundle, or its training went astray."
                )
            self._last = id(case), delta_ws
        return self._last[1]


class Renderer:
    """The truth: the domain's renderer draws the asked expression, rising with a smoothstep (winks: up and back)."""

    name, title, max_scale, finished = "renderer", "renderer (the truth)", 1.0, True

    def __init__(self, domain: Domain, size_px: int) -> None:
        self.domain, self.size_px = domain, size_px

    def film(self, case: Case, scale: float) -> Frames:
        """Draw the video with the expression at a strength."""
        return self._draw(case, [scale * a for a in envelope(case.frames, case.candidates[0] in CYCLIC)])

    def sample(self, case: Case, scales: Sequence[float], frame: int) -> Frames:
        """Draw one frame at several strengths."""
        amplitude = envelope(case.frames, case.candidates[0] in CYCLIC)[frame]
        return self._draw(case, [scale * amplitude for scale in scales])

    def _draw(self, case: Case, strengths: Sequence[float]) -> Frames:
        posed = (apply_expression(case.person, case.candidates[0], strength) for strength in strengths)
        return np.stack([self.domain.render(params, self.size_px) for params in posed])


def envelope(frames: int, cyclic: bool) -> list[float]:
    """Give the strength of an expression at every frame: a smoothstep, or one up and one down."""
    time = np.linspace(0.0, 1.0, frames)
    if cyclic:
        time = 1 - np.abs(2 * time - 1)
    return [float(t * t * (3 - 2 * t)) for t in time]


def open_methods(animator: Animator, rivals: Path | None) -> list[Method]:
    """Give our bundle, swaying and with its head kept still, and all rivals of a run folder.

    Raises: TrainingError where the folder holds no rival, or one that belongs to another bundle.
    """
    methods: list[Method] = [Ours(animator), Ours(animator, sway=False)]
    if rivals is not None:
        from training.baselines.rivals import open_rivals
        from training.baselines.runs import open_base

        base, mine = open_base(rivals).recipe.name, animator.manifest.made_by.get("recipe")
        if mine is not None and base != mine:
            raise DataError(
                f"The rivals in {rivals} were trained on the parts of recipe {base}, and the bundle is of recipe "
                f"{mine}: their motions mean nothing to its generator. Train them on the bundle's own run."
            )
        methods += [ScaledRival(rival, animator, tell_training(rivals, rival.name)) for rival in open_rivals(rivals)]
    return methods


def tell_training(rivals: Path, name: str) -> str:
    """Say how far a rival's training is, as in "40 of 240 steps"; "" where it is finished or needs none."""
    from training.baselines.runs import RIVALS
    from training.loop import CHECKPOINT, read_checkpoint

    if not (rivals / name / CHECKPOINT).exists() or name not in RIVALS:
        return ""
    done, steps = int(read_checkpoint(rivals / name)["step"]), RIVALS[name].steps
    return "" if done >= steps else f"{done} of {steps} steps"
