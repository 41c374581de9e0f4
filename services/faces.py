"""Which face of a picture is meant: found, chosen, or refused in words. For the API and the command line.

Looks at pictures with ``model.faces``, which needs no inference runtime. Knows no HTTP, no store and no worker.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from model.align import face_region
from model.bundle.manifest import Manifest
from model.bundle.reader import Bundle, find_bundle
from model.errors import BundleError, ModelError
from model.faces import DetectedFace, FaceDetector
from services.errors import RequestError, TemporaryError
from services.jobs.contract import AnimationOptions, FaceChoice, FaceFacts

# The shorter edge of a face's box. A smaller face has fewer pixels than any encoder needs, and would be animated as
# somebody else's.
MIN_FACE_PX = 40
# A second face of this share of the largest one's edge could be meant just as well.
NEARLY_AS_LARGE = 0.85
_MOST_DETECTORS = 4
_HINT_NONE = (
    "Send a picture in which a face is seen from the front, upright and well lit; or ask for `align: none`, which takes"
    " the centred square as it is."
)


class Search(Enum):
    """Whether a face is looked for in a picture, and whether there must be one."""

    NONE = auto()
    OPTIONAL = auto()
    REQUIRED = auto()


def plan_search(options: AnimationOptions, manifest: Manifest) -> Search:
    """Return what a request asks for.

    A bundle with a detector animates faces, so it needs one. A bundle without (drawn avatars) animates the centred
    square; its faces are looked for only where somebody asks for one, or wants to have it laid back into a photograph,
    and there the centred square will do as well.
    """
    if options.source == "sampled" or options.align == "none":
        return Search.NONE
    if options.face is not None or manifest.detector is not None:
        return Search.REQUIRED
    return Search.OPTIONAL if options.compose == "paste_back" else Search.NONE


class FaceFinder:
    """Finds faces with the detector that a bundle brings, else with the one that comes with animato. Thread-safe."""

    def __init__(self, bundles_dir: Path) -> None:
        self._bundles_dir = bundles_dir
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, FaceDetector] = OrderedDict()

    def find(self, picture: NDArray[Any], manifest: Manifest) -> list[FaceFacts]:
        """Return all faces of a picture, the largest first, none of them selected.

        Shapes: [H,W,3]. Range: uint8 RGB.

        Raises:
            TemporaryError: not-ready where the bundle's detector can't be opened.
        """
        detected = self._detector(manifest).detect(picture)
        return [_describe(index, face) for index, face in enumerate(detected)]

    def look(self, picture: NDArray[Any], manifest: Manifest, options: AnimationOptions) -> list[FaceFacts]:
        """Return the faces that a request is about, at most one of them selected; empty where none is looked for.

        Raises:
            RequestError: no-face, multiple-faces, face-too-small, face-unusable.
            TemporaryError: not-ready.
        """
        search = plan_search(options, manifest)
        if search is Search.NONE:
            return []
        found = self.find(picture, manifest)
        if not found and search is Search.OPTIONAL:
            return []
        return choose_face(found, options.face)

    def _detector(self, manifest: Manifest) -> FaceDetector:
        if manifest.detector is None:
            return FaceDetector.shipped()
        sha256 = manifest.files[manifest.detector].sha256
        with self._lock:
            if sha256 not in self._opened:
                try:
                    bundle = Bundle(find_bundle(self._bundles_dir, manifest.id), manifest)
                    self._opened[sha256] = FaceDetector(bundle.read(manifest.detector))
                except (BundleError, ModelError) as error:
                    raise TemporaryError("not-ready", error.message, error.hint, delay_s=30.0) from error
                while len(self._opened) > _MOST_DETECTORS:  # bundles are exchanged while the service runs
                    self._opened.popitem(last=False)
            return self._opened[sha256]


def choose_face(found: Sequence[FaceFacts], choice: FaceChoice | None = None) -> list[FaceFacts]:
    """Return the faces with the chosen one marked.

    Args:
        found: the largest first.
        choice: what the request says; None: the largest, unless another is nearly as large.

    Raises:
        RequestError: no-face, multiple-faces, face-too-small, face-unusable; each tells the faces that were found.
    """
    if not found:
        raise RequestError("no-face", "No face was found in the picture.", _HINT_NONE, faces=[])
    chosen = _pick(found, choice)
    faces = [face.model_copy(update={"selected": face is chosen}) for face in found]
    edge = chosen.edge_px
    if edge < MIN_FACE_PX:
        _refuse(
            "face-too-small",
            f"The face is {edge:.0f} px wide; at least {MIN_FACE_PX} px are needed.",
            "Send the picture in a higher resolution, or choose a larger face.",
            faces,
            min_face_px=MIN_FACE_PX,
        )
    try:
        face_region(chosen.points)
    except ModelError as error:
        _refuse(error.code, error.message, error.hint, faces)
    return faces


def _pick(found: Sequence[FaceFacts], choice: FaceChoice | None) -> FaceFacts:
    if choice is None:
        rivals = sum(face.edge_px >= NEARLY_AS_LARGE * found[0].edge_px for face in found)
        if rivals > 1:
            _refuse(
                "multiple-faces",
                f"The picture has {rivals} faces of nearly the same size.",
                'Say which one is meant: `face: {"index": …}` as numbered in `faces`, `{"box": […]}`, or'
                ' `{"select": "largest"}` to take the largest all the same.',
                found,
            )
        return found[0]
    if choice.index is not None:
        if choice.index >= len(found):
            _refuse(
                "no-face",
                f"There is no face with the index {choice.index}: {len(found)} found.",
                f"Choose an index from 0 (the largest) to {len(found) - 1}, as numbered in `faces`."
                if len(found) > 1
                else "Choose the index 0, or leave `face` out.",
                found,
            )
        return found[choice.index]
    if choice.box is not None:
        box = np.array(choice.box)
        overlaps = [_overlap(np.array(face.box), box) for face in found]
        best = int(np.argmax(overlaps))
        if overlaps[best] <= 0:
            _refuse(
                "no-face",
                "There is no face in the box that was asked for.",
                "Choose one of `faces`: a box is left, top, right, bottom in px of the upright picture.",
                found,
            )
        return found[best]
    return found[0]


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the share of the union that two boxes have in common."""
    sides = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None)
    shared = float(sides.prod())
    return shared / (float((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod()) - shared)


def _describe(index: int, face: DetectedFace) -> FaceFacts:
    return FaceFacts(
        index=index,
        box=[round(value, 1) for value in face.box],
        score=round(face.score, 4),
        landmarks=[[round(x, 2), round(y, 2)] for x, y in face.points],
    )


def _refuse(code: str, detail: str, hint: str, faces: Sequence[FaceFacts], **more: Any) -> Never:
    raise RequestError(code, detail, hint, faces=[face.model_dump(mode="json") for face in faces], **more)
