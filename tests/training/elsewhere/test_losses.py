"""A loop computes elsewhere what it computes on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.training.golden_losses.data import ENCODER, make_pool, small_generator
from tests.training.golden_losses.loops import in_float32, take_steps
from training.encoder import FactorStage, Inversion, InversionStage, build_factor_head, build_trunk
from training.generator import GeneratorStage, build_generator
from training.recipes import InversionRecipe

STEPS = 6
CPU = torch.device("cpu")


def build_generator_stage(device: torch.device) -> Any:
    pool = make_pool(24, 32)
    return GeneratorStage(small_generator(32), pool, pool, device)


def build_encoder_stage(device: torch.device) -> Any:
    pool = make_pool(24, 128)
    return FactorStage(ENCODER, pool, pool, 128, device)


def build_inversion_stage(device: torch.device) -> Any:
    torch.manual_seed(2)
    pool = make_pool(12, 128)
    trunk, head, generator = build_trunk(ENCODER), build_factor_head(ENCODER), build_generator(small_generator(128))
    recipe = InversionRecipe(steps=STEPS, w_steps=STEPS // 2, batch=1, w_batch=2)
    return InversionStage(recipe, Inversion(trunk, head, generator), pool, pool, 128, device)


@pytest.mark.parametrize("build", [build_generator_stage, build_encoder_stage, build_inversion_stage])
def test_losses_are_the_cpus(device: torch.device, build: Callable[[torch.device], Any]) -> None:
    with in_float32():
        here, there = ([record["loss"] for record in take_steps(build(where), STEPS)] for where in (CPU, device))
    assert there == pytest.approx(here, rel=0.01)  # a GPU's float32 products are rounded to TF32
    assert len({round(loss, 4) for loss in here}) > 1
