"""The chain with CLIP in place of captions: motion and bundle, served with CLIP's own tokenizer."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from model.animator import Animator
from tests.training.checkpoints.openai_files import make_clip, publish, write_merges
from tests.training.checkpoints.test_clip import _save as save_tiny_clip
from tests.training.photos.conftest import animato_train
from training.checkpoints.clip import load_clip
from training.photos.run import PhotoRun
from training.recipes.photos import PHOTO_RECIPES

SMOKE = ("--recipe", "own-faces-smoke")


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """A run with CLIP: generator and encoder as they are, motion and bundle anew."""
    base = tmp_path_factory.mktemp("clip")
    run, clip = shutil.copytree(finished[0], base / "run"), save_tiny_clip(base / "weights")
    shutil.rmtree(run / "motion")
    for stage in ("motion", "export"):
        result = animato_train(stage, *SMOKE, "--out", run, "--clip", clip, "--bundle", base / "clip-faces")
        assert result.exit_code == 0, result.output
    return run, clip, base / "clip-faces"


def test_the_bundle_animates_with_clip(exported, faces):
    run, clip, bundle = exported
    animator = Animator.from_bundle(bundle, providers=("cpu",), threads=1)
    assert animator.manifest.embed_dim == 16
    assert animator.manifest.max_tokens == 32
    assert animator.manifest.made_by["towers"] == "CLIP"
    picture = np.asarray(Image.open(sorted(faces.rglob("*.png"))[0]))
    frames = np.concatenate(list(animator.animate(picture, "she smiles", 4, 1)))
    assert frames.shape == (4, 32, 32, 3)
    # what is served is the tower that the motion was trained with, tuned or not
    photos = PhotoRun(PHOTO_RECIPES["own-faces-smoke"], run, None, clip=clip)
    tuned = photos.load_motion(photos.frozen_parts()).towers
    face = animator.invert(picture)
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        np.testing.assert_allclose(face.image_embed, tuned.embed_images(image)[0].numpy(), atol=5e-3)
        difference = tuned.embed_texts(["smiling"]) - load_clip(clip).embed_texts(["smiling"])
    assert 0 < float(difference.abs().max()) < 0.1


def test_openais_own_file_does_as_well(faces, tmp_path):
    write_merges(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    torch.save(publish(make_clip()), tmp_path / "ViT-B-32.pt")
    more = ("--data", faces, "--out", tmp_path / "run", "--dry-run")
    result = animato_train("all", *SMOKE, "--clip", tmp_path / "ViT-B-32.pt", *more)
    assert result.exit_code == 0, result.output
    assert "sentences and pictures meet in the CLIP of" in result.output
    torch.save({"no": torch.zeros(1)}, tmp_path / "other.pt")
    refused = animato_train("all", *SMOKE, "--clip", tmp_path / "other.pt", *more)
    assert refused.exit_code == 1
    assert "other.pt" in refused.stderr


def test_a_folder_that_is_no_clip_is_named(finished, faces, tmp_path):
    for stage in ("motion", "all"):
        more = ("--dry-run",) if stage == "all" else ()
        result = animato_train(stage, *SMOKE, "--data", faces, "--out", tmp_path / "run", "--clip", tmp_path, *more)
        assert result.exit_code == 1
        assert "run" in result.stderr if stage == "motion" else "config.json" in result.stderr
