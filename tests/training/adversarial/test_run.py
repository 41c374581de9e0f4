import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from training.adversarial.command import app
from training.adversarial.pictures import PoolPictures
from training.adversarial.run import load_gan, train_gan
from training.adversarial.snapshots import tile_pictures
from training.metrics.features import FeatureNetwork
from training.recipes.adversarial import GAN_SMOKE
from training.tensorboard import EventFile, crc32c, frame_record, mask_crc

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def run_module(*arguments, processes):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [sys.executable, *launch, "-m", "training.adversarial", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=570,
        check=False,
    )


@pytest.mark.timeout(600)  # three interpreters import torch
def test_two_processes_compute_what_one_does(faces, tmp_path):
    common = ("--data", faces, "--recipe", "gan-smoke", "--precision", "float64", "--kimg", "0.024", "--device", "cpu")
    one = CliRunner().invoke(app, [*map(str, common), "--out", str(tmp_path / "one")])
    assert one.exit_code == 0, one.output
    two = run_module(*common, "--out", tmp_path / "two", processes=2)
    assert two.returncode == 0, two.stderr
    assert "1 process(es), 2 micro-batch(es) of 4 each" in one.output
    assert "2 process(es), 1 micro-batch(es) of 4 each" in two.stdout
    assert two.stdout.count("gan: 3/3") == 1  # only the first one speaks
    logged = [
        [json.loads(line) for line in (tmp_path / name / "gan" / "stats.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(logged[0]) == len(logged[1]) > 0
    for first, second in zip(*logged, strict=True):
        for name in ("loss", "generator", "discriminator", "score_real", "r1", "path_length", "augment_p"):
            assert second[name] == pytest.approx(first[name], rel=1e-9, abs=1e-12), name
    (alone, _), (shared, _) = (load_gan(tmp_path / name) for name in ("one", "two"))
    for (name, value), other in zip(alone.state_dict().items(), shared.state_dict().values(), strict=True):
        assert torch.allclose(value, other, rtol=1e-5, atol=1e-7), name


def test_a_run_leaves_pictures_weights_and_figures(faces, tmp_path):
    lines = []
    features = FeatureNetwork("means", lambda pictures: pictures.mean(3).flatten(1)[:, :6])
    generator = train_gan(
        GAN_SMOKE, faces, tmp_path, device=CPU, features=lambda _: features, log_every=2, report=lines.append
    )
    folder = tmp_path / "gan"
    snapshots = folder / "snapshots"
    assert sorted(path.name for path in snapshots.iterdir()) == [
        "best.json",
        "pictures-00000004.png",
        "pictures-00000008.png",
        "reals.png",
        "weights-00000004.pt",
        "weights-00000008.pt",
    ]
    with Image.open(snapshots / "pictures-00000008.png") as grid:
        assert grid.size == (4 * 32, 2 * 32)
    records = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 4, 6, 8]
    fids = {record["step"]: record["held_fid"] for record in records if "held_fid" in record}
    assert list(fids) == [4, 8]
    best = json.loads((snapshots / "best.json").read_text())
    assert best["fid"] == min(fids.values())
    kept = torch.load(snapshots / "weights-00000008.pt", weights_only=True)
    assert kept["recipe"]["name"] == "gan-smoke"
    loaded, recipe = load_gan(tmp_path)
    assert recipe == GAN_SMOKE
    z = torch.randn(2, 16)
    assert torch.allclose(loaded(z, noise_mode="const"), generator(z, noise_mode="const"), atol=1e-5)
    assert all(torch.equal(kept["generator"][name], value) for name, value in loaded.state_dict().items())
    options = json.loads((folder / "options.json").read_text())
    assert options["features"] == "means"
    assert options["pictures"] == 12
    assert any("8/8" in line and "left" in line for line in lines)
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_another_runs_weights_can_be_the_start(faces, tmp_path):
    import dataclasses

    short = dataclasses.replace(GAN_SMOKE, kimg=0.008, measured=0)
    train_gan(short, faces, tmp_path / "first", device=CPU, report=lambda _: None)
    still = dataclasses.replace(short, seed=5, lr_generator=0.0, lr_discriminator=0.0, ema_kimg=1e-9)
    train_gan(still, faces, tmp_path / "second", device=CPU, start=tmp_path / "first", report=lambda _: None)
    states = [
        torch.load(tmp_path / name / "gan" / "checkpoint.pt", weights_only=True)["modules"]
        for name in ("first", "second")
    ]
    for name, value in states[0].items():
        if not name.endswith("w_avg"):
            assert torch.equal(states[1][name], value), name


def test_the_command_refuses_in_sentences_and_dry_runs(faces, tmp_path):
    runner = CliRunner()
    done = runner.invoke(app, ["--data", str(faces), "--recipe", "gan-smoke", "--out", str(tmp_path), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "8 steps of 8 pictures (0.064 kimg)" in done.output
    assert not list(tmp_path.iterdir())
    bad = runner.invoke(app, ["--data", str(faces), "--recipe", "own-faces-64", "--out", str(tmp_path)])
    assert bad.exit_code == 1
    assert "pictures are 32×32 px and the recipe draws 64×64" in bad.output
    bad = runner.invoke(
        app, ["--data", str(faces), "--recipe", "gan-smoke", "--inception", "none.pt", "--out", str(tmp_path)]
    )
    assert bad.exit_code == 1
    assert "none.pt does not exist; wanted is the TorchScript file" in bad.output
    assert runner.invoke(app, ["--data", str(faces), "--recipe", "none"]).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_an_unfinished_pool_and_too_few_pictures_are_refused(tmp_path):
    few = PoolPictures(np.zeros((5, 32, 32, 3), np.uint8))
    with pytest.raises(RuntimeError, match="holds 5 pictures, fewer than one batch of 8"):
        train_gan(GAN_SMOKE, few, tmp_path, device=CPU)


def test_grids_lay_pictures_out_in_order():
    pictures = np.stack([np.full((2, 2, 3), number, np.uint8) for number in range(1, 8)])
    sheet = tile_pictures(pictures)
    assert sheet.shape == (4, 8, 3)
    assert sheet[::2, ::2, 0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 0]]


def read_records(data):
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == mask_crc(crc32c(data[:8]))
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == mask_crc(crc32c(body))
        yield body
        data = data[16 + length :]


def test_event_files_hold_framed_records(tmp_path):
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    events = EventFile(tmp_path)
    events.add({"step": 300, "loss": 0.5, "lr": float("nan")})
    version, event = read_records(events.path.read_bytes())
    assert version[9:] == b"\x1a\x0dbrain.Event:2"
    # step 300 as varint, then a summary of one value: tag "loss", simple_value 0.5
    assert event[9:] == b"\x10\xac\x02" + b"\x2a\x0d" + b"\x0a\x0b" + b"\x0a\x04loss" + b"\x15\x00\x00\x00\x3f"
    assert frame_record(b"").startswith(bytes(8))
