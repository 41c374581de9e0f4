"""The hostile corpus at the front door: a problem document each, nothing stored, and the service none the worse."""

from __future__ import annotations

from typing import Any

from services.api.problems import STATUSES
from services.api.resources import Resources
from services.settings import Settings
from tests.services.api.conftest import expect_problem, post_photo, stored_files
from tests.services.pictures.hostile import CORPUS


def test_every_hostile_file_is_a_problem_or_a_picture(
    client: Any, rooms: Resources, settings: Settings, photo: bytes
) -> None:
    accepted = 0
    for hostile in CORPUS:
        data = hostile.make()
        if len(data) > settings.max_body_bytes - 1000:
            continue
        answer = post_photo(client, data)
        if answer.status_code == 202:
            assert "" in hostile.codes, hostile.name
            assert answer.json()["input"]["width"] > 0
            accepted += 1
        else:
            code = answer.json()["code"]
            assert code in hostile.codes, hostile.name
            assert 400 <= STATUSES[code] < 500
            expect_problem(answer, STATUSES[code], code)
    assert rooms.store.counts()["queued"] == accepted
    assert len(stored_files(settings)) == accepted > 20
    assert post_photo(client, photo).status_code == 202
    assert client.get("/livez").status_code == 200


def test_hostile_files_find_no_faces_either(client: Any, settings: Settings) -> None:
    for hostile in CORPUS[::7]:
        data = hostile.make()
        if len(data) > settings.max_body_bytes - 1000:
            continue
        answer = client.post("/v1/faces:detect", files={"image": ("face.png", data, "image/png")})
        code = "" if answer.status_code == 200 else answer.json()["code"]
        assert code in hostile.codes, hostile.name
    assert stored_files(settings) == []
