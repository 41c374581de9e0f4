"""Which face is meant: chosen, or refused with the faces that were found and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle.manifest import Manifest
from model.bundle.reader import read_bundle
from model.faces.detector import DETECTOR_FILE
from services.errors import RequestError, TemporaryError
from services.faces import MIN_FACE_PX, FaceFinder, Search, choose_face, plan_search
from services.jobs.contract import AnimationOptions, FaceChoice, FaceFacts, whole_frame_size
from tests.photographs import BOX, landscape, read_photograph, scale, two_faces
from tests.services.api.conftest import write_model


def make_face(index: int, left: float, edge: float) -> FaceFacts:
    points = [[left + edge * x, edge * y] for x, y in ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))]
    return FaceFacts(index=index, box=[left, 0, left + edge, edge * 1.2], score=0.99, landmarks=points)


def selected(faces: list[FaceFacts]) -> list[int]:
    return [face.index for face in faces if face.selected]


def refusal(found: list[FaceFacts], choice: FaceChoice | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        choose_face(found, choice)
    assert caught.value.hint
    assert len(caught.value.details["faces"]) == len(found), "the faces that were found are always told"
    return caught.value


LARGE, SMALL, TINY = make_face(0, 0, 200), make_face(1, 300, 100), make_face(2, 500, 20)
TWIN = make_face(1, 300, 180)


def test_the_largest_is_chosen_where_that_is_clear() -> None:
    assert selected(choose_face([LARGE])) == [0]
    assert selected(choose_face([LARGE, SMALL, TINY])) == [0], "people in the background are nobody's concern"


def test_faces_of_nearly_the_same_size_must_be_told_apart() -> None:
    error = refusal([LARGE, TWIN, TINY])
    assert error.code == "multiple-faces"
    assert "2 faces" in error.message
    assert "index" in error.hint
    assert not any(face["selected"] for face in error.details["faces"])
    assert selected(choose_face([LARGE, TWIN], FaceChoice(select="largest"))) == [0]
    assert selected(choose_face([LARGE, TWIN], FaceChoice(index=1))) == [1]


def test_a_box_chooses_what_it_overlaps_most() -> None:
    assert selected(choose_face([LARGE, SMALL], FaceChoice(box=[290, 10, 380, 110]))) == [1]
    assert selected(choose_face([LARGE, SMALL], FaceChoice(box=[0, 0, 320, 240]))) == [0]
    error = refusal([LARGE, SMALL], FaceChoice(box=[800, 800, 900, 900]))
    assert error.code == "no-face"
    assert "box" in error.message


def test_nobody_there() -> None:
    assert refusal([]).code == "no-face"
    error = refusal([LARGE], FaceChoice(index=1))
    assert error.code == "no-face"
    assert "the index 0" in error.hint


def test_a_face_too_small_is_told_with_the_limit() -> None:
    error = refusal([TINY])
    assert error.code == "face-too-small"
    assert error.details["min_face_px"] == MIN_FACE_PX
    assert error.details["faces"][0]["selected"]
    assert refusal([LARGE, SMALL, TINY], FaceChoice(index=2)).code == "face-too-small"


def test_a_face_whose_points_lie_on_one_spot_is_refused() -> None:
    assert refusal([LARGE.model_copy(update={"landmarks": [[5.0, 5.0]] * 5})]).code == "face-unusable"


@pytest.mark.parametrize(
    ("options", "without", "with_detector"),
    [
        ({}, Search.NONE, Search.REQUIRED),
        ({"align": "none"}, Search.NONE, Search.NONE),
        ({"align": "none", "compose": "paste_back"}, Search.NONE, Search.NONE),
        ({"compose": "paste_back"}, Search.OPTIONAL, Search.REQUIRED),
        ({"face": {"select": "largest"}}, Search.REQUIRED, Search.REQUIRED),
        ({"source": "sampled"}, Search.NONE, Search.NONE),
    ],
)
def test_when_a_face_is_looked_for(
    options: dict[str, Any], without: Search, with_detector: Search, tmp_path: Path
) -> None:
    asked = AnimationOptions.model_validate({"prompt": "smiling", **options})
    assert plan_search(asked, write_manifest(tmp_path, "plain")) is without
    assert plan_search(asked, write_manifest(tmp_path, "photo", DETECTOR_FILE.read_bytes())) is with_detector


def write_manifest(bundles_dir: Path, model_id: str, detector: bytes | None = None) -> Manifest:
    write_model(bundles_dir, model_id, detector=detector)
    return read_bundle(bundles_dir / model_id).manifest


def test_the_bundles_own_detector_finds_the_face(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, "photo", DETECTOR_FILE.read_bytes())
    (face,) = FaceFinder(tmp_path).look(read_photograph(), manifest, AnimationOptions(prompt="smiling"))
    assert face.selected
    assert np.abs(np.array(face.box) - BOX).max() < 8


def test_real_pictures_are_refused_in_words(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, "photo", DETECTOR_FILE.read_bytes())
    finder, options = FaceFinder(tmp_path), AnimationOptions(prompt="smiling")
    for picture, code in (
        (landscape(), "no-face"),
        (two_faces(), "multiple-faces"),
        (scale(read_photograph(), 0.3), "face-too-small"),
    ):
        with pytest.raises(RequestError) as caught:
            finder.look(picture, manifest, options)
        assert caught.value.code == code


def test_a_bundle_without_detector_takes_the_square_where_nobody_is_found(tmp_path: Path) -> None:
    manifest, finder = write_manifest(tmp_path, "plain"), FaceFinder(tmp_path)
    whole = AnimationOptions(prompt="smiling", compose="paste_back")
    assert finder.look(landscape(), manifest, whole) == []
    assert selected(finder.look(read_photograph(), manifest, whole)) == [0]


def test_a_detector_that_is_none_makes_the_service_not_ready(tmp_path: Path) -> None:
    """A fault of the operator's, not of the picture."""
    manifest = write_manifest(tmp_path, "photo", b"no detector")
    with pytest.raises(TemporaryError, match="detector") as caught:
        FaceFinder(tmp_path).look(read_photograph(), manifest, AnimationOptions(prompt="smiling"))
    assert caught.value.code == "not-ready"


@pytest.mark.parametrize(
    ("picture", "size", "wanted"),
    [
        ((512, 512), None, (512, 512)),
        ((513, 301), None, (512, 300)),
        ((4000, 3000), None, (2048, 1536)),
        ((3000, 4000), 1024, (768, 1024)),
        ((100, 33), 512, (512, 168)),
        ((16_000, 32), 64, (64, 2)),
    ],
)
def test_size_of_a_whole_film(picture: tuple[int, int], size: int | None, wanted: tuple[int, int]) -> None:
    assert whole_frame_size(*picture, size) == wanted
