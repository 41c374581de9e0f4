"""ir_se50 tells faces apart as published, and serves wherever a loss or a measurement asks who someone is."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.checkpoints.published_irse import (
    NARROW,
    Published,
    State,
    draw,
    list_body,
    list_encoder,
    list_ir_se50,
    pool,
)
from training.checkpoints.irse import publish_name, read_identity
from training.errors import CheckpointMismatchError, DataError
from training.inversion.features import describe_by_discriminator
from training.inversion.losses import identity_loss
from training.inversion.parts import parts_of_generator
from training.metrics.identity import measure_acd, measure_identity
from training.networks.identity import IdentityNetwork
from training.networks.stylegan2 import build_discriminator, build_z_generator

FEATURES = 20


@pytest.fixture(scope="module")
def state() -> State:
    return draw(list_ir_se50(NARROW, FEATURES))


@pytest.fixture
def save(tmp_path):
    def write(checkpoint):
        torch.save(checkpoint, tmp_path / "model_ir_se50.pth")
        return tmp_path / "model_ir_se50.pth"

    return write


def look(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_genuine_size_has_the_published_tensors():
    with torch.device("meta"):
        network = IdentityNetwork()
    ours = {publish_name(name): tuple(value.shape) for name, value in network.state_dict().items()}
    assert ours == list_ir_se50()


@pytest.mark.parametrize("size", [256, 512])
def test_it_computes_what_was_published(save, state, size):
    """The published loss averages to 256 px, crops, averages to 112 px and looks."""
    network = read_identity(save(state)).double()
    image = look(size).double()
    face = pool(pool(image, 256)[:, :, 35:223, 32:220], 112)
    torch.testing.assert_close(network(image), Published(state).identity(face), rtol=1e-9, atol=1e-10)
    assert network.input_size == 112
    assert not network.training


def test_variants_of_the_head(save, state):
    plain = {
        name: value for name, value in state.items() if name not in {"output_layer.4.weight", "output_layer.4.bias"}
    }
    ones = plain | {"output_layer.4.weight": torch.ones(FEATURES), "output_layer.4.bias": torch.zeros(FEATURES)}
    face = look(112).double()
    found = read_identity(save({"state_dict": plain})).double().embed(face)
    torch.testing.assert_close(found, Published(ones).identity(face), rtol=1e-9, atol=1e-10)


def test_inversion_and_measurements_look_through_it(save, state):
    torch.manual_seed(0)
    generator = build_z_generator(32, (8, 8, 8, 6), z_dim=8, w_dim=8, mapping_layers=2)
    describe = describe_by_discriminator(build_discriminator(32, (8, 8, 8, 6)))
    parts = parts_of_generator(generator, describe, read_identity(save(state)))
    assert parts.identity is not None
    pictures = look(64, 3).requires_grad_()
    identity = parts.identity(pictures)
    loss = identity_loss(identity, identity.detach().roll(1, 0)).sum()
    loss.backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().max() > 0
    features = identity.detach().numpy()
    np.testing.assert_allclose(measure_identity(features[0], features)[0], 1, atol=1e-5)
    assert measure_acd(features) > 0


def test_other_files_are_refused(save, state):
    with pytest.raises(DataError, match="without its head"):
        read_identity(save(draw(list_body(NARROW))))
    with pytest.raises(DataError, match="encoder of ws"):
        read_identity(save(draw(list_encoder(8, NARROW, 24))))
    encoder = {f"encoder.{name}": value for name, value in draw(list_encoder(8, NARROW, 24)).items()}
    with pytest.raises(DataError, match="e4e encoder, not the ir_se50"):
        read_identity(save({"state_dict": encoder}))
    with pytest.raises(DataError, match="without squeeze-and-excitation"):
        read_identity(save(draw(list_body(NARROW, squeezed=False))))
    with pytest.raises(CheckpointMismatchError, match="no square map"):
        read_identity(save(state | {"output_layer.3.weight": torch.zeros(FEATURES, NARROW[3] * 48)}))
