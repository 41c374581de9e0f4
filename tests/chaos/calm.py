"""What is measured before the storm, while nothing else is wrong: cancels, and POST without its queue server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.client import Accepted, Away
from tests.chaos.faults import World
from tests.chaos.orders import Kind, Order, make_order

PATIENCE_S = 300.0
POLL_S = 0.05
QUEUED_CANCELS = 4
POST_EVERY_S = 0.25


@dataclass
class Calm:
    """Seconds, as a client sees them."""

    cancel_queued_s: list[float] = field(default_factory=list)
    cancel_running_s: list[float] = field(default_factory=list)
    posts_s: list[float] = field(default_factory=list)  # with Redis frozen
    backlog_s: float | None = None  # from Redis' return until no job of its absence is queued any more
    canceled: set[str] = field(default_factory=set)


def make_calm_orders(prefix: str, workers: int, outage_s: float, seed: int) -> list[Order]:
    """Return the orders that ``measure`` needs: long ones to be canceled first, then those of the outage."""
    kinds = [Kind.LONG] * (workers + QUEUED_CANCELS) + [Kind.TRIVIAL] * max(4, int(outage_s / POST_EVERY_S / 2))
    return [make_order(f"{prefix}-calm-{index:03d}", kind, seed + index) for index, kind in enumerate(kinds)]


def measure(world: World, orders: list[Order], workers: int, outage_s: float) -> Calm:
    """Measure and return; every order is accepted afterwards."""
    calm = Calm()
    cut = workers + QUEUED_CANCELS
    _measure_cancels(world, calm, orders[:workers], orders[workers:cut])
    _measure_outage(world, calm, orders[cut:], outage_s)
    return calm


def _measure_cancels(world: World, calm: Calm, running: list[Order], queued: list[Order]) -> None:
    """Fill every worker with a long film, queue more, and cancel all of them."""
    first = [_take(world, order) for order in running]
    for taken in first:
        _wait(world, lambda one=taken: _look(world, one)["frames_done"] > 0, f"{taken.id} draws")  # type: ignore[misc]
    for taken in [_take(world, order) for order in queued]:
        calm.cancel_queued_s.append(_cancel(world, calm, taken))
    for taken in first:
        calm.cancel_running_s.append(_cancel(world, calm, taken))


def _cancel(world: World, calm: Calm, taken: Accepted) -> float:
    began_s = time.monotonic()
    calm.canceled.add(taken.id)
    if not world.service.client.cancel(taken.id):
        world.complaints.append(f"{taken.id} could not be canceled")
    _wait(world, lambda: _look(world, taken)["status"] == "canceled", f"{taken.id} is canceled")
    return time.monotonic() - began_s


def _measure_outage(world: World, calm: Calm, orders: list[Order], outage_s: float) -> None:
    """Post while the queue server is frozen, and see how soon after its return all of that has left the queue."""
    pid, ends_s = world.ground.queue.pid, time.monotonic() + outage_s
    os.kill(pid, signal.SIGSTOP)
    taken = []
    try:
        for order in orders:
            began_s = time.monotonic()
            taken.append(_take(world, order))
            calm.posts_s.append(time.monotonic() - began_s)
            time.sleep(max(0.0, POST_EVERY_S - calm.posts_s[-1]))
        time.sleep(max(0.0, ends_s - time.monotonic()))
    finally:
        os.kill(pid, signal.SIGCONT)
    returned_s = time.monotonic()
    for one in taken:
        _wait(world, lambda one=one: _look(world, one)["status"] != "queued", f"{one.id} leaves the queue")  # type: ignore[misc]
    calm.backlog_s = time.monotonic() - returned_s


def _take(world: World, order: Order) -> Accepted:
    taken = world.submitter.post(order, PATIENCE_S)
    if taken is None:
        raise RuntimeError(f"{order.key} was not taken within {PATIENCE_S:.0f} s")
    return taken


def _look(world: World, taken: Accepted) -> dict[str, Any]:
    job: dict[str, Any] = world.service.client.look(f"/v1/animations/{taken.id}")
    return job


def _wait(world: World, condition: Callable[[], bool], what: str) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_s:
        try:
            if condition():
                return
        except Away:
            pass
        time.sleep(POLL_S)
    world.complaints.append(f"not within {PATIENCE_S:.0f} s: {what}")
