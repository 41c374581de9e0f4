"""Reads a URL strictly, so that no two readers can see two different hosts in it. No look-ups, no sockets, no rules of
who may be called.

What browsers repair (backslashes, tabs, ``http:/host``, percent-encoded hosts, users before an ``@``) is refused here:
every one of these repairs has been a way past somebody's filter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna

from services.errors import RequestError
from services.outbound.addresses import Address

MAX_CHARACTERS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
_SHAPE = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\x00-\x20\x7f/?#\\@:\[\]%\"<>^`{|}]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!$-;=@-Z\[\]_a-z~%]*)?"  # printable ASCII without space " # < > ? \ ^ ` { | }
    r"(?:\?(?P<query>[!$-;=?-Z\[\]_a-z~%]*))?"
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# The rule of the URL standard: a host whose last label is a number is an IPv4 address or nothing.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_HINT = "Send an absolute https URL, e.g. https://example.com/face.png, without user, fragment or odd characters."


@dataclass(frozen=True)
class Target:
    """Where a request goes: ``host`` is lower-case ASCII without brackets or trailing dot."""

    scheme: str
    host: str
    port: int
    resource: str  # path and query, as they stand in the request line
    address: Address | None  # where the host is an address and no name

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL in its plain spelling."""
        return f"{self.scheme}://{self.authority}{self.resource}"


def parse_url(text: str) -> Target:
    """Read an absolute http or https URL.

    Raises:
        RequestError: validation-failed for what is no such URL; source-forbidden-address for an address in disguise.
    """
    if len(text) > MAX_CHARACTERS:
        raise _wrong(f"it has more than {MAX_CHARACTERS} characters")
    if "#" in text:
        raise _wrong("it has a fragment, which is never sent to a server")
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise _wrong("it does not have the form https://host/path")
    scheme = shape["scheme"].lower()
    if scheme not in DEFAULT_PORTS:
        raise _wrong("its scheme is not https")
    port = DEFAULT_PORTS[scheme] if shape["port"] is None else int(shape["port"])
    if not 1 <= port <= 65_535:
        raise _wrong("its port is not between 1 and 65535")
    host, address = _read_host(shape["host"])
    query = "" if shape["query"] is None else "?" + shape["query"]
    return Target(scheme, host, port, (shape["path"] or "/") + query, address)


def _read_host(text: str) -> tuple[str, Address | None]:
    if text.startswith("["):
        try:
            address = IPv6Address(text[1:-1])
        except AddressValueError:
            raise _wrong("its host is no IPv6 address") from None
        return str(address), address
    name = _to_ascii(text).removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _wrong("its host is no name of the domain name system")
    if not _NUMBER.fullmatch(labels[-1]):
        return name, None
    try:
        # Four decimal numbers without leading zeros; 127.1, 0x7f.1, 0177.0.0.1 and 2130706433 would be loopback too.
        return name, IPv4Address(name)
    except AddressValueError:
        raise RequestError(
            "source-forbidden-address",
            "The host of the URL is an address in an unusual notation.",
            "Name the server by its domain name.",
        ) from None


def _to_ascii(host: str) -> str:
    """Return a host name as DNS knows it; full-width digits and the like become plain before anything is judged."""
    if host.isascii():
        return host.lower()
    if len(host) > 253:
        raise _wrong("its host is too long")
    try:
        plain = idna.uts46_remap(host, std3_rules=True)
        return plain.lower() if plain.isascii() else idna.encode(plain).decode().lower()
    except UnicodeError:  # what idna raises
        raise _wrong("its host is no internationalised name") from None


def _wrong(why: str) -> RequestError:
    return RequestError("validation-failed", f"The URL can't be used: {why}.", _HINT)
