"""The gates: what the figures at equal progress must show. A gate that could not be measured is not passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.compare.figures import FIGURES, Figure, Row, combine

OURS, STILL, INTERPOLATION, MOCOGAN = "ours", "head still", "interpolation", "mocogan-hd"
FLOW_RATIO = 1.5
FIGURES_BY_KEY = {figure.key: figure for figure in FIGURES}


@dataclass(frozen=True)
class Gate:
    """One statement, and whether it holds.

    `state` is "PASS", "FAIL", "NOT MEASURED", or "UNFINISHED" where the rival is still in training; `ours` and `theirs`
    are means over the same videos; `error` is the standard error of their difference (or ratio, where that is asked).
    """

    statement: str
    state: str
    rival: str
    ours: float = float("nan")
    theirs: float = float("nan")
    error: float = float("nan")
    videos: int = 0
    extra: bool = False  # told beside the gates, not one of them

    def to_json(self) -> dict[str, Any]:
        """Give plain values; what is no number becomes null."""
        return {key: None if isinstance(v, float) and not np.isfinite(v) else v for key, v in asdict(self).items()}


@dataclass(frozen=True)
class Rule:
    """What a gate asks: our figure against a rival's, by difference or by ratio."""

    figure: str
    rival: str
    kind: str  # "above", "below" or "times"
    extra: bool = False

    def statement(self) -> str:
        """Say it in words."""
        title = FIGURES_BY_KEY[self.figure].title
        if self.kind == "times":
            return f"{title.removesuffix(', px')} at least {FLOW_RATIO} × that of {self.rival}"
        return f"{title} {self.kind} that of {self.rival}"


RULES = (
    Rule("direction", INTERPOLATION, "above"),
    Rule("direction", MOCOGAN, "above"),
    Rule("identity", INTERPOLATION, "above"),
    Rule("identity", MOCOGAN, "above"),
    Rule("flow", INTERPOLATION, "times"),
    Rule("jitter", MOCOGAN, "below"),
    Rule("acd", MOCOGAN, "below"),
    Rule("reading_direction", INTERPOLATION, "above", extra=True),
    Rule("reading_direction", MOCOGAN, "above", extra=True),
    Rule("flow_asked", INTERPOLATION, "times", extra=True),
    Rule("followed", INTERPOLATION, "times", extra=True),
    Rule("followed_asked", INTERPOLATION, "times", extra=True),
)


def judge_gate(rule: Rule, ours: Sequence[Row], theirs: Sequence[Row], finished: bool = True) -> Gate:
    """Judge one rule over paired videos: row i of both is the same face, sentence and seed.

    A rival that is not `finished` is measured, but to be ahead of it is no verdict.
    """
    assert len(ours) == len(theirs)
    if not ours:
        return Gate(rule.statement(), "NOT MEASURED", rule.rival, extra=rule.extra)
    figure = FIGURES_BY_KEY[rule.figure]
    mine, other = combine(figure, ours), combine(figure, theirs)
    holds = {"above": mine > other, "below": mine < other, "times": mine >= FLOW_RATIO * other}[rule.kind]
    state = ("PASS" if holds else "FAIL") if finished else "UNFINISHED"
    error = paired_error(figure, ours, theirs, ratio=rule.kind == "times")
    return Gate(rule.statement(), state, rule.rival, mine, other, error, len(ours), rule.extra)


def paired_error(figure: Figure, ours: Sequence[Row], theirs: Sequence[Row], ratio: bool) -> float:
    """Give the jackknife standard error of the difference, or of the ratio, over paired videos."""
    count = len(ours)
    if count < 2:
        return float("nan")
    left_out = []
    for i in range(count):
        mine = combine(figure, [*ours[:i], *ours[i + 1 :]])
        other = combine(figure, [*theirs[:i], *theirs[i + 1 :]])
        left_out.append(mine / max(other, 1e-9) if ratio else mine - other)
    return float(np.sqrt((count - 1) * np.var(left_out)))
