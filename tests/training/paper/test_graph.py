"""The published motion as the bundle's motion graph, against the original's outputs."""

import dataclasses

import numpy as np
import pytest
import torch

from model.motion import MotionGenerator
from model.sessions import open_graph
from tests.training.golden import load_case
from training.checkpoints.official_motion import NAMES
from training.networks.motion import PaperMotion
from training.paper.graph import build_paper_graph, export_paper_motion
from training.recipes.paper import PAPER_SMOKE


@pytest.fixture(scope="module")
def golden():
    weights, case = load_case("language-guided-animation-motion")
    network = PaperMotion(embed_dim=1024, num_ws=18, w_dim=512)
    network.load_state_dict({ours: weights[f"module.{theirs}"] for ours, theirs in NAMES.items()})
    return network.eval(), {name: value.numpy() for name, value in case.items()}


@pytest.mark.parametrize(("name", "frames", "decay"), [("T16_linear", 16, "linear"), ("T4_train", 4, "const")])
def test_the_graph_gives_the_originals_motion(golden, name, frames, decay):
    network, case = golden
    session = open_graph(build_paper_graph(network, decay=decay).SerializeToString())
    kept = [0, 1, frames // 2, frames - 1]
    for row in range(2):
        outputs = session.run(
            text_embed=case["text_embed"][row : row + 1],
            image_embed=case["image_embed"][row : row + 1],
            noise=np.zeros((1, 384), np.float32),
            intensity=np.ones(1, np.float32),
            progress=np.linspace(0, 1, frames, dtype=np.float32),
        )
        codes = case[f"{name}_motion_codes"][row]
        assert np.abs(outputs["motion_codes"][kept] - codes).max() <= 1e-5
        published = case[f"{name}_delta_ws"][row] + case["visual_delta_ws"][row]
        ahead = 1 - np.linspace(0, 1, frames)[kept, None, None]
        wanted = published - ahead * published[:1]
        assert np.abs(outputs["delta_ws"][kept][:, [0, 8, 17]] - wanted).max() <= 2e-5


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(3)
    return PaperMotion(embed_dim=10, num_ws=4, w_dim=6, h_dim=8, hidden=12).eval()


@pytest.mark.parametrize("decay", ["const", "linear", "sqrt", "exp"])
@pytest.mark.parametrize("sampled", [False, True])
def test_graph_and_network_agree_for_every_decay(small, decay, sampled):
    recipe = dataclasses.replace(PAPER_SMOKE, inference_decay=decay, sampled=sampled)
    _, difference = export_paper_motion(small, np.random.default_rng(1), recipe)
    assert difference < 1e-5


def test_serving_runs_it_and_starts_at_the_inversion(small):
    graph, _ = export_paper_motion(small, np.random.default_rng(1), PAPER_SMOKE)
    motion = MotionGenerator(open_graph(graph.SerializeToString()), small.h_dim, steps=15)
    text, face = np.eye(10, dtype=np.float32)[:2]
    served = motion.generate([text], face, frames=31, seed=4)
    assert np.abs(served.delta_ws[0]).max() == 0
    assert np.abs(served.delta_ws[-1]).max() > 0.01
    assert np.array_equal(served.delta_ws, motion.generate([text], face, frames=31, seed=4).delta_ws)
    still = motion.generate([text], face, frames=31, seed=4, intensity=0.0)
    assert np.abs(still.delta_ws).max() == 0
