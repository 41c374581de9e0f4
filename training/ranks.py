"""The processes of one training run: who am I, and the few things that all of them do together.

One process needs nothing of this. `torchrun --nproc-per-node K -m training.cli …` (or several machines) starts K,
each calls `join_ranks`, and every stage that says so shares its batch among them. Gloo on CPU, NCCL on CUDA.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of the run."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Say whether this process writes files and speaks."""
        return self.rank == 0


def current_ranks() -> Ranks:
    """Give this process's place; alone unless `join_ranks` was called."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


@contextmanager
def join_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the run's other processes when torchrun started this one; otherwise stay alone.

    On CUDA the process takes the device of its LOCAL_RANK before it joins.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield current_ranks()
    finally:
        dist.destroy_process_group()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Say whether the flag is up on any process."""
    if current_ranks().world == 1:
        return flag
    shared = torch.tensor(float(flag), device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return bool(shared > 0)


def sum_ranks(values: Tensor) -> Tensor:
    """Add a tensor over all processes, in place, and give it."""
    if current_ranks().world > 1:
        dist.all_reduce(values)
    return values


def gather_ranks(values: Tensor) -> Tensor:
    """Join a tensor of every process along its first axis, in order of rank.

    Shapes: [n,…] → [world·n,…]; n is the same everywhere.
    """
    world = current_ranks().world
    if world == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world)]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add every parameter's gradient over all processes, in one flat message.

    Each process's loss is already its share of the global mean, so the sum is the gradient of the global batch. All
    processes run the same graph, so a parameter without a gradient here has none elsewhere, and keeps none: an
    optimiser must not take it for a gradient of zero.
    """
    if current_ranks().world == 1:
        return
    kept = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for _, gradient in kept])
    dist.all_reduce(flat)
    start = 0
    for parameter, gradient in kept:
        count = parameter.numel()
        gradient.copy_(flat[start : start + count].view_as(gradient))
        start += count
