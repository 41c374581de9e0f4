"""The motion on top of other people's networks: trained by the command, remembered, read back by `convert`."""

import dataclasses

import pytest
import torch

from tests.training.convert.conftest import name_options
from tests.training.convert.foreign import SMALL, write_generator
from tests.training.photos.conftest import animato_train, draw_faces
from training.convert.fitting import require_fit, require_whole
from training.convert.sources import read_sources
from training.errors import CheckpointMismatchError, DataError

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
