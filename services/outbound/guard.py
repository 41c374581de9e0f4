"""Decides where a request may go: the guard against server-side request forgery. Looks names up, opens no connection.

A host is looked up once; every address that it has is judged, and the connection is made to one of these addresses and
to no name, so that a name which changes its address between the look and the connection gains nothing.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network

from services.errors import PermanentError, RequestError
from services.outbound.addresses import Address, Network, is_own, is_public
from services.outbound.urls import Target

# Where servers for the public speak TLS. Anything else on a public address is somebody's database or mail server.
PUBLIC_PORTS = frozenset({443, 8443})
MAX_ADDRESSES = 4
MAX_LOOKUPS = 16
# Ends of names that only a private network answers to (RFC 6761, 6762, 8375, 7686, ICANN's name collision reports).
_PRIVATE_SUFFIXES = (
    "localhost", "localdomain", "local", "internal", "intranet", "private", "lan", "home", "corp", "home.arpa",
    "in-addr.arpa", "ip6.arpa", "onion", "invalid",
)  # fmt: skip
_ENTRY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:/\s@%]+)(?::(?P<port>[0-9]{1,5}))?")

LookUp = Callable[[str, int], list[Address]]


class Deadline:
    """A moment until which everything must be done, shared by look-up, connection and transfer."""

    def __init__(self, seconds: float) -> None:
        self._ends_s = time.monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds that are left; raises TimeoutError when there are none."""
        left = self._ends_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is used up")
        return left


class Allowances:
    """What the operator has opened beside the public internet: hosts and networks, each at one port or at all."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: set[tuple[str, int | None]] = set()
        self._networks: list[tuple[Network, int | None]] = []
        for entry in entries:
            self._add(entry.strip().lower())

    def names(self, target: Target) -> bool:
        """Return whether a host is opened by its name; then it may be anywhere."""
        return not self._names.isdisjoint({(target.host, None), (target.host, target.port)})

    def covers(self, address: Address, port: int) -> bool:
        """Return whether an address lies in a network that is opened."""
        return any(address in network and opened in (None, port) for network, opened in self._networks)

    @property
    def has_networks(self) -> bool:
        """Whether a name may turn out to lie in an opened network."""
        return bool(self._networks)

    def _add(self, entry: str) -> None:
        network = _read_network(entry)
        if network is not None:
            self._networks.append((network, None))
            return
        parts = _ENTRY.fullmatch(entry)
        if parts is None or not 1 <= int(parts["port"] or 1) <= 65_535:
            raise PermanentError(
                "settings-invalid",
                f"ANIMATO_OUTBOUND_ALLOW has an entry that is no host, host:port or network: {entry!r}.",
                "Write e.g. ANIMATO_OUTBOUND_ALLOW=hooks.internal:8080,10.1.0.0/16.",
            )
        port = None if parts["port"] is None else int(parts["port"])
        network = _read_network(parts["host"].strip("[]"))
        if network is None:
            self._names.add((parts["host"].removesuffix("."), port))
        else:
            self._networks.append((network, port))


def _read_network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def look_up(host: str, port: int) -> list[Address]:
    """Return the addresses of a name in the system's order of preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(entry[4][0]) for entry in found]


class Guard:
    """Judges targets before and after their names are looked up. May be used by many threads at once."""

    def __init__(self, allow: Iterable[str] = (), look_up: LookUp = look_up) -> None:
        self._allowances = Allowances(allow)
        self._look_up = look_up
        self._lookups = threading.BoundedSemaphore(MAX_LOOKUPS)

    def check(self, target: Target) -> None:
        """Judge what can be judged without a look-up: scheme, port, reserved names, addresses written out.

        Raises:
            RequestError: validation-failed, source-forbidden-address.
        """
        if self._allowances.names(target):
            return
        if target.address is not None:
            self._check_address(target.address, target)
        elif _is_private_name(target.host):
            raise _forbidden("its host is a name of a private network")
        may_be_private = self._may_be_private(target)
        if target.scheme != "https" and not may_be_private:
            raise RequestError(
                "validation-failed", "The URL can't be used: its scheme is not https.", "Send an https URL."
            )
        if target.port not in PUBLIC_PORTS and not may_be_private:
            raise _forbidden("its port is not 443 or 8443")

    def resolve(self, target: Target, deadline: Deadline) -> list[Address]:
        """Return the addresses to connect to, at most four; all that the host has were judged.

        Raises:
            RequestError: validation-failed, source-forbidden-address.
            OSError: the name can't be looked up, or not in time.
        """
        self.check(target)
        addresses = [target.address] if target.address is not None else self._look_up_in_time(target, deadline)
        if not addresses:
            raise OSError("its name has no address")
        if not self._allowances.names(target):
            for address in addresses:
                self._check_address(address, target)
            opened = all(self._allowances.covers(address, target.port) for address in addresses)
            if not opened and (target.scheme != "https" or target.port not in PUBLIC_PORTS):
                raise _forbidden("its scheme or port is not one of public servers")
        return addresses[:MAX_ADDRESSES]

    def _check_address(self, address: Address, target: Target) -> None:
        if self._allowances.covers(address, target.port):
            return
        if not is_public(address) or is_own(address):
            raise _forbidden("its address is not one of the public internet")

    def _may_be_private(self, target: Target) -> bool:
        if target.address is None:
            return self._allowances.has_networks
        return self._allowances.covers(target.address, target.port)

    def _look_up_in_time(self, target: Target, deadline: Deadline) -> list[Address]:
        """Look a name up on a thread of its own: the system's resolver can't be told to stop after a time."""
        if not self._lookups.acquire(timeout=deadline.left_s()):
            raise TimeoutError("too many names are being looked up")
        answer: list[Address] = []
        problem: list[OSError] = []

        def ask() -> None:
            try:
                answer.extend(self._look_up(target.host, target.port))
            except (OSError, ValueError) as error:
                problem.append(error if isinstance(error, OSError) else OSError("its name can't be looked up"))
            finally:
                self._lookups.release()

        asking = threading.Thread(target=ask, name="look-up", daemon=True)
        asking.start()
        asking.join(deadline.left_s())
        if asking.is_alive():
            raise TimeoutError("its name was not looked up in time")
        if problem:
            raise problem[0]
        return answer


def _is_private_name(host: str) -> bool:
    """Return whether a name can't be public: one label (a search domain would complete it) or a reserved end."""
    return "." not in host or any(host == suffix or host.endswith("." + suffix) for suffix in _PRIVATE_SUFFIXES)


def _forbidden(why: str) -> RequestError:
    return RequestError(
        "source-forbidden-address",
        f"The URL may not be called: {why}.",
        "Use a server that everybody can reach by https; who runs this service can open others.",
    )
