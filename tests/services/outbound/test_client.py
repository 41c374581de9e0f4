"""Fetching and posting against a real TLS server that behaves, misbehaves and stalls."""

from __future__ import annotations

import ssl

import pytest
import trustme

from services.errors import RequestError
from services.outbound.client import Outbound
from tests.services.outbound.internet import PUBLIC, Internet
from tests.services.outbound.strangers import answer, open_stranger, redirect

HOST = "https://pictures.example.com"
LIMITS = {"max_bytes": 1000, "timeout_s": 60.0}
SHORT = {"max_bytes": 1000, "timeout_s": 0.4}
PICTURE = b"\x89PNG picture"


def refuse(outbound: Outbound, url: str, **limits: float) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        outbound.fetch(url, **{**LIMITS, **limits})  # type: ignore[arg-type]
    assert "example.com" not in refusal.value.message
    return refusal.value


def test_a_picture_is_fetched(internet: Internet) -> None:
    internet.server.says("/a.png?v=1", answer("200 OK", PICTURE, "Content-Type: Image/PNG; charset=x"))
    fetched = internet.outbound().fetch(f"{HOST}/a.png?v=1", **LIMITS, accept=("image/png", "image/jpeg"))
    assert (fetched.body, fetched.media_type, fetched.final_url) == (PICTURE, "image/png", f"{HOST}/a.png?v=1")
    head = internet.server.requests[0].decode().lower().split("\r\n")
    assert head[0] == "get /a.png?v=1 http/1.1"
    assert sorted(head[1:-2]) == [
        "accept-encoding: identity",
        "accept: image/png, image/jpeg",
        "connection: close",
        "host: pictures.example.com",
        "user-agent: animato/1",
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"3\r\nabc\r\n",
            b"2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
        ],
        [b"HTTP/1.0 200 OK\r\n\r\n", b"abc", b"de"],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", answer("200 OK", b"abcde")],
        [answer("200 OK", b"abcde", "Content-Encoding: identity") + b"and more than was told"],
    ],
)
def test_ways_to_send_a_body(internet: Internet, pieces: list[bytes]) -> None:
    internet.server.says("/", *pieces)
    assert internet.outbound().fetch(HOST, **LIMITS).body == b"abcde"


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
def test_redirects_are_followed(internet: Internet, status: str) -> None:
    internet.server.says("/a", redirect("b?c#part", status))
    internet.server.says("/b?c", redirect("//other.example.com/d", status))
    internet.server.says("/d", redirect("https://other.example.com:8443/\xc3\xa4", status))
    internet.server.says("/%C3%83%C2%A4", answer("200 OK", PICTURE))
    fetched = internet.outbound().fetch(f"{HOST}/a", **LIMITS)
    assert fetched.final_url == "https://other.example.com:8443/%C3%83%C2%A4"
    assert internet.looked_up == ["pictures.example.com"] * 2 + ["other.example.com"] * 2
    assert internet.dialled == [(PUBLIC, 443)] * 3 + [(PUBLIC, 8443)]
    assert b"referer" not in internet.server.requests[-1].lower()


def test_cookies_are_not_kept(internet: Internet) -> None:
    internet.server.says("/a", answer("302 Found", b"", "Location: /b", "Set-Cookie: a=b"))
    internet.server.says("/b", answer("200 OK", PICTURE))
    internet.outbound().fetch(f"{HOST}/a", **LIMITS)
    assert b"cookie" not in internet.server.requests[-1].lower()


def test_the_fourth_redirect_is_one_too_many(internet: Internet) -> None:
    for number in range(5):
        internet.server.says(f"/{number}", redirect(f"/{number + 1}"))
    error = refuse(internet.outbound(), f"{HOST}/0")
    assert (error.code, internet.server.paths()) == ("source-unreachable", ["/0", "/1", "/2", "/3"])


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("https://127.0.0.1/", "source-forbidden-address"),
        ("http://127.0.0.1/", "source-forbidden-address"),
        ("https://localhost/", "source-forbidden-address"),
        ("//169.254.169.254/latest/meta-data/", "source-forbidden-address"),
        ("https://[::ffff:127.0.0.1]/", "source-forbidden-address"),
        ("https://2130706433/", "source-forbidden-address"),
        ("https://inside.example.com/", "source-forbidden-address"),
        ("https://pictures.example.com:6379/", "source-forbidden-address"),
        ("http://pictures.example.com/", "source-unreachable"),
        ("file:///etc/passwd", "source-unreachable"),
        ("gopher://pictures.example.com/", "source-unreachable"),
        ("https://user@pictures.example.com/", "source-unreachable"),
        ("https://pictures.example.com\\@127.0.0.1/", "source-unreachable"),
        ("\\\\127.0.0.1/", "source-unreachable"),
        ("https://[::1", "source-unreachable"),
        ("https:///", "source-unreachable"),
        ("", "source-unreachable"),
    ],
)
def test_redirects_are_judged_like_the_first_url(internet: Internet, location: str, code: str) -> None:
    internet.name("inside.example.com", ["10.0.0.1"])
    internet.server.says("/a", redirect(location))
    internet.server.says("/", answer("200 OK", PICTURE))
    assert refuse(internet.outbound(), f"{HOST}/a").code == code
    assert len(internet.dialled) == 1


def test_what_the_operator_opened_leads_nowhere_else(internet: Internet) -> None:
    """An opened host that redirects to a private address that is not opened is refused there."""
    internet.name("cdn.internal", ["10.0.0.1"])
    internet.server.says("/a", redirect("https://10.0.0.2/"))
    with open_stranger() as plain:
        plain.says("/a", redirect("http://10.0.0.2/"))
        internet.server.port = plain.port
        error = refuse(internet.outbound("cdn.internal"), "http://cdn.internal/a")
    assert error.code == "source-forbidden-address"
    assert internet.dialled == [("10.0.0.1", 80)]


@pytest.mark.parametrize(
    "status", ["204 No Content", "206 Partial", "304 Not Modified", "401 U", "404 N", "500 E", "300 M"]
)
def test_other_statuses_are_told(internet: Internet, status: str) -> None:
    internet.server.says("/", f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nLocation: /b\r\n\r\n".encode())
    error = refuse(internet.outbound(), HOST)
    assert error.code == "source-unreachable"
    assert status[:3] in error.message


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001],
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1f5\r\n" + b"x" * 501 + b"\r\n",
            b"1f4\r\n" + b"x" * 500,
        ],
    ],
)
def test_bodies_that_are_too_large(internet: Internet, pieces: list[bytes]) -> None:
    internet.server.says("/", *pieces)
    error = refuse(internet.outbound(), HOST)
    assert (error.code, error.details["max_bytes"]) == ("payload-too-large", 1000)


def test_a_body_of_just_the_limit(internet: Internet) -> None:
    internet.server.says("/", answer("200 OK", b"x" * 1000))
    assert len(internet.outbound().fetch(HOST, **LIMITS).body) == 1000


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "x"])
def test_packed_bodies_are_not_unpacked(internet: Internet, encoding: str) -> None:
    internet.server.says("/", answer("200 OK", b"\x1f\x8b", f"Content-Encoding: {encoding}"))
    assert refuse(internet.outbound(), HOST).code == "source-unreachable"


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b""],
        [b"\x00" * 100],
        [b"220 mail.example.com ESMTP\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n" + b"A: x\r\n" * 20_000 + b"\r\n"],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100],
        [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"],
        [b"HTTP/2 200 OK\r\n\r\n"],
    ],
)
def test_answers_that_are_no_http(internet: Internet, pieces: list[bytes]) -> None:
    internet.server.says("/", *pieces)
    assert refuse(internet.outbound(), HOST).code == "source-unreachable"


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"", b""),  # silence
        (b"HTTP/1.1 200 OK\r\n", b"A: x\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"[:1]),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
    ],
)
def test_slow_drips_end_in_time(internet: Internet, head: bytes, drop: bytes) -> None:
    internet.server.drips("/", head, drop)
    error = refuse(internet.outbound(), HOST, **SHORT)
    assert error.code == "source-unreachable"
    assert "in time" in error.message


def test_time_is_shared_by_all_redirects(internet: Internet) -> None:
    internet.server.drips("/a", b"HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 10\r\n", b"A: x\r\n")
    assert "in time" in refuse(internet.outbound(), f"{HOST}/a", **SHORT).message


def test_a_handshake_that_never_ends(internet: Internet) -> None:
    with open_stranger() as silent:  # takes the connection and waits for plain HTTP
        internet.server.port = silent.port
        assert "in time" in refuse(internet.outbound(), HOST, **SHORT).message
        assert silent.connections == 1


def test_a_server_without_tls(internet: Internet) -> None:
    with open_stranger() as plain:
        internet.server.port = plain.port
        assert refuse(internet.outbound(), HOST, timeout_s=1.0).code == "source-unreachable"
        assert not any(b"GET" in request for request in plain.requests)


def test_the_certificate_must_be_of_the_host_and_of_a_trusted_authority(internet: Internet) -> None:
    internet.server.says("/", answer("200 OK", PICTURE))
    internet.name("third.example.com")
    error = refuse(internet.outbound(), "https://third.example.com/")
    assert (error.code, "certificate" in error.message) == ("source-unreachable", True)
    stranger = Outbound(look_up=internet.look_up, dial=internet.dial)  # trusts what the system trusts
    error = refuse(stranger, HOST)
    assert (error.code, "certificate" in error.message) == ("source-unreachable", True)
    assert internet.server.requests == []
    assert internet.outbound().fetch(f"https://{PUBLIC}/", **LIMITS).body == PICTURE  # a certificate of an address


def test_old_tls_is_refused(internet: Internet, authority: trustme.CA) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        tls.maximum_version = ssl.TLSVersion.TLSv1_1
    authority.issue_cert("pictures.example.com").configure_cert(tls)
    with open_stranger(tls) as old:
        internet.server.port = old.port
        assert "TLS" in refuse(internet.outbound(), HOST).message
        assert old.requests == []


def test_proxies_of_the_environment_are_not_asked(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_stranger() as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        internet.server.says("/", answer("200 OK", PICTURE))
        outbound = internet.outbound()
        assert outbound.fetch(HOST, **LIMITS).body == PICTURE
        assert outbound.post(HOST, body=b"{}", headers={}, timeout_s=60).status == 200
        assert proxy.connections == 0


def test_a_post_sends_its_body_and_headers(internet: Internet) -> None:
    internet.server.says("/hook", answer("202 Accepted", b"x" * 5000))
    body = b"{" + b" " * 200_000 + b"}"
    answered = internet.outbound().post(
        f"{HOST}/hook", body=body, headers={"Content-Type": "application/json", "webhook-id": "msg_1"}, timeout_s=60
    )
    assert answered.status == 202
    assert answered.duration_s >= 0
    head, _, sent = internet.server.requests[0].partition(b"\r\n\r\n")
    assert sent == body
    assert head.startswith(b"POST /hook HTTP/1.1\r\n")
    assert b"webhook-id: msg_1" in head
    assert b"content-length: 200002" in head.lower()


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 410, 500])
def test_a_post_follows_nothing(internet: Internet, status: int) -> None:
    internet.server.says("/hook", redirect("/other", f"{status} X"))
    assert internet.outbound().post(f"{HOST}/hook", body=b"{}", headers={}, timeout_s=60).status == status
    assert internet.server.paths() == ["/hook"]


def test_a_post_is_guarded_like_a_fetch(internet: Internet) -> None:
    internet.name("inside.example.com", ["10.0.0.1"])
    internet.server.drips("/slow", b"")
    for url, code in (
        ("https://127.0.0.1/", "source-forbidden-address"),
        ("https://inside.example.com/", "source-forbidden-address"),
        ("http://pictures.example.com/", "validation-failed"),
        ("https://nowhere.example.com/", "source-unreachable"),
        (f"{HOST}/slow", "source-unreachable"),
    ):
        with pytest.raises(RequestError) as refusal:
            internet.outbound().post(url, body=b"{}", headers={}, timeout_s=0.4)
        assert refusal.value.code == code, url
    assert internet.server.paths() in ([], ["/slow"])


def test_headers_can_not_be_smuggled(internet: Internet) -> None:
    with pytest.raises(RequestError):
        internet.outbound().post(HOST, body=b"", headers={"A": "b\r\nX: y"}, timeout_s=60)
    assert internet.server.requests == [] or b"X: y" not in internet.server.requests[0]
