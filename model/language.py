"""How near a sentence is to what a bundle was taught: a score from 0 to 1 and the name of the nearest expression.

numpy only. A bundle without ``language.json`` has no score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import BundleError

PAIR_MARGIN = 0.05
"""Two expressions at once are heard where they fit better than one by this much, in cosine."""


@dataclass(frozen=True)
class Understanding:
    """What was understood of a prompt.

    Range: similarity 0 (no nearer to any expression than sentences about other things) to 1 (as near as a plain wording
    of it). ``understood_as`` is the nearest expression, two of them at once, or "neutral"; of a sequence, all of them.
    """

    similarity: float
    understood_as: str


class LanguageScale:
    """The prototypes of a bundle's expressions and the bounds of its score."""

    def __init__(
        self,
        names: Sequence[str],
        neutral: str,
        prototypes: NDArray[np.float32],  # [len(names), embed_dim], unit norm
        floor: float,  # cosine that counts as 0
        ceiling: float,  # cosine that counts as 1
        paired: int | None = None,  # so many of the first rows may be asked for two at a time; None: all
    ) -> None:
        self._floor, self._ceiling = floor, ceiling
        asked = [(name, row) for name, row in zip(names, prototypes, strict=True) if name != neutral]
        self._single = len(asked)
        rows = [row for _, row in asked]
        self._names = [name for name, _ in asked]
        pairs = asked[:paired]
        for i, (name, row) in enumerate(pairs):
            for other, second in pairs[i + 1 :]:
                if other != name:
                    self._names.append(f"{name} and {other}")
                    rows.append((row + second) / np.linalg.norm(row + second))
        self._asked = np.stack(rows)  # every expression, then every two of them
        self._neutral = [(n, row) for n, row in zip(names, prototypes, strict=True) if n == neutral]

    @classmethod
    def from_bytes(cls, data: bytes, embed_dim: int) -> LanguageScale:
        """Read the bytes of a ``language.json``.

        Raises:
            BundleError: bundle-invalid.
        """
        try:
            found = json.loads(data)
        except ValueError as error:
            raise _unfit("it is not JSON") from error
        if not isinstance(found, Mapping):
            raise _unfit("it is not a JSON object")
        names, neutral = found.get("names"), found.get("neutral")
        if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names) or len(set(names)) < 2:
            raise _unfit("names must be a list of texts")
        if not isinstance(neutral, str):
            raise _unfit("neutral must be a text")
        floor, ceiling = _number(found, "floor"), _number(found, "ceiling")
        if not floor < ceiling:
            raise _unfit("floor must be below ceiling")
        try:
            prototypes = np.asarray(found.get("prototypes"), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise _unfit("prototypes must be rows of numbers") from error
        if prototypes.shape != (len(names), embed_dim) or not np.isfinite(prototypes).all():
            raise _unfit(f"prototypes must be {len(names)} rows of {embed_dim} numbers")
        paired = found.get("paired")
        if paired is not None and (isinstance(paired, bool) or not isinstance(paired, int) or paired < 0):
            raise _unfit("paired must be a whole number")
        return cls(names, neutral, prototypes, floor, ceiling, paired)

    def judge(self, embeds: Sequence[NDArray[np.float32]]) -> Understanding:
        """Judge the parts of a prompt; a sequence is understood as well as its worst part.

        Shapes: one or more [embed_dim], unit norm.
        """
        judged = [self._judge(embed) for embed in embeds]
        return Understanding(min(u.similarity for u in judged), ", then ".join(u.understood_as for u in judged))

    def _judge(self, embed: NDArray[np.float32]) -> Understanding:
        cosines = self._asked @ embed
        best = int(cosines[: self._single].argmax())
        pair = int(cosines.argmax())
        if cosines[pair] > cosines[best] + PAIR_MARGIN:
            best = pair
        score = (float(cosines[best]) - self._floor) / (self._ceiling - self._floor)
        name = self._names[best]
        for neutral, row in self._neutral:
            if float(row @ embed) > cosines[best]:
                name = neutral
        return Understanding(min(max(score, 0.0), 1.0), name)


def _number(found: Mapping[str, Any], key: str) -> float:
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise _unfit(f"{key} must be a number")
    return float(value)


def _unfit(reason: str) -> BundleError:
    return BundleError(
        "bundle-invalid",
        f"The bundle's language file can't be used: {reason}.",
        "Export the bundle again, or get a fresh copy of it.",
    )
