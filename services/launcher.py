"""``animato up``: queue server, API and workers as child processes of one command; all end with it, however it ends.

Knows the children by their command lines only and imports none of them. Also a context manager for the demo, the tests
and the benchmarks.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import IO

import structlog
from pydantic import SecretStr

from model.bundle.reader import list_bundles
from services.errors import PermanentError
from services.parentage import start_child, wrap_command
from services.queue_server import find_queue_server, plan_queue_server, wait_for_answer
from services.settings import PREFIX, Settings

__all__ = ["Launcher", "embedded_service", "find_queue_server", "run_up"]

log = structlog.get_logger(__name__)

# A child that dies is told at once; these are for one that hangs, and more than the slowest machine needs.
READY_TIMEOUT_S = 300.0
QUEUE_TIMEOUT_S = 60.0
# Whoever presses Ctrl-C wants it to end now: a running job goes back to the queue and starts again with the service.
GRACE_S = 6.0
API_GRACE_S = 2
LOG_TAIL_LINES = 15
MAX_LOG_BYTES = 8 * 1024 * 1024
RESTART_DELAYS_S = (0.2, 1.0, 3.0, 10.0, 30.0)
STEADY_S = 60.0
_BACKLOG = 128


@dataclass
class SupervisedProcess:
    """One child process that is started again when it ends by itself, after longer and longer pauses.

    Args:
        name: of the child and of its log file.
        command: what to run.
        environment: the child's whole environment.
        log_path: where its output goes.
        inherited: descriptors that it inherits.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log_path: Path
    inherited: tuple[int, ...] = ()
    process: Popen[bytes] | None = None
    failures: int = 0
    exit_code: int | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _started_s: float = 0.0

    def start(self) -> None:
        """Start the process, in a session of its own so that Ctrl-C reaches the launcher alone."""
        self._ended.clear()
        self._started_s = time.monotonic()
        with _open_log(self.log_path) as output:
            self.process = start_child(
                wrap_command(self.command),
                on_exit=self._on_exit,
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                env=self.environment,
                pass_fds=self.inherited,
                start_new_session=True,
            )
        if self._stopping.is_set():
            self.process.terminate()

    def ask_to_end(self) -> None:
        """Send SIGTERM and start it no more."""
        self._stopping.set()
        if self.process is not None and not self._ended.is_set():
            self.process.terminate()

    def end(self, patience_s: float) -> None:
        """Wait for the end; kill it after ``patience_s``."""
        self._stopping.set()
        if self.process is None or self._ended.wait(max(0.0, patience_s)):
            return
        log.warning("child_killed", child=self.name, reason="it did not end in time")
        self.process.kill()
        self._ended.wait(5.0)

    def _on_exit(self, code: int) -> None:
        self.exit_code = code
        self.failures = 0 if time.monotonic() - self._started_s > STEADY_S else self.failures + 1
        if self._stopping.is_set():
            self._ended.set()
            return
        pause_s = RESTART_DELAYS_S[min(self.failures, len(RESTART_DELAYS_S)) - 1] if self.failures else 0.0
        log.error("child_died", child=self.name, exit_code=code, next_start_s=pause_s, log=str(self.log_path))
        if self._stopping.wait(pause_s):
            self._ended.set()
            return
        self.start()


class Launcher:
    """The whole service on one machine.

    Args:
        settings: an explicit ``redis_url`` means that no queue server is started; port 0 means any free one.
        workers: number of worker processes.
    """

    def __init__(self, settings: Settings, workers: int = 1) -> None:
        self._settings = settings
        self._workers = workers
        self._lock: IO[str] | None = None
        self._listener: socket.socket | None = None
        self._queue: SupervisedProcess | None = None
        self.children: list[SupervisedProcess] = []
        self.base_url = ""

    def start(self) -> str:
        """Start everything and return the base URL when a job would run now.

        Raises: PermanentError in words: no bundle, port or folder in use, a child that died (with the end of its log).
        """
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every child, within seconds; harmless when repeated."""
        for child in self.children:
            child.ask_to_end()
        deadline_s = time.monotonic() + GRACE_S
        for child in self.children:
            child.end(deadline_s - time.monotonic())
        # Last, so that workers can say goodbye and the API can publish its last hints.
        if self._queue is not None:
            self._queue.ask_to_end()
            self._queue.end(3.0)
        self.children, self._queue = [], None
        if self._listener is not None:
            self._listener.close()
        if self._lock is not None:
            self._lock.close()

    def _start(self) -> str:
        settings = self._settings
        if not list_bundles(settings.bundles_dir):
            raise PermanentError(
                "model-unknown",
                f"There is no model bundle in {settings.bundles_dir}.",
                "Set ANIMATO_BUNDLES_DIR to the folder that holds the bundles.",
            )
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_folder(settings.data_dir)
        # Bound here and inherited: no other program can take the port between choosing it and the API's start, clients
        # that come early wait instead of being refused, and the API keeps the port when it is started again.
        self._listener = _listen(settings.host, settings.port)
        port = self._listener.getsockname()[1]
        self.base_url = _url(settings.host, port)
        environment = child_environment(settings, port=str(port), grace_s=str(min(settings.grace_s, GRACE_S)))
        environment.setdefault("PYTHONUNBUFFERED", "1")
        if "redis_url" not in settings.model_fields_set:
            environment[f"{PREFIX}REDIS_URL"] = self._start_queue()
        for index in range(self._workers):
            own = environment if index == 0 else environment | {f"{PREFIX}WORKER_METRICS_PORT": "0"}
            self._add(f"worker-{index + 1}", [sys.executable, "-m", "worker.app"], own)
        descriptor = self._listener.fileno()
        command = [sys.executable, "-m", "services.api.server", "--fd", str(descriptor), "--grace-s", str(API_GRACE_S)]
        self._add("api", command, environment, (descriptor,))
        self._wait_ready(port)
        return self.base_url

    def _start_queue(self) -> str:
        plan = plan_queue_server(self._settings.data_dir)
        child = SupervisedProcess("queue", list(plan.command), dict(os.environ), self._log_path("queue"))
        self._queue = child
        child.start()
        if not wait_for_answer(plan.port, QUEUE_TIMEOUT_S, hopeless=lambda: child.failures > 0):
            raise self._death_of(child, "did not answer")
        return plan.url

    def _add(self, name: str, command: list[str], environment: dict[str, str], inherited: tuple[int, ...] = ()) -> None:
        child = SupervisedProcess(name, command, environment, self._log_path(name), inherited)
        self.children.append(child)
        child.start()

    def _log_path(self, name: str) -> Path:
        return self._settings.data_dir / "logs" / f"{name}.log"

    def _wait_ready(self, port: int) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            for child in self.children:
                if child.failures:
                    raise self._death_of(child, f"ended with exit code {child.exit_code}")
            if _is_ready(self._settings.host, port):
                return
            time.sleep(0.03)
        raise self._death_of(self.children[0], f"was not ready within {READY_TIMEOUT_S:.0f} s")

    def _death_of(self, child: SupervisedProcess, what: str) -> PermanentError:
        lines = child.log_path.read_text(errors="replace").splitlines() if child.log_path.exists() else []
        tail = "\n".join(lines[-LOG_TAIL_LINES:])
        return PermanentError(
            "not-ready", f"The {child.name} process {what}. The end of its log:\n{tail}", f"All of it: {child.log_path}"
        )


def run_up(settings: Settings, on_ready: Callable[[str], None] | None = None, workers: int = 1) -> None:
    """Run the whole service until Ctrl-C, SIGTERM or the end of the terminal; call ``on_ready`` with its base URL.

    Raises: PermanentError when it can't start; must be called from the main thread.
    """
    ending = threading.Event()
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: ending.set()) for number in handled}
    launcher = Launcher(settings, workers)
    try:
        starting = _Starting(launcher)
        while not starting.done.wait(0.1):
            if ending.is_set():
                return
        if starting.error is not None:
            raise starting.error
        if on_ready is not None:
            on_ready(launcher.base_url)
        while not ending.wait(1.0):
            pass
    finally:
        launcher.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Starting:
    """Starts a launcher on another thread, so that the main one hears Ctrl-C meanwhile."""

    def __init__(self, launcher: Launcher) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None
        self._launcher = launcher
        threading.Thread(target=self._run, name="launcher", daemon=True).start()

    def _run(self) -> None:
        try:
            self._launcher.start()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self.error = error
        finally:
            self.done.set()


@contextmanager
def embedded_service(settings: Settings, workers: int = 1) -> Iterator[str]:
    """Yield the base URL of a service that lives as long as the block.

    Raises: PermanentError when it can't start.
    """
    launcher = Launcher(settings, workers)
    launcher.start()
    try:
        yield launcher.base_url
    finally:
        launcher.stop()


def child_environment(settings: Settings, **changed: str) -> dict[str, str]:
    """Return this process's environment with every setting spelled out, so that children read the same ones."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
        elif isinstance(value, tuple):
            text = ",".join(str(part) for part in value)
        else:
            text = str(value)
        environment[PREFIX + name.upper()] = changed.get(name, text)
    return environment


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=5.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _url(host: str, port: int) -> str:
    name = _reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise PermanentError(
            "not-ready",
            f"Port {port} of {host} can't be used: {error.strerror or error}.",
            "Stop what uses it, or choose another port (--port, ANIMATO_PORT; 0 is any free one).",
        ) from error
    return listener


def _lock_folder(data_dir: Path) -> IO[str]:
    lock = (data_dir / "up.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise PermanentError(
            "not-ready",
            f"Another animato runs on {data_dir} already.",
            "Use that one, stop it, or choose another folder (--data-dir, ANIMATO_DATA_DIR).",
        ) from error
    return lock


def _open_log(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")
