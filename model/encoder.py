"""From a square crop to ``ws`` (the inversion) and to its image embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError
from model.sessions import Session, as_float32


class ImageEncoder:
    """The two graphs that look at a picture."""

    def __init__(self, encoder: Session, image: Session) -> None:
        self._encoder = encoder
        self._image = image

    def invert(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the ``ws`` that the synthesis draws this face from.

        Shapes: crop [S,S,3] → [num_ws,w_dim]. Range: uint8 RGB in.

        Raises:
            ModelError: inversion-failed where the result is not finite.
        """
        ws = as_float32(self._encoder.run(image=to_graph_range(crop))["ws"][0])
        if not np.isfinite(ws).all():
            raise ModelError(
                "inversion-failed",
                "The encoder could not find this face in the model's space.",
                "Use a frontal face of the model's domain, well lit and in the middle of the picture.",
            )
        return ws

    def embed(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the picture's unit-norm embedding.

        Shapes: crop [S,S,3] → [embed_dim].
        """
        return as_float32(self._image.run(image=to_graph_range(crop))["image_embed"][0])


def to_graph_range(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return one picture as a batch of one, NCHW in [-1, 1].

    Shapes: [S,S,3] → [1,3,S,S].
    """
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
