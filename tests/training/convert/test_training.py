"""Encoder and motion on other people's networks: trained by the command, remembered, read back by `convert`."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from model.animator import Animator
from tests.training.convert.conftest import name_options
from tests.training.convert.foreign import NARROW, SMALL, write_generator, write_identity
from tests.training.photos.conftest import animato_train, draw_faces, run_command
from training.checkpoints.irse import read_identity
from training.convert.fitting import require_fit, require_whole
from training.convert.inversion import start_body
from training.convert.sources import read_sources
from training.errors import CheckpointMismatchError, DataError
from training.inversion.run import read_encoder_folder
from training.networks.irse import PyramidEncoder

RECIPE = ("--recipe", "checkpoints-smoke")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return draw_faces(tmp_path_factory.mktemp("faces"), count=16, size_px=SMALL.input_px)


@pytest.fixture(scope="module")
def trained(files, faces, tmp_path_factory):
    """The run folder, the parts, and what the command said."""
    parts = dataclasses.replace(files, motion=None)
    folder = tmp_path_factory.mktemp("trained")
    result = animato_train("motion", *RECIPE, *name_options(parts), "--data", faces, "--out", folder)
    assert result.exit_code == 0, result.output
    return folder, parts, result.output


def test_the_command_says_how_to_go_on(trained):
    folder, parts, output = trained
    assert f"animato-train convert --generator {parts.generator}" in output
    assert f"--motion {folder / 'motion'}" in output


def test_convert_takes_what_was_trained(trained):
    folder, parts, _ = trained
    for path in (folder, folder / "motion"):
        found = read_sources(dataclasses.replace(parts, motion=path))
        require_fit(found)
        require_whole(found)
    animation = found.animation
    weights = torch.load(folder / "motion" / "checkpoint.pt", weights_only=True)["modules"]
    trained_bias = weights["motion.cell.a.bias"]
    torch.testing.assert_close(animation.network.cell.a.bias, trained_bias)
    # the towers that were tuned along are served, not those of the folder
    before = found.towers.embed_texts(["she smiles"])
    assert 0 < float((animation.towers.embed_texts(["she smiles"]) - before).abs().max()) < 0.1


def test_a_later_command_needs_not_be_told_again(trained):
    folder, _, _ = trained
    result = animato_train("motion", *RECIPE, "--out", folder)
    assert result.exit_code == 0, result.output
    assert "motion: finished before" in result.output


def test_a_dry_run_reads_everything_and_trains_nothing(files, faces, tmp_path):
    parts = name_options(dataclasses.replace(files, motion=None))
    result = animato_train("motion", *RECIPE, *parts, "--data", faces, "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "64 px with 10 rows of 16" in result.output
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_named(files, faces, tmp_path):
    parts = name_options(dataclasses.replace(files, motion=None, encoder=None))
    result = animato_train("motion", *RECIPE, *parts, "--data", faces, "--out", tmp_path)
    assert result.exit_code == 1
    assert "encoder is missing" in result.stderr
    result = animato_train("motion", *RECIPE, *name_options(files)[:6], "--out", tmp_path)
    assert result.exit_code == 1
    assert "which pictures?" in result.stderr


def test_a_motion_of_other_parts_is_refused(trained, tmp_path):
    folder, parts, _ = trained
    with pytest.raises(DataError, match=r"trained on other parts: give those too \(--clip\)"):
        read_sources(dataclasses.replace(parts, motion=folder, clip=None))
    with pytest.raises(DataError, match="no motion of animato-train"):
        read_sources(dataclasses.replace(parts, motion=tmp_path))
    larger = dataclasses.replace(SMALL, channels=(*SMALL.channels, 4))
    generator = write_generator(tmp_path / "larger.pt", larger)
    with pytest.raises(CheckpointMismatchError, match=r"was trained for other parts .*size mismatch"):
        read_sources(dataclasses.replace(parts, motion=folder, generator=generator))


# --- an encoder for a generator without one -----------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn_faces(tmp_path_factory):
    """Pictures of the generator's own size: an encoder is trained through it."""
    return draw_faces(tmp_path_factory.mktemp("drawn"), count=20, size_px=SMALL.resolution)


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return write_identity(tmp_path_factory.mktemp("identity") / "ir_se50.pth")


@pytest.fixture(scope="module")
def both(files, identity, drawn_faces, tmp_path_factory):
    """A run that trains encoder and motion, and what the command said."""
    parts = name_options(dataclasses.replace(files, encoder=None, motion=None))
    folder = tmp_path_factory.mktemp("both")
    told = (*parts, "--identity", identity, "--data", drawn_faces, "--fit", "crop")
    plan = animato_train("all", *RECIPE, *told, "--out", folder / "run", "--dry-run")
    assert plan.exit_code == 0, plan.output
    assert "inversion: 8 steps to do" in plan.output
    assert "motion: 3 steps to do" in plan.output
    assert not (folder / "run").exists()
    result = animato_train("all", *RECIPE, *told, "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run", result.output


def test_an_encoder_is_trained_and_the_motion_stands_on_it(both, drawn_faces, tmp_path):
    run, output = both
    assert f"give it as --encoder {run / 'inversion'}" in output
    command = output.splitlines()[-1].split("animato-train convert ")[1].split(" --out ")[0].split()
    assert command[2:4] == ["--encoder", str(run / "inversion")]
    result = run_command("convert", *command, "--out", tmp_path / "mine")
    assert result.exit_code == 0, result.output
    assert "an encoder of animato-train (e4e-tiny) of 10 rows at 32 px" in result.output
    # the bundle inverts as the encoder of the run does
    animator = Animator.from_bundle(tmp_path / "mine", providers=("cpu",), threads=1)
    picture = np.asarray(Image.open(sorted(drawn_faces.rglob("*.png"))[0]))
    encoder, _ = read_encoder_folder(run / "inversion")
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        np.testing.assert_allclose(animator.invert(picture).ws, encoder(image)[0].numpy(), atol=5e-3)
    # ir_se50 had its say in both of its parts
    records = [json.loads(line) for line in (run / "inversion" / "stats.jsonl").read_text().splitlines()]
    assert all(record["features"] > 0 and record["identity"] > 0 for record in records)


def test_a_later_command_takes_the_encoder_of_the_run(both):
    run, _ = both
    named = ("--encoder", run / "inversion")  # as the first command said
    for stage, more in (("inversion", ()), ("motion", ()), ("motion", named)):
        result = animato_train(stage, *RECIPE, "--out", run, *more)
        assert result.exit_code == 0, result.output
        assert f"{stage}: finished before" in result.output


def test_what_an_encoder_needs_is_named(files, identity, drawn_faces, faces, tmp_path):
    def refuse(*more):
        result = animato_train("inversion", *RECIPE, *more, "--out", tmp_path / "run")
        assert result.exit_code == 1, result.output
        return " ".join(result.stderr.split())

    generator = ("--generator", files.generator)
    assert "identity is missing: give ir_se50 as --identity" in refuse(*generator, "--data", drawn_faces)
    assert "generator is missing" in refuse("--identity", identity, "--data", drawn_faces)
    assert "leave it out to train one" in refuse(*generator, "--identity", identity, "--encoder", files.encoder)
    assert "draws 64×64" in refuse(*generator, "--identity", identity, "--data", faces)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="no encoder of animato-train"):
        read_sources(dataclasses.replace(files, encoder=tmp_path))


def test_the_body_begins_as_ir_se50s(identity):
    network = read_identity(identity)
    encoder = PyramidEncoder(10, 16, 32, NARROW)
    assert start_body(encoder, network)
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(encoder.eval().describe(pictures), network.describe(pictures), strict=True):
        assert torch.equal(ours, theirs)
    assert not start_body(PyramidEncoder(10, 16, 32, (8, 8, 12, 16), (1, 1, 1, 1)), network)
