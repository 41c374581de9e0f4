"""The word that a job has ended, through a real queue server: heard at once, missed without harm."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
import redis
from structlog.testing import capture_logs

from services import ends
from services.api import ear as ear_room
from services.api.ear import EndListener
from services.ends import CHANNEL, EndSpeaker
from tests.servers import QueueServer, free_port


class Ear:
    """What a listener has said so far."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.states: list[bool] = []

    @property
    def hears(self) -> bool:
        return self.states[-1:] == [True]


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Ear]:
    ear = Ear()
    task = asyncio.create_task(EndListener(url, ear.heard.append, ear.states.append).listen())
    try:
        yield ear
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], bool], timeout_s: float = 120.0) -> None:
    with anyio.fail_after(timeout_s):
        while not true():
            await anyio.sleep(0.01)


def test_words_arrive_in_order(own_queue_server: QueueServer) -> None:
    speaker = EndSpeaker(own_queue_server.url)

    async def main() -> None:
        async with listening(own_queue_server.url) as one, listening(own_queue_server.url) as other:
            await until(lambda: one.hears and other.hears)
            speaker.tell("anm_1")
            speaker.tell("anm_2")
            await until(lambda: len(one.heard) == len(other.heard) == 2)
            assert one.heard == other.heard == ["anm_1", "anm_2"], "every replica hears all of them"
        assert one.states == [True, False]

    asyncio.run(main())
    speaker.close()


def test_what_is_no_word_is_harmless(own_queue_server: QueueServer) -> None:
    async def main() -> None:
        async with listening(own_queue_server.url) as ear:
            await until(lambda: ear.hears)
            client = redis.Redis.from_url(own_queue_server.url)
            for data in (b"", b"\xff\x00", b"x" * 100_000, b"anm_1"):
                client.publish(CHANNEL, data)
            client.close()
            await until(lambda: "anm_1" in ear.heard)
            assert ear.hears

    asyncio.run(main())


def test_nobody_waits_for_a_speaker_without_a_server() -> None:
    speaker = EndSpeaker(f"redis://127.0.0.1:{free_port()}/0")
    with capture_logs() as lines:
        for number in range(1000):
            speaker.tell(f"anm_{number}")
        speaker.close(timeout_s=60)
    assert [line["event"] for line in lines] == ["ends_not_told"], "said once"


def test_a_speaker_at_a_frozen_server_keeps_nobody(own_queue_server: QueueServer) -> None:
    speaker = EndSpeaker(own_queue_server.url)
    os.kill(own_queue_server.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        for number in range(1000):
            speaker.tell(f"anm_{number}")
        assert time.monotonic() - began_s < ends.SOCKET_TIMEOUT_S, "telling does not wait for the socket"
        speaker.close(timeout_s=0.1)
    finally:
        os.kill(own_queue_server.pid, signal.SIGCONT)


def test_a_server_that_was_killed_is_heard_again(own_queue_server: QueueServer) -> None:
    speaker = EndSpeaker(own_queue_server.url)

    async def main() -> None:
        async with listening(own_queue_server.url) as ear:
            await until(lambda: ear.hears)
            own_queue_server.kill()
            await until(lambda: not ear.hears)
            own_queue_server.start()
            await until(lambda: ear.hears)
            speaker.tell("anm_1")
            await until(lambda: ear.heard == ["anm_1"])

    with capture_logs() as lines:
        asyncio.run(main())
    speaker.close()
    assert [line["event"] for line in lines].count("ends_not_heard") == 1


def test_a_frozen_server_is_not_taken_for_a_quiet_one(
    own_queue_server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ear_room, "SILENCE_S", 1.0)

    async def main() -> None:
        async with listening(own_queue_server.url) as ear:
            await until(lambda: ear.hears)
            await anyio.sleep(2.5 * ear_room.SILENCE_S)
            assert ear.states == [True], "a quiet one is asked and answers"
            os.kill(own_queue_server.pid, signal.SIGSTOP)
            try:
                await until(lambda: not ear.hears)
            finally:
                os.kill(own_queue_server.pid, signal.SIGCONT)
            await until(lambda: ear.hears)

    asyncio.run(main())
