"""Bodies of requests: what many of them may take together, and that none outlives its use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from services.api import animations
from services.api.auth import ANONYMOUS
from services.api.bodies import BodyRoom
from services.errors import TemporaryError
from tests.services.api.conftest import expect_problem, post_photo, post_sampled, rooms_of


def test_room_is_counted_for_all_and_for_one_owner() -> None:
    room = BodyRoom(100, 60)
    with room.hold("me") as mine, room.hold("you") as yours:
        mine.take(60)
        with pytest.raises(TemporaryError):
            mine.take(1)
        yours.take(40)
        with pytest.raises(TemporaryError) as refusal:
            yours.take(1)
        assert refusal.value.code == "not-ready"
        with room.hold(ANONYMOUS) as nobodys, pytest.raises(TemporaryError):
            nobodys.take(1)
    with room.hold(ANONYMOUS) as nobodys:  # without keys everybody is the same owner
        nobodys.take(100)
    assert not room._held


def test_room_is_given_back_whatever_happens() -> None:
    room = BodyRoom(100, 100)

    def fail() -> None:
        with room.hold("me") as share:
            share.take(100)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with room.hold("me") as share:
        share.take(100)


def test_a_body_without_room_is_told_to_come_back(client: TestClient, photo: bytes) -> None:
    rooms = rooms_of(client)
    limit = 8 * rooms.settings.max_body_bytes
    with rooms.bodies.hold("somebody") as share:
        share.take(limit // 2)
        with rooms.bodies.hold("another") as rest:
            rest.take(limit // 2 - 2000)
            expect_problem(post_photo(client, photo), 503, "not-ready")
            expect_problem(client.post("/v1/faces:detect", files={"image": ("a.png", photo)}), 503, "not-ready")
            assert post_sampled(client).status_code == 202  # there is room for a small one

            def pieces() -> Iterator[bytes]:
                for _ in range(100):
                    yield b" " * 1000

            headers = {"Content-Type": "application/json"}
            expect_problem(client.post("/v1/animations", content=pieces(), headers=headers), 503, "not-ready")
    assert post_photo(client, photo).status_code == 202
    assert not rooms.bodies._held


def test_no_body_is_kept_while_the_client_waits(
    serve: Callable[..., TestClient], photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait takes up to a minute: hundreds of waiting clients must not hold hundreds of pictures."""
    client = serve()
    kept: list[int] = []
    held: list[object] = []

    async def look(rooms: Any, record: Any, *_: Any) -> Any:
        kept.append(rooms.bodies._held.total())
        return record

    read = animations.read_whole

    async def note(request: Any, share: Any) -> bytes:
        held.append(request)
        return await read(request, share)

    monkeypatch.setattr(animations, "wait_as_asked", look)
    monkeypatch.setattr(animations, "read_whole", note)
    response = post_photo(client, photo, headers={"Prefer": "wait=60"})
    assert response.status_code == 202
    assert kept == [0]
    assert not hasattr(held[0], "_body"), "the request keeps its body for as long as it lives"
