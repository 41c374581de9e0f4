"""What a picture set says about its pictures, its parts, its fingerprint, and the tower that learns from it."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from training.errors import DataError
from training.photos.captions import Captions, phrase, read_captions
from training.photos.pictures import Subset, fingerprint, open_set, split_set
from training.photos.tower import CaptionStage
from training.recipes.photos import TowerRecipe


def test_folders_are_labels(faces):
    captions = read_captions(open_set(faces, 32))
    assert len(captions.texts) == 4
    assert sorted(np.bincount(captions.labels)) == [16, 16, 16, 16]
    assert all(len(texts) > 20 for texts in captions.texts)
    assert phrase("wearing_a hat") == ("The person is wearing a hat.", "wearing a hat")


def test_a_zip_says_the_same(faces, tmp_path):
    path = tmp_path / "faces.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in faces.rglob("*.png"):
            archive.write(file, file.relative_to(faces))
    captions = read_captions(open_set(path, 32))
    np.testing.assert_array_equal(captions.labels, read_captions(open_set(faces, 32)).labels)


@pytest.fixture
def flat(faces, tmp_path):
    for number, file in enumerate(sorted(faces.rglob("*.png"))[:8]):
        shutil.copy(file, tmp_path / f"{number}.png")
    return tmp_path


def test_captions_json_is_read(flat):
    said = {f"{i}.png": "She smiles." if i % 2 else ["He winks.", "winking"] for i in range(8)}
    (flat / "captions.json").write_text(json.dumps(said))
    captions = read_captions(open_set(flat, 32))
    assert captions.texts == (("He winks.", "winking"), ("She smiles.",))
    assert captions.labels.tolist() == [0, 1] * 4


def test_a_set_without_words_says_nothing(flat):
    assert read_captions(open_set(flat, 32)) is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("[1, 2]", "not of the form"),
        ('{"0.png": 7}', "no sentence"),
        ('{"0.png": "a"}', r"says nothing of 1.png \(7 are missing\)"),
        (json.dumps({f"{i}.png": "a face" for i in range(8)}), "says the same of every picture"),
    ],
)
def test_bad_captions_are_refused(flat, said, words):
    (flat / "captions.json").write_text(said)
    with pytest.raises(DataError, match=words):
        read_captions(open_set(flat, 32))


def test_a_split_keeps_pictures_apart(faces):
    kept, held = split_set(open_set(faces, 32), 8)
    assert len(held) == 6  # a tenth at most
    assert not set(kept.rows) & set(held.rows)
    assert len(kept) + len(held) == 64


def test_a_fingerprint_tells_one_pixel(flat):
    before = fingerprint(open_set(flat, 32))
    assert before == fingerprint(open_set(flat, 32))
    pixels = np.asarray(Image.open(flat / "3.png")).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(flat / "3.png")
    assert before != fingerprint(open_set(flat, 32))


class Colours:
    """Pictures that are darker or lighter, by label."""

    name, resolution, label_dim = "colours", 32, 0

    def __len__(self):
        return 40

    def read(self, index):
        rng = np.random.default_rng(index)
        return rng.integers(0, 90, (32, 32, 3), dtype=np.uint8) + np.uint8(120 * (index % 2))

    def label(self, index):
        return np.zeros(0, np.float32)


def test_the_tower_learns_what_captions_tell_apart():
    captions = Captions((("dark",), ("light",)), np.arange(40) % 2)
    recipe = TowerRecipe(widths=(4, 6, 6, 8, 8), feature_dim=16, steps=32, batch=8, lr=6e-3, ema_decay=0.5)
    embeds = {"dark": torch.eye(8)[:1], "light": torch.eye(8)[1:2]}
    pictures = Colours()
    stage = CaptionStage(
        recipe, Subset(pictures, range(30)), Subset(pictures, range(30, 40)), captions, lambda t: embeds[t[0]]
    )
    losses = []
    for step in range(recipe.steps):
        loss, _ = stage.loss(step)
        losses.append(float(loss.detach()))
        stage.optimizers[0].zero_grad()
        loss.backward()
        stage.optimizers[0].step()
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert stage.evaluate(stage.modules.eval())["top1"] == 1.0
