import json

import numpy as np
import pytest
import torch

from training.checkpoints.spec import read_spec, rebuild
from training.errors import DataError


def make(*tensors: dict) -> list[torch.Tensor]:
    entries = [{"name": str(i), "shape": [2, 3], "dtype": "float32", **tensor} for i, tensor in enumerate(tensors)]
    return list(rebuild({"format": "any", "seed": 7, "tensors": entries}).values())


def draw(index: int, shape=(2, 3)):
    return np.random.default_rng([7, index]).standard_normal(shape, dtype=np.float32)


def test_every_tensor_has_its_own_numbers_to_the_bit():
    normal = {"kind": "normal", "scale": 0.1, "shift": 1.0}
    first, second, third, scalar = make(
        {"init": normal},
        {"init": {**normal, "kind": "abs", "shift": -1.0}},
        {"init": normal, "post": 0.3},
        {"init": normal, "shape": []},
    )
    scaled = [draw(i) * np.float32(0.1) for i in range(3)]
    assert np.array_equal(first.numpy(), scaled[0] + np.float32(1))
    assert np.array_equal(second.numpy(), np.abs(scaled[1] - np.float32(1)))
    assert np.array_equal(third.numpy(), (scaled[2] + np.float32(1)) * np.float32(0.3))
    assert scalar.shape == ()
    assert scalar.item() == draw(3, ()) * np.float32(0.1) + np.float32(1)
    assert {tensor.dtype for tensor in (first, second, third, scalar)} == {torch.float32}


def test_values_that_are_listed():
    counter, kernel = make(
        {"shape": [], "dtype": "int64", "init": {"kind": "values", "values": [5]}},
        {"shape": [2, 2], "init": {"kind": "values", "values": [1, 2, 3, 4]}},
    )
    assert (counter.dtype, counter.item()) == (torch.int64, 5)
    assert kernel.tolist() == [[1, 2], [3, 4]]


def test_unknown_making_is_refused_by_name():
    with pytest.raises(DataError, match="tensor 0 is made by 'uniform'"):
        make({"init": {"kind": "uniform"}})


@pytest.mark.parametrize(
    "entry",
    [
        {"init": {"scale": 1}},
        {"init": {"kind": "values", "values": [1, 2]}},
        {"init": {"kind": "normal"}, "shape": [-1]},
        {"init": {"kind": "normal"}, "dtype": "float99"},
    ],
)
def test_what_cant_be_made_is_refused_by_name(entry):
    with pytest.raises(DataError, match="tensor 0 can't be made of seed 7"):
        make(entry)


@pytest.mark.parametrize(
    "text", [None, "{", "[]", json.dumps({"format": 1, "tensors": []}), json.dumps({"format": "x"})]
)
def test_what_is_no_case_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "spec.json").write_text(text)
    with pytest.raises(DataError, match=r"spec\.json"):
        read_spec(tmp_path)
