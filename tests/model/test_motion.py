"""When frames happen, how sequences join, what the seed decides: against the tiny bundle's recurrence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.animator import Animator
from model.errors import ModelError
from model.motion import MotionGenerator, bend_linear, lay_frames, smoothstep, weigh_knots
from model.noise import draw_normal


@pytest.fixture(scope="module")
def animator(tiny_bundle: Path) -> Animator:
    return Animator.from_bundle(tiny_bundle, providers=("cpu",), threads=1)


def norms(delta_ws: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.linalg.norm(delta_ws.reshape(len(delta_ws), -1), axis=1)


def test_normal_numbers_are_normal_and_belong_to_their_seed_and_stream() -> None:
    numbers = draw_normal(3, 0, 100_001)
    assert numbers.dtype == np.float32
    assert len(numbers) == 100_001
    assert abs(float(numbers.mean())) < 0.02
    assert abs(float(numbers.std()) - 1.0) < 0.01
    assert np.array_equal(draw_normal(3, 0, 10), draw_normal(3, 0, 10))
    assert not np.array_equal(draw_normal(3, 0, 10), draw_normal(4, 0, 10))
    assert not np.array_equal(draw_normal(3, 0, 10), draw_normal(3, 1, 10))
    assert abs(float(np.corrcoef(draw_normal(3, 0, 50_000), draw_normal(3, 1, 50_000))[0, 1])) < 0.02


def test_normal_numbers_never_change() -> None:
    """Golden: a job that is run again after an update must give the same video."""
    assert draw_normal(7, 1, 4) == pytest.approx(GOLDEN_NORMAL, abs=1e-6)


GOLDEN_NORMAL = [-0.497194767, -0.694101214, -0.05353057, 1.229606867]


@pytest.mark.parametrize(("frames", "segments"), [(1, 1), (2, 1), (48, 1), (48, 3), (2, 5), (1, 4), (480, 2)])
def test_frames_are_laid_from_the_very_start_to_the_very_end(frames: int, segments: int) -> None:
    segment, phase = lay_frames(frames, segments)
    assert (segment[0], phase[0]) == (0, 0.0)
    if frames > 1:
        assert (segment[-1], phase[-1]) == (segments - 1, 1.0)
    time = segment + phase
    assert np.allclose(np.diff(time), segments / max(1, frames - 1))
    assert ((phase >= 0) & (phase <= 1)).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 16])
def test_spline_goes_through_its_knots_exactly_and_rests_at_both_ends(steps: int) -> None:
    knots = np.random.default_rng(0).standard_normal(steps + 1)
    assert np.array_equal(weigh_knots(steps, np.linspace(0, 1, steps + 1)) @ knots, knots)
    fine = np.linspace(0, 1, 2001)
    line = weigh_knots(steps, fine) @ knots
    speed = np.diff(line) / np.diff(fine)
    assert abs(speed[0]) < 0.05 * np.abs(speed).max()
    assert abs(speed[-1]) < 0.05 * np.abs(speed).max()
    assert np.abs(np.diff(speed)).max() < 0.05 * np.abs(speed).max()  # no kink anywhere


def test_spline_follows_the_trained_motions_closely() -> None:
    x = np.linspace(0, 1, 481)
    weights = weigh_knots(16, x)
    knots = np.linspace(0, 1, 17)
    for follow in (smoothstep, lambda p: np.sin(np.pi * p) ** 2):
        assert np.abs(weights @ follow(knots) - follow(x)).max() < 1e-3


def test_linear_easing_is_the_inverse_of_the_trained_smoothstep() -> None:
    y = np.linspace(0, 1, 101)
    assert np.allclose(smoothstep(bend_linear(y)), y, atol=1e-7)


def test_smooth_motion_starts_softly_and_linear_motion_does_not(animator: Animator) -> None:
    face = animator.sample_face(1)
    smooth = norms(np.diff(animator.move(face, "smiling", 49, seed=1).delta_ws, axis=0))
    linear = norms(np.diff(animator.move(face, "smiling", 49, seed=1, easing="linear").delta_ws, axis=0))
    assert smooth[0] < 0.2 * smooth.max()
    assert linear[0] > 0.4 * linear.max()
    ends = [animator.move(face, "smiling", 49, seed=1, easing=e).delta_ws[-1] for e in ("smooth", "linear")]
    assert np.array_equal(ends[0], ends[1])


def test_first_frame_is_the_still_face_exactly(animator: Animator) -> None:
    motion = animator.move(animator.sample_face(1), "angry", 24, seed=5)
    assert (motion.delta_ws[0] == 0).all()
    assert (motion.motion_codes[0] == 0).all()


def test_intensity_zero_is_a_still_face_and_more_is_more(animator: Animator) -> None:
    face = animator.sample_face(1)
    sizes = [norms(animator.move(face, "smiling", 8, seed=1, intensity=i).delta_ws)[-1] for i in (0.0, 0.5, 1.0, 2.0)]
    assert sizes[0] == 0.0
    assert sizes == sorted(sizes)
    assert sizes[1] > 0.1


@pytest.mark.parametrize("frames", [1, 2, 3, 16, 480])
def test_any_number_of_frames(animator: Animator, frames: int) -> None:
    motion = animator.move(animator.sample_face(1), "smiling", frames, seed=1)
    manifest = animator.manifest
    assert motion.delta_ws.shape == (frames, manifest.num_ws, manifest.w_dim)
    assert motion.motion_codes.shape == (frames, manifest.embed_dim)
    assert motion.frames == frames
    assert np.isfinite(motion.delta_ws).all()
    assert 0 <= motion.peak_frame < frames


def test_a_motion_is_the_same_at_every_length(animator: Animator) -> None:
    face = animator.sample_face(1)
    few, some, many = (animator.move(face, "smiling", frames, seed=1).delta_ws for frames in (2, 7, 241))
    assert np.allclose(few, many[::240], atol=1e-5)
    assert np.allclose(some, many[::40], atol=1e-5)


def test_sequence_is_continuous_and_reaches_both_sentences(animator: Animator) -> None:
    face = animator.sample_face(1)
    frames = 97
    both = animator.move(face, "smiling, then angry", frames, seed=1).delta_ws
    smile = animator.move(face, "smiling", 49, seed=1).delta_ws
    angry = animator.move(face, "angry", 49, seed=1).delta_ws
    assert np.allclose(both[:49], smile, atol=1e-3)  # the first half is the first sentence
    # the second starts from its rest, in the middle, and ends where the second sentence alone does (up to its noise)
    assert np.linalg.norm(both[-1] - angry[-1]) < 0.2 * np.linalg.norm(angry[-1])
    steps = norms(np.diff(both, axis=0))
    alone = max(norms(np.diff(smile, axis=0)).max(), norms(np.diff(angry, axis=0)).max())
    assert steps.max() < 2.5 * alone
    assert steps[47:49].max() < 0.3 * steps.max()  # soft where the two meet
    assert norms(np.diff(both, 2, axis=0)).max() < 0.4 * steps.max()  # no kink either


@pytest.mark.parametrize("easing", ["smooth", "linear"])
@pytest.mark.parametrize("frames", [1, 2, 5, 100])
def test_sequences_of_many_parts_in_few_frames(animator: Animator, frames: int, easing: Any) -> None:
    prompt = "smiling; angry; sad; winking; smiling; sad"
    motion = animator.move(animator.sample_face(1), prompt, frames, seed=1, easing=easing)
    assert motion.delta_ws.shape[0] == frames
    assert (motion.delta_ws[0] == 0).all()
    if frames == 100:
        assert norms(np.diff(motion.delta_ws, axis=0)).max() < 0.35 * norms(motion.delta_ws).max()


def test_parts_of_a_sequence_have_noise_of_their_own(animator: Animator) -> None:
    motion = animator.move(animator.sample_face(1), "smiling; smiling", 33, seed=1).delta_ws
    assert not np.array_equal(motion[16], motion[32])


@pytest.mark.parametrize("sway", [True, False])
def test_the_first_number_of_the_noise_is_0_only_where_the_head_keeps_still(sway: bool) -> None:
    """The contract of `motion`: its sign is the side that the head sways to first."""
    noises = []

    class Listener:
        provider = "cpu"

        def run(self, **inputs: Any) -> dict[str, Any]:
            noises.append(inputs["noise"][0])
            rows = len(inputs["progress"])
            return {"delta_ws": np.zeros((rows, 2, 3), np.float32), "motion_codes": np.zeros((rows, 4), np.float32)}

    embed = np.ones(4, np.float32)
    MotionGenerator(Listener(), h_dim=8).generate([embed, embed], embed, frames=9, seed=3, sway=sway)
    drawn = [draw_normal(3, 1 + step, 8) for step in (0, 1)]
    for noise, wanted in zip(noises[:2], drawn, strict=True):
        assert noise[0] == (wanted[0] if sway else 0)
        assert np.array_equal(noise[1:], wanted[1:])


def test_peak_of_a_motion_that_comes_back() -> None:
    class Wave:
        provider = "cpu"

        def run(self, **inputs: Any) -> dict[str, Any]:
            p = inputs["progress"]
            size = np.sin(np.pi * p) ** 2
            return {"delta_ws": np.tile(size[:, None, None], (1, 2, 3)), "motion_codes": np.tile(size[:, None], (1, 4))}

    embed = np.ones(4, np.float32)
    motion = MotionGenerator(Wave(), h_dim=8).generate([embed], embed, frames=41, seed=0)
    assert motion.peak_frame == 20
    assert norms(motion.delta_ws)[-1] < 1e-6
    # whatever follows a wink starts from the rest, which is the still face
    motion = MotionGenerator(Wave(), h_dim=8).generate([embed, embed], embed, frames=41, seed=0)
    assert norms(motion.delta_ws)[20] < 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
def test_graph_that_breaks_its_promise_is_told(value: float) -> None:
    class Broken:
        provider = "cpu"

        def run(self, **inputs: Any) -> dict[str, Any]:
            count = len(inputs["progress"])
            return {"delta_ws": np.full((count, 2, 3), value), "motion_codes": np.zeros((count, 4))}

    embed = np.ones(4, np.float32)
    with pytest.raises(ModelError) as caught:
        MotionGenerator(Broken(), h_dim=8).generate([embed], embed, frames=4, seed=0)
    assert caught.value.code == "internal"


@pytest.mark.parametrize(
    "arguments",
    [
        *({"frames": 0}, {"seed": -1}, {"seed": 2**64}),
        *({"intensity": -0.1}, {"intensity": 2.1}, {"intensity": float("nan")}, {"easing": "bouncy"}),
    ],
)
def test_arguments_out_of_range(animator: Animator, arguments: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        animator.move(animator.sample_face(1), "smiling", **({"frames": 4, "seed": 0} | arguments))
    assert caught.value.code == "validation-failed"
