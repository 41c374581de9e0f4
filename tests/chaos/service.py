"""The processes of one service, each in a group of its own: killed, frozen, asked to end, and started again.

What an orchestrator does, does the keeper here: what has ended is started again, a moment later.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.launcher import child_environment
from services.parentage import start_child, wrap_command
from services.settings import Settings
from tests.chaos.client import Away, Client
from tests.chaos.orders import write_ffmpeg
from tests.pace import FFMPEG_VARIABLE
from tests.worker.workplace import descendants

START_PATIENCE_S = 400.0
RESTART_PAUSE_S = 0.5
LOOK_EVERY_S = 0.1


@dataclass
class Member:
    """One process that is to be there always: the API or a worker."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    inherited: tuple[int, ...] = ()
    starts: int = 0
    log_begins: int = 0  # where the words of the running process begin
    exit_codes: list[int] = field(default_factory=list)
    resting: threading.Event = field(default_factory=threading.Event)  # set: not to be started again
    _process: subprocess.Popen[bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def pid(self) -> int:
        """The process id, which is the group's too; 0 while there is none."""
        with self._lock:
            return 0 if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start the process; it ends with ours."""
        with self._lock, self.log.open("ab") as output:
            self.log_begins = output.tell()
            self._process = start_child(
                wrap_command(self.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                pass_fds=self.inherited,
                process_group=0,
            )
            self.starts += 1

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group: the worker, its inference child, its ffmpeg."""
        pid = self.pid
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)

    def ask_to_end(self) -> None:
        """SIGTERM to the process alone, as an orchestrator sends it."""
        pid = self.pid
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def wait_gone(self, patience_s: float) -> int | None:
        """Return the exit code, or None when the process is still there after ``patience_s``."""
        process = self._process
        assert process is not None
        try:
            return process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return None

    def below(self) -> set[int]:
        """The processes below this one."""
        pid = self.pid
        return descendants(pid) if pid else set()

    def inference_child(self) -> int | None:
        """The process id of a worker's inference child, None while there is none."""
        for pid in self.below():
            with contextlib.suppress(OSError):
                if b"worker.child" in (Path("/proc") / str(pid) / "cmdline").read_bytes():
                    return pid
        return None

    def encodes(self) -> bool:
        """Tell whether a worker is in the middle of a film: something runs beside its inference child."""
        return len(self.below()) > 1

    def in_hand(self) -> str | None:
        """Return the job that a worker said it began and did not say it left."""
        with self.log.open("rb") as log:
            log.seek(self.log_begins)
            return last_begun(log.read().decode(errors="replace").splitlines())

    def revive(self) -> None:
        """Start again what has ended."""
        process = self._process
        if process is None or process.poll() is None or self.resting.is_set():
            return
        self.exit_codes.append(process.returncode)
        time.sleep(RESTART_PAUSE_S)
        if not self.resting.is_set():
            self.start()


def last_begun(lines: Sequence[str]) -> str | None:
    """Return the job that these log lines leave unfinished."""
    for line in reversed(lines):
        if '"job_left"' in line:
            return None
        if '"job_started"' in line:
            return str(json.loads(line)["job_id"])
    return None


class Service:
    """The API, the workers and their keeper.

    Args:
        settings: what the ground says.
        folder: for logs and temporary files.
        workers: number of workers.
    """

    def __init__(self, settings: Settings, folder: Path, workers: int) -> None:
        folder.mkdir()
        (folder / "tmp").mkdir()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.set_inheritable(True)
        port = self._listener.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}"
        self.client = Client(self.base_url)
        environment = child_environment(settings, port=str(port)) | {
            FFMPEG_VARIABLE: str(write_ffmpeg(folder)),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
        }
        descriptor = self._listener.fileno()
        serve = ["-m", "services.api.server", "--fd", str(descriptor), "--grace-s", "2"]
        self.api = Member("api", [sys.executable, *serve], environment, folder / "api.log", (descriptor,))
        self.workers = [
            Member(name, [sys.executable, "-m", "worker.app"], environment, folder / f"{name}.log")
            for name in (f"worker-{number}" for number in range(1, workers + 1))
        ]
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    @property
    def members(self) -> list[Member]:
        """The API and the workers."""
        return [self.api, *self.workers]

    def start(self) -> None:
        """Start everything and wait until a job would run. Raises: RuntimeError with the end of the logs."""
        for member in self.members:
            member.start()
        ends_s = time.monotonic() + START_PATIENCE_S
        while not self._ready():
            dead = [member for member in self.members if not member.pid]
            if dead or time.monotonic() > ends_s:
                raise RuntimeError(f"the service did not start: {self.tails()}")
            time.sleep(LOOK_EVERY_S)
        self._keeper.start()

    def close(self) -> None:
        """End everything, in order if it goes."""
        self._closing.set()
        for member in self.members:
            member.resting.set()
            member.send(signal.SIGCONT)
            member.ask_to_end()
        for member in self.members:
            if member.starts and member.wait_gone(15.0) is None:
                member.send(signal.SIGKILL)
        self.client.close()
        self._listener.close()

    def tails(self, lines: int = 15) -> str:
        """The end of every log."""
        told = []
        for member in self.members:
            text = member.log.read_text(errors="replace") if member.log.exists() else ""
            told.append(f"--- {member.log}\n" + "\n".join(text.splitlines()[-lines:]))
        return "\n".join(told)

    def _ready(self) -> bool:
        try:
            return bool(self.client.look("/readyz")["status"] == "ready")
        except Away:
            return False

    def _keep(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            for member in self.members:
                member.revive()


@contextmanager
def running_service(settings: Settings, folder: Path, workers: int) -> Iterator[Service]:
    """Yield a service that would run a job now."""
    service = Service(settings, folder, workers)
    try:
        service.start()
        yield service
    finally:
        service.close()
