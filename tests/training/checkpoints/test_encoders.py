"""Encoders in e4e's and pSp's form give the very ws that the published networks give."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.training.checkpoints.published_irse import (
    NARROW,
    Published,
    State,
    draw,
    list_body,
    list_encoder,
    list_ir_se50,
)
from tests.training.golden import GOLDEN
from training.checkpoints.encoders import read_encoder
from training.checkpoints.golden_encoders import run_case, write_checkpoint
from training.errors import CheckpointMismatchError, DamagedCheckpointError, DataError

W_DIM = 24
E4E = {"encoder_type": "Encoder4Editing", "start_from_latent_avg": True}
PSP = {"encoder_type": "GradualStyleEncoder", "start_from_latent_avg": True, "output_size": 32}


def narrow(stylegan_size: int = 32, seed: int = 0, input_size: int = 64) -> State:
    return draw(list_encoder(stylegan_size, NARROW, W_DIM, input_size), seed)


def under(state: State, prefix: str = "encoder.") -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def look(seed: int = 1, count: int = 2, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def assert_near(ours: Tensor | np.ndarray, theirs: Tensor, share: float = 1e-4) -> None:
    """Hold an agreement as a share of the largest value: that of golden cases, unless another is given."""
    gap = (torch.as_tensor(ours).double() - theirs).abs().max()
    assert gap <= share * theirs.abs().max(), float(gap / theirs.abs().max())


@pytest.fixture(scope="module")
def state() -> State:
    return narrow()


@pytest.fixture
def save(tmp_path):
    def write(checkpoint, name: str = "encoder.pt") -> Path:
        torch.save(checkpoint, tmp_path / name)
        return tmp_path / name

    return write


def test_the_reference_has_the_published_tensors():
    published = json.loads((GOLDEN / "keys" / "encoder4editing-64.json").read_text())
    assert [*under(list_encoder(64)).items()] == [(entry["name"], tuple(entry["shape"])) for entry in published]


@pytest.mark.parametrize(("stylegan_size", "input_size"), [(4, 64), (16, 64), (64, 256), (2048, 64)])
def test_e4e_of_any_size_computes_what_was_published(save, stylegan_size, input_size):
    """Above 1024 px the original leaves the last rows as the first."""
    state, average, image = narrow(stylegan_size, input_size=input_size), torch.randn(W_DIM), look(size=input_size)
    num_ws = 2 * stylegan_size.bit_length() - 4
    read = read_encoder(save({"state_dict": under(state), "latent_avg": average, "opts": E4E}))
    assert (read.format, read.num_ws, read.encoder.input_size, read.remarks) == ("e4e", num_ws, input_size, ())
    codes = Published(state).codes(image, deltas=True)
    equal = [torch.equal(codes[:, row], codes[:, 0]) for row in range(1, num_ws)]
    assert equal == [row > 18 for row in range(1, num_ws)]
    assert_near(read.encoder(image), codes + average)
    assert_near(read.encoder.double().offsets(image.double()), codes, 1e-10)
    assert not any(parameter.requires_grad for parameter in read.encoder.parameters())


def test_psp_rows_stand_alone(save, state):
    average = torch.randn(8, W_DIM)
    read = read_encoder(save({"state_dict": under(state), "latent_avg": average, "opts": PSP}))
    assert (read.format, read.options["output_size"]) == ("psp", 32)
    codes = Published(state).codes(look(), deltas=False)
    assert_near(read.encoder(look()), codes + average)


def test_families_read_the_same_tensors_differently(save, state):
    path = save({"state_dict": under(state), "latent_avg": torch.zeros(W_DIM)})
    silent = read_encoder(path)
    assert silent.format == "e4e"
    assert ["e4e or pSp" in remark for remark in silent.remarks] == [True]
    told = read_encoder(path, family="psp")
    assert (told.format, told.remarks) == ("psp", ())
    with_deltas, alone = silent.encoder(look()), told.encoder(look())
    assert_near(with_deltas[:, :1], alone[:, :1].double())
    assert_near(with_deltas[:, 1:], (alone[:, :1] + alone[:, 1:]).double())
    assert (with_deltas - alone)[:, 1:].abs().max() > 0.1 * alone.abs().max()


@pytest.mark.parametrize("shape", [(W_DIM,), (1, W_DIM), (8, W_DIM), (1, 8, W_DIM)])
def test_latent_avg_comes_in_several_shapes(save, state, shape):
    average = torch.randn(shape)
    read = read_encoder(save({"state_dict": under(state), "latent_avg": average, "opts": E4E}))
    assert read.w_avg is not None
    assert torch.equal(read.w_avg, average.reshape(-1, W_DIM).expand(8, W_DIM))
    assert torch.equal(read.encoder.w_avg, read.w_avg)


@pytest.mark.parametrize("shape", [(7, W_DIM), (W_DIM, 1), (W_DIM + 1,), (18, W_DIM)])
def test_another_latent_avg_is_refused(save, state, shape):
    with pytest.raises(CheckpointMismatchError, match=r"latent_avg is \[.*8 rows of 24"):
        read_encoder(save({"state_dict": under(state), "latent_avg": torch.zeros(shape), "opts": E4E}))


def test_average_is_added_only_where_the_original_adds_it(save, state):
    options = E4E | {"start_from_latent_avg": False}
    read = read_encoder(save({"state_dict": under(state), "latent_avg": torch.ones(W_DIM), "opts": options}))
    assert not read.centred
    assert torch.equal(read.encoder(look()), read.encoder.offsets(look()))
    assert read.w_avg is not None
    without = read_encoder(save({"state_dict": under(state), "opts": E4E}))
    assert without.centred
    assert without.w_avg is None
    assert ["latent_avg" in remark for remark in without.remarks] == [True]


def test_the_generator_inside_is_handed_on(save, state):
    inside = {"style.1.weight": torch.randn(4, 4), "input.input": torch.randn(1, 4, 4, 4)}
    read = read_encoder(save({"state_dict": under(state) | under(inside, "decoder."), "opts": E4E}))
    assert read.generator_state is not None
    assert read.generator_state.keys() == inside.keys()
    assert all(torch.equal(read.generator_state[name], value) for name, value in inside.items())
    assert read_encoder(save({"state_dict": under(state), "opts": E4E})).generator_state is None


def test_files_come_in_several_wrappings(save, state, tmp_path):
    average = torch.randn(W_DIM)
    plain = read_encoder(save({"state_dict": under(state), "latent_avg": average, "opts": E4E})).encoder(look())
    namespace = {"state_dict": under(state), "latent_avg": average, "opts": argparse.Namespace(**PSP)}
    assert read_encoder(save(namespace)).format == "psp"
    parallel = {"state_dict": under(under(state), "module."), "latent_avg": average, "opts": E4E}
    assert torch.equal(read_encoder(save(parallel)).encoder(look()), plain)
    alone = read_encoder(save(state | {"latent_avg": average}))
    assert torch.equal(alone.encoder(look()), plain)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert torch.equal(read_encoder(save({"state_dict": under(old), "latent_avg": average})).encoder(look()), plain)
    save_file(under(state) | {"latent_avg": average}, tmp_path / "encoder.safetensors")
    assert torch.equal(read_encoder(tmp_path / "encoder.safetensors").encoder(look()), plain)
    halved = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    read = read_encoder(save({"state_dict": under(halved), "latent_avg": average, "opts": E4E})).encoder
    assert read.stem.weight.dtype == torch.float32
    assert (read(look()) - plain).abs().max() < 0.02 * plain.abs().max()


def test_other_files_are_refused_by_name(save, state):
    def refuse(checkpoint, sentence: str) -> None:
        with pytest.raises(DataError, match=sentence):
            read_encoder(save(checkpoint))

    refuse(draw(list_ir_se50(NARROW, 12)), "is ir_se50.*gives no ws")
    refuse({"g_ema": {"convs.0.conv.modulation.weight": torch.zeros(4, 4)}}, "StyleGAN2 generator.*--generator")
    motion = {"state_dict": {"module.rnn.fc1.weight": torch.zeros(2, 2), "module.encoder.x": torch.zeros(1)}}
    refuse(motion, "motion checkpoint.*--motion")
    refuse({"state_dict": under(draw(list_body(NARROW)))}, "without what reads ws off it")
    sketch = state | {"input_layer.0.weight": torch.zeros(NARROW[0], 6, 3, 3)}
    refuse({"state_dict": under(sketch), "opts": E4E}, "encoder of 6 channels.*ReStyle")
    flat = {name: value for name, value in state.items() if not name.startswith("latlayer")}
    refuse({"state_dict": under(flat), "opts": E4E}, "all read its last map")
    unsqueezed = {name: value for name, value in state.items() if "res_layer.5" not in name}
    refuse({"state_dict": under(unsqueezed), "opts": E4E}, "without squeeze-and-excitation")
    shallow = {name: value for name, value in state.items() if not name.startswith("body.23.")}
    refuse({"state_dict": under(shallow), "opts": E4E}, r"\[3, 4, 14, 2\] residual units")
    bodiless = {name: value for name, value in state.items() if not name.startswith("body.")}
    refuse({"state_dict": under(bodiless), "opts": E4E}, r"\[\] residual units")


def test_an_encoder_that_is_not_whole_is_refused_with_its_tensor(save, state):
    def refuse(changed: State, sentence: str) -> None:
        with pytest.raises(CheckpointMismatchError, match=sentence):
            read_encoder(save({"state_dict": under(changed), "opts": E4E}))

    refuse(
        {name: value for name, value in state.items() if name != "latlayer2.bias"}, "lacks the tensor latlayer2.bias"
    )
    refuse(state | {"styles.5.convs.4.bias": torch.zeros(3)}, r"styles.5.convs.4.bias is \[3\]; \[24\]")
    refuse(state | {"styles.2.convs.8.weight": torch.zeros(1)}, r"styles.2.convs.8.weight \[1\] that .* no place")
    refuse(state | {"styles.0.linear.weight": torch.zeros(3)}, r"styles.0.linear.weight is \[3\], where 2 axes")
    refuse({name: v for name, v in state.items() if not name.startswith("styles.0.convs")}, "styles.0.convs.0.weight")


def test_a_damaged_file_is_told_from_a_foreign_one(save, state, tmp_path):
    path = save({"state_dict": under(state)})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises((DamagedCheckpointError, DataError), match=str(path)):
        read_encoder(path)
    with pytest.raises(DataError, match="nowhere"):
        read_encoder(tmp_path / "nowhere.pt")


def test_a_golden_case_agrees_in_both_runtimes(tmp_path):
    """A case as others would make it, here of 32 px and with several pictures."""
    state, average, image = narrow(seed=3, input_size=256), torch.randn(8, W_DIM), look(count=2, size=256)
    codes = Published(state).codes(image, deltas=True)
    case = {"image": image, "latent_avg": average, "codes": codes, "ws": codes + average}
    spec = {"format": "e4e encoder: Encoder4Editing(50, 'ir_se')", "meta": {"stylegan_size": 32}}
    results = run_case(under(state), spec, {name: value.numpy() for name, value in case.items()}, tmp_path)
    for runtime in ("pytorch", "onnxruntime"):
        assert_near(results[runtime]["codes"], codes)
        assert_near(results[runtime]["ws"], codes + average)
    assert read_encoder(tmp_path / "encoder.pt").options["stylegan_size"] == 32


def test_a_golden_case_without_a_picture_is_refused(tmp_path):
    with pytest.raises(DataError, match="array `image`"):
        run_case({}, {"format": "e4e"}, {"codes": np.zeros(1)}, tmp_path)


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("pSp encoder", "GradualStyleEncoder"),
        ("e4e encoder, of the kind of pSp's GradualStyleEncoder", "Encoder4Editing"),
        ("BackboneEncoderUsingLastLayerIntoWPlus of pSp", "BackboneEncoderUsingLastLayerIntoWPlus"),
    ],
)
def test_a_golden_case_is_written_as_its_family(format, name):
    assert write_checkpoint({}, {"format": format}, {})["opts"]["encoder_type"] == name
