"""The committed bundle against the renderer's truth, on identities that no pool holds."""

from pathlib import Path

import numpy as np
import pytest

from model.animator import Animator
from training.faces.expressions import GATE_NAMES
from training.faces.human import render
from training.faces.parameters import sample_parameters

BUNDLE = Path(__file__).parents[2] / "bundles" / "human"
PEOPLE = range(993_000, 993_016)


@pytest.fixture(scope="module")
def animator():
    return Animator.from_bundle(BUNDLE, providers=("cpu",), threads=1)


@pytest.fixture(scope="module")
def pictures():
    return [render(sample_parameters(np.random.default_rng(seed)), 256) for seed in PEOPLE]


def psnr_db(first, second):
    return -10 * np.log10(np.mean((first.astype(float) - second) ** 2) / 255**2)


def test_the_inversion_keeps_the_picture(animator, pictures):
    drawn = []
    for picture in pictures:
        face = animator.invert(picture)
        still = animator.move(face, "smiling", frames=2, intensity=0.0, seed=0)
        drawn.append(psnr_db(next(iter(animator.draw(face, still)))[0], picture))
    assert np.mean(drawn) > 28
    assert min(drawn) > 21


@pytest.mark.parametrize("prompt", sorted(GATE_NAMES))
def test_motion_starts_softly_and_is_the_same_with_more_frames(animator, pictures, prompt):
    face = animator.invert(pictures[0])
    coarse = animator.move(face, prompt, frames=17, seed=1).delta_ws
    fine = animator.move(face, prompt, frames=65, seed=1).delta_ws
    assert np.abs(fine[0]).max() == 0
    steps = np.linalg.norm((fine[1:] - fine[:-1]).reshape(64, -1), axis=1)
    assert steps[0] < 0.5 * steps.max()
    peak = np.abs(fine).max()
    assert np.abs(coarse - fine[::4]).max() < 0.1 * peak


def test_a_wink_comes_back(animator, pictures):
    for picture in pictures[:4]:
        size = np.linalg.norm(
            animator.move(animator.invert(picture), "winking", frames=25, seed=1).delta_ws, axis=(1, 2)
        )
        assert size[-1] < 0.15 * size.max()
        assert 8 <= int(size.argmax()) <= 16


def test_another_seed_is_a_hair_different_and_the_same_seed_is_not(animator, pictures):
    face = animator.invert(pictures[1])
    first, again, other = (animator.move(face, "laughing", frames=9, seed=seed).delta_ws for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert 0 < np.abs(first - other).max() < 0.2 * np.abs(first).max()


def test_sampled_faces_differ(animator):
    faces = [animator.sample_face(seed) for seed in range(4)]
    crops = [face.crop.astype(int) for face in faces]
    assert all(np.abs(a - b).mean() > 4 for i, a in enumerate(crops) for b in crops[:i])
