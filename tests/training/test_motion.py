from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tests.training.golden import load_case
from training.export.bundle import export_motion
from training.faces.captions import Caption
from training.faces.expressions import apply_expression
from training.faces.parameters import EXPRESSION_FACTORS, encode, sample_parameters
from training.generator import build_generator
from training.motion import amplitude, build_motion_network, move_factors, tabulate_sways, tabulate_targets, teach
from training.networks.motion import PaperMotion, envelopes, sway, toss
from training.recipes import SMOKE, MotionRecipe

NAMES = [factor.name for factor in EXPRESSION_FACTORS]


@pytest.fixture(scope="module")
def paper():
    weights, case = load_case("language-guided-animation-motion")
    network = PaperMotion(embed_dim=1024, num_ws=18, w_dim=512)
    foreign = {"a": "rnn.fc1", "b": "rnn.fc2", "c": "rnn.fc3"}
    names = {f"cell.{ours}": theirs for ours, theirs in foreign.items()}
    for ours, theirs in (("text_mapper", "t_mapper"), ("visual_mapper", "v_mapper")):
        names |= {f"{ours}.layers.{i}": f"mapper.{theirs}.{i + 1}" for i in range(3)}
    state = {f"{k}.{part}": weights[f"module.{v}.{part}"] for k, v in names.items() for part in ("weight", "bias")}
    network.load_state_dict(state)
    return network.eval(), case


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "frames", "decay"), [("T4_train", 4, "const"), ("T16_linear", 16, "linear"), ("T16_const", 16, "const")]
)
def test_the_papers_recurrence_and_mapper_are_the_originals(paper, name, frames, decay):
    network, case = paper
    codes, delta_ws = network(case["text_embed"] + case["image_embed"], torch.zeros(2, 384), frames, decay)
    kept = [0, 1, frames // 2, frames - 1]
    assert (codes[:, kept] - case[f"{name}_motion_codes"]).abs().max() <= 1e-5
    assert (delta_ws[:, kept][:, :, [0, 8, 17]] - case[f"{name}_delta_ws"]).abs().max() <= 1e-5


@torch.no_grad()
def test_the_papers_visual_residual_is_the_original(paper):
    network, case = paper
    assert (network.residual(case["image_embed"])[:, [0, 8, 17]] - case["visual_delta_ws"]).abs().max() <= 1e-5


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    generator = build_generator(SMOKE.generator)
    return build_motion_network(SMOKE.motion, generator.mapping, 128, generator.synthesis.num_ws).eval()


def inputs(frames, seed=1):
    rng = np.random.default_rng(seed)
    embeds = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((2, 1, 128), dtype=np.float32)), dim=2)
    noise = torch.from_numpy(rng.standard_normal((1, 16), dtype=np.float32))
    return embeds[0], embeds[1], noise, torch.ones(1), torch.linspace(0, 1, frames)[None]


@torch.no_grad()
def test_frame_0_is_exactly_still(ours):
    delta_ws, codes = ours(*inputs(17))
    assert torch.equal(delta_ws[:, 0], torch.zeros_like(delta_ws[:, 0]))
    assert torch.equal(codes[:, 0], torch.zeros_like(codes[:, 0]))
    assert delta_ws[:, -1].abs().max() > 0.01


@torch.no_grad()
def test_both_envelopes_start_softly_and_the_second_comes_back():
    rising, passing = envelopes(torch.linspace(0, 1, 41))
    for envelope in (rising, passing):
        assert envelope[0] == 0
        assert envelope[1] < 0.3 * (envelope[1:] - envelope[:-1]).max()
    assert rising[-1] == 1
    assert passing[-1] == 0
    assert passing[20] == 1


@torch.no_grad()
def test_motion_grows_smoothly_and_does_not_jump_at_frame_1(ours):
    delta_ws, _ = ours(*inputs(65))
    steps = (delta_ws[0, 1:] - delta_ws[0, :-1]).flatten(1).norm(dim=1)
    assert steps[0] < 3 * steps.mean()
    assert steps.max() < 4 * steps.mean()


@torch.no_grad()
def test_more_frames_draw_the_same_motion(ours):
    """Steps follow the given progress: the recurrence nears one curve as frames get denser."""
    coarse, middle, fine = (ours(*inputs(frames))[0] for frames in (33, 129, 513))
    far = (coarse - fine[:, ::16]).norm()
    near = (middle[:, ::4] - fine[:, ::16]).norm()
    assert near < 0.4 * far
    assert near < 0.1 * fine[:, ::16].norm()


@torch.no_grad()
def test_the_same_seed_gives_the_same_motion_and_another_one_another(ours):
    given = inputs(9)
    first, again = ours(*given)[0], ours(*given)[0]
    assert torch.equal(first, again)
    noise = torch.from_numpy(np.random.default_rng(9).standard_normal((1, 16), dtype=np.float32))
    with silenced(ours, 2):
        first, other = (ours(given[0], given[1], drawn, *given[3:])[0] for drawn in (given[2], noise))
    assert not torch.equal(first, other)
    assert (first - other).norm() < 0.3 * first.norm()  # a variation, not another expression


@torch.no_grad()
def test_motion_keeps_its_size_where_the_papers_mapper_throws_it_away(ours):
    """The paper's Δ is as large at frame 1 as at the end; ours grows from nothing."""
    frames = 17
    sizes = ours(*inputs(frames))[0][0].flatten(1).norm(dim=1)
    assert sizes[1] < 0.25 * sizes.max()
    torch.manual_seed(4)
    published = PaperMotion(embed_dim=16, num_ws=4, w_dim=8, h_dim=12, hidden=32)
    z_0 = torch.nn.functional.normalize(torch.randn(1, 16), dim=1)
    delta_ws = published(z_0, torch.zeros(1, 12), frames)[1][0]
    sizes = (delta_ws - delta_ws[:1]).flatten(1).norm(dim=1)
    assert sizes[1] > 0.9 * sizes[-1]


@contextmanager
def silenced(network, *parts):
    """Silence what rises (0), passes (1) or sways (2)."""
    weight, bias = network.fc2.weight.clone(), network.fc2.bias.clone()
    for part in parts:
        rows = slice(part * network.num_moved, (part + 1) * network.num_moved)
        network.fc2.weight[rows] = 0
        network.fc2.bias[rows] = 0
    yield
    network.fc2.weight.copy_(weight)
    network.fc2.bias.copy_(bias)


@torch.no_grad()
def test_what_passes_and_what_sways_is_back_at_the_end(ours):
    with silenced(ours, 0):
        delta_ws = ours(*inputs(41))[0][0].flatten(1).norm(dim=1)
    assert delta_ws[0] == 0
    assert delta_ws[20] > 0.01
    assert delta_ws[-1] < 1e-4


def test_a_sway_goes_to_both_sides_and_comes_back():
    course = sway(torch.linspace(0, 1, 41))
    assert course[[0, 20, 40]].abs().max() < 1e-6
    assert course[:20].max() == pytest.approx(1, abs=0.01)
    assert course[20:].min() == pytest.approx(-1, abs=0.01)
    steps = (course[1:] - course[:-1]).abs()
    assert steps[0] < 0.2 * steps.max()


@torch.no_grad()
def test_the_seed_tosses_for_the_side_that_the_head_sways_to(ours):
    given = inputs(9)
    signs = toss(torch.tensor([[0.3, -1.0], [-0.3, 1.0], [0.0, 1.0]]))
    assert signs.tolist() == [1, -1, 0]
    side = torch.zeros_like(given[2])
    side[0, 0] = 1e-6  # too little to change anything else
    with silenced(ours, 0, 1):
        one, other, still = (ours(given[0], given[1], noise, *given[3:])[0] for noise in (side, -side, 0 * side))
    assert one[0, 2].norm() > 0.01
    assert (one[0, 2] - other[0, 2]).norm() > one[0, 2].norm()  # two ways from the still face
    assert torch.allclose(one[0, 4], other[0, 4], atol=1e-4)  # through the middle at half time
    assert still.abs().max() < 1e-5


@torch.no_grad()
def test_row_gates_scale_their_rows_alone(ours):
    given = inputs(5)
    whole = ours(*given)[0]
    ours.row_gates[3], ours.row_gates[7] = 0.0, 0.5
    gated = ours(*given)[0]
    ours.row_gates.fill_(1.0)
    assert torch.equal(gated[:, :, 3], torch.zeros_like(gated[:, :, 3]))
    assert torch.allclose(gated[:, :, 7], whole[:, :, 7] / 2)
    others = [row for row in range(whole.shape[2]) if row not in (3, 7)]
    assert torch.equal(gated[:, :, others], whole[:, :, others])


@torch.no_grad()
def test_the_graph_computes_what_the_network_computes(ours):
    _, parity = export_motion(ours, np.random.default_rng(2))
    assert parity["max_abs"] < 1e-4


def teach_one(targets, strength=1.0, frames=9):
    params = sample_parameters(np.random.default_rng(3))
    factors = torch.from_numpy(encode(params))[None]
    progress = torch.linspace(0, 1, frames)[None]
    table = tabulate_targets([Caption("", targets)])
    return params, factors, move_factors(factors, table, torch.tensor([strength]), progress)[0]


def test_the_teacher_ends_where_the_renderer_does():
    params, _, frames = teach_one((("smile", 0.7), ("wink_r", 0.0)))
    wanted = encode(apply_expression(params, "smile", 0.7))
    assert np.abs(frames[-1].numpy() - wanted).max() < 1e-5
    assert np.abs(frames[0].numpy() - encode(params)).max() < 1e-6


def test_the_teachers_wink_comes_back():
    params, factors, frames = teach_one((("wink_l", 1.0),))
    wanted = encode(apply_expression(params, "wink_l"))
    assert np.abs(frames[4].numpy() - wanted).max() < 1e-5
    assert np.abs((frames[-1] - factors[0]).numpy()).max() < 1e-6


def test_the_teacher_stands_still_for_sentences_that_ask_for_nothing():
    _, factors, frames = teach_one(())
    assert torch.equal(frames, factors.expand_as(frames))


def test_the_teacher_stays_in_range_at_twice_the_strength():
    params, _, frames = teach_one((("shocked", 1.4),), strength=2.0)
    opened = frames[-1, NAMES.index("mouth_open")] * 0.5 + 0.03
    assert float(opened) == pytest.approx(1.0, abs=1e-5)
    assert params["mouth_open"] < 0.2


def sway_one(targets, intensity=1.0, frames=41):
    """Give how far yaw and roll are from where they began: [frames,2], sways of -0.1 and 0.2."""
    factors = torch.from_numpy(encode(sample_parameters(np.random.default_rng(3))))[None]
    sways = tabulate_sways(MotionRecipe(sway_yaw=-0.1, sway_roll=0.2))[None]
    given = tabulate_targets([Caption("", targets)]), torch.tensor([intensity]), torch.linspace(0, 1, frames)[None]
    still, swaying = teach(factors, *given)[0], teach(factors, *given, sways)[0]
    pose = [NAMES.index(name) for name in ("yaw", "roll")]
    others = [k for k in range(len(NAMES)) if k not in pose]
    assert torch.equal(still[:, others], swaying[:, others])
    return (swaying - still)[:, pose]


@pytest.mark.parametrize("targets", [(("smile", 1.0),), (("look_left", 0.8), ("smile", 1.0))])
def test_the_teachers_head_sways_and_is_back_at_the_end(targets):
    pose = sway_one(targets)
    assert pose[[0, 20, 40]].abs().max() < 1e-6
    assert pose[:20].sum(0).sign().tolist() == [-1, 1]  # the recipe's side first
    assert pose.amax(0).tolist() == pytest.approx([0.1, 0.2], rel=0.01)
    assert pose.amin(0).tolist() == pytest.approx([-0.1, -0.2], rel=0.01)


@pytest.mark.parametrize("targets", [(("wink_l", 1.0),), (("smile", 1.0), ("wink_r", 1.0))])
def test_the_teachers_head_is_still_while_an_eye_is_closed(targets):
    pose = sway_one(targets)
    assert pose[[0, 40]].abs().max() < 1e-6
    assert pose[16:25].abs().max() < 1e-6  # the top: any of these frames may be the one that is judged
    assert pose[:16, 1].max() > 0.04
    assert pose[25:, 1].min() < -0.04


def test_the_teachers_head_sways_with_the_size_of_the_motion():
    whole, weak = sway_one((("smile", 1.0),)), sway_one((("smile", 0.5),), intensity=0.5)
    assert torch.allclose(weak, whole / 4, atol=1e-6)
    assert torch.allclose(sway_one((("smile", 1.0),), intensity=2.0), whole, atol=1e-6)  # not beyond


@pytest.mark.parametrize(("targets", "intensity"), [((), 1.0), ((("smile", 1.0),), 0.0)])
def test_the_teachers_head_keeps_still_where_nothing_moves(targets, intensity):
    assert not sway_one(targets, intensity).any()


def test_the_teachers_head_stays_in_range():
    factors = torch.from_numpy(encode(sample_parameters(np.random.default_rng(3))))[None]
    roll = NAMES.index("roll")
    factors[0, roll] = 0.95
    given = tabulate_targets([Caption("", (("smile", 1.0),))]), torch.ones(1), torch.linspace(0, 1, 41)[None]
    frames = move_factors(factors, *given, tabulate_sways(MotionRecipe(sway_roll=0.2))[None])[0]
    assert frames[:, roll].max() == pytest.approx(1.0)
    assert frames[:, roll].min() == pytest.approx(0.75, rel=0.01)


def test_amplitude_is_monotone_or_returns():
    progress = torch.linspace(0, 1, 41)[None]
    both = amplitude(progress, torch.tensor([[0.0, 1.0]]))[0]
    assert (both[1:, 0] >= both[:-1, 0]).all()
    assert both[0].abs().max() == 0
    assert both[-1, 0] == 1
    assert both[-1, 1] == pytest.approx(0, abs=1e-6)
    assert both[20, 1] == 1


def test_teach_is_a_change():
    _, factors, frames = teach_one((("angry", 1.0),))
    table = tabulate_targets([Caption("", (("angry", 1.0),))])
    change = teach(factors, table, torch.ones(1), torch.linspace(0, 1, 9)[None])
    assert torch.allclose(change[0] + factors[0, :15], frames[:, :15], atol=1e-6)
