"""``image_url`` on a whole service: pictures come from public servers alone, and no request arrives anywhere else."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from services.api.sources import SourceFetcher
from tests.services.api.conftest import expect_problem, rooms_of, stored_files
from tests.services.outbound.internet import PUBLIC, Internet
from tests.services.outbound.strangers import Stranger, answer, open_stranger, redirect

FORBIDDEN = "source-forbidden-address"
UNREACHABLE = "source-unreachable"
INVALID = "validation-failed"


@pytest.fixture
def victim() -> Iterator[Stranger]:
    """A server on loopback that nobody may reach."""
    with open_stranger() as server:
        yield server


def post_url(client: TestClient, url: object, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    body = {"prompt": "smiling", "image_url": url, **fields}
    return client.post("/v1/animations", json=body, headers=headers or {})


def join(client: TestClient, internet: Internet, timeout_s: float = 60.0, max_bytes: int = 2**20) -> None:
    """Put a running service into the small internet of the tests."""
    app = client.app
    assert isinstance(app, FastAPI)
    sources = SourceFetcher(internet.outbound(), max_bytes=max_bytes, timeout_s=timeout_s)
    app.state.resources = replace(rooms_of(client), sources=sources)


def opened_to(serve: Callable[..., TestClient], server: Stranger, **changes: Any) -> TestClient:
    """A service whose operator has opened one server, by plain HTTP."""
    return serve(outbound_allow=(f"127.0.0.1:{server.port}",), **changes)


def test_a_picture_is_fetched_and_animated(serve: Callable[..., TestClient], victim: Stranger, photo: bytes) -> None:
    victim.says("/face.png", answer("200 OK", photo, "Content-Type: image/png"))
    client = opened_to(serve, victim)
    url = f"http://127.0.0.1:{victim.port}/face.png"
    by_url = post_url(client, url)
    assert by_url.status_code == 202, by_url.text
    by_bytes = client.post(
        "/v1/animations", json={"prompt": "smiling", "image_base64": base64.b64encode(photo).decode()}
    )
    assert by_url.json()["input"] | {"seed": 0} == by_bytes.json()["input"] | {"seed": 0}
    by_form = client.post("/v1/animations", files={"prompt": (None, "smiling"), "image_url": (None, url)})
    in_options = client.post(
        "/v1/animations", files={"prompt": (None, "a"), "options": (None, f'{{"image_url": "{url}"}}')}
    )
    assert (by_form.status_code, in_options.status_code) == (202, 202)
    record = rooms_of(client).store.get(by_url.json()["id"])
    assert record is not None
    assert record.input.key is not None
    assert rooms_of(client).storage.get(record.input.key).startswith(b"\x89PNG")
    assert victim.paths() == ["/face.png"] * 3


def test_a_picture_comes_over_tls_through_redirects(client: TestClient, internet: Internet, photo: bytes) -> None:
    join(client, internet)
    internet.server.says("/a", redirect("https://other.example.com/b"))
    internet.server.says("/b", answer("200 OK", photo))
    response = post_url(client, "https://pictures.example.com/a")
    assert response.status_code == 202, response.text
    assert internet.dialled == [(PUBLIC, 443)] * 2


def test_faces_are_detected_in_a_picture_by_url(
    serve: Callable[..., TestClient], victim: Stranger, photo: bytes
) -> None:
    victim.says("/face.png", answer("200 OK", photo))
    client = opened_to(serve, victim)
    response = client.post("/v1/faces:detect", json={"image_url": f"http://127.0.0.1:{victim.port}/face.png"})
    assert response.status_code == 200, response.text
    assert response.json()["width"] > 0
    problem = expect_problem(client.post("/v1/faces:detect", json={"image_url": "https://10.0.0.1/"}), 422, FORBIDDEN)
    assert problem["errors"][0]["pointer"] == "#/image_url"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:{port}/", FORBIDDEN),
        ("https://127.0.0.1:{port}/", FORBIDDEN),
        ("https://localhost:{port}/", FORBIDDEN),
        ("https://LOCALHOST.:{port}/", FORBIDDEN),
        ("https://a.localhost:{port}/", FORBIDDEN),
        ("https://127.1:{port}/", FORBIDDEN),
        ("https://127.0.0.1.:{port}/", FORBIDDEN),
        ("https://2130706433:{port}/", FORBIDDEN),
        ("https://0x7f000001:{port}/", FORBIDDEN),
        ("https://0x7f.0.0.1:{port}/", FORBIDDEN),
        ("https://0177.0.0.1:{port}/", FORBIDDEN),
        ("https://017700000001:{port}/", FORBIDDEN),
        ("https://0:{port}/", FORBIDDEN),
        ("https://0.0.0.0:{port}/", FORBIDDEN),
        ("https://127.255.255.254:{port}/", FORBIDDEN),
        ("https://１２７.０.０.１:{port}/", FORBIDDEN),
        ("https://127。0。0。1:{port}/", FORBIDDEN),
        ("https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/", FORBIDDEN),
        ("https://[::1]:{port}/", FORBIDDEN),
        ("https://[::]:{port}/", FORBIDDEN),
        ("https://[::ffff:127.0.0.1]:{port}/", FORBIDDEN),
        ("https://[0:0:0:0:0:ffff:7f00:1]:{port}/", FORBIDDEN),
        ("https://[::127.0.0.1]:{port}/", FORBIDDEN),
        ("https://[64:ff9b::127.0.0.1]:{port}/", FORBIDDEN),
        ("https://[2002:7f00:1::]:{port}/", FORBIDDEN),
        ("https://[2001:0:7f00:1::]:{port}/", FORBIDDEN),
        ("https://[fe80::1]:{port}/", FORBIDDEN),
        ("https://[fe80::1%25lo]:{port}/", INVALID),
        ("https://169.254.169.254/latest/meta-data/", FORBIDDEN),
        ("http://169.254.169.254/latest/meta-data/", FORBIDDEN),
        ("https://[fd00:ec2::254]/latest/meta-data/", FORBIDDEN),
        ("http://metadata.google.internal/computeMetadata/v1/", FORBIDDEN),
        ("https://100.100.100.200/", FORBIDDEN),
        ("https://168.63.129.16/", FORBIDDEN),
        ("https://10.0.0.1/", FORBIDDEN),
        ("https://192.168.1.1/", FORBIDDEN),
        ("https://172.17.0.1/", FORBIDDEN),
        ("https://224.0.0.1/", FORBIDDEN),
        ("https://255.255.255.255/", FORBIDDEN),
        ("http://redis:6379/", FORBIDDEN),
        ("https://printer.local/", FORBIDDEN),
        ("https://private.example.com:{port}/", FORBIDDEN),  # what these names stand for: see the fixture below
        ("https://private.example.com/", FORBIDDEN),
        ("https://mixed.example.com/", FORBIDDEN),
        ("https://mapped.example.com/", FORBIDDEN),
        ("https://nowhere.example.com/", UNREACHABLE),
        ("https://127.0.0.1@nowhere.example.com/", INVALID),
        ("https://nowhere.example.com:pw@127.0.0.1:{port}/", INVALID),
        ("https://nowhere.example.com\\@127.0.0.1:{port}/", INVALID),
        ("https://nowhere.example.com#@127.0.0.1:{port}/", INVALID),
        ("https://127.0.0.1:{port}#.example.com/", INVALID),
        ("https://127.0.0.1%00.example.com:{port}/", INVALID),
        ("https://%31%32%37.0.0.1:{port}/", INVALID),
        ("https:127.0.0.1:{port}", INVALID),
        ("https:/127.0.0.1:{port}/", INVALID),
        ("//127.0.0.1:{port}/", INVALID),
        ("127.0.0.1:{port}", INVALID),
        (" https://127.0.0.1:{port}/", INVALID),
        ("https://127.0.0.1:{port}/\r\nX: y", INVALID),
        ("https://127.0.0.1\t:{port}/", INVALID),
        ("http://example.com/", INVALID),
        ("ftp://127.0.0.1:{port}/", INVALID),
        ("gopher://127.0.0.1:{port}/_x", INVALID),
        ("dict://127.0.0.1:{port}/info", INVALID),
        ("file:///etc/passwd", INVALID),
        ("data:image/png;base64,iVBORw0KGgo=", INVALID),
        ("unix:///var/run/docker.sock", INVALID),
        ("https://example.com:22/", FORBIDDEN),
        ("https://example.com:65536/", INVALID),
        ("https://" + "a" * 3000 + "/", INVALID),
        ("", INVALID),
    ],
)
def test_hostile_urls_reach_nobody(shared: TestClient, victim: Stranger, names: list[str], url: str, code: str) -> None:
    problem = expect_problem(post_url(shared, url.format(port=victim.port)), 422, code)
    assert [error["pointer"] for error in problem["errors"]] == ["#/image_url"]
    assert victim.connections == 0
    form = {"prompt": (None, "smiling"), "image_url": (None, url.format(port=victim.port))}
    expect_problem(shared.post("/v1/animations", files=form), 422, code)
    assert victim.connections == 0
    assert "meta-data" not in str(problem)  # what was sent is not sent back


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the attacker's in the system's own resolver; returns what was looked up, in its order."""
    table = {
        "private.example.com": ["127.0.0.1"],
        "mixed.example.com": [PUBLIC, "127.0.0.1"],
        "mapped.example.com": ["::ffff:127.0.0.1"],
    }
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if not isinstance(host, str) or not host.endswith(".example.com"):
            return real(host, port, *rest, **more)
        asked.append(host)
        if host not in table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in table[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_a_rebinding_name_is_looked_up_once(client: TestClient, internet: Internet, photo: bytes) -> None:
    join(client, internet)
    internet.name("rebinding.example.com", [PUBLIC], ["127.0.0.1"])
    internet.server.says("/", answer("200 OK", photo))
    # The server there has no certificate of that name: the connection was made, to the judged address alone.
    expect_problem(post_url(client, "https://rebinding.example.com/"), 422, UNREACHABLE)
    assert internet.looked_up == ["rebinding.example.com"]
    assert internet.dialled == [(PUBLIC, 443)]
    # The other way round: now it is private, and nothing is dialled.
    expect_problem(post_url(client, "https://rebinding.example.com/"), 422, FORBIDDEN)
    assert internet.dialled == [(PUBLIC, 443)]
    assert internet.server.requests == []


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.1:{port}/", FORBIDDEN),
        ("https://127.0.0.1:{port}/", FORBIDDEN),
        ("https://localhost:{port}/", FORBIDDEN),
        ("https://[::ffff:127.0.0.1]:{port}/", FORBIDDEN),
        ("//127.1:{port}/", FORBIDDEN),
        ("https://inside.example.com/", FORBIDDEN),
        ("http://pictures.example.com/", UNREACHABLE),
        ("file:///etc/passwd", UNREACHABLE),
        ("https://pictures.example.com/redirect", UNREACHABLE),  # round and round
    ],
)
def test_redirects_lead_to_nobody(
    client: TestClient, internet: Internet, victim: Stranger, location: str, code: str
) -> None:
    join(client, internet)
    internet.name("inside.example.com", ["192.168.0.1"])
    internet.server.says("/redirect", redirect(location.format(port=victim.port)))
    expect_problem(post_url(client, "https://pictures.example.com/redirect"), 422, code)
    assert victim.connections == 0
    assert set(internet.dialled) == {(PUBLIC, 443)}


def test_what_comes_must_be_a_picture(serve: Callable[..., TestClient], victim: Stranger, photo: bytes) -> None:
    client = opened_to(serve, victim, fetch_timeout_s=60.0, max_body_bytes=100_000)
    victim.says("/text", answer("200 OK", b"<html>", "Content-Type: image/png"))
    victim.says("/half", answer("200 OK", photo[:-500]))
    victim.says("/empty", answer("200 OK"))
    victim.says("/large", answer("200 OK", photo.ljust(100_001)))
    victim.says("/secret", answer("403 Forbidden", b"SECRET"))
    base = f"http://127.0.0.1:{victim.port}"
    for path, status, code in (
        ("/text", 415, "unsupported-media-type"),
        ("/half", 422, "image-corrupt"),
        ("/empty", 422, "image-corrupt"),
        ("/large", 413, "payload-too-large"),
        ("/missing", 422, UNREACHABLE),
        ("/secret", 422, UNREACHABLE),
    ):
        problem = expect_problem(post_url(client, base + path), status, code)
        assert "SECRET" not in str(problem)
        assert problem["retryable"] is (code == UNREACHABLE)
    assert rooms_of(client).store.counts()["queued"] == 0
    assert stored_files(rooms_of(client).settings) == []


def test_a_slow_server_is_given_up(serve: Callable[..., TestClient], victim: Stranger) -> None:
    client = opened_to(serve, victim, fetch_timeout_s=0.5)
    victim.drips("/slow", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    problem = expect_problem(post_url(client, f"http://127.0.0.1:{victim.port}/slow"), 422, UNREACHABLE)
    assert "in time" in problem["detail"]


@pytest.mark.parametrize(
    "fields",
    [
        {"image_url": 5},
        {"image_url": None},
        {"image_url": ["https://example.com/"]},
        {"image_url": {"url": "https://example.com/"}},
        {"image_url": "https://example.com/", "image_base64": "AAAA"},
        {"image_url": "https://example.com/", "source": "sampled"},
    ],
)
def test_a_url_is_a_text_and_the_only_picture(shared: TestClient, names: list[str], fields: dict[str, Any]) -> None:
    problem = expect_problem(shared.post("/v1/animations", json={"prompt": "smiling", **fields}), 422, INVALID)
    assert [error["pointer"] for error in problem["errors"]] == ["#/image_url"]
    assert names == []


def test_a_file_and_a_url_are_one_too_many(shared: TestClient, names: list[str], photo: bytes) -> None:
    form = {"prompt": (None, "smiling"), "image": ("a.png", photo), "image_url": (None, "https://example.com/")}
    expect_problem(shared.post("/v1/animations", files=form), 422, INVALID)
    assert names == []


def test_nobody_is_called_for_a_request_that_is_wrong(shared: TestClient, names: list[str]) -> None:
    for fields, code in (({"fps": 0}, INVALID), ({"model": "none"}, "model-unknown"), ({"surprise": 1}, INVALID)):
        expect_problem(post_url(shared, "https://nowhere.example.com/", **fields), 422, code)
    assert names == []


def test_a_repeated_request_is_not_fetched_again(serve: Callable[..., TestClient], photo: bytes) -> None:
    with open_stranger() as server:
        server.says("/a", answer("200 OK", photo))
        server.says("/b", answer("200 OK", photo))
        client = opened_to(serve, server)
        base = f"http://127.0.0.1:{server.port}"
        key = {"Idempotency-Key": "one"}
        first = post_url(client, f"{base}/a", key)
        assert first.status_code == 202, first.text
        server.says("/a", answer("410 Gone"))
        again = post_url(client, f"{base}/a", key)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert again.headers["Idempotent-Replayed"] == "true"
        assert server.paths() == ["/a"]
        # The same picture from elsewhere, the same picture as bytes: other requests, and nothing is fetched for them.
        expect_problem(post_url(client, f"{base}/b", key), 422, "idempotency-mismatch")
        as_bytes = {"prompt": "smiling", "image_base64": base64.b64encode(photo).decode()}
        expect_problem(client.post("/v1/animations", json=as_bytes, headers=key), 422, "idempotency-mismatch")
        assert server.paths() == ["/a"]
        # A fetch that failed takes no key: the next try makes the job.
        server.says("/c", answer("503 Busy"))
        expect_problem(post_url(client, f"{base}/c", {"Idempotency-Key": "two"}), 422, UNREACHABLE)
        server.says("/c", answer("200 OK", photo))
        assert post_url(client, f"{base}/c", {"Idempotency-Key": "two"}).status_code == 202


def test_an_entry_that_can_not_be_read_stops_the_service(serve: Callable[..., TestClient]) -> None:
    from services.errors import PermanentError

    with pytest.raises(PermanentError, match="ANIMATO_OUTBOUND_ALLOW"):
        serve(outbound_allow=("http://host/",))
