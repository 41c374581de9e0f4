"""Pools of rendered pictures: pairs of one identity with two expressions, drawn once, read by every stage.

A pool is a folder: pictures.npy [N,size,size,3] uint8 and factors.npy [N,Z_DIM], both memory-mapped, and pool.json.
Pictures 2i and 2i+1 share an identity. Every pair depends on (seed, i) alone, so an interrupted rendering goes on
where it stopped. No torch here.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from training.faces.domains import find_domain
from training.faces.expressions import EXPRESSIONS, apply_expression, vary_expression
from training.faces.parameters import Z_DIM, Parameters, encode, sample_parameters

FORMAT = 1
BLOCK_PAIRS = 250


class Progress(Protocol):
    """Told how many of how many pictures are drawn."""

    def __call__(self, done: int, total: int) -> None:
        """Take the count."""


@dataclass(frozen=True)
class Pool:
    """A finished pool, memory-mapped."""

    pictures: npt.NDArray[np.uint8]  # [N,size,size,3]
    factors: npt.NDArray[np.float32]  # [N,Z_DIM]

    def __len__(self) -> int:
        return len(self.pictures)


def draw_pair(seed: int, index: int) -> tuple[Parameters, Parameters]:
    """Choose one aligned identity and two expressions of it, by (seed, index) alone."""
    rng = np.random.default_rng([seed, index])
    base = sample_parameters(rng)
    return vary_expression(base, rng), vary_expression(base, rng)


def expression_of_pair(index: int) -> str:
    """Name the expression of an expressed pair."""
    names = list(EXPRESSIONS)
    return names[index % len(names)]


def draw_expressed_pair(seed: int, index: int) -> tuple[Parameters, Parameters]:
    """Choose one aligned identity, as it is and with the expression of `expression_of_pair`, by (seed, index)
    alone."""
    rng = np.random.default_rng([seed, index])
    base = sample_parameters(rng)
    return base, apply_expression(base, expression_of_pair(index), float(rng.uniform(0.75, 1.15)), rng)


PAIRS: dict[str, Callable[[int, int], tuple[Parameters, Parameters]]] = {
    "varied": draw_pair,
    "expressed": draw_expressed_pair,
}
"""Kinds of pools: two random expressions of a face, or a calm face and a named expression of it."""


def render_pool(
    folder: Path,
    *,
    count: int,
    size_px: int,
    seed: int,
    kind: str = "varied",
    domain: str = "human",
    progress: Progress | None = None,
) -> Pool:
    """Render a pool, or go on with an interrupted one, or open a finished one.

    Raises: ValueError when the folder holds a pool made with other options.
    """
    render = find_domain(domain).render
    options = {"format": FORMAT, "domain": domain, "count": count, "size_px": size_px, "seed": seed, "kind": kind}
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "pool.json"
    done = 0
    if note.exists():
        state = json.loads(note.read_text())
        done = state.pop("done")
        if state != options:
            raise ValueError(f"{folder} holds another pool ({state}); wanted {options}: choose another folder")
    shape = (count, size_px, size_px, 3)
    if done == 0:
        np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, shape).flush()
        np.lib.format.open_memmap(folder / "factors.npy", "w+", np.float32, (count, Z_DIM)).flush()
    if done < count:
        pictures = np.lib.format.open_memmap(folder / "pictures.npy", "r+")
        factors = np.lib.format.open_memmap(folder / "factors.npy", "r+")
        for start in range(done // 2, count // 2, BLOCK_PAIRS):
            stop = min(start + BLOCK_PAIRS, count // 2)
            for pair in range(start, stop):
                for offset, params in enumerate(PAIRS[kind](seed, pair)):
                    pictures[2 * pair + offset] = render(params, size_px)
                    factors[2 * pair + offset] = encode(params)
            pictures.flush()
            factors.flush()
            _note_done(note, {**options, "done": 2 * stop})
            if progress is not None:
                progress(2 * stop, count)
    return open_pool(folder)


def open_pool(folder: Path) -> Pool:
    """Open a finished pool.

    Raises: FileNotFoundError when there is none, ValueError when it is unfinished.
    """
    state = json.loads((folder / "pool.json").read_text())
    if state["done"] < state["count"]:
        raise ValueError(f"the pool in {folder} is unfinished ({state['done']} of {state['count']}): render it first")
    return Pool(np.load(folder / "pictures.npy", mmap_mode="r"), np.load(folder / "factors.npy", mmap_mode="r"))


def _note_done(note: Path, state: dict[str, object]) -> None:
    temporary = note.with_suffix(".part")
    temporary.write_text(json.dumps(state))
    os.replace(temporary, note)
