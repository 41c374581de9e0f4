"""Photographs over HTTP: faces are found at POST, refused in words, told in the job; ``faces:detect`` tells first."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from model.faces.detector import DETECTOR_FILE
from services.settings import Settings
from tests.photographs import BOX, landscape, read_photograph, scale, to_png, two_faces
from tests.services.api.conftest import post_photo, post_sampled, rooms_of, write_model


@pytest.fixture
def photo_client(settings: Settings, serve: Callable[..., TestClient]) -> TestClient:
    """A service whose default model animates drawn faces, and whose model ``photo`` needs a face."""
    write_model(settings.bundles_dir, "photo", "photo", detector=DETECTOR_FILE.read_bytes())
    return serve()


@pytest.fixture(scope="module")
def astronaut() -> bytes:
    return to_png(read_photograph())


def detect(client: Any, picture: bytes, **fields: str) -> Any:
    return client.post("/v1/faces:detect", data=fields, files={"image": ("photo.png", picture, "image/png")})


def refused(answer: Any, code: str) -> dict[str, Any]:
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code
    assert problem["hint"]
    return problem


def test_a_job_tells_the_face_that_moves(photo_client: TestClient, astronaut: bytes) -> None:
    answer = post_photo(photo_client, astronaut, model="photo")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    (face,) = job["faces"]
    assert face["selected"]
    assert face["index"] == 0
    assert face["score"] > 0.99
    assert np.abs(np.array(face["box"]) - BOX).max() < 8
    assert np.array(face["landmarks"]).shape == (5, 2)
    assert photo_client.get(f"/v1/animations/{job['id']}").json()["faces"] == job["faces"]
    record = rooms_of(photo_client).store.get(job["id"])
    assert record is not None
    assert record.input.selected_face is not None, "the worker aligns by what was told"


@pytest.mark.parametrize(
    ("picture", "code", "found"),
    [
        (landscape(), "no-face", 0),
        (two_faces(), "multiple-faces", 2),
        (scale(read_photograph(), 0.3), "face-too-small", 1),
    ],
)
def test_a_photograph_that_cannot_be_animated_never_becomes_a_job(
    photo_client: TestClient, picture: np.ndarray, code: str, found: int
) -> None:
    problem = refused(post_photo(photo_client, to_png(picture), model="photo"), code)
    assert len(problem["faces"]) == found
    for face in problem["faces"]:
        assert len(face["box"]) == 4
    assert photo_client.get("/v1/animations").json()["data"] == []
    assert post_photo(photo_client, to_png(picture), model="photo", align="none").status_code == 202


def test_which_face_can_be_said_in_three_ways(photo_client: TestClient) -> None:
    picture = to_png(two_faces())
    found = detect(photo_client, picture, model="photo").json()["faces"]
    for choice, wanted in (({"index": 1}, 1), ({"select": "largest"}, 0), ({"box": found[1]["box"]}, 1)):
        job = post_photo(photo_client, picture, model="photo", face=json.dumps(choice)).json()
        assert [face["selected"] for face in job["faces"]] == [wanted == 0, wanted == 1], choice
    body = {
        "prompt": "smiling",
        "model": "photo",
        "image_base64": base64.b64encode(picture).decode(),
        "face": {"index": 1},
    }
    assert photo_client.post("/v1/animations", json=body).json()["faces"][1]["selected"]
    problem = refused(post_photo(photo_client, picture, model="photo", face='{"index": 2}'), "no-face")
    assert len(problem["faces"]) == 2


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"face": "{}"}, "#/face"),
        ({"face": '{"index": 0, "select": "largest"}'}, "#/face"),
        ({"face": '{"box": [9, 9, 3, 20]}'}, "#/face"),
        ({"face": '{"index": -1}'}, "#/face/index"),
        ({"face": '{"select": "smallest"}'}, "#/face/select"),
        ({"face": '{"name": "Eileen"}'}, "#/face/name"),
        ({"face": '{"index": 0}', "align": "none"}, "#/face"),
        ({"compose": "collage"}, "#/compose"),
        ({"compose": "paste_back", "frames": "960", "output": '{"size": 1024}'}, ""),
    ],
)
def test_what_the_new_fields_may_hold(photo_client: TestClient, astronaut: bytes, fields: dict, pointer: str) -> None:
    answer = post_photo(photo_client, astronaut, **fields)
    if not pointer:
        assert answer.status_code == 202, "960 frames of 1024 px fit"
        return
    problem = refused(answer, "validation-failed")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


def test_a_sampled_face_has_no_photograph(photo_client: TestClient) -> None:
    for fields in ({"compose": "paste_back"}, {"face": {"index": 0}}):
        problem = refused(post_sampled(photo_client, **fields), "validation-failed")
        assert problem["errors"][0]["pointer"] == f"#/{next(iter(fields))}"


def test_a_film_of_a_large_photograph_is_bounded(photo_client: TestClient) -> None:
    wide = to_png(np.full((1500, 2000, 3), 90, np.uint8))
    problem = refused(
        post_photo(photo_client, wide, compose="paste_back", align="none", frames="400"), "validation-failed"
    )
    assert "357" in problem["detail"]
    answer = post_photo(photo_client, wide, compose="paste_back", align="none", frames="357")
    assert answer.status_code == 202


def test_drawn_faces_are_looked_for_only_where_somebody_asks(photo_client: TestClient, astronaut: bytes) -> None:
    assert post_photo(photo_client, astronaut).json()["faces"] == []
    assert post_photo(photo_client, astronaut, compose="paste_back").json()["faces"][0]["selected"]
    nobody = to_png(landscape())
    assert post_photo(photo_client, nobody, compose="paste_back").json()["faces"] == []
    refused(post_photo(photo_client, nobody, face='{"select": "largest"}'), "no-face")


def test_a_repeated_request_is_the_same_job(photo_client: TestClient, astronaut: bytes) -> None:
    fields = {"headers": {"Idempotency-Key": "once"}, "model": "photo", "face": '{"index": 0}'}
    first = post_photo(photo_client, astronaut, **fields)
    again = post_photo(photo_client, astronaut, **fields)
    assert first.json()["id"] == again.json()["id"]
    other = post_photo(photo_client, astronaut, **{**fields, "face": '{"select": "largest"}'})
    refused(other, "idempotency-mismatch")


# -- the dry run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["human", "photo"])
def test_detect_tells_what_a_job_would_do(photo_client: TestClient, astronaut: bytes, model: str) -> None:
    answer = detect(photo_client, astronaut, model=model)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["object"], found["model"], found["width"], found["height"]) == ("face_detection", model, 512, 512)
    assert found["problem"] is None
    (face,) = found["faces"]
    assert face["selected"]
    region = np.array(found["region"])
    left, top, right, bottom = face["box"]
    assert (region[0] < [left, top]).all()
    assert (region[2] > [right, bottom]).all()
    assert photo_client.get("/v1/animations").json()["data"] == [], "nothing is kept"


def test_models_tell_whether_they_find_faces(photo_client: TestClient) -> None:
    models = photo_client.get("/v1/models").json()["data"]
    assert {model["id"]: model["finds_faces"] for model in models} == {"human": False, "photo": True}


def test_detect_as_json(photo_client: TestClient, astronaut: bytes) -> None:
    body = {"image_base64": base64.b64encode(astronaut).decode(), "face": {"box": list(BOX)}}
    assert photo_client.post("/v1/faces:detect", json=body).json()["faces"][0]["selected"]


def test_detect_tells_why_a_job_would_be_refused(photo_client: TestClient) -> None:
    found = detect(photo_client, to_png(two_faces())).json()
    assert found["problem"]["code"] == "multiple-faces"
    assert found["region"] is None
    assert [face["selected"] for face in found["faces"]] == [False, False]
    found = detect(photo_client, to_png(two_faces()), face='{"index": 1}').json()
    assert found["problem"] is None
    assert [face["selected"] for face in found["faces"]] == [False, True]
    nobody = detect(photo_client, to_png(landscape())).json()
    assert (nobody["faces"], nobody["problem"]["code"]) == ([], "no-face")


def test_detect_refuses_what_is_no_request(photo_client: TestClient, astronaut: bytes) -> None:
    problem = refused(photo_client.post("/v1/faces:detect", json={}), "validation-failed")
    assert problem["errors"][0]["pointer"] == "#/image_base64"
    problem = refused(detect(photo_client, astronaut, prompt="smiling"), "validation-failed")
    assert problem["errors"][0]["pointer"] == "#/prompt"
    refused(detect(photo_client, astronaut, model="nobody"), "model-unknown")
    assert detect(photo_client, b"no picture").status_code == 415
    assert photo_client.post("/v1/faces:detect", content=b"x").status_code == 415
    assert photo_client.get("/v1/faces:detect").status_code == 405
