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

        Only one batch of pictures is alive at a time, so memory does not grow with the video. A frame whose ``ws`` is
        the one before, bit for bit, is not drawn again: a still face is drawn once, however long it is shown.

        Shapes: ws [num_ws,w_dim], delta_ws [T,num_ws,w_dim] → batches [n,H,W,3].
        """
        assert batch_size >= 1, "batch_size must be at least 1"
        shown: NDArray[np.uint8] | None = None
        for start in range(0, len(delta_ws), batch_size):
            batch = ws[None] + delta_ws[start : start + batch_size]
            fresh = np.empty(len(batch), bool)
            fresh[0] = shown is None or not np.array_equal(delta_ws[start], delta_ws[start - 1])
            fresh[1:] = (batch[1:] != batch[:-1]).any(axis=(1, 2))
            if fresh.all():
                frames = self.draw(batch)
            else:
                known = [] if shown is None else [shown[None]]
                drawn = np.concatenate([*known, *([self.draw(batch[fresh])] if fresh.any() else [])])
                frames = drawn[np.cumsum(fresh) - (shown is None)]
            shown = frames[-1]
            yield frames
