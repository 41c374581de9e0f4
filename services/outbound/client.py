"""``Outbound``: the only way in which this service calls a URL that a client named. Blocking; for use on threads.

``fetch`` gets a picture and follows a few redirects, each judged like the first URL; ``post`` tells a webhook and
follows none. Both go to public addresses over https, connect to an address that was judged, and keep to their limits
of bytes and time. No environment variable puts a proxy in between.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urljoin

import h11

from services.errors import RequestError
from services.outbound.exchange import BodyTooLargeError, Dial, Exchange, Head, connect, dial
from services.outbound.guard import Deadline, Guard, LookUp, look_up
from services.outbound.urls import Target, parse_url
from services.settings import Settings

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGENT = "animato/1"
# Handed on as it is: joining would repair what is wrong with it.
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True)
class Fetched:
    """What a URL answered: the body, its media type as the server calls it (may be empty), the URL it came from."""

    body: bytes
    media_type: str
    final_url: str


@dataclass(frozen=True)
class Answered:
    """How a server took a POST: its status, whatever it was, how long it took, and the ``Retry-After`` that it gave."""

    status: int
    duration_s: float
    retry_after_s: float | None = None


class Outbound:
    """Calls URLs of strangers safely. May be used by many threads at once.

    Args:
        allow: hosts, host:port and networks that are open beside the public internet, there also by http.
        look_up: names → addresses; default: the system's resolver.
        dial: address → connection; default: TCP.
        trust: whose certificates are believed; default: the system's (``SSL_CERT_FILE`` names others).
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        look_up: LookUp = look_up,
        dial: Dial = dial,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = Guard(allow, look_up)
        self._dial = dial
        self._trust = trust or ssl.create_default_context()

    @classmethod
    def from_settings(cls, settings: Settings) -> Outbound:
        """Return the way out that the settings describe.

        Raises:
            PermanentError: settings-invalid for an entry of ``outbound_allow`` that can't be read.
        """
        return cls(settings.outbound_allow)

    def check_url(self, url: str) -> None:
        """Judge a URL as far as that needs no look-up, so that a hopeless one is refused before anything is stored.

        Raises:
            RequestError: validation-failed, source-forbidden-address.
        """
        self._guard.check(parse_url(url))

    def fetch(self, url: str, *, max_bytes: int, timeout_s: float, accept: Sequence[str] = ("*/*",)) -> Fetched:
        """Return what a URL answers with status 200, after at most three redirects.

        Args:
            max_bytes: largest body that is taken.
            timeout_s: for everything together: look-ups, connections, redirects, the last byte.
            accept: media types to ask for; what comes is not checked against them.

        Raises:
            RequestError: validation-failed, source-forbidden-address, source-unreachable, payload-too-large.
        """
        deadline = Deadline(timeout_s)
        headers = [("User-Agent", _AGENT), ("Accept", ", ".join(accept)), ("Accept-Encoding", "identity")]
        target = parse_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            with self._open(target, deadline) as exchange:
                head = exchange.ask("GET", target, headers)
                if head.status in _REDIRECTS:
                    target = self._follow(target, head)
                    continue
                return Fetched(_read(exchange, head, max_bytes), _media_type(head), target.url)
        raise _unreachable(f"it redirects more than {MAX_REDIRECTS} times")

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answered:
        """Send a body and return how it was answered; a redirect is an answer like any other and is not followed.

        Raises:
            RequestError: validation-failed, source-forbidden-address, source-unreachable.
        """
        started_s = time.monotonic()
        deadline = Deadline(timeout_s)
        target = parse_url(url)
        with self._open(target, deadline) as exchange:
            head = exchange.ask("POST", target, [("User-Agent", _AGENT), *headers.items()], body)
        return Answered(head.status, time.monotonic() - started_s, _read_retry_after(head))

    def _follow(self, target: Target, head: Head) -> Target:
        """Return where a redirect leads, judged as far as that needs no look-up."""
        location = head.headers.get("location", "")
        if not location:
            raise _unreachable("it redirects to nowhere")
        # Servers send raw UTF-8 here though they should not; the fragment is for browsers.
        address = quote(location.encode("latin-1"), safe=_PRINTABLE).partition("#")[0]
        if address.startswith("//"):
            address = f"{target.scheme}:{address}"
        elif not _ABSOLUTE.match(address):
            address = urljoin(target.url, address)
        try:
            following = parse_url(address)
            self._guard.check(following)
        except RequestError as error:
            if error.code == "source-forbidden-address":
                raise
            raise _unreachable("it redirects to something that is no https URL") from error
        return following

    @contextmanager
    def _open(self, target: Target, deadline: Deadline) -> Iterator[Exchange]:
        """Judge a target and connect to it; whatever breaks on the way or later is told in our words."""
        try:
            addresses = self._guard.resolve(target, deadline)
            with Exchange(connect(target, addresses, deadline, self._trust, self._dial), deadline) as exchange:
                yield exchange
        except TimeoutError as error:
            raise _unreachable("it did not answer in time") from error
        except ssl.SSLCertVerificationError as error:
            raise _unreachable("its certificate is not valid for this host") from error
        except ssl.SSLError as error:
            raise _unreachable("it does not speak TLS as it should") from error
        except OSError as error:
            raise _unreachable("its host can't be found or does not answer") from error
        except h11.ProtocolError as error:
            raise _unreachable("its answer is no proper HTTP") from error


def _read(exchange: Exchange, head: Head, max_bytes: int) -> bytes:
    if head.status != 200:
        raise _unreachable(f"it answered with status {head.status}")
    if head.headers.get("content-encoding", "identity").strip().lower() != "identity":
        # What unpacks to more than it was is not unpacked at all.
        raise _unreachable("its answer is compressed though that was not asked for")
    too_large = RequestError(
        "payload-too-large",
        f"What the URL holds is larger than {max_bytes / 2**20:.3g} MiB.",
        "Use a smaller or more strongly compressed picture.",
        max_bytes=max_bytes,
    )
    declared = head.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    try:
        return exchange.read_body(max_bytes)
    except BodyTooLargeError:
        raise too_large from None


def _read_retry_after(head: Head) -> float | None:
    """Return the seconds of a ``Retry-After``; a date, which few send, says nothing here."""
    text = head.headers.get("retry-after", "").strip()
    return float(text) if re.fullmatch("[0-9]{1,6}", text) else None


def _media_type(head: Head) -> str:
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unreachable(why: str) -> RequestError:
    return RequestError(
        "source-unreachable",
        f"The URL can't be fetched: {why}.",
        "Open the URL from another network to see what it answers, then try again.",
    )
