"""The light losses on drawn frames: what each of them asks for, and that nothing is drawn where none is asked for."""

import dataclasses

import numpy as np
import pytest
import torch

from training.embedding import Features
from training.encoder import build_factor_head, build_trunk
from training.export.graphs import IdentityGraph
from training.faces.parameters import encode, sample_parameters
from training.generator import build_generator
from training.motion import MotionStage
from training.motion_pictures import PictureLosses, off_face
from training.networks.encoder import ImageTower
from training.recipes import SMOKE

LIGHT = dataclasses.replace(
    SMOKE.motion, direction_weight=0.1, identity_weight=0.2, off_face_weight=0.3, picture_batch=2, picture_every=2
)


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(5)
    generator = build_generator(dataclasses.replace(SMOKE.generator, channels=(12, 12, 8, 6)))  # 32 px
    trunk, head = build_trunk(SMOKE.encoder).eval(), build_factor_head(SMOKE.encoder).eval()
    return generator, ImageTower(trunk, 16).eval(), IdentityGraph(trunk, head).eval()


@pytest.fixture(scope="module")
def faces():
    rng = np.random.default_rng(1)
    factors = torch.from_numpy(np.stack([encode(sample_parameters(rng)) for _ in range(232)]))
    return Features(torch.from_numpy(rng.standard_normal((232, 32), dtype=np.float32)), factors)


def embed(texts):
    rng = np.random.default_rng(len(texts))
    return torch.nn.functional.normalize(
        torch.from_numpy(rng.standard_normal((len(texts), 16), dtype=np.float32)), dim=1
    )


def build_stage(recipe, parts, faces):
    generator, tower, identity = parts
    pictures = PictureLosses(recipe, generator, tower, identity, embed(["calm"])[0])
    return MotionStage(recipe, generator.mapping, tower, embed, [faces], generator.synthesis.num_ws, pictures)


def ask(parts, faces, recipe=LIGHT, size=0.3):
    generator, tower, identity = parts
    losses = PictureLosses(recipe, generator, tower, identity, embed(["calm"])[0])
    delta_ws = size * torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(2))
    return losses(faces.factors[:3], delta_ws.requires_grad_(True), embed(["a", "b", "c"])), delta_ws


def test_each_loss_pulls_at_the_motion(parts, faces):
    found, delta_ws = ask(parts, faces)
    assert set(found) == {"direction", "identity", "off_face"}
    for loss in found.values():
        (gradient,) = torch.autograd.grad(loss, delta_ws, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_a_still_face_loses_no_identity_and_nothing_off_the_face(parts, faces):
    found, _ = ask(parts, faces, size=0.0)
    assert float(found["identity"].detach()) == pytest.approx(0, abs=1e-6)
    assert float(found["off_face"].detach()) == 0
    assert float(found["direction"].detach()) == pytest.approx(0.1, abs=1e-3)  # no direction: a cosine of 0


def test_off_face_looks_away_from_eyes_and_mouth():
    weights = off_face(64)[0, 0]
    assert weights[2, 2] == pytest.approx(1, abs=0.01)
    assert weights[40, 32] == pytest.approx(0, abs=0.01)
    assert weights.min() >= 0
    assert weights.max() <= 1


def test_a_heavy_direction_is_refused(parts):
    generator, tower, identity = parts
    heavy = dataclasses.replace(LIGHT, direction_weight=0.2)
    with pytest.raises(ValueError, match=r"above 0.1 towers get fooled"):
        PictureLosses(heavy, generator, tower, identity, embed(["calm"])[0])


def test_the_stage_draws_every_other_step_and_only_when_asked(parts, faces):
    stage = build_stage(LIGHT, parts, faces)
    loss, figures = stage.loss(0)
    assert {"direction", "identity", "off_face"} < set(figures)
    wanted = sum(figures[name] for name in ("follow", "direction", "identity", "off_face"))
    assert float(loss.detach()) == pytest.approx(wanted + LIGHT.read_weight * figures["kept"], rel=1e-5)
    loss.backward()
    assert stage.network.row_gates.grad is not None  # the teacher speaks of factors: only pictures teach the gates
    assert "direction" not in stage.loss(1)[1]
    plain = build_stage(SMOKE.motion, parts, faces)
    assert set(plain.loss(0)[1]) == {"follow", "kept"}
    assert plain.loss(0)[1] == {name: figures[name] for name in ("follow", "kept")}  # the teacher's part is the same


def test_a_recipe_that_wants_pictures_must_be_given_them(parts, faces):
    generator, tower, _ = parts
    with pytest.raises(ValueError, match="give PictureLosses"):
        MotionStage(LIGHT, generator.mapping, tower, embed, [faces], generator.synthesis.num_ws)
