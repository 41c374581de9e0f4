"""The published motion checkpoint: every size, its CLIP, and refusals; golden cases of other sizes by a reference."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.checkpoints.openai_files import write_merges
from tests.training.golden import GOLDEN
from training.checkpoints.clip_files import build_clip
from training.checkpoints.golden import run
from training.checkpoints.official_motion import read_motion
from training.checkpoints.spec import read_spec, rebuild
from training.errors import CheckpointMismatchError, DataError
from training.export.graphs import OPSET
from training.paper.graph import export_paper_motion

SIZES = [
    {"embed_dim": 20, "h_dim": 12, "hidden": 24, "num_ws": 14, "w_dim": 32},
    {"embed_dim": 33, "h_dim": 7, "hidden": 16, "num_ws": 16, "w_dim": 512},
    {"embed_dim": 8, "h_dim": 30, "hidden": 10, "num_ws": 18, "w_dim": 6},
]


def make_spec(embed_dim: int, h_dim: int, hidden: int, num_ws: int, w_dim: int) -> dict:
    """A golden case's weights, in the published names and order."""
    shapes = {}
    for mapper in ("v_mapper", "t_mapper"):
        for i, (rows, columns) in enumerate([(hidden, embed_dim), (hidden, hidden), (num_ws * w_dim, hidden)], start=1):
            shapes[f"mapper.{mapper}.{i}"] = rows, columns
    for name, rows, columns in (
        ("fc1", h_dim, embed_dim), ("fc2", embed_dim, 2 * h_dim), ("fc3", h_dim, 2 * h_dim),
    ):  # fmt: skip
        shapes[f"rnn.{name}"] = rows, columns
    tensors = []
    for name, (rows, columns) in shapes.items():
        scale = 1.0 if "mapper" in name else 0.2
        for kind, shape, size in (("weight", [rows, columns], scale), ("bias", [rows], 0.1)):
            init = {"kind": "normal", "scale": size, "shift": 0.0}
            tensors.append({"name": f"module.{name}.{kind}", "shape": shape, "dtype": "float32", "init": init})
    note = {"embed_dim": embed_dim, "num_ws": num_ws, "seed": 5}
    return {"format": "official motion checkpoint", **note, "tensors": tensors}


def lrelu(x: np.ndarray, slope: float) -> np.ndarray:
    return np.where(x < 0, slope * x, x)


class Reference:
    """The published motion in float64: its formulas, written out with the file's own names."""

    def __init__(self, spec: dict) -> None:
        self.weights = {name.removeprefix("module."): value.double().numpy() for name, value in rebuild(spec).items()}
        self.num_ws = spec["num_ws"]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def map(self, mapper: str, x: np.ndarray) -> np.ndarray:
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-8)
        for i in (1, 2, 3):
            weight = self.weights[f"mapper.{mapper}.{i}.weight"]
            x = x @ weight.T / math.sqrt(weight.shape[1]) + self.weights[f"mapper.{mapper}.{i}.bias"]
            x = lrelu(x, 0.2) * math.sqrt(2)
        return x.reshape(*x.shape[:-1], self.num_ws, -1)

    def move(self, z_0: np.ndarray, frames: int, decay: str) -> np.ndarray:
        z, h, codes = z_0, np.zeros((len(z_0), len(self.weights["rnn.fc1.bias"]))), [0 * z_0]
        for t in range(1, frames):
            rate = 0.8 / frames * {"const": 1, "linear": (frames - t) / frames}[decay]
            u = np.concatenate([lrelu(self.linear("rnn.fc1", z), 0.01), h], 1)
            z, h = z + rate * lrelu(self.linear("rnn.fc2", u), 0.01), h + rate * lrelu(self.linear("rnn.fc3", u), 0.01)
            codes.append(z - z_0)
        return np.stack(codes, 1)


def write_case(folder: Path, spec: dict) -> None:
    """Write a case of the golden form: frames and rows kept as the published one keeps them."""
    rng, reference = np.random.default_rng(3), Reference(spec)
    embeds = rng.standard_normal((2, 2, spec["embed_dim"]), dtype=np.float32)
    text, image = embeds / np.linalg.norm(embeds, axis=2, keepdims=True)
    rows = [0, 8, spec["num_ws"] - 1]
    case = {"text_embed": text, "image_embed": image, "visual_delta_ws": reference.map("v_mapper", image)[:, rows]}
    for name, frames, decay in (("T4_train", 4, "const"), ("T16_linear", 16, "linear"), ("T16_const", 16, "const")):
        codes = reference.move((text + image).astype(np.float64), frames, decay)[:, [0, 1, frames // 2, frames - 1]]
        case[f"{name}_motion_codes"] = codes
        case[f"{name}_delta_ws"] = reference.map("t_mapper", codes)[:, :, rows]
    np.savez(folder / "case.npz", **{name: value.astype(np.float32) for name, value in case.items()})
    (folder / "spec.json").write_text(json.dumps(spec))


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{sizes['num_ws']}x{sizes['w_dim']}")
def test_golden_cases_of_any_size_agree(tmp_path, sizes):
    write_case(tmp_path, make_spec(**sizes))
    line = run(tmp_path)
    assert len(line["max_rel_err"]) == 7
    assert set(line["runtime"]) == {"pytorch", "onnxruntime"}
    for runtime in line["runtime"].values():
        assert max(runtime.values()) <= 1e-5


def test_the_originals_case_agrees():
    line = run(GOLDEN / "language-guided-animation-motion")
    assert len(line["max_rel_err"]) == 7
    assert max(line["max_rel_err"].values()) <= 1e-5


def test_a_case_of_a_decay_that_nobody_published_is_refused(tmp_path):
    write_case(tmp_path, make_spec(**SIZES[0]))
    with np.load(tmp_path / "case.npz") as arrays:
        case = {name.replace("T16_const", "T16_cosine"): value for name, value in arrays.items()}
    np.savez(tmp_path / "case.npz", **case)
    with pytest.raises(DataError, match=r"T16_cosine_… has no frames or a decay that is none of const, linear"):
        run(tmp_path)


def test_a_case_of_another_motion_does_not_agree(tmp_path):
    spec = make_spec(**SIZES[0])
    write_case(tmp_path, spec)
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"seed": 6}))
    assert min(run(tmp_path)["max_rel_err"].values()) > 0.1


@pytest.fixture
def checkpoint():
    tensors = rebuild(make_spec(embed_dim=24, h_dim=12, hidden=16, num_ws=14, w_dim=512))
    return {"iter": 5000, "arch": "RN50", "state_dict": tensors, "optimizer": {"state": {}, "param_groups": []}}


def test_the_file_as_published_is_read_and_exported(checkpoint, tmp_path):
    own = rebuild(read_spec(GOLDEN / "openai-clip-resnet"))
    checkpoint["state_dict"] |= {f"module.encoder.{name}": value for name, value in own.items()}
    path = tmp_path / "motion.pth"
    torch.save(checkpoint, path)
    motion = read_motion(path)
    assert (motion.embed_dim, motion.h_dim, motion.num_ws, motion.w_dim) == (24, 12, 14, 512)
    assert not any(parameter.requires_grad for parameter in motion.network.parameters())
    graph, difference = export_paper_motion(motion.network, np.random.default_rng(1), motion.recipe)
    assert graph.opset_import[0].version == OPSET
    assert difference < 1e-5
    merges = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    write_merges(merges)
    assert motion.clip_state is not None
    # the case's CLIP has three tokens more than the small list of merges makes
    motion.clip_state["token_embedding.weight"] = motion.clip_state["token_embedding.weight"][:531]
    towers = build_clip(motion.clip_state, path, merges)
    z_0 = towers.embed_texts(["she smiles"]) + towers.embed_images(torch.zeros(1, 3, 64, 64))
    _, delta_ws = motion.network(z_0, torch.zeros(1, 12), 16)
    assert delta_ws.shape == (1, 16, 14, 512)


def test_a_motion_of_sampled_faces_is_known_by_its_untrained_mapper(checkpoint, tmp_path):
    path = tmp_path / "motion.pth"
    torch.save(checkpoint, path)
    assert not read_motion(path).recipe.sampled
    for name, value in checkpoint["state_dict"].items():
        if "v_mapper" in name and name.endswith("bias"):
            value.zero_()
    torch.save(checkpoint, path)
    assert read_motion(path).recipe.sampled


def test_a_bare_state_dict_of_one_device_does_as_well(checkpoint, tmp_path):
    bare = {name.removeprefix("module."): value for name, value in checkpoint["state_dict"].items()}
    torch.save(bare, tmp_path / "bare.pt")
    torch.save(checkpoint, tmp_path / "whole.pt")
    bare_motion, motion = read_motion(tmp_path / "bare.pt"), read_motion(tmp_path / "whole.pt")
    assert motion.clip_state is None
    for ours, theirs in zip(bare_motion.network.parameters(), motion.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_does_not_fit_is_named(checkpoint, tmp_path):
    path, state = tmp_path / "motion.pth", checkpoint["state_dict"]

    def refusal(changed: dict, w_dim: int = 512) -> str:
        torch.save({"state_dict": changed}, path)
        with pytest.raises(CheckpointMismatchError, match=str(path)) as caught:
            read_motion(path, w_dim)
        return str(caught.value)

    lacking = {name: value for name, value in state.items() if "v_mapper.2.bias" not in name}
    assert "lacks the tensor mapper.v_mapper.2.bias" in refusal(lacking)
    assert "rnn.fc2.weight is [3, 3]; [24, 24]" in refusal(state | {"module.rnn.fc2.weight": torch.zeros(3, 3)})
    assert "rnn.cell.weight_ih" in refusal(state | {"module.rnn.cell.weight_ih": torch.zeros(3, 3)})
    assert "no whole rows of w_dim 500" in refusal(state, w_dim=500)


def test_other_files_are_told_apart(tmp_path):
    torch.save(rebuild(read_spec(GOLDEN / "openai-clip-vit")), tmp_path / "clip.pt")
    with pytest.raises(DataError, match=r"a CLIP of OpenAI, not a motion checkpoint: give it as --clip"):
        read_motion(tmp_path / "clip.pt")
