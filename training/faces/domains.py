"""The domains of rendered faces by name: how each is drawn, what its sentences call it, which expressions it must show.

All share the factors of `training.faces.parameters`. Renderers are imported when they are used: they need skia and its
system libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import numpy.typing as npt

from training.faces.expressions import GATE_NAMES
from training.faces.parameters import Parameters

Render = Callable[[Parameters, int], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Domain:
    """One kind of face.

    Args:
        name: what bundles call it.
        module: where its renderer lives.
        core: the expressions that the quality gates ask of it, by gate name.
    """

    name: str
    module: str
    core: tuple[str, ...] = tuple(GATE_NAMES)

    def render(self, params: Parameters, size_px: int = 128) -> npt.NDArray[np.uint8]:
        """Draw a face.

        Shapes: → [size_px,size_px,3] uint8 RGB.
        """
        draw: Render = import_module(self.module).render
        return draw(params, size_px)


DOMAINS = {
    domain.name: domain
    for domain in (
        Domain("human", "training.faces.human"),
        Domain("anime", "training.faces.anime"),
        Domain("dog", "training.faces.dog"),
    )
}


def find_domain(name: str) -> Domain:
    """Give a domain by name.

    Raises: ValueError where there is none of this name.
    """
    try:
        return DOMAINS[name]
    except KeyError:
        raise ValueError(f"no domain {name!r}; rendered domains are {', '.join(DOMAINS)}") from None
