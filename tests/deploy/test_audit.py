"""pip-audit as it is, asked through a small server that speaks OSV's protocol: what it finds must be acted on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from deploy.supply.audit import CANARY, NOT_AUDITED, WAIVERS, Finding, Waiver, judge, main, read_waivers

TODAY = date(2026, 11, 23)
FOUND = Finding("pillow", "13.0.0", frozenset({"PYSEC-2026-7", "CVE-2026-1"}), ("13.0.1",))


def waiver(id_: str = "CVE-2026-1", until: date = TODAY, package: str = "pillow") -> Waiver:
    return Waiver(id_, package, date(2026, 11, 1), until, "nothing here decodes that")


class Advisories(BaseHTTPRequestHandler):
    """Answers POST /v1/query from ``known``: package name, or name==version → advisories."""

    known: ClassVar[dict[str, list[dict[str, Any]]]] = {}
    asked: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = question["package"]["name"]
        exact = f"{name}=={question['version']}"
        self.asked.add(exact)
        vulns = self.known.get(exact) or self.known.get(name)
        body = json.dumps({"vulns": vulns} if vulns else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def advisory(id_: str) -> dict[str, Any]:
    return {"id": id_, "summary": "bad", "affected": [], "modified": "2026-01-01T00:00:00Z"}


@pytest.fixture
def database() -> Iterator[str]:
    Advisories.known = {CANARY: [advisory("PYSEC-2019-132")]}  # this old version of it and no other
    Advisories.asked = set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def no_waivers(tmp_path: Path) -> str:
    path = tmp_path / "waivers.toml"
    path.write_text("", encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def _small_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lock: what pip-audit asks for each version is the same for all."""
    from deploy.supply.pins import BY_NAME

    monkeypatch.setattr("deploy.supply.audit.LOCKS", (BY_NAME["api"],))


def test_all_locked_versions_and_what_is_apart_are_asked_for(
    database: str, no_waivers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--osv-url", database, "--waivers", no_waivers]) == 0
    assert CANARY in Advisories.asked
    names = {line.partition("==")[0] for line in Advisories.asked}
    assert {"torch", "tensorrt-cu13-libs", "pillow", "fastapi"} <= names
    assert f"{len(Advisories.asked) - 1} versions audited, 0 advisories" in capsys.readouterr().out


def test_an_advisory_fails_the_audit_until_it_is_waived(
    database: str, tmp_path: Path, no_waivers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Advisories.known["pillow"] = [advisory("PYSEC-2026-7")]
    assert main(["--osv-url", database, "--waivers", no_waivers]) == 1
    assert "PYSEC-2026-7 (not fixed yet)" in capsys.readouterr().err
    waived = tmp_path / "waived.toml"
    entry = 'id = "PYSEC-2026-7"\npackage = "pillow"\nsince = 2026-01-01\nuntil = 9999-01-01\nwhy = "not decoded"\n'
    waived.write_text("[[waiver]]\n" + entry, encoding="utf-8")
    assert main(["--osv-url", database, "--waivers", str(waived)]) == 0


def test_a_database_that_knows_nothing_lets_nothing_pass(
    database: str, no_waivers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Advisories.known = {}
    assert main(["--osv-url", database, "--waivers", no_waivers]) == NOT_AUDITED
    assert f"NOT AUDITED: the advisory database can't be asked (it knows nothing against {CANARY})" in (
        capsys.readouterr().err
    )


def test_a_database_that_is_not_there_is_told(no_waivers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--osv-url", "http://127.0.0.1:9/v1/query", "--waivers", no_waivers]) == NOT_AUDITED
    assert "NOT AUDITED" in capsys.readouterr().err


def test_a_waiver_holds_to_the_end_of_its_day() -> None:
    assert not list(judge((FOUND,), (waiver(until=TODAY),), TODAY))
    (said,) = judge((FOUND,), (waiver(until=date(2026, 11, 22)),), TODAY)
    assert said.endswith("(fixed in 13.0.1); its waiver ended on 2026-11-22.")


def test_a_waiver_is_of_one_package_and_one_advisory() -> None:
    for other in (waiver(package="fastapi"), waiver(id_="CVE-2026-2")):
        said = list(judge((FOUND,), (other,), TODAY))
        assert any("pillow 13.0.0" in line for line in said)
        assert any("Remove its waiver" in line for line in said)


def test_our_waivers_are_whole_and_not_for_ever() -> None:
    for entry in read_waivers(WAIVERS):
        assert entry.why
        assert entry.since <= entry.until
        assert (entry.until - entry.since).days <= 92, f"{entry.id}: look again within three months"


def test_a_waiver_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "waivers.toml"
    path.write_text('[[waiver]]\nid = "X"\npackage = "y"\nwhy = "z"\n', encoding="utf-8")
    with pytest.raises(TypeError, match="until"):
        read_waivers(path)
