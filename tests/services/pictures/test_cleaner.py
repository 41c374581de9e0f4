"""Children that decode: what happens to one, by its picture or by fate, happens to it alone. All are real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from structlog.testing import capture_logs

import services.pictures.cleaner as room
from services.errors import RequestError, TemporaryError
from services.pictures.cleaner import Death, PictureCleaner
from services.pictures.headers import PictureLimits
from services.pictures.sandbox import Fence
from tests.services.api.pictures import encode, make_photo
from tests.worker.workplace import wait_until

LIMITS = PictureLimits(max_pixels=16_000_000, min_side_px=32)
MAX_BYTES = 20_000_000
PHOTO = encode(make_photo())
# Takes an order, then does what stands in the middle.
IMPOSTOR = """
import os, signal, sys, time
from services.pictures.child import ANSWER, ORDER, READY, read_exactly, write_all
connection = os.fdopen(int(sys.argv[1]), "r+b", buffering=0)
write_all(connection, READY.pack({fences}))
while True:
    *_, length = ORDER.unpack(read_exactly(connection, ORDER.size))
    read_exactly(connection, length)
    {action}
"""


@pytest.fixture
def start() -> Iterator[Callable[..., PictureCleaner]]:
    """Make cleaners that are closed at the end."""
    made: list[PictureCleaner] = []

    def make(limits: PictureLimits = LIMITS, **options: Any) -> PictureCleaner:
        made.append(PictureCleaner(limits, MAX_BYTES, **options))
        return made[-1]

    yield make
    for cleaner in made:
        cleaner.close()


def pids(cleaner: PictureCleaner) -> list[int]:
    """Return the process ids of the idle children."""
    return [child._process.pid for child in cleaner._idle]


def code_of(cleaner: PictureCleaner, data: bytes) -> str:
    try:
        cleaner.clean(data)
    except RequestError as error:
        return error.code
    return ""


def in_background(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def gone(pid: int) -> bool:
    """True when the process has ended, buried or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


def impersonate(monkeypatch: pytest.MonkeyPatch, action: str, fences: int = 7) -> None:
    monkeypatch.setattr(room, "PROGRAM", ("-c", IMPOSTOR.format(action=action, fences=fences)))


def test_one_child_serves_many_pictures(start: Callable[..., PictureCleaner]) -> None:
    cleaner = start()
    assert pids(cleaner) == [], "none before the first picture"
    first = cleaner.clean(PHOTO)
    before = pids(cleaner)
    assert cleaner.clean(PHOTO) == first
    assert code_of(cleaner, PHOTO[:100]) == "image-corrupt"
    assert pids(cleaner) == before
    assert len(before) == 1


def test_a_child_is_locked_in_and_knows_no_secret(
    start: Callable[..., PictureCleaner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANIMATO_DATABASE_URL", "postgresql+psycopg://user:SECRET@host/name")
    cleaner = start()
    with capture_logs() as logs:
        cleaner.clean(PHOTO)
    if "picture_sandbox_incomplete" in {line["event"] for line in logs}:
        pytest.skip(f"THE FENCES WERE NOT TRIED: {logs}")
    process = Path("/proc") / str(pids(cleaner)[0])
    status = (process / "status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    if os.geteuid() == 0:  # nobody else may look: the process is not dumpable
        assert b"SECRET" not in (process / "environ").read_bytes()
        # The three standard ones and the connection: no database, no log, no listening socket.
        assert len(list((process / "fd").iterdir())) == 4
    else:
        with pytest.raises(PermissionError):
            (process / "environ").read_bytes()


def test_an_idle_child_that_died_is_replaced(start: Callable[..., PictureCleaner]) -> None:
    deaths: list[Death] = []
    cleaner = start(on_death=deaths.append)
    cleaner.clean(PHOTO)
    (pid,) = pids(cleaner)
    os.kill(pid, signal.SIGKILL)
    assert code_of(cleaner, PHOTO) == ""
    assert pids(cleaner) != [pid]
    assert deaths == [Death.KILLED]


@pytest.mark.parametrize(
    ("death", "code"), [(signal.SIGKILL, ""), (signal.SIGSEGV, "image-corrupt"), (signal.SIGABRT, "image-corrupt")]
)
def test_a_child_that_dies_amid_a_picture(
    start: Callable[..., PictureCleaner], death: signal.Signals, code: str
) -> None:
    """Killed from outside: the picture gets another child. Crashed: the picture is to blame, and nobody else."""
    deaths: list[Death] = []
    cleaner = start(on_death=deaths.append)
    cleaner.clean(PHOTO)
    (pid,) = pids(cleaner)
    os.kill(pid, signal.SIGSTOP)
    codes: list[str] = []
    thread = in_background(lambda: codes.append(code_of(cleaner, PHOTO)))
    wait_until(lambda: pids(cleaner) == [], "the stopped child has an order")
    assert code_of(cleaner, PHOTO) == "", "others find another child"
    os.kill(pid, death)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    thread.join()
    assert codes == [code]
    assert deaths == [Death.KILLED if death is signal.SIGKILL else Death.CRASHED]
    assert code_of(cleaner, PHOTO) == ""
    assert pid not in pids(cleaner)


def test_a_child_that_hangs_is_given_up(start: Callable[..., PictureCleaner]) -> None:
    cleaner = start(silence_limit_s=6.0)
    cleaner.clean(PHOTO)
    (pid,) = pids(cleaner)
    os.kill(pid, signal.SIGSTOP)
    with capture_logs() as logs:
        assert code_of(cleaner, PHOTO) == "", "the second child is awake"
    assert [(line["reason"], line["death"]) for line in logs] == [("it did not answer in time", Death.TIMEOUT)]
    assert gone(pid)


def test_a_picture_that_spins_is_ended_by_its_processor_time(start: Callable[..., PictureCleaner]) -> None:
    cleaner = start(cpu_limit_s=0.05)
    large = encode(Image.effect_noise((2500, 2500), 60).convert("RGB"), "JPEG", progressive=True)
    with capture_logs() as logs:
        assert code_of(cleaner, large) == "image-corrupt"
    assert [(line["reason"], line["death"]) for line in logs] == [("it ended with SIGPROF", Death.TIMEOUT)]
    # What earlier pictures took is not counted.
    assert {code_of(cleaner, PHOTO) for _ in range(60)} == {""}
    assert len(pids(cleaner)) == 1


def test_a_picture_that_swells_is_refused(
    start: Callable[..., PictureCleaner], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = encode(Image.new("RGBA", (2000, 2000)), "PNG")
    monkeypatch.setattr(room, "_BYTES_A_PIXEL", 0)
    monkeypatch.setattr(room, "_IDLE_BYTES", 0)
    narrow = start()  # what is left is three times the bytes of an upload: enough for a small picture alone
    assert code_of(narrow, large) == "image-corrupt"
    assert code_of(narrow, PHOTO) == ""
    monkeypatch.undo()
    assert code_of(start(), large) == "", "with the memory that it may have it is a picture"


@pytest.mark.parametrize(
    ("action", "deaths"),
    [
        ("os.abort()", [Death.CRASHED]),
        ("os._exit(0)", [Death.CRASHED]),
        ("os.kill(os.getpid(), signal.SIGKILL)", [Death.KILLED] * 2),
        ("write_all(connection, b'x')\n    os._exit(3)", [Death.CRASHED]),
        ("write_all(connection, ANSWER.pack(1, 64, 64) + bytes(100))\n    os._exit(0)", [Death.CRASHED]),
        ("write_all(connection, ANSWER.pack(1, 65_535, 65_535))\n    time.sleep(600)", [Death.LIED]),
        ("write_all(connection, ANSWER.pack(1, 2**31, 2))\n    time.sleep(600)", [Death.LIED]),
        ("write_all(connection, ANSWER.pack(1, 0, 64))\n    time.sleep(600)", [Death.LIED]),
    ],
)
def test_whatever_a_child_says_or_does_is_no_more_than_a_refusal(
    action: str, deaths: list[Death], start: Callable[..., PictureCleaner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that hostile bytes have taken over: it lies, stutters or falls silent, and is not heard again."""
    impersonate(monkeypatch, action)
    seen: list[Death] = []
    cleaner = start(on_death=seen.append)
    assert code_of(cleaner, PHOTO) == "image-corrupt"
    assert seen == deaths
    monkeypatch.undo()
    assert code_of(cleaner, PHOTO) == ""


def test_missing_fences_are_told_once(start: Callable[..., PictureCleaner], monkeypatch: pytest.MonkeyPatch) -> None:
    impersonate(monkeypatch, "os.abort()", fences=int(Fence.LIMITS))
    cleaner = start()
    with capture_logs() as logs:
        assert {code_of(cleaner, PHOTO) for _ in range(2)} == {"image-corrupt"}
    told = [line for line in logs if line["event"] == "picture_sandbox_incomplete"]
    assert [line["missing"] for line in told] == [["NO_NEW_PRIVILEGES", "SYSTEM_CALLS"]]


@pytest.mark.parametrize(
    "program", [("-c", "raise SystemExit(5)"), ("-c", "import os; os.close(int(__import__('sys').argv[1]))")]
)
def test_a_child_that_can_not_start_is_no_fault_of_the_picture(
    program: tuple[str, ...], start: Callable[..., PictureCleaner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PROGRAM", program)
    with pytest.raises(TemporaryError) as caught:
        start().clean(PHOTO)
    assert caught.value.code == "not-ready"


def test_many_at_once_good_and_bad(start: Callable[..., PictureCleaner]) -> None:
    cleaner = start(most_children=3)
    whole = [encode(make_photo(seed=seed)) for seed in range(4)]
    expected = {data: cleaner.clean(data) for data in whole}

    def judge(data: bytes) -> bool:
        if data in expected:
            return cleaner.clean(data) == expected[data]
        return code_of(cleaner, data) == "image-corrupt"

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(judge, [data for _ in range(10) for data in (*whole, whole[0][:200])]))
    assert 1 <= len(pids(cleaner)) <= 3


def test_a_child_retires(start: Callable[..., PictureCleaner], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PICTURES_A_CHILD", 2)
    cleaner = start()
    seen = []
    for _ in range(3):
        cleaner.clean(PHOTO)
        seen.append(pids(cleaner))
    assert seen[1] == [], "after two pictures it is gone"
    assert len(seen[0]) == len(seen[2]) == 1
    assert seen[0] != seen[2]


def test_closing_ends_the_children(start: Callable[..., PictureCleaner]) -> None:
    cleaner = start()
    cleaner.clean(PHOTO)
    (pid,) = pids(cleaner)
    cleaner.close()
    assert gone(pid)
    assert code_of(cleaner, PHOTO) == "", "a request that is still under way is served"
    assert pids(cleaner) == []


def test_children_end_with_a_killed_parent() -> None:
    script = """
import sys, time
from services.pictures.cleaner import PictureCleaner
from services.pictures.headers import PictureLimits
cleaner = PictureCleaner(PictureLimits(16_000_000, 32), 20_000_000)
cleaner.clean(sys.stdin.buffer.read())
print(cleaner._idle[0]._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(PHOTO)
        parent.stdin.close()
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    wait_until(lambda: gone(pid), "the child has ended")
