"""A real receiver of webhooks, a job store with one secret, and couriers that call by the guarded way out."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from services.api.schemas import describe_job
from services.jobs.contract import AnimationOptions, InputFacts, JobRecord, make_job_id
from services.jobs.deliveries import Delivery
from services.jobs.store import JobStore
from services.outbound.client import Outbound
from services.webhooks.courier import Courier, Posts
from services.webhooks.signing import make_secret

OWNER = "me"


@dataclass
class Call:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A web server that keeps every call and answers as ``answer`` says; a status of 0 cuts the connection."""

    answer: Callable[[Call], int] = lambda _: 204
    headers: dict[str, str] = field(default_factory=dict)  # of every answer
    calls: list[Call] = field(default_factory=list)
    taken: list[Call] = field(default_factory=list)  # those that were answered with 2xx
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def serve(self) -> ThreadingHTTPServer:
        receiver = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                call = Call(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                with lock:
                    receiver.calls.append(call)
                status = receiver.answer(call)
                if status == 0:
                    return
                if 200 <= status < 300:
                    with lock:
                        receiver.taken.append(call)
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        server = Server(("127.0.0.1", 0), Handler)
        receiver.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server


@pytest.fixture
def open_receiver() -> Iterator[Callable[..., Receiver]]:
    """Start a receiver; all are shut down at the end."""
    servers = []

    def start(**how: Any) -> Receiver:
        receiver = Receiver(**how)
        servers.append(receiver.serve())
        return receiver

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def store(empty_url: str) -> Iterator[JobStore]:
    """An empty store; runs once on SQLite and once on PostgreSQL."""
    store = JobStore(empty_url)
    yield store
    store.close()


@pytest.fixture
def secret(store: JobStore) -> str:
    return store.add_webhook_secret(OWNER, make_secret(), 0).secret


End = Callable[..., JobRecord]


@pytest.fixture
def end(store: JobStore) -> End:
    """Accept a job with this webhook and end it: an event is due."""

    def end(url: str, **options: Any) -> JobRecord:
        record, _ = store.accept(
            job_id=make_job_id(),
            owner=OWNER,
            options=AnimationOptions.model_validate({"prompt": "smiling", "webhook": {"url": url}, **options}),
            input=InputFacts(),
            seed=1,
            model_id="human",
        )
        return store.request_cancel(record.id)

    return end


@pytest.fixture
def start_courier(store: JobStore) -> Iterator[Callable[..., Courier]]:
    """Start a courier that may call loopback and tries again soon; all are closed at the end."""
    couriers: list[Courier] = []

    def start(outbound: Posts | None = None, **changes: Any) -> Courier:
        settings: dict[str, Any] = {"concurrency": 4, "timeout_s": 60.0, "delays_s": (0.0,) * 20, **changes}
        courier = Courier(store, outbound or Outbound(["127.0.0.1"]), describe=describe_job, **settings)
        couriers.append(courier)
        courier.start()
        return courier

    yield start
    for courier in couriers:
        courier.close()


def wait_for(condition: Callable[[], object], what: str, patience_s: float = 120.0) -> None:
    """Wait until something has happened; the patience is for slow machines and no goal."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not happen"
        time.sleep(0.02)


def delivery_of(store: JobStore, record: JobRecord) -> Delivery:
    (delivery,) = store.list_deliveries(None, job_id=record.id)[0]
    return delivery


def wait_for_state(store: JobStore, record: JobRecord, state: str) -> Delivery:
    wait_for(lambda: delivery_of(store, record).state == state, f"{record.id} becoming {state}")
    return delivery_of(store, record)
