"""Weights read back out of the shipped bundle draw, read and move as its graphs do."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model.bundle.reader import read_bundle
from model.sessions import open_graph
from training import language
from training.checkpoints import shipped
from training.cli import app
from training.encoder import Inversion, build_wplus_encoder, judge_factors
from training.errors import CheckpointMismatchError, DataError
from training.export.graphs import MappingGraph, PictureGraph
from training.faces.domains import find_domain
from training.faces.parameters import Z_DIM, encode
from training.generator import build_generator, to_pictures
from training.loop import load_ema
from training.recipes import RECIPES, SMOKE, RendersRecipe
from training.renders import draw_pair
from training.restore import restore_run
from training.stages import Run, take_part

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "bundles" / "human"
RECIPE = RECIPES["human-256"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restored")
    result = CliRunner().invoke(
        app, ["restore", "--recipe", RECIPE.name, "--bundle", str(BUNDLE), "--out", str(folder)]
    )
    assert result.exit_code == 0, result.output
    return Run(RECIPE, folder)


@pytest.fixture(scope="module")
def generator(run):
    generator = build_generator(RECIPE.generator)
    generator.load_state_dict(take_part(load_ema(run.folder / "generator"), "generator"))
    return generator.eval()


def run_graph(name, **inputs):
    return open_graph(read_bundle(BUNDLE).read_graph(name), name).run(**inputs)


@torch.no_grad()
def test_it_draws_what_the_bundle_draws(generator):
    z = np.random.default_rng(0).standard_normal((2, 62)).astype(np.float32)
    ws = run_graph("mapping", z=z, truncation_psi=np.array([0.8], np.float32))["ws"]
    ours = MappingGraph(generator)(torch.from_numpy(z), torch.tensor([0.8])).numpy()
    assert np.abs(ws - ours).max() < 2e-3 * np.abs(ws).max()
    drawn = (generator.synthesis(torch.from_numpy(ws)).clamp(-1, 1) + 1) * 127.5
    frames = run_graph("synthesis", ws=ws)["frames"].astype(float)
    assert np.abs(frames - drawn.permute(0, 2, 3, 1).numpy()).max() <= 1.01


@torch.no_grad()
def test_it_reads_pictures_as_the_bundle_does(run, generator):
    trunk, head = run.load_trunk()
    encoder = build_wplus_encoder(Inversion(trunk, head, generator))
    encoder.load_state_dict(take_part(load_ema(run.folder / "inversion"), "encoder"))
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    # the encoder's own head replaced the reader's, as in export; tower and identity look through the same trunk
    ours = PictureGraph(encoder.eval(), run.load_tower(trunk)).eval()(image)
    theirs = run_graph("encoder", image=image.numpy())
    for name, value in zip(("ws", "image_embed", "identity"), ours, strict=True):
        assert np.abs(theirs[name] - value.numpy()).max() < 2e-3 * np.abs(theirs[name]).max(), name


@torch.no_grad()
def test_its_reader_still_reads_when_training_goes_on(run):
    trunk, head = run.load_trunk()
    faces = [draw_pair(77, index)[0] for index in range(24)]
    pictures = to_pictures(np.stack([find_domain("human").render(face, 128) for face in faces]))
    truth = torch.tensor(np.stack([encode(face) for face in faces]))
    # in training every norm takes the spread of the batch itself
    read = head(trunk.train()(pictures))
    assert judge_factors(read, truth)["r2_expression"] > 0.8


@torch.no_grad()
def test_it_moves_as_the_bundle_does(run, generator):
    rng = np.random.default_rng(2)
    motion = run.load_motion(generator)
    embeds = rng.standard_normal((2, RECIPE.embed_dim)).astype(np.float32)
    text, face = embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
    given = {
        "text_embed": text[None],
        "image_embed": face[None],
        "noise": rng.standard_normal((1, motion.h_dim)).astype(np.float32),
        "intensity": np.ones(1, np.float32),
    }
    progress = np.linspace(0, 1, 17, dtype=np.float32)
    theirs = run_graph("motion", **given, progress=progress)["delta_ws"]
    ours = motion(*(torch.from_numpy(value) for value in given.values()), torch.from_numpy(progress[None]))[0][0]
    assert np.abs(theirs - ours.numpy()).max() < 2e-3 * np.abs(theirs).max()


def test_its_sentences_are_the_bundles(run):
    tower, tokenizer = run.load_text()
    for text in ("he is livid", "smiles with closed eyes"):
        ids = np.array([tokenizer.encode(text).ids])
        theirs = run_graph("text", input_ids=ids, attention_mask=np.ones_like(ids))["text_embed"]
        assert np.abs(language.embed_texts(tower, tokenizer, [text]).numpy() - theirs).max() < 1e-5


def test_its_figures_are_the_cards(run):
    measured = read_bundle(BUNDLE).manifest.made_by["measured"]
    stages = {name: value for name, value in measured.items() if not name.startswith("judge.")}
    assert run.read_figures() == pytest.approx(stages)


def test_a_dry_run_knows_that_its_stages_are_finished(run):
    result = CliRunner().invoke(app, ["all", "--recipe", RECIPE.name, "--out", str(run.folder), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "  motion: finished\n" in result.output


def test_refusals_say_what_is_wrong(run, tmp_path):
    with pytest.raises(DataError, match="holds a run already"):
        restore_run(run, BUNDLE)
    with pytest.raises(DataError, match="of the domain human, dog-256 is of dog"):
        restore_run(Run(RECIPES["dog-256"], tmp_path), BUNDLE)
    with pytest.raises(CheckpointMismatchError, match="here it is"):
        restore_run(Run(SMOKE, tmp_path), BUNDLE)
    assert not list(tmp_path.iterdir())
    result = CliRunner().invoke(app, ["restore", "--recipe", "human-256", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "give --bundle DIR" in result.output


def test_another_domain_starts_from_it(tmp_path, generator):
    recipe = RECIPES["anime-256"]
    assert recipe.starts_from == "human"
    phase = dataclasses.replace(recipe.generator.phases[0], steps=1, batch=2, lr=0.0)
    recipe = dataclasses.replace(
        recipe,
        renders=RendersRecipe(count=8, held_out=4, expressed=44, features=8),
        generator=dataclasses.replace(recipe.generator, phases=(phase,)),
    )
    run = Run(recipe, tmp_path, lambda line: None)
    run.renders()
    run.generator()
    run.language()
    started = build_generator(recipe.generator)
    started.load_state_dict(take_part(load_ema(tmp_path / "generator"), "generator"))
    # anime's is wider: the same pictures come out, from the channels that a human's has
    assert sum(started.synthesis.channels) > sum(generator.synthesis.channels)
    factors = torch.tensor(run.pool().factors[:2])
    with torch.no_grad():
        ours, theirs = started(factors), generator(factors)
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))
    tower, _ = shipped.load_text(BUNDLE)
    assert torch.equal(run.load_text()[0].lift.weight, tower.lift.weight)


def test_channels_that_came_on_top_learn_at_once(generator):
    wide = build_generator(dataclasses.replace(RECIPE.generator, channels=(144, 128, 128, 96, 48, 32, 24)))
    shipped.load_generator(BUNDLE, wide)
    ws = generator.mapping(torch.rand(2, Z_DIM))[:, None].expand(-1, 14, -1)
    target = generator.synthesis(ws).detach()
    assert torch.allclose(wide.synthesis(ws).detach(), target, atol=1e-4 * float(target.abs().max()))
    (wide.synthesis(ws) - target - 0.1).square().mean().backward()
    grown = {
        "const": wide.synthesis.const.grad[:, 128:],
        "first": wide.synthesis.conv1.weight.grad[:128, 128:],
        "between": wide.synthesis.blocks[5].conv0.weight.grad[:16, 24:],
        "torgb": wide.synthesis.blocks[5].torgb.weight.grad[:, 16:],
    }
    # a new channel's own weights move once something reads it: from the second step on
    assert {name: bool(grad.abs().sum() > 0) for name, grad in grown.items()} == {
        "const": False,
        "first": True,
        "between": True,
        "torgb": True,
    }


def test_fewer_channels_than_the_bundle_are_refused():
    narrow = build_generator(dataclasses.replace(RECIPE.generator, channels=(128, 128, 128, 96, 48, 24, 8)))
    with pytest.raises(
        CheckpointMismatchError, match=r"blocks\.5\.conv0\.weight is \[16, 24, 3, 3\], here it is \[8, 24"
    ):
        shipped.load_generator(BUNDLE, narrow)
