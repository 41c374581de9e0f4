"""Every stage that can train on a GPU trains on a device that is not the CPU, in lower precision as it would there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.train import build_subjects, plainly
from tests.training.baselines.test_rivals import PICTURE, write_base
from tests.training.checkpoints.test_clip import _save as save_tiny_clip
from tests.training.convert.conftest import name_options
from tests.training.convert.foreign import SMALL, write_generator, write_identity
from tests.training.photos.conftest import draw_faces, run_command, save_small_text
from training.adversarial.run import train_gan
from training.baselines.rivals import open_rivals
from training.baselines.runs import Comparison
from training.convert.sources import Sources
from training.inversion.run import load_encoder, measure_inversion, parts_of_gan
from training.metrics.features import FeatureNetwork
from training.photos.pictures import open_set
from training.recipes import SMOKE, InversionRecipe
from training.recipes.adversarial import GAN_SMOKE
from training.recipes.baselines import MAPPER_SMOKE, MOCOGAN_HD_SMOKE
from training.recipes.inversion import TINY
from training.recipes.paper import PAPER_SMOKE, PaperWeights
from training.recipes.photos import PHOTO_RECIPES
from training.stages import Run

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_faces(tmp_path_factory.mktemp("faces"))


def test_a_rendered_domain(device: torch.device, where_trained: dict[str, str], tmp_path: Path) -> None:
    run = Run(SMOKE, tmp_path, lambda _: None, device)
    for stage in (run.renders, run.generator, run.encoder, run.inversion):  # the others draw nothing and stay here
        stage()
    assert where_trained == dict.fromkeys(("generator", "encoder", "inversion"), device.type)
    longer = dataclasses.replace(SMOKE, inversion=InversionRecipe(steps=5, w_steps=2, batch=2, w_batch=4))
    lines: list[str] = []
    Run(longer, tmp_path, lines.append, device).inversion()
    assert any("resumed at step 4 of 5" in line for line in lines)


def test_own_pictures(device: torch.device, where_trained: dict[str, str], faces: Path, tmp_path: Path) -> None:
    text = save_small_text(tmp_path / "text")
    options = ("--recipe", "own-faces-smoke", "--data", faces, "--text", text, "--out", tmp_path / "run")
    result = run_command("all", *options, "--device", device)
    assert result.exit_code == 0, result.output
    assert where_trained == dict.fromkeys(("gan", "embedding", "pyramid", "motion"), device.type)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["device"].startswith(device.type)
    assert (tmp_path / "run" / "bundle" / "manifest.json").exists()
    parts = parts_of_gan(tmp_path / "run", device)
    recipe = dataclasses.replace(TINY, held_out=2, refinement=dataclasses.replace(TINY.refinement, steps=2))
    encoder = load_encoder(PHOTO_RECIPES["own-faces-smoke"].inversion, parts, tmp_path / "run" / "inversion")
    figures = measure_inversion(encoder, parts, open_set(faces, 32, "refuse"), recipe)
    assert figures["refined"]["psnr_db"] >= figures["encoder"]["psnr_db"] > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_adversarial_with_augmentation(
    device: torch.device, where_trained: dict[str, str], faces: Path, tmp_path: Path, precision: str
) -> None:
    recipe = dataclasses.replace(GAN_SMOKE, kimg=0.032, precision=precision, augment_p=0.8, augment_target=0.0)
    means = FeatureNetwork("means", lambda pictures: pictures.mean(3).flatten(1)[:, :6])
    train_gan(recipe, faces, tmp_path, device=device, features=lambda _: means, report=lambda _: None)
    assert where_trained == {"gan": device.type}


def test_published_networks(device: torch.device, where_trained: dict[str, str], tmp_path: Path) -> None:
    faces = draw_faces(tmp_path / "faces", count=20, size_px=SMALL.resolution)
    parts = Sources(write_generator(tmp_path / "generator.pt", SMALL), None, save_tiny_clip(tmp_path / "clip"), None)
    identity = ("--identity", write_identity(tmp_path / "ir_se50.pth"))
    options = ("--recipe", "checkpoints-smoke", "--data", faces, "--fit", "crop", "--out", tmp_path / "run")
    result = run_command("all", *options, "--device", device, *name_options(parts), *identity)
    assert result.exit_code == 0, result.output
    assert where_trained == dict.fromkeys(("inversion", "motion"), device.type)


def test_rivals(device: torch.device, where_trained: dict[str, str], tmp_path: Path) -> None:
    comparison = Comparison(write_base(tmp_path / "smoke"), tmp_path / "compare", device, lambda _: None)
    every = PaperWeights(adversarial=0.5, l1=0.1, l2=0.1)
    comparison.train("paper", dataclasses.replace(PAPER_SMOKE, steps=1, weights=every))
    comparison.train("interpolation-mapper", dataclasses.replace(MAPPER_SMOKE, steps=1))
    comparison.train("mocogan-hd", dataclasses.replace(MOCOGAN_HD_SMOKE, steps=1, videos=2))
    assert set(where_trained.values()) == {device.type}
    assert len(where_trained) == 3
    for rival in open_rivals(comparison.folder, device):
        moved = rival.move(PICTURE, "The person is smiling.", 3, 1)
        assert isinstance(moved, np.ndarray), rival.name
        assert np.abs(moved[-1]).max() > 0, rival.name


def test_what_the_benchmark_times(device: torch.device) -> None:
    names = []
    for subject in build_subjects(device):
        subject.act()
        if subject.compared_with:
            with plainly(subject.stage):
                subject.act()
        names.append(subject.name)
    assert len(names) >= 8
