"""A small internet for the tests: names, public addresses and a TLS server behind them that really runs on loopback."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
import trustme

from services.outbound.addresses import Address
from services.outbound.client import Outbound
from services.outbound.exchange import dial
from tests.services.outbound.strangers import Stranger, open_stranger

PUBLIC = "93.184.216.34"


@dataclass
class Internet:
    """Answers look-ups from a table and leads every connection to one server; keeps what was looked up and dialled."""

    server: Stranger
    trust: ssl.SSLContext
    # Each look-up of a name takes the next list of addresses; the last one stays.
    names: dict[str, list[list[str]]] = field(default_factory=dict)
    looked_up: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)

    def name(self, host: str, *answers: list[str]) -> None:
        self.names[host] = list(answers) or [[PUBLIC]]

    def look_up(self, host: str, _port: int) -> list[Address]:
        self.looked_up.append(host)
        if host not in self.names:
            raise socket.gaierror(-2, "Name or service not known")
        answers = self.names[host]
        return [ip_address(text) for text in (answers.pop(0) if len(answers) > 1 else answers[0])]

    def dial(self, address: Address, port: int, timeout_s: float) -> socket.socket:
        self.dialled.append((str(address), port))
        if str(address) in self.silent:
            raise TimeoutError("nobody answers")
        return dial(ip_address("127.0.0.1"), self.server.port, timeout_s)

    def outbound(self, *allow: str) -> Outbound:
        return Outbound(allow, look_up=self.look_up, dial=self.dial, trust=self.trust)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="session")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a server needs to be pictures.example.com, other.example.com or the public address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pictures.example.com", "other.example.com", PUBLIC).configure_cert(context)
    return context


@pytest.fixture
def internet(tls: ssl.SSLContext, trust: ssl.SSLContext) -> Iterator[Internet]:
    """An internet with the hosts pictures.example.com and other.example.com, both on one TLS server."""
    with open_stranger(tls) as server:
        found = Internet(server, trust)
        found.name("pictures.example.com")
        found.name("other.example.com")
        yield found
