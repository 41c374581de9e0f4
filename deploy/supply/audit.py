"""Looks every locked version up in an advisory database: ``python -m deploy.supply.audit``.

pip-audit --strict does the looking. A database that answers nothing would let anything pass, so it is first asked for
a version that is known to be bad. Where it does not know even that, nothing was audited, and the exit status is 77.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from packaging.utils import canonicalize_name

from deploy.supply.pins import LOCKS, ROOT, image_pins, read_apart

WAIVERS = ROOT / "deploy/waivers.toml"
NOT_AUDITED = 77
# Old enough that every database knows what is wrong with it (CVE-2019-11324).
CANARY = "urllib3==1.24.1"


@dataclass(frozen=True)
class Finding:
    """One advisory about one locked version; ``ids`` are all its names."""

    package: str
    version: str
    ids: frozenset[str]
    fixed_in: tuple[str, ...]


@dataclass(frozen=True)
class Waiver:
    """An advisory that is lived with until a day."""

    id: str
    package: str
    since: date
    until: date
    why: str


class NotAuditedError(Exception):
    """The advisory database can't be asked; the text is pip-audit's own."""


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """Return the waivers of a file. Raises: TypeError for one with a field too few or too many."""
    return tuple(Waiver(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("waiver", ()))


def expect_answers(database: list[str]) -> None:
    """Return where the database knows what is wrong with a version that everybody knows to be bad.

    Raises: NotAuditedError where it does not, or can't be asked.
    """
    if not ask([CANARY], database):
        raise NotAuditedError(f"it knows nothing against {CANARY}")


def ask(lines: list[str], database: list[str]) -> tuple[Finding, ...]:
    """Return what the database knows about exact versions ("name==version").

    ``database`` are pip-audit's options that choose one. Raises: NotAuditedError where it gives no answer.
    """
    command: list[str | Path] = [Path(sys.executable).with_name("pip-audit"), "--strict", "--no-deps", "--disable-pip"]
    with tempfile.TemporaryDirectory() as folder:
        listed, report = Path(folder) / "versions.txt", Path(folder) / "report.json"
        listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command += [*database, "--progress-spinner", "off", "--cache-dir", folder, "--requirement", listed]
        done = subprocess.run(
            [*command, "--format", "json", "--output", report], capture_output=True, text=True, check=False
        )
        if not report.exists():
            raise NotAuditedError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no answer")
        return tuple(_findings(json.loads(report.read_text(encoding="utf-8"))["dependencies"]))


def _findings(dependencies: list[dict[str, object]]) -> Iterator[Finding]:
    for dependency in dependencies:
        for advisory in dependency.get("vulns", ()):  # type: ignore[attr-defined]
            yield Finding(
                canonicalize_name(str(dependency["name"])),
                str(dependency["version"]),
                frozenset({advisory["id"], *advisory["aliases"]}),
                tuple(advisory["fix_versions"]),
            )


def judge(findings: tuple[Finding, ...], waivers: tuple[Waiver, ...], today: date) -> Iterator[str]:
    """Yield, in sentences, what must be done: findings that nothing waives, and waivers that waive nothing any more."""
    used = set()
    for finding in findings:
        waiver = next((w for w in waivers if w.package == finding.package and w.id in finding.ids), None)
        if waiver is not None:
            used.add(waiver)
        if waiver is None or waiver.until < today:
            remedy = f"fixed in {', '.join(finding.fixed_in)}" if finding.fixed_in else "not fixed yet"
            lapsed = f"; its waiver ended on {waiver.until}" if waiver else ""
            yield f"{finding.package} {finding.version}: {', '.join(sorted(finding.ids))} ({remedy}){lapsed}."
    for waiver in waivers:
        if waiver not in used:
            yield f"{waiver.package}: nothing is known of {waiver.id} any more. Remove its waiver."


def main(arguments: list[str] | None = None) -> int:
    """Audit all locks; returns 0, 1 with what to do, or 77 with why nothing was audited."""
    parser = argparse.ArgumentParser(description="Look up every locked version in an advisory database.")
    parser.add_argument("--waivers", type=Path, default=WAIVERS)
    parser.add_argument("--osv-url", help="ask this server, by OSV's protocol, instead of PyPI")
    options = parser.parse_args(arguments)
    database = ["--vulnerability-service", "osv", "--osv-url", options.osv_url] if options.osv_url else []
    versions = {f"{pin.name}=={pin.version}" for lock in LOCKS for pin in image_pins(lock)} | set(read_apart())
    try:
        expect_answers(database)
        findings = ask(sorted(versions), database)
    except NotAuditedError as reason:
        sys.stderr.write(f"NOT AUDITED: the advisory database can't be asked ({reason}).\n")
        return NOT_AUDITED
    faults = list(judge(findings, read_waivers(options.waivers), datetime.now(UTC).date()))
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    sys.stdout.write(f"{len(versions)} versions audited, {len(findings)} advisories, {len(faults)} to act on\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
