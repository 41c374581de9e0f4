"""The whole path from a picture and a sentence to frames, on the tiny bundle."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.animator import Animator, Face
from model.errors import ModelError

ROOT = Path(__file__).parents[2]
Frames = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def animator(tiny_bundle: Path) -> Animator:
    return Animator.from_bundle(tiny_bundle, providers=("cpu",), threads=1)


@pytest.fixture
def picture() -> Frames:
    """A picture with soft shapes, wider than high."""
    y, x = np.mgrid[0:90, 0:120] / 90.0
    return (np.stack([np.sin(3 * x), np.cos(2 * y), np.sin(x * y * 4)], axis=2) * 100 + 128).astype(np.uint8)


def draw_all(animator: Animator, face: Face, prompt: str, frames: int, seed: int, batch_size: int = 8) -> Frames:
    motion = animator.move(face, prompt, frames, seed)
    return np.concatenate(list(animator.draw(face, motion, batch_size)))


def test_picture_to_frames(animator: Animator, picture: Frames) -> None:
    frames = np.concatenate(list(animator.animate(picture, "smiling", frames=20, seed=1)))
    assert frames.shape == (20, 64, 64, 3)
    assert frames.dtype == np.uint8
    assert np.abs(frames[-1].astype(int) - frames[0]).mean() > 3  # something moved


def test_same_seed_same_frames_even_in_a_new_session(animator: Animator, tiny_bundle: Path, picture: Frames) -> None:
    first = np.concatenate(list(animator.animate(picture, "winks, then laughs", frames=16, seed=3)))
    again = Animator.from_bundle(tiny_bundle, providers=("cpu",), threads=1)
    assert np.array_equal(first, np.concatenate(list(again.animate(picture, "winks, then laughs", frames=16, seed=3))))


def test_other_seed_other_frames(animator: Animator) -> None:
    face = animator.sample_face(1)
    one, two = (draw_all(animator, face, "smiling", 16, seed) for seed in (1, 2))
    assert np.array_equal(one[0], two[0])
    assert not np.array_equal(one[-1], two[-1])


def test_other_sentence_other_frames(animator: Animator) -> None:
    face = animator.sample_face(1)
    ends = [draw_all(animator, face, prompt, 8, seed=1)[-1].astype(int) for prompt in ("smiling", "angry", "sad")]
    assert min(np.abs(ends[i] - ends[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))) > 3


def test_batch_size_does_not_show(animator: Animator) -> None:
    face = animator.sample_face(1)
    one = draw_all(animator, face, "smiling", 21, seed=1, batch_size=1)
    for batch_size in (2, 8, 21, 64):
        other = draw_all(animator, face, "smiling", 21, seed=1, batch_size=batch_size)
        assert np.abs(one.astype(int) - other).max() <= 1


def test_batches_have_the_asked_size(animator: Animator) -> None:
    face = animator.sample_face(1)
    motion = animator.move(face, "smiling", 21, seed=1)
    assert [len(batch) for batch in animator.draw(face, motion, 8)] == [8, 8, 5]
    assert [len(batch) for batch in animator.draw(face, motion, 64)] == [21]


def test_first_frame_is_the_inversion(animator: Animator, picture: Frames) -> None:
    face = animator.invert(picture)
    still = animator._synthesis.draw(face.ws[None])[0]
    first = draw_all(animator, face, "angry", 12, seed=9)[0]
    assert np.abs(first.astype(int) - still).max() <= 1


def test_intensity_zero_stands_still(animator: Animator) -> None:
    face = animator.sample_face(2)
    motion = animator.move(face, "smiling, then angry", 10, seed=1, intensity=0.0)
    frames = np.concatenate(list(animator.draw(face, motion)))
    assert (frames == frames[0]).all()


def test_frames_that_stand_still_are_drawn_once(tiny_bundle: Path) -> None:
    animator = Animator.from_bundle(tiny_bundle, providers=("cpu",), threads=1)
    synthesis, drawn = animator._synthesis, []
    draw = synthesis.draw
    synthesis.draw = lambda ws: (drawn.append(len(ws)), draw(ws))[1]  # type: ignore[method-assign]
    face = animator.sample_face(2)
    drawn.clear()
    motion = animator.move(face, "smiling", 6, seed=1).delta_ws
    held = motion[[0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 0, 0]]
    for batch_size in (1, 4, 5, 64):
        drawn.clear()
        frames = np.concatenate(list(synthesis.stream(face.ws, held, batch_size)))
        assert sum(drawn) == 5  # the return to the first one is not the one before
        assert np.array_equal(frames, np.concatenate([draw(face.ws[None] + delta) for delta in held[:, None]]))


@pytest.mark.parametrize("frames", [1, 2, 16, 480])
def test_any_length(animator: Animator, frames: int) -> None:
    face = animator.sample_face(1)
    assert len(draw_all(animator, face, "smiling", frames, seed=1)) == frames


def test_frames_do_not_jump(animator: Animator) -> None:
    frames = draw_all(animator, animator.sample_face(1), "smiling, then angry, then sad", 120, seed=1).astype(int)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert steps.max() < 0.12 * np.abs(frames - frames[0]).mean(axis=(1, 2, 3)).max()


@pytest.mark.parametrize("shape", [(64, 64), (1, 1, 3), (200, 31, 4), (48, 64, 2), (7, 5, 1)])
def test_pictures_of_every_kind(animator: Animator, shape: tuple[int, ...]) -> None:
    face = animator.invert(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert face.crop.shape == (64, 64, 3)
    assert face.ws.shape == (animator.manifest.num_ws, animator.manifest.w_dim)
    assert np.linalg.norm(face.image_embed) == pytest.approx(1.0, abs=1e-4)


def test_array_that_is_no_picture(animator: Animator) -> None:
    with pytest.raises(ModelError) as caught:
        animator.invert(np.zeros((3, 64, 64), np.float32))
    assert caught.value.code == "image-corrupt"


def test_sampled_faces_belong_to_their_seed(animator: Animator) -> None:
    one, same, other = (animator.sample_face(seed) for seed in (5, 5, 6))
    assert np.array_equal(one.ws, same.ws)
    assert not np.array_equal(one.crop, other.crop)
    average = animator.sample_face(5, truncation_psi=0.0)
    assert np.array_equal(average.ws, animator.sample_face(6, truncation_psi=0.0).ws)


def test_identity_of_a_picture_with_itself_is_one(animator: Animator) -> None:
    one, other = animator.sample_face(1).crop, animator.sample_face(2).crop
    assert animator.measure_identity(one, one) == pytest.approx(1.0, abs=1e-4)
    unlike = animator.measure_identity(one, other)
    assert unlike is not None
    assert -1.0 <= unlike < 0.999


def test_memory_does_not_grow_with_the_video(animator: Animator) -> None:
    """One frame is 12 kB here: 480 of them kept would be 5.9 MB; the motion alone is 0.15 MB."""
    face = animator.sample_face(1)
    peaks = []
    for frames in (16, 480):
        tracemalloc.start()
        for _ in animator.draw(face, animator.move(face, "smiling", frames, seed=1)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1_000_000


def test_two_threads_at_once(animator: Animator) -> None:
    face = animator.sample_face(1)
    expected = draw_all(animator, face, "smiling", 32, seed=1)
    results: list[Frames] = []
    threads = [
        threading.Thread(target=lambda: results.append(draw_all(animator, face, "smiling", 32, seed=1)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert all(np.array_equal(result, expected) for result in results)


def test_fresh_process_imports_nothing_heavy(tiny_bundle: Path) -> None:
    """What makes a start slow is what it imports; how long it takes is the benchmark's to say."""
    program = f"""
import sys
from model.animator import Animator
animator = Animator.from_bundle({str(tiny_bundle)!r}, providers=("cpu",), threads=1)
animator.warm_up()
allowed = {{"numpy", "onnxruntime", "cv2", "structlog", "model"}}
heavy = {{"torch", "training", "services", "worker", "fastapi", "celery", "sqlalchemy", "pydantic", "onnx"}}
print(sorted(heavy & {{name.split(".")[0] for name in sys.modules}}), allowed <= set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy, complete = done.stdout.rsplit(maxsplit=1)
    assert heavy == "[]"
    assert complete == "True"
