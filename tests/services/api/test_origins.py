"""What a hostile page in a browser tries: a name of its own for this address, posts across sites, reading answers."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from services.api.origins import Origins
from services.errors import PermanentError
from services.settings import Settings, load_settings
from tests.services.api.conftest import expect_problem, post_sampled, rooms_of

APP = "https://app.example.org"

HARMLESS = (
    "127.0.0.1",
    "127.0.0.1:8000",
    "[::1]:8000",
    "[::1]",
    "10.0.0.7:8000",
    "localhost",
    "LOCALHOST:8000",
    "localhost.:8000",
    "faces.localhost:8000",
    "api:8000",
)
HOSTILE = (
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example:8000",
    "localhost.evil.example",
    "evil.example.",
    "127.0.0.1.nip.io",
    "[evil.example]",
    "[::1].evil.example",
    "127.0.0.1:80@evil.example",
    "evil.example:127.0.0.1",
    "0x7f.0.0.1",
)


@pytest.mark.parametrize("host", HARMLESS)
def test_names_that_nobody_else_can_have(client: TestClient, host: str) -> None:
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", HOSTILE)
def test_a_rebound_name_reads_and_posts_nothing(client: TestClient, host: str) -> None:
    for path in ("/v1/models", "/", "/page/app.js", "/metrics", "/livez"):
        expect_problem(client.get(path, headers={"Host": host}), 403, "forbidden")
    expect_problem(post_sampled(client, {"Host": host}), 403, "forbidden")
    assert rooms_of(client).store.counts()["queued"] == 0


def test_one_bad_name_among_two_is_refused(client: TestClient) -> None:
    twice = [("Host", "localhost"), ("Host", "evil.example")]
    assert client.get("/v1/models", headers=twice).status_code == 403


def test_names_of_a_proxy_are_listed(serve: Callable[..., TestClient]) -> None:
    client = serve(trusted_hosts=("faces.example.org", "*.example.net"))
    statuses = {
        host: client.get("/v1/models", headers={"Host": host}).status_code
        for host in (
            "faces.example.org", "faces.example.org:443", "a.example.net", "a.b.example.net", "10.0.0.1:8000",
            "example.net", "evil.example", "xexample.net", "example.org", "a.faces.example.org",
        )
    }  # fmt: skip
    assert list(statuses.values()) == [200] * 5 + [403] * 5, statuses


@pytest.mark.parametrize(
    "changes",
    [
        {"auth": "on"},  # a page that was rebound has no key to send
        {"host": "0.0.0.0"},  # something in front of it decides, and knows its own names
        {"trusted_hosts": ("*",)},
    ],
)
def test_where_names_do_not_matter(serve: Callable[..., TestClient], changes: dict[str, object]) -> None:
    client = serve(**changes)
    assert client.get("/readyz", headers={"Host": "faces.example.org"}).status_code in (200, 503)


def test_listed_names_are_asked_for_with_keys_too(serve: Callable[..., TestClient]) -> None:
    client = serve(auth="on", trusted_hosts=("faces.example.org",))
    assert client.get("/livez", headers={"Host": "faces.example.org"}).status_code == 200
    assert client.get("/livez", headers={"Host": "evil.example"}).status_code == 403


def preflight(client: TestClient, origin: str, **headers: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST"} | {name.replace("_", "-"): text for name, text in headers.items()}
    answer: httpx.Response = client.options("/v1/animations", headers={"Origin": origin, **asked})
    return answer


def test_listed_sites_may_call(serve: Callable[..., TestClient]) -> None:
    client = serve(cors_origins=(APP,))
    asked = preflight(
        client, APP, Access_Control_Request_Headers="authorization, idempotency-key, content-type, prefer"
    )
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Origin"] == APP
    assert "DELETE" in asked.headers["Access-Control-Allow-Methods"]
    assert "Origin" in asked.headers["Vary"]
    assert asked.headers["X-Content-Type-Options"] == "nosniff"
    posted = post_sampled(client, {"Origin": APP, "Sec-Fetch-Site": "cross-site"})
    assert posted.status_code == 202
    assert posted.headers["Access-Control-Allow-Origin"] == APP
    told = posted.headers["Access-Control-Expose-Headers"]
    assert all(name in told for name in ("Location", "Retry-After", "RateLimit", "ETag", "X-Request-ID"))
    refused = client.get("/v1/animations/anm_x", headers={"Origin": APP})
    assert refused.status_code == 404
    assert refused.headers["Access-Control-Allow-Origin"] == APP, "the page may read why"
    for answer in (asked, posted, refused):
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://app.example.org", "https://app.example.org.evil.example", APP + ":8443"],
)
def test_other_sites_stay_out(serve: Callable[..., TestClient], origin: str) -> None:
    client = serve(cors_origins=(APP,))
    asked = preflight(client, origin)
    expect_problem(asked, 403, "forbidden")
    assert "Access-Control-Allow-Origin" not in asked.headers
    expect_problem(post_sampled(client, {"Origin": origin, "Sec-Fetch-Site": "cross-site"}), 403, "forbidden")
    assert "Access-Control-Allow-Origin" not in client.get("/v1/models", headers={"Origin": origin}).headers


@pytest.mark.parametrize(
    "asked", [{"Access_Control_Request_Method": "PUT"}, {"Access_Control_Request_Headers": "x-forwarded-for"}]
)
def test_listed_sites_may_not_do_everything(serve: Callable[..., TestClient], asked: dict[str, str]) -> None:
    expect_problem(preflight(serve(cors_origins=(APP,)), APP, **asked), 403, "forbidden")


def test_open_to_all_sites_is_without_credentials(serve: Callable[..., TestClient]) -> None:
    client = serve(cors_origins=("*",), auth="on")
    asked = preflight(client, "https://any.example", Access_Control_Request_Headers="authorization")
    assert asked.headers["Access-Control-Allow-Origin"] == "*"
    key, _ = rooms_of(client).store.create_key("ada")
    sent = {"Origin": "https://any.example", "Sec-Fetch-Site": "cross-site"}
    assert post_sampled(client, {**sent, "X-API-Key": key}).status_code == 202
    refused = post_sampled(client, sent)
    assert refused.status_code == 401
    for answer in (asked, refused):
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_transport_security_is_promised_over_https_alone(client: TestClient) -> None:
    assert "Strict-Transport-Security" not in client.get("/").headers
    client.base_url = client.base_url.copy_with(scheme="https")
    assert client.get("/livez").headers["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TRUSTED_HOSTS", "https://faces.example.org"),
        ("TRUSTED_HOSTS", "faces.example.org:443"),
        ("TRUSTED_HOSTS", "a b"),
        ("CORS_ORIGINS", "app.example.org"),
        ("CORS_ORIGINS", "https://app.example.org/"),
        ("CORS_ORIGINS", "https://*.example.org"),
        ("CORS_ORIGINS", "null"),
    ],
)
def test_lists_that_would_never_match_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"ANIMATO_{name}", text)
    with pytest.raises(PermanentError, match=f"ANIMATO_{name}"):
        load_settings()


def test_lists_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMATO_TRUSTED_HOSTS", "Faces.Example.org, *.example.net")
    monkeypatch.setenv("ANIMATO_CORS_ORIGINS", f"{APP}, http://localhost:3000")
    settings = load_settings()
    assert settings.trusted_hosts == ("faces.example.org", "*.example.net")
    assert settings.cors_origins == (APP, "http://localhost:3000")


def test_other_protocols_pass() -> None:
    import anyio

    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    anyio.run(Origins(app, Settings()), {"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]
