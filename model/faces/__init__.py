"""Where the faces of a photograph are: a box and five points for each. numpy and opencv; knows no bundle and no jobs.

The API looks for faces when a picture is posted, so nothing in here may need an inference runtime: the three networks
are so small that numpy runs them (docs/decisions/0014-face-detection.md).
"""

from __future__ import annotations

from model.faces.detector import DetectedFace, FaceDetector

__all__ = ["DetectedFace", "FaceDetector"]
