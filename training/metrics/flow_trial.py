"""Which flow tells motion from recolouring? Tries both estimators on rendered faces whose true flow is known.

    python -m training.metrics.flow_trial [--domain human|anime|dog]

Three pairs a face: its colours change by a fifteenth of the way to another face's and nothing moves; it is warped
smoothly and keeps its colours; both at once. Made at twice the size, so that the truth is not blurred.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from training.faces.domains import DOMAINS, Domain, find_domain
from training.faces.parameters import sample_parameters
from training.metrics.flow import DisFlow, Flow, Frames
from training.metrics.points import Followed, follow_points

SIZE_PX = 256
FACES = 10
PERSON_SEED, OTHER_SEED, WARP_SEED = 888_000, 999_000, 3  # nobody's training, nobody's held-out list
COLOURS = ("light", "skin_t", "hair_dark", "bg_hue", "bg_val", "cloth_hue")
STEP = 1 / 15
"""Of the way to the other face's colours: a video of 16 frames that goes all the way."""
BUMPS = 5
BUMP_PX = 0.5  # spread of the largest shift of a bump


class Pair(NamedTuple):
    """Two pictures and the flow between them."""

    before: Frames
    after: Frames
    truth: Flow  # [H,W,2]


class Score(NamedTuple):
    """Means over what was estimated, px."""

    found: float
    truth: float
    error: float


def estimate_densely(before: Frames, after: Frames) -> Followed:
    """Give DIS at every pixel."""
    down, right = np.mgrid[: before.shape[0], : before.shape[1]].astype(np.float32)
    moves = DisFlow()(np.stack([before, after]))[0]
    return Followed(np.stack([right, down], -1).reshape(-1, 2), moves.reshape(-1, 2))


ESTIMATORS: dict[str, Callable[[Frames, Frames], Followed]] = {
    "DIS, every pixel": estimate_densely,
    "followed points": follow_points,
}


def draw_warp(size_px: int, rng: np.random.Generator) -> Flow:
    """Draw a smooth shift: a few bumps around the middle. Shapes: → [size_px,size_px,2] in px of SIZE_PX."""
    down, right = np.mgrid[:size_px, :size_px].astype(np.float32) / size_px
    shift = np.zeros((size_px, size_px, 2), np.float32)
    for _ in range(BUMPS):
        x, y, radius = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.8), rng.uniform(0.05, 0.12)
        bump = np.exp(-((right - x) ** 2 + (down - y) ** 2) / (2 * radius**2))
        shift += bump[..., None] * rng.normal(0, BUMP_PX, 2)
    return shift


def build_pairs(domain: Domain, number: int) -> tuple[Pair, Pair, Pair]:
    """Draw a face's three pairs: recoloured, moved, both."""
    scale, size = 2, 2 * SIZE_PX
    person = sample_parameters(np.random.default_rng(PERSON_SEED + number))
    other = sample_parameters(np.random.default_rng(OTHER_SEED + number))
    tinted = dict(person)
    for name in COLOURS:
        tinted[name] = person[name] + STEP * (other[name] - person[name])
    plain, coloured = domain.render(person, size), domain.render(tinted, size)
    shift = draw_warp(size, np.random.default_rng([WARP_SEED, number]))
    down, right = np.mgrid[:size, :size].astype(np.float32)

    def look_up(values: npt.NDArray[Any], at: Flow, sign: int) -> npt.NDArray[Any]:
        moved = (right + sign * scale * at[..., 0], down + sign * scale * at[..., 1])
        return np.asarray(cv2.remap(values, *moved, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))

    def shrink(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(cv2.resize(values, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA))

    # the warped picture at x is the plain one at x − shift(x), so a point's way g solves g = shift(x + g)
    way = shift
    for _ in range(5):
        way = look_up(shift, way, 1)
    truth, still = shrink(way), np.zeros((SIZE_PX, SIZE_PX, 2), np.float32)
    before = shrink(plain)
    return (
        Pair(before, shrink(coloured), still),
        Pair(before, shrink(look_up(plain, shift, -1)), truth),
        Pair(before, shrink(look_up(coloured, shift, -1)), truth),
    )


def score(estimate: Callable[[Frames, Frames], Followed], pair: Pair) -> Score:
    """Compare an estimate with the truth, where it gives one."""
    places, moves = estimate(pair.before, pair.after)
    right, down = places.round().astype(int).clip(0, SIZE_PX - 1).T
    truth = pair.truth[down, right]
    lengths = (np.linalg.norm(each, axis=-1).mean() for each in (moves, truth, moves - truth))
    return Score(*map(float, lengths))


def tell_trial(domain: Domain, faces: int = FACES) -> Iterator[str]:
    """Try both estimators and give the lines of a table."""
    pairs = [build_pairs(domain, number) for number in range(faces)]
    yield "| px | recoloured, nothing moves: found | moved: found | true | both: found | error |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, estimate in ESTIMATORS.items():
        still, moved, both = (
            Score(*np.mean([score(estimate, three[kind]) for three in pairs], axis=0)) for kind in range(3)
        )
        figures = (still.found, moved.found, moved.truth, both.found, both.error)
        yield f"| {name} | {' | '.join(f'{figure:.3f}' for figure in figures)} |"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m training.metrics.flow_trial", description=__doc__.split("\n")[0])
    parser.add_argument("--domain", choices=sorted(DOMAINS), default="human")
    cv2.setNumThreads(1)
    for line in tell_trial(find_domain(parser.parse_args().domain)):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
