"""From ``ws`` and ``delta_ws`` to pictures, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from model.sessions import Session


class Synthesizer:
    """Draws frames with the bundle's synthesis graph."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def draw(self, ws: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return one picture for each ``ws``.

        Shapes: [N,num_ws,w_dim] → [N,H,W,3] RGB.
        """
        frames: NDArray[np.uint8] = self._session.run(ws=ws)["frames"]
        return frames

    def stream(
        self, ws: NDArray[np.float32], delta_ws: NDArray[np.float32], batch_size: int
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of a motion in order, ``batch_size`` at a time (the last batch may be smaller).

        Only one batch of pictures is alive at a time, so memory does not grow with the video.

        Shapes: ws [num_ws,w_dim], delta_ws [T,num_ws,w_dim] → batches [n,H,W,3].
        """
        assert batch_size >= 1, "batch_size must be at least 1"
        for start in range(0, len(delta_ws), batch_size):
            yield self.draw(ws[None] + delta_ws[start : start + batch_size])
