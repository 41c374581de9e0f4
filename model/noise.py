"""Numbers that a seed alone decides, whatever the numpy version."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_normal(seed: int, stream: int, count: int) -> NDArray[np.float32]:
    """Return standard-normal numbers of one stream of a seed.

    numpy promises the bits of Philox, but not what its ``standard_normal`` makes of them in a later version; so the
    bits are turned into normal numbers here, by Box and Muller.

    Args:
        seed: any whole number of 64 bits.
        stream: numbers of different streams of one seed are independent.
        count: how many.
    """
    pairs = (count + 1) // 2
    bits = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).random_raw(2 * pairs)
    uniform = ((np.asarray(bits, dtype=np.uint64) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53  # in (0, 1)
    radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
    angle = 2.0 * np.pi * uniform[pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return normal[:count].astype(np.float32)
