"""Forms and JSON bodies, right and wrong: every refusal names its field, and nothing is queued by it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from services.api.resources import Resources
from tests.services.api.conftest import expect_problem, post_photo, post_sampled
from tests.services.api.pictures import encode, make_photo, png_bomb

SAMPLED = {"prompt": "smiling", "source": "sampled"}


def pointers(problem: dict[str, Any]) -> list[str]:
    return [error["pointer"] for error in problem["errors"]]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"prompt": ""}, "#/prompt"),
        ({"prompt": "   \n\t "}, "#/prompt"),
        ({"prompt": "\u200b\u2060"}, "#/prompt"),
        ({"prompt": None}, "#/prompt"),
        ({"prompt": 5}, "#/prompt"),
        ({"prompt": "x" * 301}, "#/prompt"),
        ({"prompt": "smi\0ling"}, "#/prompt"),
        ({"prompt": "smi\x1bling"}, "#/prompt"),
        ({"prompt": ["smiling"]}, "#/prompt"),
        ({"frames": 24, "duration_s": 1}, "#/frames"),
        ({"frames": 0}, "#/frames"),
        ({"frames": 961}, "#/frames"),
        ({"frames": 10**30}, "#/frames"),
        ({"frames": "24"}, "#/frames"),
        ({"frames": True}, "#/frames"),
        ({"frames": 1.5}, "#/frames"),
        ({"fps": 0}, "#/fps"),
        ({"fps": 61}, "#/fps"),
        ({"duration_s": 0}, "#/duration_s"),
        ({"duration_s": 40.1}, "#/duration_s"),
        ({"duration_s": 40, "fps": 60}, "#/duration_s"),
        ({"duration_s": 0.001}, "#/duration_s"),
        ({"intensity": -0.1}, "#/intensity"),
        ({"intensity": 2.1}, "#/intensity"),
        ({"seed": -1}, "#/seed"),
        ({"seed": 2**32}, "#/seed"),
        ({"loop": "forever"}, "#/loop"),
        ({"easing": ""}, "#/easing"),
        ({"sway": "perhaps"}, "#/sway"),
        ({"align": "yes"}, "#/align"),
        ({"source": "camera"}, "#/source"),
        ({"output": {"size": 65}}, "#/output/size"),
        ({"output": {"size": 62}}, "#/output/size"),
        ({"output": {"size": 1026}}, "#/output/size"),
        ({"output": {"format": "avi"}}, "#/output/format"),
        ({"output": {"quality": 0}}, "#/output/quality"),
        ({"output": {"codec": "h264"}}, "#/output/codec"),
        ({"output": "mp4"}, "#/output"),
        ({"metadata": {"a": 1}}, "#/metadata/a"),
        ({"metadata": {"a/b~c": 1}}, "#/metadata/a~1b~0c"),
        ({"metadata": {"a": "x" * 501}}, "#/metadata/a"),
        ({"metadata": {"a": "b\0c"}}, "#/metadata/a"),
        ({"metadata": {"a\0": "b"}}, "#/metadata/a\0"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "#/metadata"),
        ({"deadline_s": 0}, "#/deadline_s"),
        ({"ttl_s": 59}, "#/ttl_s"),
        ({"ttl_s": 10**12}, "#/ttl_s"),
        ({"surprise": 1}, "#/surprise"),
        ({"webhook": {}}, "#/webhook/url"),
        ({"options": {}}, "#/options"),
        ({"image": "x"}, "#/image"),
        ({"image_base64": 5}, "#/image_base64"),
        ({"image_base64": "no base64!"}, "#/image_base64"),
        ({"image_base64": "data:image/png,plain"}, "#/image_base64"),
        ({"image_base64": "AAAA"}, "#/image_base64"),  # with "sampled"
    ],
)
def test_wrong_fields_in_json(shared: TestClient, fields: dict[str, Any], pointer: str) -> None:
    problem = expect_problem(shared.post("/v1/animations", json={**SAMPLED, **fields}), 422, "validation-failed")
    assert pointer in pointers(problem)


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        (b'{"prompt": "\\ud83d smile"}', "#/prompt", "half a character"),
        (b'{"\\ude00": 1}', "#/?", "half a character"),
        (b'{"metadata": {"a": ["\\uDFFF"]}}', "#/metadata", "half a character"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "#", "too large"),
        (b'{"prompt": "smiling", "face": {}}', "#/face", "Exactly one of"),
        (b'{"prompt": "smiling", "zoom": 1}', "#/zoom", "no such field"),
    ],
)
def test_the_detail_says_what_is_wrong_in_words(shared: TestClient, body: bytes, pointer: str, words: str) -> None:
    response = shared.post("/v1/animations", content=body, headers={"Content-Type": "application/json"})
    (error,) = expect_problem(response, 422, "validation-failed")["errors"]
    assert error["pointer"] == pointer
    assert words in error["detail"]


def test_both_halves_of_a_character_are_one(client: TestClient) -> None:
    body = b'{"prompt": "\\ud83d\\ude00", "source": "sampled", "frames": 1}'
    response = client.post("/v1/animations", content=body, headers={"Content-Type": "application/json"})
    assert response.json()["input"]["prompt"] == "😀"


@pytest.mark.parametrize(
    ("unknown", "hint"), [("promt", "`prompt`"), ("duration", "`duration_s`"), ("x", "See errors")]
)
def test_a_field_that_is_not_known_gets_a_hint(shared: TestClient, unknown: str, hint: str) -> None:
    response = shared.post("/v1/animations", json={**SAMPLED, unknown: 1})
    assert hint in expect_problem(response, 422, "validation-failed")["hint"]


def test_several_wrong_fields_are_all_named(shared: TestClient) -> None:
    body = {"source": "sampled", "fps": 0, "output": {"format": "avi", "quality": 0}, "zoom": 1}
    problem = expect_problem(shared.post("/v1/animations", json=body), 422, "validation-failed")
    assert {"#/prompt", "#/fps", "#/output/format", "#/output/quality", "#/zoom"} <= set(pointers(problem))


def test_refusals_do_not_repeat_what_was_sent(shared: TestClient) -> None:
    body = {"prompt": "CANARY " * 60, "source": "CANARY", "model": "CANARY" * 20, "fps": "CANARY"}
    assert "CANARY" not in shared.post("/v1/animations", json=body).text
    assert "CANARY" not in shared.post("/v1/animations", json={**SAMPLED, "model": "CANARY"}).text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b"{",
        b'{"prompt": "smiling", "source": "sampled", "intensity": NaN}',
        b'{"prompt": "smiling", "source": "sampled", "intensity": Infinity}',
        b'{"prompt": "smiling", "source": "sampled", "intensity": 1e999}',
        b'{"prompt": "smiling", "source": "sampled", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "smiling", "prompt": "angry", "source": "sampled"}',
        b'{"prompt": "\xff\xfe", "source": "sampled"}',
        b'{"prompt": "\\ud800", "source": "sampled"}',
        b'{"prompt": "smiling", "source": "sampled"} {}',
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"prompt": "smiling", "source": "sampled", "metadata": ' + b'{"a":' * 20 + b"1" + b"}" * 21,
    ],
)
def test_wrong_json(shared: TestClient, body: bytes) -> None:
    response = shared.post("/v1/animations", content=body, headers={"Content-Type": "application/json"})
    expect_problem(response, 422, "validation-failed")


@pytest.mark.parametrize("item", [b"[]", b"{}", b"1", b'"ab"', b'{"a":1}', b"[[]]", b"[{}]"])
def test_a_body_full_of_small_values_is_not_parsed(shared: TestClient, item: bytes) -> None:
    """It would take seconds and a hundred times its size in memory, while every other request waits."""
    body = b'{"prompt": "smiling", "source": "sampled", "metadata": [' + item + (b"," + item) * 200_000 + b"]}"
    response = shared.post("/v1/animations", content=body, headers={"Content-Type": "application/json"})
    assert "too many values" in expect_problem(response, 422, "validation-failed")["detail"]
    response = shared.post("/v1/animations", files=make_form(("options", body)))
    problem = expect_problem(response, 422, "validation-failed")
    assert "too many values" in problem["detail"]
    assert pointers(problem) == ["#/options"]


def test_thousands_of_wrong_fields_make_a_short_answer(shared: TestClient) -> None:
    response = shared.post("/v1/animations", json={**SAMPLED, **{f"field{n}": 1 for n in range(20_000)}})
    assert len(expect_problem(response, 422, "validation-failed")["errors"]) == 50


def test_json_numbers(client: TestClient) -> None:
    """Whole numbers may be written as floats, as JSON allows; a byte order mark and charset are harmless."""
    body = b'\xef\xbb\xbf{"prompt": "smiling", "source": "sampled", "frames": 48.0, "intensity": 1}'
    headers = {"Content-Type": "application/json; charset=utf-8"}
    response = client.post("/v1/animations", content=body, headers=headers)
    assert response.status_code == 202, response.text
    assert response.json()["frames_total"] == 48


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/xml", "image/png", "application/x-www-form-urlencoded", "/", "*/*"]
)
def test_other_media_types(shared: TestClient, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = shared.post("/v1/animations", content=json.dumps(SAMPLED), headers=headers)
    expect_problem(response, 415, "unsupported-media-type")


def test_no_picture(shared: TestClient) -> None:
    for response in (
        shared.post("/v1/animations", json={"prompt": "smiling"}),
        shared.post("/v1/animations", files={"prompt": (None, "smiling")}),
    ):
        problem = expect_problem(response, 422, "validation-failed")
        assert "sampled" in problem["hint"]


def test_picture_with_sampled(shared: TestClient, photo: bytes) -> None:
    expect_problem(post_photo(shared, photo, source="sampled"), 422, "validation-failed")
    body = {**SAMPLED, "image_base64": base64.b64encode(photo).decode()}
    expect_problem(shared.post("/v1/animations", json=body), 422, "validation-failed")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "image-corrupt"),
        (encode(make_photo(1, 1)), 422, "image-too-small"),
        (encode(make_photo())[:-500], 422, "image-corrupt"),
        (encode(make_photo(), "GIF"), 415, "unsupported-media-type"),
        (b"<svg/>", 415, "unsupported-media-type"),
        (png_bomb(), 422, "image-too-large"),
    ],
)
def test_bad_pictures(shared: TestClient, data: bytes, status: int, code: str) -> None:
    expect_problem(post_photo(shared, data), status, code)
    body = {"prompt": "smiling", "image_base64": base64.b64encode(data).decode()}
    expect_problem(shared.post("/v1/animations", json=body), status, code)


@pytest.mark.parametrize(
    ("parts", "pointer"),
    [
        ([("prompt", "smiling"), ("prompt", "angry")], "#/prompt"),
        ([("prompt", "smiling"), ("surprise", "1")], "#/surprise"),
        ([("prompt", "smiling"), ("options", '{"prompt": "angry"}')], "#/prompt"),
        ([("prompt", "smiling"), ("options", "[]")], "#/options"),
        ([("prompt", "smiling"), ("options", "{")], "#/options"),
        ([("prompt", "smiling"), ("options", '{"zoom": 1}')], "#/zoom"),
        ([("prompt", "smiling"), ("output", "mp4")], "#/output"),
        ([("prompt", "smiling"), ("metadata", '{"a": 1}')], "#/metadata/a"),
        ([("prompt", "smiling"), ("fps", "fast")], "#/fps"),
        ([("prompt", "smiling"), ("fps", "")], "#/fps"),
        ([("prompt", "smiling"), ("fps", "24.5")], "#/fps"),
        ([("prompt", "smiling"), ("fps", "²")], "#/fps"),
        ([("prompt", "smiling"), ("intensity", "nan")], "#/intensity"),
        ([("prompt", "smiling"), ("intensity", "inf")], "#/intensity"),
        ([("prompt", "smiling"), ("intensity", "1e99")], "#/intensity"),
        ([("prompt", "smiling"), ("intensity", "1_0")], "#/intensity"),
        ([("prompt", "smiling"), ("seed", "9" * 5000)], "#/seed"),
        ([("prompt", "smi\0ling")], "#/prompt"),
        ([("prompt", b"\xff\xfe")], "#/prompt"),
        ([("prompt", "smiling"), ("image", "face.png")], "#/image"),
        ([("prompt", "smiling"), ("image_base64", "AAAA")], "#/image_base64"),
        ([("image", "x"), ("image", "y")], "#/image"),
        ([("", "x")], "#/"),
    ],
)
def test_wrong_fields_in_forms(shared: TestClient, parts: list[tuple[str, str | bytes]], pointer: str) -> None:
    problem = expect_problem(shared.post("/v1/animations", files=make_form(*parts)), 422, "validation-failed")
    assert pointer in pointers(problem)


def make_form(*parts: tuple[str, str | bytes]) -> list[tuple[str, tuple[None, str | bytes]]]:
    return [(name, (None, value)) for name, value in parts]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"not a form"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nsmil'),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\r\n--x'),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno header\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: attachment; name="a"\r\n\r\na\r\n--x--\r\n'),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\na\r\n--x--\r\n',
        ),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A" * 100_000),
        ("multipart/form-data; boundary=" + "x" * 5000, b"--x\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 200),
    ],
)
def test_malformed_forms(shared: TestClient, content_type: str, body: bytes) -> None:
    response = shared.post("/v1/animations", content=body, headers={"Content-Type": content_type})
    expect_problem(response, 422, "validation-failed")


@pytest.mark.parametrize(("encoding", "status"), [("base64", 422), ("quoted-printable", 422), ("8bit", 202)])
def test_a_part_that_is_encoded_for_mail_is_not_taken_as_it_is(client: TestClient, encoding: str, status: int) -> None:
    parts = [("source", "sampled", ""), ("prompt", "c21pbGluZw==", f"Content-Transfer-Encoding: {encoding}\r\n")]
    body = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n{more}\r\n{text}\r\n' for name, text, more in parts
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/animations", content=body + "--x--\r\n", headers=headers).status_code == status


def test_form_numbers(client: TestClient, rooms: Resources) -> None:
    form = make_form(
        ("prompt", "smiling"), ("source", "sampled"), ("fps", " 12 "), ("duration_s", "1.5"), ("intensity", "1e0")
    )
    response = client.post("/v1/animations", files=form)
    assert response.status_code == 202, response.text
    record = rooms.store.get(response.json()["id"])
    assert record is not None
    assert (record.options.fps, record.options.duration_s, record.options.intensity) == (12, 1.5, 1.0)
    assert record.frames_total == 18


def test_file_names_mean_nothing(client: TestClient, photo: bytes) -> None:
    for name in ("../../etc/passwd", "a.gif", "x" * 1000, "", "ü\u202e.png"):
        response = client.post(
            "/v1/animations", data={"prompt": "smiling"}, files={"image": (name or None, photo, "text/html")}
        )
        assert response.status_code == 202, (name, response.text)


def test_base64_of_all_kinds(client: TestClient, photo: bytes) -> None:
    plain = base64.b64encode(photo).decode()
    lines = base64.encodebytes(photo).decode()
    url_safe = base64.urlsafe_b64encode(photo).decode().rstrip("=")
    sums = set()
    spread = " \t\n".join(plain)
    for text in (plain, lines, url_safe, spread, "DATA:image/png;base64," + plain):
        response = client.post("/v1/animations", json={"prompt": "smiling", "image_base64": text})
        assert response.status_code == 202, response.text
        sums.add(response.json()["input"]["sha256"])
    assert len(sums) == 1


def test_body_cap_by_declared_length(serve: Callable[..., TestClient], photo: bytes) -> None:
    client = serve(max_body_bytes=4096)
    problem = expect_problem(post_photo(client, photo), 413, "payload-too-large")
    assert problem["max_bytes"] == 4096
    assert post_sampled(client).status_code == 202


def test_body_cap_by_what_arrives(serve: Callable[..., TestClient]) -> None:
    client = serve(max_body_bytes=4096)

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    headers = {"Content-Type": "application/json"}
    expect_problem(client.post("/v1/animations", content=pieces(), headers=headers), 413, "payload-too-large")
    lying = {**headers, "Content-Length": "10"}
    expect_problem(client.post("/v1/animations", content=pieces(), headers=lying), 413, "payload-too-large")
    exact = json.dumps(SAMPLED).encode().ljust(4096)
    assert client.post("/v1/animations", content=exact, headers=headers).status_code == 202
