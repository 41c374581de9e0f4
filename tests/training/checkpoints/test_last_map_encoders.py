"""pSp's two encoders that read the last map alone: one w for all rows, and all rows at once.

Source: Richardson et al. 2021 (arXiv 2008.00951), `models/psp.py`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.checkpoints.published_irse import NARROW, State, draw, list_body, list_ir_se50
from tests.training.checkpoints.published_last_map import FLAT, SINGLE, IntoW, IntoWPlus, fill, to_file
from training.checkpoints.encoders import read_encoder
from training.checkpoints.golden import main
from training.checkpoints.irse import read_identity
from training.errors import CheckpointMismatchError, DataError
from training.networks.irse import FlatEncoder, SingleEncoder

W_DIM = 24


def look(count: int = 2, size: int = 256) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def assert_near(ours: Tensor, theirs: Tensor, share: float = 1e-5) -> None:
    assert ours.shape == theirs.shape
    assert (ours.double() - theirs).abs().max() <= share * theirs.abs().max()


@pytest.fixture
def save(tmp_path):
    def write(state: State, **more) -> Path:
        torch.save({"state_dict": state, **more}, tmp_path / "encoder.pt")
        return tmp_path / "encoder.pt"

    return write


def options(name: str, **more) -> dict:
    return {"encoder_type": name, "start_from_latent_avg": True, "learn_in_w": name == SINGLE, **more}


def test_the_reference_has_the_body_of_ir_se50():
    names = {name: tuple(value.shape) for name, value in IntoW().state_dict().items()}
    assert {name: shape for name, shape in names.items() if not name.startswith("linear.")} == list_body(NARROW)


@pytest.mark.parametrize("average", [(W_DIM,), (1, W_DIM), (10, W_DIM)])
def test_one_w_for_all_rows(save, average):
    """`learn_in_w` keeps latent_avg as a w, training without it as rows; both are added to the one w."""
    network, latent_avg, image = fill(IntoW()), torch.randn(average), look()
    read = read_encoder(save(to_file(network), latent_avg=latent_avg, opts=options(SINGLE, n_styles=10)))
    assert isinstance(read.encoder, SingleEncoder)
    assert (read.format, read.num_ws, read.encoder.input_size, read.remarks) == ("psp", 10, 256, ())
    assert_near(read.encoder(image), network(image.double())[:, None] + latent_avg.expand(10, W_DIM))
    assert not any(parameter.requires_grad for parameter in read.encoder.parameters())


@pytest.mark.parametrize("num_ws", [4, 18])
def test_all_rows_at_once(save, num_ws):
    """The last map's 16 places go into 7 bins that overlap; ONNX and torch must agree on where."""
    network, latent_avg, image = fill(IntoWPlus(num_ws)), torch.randn(W_DIM), look()
    read = read_encoder(save(to_file(network), latent_avg=latent_avg, opts=options(FLAT)))
    assert isinstance(read.encoder, FlatEncoder)
    assert (read.format, read.num_ws, read.encoder.w_dim, read.remarks) == ("psp", num_ws, W_DIM, ())
    assert_near(read.encoder(image), network(image.double()) + latent_avg)


def test_the_file_says_for_how_many_rows(save):
    state = to_file(IntoW())
    inside = {f"decoder.convs.{i}.conv.weight": torch.zeros(1) for i in range(6)}

    def count(**more) -> int:
        return read_encoder(save(**({"state": state} | more))).num_ws

    assert count(opts=options(SINGLE, output_size=1024)) == 18
    assert count(opts=options("WEncoder", stylegan_size=256)) == 14
    assert count(opts=options(SINGLE, output_size=1024, n_styles=16)) == 16
    assert count(opts=options(SINGLE, n_styles=16), latent_avg=torch.zeros(12, W_DIM)) == 12
    assert count(state=state | inside, opts=options(SINGLE), latent_avg=torch.zeros(W_DIM)) == 8
    assert count(opts=options(SINGLE, n_styles=10**12, output_size=512)) == 16
    silent = save(state, opts=options(SINGLE), latent_avg=torch.zeros(1, W_DIM))
    assert read_encoder(silent, num_ws=6).num_ws == 6
    with pytest.raises(DataError, match=r"does not say how many rows.*--generator"):
        read_encoder(silent)


def test_an_encoder_alone_is_read_as_well(tmp_path):
    network = fill(IntoWPlus(6))
    torch.save(to_file(network, prefix=""), tmp_path / "encoder.pt")
    read = read_encoder(tmp_path / "encoder.pt")
    assert ["latent_avg" in remark for remark in read.remarks] == [True]
    assert_near(read.encoder(look(1)), network(look(1).double()))
    with pytest.raises(DataError, match="is an encoder of ws"):
        read_identity(tmp_path / "encoder.pt")


def test_relatives_are_refused(save):
    """ReStyle's encoders see a picture beside its reconstruction, and draw it again and again."""
    restyle = draw(list_body(NARROW, channels=6) | {"styles.0.linear.weight": (W_DIM, W_DIM)})
    with pytest.raises(DataError, match="ReStyle"):
        read_encoder(save({f"encoder.{name}": value for name, value in restyle.items()}, opts=options("x")))
    with pytest.raises(DataError, match=r"6 channels.*ReStyle"):
        read_encoder(save(to_file(IntoW(channels=6)), opts=options(SINGLE, n_styles=10)))
    head = draw(list_ir_se50(NARROW, 12))
    with pytest.raises(DataError, match="without what reads ws"):
        read_encoder(save({f"encoder.{name}": value for name, value in head.items()}, opts=options("x")))


def test_what_is_not_whole_is_refused_with_its_tensor(save):
    state = to_file(IntoWPlus(6))

    def refuse(changed: State, sentence: str) -> None:
        with pytest.raises(CheckpointMismatchError, match=sentence):
            read_encoder(save(changed, opts=options(FLAT)))

    lacking = {name: value for name, value in state.items() if name != "encoder.output_layer_2.0.running_var"}
    refuse(lacking, "lacks the tensor output_layer_2.0.running_var")
    refuse(state | {"encoder.linear.weight": torch.zeros(100, W_DIM)}, "100 numbers .* no rows of 24")
    refuse(state | {"encoder.output_layer_2.3.weight": torch.zeros(W_DIM, 70)}, "of 70 by way of 24")
    refuse(state | {"encoder.output_layer_3.bias": torch.zeros(3)}, r"output_layer_3.bias \[3\] that .* no place")
    path = save(to_file(IntoW()) | {"encoder.linear.weight": torch.zeros(W_DIM, 3)}, opts=options(SINGLE, n_styles=10))
    with pytest.raises(CheckpointMismatchError, match=r"linear.weight is \[24, 3\]; \[24, 64\]"):
        read_encoder(path)


@pytest.mark.parametrize(
    ("format", "network", "rows"),
    [(f"pSp encoder: {SINGLE}(50, 'ir_se')", IntoW(), 1), (f"{FLAT} of pSp", IntoWPlus(10), 10)],
)
def test_golden_cases_in_both_runtimes(tmp_path, capsys, format, network, rows):
    entries, state = [], {}
    for i, (name, value) in enumerate(network.state_dict().items()):
        init = {"kind": "values", "values": [3]} if not value.ndim else {"kind": "normal", "scale": 0.1, "shift": 0.1}
        if name.endswith("running_var"):
            init = {"kind": "abs", "scale": 0.3, "shift": 1.0}
        dtype = "float32" if value.ndim else "int64"
        entries.append({"name": f"encoder.{name}", "shape": list(value.shape), "dtype": dtype, "init": init})
        noise = np.random.default_rng([5, i]).standard_normal(tuple(value.shape), dtype=np.float32)
        made = noise * np.float32(init.get("scale", 1)) + np.float32(init.get("shift", 0))
        state[name] = torch.from_numpy(np.abs(made) if init["kind"] == "abs" else made) if value.ndim else value
    network.load_state_dict(state)
    network.double().eval()
    (tmp_path / "spec.json").write_text(json.dumps({"format": format, "seed": 5, "tensors": entries}))
    image, average = look(1), torch.randn(W_DIM)
    with torch.no_grad():
        codes = network(image.double())
    arrays = {
        "image": image,
        "latent_avg": average,
        "codes": codes,
        "ws": (codes + average).expand(1, *codes.shape[1:]),
    }
    np.savez(tmp_path / "case.npz", **{name: value.numpy() for name, value in arrays.items()})
    assert codes.numel() == rows * W_DIM
    assert main([str(tmp_path)]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["runtime"].keys() == {"pytorch", "onnxruntime"}
    assert all(found.keys() == {"codes", "ws"} for found in line["runtime"].values())
    assert max(line["max_rel_err"].values()) <= 1e-4
