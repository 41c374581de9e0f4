"""Runs a comparison from held-out people and sentences to the report folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from model.animator import Animator
from training.compare.judging import BundleTowers, FrameReader, open_bundle
from training.compare.methods import Case, Method, Renderer, open_methods
from training.compare.report import Outcome, write_report
from training.compare.trials import Bench, Trial
from training.errors import DataError
from training.evaluate import COMPOUND_KEY, HELD_OUT_PHRASES, STILL_KEYS, Judge, held_out_people
from training.faces.domains import Domain
from training.faces.expressions import EXPRESSIONS, GATE_NAMES
from training.metrics.flow import open_flow

LEAST_FRAMES = 5
"""Jitter and jerk need differences of differences."""
QUICK_EXPRESSIONS = 2
SOURCE_PX = 256


@dataclass(frozen=True)
class Settings:
    """What a comparison is run with; all of it stands in the report."""

    bundle: Path
    rivals: Path | None
    out: Path
    people: int = 4
    frames: int = 16
    phrases: Path | None = None
    level: float = 0.6
    flow_weights: Path | None = None
    quick: bool = False


@dataclass
class Clock:
    """Says how far a run is and how long it still takes."""

    report: Callable[[str], None]
    total: int
    started: float = field(default_factory=time.monotonic)

    def tell(self, done: int, what: str) -> None:
        """Report after each step."""
        left_s = (time.monotonic() - self.started) / done * (self.total - done)
        self.report(f"{done}/{self.total} {what}, {format_time(left_s)} left")


def format_time(seconds: float) -> str:
    """Write seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def read_phrases(path: Path | None, domain: Domain) -> dict[str, list[str]]:
    """Read the sentences of each expression, from a file or from the held-out list (the domain's core expressions).

    Raises: DataError where the file is not {"smiling": ["…"], …} or names an expression that is not known.
    """
    source = path or HELD_OUT_PHRASES
    try:
        listed = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"The list of sentences {source} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"The list of sentences {source} is not JSON: {error}.") from error
    if not isinstance(listed, Mapping):
        raise DataError(f'{source} must map expressions to sentences, as in {{"smiling": ["she smiles"]}}.')
    phrases: dict[str, list[str]] = {}
    for name, sentences in listed.items():
        if name in (*STILL_KEYS, COMPOUND_KEY) or (path is None and name not in domain.core):
            continue
        if (
            not isinstance(sentences, list)
            or not sentences
            or not all(isinstance(s, str) and s.strip() for s in sentences)
        ):
            raise DataError(f"{source}: '{name}' must have a list of at least one sentence.")
        find_candidates(name, source)
        phrases[name] = sentences
    if not phrases:
        raise DataError(f"{source} holds no sentence that asks for a motion.")
    return phrases


def find_candidates(name: str, source: Path) -> tuple[str, ...]:
    """Turn a gate's name or a renderer's name into the renderer's expressions.

    Raises: DataError where there is none of this name.
    """
    found = GATE_NAMES.get(name, name)
    candidates = (found,) if isinstance(found, str) else found
    if candidates == ("wink",):
        candidates = ("wink_l", "wink_r")
    if not all(candidate in EXPRESSIONS for candidate in candidates):
        raise DataError(f"{source}: '{name}' is no expression; known are {', '.join([*GATE_NAMES, *EXPRESSIONS])}.")
    return candidates


def check_settings(settings: Settings) -> None:
    """Raise DataError, in a sentence, for numbers that make no comparison."""
    for wrong, sentence in (
        (settings.people < 1, f"A comparison needs at least one person, not {settings.people} (--people)."),
        (
            settings.frames < LEAST_FRAMES,
            f"Jitter needs at least {LEAST_FRAMES} frames, not {settings.frames} (--frames).",
        ),
        (not 0 < settings.level <= 1, f"The progress to compare at lies in (0, 1], not at {settings.level} (--level)."),
        (
            settings.out.exists() and not settings.out.is_dir(),
            f"{settings.out} is a file; the report needs a folder (--out).",
        ),
        (
            settings.rivals is not None and not settings.rivals.is_dir(),
            f"There is no run folder of rivals at {settings.rivals} (--rivals).",
        ),
    ):
        if wrong:
            raise DataError(sentence)


def build_cases(
    animator: Animator, domain: Domain, phrases: Mapping[str, Sequence[str]], people: int, frames: int
) -> list[Case]:
    """Lay out who does what: every expression on every person, each with another sentence and seed."""
    persons = held_out_people(people)
    size_px = max(SOURCE_PX, animator.manifest.resolution)
    faces = [animator.invert(domain.render(person, size_px)) for person in persons]
    return [
        Case(
            person=persons[p],
            face=faces[p],
            expression=name,
            candidates=find_candidates(name, Path("phrases")),
            sentence=sentences[p % len(sentences)],
            frames=frames,
            seed=p,
        )
        for name, sentences in phrases.items()
        for p in range(people)
    ]


def run(
    bundle: Path,
    rivals: Path | None,
    out: Path,
    *,
    people: int = 4,
    frames: int = 16,
    phrases: Path | None = None,
    level: float = 0.6,
    flow_weights: Path | None = None,
    quick: bool = False,
    report: Callable[[str], None] = print,
) -> Outcome:
    """Compare a bundle with the rivals of a run folder and write the report into a folder.

    Args:
        bundle: folder of the bundle.
        rivals: run folder of the trained rivals, None for our figures alone (their gates are then not measured).
        out: folder of the report.
        people: held-out faces; every expression is tried on each.
        frames: of every video.
        phrases: {"smiling": ["…"], …}; the held-out list's core expressions where None.
        level: progress at which methods are compared.
        flow_weights: TorchScript file of a flow network; OpenCV's DIS where None.
        quick: one person, two expressions: to see that everything works.
        report: takes lines of progress.

    Raises: DataError, TrainingError, BundleError: sentences that say what is wrong.
    """
    settings = Settings(bundle, rivals, out, 1 if quick else people, frames, phrases, level, flow_weights, quick)
    check_settings(settings)
    cv2.setNumThreads(1)
    animator, towers = open_bundle(bundle)
    try:
        judge = Judge(animator.manifest.domain)
    except ValueError as error:  # no renderer, or no reader made for its pictures
        raise DataError(
            f"{bundle} can't be judged: {error}. Without true renders and their reader there is no progress to compare "
            "at."
        ) from error
    listed = read_phrases(phrases, judge.domain)
    if quick:
        listed = dict(list(listed.items())[:QUICK_EXPRESSIONS])
    methods = open_methods(animator, rivals)
    report(f"{animator.manifest.id}: {', '.join(method.name for method in methods)}")
    outcome = compare_methods(settings, animator, towers, judge, methods, listed, report)
    write_report(outcome)
    report(f"report: {out / 'report.md'}, {out / 'report.html'}, {out / 'results.json'}")
    return outcome


def compare_methods(
    settings: Settings,
    animator: Animator,
    towers: BundleTowers,
    judge: Judge,
    methods: Sequence[Method],
    phrases: Mapping[str, Sequence[str]],
    report: Callable[[str], None] = print,
) -> Outcome:
    """Try every method, and the renderer, on all cases; ours is the first method."""
    shown = [*methods, Renderer(judge.domain, animator.manifest.resolution)]
    cases = build_cases(animator, judge.domain, phrases, settings.people, settings.frames)
    flow = open_flow(settings.flow_weights)
    bench = Bench(animator, judge.domain, FrameReader(judge), towers, flow, settings.level)
    clock = Clock(report, len(cases))
    trials: list[Trial] = []
    drawn: set[str] = set()
    for number, case in enumerate(cases):
        # One strip an expression: the first of its cases that has a target.
        bench.strips = {number} if case.expression not in drawn else set()
        found = bench.try_case(number, case, shown)
        drawn |= {trial.expression for trial in found if trial.cells is not None}
        trials += found
        clock.tell(number + 1, "faces and sentences")
    return Outcome(animator.manifest, settings, shown, trials, flow.name, towers.name)
