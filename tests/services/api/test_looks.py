"""All who wait share one look at the database, and there is an end to how many may wait."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient

from services.api import waiting
from services.api.auth import ANONYMOUS
from services.api.looks import CALM_FOLLOWERS, Follower, Looks
from services.api.resources import Resources
from services.api.waiting import choose_pause_s
from services.ends import EndSpeaker
from services.errors import TemporaryError
from services.jobs.contract import JobRecord
from tests.services.api.conftest import claim, expect_problem, finish, post_sampled


class Database:
    """Revisions of jobs, and how often they were asked for."""

    def __init__(self, **revisions: int) -> None:
        self.revisions = revisions
        self.asked: list[list[str]] = []
        self.away = False
        self.answering = threading.Event()
        self.answering.set()

    def ask(self, job_ids: Sequence[str]) -> dict[str, int]:
        self.asked.append(sorted(job_ids))
        assert self.answering.wait(60)
        if self.away:
            raise TemporaryError("not-ready", "The database is away.")
        return {each: self.revisions[each] for each in job_ids if each in self.revisions}


def make_record(job_id: str, revision: int = 1, owner: str = "me") -> JobRecord:
    return JobRecord.model_construct(id=job_id, revision=revision, owner=owner)


def make_looks(database: Database, places: int = 100, places_of_one: int = 100) -> Looks:
    return Looks(database.ask, places, places_of_one)


@asynccontextmanager
async def amid_a_look(database: Database, follower: Follower) -> AsyncIterator[None]:
    """While the database does not answer a follower's look."""
    database.answering.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follower.revision)
        while not database.asked:
            await anyio.sleep(0.005)
        yield


def test_one_look_serves_all() -> None:
    database = Database(a=1, b=1)
    looks = make_looks(database)

    async def main() -> None:
        with ExitStack() as places:
            crowd = [places.enter_context(looks.follow(make_record(name))) for name in "abababab"]
            assert [await each.revision() for each in crowd] == [1] * 8
            assert database.asked == [["a", "b"]]
            database.revisions["b"] = 7
            assert [await each.revision() for each in crowd] == [1, 7] * 4
            assert database.asked == [["a", "b"]] * 2
        assert not looks._followed
        assert not looks._owners
        assert not looks._revisions

    anyio.run(main)


def test_who_comes_amid_a_look_waits_for_the_next_one() -> None:
    database = Database(a=5, b=9)
    looks = make_looks(database)

    async def main() -> None:
        with looks.follow(make_record("a")) as first:
            async with amid_a_look(database, first):
                with looks.follow(make_record("b", revision=3)) as second:
                    assert await second.revision() == 3  # what it came with: nobody has asked for it yet
                    database.answering.set()
                    while looks._is_looking:
                        await anyio.sleep(0.005)
                    await second.revision()
                    assert await second.revision() == 9
            assert database.asked == [["a"], ["a", "b"]]

    anyio.run(main)


def test_a_word_wakes_those_who_wait_for_its_job() -> None:
    looks = make_looks(Database(a=1, b=1))
    woken: list[str] = []

    async def wait(name: str) -> None:
        with looks.follow(make_record(name)) as follower:
            assert await follower.rest(60.0)
            woken.append(name)

    async def main() -> None:
        looks.wake("a")  # nobody is there
        async with anyio.create_task_group() as tasks:
            for name in "aab":
                tasks.start_soon(wait, name)
            await anyio.wait_all_tasks_blocked()
            looks.wake("a")
            await anyio.wait_all_tasks_blocked()
            assert woken == ["a", "a"]
            looks.wake("b")
        with looks.follow(make_record("a")) as follower:
            assert not await follower.rest(0.01), "an earlier word is not for those who come later"
            looks.wake("a")
            assert await follower.rest(60.0)
            assert not await follower.rest(0.01), "nor does one end two rests, were there no look between them"
        assert not looks._bells

    anyio.run(main)


def test_a_word_amid_a_look_is_heard() -> None:
    database = Database(a=1)
    looks = make_looks(database)

    async def main() -> None:
        with looks.follow(make_record("a")) as follower:
            async with amid_a_look(database, follower):
                looks.wake("a")  # what the look has read may be older
                database.answering.set()
            assert await follower.rest(60.0)
            await follower.revision()
            assert not await follower.rest(0.01)

    anyio.run(main)


def test_who_is_told_looks_twice_a_second() -> None:
    assert choose_pause_s(0.0, is_told=True) == choose_pause_s(50.0, is_told=True) == 0.5
    assert choose_pause_s(0.0, is_told=False) == 0.01
    assert choose_pause_s(50.0, is_told=False) == 0.1


def test_a_job_that_is_gone() -> None:
    database = Database(a=1)
    looks = make_looks(database)

    async def main() -> None:
        with looks.follow(make_record("a")) as follower:
            assert await follower.revision() == 1
            del database.revisions["a"]
            assert await follower.revision() is None

    anyio.run(main)


def test_a_database_that_is_away_is_asked_again() -> None:
    database = Database(a=1)
    looks = make_looks(database)

    async def main() -> None:
        with looks.follow(make_record("a")) as follower:
            database.away = True
            with pytest.raises(TemporaryError):
                await follower.revision()
            database.away, database.revisions["a"] = False, 2
            await follower.revision()  # a look that failed counts as seen: it is not made again by everybody
            assert await follower.revision() == 2

    anyio.run(main)


def test_many_look_less_often() -> None:
    looks = make_looks(Database(), places=10**6)
    with ExitStack() as places:
        for number in range(10 * CALM_FOLLOWERS):
            assert looks.pace_s(0.1) == pytest.approx(0.1 * max(1.0, number / CALM_FOLLOWERS))
            places.enter_context(looks.follow(make_record(str(number))))


def test_places_are_bounded_in_all_and_for_one_owner() -> None:
    looks = make_looks(Database(), places=4, places_of_one=2)
    with ExitStack() as places:
        for name in "ab":
            looks.check_place("me")
            places.enter_context(looks.follow(make_record(name)))
        with pytest.raises(TemporaryError) as refusal:
            looks.check_place("me")
        assert refusal.value.code == "rate-limited"
        looks.check_place("you")
        for name in "cd":
            looks.check_place(ANONYMOUS)
            places.enter_context(looks.follow(make_record(name, owner=ANONYMOUS)))
        with pytest.raises(TemporaryError) as refusal:
            looks.check_place("you")
        assert refusal.value.code == "not-ready"
    looks.check_place("me")


@pytest.fixture
def full(serve: Callable[..., TestClient]) -> Any:
    """A service in which every place to wait is taken."""
    return serve(max_connections=1)  # so that three quarters of them are none


def test_a_full_service_answers_at_once(full: TestClient) -> None:
    response = post_sampled(full, headers={"Prefer": "wait=60"})
    assert response.status_code == 202
    assert "Preference-Applied" not in response.headers
    looked = full.get(response.headers["Location"], headers={"Prefer": "wait=60"})
    assert looked.status_code == 200
    assert "Preference-Applied" not in looked.headers
    expect_problem(full.get(f"{response.headers['Location']}/events"), 503, "not-ready")


def test_a_wait_outlives_a_pause_of_the_database(
    client: TestClient, rooms: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job was accepted: what happens to the database afterwards does not turn that into an error."""
    looks: list[int] = []

    def ask(job_ids: Sequence[str]) -> dict[str, int]:
        looks.append(1)
        if len(looks) < 3:
            raise TemporaryError("not-ready", "The database is away.")
        if len(looks) == 3:
            finish(rooms, claim(rooms))
        return rooms.store.revisions(job_ids)

    monkeypatch.setattr(rooms.looks, "_ask", ask)
    response = post_sampled(client, headers={"Prefer": "wait=60"})
    assert response.status_code == 201, response.text
    assert len(looks) >= 3


def test_a_wait_ends_with_the_word_and_without_a_look_before(
    client: TestClient, rooms: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    ask, speaker = rooms.store.revisions, EndSpeaker(rooms.settings.redis_url)

    def count(job_ids: Sequence[str]) -> Mapping[str, int]:
        looks.append(1)
        return ask(job_ids)

    monkeypatch.setattr(rooms.looks, "_ask", count)
    monkeypatch.setattr(waiting, "TOLD_LOOK_S", 300.0)
    until_s = time.monotonic() + 60
    while not rooms.looks.is_told and time.monotonic() < until_s:
        time.sleep(0.01)
    assert rooms.looks.is_told

    def end() -> None:
        while not rooms.looks._followed:
            time.sleep(0.01)
        job_id = next(iter(rooms.looks._followed))
        speaker.tell("anm_other")
        finish(rooms, claim(rooms))
        speaker.tell(job_id)

    worker = threading.Thread(target=end)
    worker.start()
    response = post_sampled(client, headers={"Prefer": "wait=60"})
    worker.join()
    speaker.close()
    assert response.status_code == 201, response.text
    assert 1 <= len(looks) <= 2
