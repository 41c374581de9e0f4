"""Foreign checkpoints become a bundle by one command: it draws the very same pictures, and a worker makes its video."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from model.animator import Animator
from services.jobs.contract import AnimationOptions
from tests.training.convert.foreign import SMALL
from training.checkpoints.encoders import read_encoder
from training.checkpoints.generators import read_generator
from training.checkpoints.official_motion import read_motion
from training.convert.sources import fingerprint
from training.export.bundle import ParityError
from training.photos import export as photo_export
from training.photos.export import Export, export_synthesis
from worker.animation import make_video
from worker.events import Order


@pytest.fixture(scope="module")
def animator(bundle) -> Animator:
    return Animator.from_bundle(bundle, providers=("cpu",), threads=1)


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "face.png"
    rng = np.random.default_rng(3)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).resize((96, 96)).save(path)
    return path


def to_frames(pictures: torch.Tensor) -> np.ndarray:
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()


def test_the_worker_makes_its_video(animator, bundle, picture, tmp_path):
    options = AnimationOptions.model_validate({"prompt": "she smiles", "frames": 9, "align": "none"})
    emitted = []
    done = make_video(animator, Order("anm_1", bundle, picture, options, 7, tmp_path), emitted.append, lambda: None)
    assert (done.video.width, done.video.height, done.video.frames) == (64, 64, 9)
    film = cv2.VideoCapture(str(done.video.path))
    frames = []
    while (read := film.read())[0]:
        frames.append(read[1])
    assert len(frames) == 9
    assert np.abs(frames[8].astype(int) - frames[0]).mean() > 2, "the face must move"
    assert emitted
    assert -1 <= done.quality["identity"] < 0.9999, "ir_se50 tells two frames apart"


def test_pictures_are_the_checkpoints_own(animator, files):
    generator = read_generator(files.generator).generator
    face = animator.sample_face(5, truncation_psi=0.6)
    with torch.no_grad():
        wanted = to_frames(generator.synthesis(torch.from_numpy(face.ws)[None]))
    drawn = np.concatenate(list(animator.draw(face, animator.move(face, "a smile", 1, 0))))
    assert np.abs(drawn.astype(float) - wanted).max() <= 1
    z = np.random.default_rng(1).standard_normal((3, SMALL.w_dim), dtype=np.float32)
    given = animator._sessions["mapping"].run(z=z, truncation_psi=np.array([0.7], np.float32))["ws"]
    with torch.no_grad():
        np.testing.assert_allclose(given, generator.mapping(torch.from_numpy(z), None, 0.7).numpy(), atol=1e-4)


def test_ws_and_motion_are_the_checkpoints_own(animator, files, picture):
    encoder, motion = read_encoder(files.encoder).encoder, read_motion(files.motion, SMALL.w_dim)
    face = animator.invert(np.asarray(Image.open(picture)))
    assert face.crop.shape == (SMALL.input_px, SMALL.input_px, 3)
    image = torch.from_numpy(face.crop.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        wanted = encoder(image)[0].numpy()
    np.testing.assert_allclose(face.ws, wanted, atol=1e-3 * np.abs(wanted).max())
    # the last frame is the published one at 16 frames, all but the small random start of the recurrence
    moved = animator.move(face, "she smiles", 16, seed=0).delta_ws[-1]
    text = animator._text.embed("she smiles")
    z_0 = torch.from_numpy(text + face.image_embed)[None]
    with torch.no_grad():
        _, delta_ws = motion.network(z_0, torch.zeros(1, SMALL.h_dim), 16, "linear")
        published = (delta_ws[0, -1] + motion.network.residual(torch.from_numpy(face.image_embed)[None])[0]).numpy()
    assert np.abs(moved - published).max() < 0.1 * np.abs(published).max()


def test_the_manifest_says_what_it_was_made_from(bundle, files):
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (manifest["id"], manifest["kind"], manifest["license"]) == ("small_faces", "photo", "CC0-1.0")
    assert (manifest["resolution"], manifest["input_resolution"], manifest["num_ws"]) == (64, 32, 10)
    assert manifest["motion_steps"] == 15
    sources = manifest["made_by"]["sources"]
    assert {part: told["format"] for part, told in sources.items()} == {
        "generator": "stylegan2-pytorch",
        "encoder": "e4e",
        "clip": "clip-huggingface",
        "motion": "motion-official",
        "identity": "ir-se50",
    }
    assert manifest["detector"] == "faces.npz"
    assert sources["generator"]["sha256"] == fingerprint(files.generator)
    assert sources["generator"]["file"] == "generator.pt"  # not where it lay on somebody's machine
    assert set(manifest["parity"]) == {"text", "image", "encoder", "motion", "mapping", "synthesis", "quality"}
    assert manifest["parity"]["synthesis"]["max_abs"] <= 1
    assert not any("halved_max_abs" in entry for entry in manifest["parity"].values()), "weights are kept whole"
    card = (bundle / "README.md").read_text()
    assert "Nobody's face" in card
    assert str(files.generator.parent) not in card


def test_float16_is_measured_and_refused_where_it_shows(files, bundle, tmp_path, monkeypatch):
    generator = read_generator(files.generator).generator
    with torch.no_grad():
        ws = generator.mapping(torch.randn(2, SMALL.w_dim, generator=torch.Generator().manual_seed(4))).contiguous()
        export = Export(tmp_path, "fp16")
        export_synthesis(generator, export, ws)
        assert export.parity["synthesis"]["psnr_db"] > 40
        assert export.files["synthesis.onnx"].stat().st_size < (bundle / "synthesis.onnx").stat().st_size
        monkeypatch.setattr(photo_export, "LEAST_PSNR_DB", 200.0)
        with pytest.raises(ParityError, match=r"in float16 .* dB .*--precision fp32"):
            export_synthesis(generator, export, ws)
