"""The service as its clients see it, and clients that never let a job go: they post until they are answered."""

from __future__ import annotations

import http.client
import json
import queue
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.chaos.orders import Order

POST_TIMEOUT_S = 20.0
LOOK_TIMEOUT_S = 10.0
PAUSE_S = 0.25
PAGE = 100


class Away(Exception):  # noqa: N818 - it reads as what happened
    """The API did not answer, or only to say that it can't now."""


class Client:
    """Looks at jobs. Thread-safe."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._http = httpx.Client(base_url=base_url, timeout=LOOK_TIMEOUT_S, trust_env=False)

    def look(self, path: str, **params: str) -> Any:
        """Return the JSON of a GET. Raises: Away."""
        return self._get(path, params).json()

    def fetch(self, path: str) -> bytes:
        """Return the bytes behind a path, b"" where there are none (404, 410). Raises: Away."""
        return self._get(path, {}).content

    def running(self) -> dict[str, int]:
        """Return the attempt of every running job. Raises: Away."""
        return {job["id"]: job["attempt"] for job in self.look("/v1/animations", status="running", limit="100")["data"]}

    def every_job(self) -> Iterator[dict[str, Any]]:
        """Yield all jobs, newest first. Raises: Away."""
        cursor: dict[str, str] = {}
        while True:
            page = self.look("/v1/animations", limit=str(PAGE), **cursor)
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    def cancel(self, job_id: str) -> bool:
        """Ask for a job's end; tell whether it could still be asked. Raises: Away."""
        try:
            answer = self._http.post(f"/v1/animations/{job_id}/cancel")
        except httpx.TransportError as error:
            raise Away(str(error)) from error
        return answer.status_code == httpx.codes.OK

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def _get(self, path: str, params: dict[str, str]) -> httpx.Response:
        try:
            answer = self._http.get(path, params=params)
        except httpx.TransportError as error:
            raise Away(str(error)) from error
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise Away(f"{path}: {answer.status_code}")
        return answer


@dataclass(frozen=True)
class Accepted:
    """A job that was answered with 202: from here on it must not be lost."""

    id: str
    order: Order


@dataclass(frozen=True)
class Answer:
    """One answered POST."""

    at_s: float  # time.time() when it was sent
    seconds: float
    status: int


@dataclass
class Ledger:
    """What the clients were told."""

    accepted: dict[str, Accepted] = field(default_factory=dict)  # by idempotency key
    answers: list[Answer] = field(default_factory=list)
    two_ids: list[str] = field(default_factory=list)  # keys that were answered with two different jobs
    wrong: list[str] = field(default_factory=list)  # answers that no client should ever get
    lost_calls: int = 0  # calls that were never answered and repeated
    abandoned: int = 0  # calls that the client itself gave up before the answer


class Submitter:
    """Posts orders on a few threads, each again and again under its key until the service takes it.

    Args:
        rate: posts a second in all.
        abandon: share of posts whose client dies right after sending, before it repeats them as another client would.
    """

    def __init__(
        self, base_url: str, orders: list[Order], *, rate: float, abandon: float, seed: int, threads: int = 4
    ) -> None:
        self._base_url = base_url
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        for order in orders:
            self._orders.put(order)
        self._pause_s = threads / rate
        self._abandon = abandon
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = httpx.Client(base_url=base_url, timeout=POST_TIMEOUT_S, trust_env=False)
        self.ledger = Ledger()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 100 + number),), daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to post."""
        for thread in self._threads:
            thread.start()

    def post_next(self, patience_s: float) -> Accepted | None:
        """Post the next order from the caller's thread; None when none is left or it was not taken in time."""
        try:
            order = self._orders.get_nowait()
        except queue.Empty:
            return None
        taken = self.post(order, patience_s)
        if taken is None:
            self._orders.put(order)  # to be repeated under its key
        return taken

    @property
    def left(self) -> int:
        """How many orders no thread has in hand yet."""
        return self._orders.qsize()

    def join(self, still_s: float) -> bool:
        """Wait until every order was taken; give up, and return False, when none is for ``still_s``."""
        taken, changed_s = -1, time.monotonic()
        while any(thread.is_alive() for thread in self._threads):
            if len(self.ledger.accepted) != taken:
                taken, changed_s = len(self.ledger.accepted), time.monotonic()
            if time.monotonic() - changed_s > still_s:
                self._closing.set()
                return False
            time.sleep(PAUSE_S)
        self._http.close()
        return True

    def _run(self, random_: random.Random) -> None:
        while not self._closing.is_set():
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                return
            began_s = time.monotonic()
            if random_.random() < self._abandon:
                self._send_and_die(order)
            while self.post(order, 60.0) is None and not self._closing.is_set():
                pass
            time.sleep(max(0.0, began_s + self._pause_s * random_.uniform(0.5, 1.5) - time.monotonic()))

    def post(self, order: Order, patience_s: float) -> Accepted | None:
        """Post one order until it is taken; None after ``patience_s`` (it may have been taken all the same)."""
        ends_s = time.monotonic() + patience_s
        while time.monotonic() < ends_s:
            sent_s, began_s = time.time(), time.monotonic()
            try:
                answer = self._http.post("/v1/animations", json=order.body, headers={"Idempotency-Key": order.key})
            except httpx.TransportError:
                with self._lock:
                    self.ledger.lost_calls += 1
                time.sleep(PAUSE_S)
                continue
            with self._lock:
                self.ledger.answers.append(Answer(sent_s, time.monotonic() - began_s, answer.status_code))
                taken = self._note(order, answer)
            if taken is not None:
                return taken
            time.sleep(PAUSE_S)
        return None

    def _note(self, order: Order, answer: httpx.Response) -> Accepted | None:
        if answer.status_code == httpx.codes.ACCEPTED:
            taken = Accepted(answer.json()["id"], order)
            known = self.ledger.accepted.setdefault(order.key, taken)
            if known.id != taken.id:
                self.ledger.two_ids.append(order.key)
            return known
        told = answer.status_code, answer.headers.get("Retry-After")
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and told[1] is not None:
            return None  # it says when to come again: an honest refusal
        if answer.status_code == httpx.codes.CONFLICT:
            return None  # the first call of this key is still being worked on
        self.ledger.wrong.append(f"{order.key}: {told} {answer.text[:300]}")
        return None

    def _send_and_die(self, order: Order) -> None:
        """Send the whole request and leave before the answer, as a client that is killed does."""
        host = urlsplit(self._base_url)
        connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=POST_TIMEOUT_S)
        try:
            connection.request(
                "POST",
                "/v1/animations",
                json.dumps(order.body),
                {"Content-Type": "application/json", "Idempotency-Key": order.key},
            )
            assert isinstance(connection.sock, socket.socket)
            connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the API is away: a call that never arrived
        finally:
            connection.close()
        with self._lock:
            self.ledger.abandoned += 1
