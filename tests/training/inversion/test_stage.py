"""The whole way on a small random generator: training lowers the loss, resume is exact, refinement helps."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training.adversarial.pictures import PoolPictures
from training.adversarial.run import train_gan
from training.devices import CPU
from training.errors import CheckpointMismatchError, DataError, DivergedError
from training.inversion.features import describe_by_discriminator
from training.inversion.figures import measure_reconstruction
from training.inversion.parts import InversionParts, parts_of_generator, parts_of_rendered
from training.inversion.refine import rate_factor, refine_ws
from training.inversion.run import load_encoder, measure_inversion, parts_of_gan, refine, train_encoder
from training.inversion.stage import EncoderStage, to_pictures
from training.networks.stylegan2 import (
    FactorFeatures,
    FactorMapping,
    Generator,
    SynthesisNetwork,
    build_discriminator,
    build_z_generator,
)
from training.recipes.adversarial import GAN_SMOKE
from training.recipes.inversion import TINY, InversionWeights

SIZE, CHANNELS = 32, (8, 8, 8, 6)


def make_parts(**options) -> InversionParts:
    torch.manual_seed(0)
    generator = build_z_generator(SIZE, CHANNELS, z_dim=8, w_dim=8, mapping_layers=2)
    with torch.no_grad():
        for layer in generator.modules():
            if hasattr(layer, "noise_strength"):
                layer.noise_strength.fill_(0.05)
    options.setdefault("describe", describe_by_discriminator(build_discriminator(SIZE, CHANNELS)))
    return parts_of_generator(generator, **options)


@torch.no_grad()
def draw_set(parts: InversionParts, count: int, seed: int, name: str = "drawn") -> PoolPictures:
    """Pictures that the generator can draw, so that inversion has an answer."""
    w = parts.sample_w(count, np.random.default_rng(seed))
    drawn = parts.draw(w[:, None].expand(-1, parts.synthesis.num_ws, -1))
    return PoolPictures(((drawn.clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy(), name)


@pytest.fixture(scope="module")
def parts() -> InversionParts:
    return make_parts(identity=lambda pictures: torch.nn.functional.normalize(pictures.mean((2, 3)), dim=1))


@pytest.fixture(scope="module")
def trained(parts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pyramid")
    train_encoder(TINY, parts, draw_set(parts, 16, 1), draw_set(parts, 4, 2), folder, report=lambda _: None)
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {**state["modules"], **{f"ema.{name}": value for name, value in state["ema"].items()}}


def test_training_lowers_the_loss(parts):
    recipe = dataclasses.replace(TINY, steps=40, unlock_from=15, unlock_every=3, lr=4e-3)
    stage = EncoderStage(recipe, parts, draw_set(parts, 8, 1), draw_set(parts, 4, 2))
    figures = [stage.advance(step) for step in range(recipe.steps)]
    first, last = (np.mean([f["l2"] for f in part]) for part in (figures[:5], figures[-5:]))
    assert last < 0.6 * first
    assert [f["unlocked"] for f in figures[13:20]] == [0, 0, 1, 1, 1, 2, 2]
    assert figures[-1]["unlocked"] == parts.synthesis.num_ws - 1
    assert {"features", "identity", "delta", "latent", "latent_discriminator"} <= set(figures[-1])
    assert "delta" not in figures[0]


def test_a_cut_run_equals_a_whole_one(parts, trained, tmp_path):
    pictures, held = draw_set(parts, 16, 1), draw_set(parts, 4, 2)
    half = dataclasses.replace(TINY, steps=4)
    train_encoder(half, parts, pictures, held, tmp_path, report=lambda _: None)
    torch.manual_seed(99)
    train_encoder(TINY, parts, pictures, held, tmp_path, report=lambda _: None)
    whole, cut = weights_of(trained), weights_of(tmp_path)
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name


def test_run_folder_tells_how_it_went(trained):
    assert json.loads((trained / "options.json").read_text())["network"]["input_size"] == 32
    records = [json.loads(line) for line in (trained / "stats.jsonl").read_text().splitlines()]
    assert {"held_psnr_db", "held_ms_ssim", "held_feature_distance", "held_identity"} <= set(records[-1])


def test_refinement_raises_psnr(parts, trained, tmp_path):
    encoder = load_encoder(TINY, parts, trained)
    found = measure_inversion(encoder, parts, draw_set(parts, 4, 2), TINY, tmp_path / "reconstruction.json")
    assert found["refined"]["psnr_db"] > found["encoder"]["psnr_db"] + 3
    assert found["refined"]["feature_distance"] < found["encoder"]["feature_distance"]
    assert json.loads((tmp_path / "reconstruction.json").read_text()) == found


def test_unlocked_rows_come_back_with_the_weights(parts, trained):
    encoder = load_encoder(TINY, parts, trained)
    assert int(encoder.unlocked_rows) == 3  # steps 2, 4 and 6 unlocked one each
    ws = encoder(torch.zeros(1, 3, SIZE, SIZE)) - encoder.w_avg
    assert not torch.equal(ws[:, 3], ws[:, 0])
    assert torch.equal(ws[:, 4], ws[:, 0])
    torch.testing.assert_close(encoder.w_avg[0], parts.w_avg)


def test_refinement_of_a_batch_is_that_of_its_pictures(parts):
    truth = to_pictures(draw_set(parts, 2, 3).pictures, parts.device)
    start = parts.w_avg.expand(2, parts.synthesis.num_ws, -1)
    options = {"w_scale": parts.w_scale, "describe": parts.describe}
    together = refine_ws(parts, start, truth, 6, **options)
    alone = refine_ws(parts, start[1:], truth[1:], 6, **options)
    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-4)


def test_refinement_never_ends_worse_and_may_stay(parts):
    truth = to_pictures(draw_set(parts, 1, 3).pictures, parts.device)
    start = parts.w_avg.expand(1, parts.synthesis.num_ws, -1)
    wild = refine_ws(parts, start, truth, 3, lr=1e4)  # every step leads astray
    assert torch.equal(wild, start)
    near = refine_ws(parts, start, truth, 20, w_norm_weight=0.0)
    held = refine_ws(parts, start, truth, 20, w_norm_weight=10.0)
    assert 0 < (held - start).norm() < (near - start).norm()


def test_rate_rises_and_falls():
    factors = [rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors.index(max(factors)) in (9, 10)
    assert factors[0] == pytest.approx(0.1, abs=0.01)
    assert factors[-1] < 0.001


def test_a_rendered_generator_is_inverted_too():
    torch.manual_seed(0)
    lows, highs = -torch.ones(6), torch.ones(6)
    mapping = FactorMapping(FactorFeatures(lows, highs, 4, 3), 8, hidden=10)
    generator = Generator(mapping, SynthesisNetwork(SIZE, 8, CHANNELS))
    people = np.random.default_rng(0).standard_normal((50, 9)).astype(np.float32)
    describe = make_parts().describe
    parts = parts_of_rendered(generator, people, describe, None)
    assert parts.w_scale > 0
    recipe = dataclasses.replace(TINY, steps=2, weights=InversionWeights(w_norm=0.1))
    stage = EncoderStage(recipe, parts, draw_set(parts, 8, 1), draw_set(parts, 4, 2))
    figures = stage.advance(0)
    assert "identity" not in figures
    assert figures["w_norm"] > 0
    ws = refine_ws(generator, stage.encoder(stage.held_pictures), stage.held_pictures, 5, w_scale=parts.w_scale)
    assert ws.shape == (4, generator.synthesis.num_ws, 8)


def test_an_adversarial_runs_generator_is_inverted(tmp_path):
    recipe = dataclasses.replace(GAN_SMOKE, kimg=0.016, measured=0)
    pictures = draw_set(make_parts(), 16, 1)
    generator = train_gan(recipe, pictures, tmp_path, device=CPU, threads=0, report=lambda _: None)
    parts = parts_of_gan(tmp_path)
    ws = parts.w_avg.expand(2, parts.synthesis.num_ws, -1)
    assert generator is not None
    torch.testing.assert_close(parts.draw(ws), generator.synthesis(ws))
    encoder = train_encoder(
        dataclasses.replace(TINY, steps=2), parts, pictures, pictures, tmp_path / "pyramid", report=lambda _: None
    )
    truth = to_pictures(pictures.pictures[:2], CPU)
    start = encoder(truth)
    refined = refine(parts, start, truth, dataclasses.replace(TINY.refinement, steps=10))
    before, after = (measure_reconstruction(parts.draw(ws), truth, parts.describe) for ws in (start, refined))
    assert (after["psnr_db"] > before["psnr_db"] + 1).all()
    with pytest.raises(DataError, match="no trained generator"):
        parts_of_gan(tmp_path / "elsewhere")


def test_half_precision_trains(parts):
    recipe = dataclasses.replace(TINY, half=True)
    stage = EncoderStage(recipe, parts, draw_set(parts, 8, 1), draw_set(parts, 4, 2))
    assert np.isfinite(list(stage.advance(4).values())).all()


def test_every_picture_comes_as_it_is_and_mirrored_in_two_rounds(parts):
    pictures = draw_set(parts, 8, 1)
    stage = EncoderStage(TINY, parts, pictures, pictures)
    seen = torch.cat([stage._read(step) for step in range(4)])  # 16 of 8 pictures
    plain = to_pictures(pictures.pictures, parts.device)
    for wanted in (*plain, *plain.flip(3)):
        assert sum(torch.equal(picture, wanted) for picture in seen) == 1


def test_the_judges_gradient_is_held_down_every_few_steps(parts):
    pictures = draw_set(parts, 8, 1)
    weights = []
    for gamma in (0.0, 100.0):
        stage = EncoderStage(dataclasses.replace(TINY, r1_gamma=gamma), parts, pictures, pictures)
        for step in (1, 2):  # r1_every is 2
            stage.advance(step)
            weights.append(stage.judge.out.weight.detach().clone())
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[1], weights[3])


def test_figures_of_equal_pictures(parts):
    truth = to_pictures(draw_set(parts, 2, 3).pictures, parts.device)
    figures = measure_reconstruction(truth, truth, parts.describe, parts.identity)
    assert figures["psnr_db"].min() > 90
    assert figures["ms_ssim"].tolist() == pytest.approx([1.0, 1.0])
    assert figures["identity"].tolist() == pytest.approx([1.0, 1.0])
    assert figures["feature_distance"].tolist() == [0.0, 0.0]


def test_bad_input_is_told(parts, trained, tmp_path):
    small = PoolPictures(np.zeros((4, 16, 16, 3), np.uint8), "faces")
    with pytest.raises(DataError, match=r"faces: pictures are 16 px, and the generator draws 32 px"):
        EncoderStage(TINY, parts, small, small)
    other = dataclasses.replace(TINY, network=dataclasses.replace(TINY.network, widths=(8, 8, 12, 20)))
    with pytest.raises(CheckpointMismatchError, match="20"):
        load_encoder(other, parts, trained)
    labelled = build_z_generator(SIZE, CHANNELS, z_dim=8, w_dim=8, c_dim=2, mapping_layers=2)
    with pytest.raises(ValueError, match="unconditional"):
        parts_of_generator(labelled, describe_by_discriminator(build_discriminator(SIZE, CHANNELS)))


def test_a_loss_that_is_no_number_writes_nothing(parts, tmp_path):
    recipe = dataclasses.replace(TINY, lr=float("inf"))
    pictures = draw_set(parts, 8, 1)
    with pytest.raises(DivergedError, match="pyramid"):
        train_encoder(recipe, parts, pictures, pictures, tmp_path, report=lambda _: None)
    assert not (tmp_path / "checkpoint.pt").exists()
