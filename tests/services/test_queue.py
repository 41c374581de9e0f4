"""The queue's options, the hints through a real server, and the check of that server."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from celery.app.defaults import NAMESPACES, flatten
from structlog.testing import capture_logs

from services.errors import PermanentError, TemporaryError
from services.jobs.dispatch import ENOUGH_UNREAD, Dispatcher
from services.queue import QUEUE, TASK_LOOK, HintQueue, check_broker, make_celery, soft_shutdown_s
from services.settings import Settings
from tests.servers import QueueServer


def _eventually(true: Callable[[], bool], timeout_s: float = 150.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def hints(own_queue_server: QueueServer) -> Iterator[HintQueue]:
    hints = HintQueue(Settings(redis_url=own_queue_server.url))
    yield hints
    hints.close()


def test_every_option_is_one_that_celery_knows() -> None:
    known = {name for name, _ in flatten(NAMESPACES)}
    ours = set(make_celery(Settings()).conf.changes)
    assert ours - known - {"deprecated_settings"} == set()
    assert {"worker_disable_prefetch", "broker_connection_max_retries", "task_publish_retry"} <= ours


def test_options_are_the_promised_ones() -> None:
    conf = make_celery(Settings()).conf
    assert not conf.task_acks_late
    assert conf.task_ignore_result
    assert conf.result_backend is None
    assert conf.worker_disable_prefetch
    assert conf.worker_prefetch_multiplier == 1
    assert list(conf.accept_content) == ["json"]
    assert conf.task_serializer == "json"
    assert conf.broker_connection_retry_on_startup is True
    assert conf.broker_connection_max_retries is None
    assert conf.task_publish_retry is False
    assert conf.broker_transport_options["socket_timeout"] == 2
    assert conf.broker_transport_options["socket_connect_timeout"] == 2


@pytest.mark.parametrize("grace_s", [1.0, 5.0, 10.0, 30.0, 120.0])
def test_soft_shutdown_is_shorter_than_the_grace_period(grace_s: float) -> None:
    assert 0 < soft_shutdown_s(grace_s) < grace_s


def test_hint_arrives_with_the_id_alone(hints: HintQueue, own_queue_server: QueueServer) -> None:
    dispatcher = Dispatcher(hints)
    dispatcher.hint("anm_1")
    dispatcher.close(timeout_s=150)
    client = redis.Redis.from_url(own_queue_server.url)
    (message,) = [json.loads(raw) for raw in client.lrange(QUEUE, 0, -1)]
    assert message["headers"]["task"] == TASK_LOOK
    assert message["headers"]["argsrepr"] == "('anm_1',)"
    assert message["content-type"] == "application/json"
    assert message["headers"]["expires"] is None, "one that expired would keep others from being published"
    client.close()


def test_hints_do_not_pile_up_unread(hints: HintQueue, own_queue_server: QueueServer) -> None:
    client = redis.Redis.from_url(own_queue_server.url)
    dispatcher = Dispatcher(hints)
    for number in range(3 * ENOUGH_UNREAD):
        dispatcher.hint(f"anm_{number}")
    assert _eventually(lambda: not dispatcher._pending.left)
    dispatcher.close(timeout_s=150)
    assert hints.count_unread() == client.llen(QUEUE) == ENOUGH_UNREAD
    client.close()


def test_hints_go_on_when_they_are_read(hints: HintQueue, own_queue_server: QueueServer) -> None:
    client = redis.Redis.from_url(own_queue_server.url)
    dispatcher = Dispatcher(hints)
    for number in range(ENOUGH_UNREAD):
        dispatcher.hint(f"anm_{number}")
    assert _eventually(lambda: client.llen(QUEUE) == ENOUGH_UNREAD)
    assert client.rpop(QUEUE) is not None
    dispatcher.hint("anm_next")
    assert _eventually(lambda: client.llen(QUEUE) == ENOUGH_UNREAD)
    assert json.loads(client.lrange(QUEUE, 0, 0)[0])["headers"]["argsrepr"] == "('anm_next',)"
    dispatcher.close()
    client.close()


def test_hints_return_with_the_queue_server(hints: HintQueue, own_queue_server: QueueServer) -> None:
    client = redis.Redis.from_url(own_queue_server.url)
    dispatcher = Dispatcher(hints)
    dispatcher.hint("anm_1")
    assert _eventually(lambda: client.llen(QUEUE) == 1)
    own_queue_server.kill()
    for number in range(5):
        dispatcher.hint(f"anm_lost{number}")
    own_queue_server.start()

    def hinted() -> bool:
        dispatcher.hint("anm_2")
        return bool(client.llen(QUEUE))

    assert _eventually(hinted)
    dispatcher.close()
    client.close()


# Each hint that waited would wait for the socket's two seconds: more than an hour in all.
@pytest.mark.timeout(600)
def test_hint_never_waits_for_a_frozen_server(hints: HintQueue, own_queue_server: QueueServer) -> None:
    os.kill(own_queue_server.pid, signal.SIGSTOP)
    try:
        dispatcher = Dispatcher(hints)
        before = threading.active_count()
        for number in range(2000):  # more than are ever kept
            dispatcher.hint(f"anm_{number}")
        assert threading.active_count() <= before + 1
        dispatcher.close(timeout_s=1)
        assert dispatcher._pending.left, "closing did not wait for hints that go nowhere"
        dispatcher.hint("anm_after")
    finally:
        os.kill(own_queue_server.pid, signal.SIGCONT)


def test_fit_server_passes(queue_server: QueueServer) -> None:
    check_broker(queue_server.url)


def test_server_that_evicts_is_refused_with_a_remedy(tmp_path: Path) -> None:
    server = QueueServer(tmp_path, "--maxmemory-policy", "allkeys-lru")
    server.start()
    try:
        with pytest.raises(PermanentError) as refusal:
            check_broker(server.url)
        assert refusal.value.code == "broker-evicts"
        assert "allkeys-lru" in refusal.value.message
        assert "noeviction" in refusal.value.hint
    finally:
        server.stop()


def test_server_that_forbids_config_is_tolerated_aloud(tmp_path: Path) -> None:
    server = QueueServer(tmp_path, "--rename-command", "CONFIG", "")
    server.start()
    try:
        with capture_logs() as lines:  # wherever the log goes to, which an earlier test may have set
            check_broker(server.url)
        assert [line["event"] for line in lines] == ["broker_policy_unknown"]
    finally:
        server.stop()


def test_absent_server_is_a_temporary_error_without_its_password() -> None:
    with pytest.raises(TemporaryError) as refusal:
        check_broker("redis://:canary@127.0.0.1:1/0")
    assert refusal.value.code == "not-ready"
    assert "canary" not in refusal.value.message + refusal.value.hint
