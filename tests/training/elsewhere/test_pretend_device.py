"""The pretended device keeps CUDA's rules: what would fail on a GPU fails on it."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.elsewhere import pretend_device


@pytest.fixture(autouse=True)
def there() -> Iterator[torch.device]:
    with pretend_device.device() as where:
        yield where


def test_two_devices_do_not_mix(there: torch.device) -> None:
    mine, stranger = torch.ones(3, device=there), torch.ones(3)
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        mine + stranger
    with pytest.raises(RuntimeError, match="same device"):
        torch.where(mine > 0, stranger, mine)
    with pytest.raises(RuntimeError, match="same device"):
        nn.Linear(3, 2)(mine)


def test_what_cuda_allows_is_allowed(there: torch.device) -> None:
    mine = torch.arange(4.0, device=there)
    assert (mine * torch.tensor(2.0)).tolist() == [0, 2, 4, 6]  # a single number
    assert mine[torch.tensor([3, 1])].device == there  # row numbers of the CPU
    mine[torch.tensor([0])] = 7.0
    assert float(mine[0]) == 7
    assert mine.to("cpu").device.type == "cpu"
    mine.copy_(torch.zeros(4))
    assert mine.sum().item() == 0
    with pytest.raises(RuntimeError, match="picked by a tensor on"):
        torch.arange(4.0)[torch.tensor([1], device=there)]


def test_numpy_reads_the_cpu_only(there: torch.device) -> None:
    with pytest.raises(TypeError, match="copy it to the CPU first"):
        torch.ones(2, device=there).numpy()
    assert np.array_equal(torch.ones(2, device=there).cpu().numpy(), [1, 1])


def test_what_is_made_there_is_there(there: torch.device) -> None:
    made = (torch.zeros(2, device=there), torch.tensor([1.0], device=there), torch.randn(2, device=there))
    generator = torch.Generator(there).manual_seed(1)
    drawn = torch.randn(2, generator=generator, device=there)
    assert {tensor.device for tensor in (*made, drawn, torch.ones_like(made[0]))} == {there}


def test_gradients_of_gradients(there: torch.device) -> None:
    layer, twin = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    twin.load_state_dict(layer.state_dict())
    layer.to(there)
    x = torch.randn(1, 2, 5, 5)
    found = []
    for module, picture in ((layer, x.to(there)), (twin, x)):
        (slope,) = torch.autograd.grad(module(picture).square().sum(), module.weight, create_graph=True)
        slope.square().sum().backward()
        assert module.weight.grad is not None
        found.append(module.weight.grad)
    assert found[0].device == there
    torch.testing.assert_close(found[0].cpu(), found[1])


def test_autocast_lowers_products(there: torch.device) -> None:
    layer = nn.Linear(3, 2).to(there)
    with torch.autocast(there.type, dtype=torch.bfloat16):
        assert layer(torch.ones(1, 3, device=there)).dtype is torch.bfloat16
    assert layer(torch.ones(1, 3, device=there)).dtype is torch.float32


def test_weights_are_copied_and_saved(there: torch.device) -> None:
    layer = nn.Linear(3, 2).to(there)
    twin = copy.deepcopy(layer)
    assert isinstance(twin.weight, nn.Parameter)
    assert twin.weight.device == there
    with torch.no_grad():
        twin.weight.zero_()
    assert float(layer.weight.detach().abs().sum()) > 0
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    read = torch.load(file, map_location="cpu", weights_only=True)["weight"]
    torch.testing.assert_close(read, layer.weight.detach().cpu())
