"""Who may be called: reserved names, every address of a name, ports, and what the operator has opened."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address

import pytest

from services.errors import PermanentError, RequestError
from services.outbound.client import Outbound
from services.outbound.guard import Allowances, Deadline, Guard
from services.outbound.urls import parse_url
from tests.services.outbound.internet import PUBLIC, Internet

LIMITS = {"max_bytes": 1000, "timeout_s": 60.0}


def refuse(outbound: Outbound, url: str) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        outbound.check_url(url)
    return refusal.value


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "localhost.localdomain",
        "redis",
        "metadata",
        "metadata.google.internal",
        "printer.local",
        "router.lan",
        "nas.home",
        "nas.home.arpa",
        "wiki.corp",
        "wiki.intranet",
        "1.0.0.127.in-addr.arpa",
        "expyuzz4wqqyqhjn.onion",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        "127.0.0.1.",
        "１２７.０.０.１",
        "0.0.0.0",
        "169.254.169.254",
        "10.1.2.3",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_hosts_that_are_refused_without_a_look_up(internet: Internet, scheme: str, host: str) -> None:
    assert refuse(internet.outbound(), f"{scheme}://{host}/").code == "source-forbidden-address"
    assert refuse(internet.outbound(), f"{scheme}://{host}:8443/a").code == "source-forbidden-address"
    with pytest.raises(RequestError):
        internet.outbound().fetch(f"{scheme}://{host}/", **LIMITS)
    assert internet.looked_up == []
    assert internet.dialled == []


def test_public_hosts_by_http_are_a_fault_of_the_request(internet: Internet) -> None:
    for url in ("http://pictures.example.com/", f"http://{PUBLIC}/", "http://pictures.example.com:443/"):
        assert refuse(internet.outbound(), url).code == "validation-failed"


@pytest.mark.parametrize("port", [1, 22, 25, 80, 444, 3306, 5432, 6379, 8000, 9200, 65535])
def test_ports_of_other_services_are_refused(internet: Internet, port: int) -> None:
    assert refuse(internet.outbound(), f"https://pictures.example.com:{port}/").code == "source-forbidden-address"


def test_good_urls_pass_without_a_look_up(internet: Internet) -> None:
    outbound = internet.outbound()
    for url in ("https://nowhere.example.com/a.png", "https://pictures.example.com:8443/", f"https://{PUBLIC}/"):
        outbound.check_url(url)
    assert internet.looked_up == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["::1"],
        ["169.254.169.254"],
        ["::ffff:127.0.0.1"],
        ["fe80::1%2"],
        [PUBLIC, "127.0.0.1"],
        [PUBLIC, "2606:4700::1111", "fd00::1"],
        [PUBLIC] * 9 + ["10.0.0.1"],
    ],
)
def test_every_address_of_a_name_is_judged(internet: Internet, addresses: list[str]) -> None:
    internet.name("evil.example.com", addresses)
    with pytest.raises(RequestError) as refusal:
        internet.outbound().fetch("https://evil.example.com/", **LIMITS)
    assert refusal.value.code == "source-forbidden-address"
    assert internet.dialled == []


def test_rebinding_gains_nothing(internet: Internet) -> None:
    """The name is public when it is judged and private ever after: it is looked up once, and only the judged called."""
    internet.name("pictures.example.com", [PUBLIC], ["127.0.0.1"])
    internet.server.says("/", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert internet.outbound().fetch("https://pictures.example.com/", **LIMITS).body == b"ok"
    assert internet.looked_up == ["pictures.example.com"]
    assert internet.dialled == [(PUBLIC, 443)]


def test_nothing_but_the_judged_address_is_given_to_the_system(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the real dialler: what the socket is told to connect to is a number."""
    asked: list[object] = []

    def connect(self: socket.socket, address: object) -> None:
        asked.append(address)
        raise ConnectionRefusedError

    def look_up(*_: object, **__: object) -> list[object]:
        raise AssertionError("something was looked up again")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    outbound = Outbound(look_up=internet.look_up, trust=internet.trust)
    with pytest.raises(RequestError, match="does not answer"):
        outbound.fetch("https://pictures.example.com/", **LIMITS)
    assert asked[-1] == (PUBLIC, 443)
    assert internet.looked_up == ["pictures.example.com"]


def test_names_that_do_not_exist(internet: Internet) -> None:
    internet.name("empty.example.com", [])
    for host in ("nowhere.example.com", "empty.example.com"):
        with pytest.raises(RequestError) as refusal:
            internet.outbound().fetch(f"https://{host}/", **LIMITS)
        assert refusal.value.code == "source-unreachable"
    assert internet.dialled == []


def test_a_look_up_that_hangs_ends_in_time() -> None:
    hanging = threading.Event()
    guard = Guard(look_up=lambda *_: [ip_address(PUBLIC)] if hanging.wait(60) else [])
    with pytest.raises(TimeoutError, match="looked up"):
        guard.resolve(parse_url("https://pictures.example.com/"), Deadline(0.2))
    hanging.set()


def test_look_ups_that_hang_do_not_pile_up() -> None:
    hanging = threading.Event()
    begun: list[str] = []

    def look_up(host: str, _port: int) -> list[object]:
        begun.append(host)
        hanging.wait(60)
        return []

    guard = Guard(look_up=look_up)  # type: ignore[arg-type]
    for number in range(20):
        with pytest.raises(TimeoutError):
            guard.resolve(parse_url(f"https://{number}.example.com/"), Deadline(0.02))
    assert len(begun) == 16
    hanging.set()


def test_at_most_four_addresses_are_tried(internet: Internet) -> None:
    internet.name("many.example.com", [f"93.184.216.{n}" for n in range(20)])
    internet.silent = {f"93.184.216.{n}" for n in range(20)}
    with pytest.raises(RequestError) as refusal:
        internet.outbound().fetch("https://many.example.com/", **LIMITS)
    assert refusal.value.code == "source-unreachable"
    assert internet.dialled == [(f"93.184.216.{n}", 443) for n in range(4)]


def test_the_next_address_is_tried_when_one_is_silent(internet: Internet) -> None:
    internet.name("pictures.example.com", ["2606:4700::1111", PUBLIC])
    internet.silent = {"2606:4700::1111"}
    internet.server.says("/", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    internet.outbound().fetch("https://pictures.example.com/", **LIMITS)
    assert internet.dialled == [("2606:4700::1111", 443), (PUBLIC, 443)]


@pytest.mark.parametrize(
    ("allow", "url", "addresses", "passes"),
    [
        (["hooks.internal"], "http://hooks.internal:8080/", ["10.0.0.1"], True),
        (["hooks.internal"], "https://hooks.internal/", ["10.0.0.1"], True),
        (["hooks.internal:8080"], "http://hooks.internal:8080/", ["10.0.0.1"], True),
        (["hooks.internal:8080"], "http://hooks.internal:8081/", ["10.0.0.1"], False),
        (["hooks.internal"], "http://a.hooks.internal/", ["10.0.0.1"], False),
        (["HOOKS.internal."], "http://hooks.INTERNAL/", ["10.0.0.1"], True),
        (["10.0.0.0/8"], "http://10.1.2.3:9000/", [], True),
        (["10.0.0.0/8"], "http://11.1.2.3:9000/", [], False),
        (["10.1.2.3:9000"], "http://10.1.2.3:9000/", [], True),
        (["10.1.2.3:9000"], "http://10.1.2.3:9001/", [], False),
        (["10.0.0.0/8"], "http://wiki.example.com:9000/", ["10.1.2.3"], True),
        (["10.0.0.0/8"], "https://wiki.example.com/", ["10.1.2.3", PUBLIC], True),
        (["10.0.0.0/8"], "http://wiki.example.com/", ["10.1.2.3", PUBLIC], False),
        (["10.0.0.0/8"], "https://wiki.example.com/", ["10.1.2.3", "192.168.0.1"], False),
        (["10.0.0.0/8"], "http://wiki.example.com/", [PUBLIC], False),
        (["10.0.0.0/8"], "https://wiki.example.com:9000/", [PUBLIC], False),
        (["10.0.0.0/8"], "https://wiki.internal/", ["10.1.2.3"], False),  # a private name is opened by name
        (["[fd00::1]:8443"], "https://[fd00::1]:8443/", [], True),
        (["fd00::/8"], "https://[fd00::1]/", [], True),
        (["::1"], "http://[::1]:80/", [], True),
        (["::1"], "http://127.0.0.1/", [], False),
        (["127.0.0.1"], "http://localhost/", ["127.0.0.1"], False),
        (["localhost:5000"], "http://localhost:5000/", ["127.0.0.1"], True),
        ([" 127.0.0.1:80 "], "http://127.0.0.1/", [], True),
    ],
)
def test_what_the_operator_opens(
    internet: Internet, allow: list[str], url: str, addresses: list[str], passes: bool
) -> None:
    target = parse_url(url)
    internet.name(target.host, addresses)
    guard = Guard(allow, internet.look_up)
    if passes:
        expected = [ip_address(text) for text in addresses] or [target.address]
        assert guard.resolve(target, Deadline(60)) == expected
    else:
        with pytest.raises(RequestError):
            guard.resolve(target, Deadline(60))


@pytest.mark.parametrize(
    "entry", ["", "http://host/", "host/path", "host:0", "host:65536", "a b", "user@host", "10.0.0.1/8"]
)
def test_entries_that_can_not_be_read_are_told(entry: str) -> None:
    with pytest.raises(PermanentError, match="ANIMATO_OUTBOUND_ALLOW") as refusal:
        Allowances([entry])
    assert refusal.value.code == "settings-invalid"
