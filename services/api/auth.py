"""Who asks: turns a request into a client, by its key or, where none are asked for, as the one anonymous client.

``Authenticator`` is all that the routes know. Keys and their scopes live in ``services.jobs.keys``; what a route asks
for is one of the names at the end of ``resources``.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from services.errors import AnimatoError, RequestError
from services.jobs.keys import USED_TO_S, KeyProof, Keys, hash_key, read_key_id
from services.settings import Settings

ANONYMOUS = "anonymous"
# A key that was revoked opens nothing after this time, on any replica; a busy key is looked up this often.
KEY_MEMORY_S = 2.0
MAX_REMEMBERED = 10_000

_log = structlog.get_logger(__name__)

# How openapi.yaml describes the two ways to send a key. They are read by ``_read_key``; a key is not needed for every
# service, so neither of them may refuse a request by itself.
BEARER = HTTPBearer(
    scheme_name="bearer", auto_error=False, description="`Authorization: Bearer ank_…`, made by `animato keys create`."
)
HEADER = APIKeyHeader(
    name="X-API-Key", scheme_name="apiKey", auto_error=False, description="The same key, for clients without Bearer."
)


@dataclass(frozen=True)
class Client:
    """The one who asks. ``key_id`` is None where no keys are asked for."""

    owner: str
    key_id: str | None


class Authenticator(Protocol):
    """Finds out who asks."""

    async def identify(self, request: Request, scopes: Iterable[str]) -> Client:
        """Return the client. Raises: RequestError unauthorized, forbidden (a scope is missing)."""

    def close(self) -> None:
        """Let go of whatever is held."""


def make_authenticator(settings: Settings, keys: Keys) -> Authenticator:
    """Return the authenticator that the settings ask for."""
    return KeyReader(keys) if settings.keys_needed else _Anybody()


class _Anybody:
    """Every request is the same owner's; a key that is sent all the same is not looked at."""

    async def identify(self, request: Request, scopes: Iterable[str]) -> Client:
        return Client(ANONYMOUS, None)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class _Remembered:
    """A proof and how long it may be used, by the monotonic clock: ``expires_s`` is the key's own end."""

    proof: KeyProof
    forget_s: float
    expires_s: float


class KeyReader:
    """Asks every request for a key. Used on the event loop only, so its memory needs no lock."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._memory: OrderedDict[str, _Remembered] = OrderedDict()
        self._noted_s: OrderedDict[str, float] = OrderedDict()
        # Uses are written beside the requests: none waits for the database because of a statistic.
        self._pen = ThreadPoolExecutor(1, "key-use")

    async def identify(self, request: Request, scopes: Iterable[str]) -> Client:
        """Return the key's owner.

        Raises: RequestError("unauthorized") without a live key, RequestError("forbidden") without the scope,
        TemporaryError("not-ready") when the database does not answer.
        """
        text = _read_key(request)
        key_id = read_key_id(text)
        if key_id is None:
            raise _refuse("This is no API key of animato." if text else "This service asks for an API key.", bool(text))
        remembered = await self._recall(key_id)
        if remembered is None or not hmac.compare_digest(remembered.proof.sha256, hash_key(text)):
            raise _refuse("This API key is not known here.", sent=True)
        record = remembered.proof.record
        # From here on the sender has proven to hold the key, and may be told what is wrong with it.
        if record.revoked_at is not None:
            raise _refuse("This API key was revoked.", sent=True)
        if time.monotonic() >= remembered.expires_s:
            raise _refuse("This API key has expired.", sent=True)
        missing = [scope for scope in scopes if scope not in record.scopes]
        if missing:
            raise _lack(missing)
        structlog.contextvars.bind_contextvars(key_id=key_id)  # the request's lines in the log tell who asked
        self._note_use(key_id)
        return Client(record.owner, key_id)

    def close(self) -> None:
        """Write down the last uses."""
        self._pen.shutdown()

    async def _recall(self, key_id: str) -> _Remembered | None:
        found = self._memory.get(key_id)
        if found is not None and time.monotonic() < found.forget_s:
            return found
        # The time is taken before the look: a key that is revoked while it lasts must not be remembered for longer.
        asked_s = time.monotonic()
        proof = await run_in_threadpool(self._keys.find_key, key_id)
        if proof is None:
            self._memory.pop(key_id, None)
            return None
        ends_at = proof.record.expires_at
        left_s = float("inf") if ends_at is None else (ends_at - proof.seen_at).total_seconds()
        found = _Remembered(proof, asked_s + KEY_MEMORY_S, asked_s + left_s)
        _keep(self._memory, key_id, found)
        return found

    def _note_use(self, key_id: str) -> None:
        now_s = time.monotonic()
        if now_s - self._noted_s.get(key_id, float("-inf")) >= USED_TO_S:
            _keep(self._noted_s, key_id, now_s)
            self._pen.submit(self._write_use, key_id)

    def _write_use(self, key_id: str) -> None:
        try:
            self._keys.note_key_use(key_id)
        except AnimatoError as error:
            _log.warning("key_use_not_noted", key_id=key_id, code=error.code)


def _keep(memory: OrderedDict[str, Any], key: str, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)


def _read_key(request: Request) -> str:
    """Return the key as it was sent; X-API-Key wins, for what stands in Authorization may be for somebody in front."""
    own = request.headers.get("X-API-Key", "").strip()
    scheme, _, text = request.headers.get("Authorization", "").strip().partition(" ")
    return own or (text.strip() if scheme.lower() == "bearer" else "")


def _refuse(message: str, sent: bool) -> RequestError:
    return RequestError(
        "unauthorized",
        message,
        "Send a live one as `Authorization: Bearer ank_…` or `X-API-Key: ank_…`; `animato keys create` makes them.",
        challenge={"error": "invalid_token"} if sent else {},
    )


def _lack(missing: list[str]) -> RequestError:
    wanted = " ".join(missing)
    return RequestError(
        "forbidden",
        f"This API key lacks the scope {wanted}.",
        "Use a key that has it: `animato keys create --scope …` makes one.",
        challenge={"error": "insufficient_scope", "scope": wanted},
    )
