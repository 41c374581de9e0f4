"""One trial: a method on a case, once as it comes and once at equal progress.

Equal progress. Ours is scaled by its intensity until the evaluator reads `level` at the judged frame (where even the
largest intensity falls short: as far as it gets); that reading is the case's target. Every other method's motion is
scaled until it reads the same. One that can't get there at any scale, as a motion that knows no sentence can't, is
scaled until it changes the 15 expression factors as much as ours does (mean absolute change at the judged frame), in
whatever direction; where even that is out of reach, as far as it gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.animator import Animator
from training.compare.figures import Judged, Row, judge_path, measure_video
from training.compare.judging import FrameReader, Reading
from training.compare.matching import Match, match_level
from training.compare.methods import Case, Method, Renderer, draw
from training.compare.pictures import pick_columns
from training.evaluator import measure
from training.faces.domains import Domain
from training.faces.expressions import apply_expression
from training.faces.parameters import NUM_EXPRESSION
from training.metrics.flow import Flow, FlowEstimator, find_changes
from training.metrics.video import describe_video
from training.paper.towers import Towers

READ_PX = 128
LEAST_TARGET = 0.2
"""Where ours makes less progress than this there is nothing to be equal to; the case is left out and counted."""

How = Literal["progress", "amount", "short", "none"]
"""What was made equal; "short": neither could be, it was taken where it comes nearest to the amount."""


@dataclass
class Trial:
    """What a method did in a case."""

    case: int
    method: str
    expression: str
    sentence: str
    natural: Row
    path: npt.NDArray[np.float32]  # [T] progress, as it comes
    speed: npt.NDArray[np.float32]  # [T-1] mean flow, px a frame, as it comes
    natural_features: npt.NDArray[np.float32]  # [T,15+64]
    how: How = "none"
    scale: float = 1.0
    equal: Row | None = None
    equal_features: npt.NDArray[np.float32] | None = None
    cells: npt.NDArray[np.uint8] | None = None  # [8,H,W,3] at equal progress, kept where a strip is drawn
    flows: Flow | None = None  # [8,H,W,2]

    def describe(self, equal: bool) -> npt.NDArray[np.float32]:
        """Give the vector of the video for FVD."""
        features = self.equal_features if equal else self.natural_features
        assert features is not None
        return describe_video(features[:, :NUM_EXPRESSION])


@dataclass
class Target:
    """What the others are brought to in a case."""

    progress: float
    amount: float


@dataclass
class Bench:
    """Everything that films are measured with."""

    animator: Animator
    domain: Domain
    reader: FrameReader
    towers: Towers
    flow: FlowEstimator
    level: float
    strips: set[int] = field(default_factory=set)  # cases whose pictures are kept

    def read_truths(self, case: Case) -> dict[str, npt.NDArray[np.float32]]:
        """Read true renders of a person: candidate → [2,15], neutral and expressed."""
        params = [case.person, *(apply_expression(case.person, name) for name in case.candidates)]
        read = self.reader.read(np.stack([self.domain.render(p, READ_PX) for p in params])).factors
        return {name: np.stack([read[0], read[i + 1]]) for i, name in enumerate(case.candidates)}

    def find_asked_places(self, case: Case, expression: str) -> npt.NDArray[np.bool_]:
        """Say where the true render of a person changes with an expression. Shapes: → [H,W]."""
        size_px = self.animator.manifest.resolution
        posed = (case.person, apply_expression(case.person, expression))
        before, after = (self.domain.render(params, size_px) for params in posed)
        return find_changes(before, after)

    def try_case(self, number: int, case: Case, methods: Sequence[Method]) -> list[Trial]:
        """Try all methods on a case; the first one is ours and sets the target."""
        truths = self.read_truths(case)
        still = draw(self.animator, case.face, np.zeros((1, *case.face.ws.shape), np.float32))
        inverted = still, self.reader.read(still)
        target: Target | None = None
        trials = []
        for place, method in enumerate(methods):
            start = inverted
            if isinstance(method, Renderer):
                rendered = method.sample(case, [0.0], 0)
                start = rendered, self.reader.read(rendered)
            trial, judged = self._try_natural(number, case, method, truths, start)
            trials.append(trial)
            probe = _Probe(self.reader, method, case, judged, truths[judged.expression], start[1])
            if place == 0:
                match = match_level(probe.progress, self.level, method.max_scale)
                if match.value < LEAST_TARGET:
                    continue
                trial.how = "progress"
                target = Target(match.value, float(probe.amount([match.scale])[0]))
            elif target is None:
                continue
            else:
                match = match_level(probe.progress, target.progress, method.max_scale)
                trial.how = "progress"
                if not match.reached:
                    match = match_level(probe.amount, target.amount, method.max_scale)
                    trial.how = "amount" if match.reached else "short"
            self._try_equal(trial, case, method, judged, truths, start, match)
        return trials

    def _try_natural(
        self,
        number: int,
        case: Case,
        method: Method,
        truths: dict[str, npt.NDArray[np.float32]],
        start: tuple[npt.NDArray[np.uint8], Reading],
    ) -> tuple[Trial, Judged]:
        frames = method.film(case, 1.0)
        reading = self.reader.read(frames)
        judged = judge_path(reading.factors, start[1].factors[0], truths)
        flow = self.flow(frames)
        truth = truths[judged.expression]
        places = self.find_asked_places(case, judged.expression)
        row = measure_video(frames, reading, *start, judged, truth, flow, places, self.towers, case.sentence)
        speed = np.linalg.norm(flow, axis=-1).mean((1, 2))
        features = np.concatenate([reading.factors, reading.identity], 1)
        return Trial(number, method.name, case.expression, case.sentence, row, judged.path, speed, features), judged

    def _try_equal(
        self,
        trial: Trial,
        case: Case,
        method: Method,
        judged: Judged,
        truths: dict[str, npt.NDArray[np.float32]],
        start: tuple[npt.NDArray[np.uint8], Reading],
        match: Match,
    ) -> None:
        frames = method.film(case, match.scale)
        reading = self.reader.read(frames)
        truth = truths[judged.expression]
        again = judge_path(reading.factors, start[1].factors[0], {judged.expression: truth})
        again = again._replace(frame=judged.frame)  # the frame that was matched
        flow = self.flow(frames)
        trial.scale = match.scale
        places = self.find_asked_places(case, judged.expression)
        trial.equal = measure_video(frames, reading, *start, again, truth, flow, places, self.towers, case.sentence)
        trial.equal_features = np.concatenate([reading.factors, reading.identity], 1)
        if trial.case in self.strips:
            columns = pick_columns(case.frames)
            trial.cells, trial.flows = frames[columns], flow[[min(k, len(flow) - 1) for k in columns]]


@dataclass
class _Probe:
    """Reads a method's judged frame at several scales."""

    reader: FrameReader
    method: Method
    case: Case
    judged: Judged
    truth: npt.NDArray[np.float32]
    start: Reading

    def _read(self, scales: Sequence[float]) -> npt.NDArray[np.float32]:
        frames = self.method.sample(self.case, scales, self.judged.frame)
        return self.reader.read(frames).factors

    def progress(self, scales: Sequence[float]) -> npt.NDArray[np.float32]:
        """Progress at each scale."""
        factors = np.concatenate([self.start.factors, self._read(scales)])
        return measure.measure_path(factors, self.truth, self.judged.expression)[1:]

    def amount(self, scales: Sequence[float]) -> npt.NDArray[np.float32]:
        """Mean absolute change of all expression factors at each scale, in half-ranges."""
        return np.asarray(np.abs(self._read(scales) - self.start.factors).mean(1), np.float32)
