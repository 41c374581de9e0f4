"""One act of chaos on one ground: calm measurements, a storm, the mending, the verdict."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import faults
from tests.chaos.audit import ENDS, Verdict, fetch_films, judge, read_jobs, read_lines
from tests.chaos.calm import Calm, make_calm_orders, measure
from tests.chaos.client import Submitter
from tests.chaos.faults import Fault, World
from tests.chaos.ground import Ground, open_ground
from tests.chaos.orders import make_orders
from tests.chaos.receiver import Receiver, open_receiver
from tests.chaos.service import Service, running_service
from tests.chaos.watch import Watcher

# How long nothing may happen before what has not ended counts as lost; beside two leases.
STILL_S = 120.0
TOLD_PATIENCE_S = 120.0
ABANDONED_SHARE = 0.1


@dataclass(frozen=True)
class Script:
    """How an act goes.

    Args:
        jobs: accepted in all.
        storm_s: faults begin for so long.
        pause_s: between two faults of one lane, at most.
        outage_s: length of an outage of one server.
        calm_outage_s: the queue server's absence before the storm.
        night: also kill the API and stall the database.
        settings: of the service.
    """

    jobs: int
    storm_s: float
    pause_s: float
    outage_s: float
    calm_outage_s: float
    workers: int
    night: bool
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """What an act found."""

    ground: str
    verdict: Verdict
    calm: Calm
    recoveries: dict[str, list[float]]
    faults: dict[str, int]
    posts_redis_away_s: list[float]
    posts_s: list[float]
    refused_posts: int
    drains_s: list[float]
    told: int
    refused_webhooks: int
    complaints: list[str]
    left_out: list[str]


def play(
    name: str, script: Script, folder: Path, bundles_dir: Path, *, may_mount: bool, together: threading.Barrier
) -> Outcome:
    """Play one act and return what became of its jobs.

    Args:
        together: acts that run at once wait here for each other, so that calm is calm.
    """
    with open_receiver() as receiver:
        settings = script.settings | {
            "outbound_allow": (f"127.0.0.1:{receiver.port}",),
            "webhook_delays_s": (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0),
        }
        with (
            open_ground(name, folder / name, bundles_dir, may_mount=may_mount, **settings) as ground,
            running_service(ground.settings, folder / name / "service", script.workers) as service,
        ):
            return _Act(script, ground, service, receiver, together).run()


class _Act:
    def __init__(
        self, script: Script, ground: Ground, service: Service, receiver: Receiver, together: threading.Barrier
    ) -> None:
        self._script = script
        self._receiver = receiver
        self._together = together
        self._ground = ground
        self._service = service
        self._calm_orders = make_calm_orders(ground.name, script.workers, script.calm_outage_s, script.seed)
        orders = make_orders(ground.name, script.jobs - len(self._calm_orders), seed=script.seed, webhook=receiver.url)
        # A little faster than the storm lasts, so that a queue stands behind every fault.
        rate = script.jobs / (0.9 * script.storm_s)
        submitter = Submitter(service.base_url, orders, rate=rate, abandon=ABANDONED_SHARE, seed=script.seed, threads=4)
        self._world = World(
            ground, service, submitter, Watcher(service.client), random.Random(script.seed), script.outage_s
        )

    def run(self) -> Outcome:
        world = self._world
        self._together.wait()
        world.say("calm: cancels, and POST without its queue server")
        calm = measure(world, self._calm_orders, self._script.workers, self._script.calm_outage_s)
        self._together.wait()
        world.say(f"storm: {self._script.jobs} jobs in {self._script.storm_s:.0f} s")
        world.watcher.start()
        world.submitter.start()
        self._storm()
        world.say("the storm is over")
        if not world.submitter.join(STILL_S):
            world.complaints.append(f"no POST was taken for {STILL_S:.0f} s; {self._service.tails()}")
        first = self._wait_ended()
        self._wait_told()
        # Who was frozen or slow had time to do harm by now, and the ended jobs must not have changed.
        time.sleep(2 * self._ground.settings.sweep_s)
        world.watcher.close()
        last = read_jobs(self._service.client)
        films = fetch_films(self._service.client, last)
        world.watcher.settle(last)
        lines = read_lines(worker.log for worker in self._service.workers)
        verdict = judge(
            world.submitter.ledger, last, first, films, lines, canceled=calm.canceled, told=self._receiver.told
        )
        return self._outcome(verdict, calm)

    def _storm(self) -> None:
        """Two lanes at once: what happens to processes, and what happens to servers."""
        ends_s = time.monotonic() + self._script.storm_s
        lanes = [
            threading.Thread(target=self._play_lane, args=(lane, ends_s), daemon=True)
            for lane in (self._process_faults(), self._server_faults())
        ]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()

    def _process_faults(self) -> Sequence[Fault]:
        found = [faults.kill_worker, faults.kill_child, faults.freeze_worker, faults.ask_worker_to_end]
        found += [faults.kill_all_workers, faults.kill_child, faults.kill_worker]
        return [*found, faults.kill_api] if self._script.night else found

    def _server_faults(self) -> Sequence[Fault]:
        found = [faults.freeze_redis, faults.wipe_redis]
        if self._ground.storage_road is not None:
            found += [faults.refuse_storage]
        if self._ground.disk is not None:
            found += [faults.fill_disk]
        found += [faults.kill_redis]
        if self._ground.postgres is not None:
            found += [faults.restart_postgres]
        if self._ground.storage_road is not None:
            found += [faults.slow_storage]
        found += [faults.black_hole_redis, faults.wipe_redis]
        if self._ground.database_road is not None and self._script.night:
            found += [faults.stall_database]
        return found

    def _play_lane(self, lane: Sequence[Fault], ends_s: float) -> None:
        """Play the lane's faults in order, again and again, until the storm is over."""
        random_ = random.Random(f"{self._script.seed} {lane[0].__name__}")
        while True:
            for fault in lane:
                time.sleep(random_.uniform(0.4, 1.0) * self._script.pause_s)
                if time.monotonic() > ends_s:
                    return
                try:
                    fault(self._world)
                except Exception as error:  # noqa: BLE001 - a fault that can't be made must not stop the others, and is told
                    self._world.complaints.append(f"{fault.__name__}: {type(error).__name__}: {error}")

    def _wait_ended(self) -> dict[str, Any]:
        """Wait until every accepted job has ended, or nothing has happened for very long; return all jobs."""
        ledger = self._world.submitter.ledger
        still_s = STILL_S + 2 * self._ground.settings.lease_s
        ended, changed_s = -1, time.monotonic()
        while True:
            jobs = read_jobs(self._service.client)
            now_ended = sum(jobs.get(taken.id, {}).get("status") in ENDS for taken in ledger.accepted.values())
            if now_ended != ended:
                ended, changed_s = now_ended, time.monotonic()
                self._world.say(f"{ended} of {len(ledger.accepted)} jobs have ended")
            if ended == len(ledger.accepted):
                return jobs
            if time.monotonic() - changed_s > still_s:
                self._world.complaints.append(f"nothing happened for {still_s:.0f} s; {self._service.tails()}")
                return jobs
            time.sleep(0.5)

    def _wait_told(self) -> None:
        """Give webhooks the time of some more tries."""
        wanted = {taken.id for taken in self._world.submitter.ledger.accepted.values() if "webhook" in taken.order.body}
        ends_s = time.monotonic() + TOLD_PATIENCE_S
        while wanted - self._receiver.told.keys() and time.monotonic() < ends_s:
            time.sleep(0.5)

    def _outcome(self, verdict: Verdict, calm: Calm) -> Outcome:
        world, ledger = self._world, self._world.submitter.ledger
        during = [
            answer.seconds
            for answer in ledger.answers
            if any(began_s <= answer.at_s <= ended_s for began_s, ended_s in world.redis_away)
        ]
        return Outcome(
            ground=self._ground.name,
            verdict=verdict,
            calm=calm,
            recoveries=world.watcher.recoveries(),
            faults=dict(sorted(world.counts.items())),
            posts_redis_away_s=during,
            posts_s=[answer.seconds for answer in ledger.answers],
            refused_posts=sum(answer.status == 503 for answer in ledger.answers),
            drains_s=world.drains_s,
            told=len(self._receiver.told),
            refused_webhooks=len(self._receiver.refused),
            complaints=world.complaints + [f"wrong answer: {words}" for words in ledger.wrong],
            left_out=[f"{self._ground.name}: disk full ({self._ground.missing})"] if self._ground.missing else [],
        )
