"""Damages good bytes in the ways that break parsers; the same seed gives the same damage.

``FUZZ_CASES`` sets how many mutants each test tries (a few hundred by default, `make fuzz` takes more), ``FUZZ_SEED``
which ones.
"""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

SEED = int(os.environ.get("FUZZ_SEED", "0"))
_LONGEST_SHOWN = 240
# Numbers at which lengths, sizes and indices go wrong, as 1, 2, 4 and 8 bytes of either order.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def how_many(default: int) -> int:
    """Return how many mutants a test is to try."""
    return int(os.environ.get("FUZZ_CASES", default))


@dataclass(frozen=True)
class Mutant:
    """Damaged bytes, and a label from which they can be made again."""

    label: str
    data: bytes


def make_mutants(corpus: Mapping[str, bytes], count: int) -> Iterator[Mutant]:
    """Yield ``count`` mutants, each of one text of the corpus with one to four kinds of damage."""
    names = sorted(corpus)
    for index in range(count):
        name = names[index % len(names)]
        draw = random.Random(f"{SEED}/{name}/{index}")
        data = bytearray(corpus[name])
        for _ in range(draw.choice((1, 1, 2, 4))):
            draw.choice(_DAMAGES)(draw, data, corpus[draw.choice(names)])
        yield Mutant(f"{name}, FUZZ_SEED={SEED}, number {index}", bytes(data))


@contextmanager
def blamed(mutant: Mutant) -> Iterator[None]:
    """Say which mutant it was that let a test fail."""
    try:
        yield
    except BaseException as error:
        shown = base64.b64encode(mutant.data[:_LONGEST_SHOWN]).decode()
        error.add_note(f"mutant: {mutant.label}, {len(mutant.data)} bytes, base64 of the first: {shown}")
        raise


def _flip_bits(draw: random.Random, data: bytearray, _other: bytes) -> None:
    for _ in range(draw.choice((1, 2, 8))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _write_edge(draw: random.Random, data: bytearray, _other: bytes) -> None:
    width = draw.choice((1, 2, 4, 8))
    value = draw.choice(_EDGES) % (1 << 8 * width)
    # Early bytes more often: headers stand there.
    at = int(len(data) * draw.random() ** 3)
    data[at : at + width] = value.to_bytes(width, draw.choice(("big", "little")))


def _cut(draw: random.Random, data: bytearray, _other: bytes) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _remove(draw: random.Random, data: bytearray, _other: bytes) -> None:
    at = draw.randrange(len(data) + 1)
    del data[at : at + draw.choice((1, 4, 64))]


def _repeat(draw: random.Random, data: bytearray, _other: bytes) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = bytes(data[at : at + draw.choice((1, 16, 256))]) * draw.choice((1, 2, 50))


def _splice(draw: random.Random, data: bytearray, other: bytes) -> None:
    """Go on as another text of the corpus from somewhere."""
    data[draw.randrange(len(data) + 1) :] = other[draw.randrange(len(other) + 1) :]


def _noise(draw: random.Random, data: bytearray, _other: bytes) -> None:
    at = draw.randrange(len(data) + 1)
    data[at : at + draw.choice((4, 32))] = draw.randbytes(draw.choice((4, 32)))


_DAMAGES: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    _flip_bits,
    _write_edge,
    _write_edge,
    _cut,
    _remove,
    _repeat,
    _splice,
    _noise,
)
