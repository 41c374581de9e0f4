"""Judge a bundle: `python -m training.evaluate --bundle DIR [--phrases FILE.json] --json OUT`.

Runs the bundle's own ONNX graphs on identities and phrasings that no training run saw and reads every frame with the
factor reader, which no loss saw. Definitions stand in `training/evaluator/measure.py` and docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from model.animator import Animator
from model.bundle.reader import read_manifest
from training.evaluator import measure
from training.evaluator.fit import load_reader, weights_path
from training.evaluator.network import to_reader_input
from training.faces.domains import find_domain
from training.faces.expressions import CYCLIC, EXPRESSIONS, GATE_NAMES, apply_expression
from training.faces.parameters import Parameters, sample_parameters

HELD_OUT_PHRASES = Path(__file__).parent / "faces" / "heldout_phrases.json"
HELD_OUT_SEED = 990_000
"""Identities from here on are seen by no training pool."""
STILL_KEYS = ("neutral", "negated", "unrelated")
"""Lists of sentences that ask for no motion."""
COMPOUND_KEY = "compounds"
"""Sentences that ask for two things at once; they belong to no single expression and are not ranked."""
NOT_RANKED = frozenset({"blink", "neutral"})
"""Blink peaks where closed eyes are; neutral has no motion to rank. 20 expressions remain, the two winks merged."""


class Judge:
    """A domain's factor reader with its weights."""

    def __init__(self, domain: str = "human") -> None:
        """Raises: ValueError where no reader was made for the domain."""
        torch.set_num_threads(1)
        self.domain, weights = find_domain(domain), weights_path(domain)
        if not weights.exists():
            raise ValueError(
                f"there is no reader for the domain {domain!r}: make it with "
                f"`python -m training.evaluator.fit --domain {domain}`"
            )
        self.reader = load_reader(weights).eval()

    def read(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read uint8 frames [T,H,W,3] → expression readings [T,15], identity features [T,64]."""
        with torch.no_grad():
            expression, identity, _ = self.reader(to_reader_input(torch.from_numpy(np.ascontiguousarray(frames))))
        return expression.numpy(), identity.numpy()


@dataclass
class Tally:
    """The measures of one expression over identities and phrasings."""

    progress: list[float] = field(default_factory=list)
    change: list[tuple[float, float]] = field(default_factory=list)
    identity: list[float] = field(default_factory=list)
    jerk: list[float] = field(default_factory=list)
    monotone: list[float] = field(default_factory=list)
    first_step: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Means over all videos; off-target is the ratio of mean changes."""
        outside, asked = np.mean(self.change, axis=0)
        return {
            "progress": float(np.mean(self.progress)),
            "off_target": float(outside / max(asked, 1e-6)),
            "identity": float(np.mean(self.identity)),
            "jerk": float(np.mean(self.jerk)),
            "monotone": float(np.mean(self.monotone)),
            "first_step": float(np.mean(self.first_step)),
            "videos": len(self.progress),
        }


def internal_names(name: str) -> tuple[str, ...]:
    """Turn a gate's name ("closing eyes") or an internal one ("close_eyes", "wink") into the renderer's expressions."""
    if name in GATE_NAMES:
        found = GATE_NAMES[name]
        return (found,) if isinstance(found, str) else found
    if name == "wink":
        return ("wink_l", "wink_r")
    if name in EXPRESSIONS:
        return (name,)
    raise SystemExit(f"'{name}' is no expression of the renderer; known: {', '.join([*GATE_NAMES, *EXPRESSIONS])}.")


def held_out_people(count: int) -> list[Parameters]:
    """Draw the held-out identities, the same ones every time."""
    return [sample_parameters(np.random.default_rng(HELD_OUT_SEED + i)) for i in range(count)]


def true_readings(judge: Judge, person: Parameters, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the true renders of a person: name → [2,15], neutral and expressed."""
    names, render = list(names), judge.domain.render
    frames = np.stack([render(person, 128), *(render(apply_expression(person, name), 128) for name in names)])
    readings, _ = judge.read(frames)
    return {name: np.stack([readings[0], readings[i + 1]]) for i, name in enumerate(names)}


def evaluate(bundle: Path, phrases: dict[str, list[str]], people: int, frames: int, judge: Judge) -> dict[str, object]:
    """Animate every phrase on held-out people and measure what came out.

    Every phrase is tried on two of the people, so that phrasings and faces both vary. Frames: T of each video.
    """
    animator = Animator.from_bundle(bundle, providers=("cpu",), threads=1)
    size = animator.manifest.resolution
    persons = held_out_people(people)
    faces = [animator.invert(judge.domain.render(person, max(256, size))) for person in persons]
    ranked = [name for name in EXPRESSIONS if name not in NOT_RANKED]
    truths = [true_readings(judge, person, EXPRESSIONS) for person in persons]
    tallies: dict[str, Tally] = {}
    misread: dict[str, list[str]] = {}
    right = asked = 0
    for name, sentences in phrases.items():
        if name in (*STILL_KEYS, COMPOUND_KEY):
            continue
        candidates = internal_names(name)
        tally = tallies.setdefault(name, Tally())
        for i, sentence in enumerate(sentences):
            for p in (i % people, (i + people // 2 + 1) % people):
                motion = animator.move(faces[p], sentence, frames=frames, seed=i)
                video = np.concatenate(list(animator.draw(faces[p], motion)))
                readings, identity = judge.read(video)
                paths = {c: measure.measure_path(readings, truths[p][c], c) for c in candidates}
                best = max(paths, key=lambda c: float(paths[c][measure.judged_frame(paths[c], c)]))
                path, frame = paths[best], measure.judged_frame(paths[best], best)
                tally.progress.append(float(path[frame]))
                tally.change.append(measure.measure_change(readings, frame, best))
                tally.identity.append(float(identity[0] @ identity[frame]))
                tally.jerk.append(measure.measure_jerk(readings, best))
                tally.monotone.append(measure.measure_monotone(path, best))
                tally.first_step.append(measure.measure_first_step(path))
                if any(c in NOT_RANKED for c in candidates):
                    continue
                peak = int(np.argmax(np.abs(readings - readings[0]).sum(1))) if best in CYCLIC else frame
                change = readings[peak] - readings[0]
                prototypes = {c: truths[p][c][1] - truths[p][c][0] for c in ranked}
                guess = measure.nearest_expression(change, prototypes)
                asked += 1
                if guess in candidates:
                    right += 1
                else:
                    misread.setdefault(f"{name}: {sentence}", []).append(guess)
    stillness = {key: measure_stillness(animator, judge, faces, phrases[key]) for key in STILL_KEYS if key in phrases}
    return {
        "bundle": {"id": animator.manifest.id, "version": animator.manifest.version},
        "people": people,
        "frames": frames,
        "expressions": {name: tally.summary() for name, tally in tallies.items()},
        "language_top1": right / max(asked, 1),
        "stillness": stillness,
        "misread": misread,
    }


def measure_stillness(animator: Animator, judge: Judge, faces: list, sentences: list[str]) -> float:
    """Mean absolute change of all factors, in half-ranges, for sentences that ask for no motion."""
    changes = []
    for i, sentence in enumerate(sentences):
        face = faces[i % len(faces)]
        motion = animator.move(face, sentence, frames=8, seed=i)
        readings, _ = judge.read(np.concatenate(list(animator.draw(face, motion))))
        changes.append(float(np.abs(readings[-1] - readings[0]).mean()))
    return float(np.mean(changes)) if changes else 0.0


def main() -> None:
    """Read the command line, evaluate, print a table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--phrases", type=Path, default=HELD_OUT_PHRASES, help='{"smiling": ["…"], …}')
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    phrases = json.loads(options.phrases.read_text())
    judge = Judge(read_manifest(options.bundle).domain)
    result = evaluate(options.bundle, phrases, options.people, options.frames, judge)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    expressions = result["expressions"]
    assert isinstance(expressions, dict)
    print(f"{'expression':14s} progress off-target identity  jerk monotone first-step")
    for name, row in expressions.items():
        print(
            f"{name:14s} {row['progress']:8.2f} {row['off_target']:10.2f} {row['identity']:8.3f} {row['jerk']:5.3f} "
            f"{row['monotone']:8.2f} {row['first_step']:10.3f}"
        )
    print(f"language top-1 {result['language_top1']:.3f}, motion where none is asked {result['stillness']}")


if __name__ == "__main__":
    main()
