"""The faults: each a function of the world that returns when the fault is over.

A kill spares jobs that were hit twice before: three crashes fail a job by promise, whoever is to blame for them.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.chaos.client import Away, Submitter
from tests.chaos.ground import Ground
from tests.chaos.orders import DEADLY
from tests.chaos.proxy import Proxy, Road
from tests.chaos.service import Member, Service
from tests.chaos.watch import Hit, Watcher

AIM_PATIENCE_S = 15.0
# For so long a fault waits for a worker that is in the middle of a film; then it takes any.
PREY_PATIENCE_S = 12.0
# So long a thawed worker is left alone: time enough to do harm, if it can.
THAWED_S = 5.0
# So many crashes a job may have had before and still be hit by a kill.
SPARED_FROM_ATTEMPT = 3

Fault = Callable[["World"], None]


@dataclass
class World:
    """What a fault can lay its hands on, and the diary."""

    ground: Ground
    service: Service
    submitter: Submitter
    watcher: Watcher
    random: random.Random
    outage_s: float
    counts: dict[str, int] = field(default_factory=dict)
    redis_away: list[tuple[float, float]] = field(default_factory=list)
    drains_s: list[float] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def say(self, words: str) -> None:
        """Tell the person who watches."""
        print(f"[chaos {self.ground.name}] {words}", file=sys.stderr, flush=True)

    def count(self, kind: str) -> None:
        """Enter a fault that happened."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.say(kind)

    def pick(self) -> Member | None:
        """Return a living worker in the middle of an innocent job if one soon is."""
        ends_s = time.monotonic() + PREY_PATIENCE_S
        while True:
            free = [worker for worker in self.service.workers if worker.pid]
            busy = [worker for worker in free if worker.encodes()] if self._innocents_run() else []
            if busy or time.monotonic() > ends_s:
                found = busy or free
                return self.random.choice(found) if found else None
            time.sleep(0.1)

    def _innocents_run(self) -> bool:
        try:
            return bool(self.service.client.running().keys() - self.deadly())
        except Away:
            return False

    def deadly(self) -> set[str]:
        """The jobs that crash by themselves."""
        taken = list(self.submitter.ledger.accepted.values())
        return {one.id for one in taken if one.order.kind in DEADLY}


# -- processes --------------------------------------------------------------------------------------------------------


def kill_child(world: World) -> None:
    """Kill -9 of an inference child."""
    worker = world.pick()
    if worker is not None:
        _shoot(world, "inference child killed", [worker], _kill_inference_child)


def kill_worker(world: World) -> None:
    """Kill -9 of a worker with everything below it."""
    worker = world.pick()
    if worker is not None:
        _shoot(world, "worker group killed", [worker], lambda member: member.send(signal.SIGKILL))


def kill_all_workers(world: World) -> None:
    """Kill -9 of every worker at once."""
    _shoot(world, "all worker groups killed", world.service.workers, lambda member: member.send(signal.SIGKILL))


def freeze_worker(world: World) -> None:
    """SIGSTOP of a worker until another one has taken its job, then SIGCONT: it must write nothing visible."""
    worker = world.pick()
    hit = None if worker is None else _hold(world, worker)
    if worker is None or hit is None:
        return
    settings = world.ground.settings
    # Longer where it is known which job another worker is to take.
    leases = 2 if hit.attempts else 1
    ends_s = time.monotonic() + leases * settings.lease_s + 2 * settings.sweep_s
    while time.monotonic() < ends_s and not hit.recovered_s:
        time.sleep(0.1)
    worker.send(signal.SIGCONT)
    world.say(f"{worker.name} thawed")
    time.sleep(THAWED_S)


def ask_worker_to_end(world: World) -> None:
    """SIGTERM in the middle of a job: the process must be gone inside its grace period."""
    worker = world.pick()
    if worker is None:
        return
    grace_s = world.ground.settings.grace_s
    began_s = time.monotonic()
    worker.ask_to_end()
    code = worker.wait_gone(grace_s)
    world.count("worker asked to end")
    world.drains_s.append(time.monotonic() - began_s)
    if code is None:
        world.complaints.append(f"{worker.name} was still there {grace_s} s after SIGTERM")
        worker.send(signal.SIGKILL)
    elif code not in (0, -signal.SIGKILL):  # venom may be quicker than the grace period
        world.complaints.append(f"{worker.name} ended with {code} after SIGTERM")


def kill_api(world: World) -> None:
    """Kill -9 of the API."""
    world.service.api.send(signal.SIGKILL)
    world.count("API killed")


def _victims(workers: list[Member], running: dict[str, int], deadly: set[str]) -> dict[str, int]:
    """Return the innocent jobs that these stopped workers have in hand, and their attempts."""
    held = {worker.in_hand() for worker in workers} - deadly
    return {job_id: attempt for job_id, attempt in running.items() if job_id in held}


def _kill_inference_child(worker: Member) -> None:
    child = worker.inference_child()
    if child is not None:
        os.kill(child, signal.SIGKILL)


def _shoot(world: World, kind: str, workers: list[Member], shot: Callable[[Member], None]) -> None:
    """Stop the workers, see what they have in hand, and shoot unless one of it was hit twice before."""
    ends_s = time.monotonic() + AIM_PATIENCE_S
    while time.monotonic() < ends_s:
        for worker in workers:
            worker.send(signal.SIGSTOP)
        try:
            running = world.service.client.running()
        except Away:
            running = None
        deadly = world.deadly()
        spared = running is None or any(
            attempt >= SPARED_FROM_ATTEMPT for job_id, attempt in running.items() if job_id not in deadly
        )
        if not spared:
            victims = _victims(workers, running or {}, deadly)
            for worker in workers:
                shot(worker)
            world.watcher.note(kind, victims)
            world.count(kind)
        for worker in workers:
            worker.send(signal.SIGCONT)
        if not spared:
            return
        time.sleep(0.3)
    world.say(f"passed over: {kind} (every time a job ran that was hit twice, or the API was away)")


def _hold(world: World, worker: Member) -> Hit | None:
    """Freeze a worker, but not while it holds SQLite's one lock: then nobody could write, which is no promise of ours.

    Whether it does, the next POST tells.
    """
    for _ in range(10):
        worker.send(signal.SIGSTOP)
        try:
            running = world.service.client.running()
        except Away:
            running = {}
        deadly = world.deadly()
        spared = any(attempt >= SPARED_FROM_ATTEMPT for job_id, attempt in running.items() if job_id not in deadly)
        if running and not spared and (world.submitter.post_next(3.0) is not None or not world.submitter.left):
            world.count("worker frozen past its lease")
            return world.watcher.note("worker frozen past its lease", _victims([worker], running, deadly))
        worker.send(signal.SIGCONT)
        time.sleep(0.3)
    world.say("passed over: freezing a worker")
    return None


# -- the queue server -------------------------------------------------------------------------------------------------


@contextmanager
def _redis_away(world: World, kind: str) -> Iterator[None]:
    world.count(kind)
    began_s = time.time()
    yield
    world.redis_away.append((began_s, time.time()))


def kill_redis(world: World) -> None:
    """Kill -9 of the queue server, which keeps nothing on its disk: what it held is gone."""
    with _redis_away(world, "Redis killed"):
        world.ground.queue.kill()
        time.sleep(world.outage_s)
        world.ground.queue.start()


def freeze_redis(world: World) -> None:
    """SIGSTOP of the queue server."""
    pid = world.ground.queue.pid
    with _redis_away(world, "Redis frozen"):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(world.outage_s)
        os.kill(pid, signal.SIGCONT)


def wipe_redis(world: World) -> None:
    """FLUSHALL."""
    import redis

    with redis.Redis.from_url(world.ground.queue.url, socket_timeout=30) as client:
        client.flushall()
    world.count("Redis wiped")


def black_hole_redis(world: World) -> None:
    """Whatever is said to the queue server is lost, and nothing comes back."""
    with _redis_away(world, "black hole before Redis"), world.ground.redis_road.made(Road.BLACK_HOLE):
        time.sleep(world.outage_s)


# -- the database and the object store --------------------------------------------------------------------------------


def restart_postgres(world: World) -> None:
    """PostgreSQL ends at once, as in a crash, and comes back."""
    postgres = world.ground.postgres
    assert postgres is not None
    world.count("PostgreSQL restarted")
    postgres.stop()
    time.sleep(1.0)
    postgres.start()


def stall_database(world: World) -> None:
    """Nothing moves between the service and its database, and moves on afterwards."""
    seconds = min(world.outage_s, world.ground.settings.lease_s / 2)
    _disturb(world, "database stalled", world.ground.database_road, Road.FROZEN, seconds)


def refuse_storage(world: World) -> None:
    """The object store ends every connection."""
    _disturb(world, "storage refusing", world.ground.storage_road, Road.CUT, world.outage_s)


def slow_storage(world: World) -> None:
    """The object store answers at a modem's speed."""
    _disturb(world, "storage slow", world.ground.storage_road, Road.SLOW, world.outage_s)


def _disturb(world: World, kind: str, way: Proxy | None, road: Road, seconds: float) -> None:
    """Put a fault on a way for some seconds; only a ground that has this way is asked for it."""
    assert way is not None
    world.count(kind)
    with way.made(road):
        time.sleep(seconds)


def fill_disk(world: World) -> None:
    """No byte is left where the database and the objects lie."""
    disk = world.ground.disk
    assert disk is not None
    world.count("disk full")
    with disk.full():
        ends_s = time.monotonic() + world.outage_s
        while time.monotonic() < ends_s:
            time.sleep(0.2)
            disk.top_up()
