"""The whole way in miniature: from renders over every stage to a bundle that the model runs."""

import dataclasses

import numpy as np
import pytest
from typer.testing import CliRunner

from model.animator import Animator
from training.cli import app
from training.recipes import SMOKE, InversionRecipe
from training.stages import MissingStageError, Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    lines = []
    run = Run(SMOKE, folder, lines.append)
    run.all(folder / "bundle")
    return run, folder, lines


@pytest.mark.timeout(600)
def test_the_bundle_runs_without_torch_parts(run):
    _, folder, _ = run
    animator = Animator.from_bundle(folder / "bundle", providers=("cpu",), threads=1)
    picture = np.random.default_rng(0).integers(0, 255, (200, 180, 3), dtype=np.uint8)
    face = animator.invert(picture)
    motion = animator.move(face, "smiling", frames=5, seed=3)
    frames = np.concatenate(list(animator.draw(face, motion)))
    assert frames.shape == (5, 128, 128, 3)
    assert motion.delta_ws.shape == (5, 12, 16)
    assert np.abs(motion.delta_ws[0]).max() == 0
    assert animator.sample_face(1).ws.shape == (12, 16)


def test_the_manifest_tells_how_it_was_made(run):
    _, folder, _ = run
    manifest = Animator.from_bundle(folder / "bundle", providers=("cpu",)).manifest
    assert manifest.made_by["recipe"] == "smoke"
    assert manifest.made_by["steps"] == {"generator": 7, "encoder": 6, "embedding": 6, "inversion": 4, "motion": 6}
    assert set(manifest.parity) == {"text", "image", "encoder", "motion", "mapping", "synthesis", "quality"}
    assert all(entry["max_abs"] <= 1 for entry in manifest.parity.values())
    card = (folder / "bundle" / "README.md").read_text()
    assert "not photographs" in card


def test_a_second_run_skips_what_is_finished(run):
    _, folder, _ = run
    lines = []
    again = Run(SMOKE, folder, lines.append)
    for stage in (again.generator, again.encoder, again.language, again.embedding, again.inversion, again.motion):
        stage()
    assert [line for line in lines if "finished before" in line] == lines
    assert len(lines) == 6


def test_more_steps_go_on_from_the_checkpoint(run):
    _, folder, _ = run
    longer = dataclasses.replace(SMOKE, inversion=InversionRecipe(steps=5, w_steps=2, batch=2, w_batch=4))
    lines = []
    Run(longer, folder, lines.append).inversion()
    assert any("resumed at step 4 of 5" in line for line in lines)


def test_export_refuses_another_text_tower(run):
    _, folder, _ = run
    mark = folder / "motion" / "text.sha256"
    kept = mark.read_text()
    mark.write_text("another")
    with pytest.raises(MissingStageError, match="was not trained with the text tower"):
        Run(SMOKE, folder).export(folder / "other")
    mark.write_text(kept)
    assert not (folder / "other").exists()


def test_a_stage_without_its_predecessor_says_so(tmp_path):
    with pytest.raises(MissingStageError, match="run the renders stage first"):
        Run(SMOKE, tmp_path).generator()
    result = CliRunner().invoke(app, ["motion", "--recipe", "smoke", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "run the encoder stage first" in result.output


def test_unknown_recipes_are_named(tmp_path):
    result = CliRunner().invoke(app, ["all", "--recipe", "cat-9000", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "human-128" in result.output
