"""From a folder of pictures to a bundle that the model animates, by the command alone."""

import json

import numpy as np
import pytest
from PIL import Image

from model.animator import Animator
from tests.training.photos.conftest import animato_train


@pytest.fixture(scope="module")
def animator(finished):
    return Animator.from_bundle(finished[0] / "bundle", providers=("cpu",), threads=1)


@pytest.fixture(scope="module")
def picture(faces):
    return np.asarray(Image.open(sorted(faces.rglob("*.png"))[0]))


def test_the_bundle_animates_a_picture(animator, picture):
    face = animator.invert(picture)
    motion = animator.move(face, "smiling", frames=5, seed=3)
    frames = np.concatenate(list(animator.draw(face, motion)))
    assert frames.shape == (5, 32, 32, 3)
    assert np.abs(motion.delta_ws[0]).max() == 0
    assert np.abs(motion.delta_ws[-1]).max() > 0
    again = np.concatenate(list(animator.animate(picture, "smiling", 5, 3)))
    np.testing.assert_array_equal(frames, again)


def test_sentences_and_faces_differ(animator, picture):
    face = animator.invert(picture)
    first, second = (animator.move(face, words, frames=4, seed=3).delta_ws for words in ("smiling", "angry"))
    assert np.abs(first - second).max() > 0
    one, other = animator.sample_face(1), animator.sample_face(2)
    assert np.abs(one.ws - other.ws).max() > 1e-3
    average = animator.sample_face(1, truncation_psi=0.0)
    np.testing.assert_allclose(average.ws, animator.sample_face(2, truncation_psi=0.0).ws, atol=1e-6)


def test_the_manifest_says_photo_and_how_it_was_made(animator):
    manifest = animator.manifest
    assert (manifest.kind, manifest.resolution, manifest.num_ws, manifest.w_dim) == ("photo", 32, 8, 16)
    assert manifest.graphs["quality"] is None
    assert manifest.made_by["steps"] == {"gan": 8, "embedding": 3, "inversion": 8, "motion": 3}
    assert {"embedding.top1", "motion.language"} <= set(manifest.made_by["measured"])
    assert set(manifest.parity) == {"text", "image", "encoder", "motion", "mapping", "synthesis"}


def test_run_json_says_what_repeats_the_run(finished, faces):
    folder, _ = finished
    record = json.loads((folder / "run.json").read_text())
    assert record["recipe"] == "own-faces-smoke"
    assert record["numbers"]["gan"]["channels"] == [16, 16, 12, 8]
    assert set(record["seeds"]) == {"gan.seed", "inversion.seed", "motion.seed", "embedding.seed"}
    assert record["data"]["path"] == str(faces)
    assert record["data"]["pictures"] == 64
    assert len(record["data"]["fingerprint"]) == 64
    assert record["torch"].startswith("2.")
    assert record["device"].startswith("cpu")
    assert record["commands"][0]["command"].startswith("animato-train")


def test_a_second_command_needs_no_data_and_does_nothing(finished):
    folder, _ = finished
    result = animato_train("motion", "--recipe", "own-faces-smoke", "--out", folder)
    assert result.exit_code == 0, result.output
    assert "motion: finished before" in result.output
    plan = animato_train("all", "--recipe", "own-faces-smoke", "--out", folder, "--dry-run")
    assert plan.output.count("finished") == 5
    assert "disk: 1 MB needed" in plan.output


def test_shared_text_lies_beside_the_bundle(finished, tmp_path):
    folder, _ = finished
    target = tmp_path / "mine"
    result = animato_train("export", "--recipe", "own-faces-smoke", "--out", folder, "--bundle", target, "--share-text")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "shared" / "text.onnx").exists()
    assert not (target / "text.onnx").exists()
    opened = Animator.from_bundle(target, providers=("cpu",), threads=1)
    assert opened.manifest.id == "mine"
