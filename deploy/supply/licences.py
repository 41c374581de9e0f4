"""Which licence each locked package is under, and whether it may be served: ``python -m deploy.supply.licences``.

A package's own metadata is asked first; deploy/licences.toml states what that leaves open, and what is allowed where.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from license_expression import (
    AND,
    ExpressionError,
    LicenseExpression,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    get_spdx_licensing,
)

from deploy.supply.pins import LOCKS, ROOT, image_pins

POLICY = ROOT / "deploy/licences.toml"
PAGE = ROOT / "docs/licences.md"

# Words of older metadata that can mean one licence only. "BSD" alone can't.
_PLAIN = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "gpl-3.0": "GPL-3.0-only",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "psfl": "PSF-2.0",
}
_SPDX = get_spdx_licensing()


@dataclass(frozen=True)
class Licensed:
    """A package, its licence as an SPDX expression ("" where nobody knows), and the locks that hold it."""

    name: str
    licence: str
    locks: tuple[str, ...]
    served: bool


@cache
def read_policy() -> dict[str, Any]:
    """Return deploy/licences.toml."""
    return tomllib.loads(POLICY.read_text(encoding="utf-8"))


def licence_of(name: str) -> str:
    """Return the SPDX expression of a package's licence, or "" where neither the policy nor its metadata tells."""
    stated = read_policy()["stated"].get(name)
    if stated:
        return str(stated)
    try:
        fields = metadata(name)
    except PackageNotFoundError:
        return ""
    kinds = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier") or [] if line.startswith("License ::")]
    # Some put the whole text of the licence where its name belongs: its first line will do.
    first = (fields["License"] or "").partition("\n")[0].strip()
    for words in (fields["License-Expression"] or "", first, *kinds):
        expression: str = _PLAIN.get(words.lower(), words)
        if expression and _is_spdx(expression):
            return expression
    return ""


def _is_spdx(expression: str) -> bool:
    try:
        return not _SPDX.validate(expression).errors
    except ExpressionError:
        return False


def list_licences() -> tuple[Licensed, ...]:
    """Return every package of every lock, by name."""
    locks: dict[str, list[str]] = {}
    for lock in LOCKS:
        for pin in image_pins(lock):
            locks.setdefault(pin.name, []).append(lock.name)
    return tuple(
        Licensed(name, licence_of(name), tuple(within), served=set(within) != {"development"})
        for name, within in sorted(locks.items())
    )


def find_faults(packages: tuple[Licensed, ...]) -> Iterator[str]:
    """Yield, in sentences, which licences don't go with the policy."""
    for package in packages:
        where = ", ".join(package.locks)
        if not package.licence:
            yield f"{package.name} ({where}) does not say its licence. Read it, and state it in deploy/licences.toml."
        elif not may_use(package):
            yield f"{package.name} ({where}) is under {package.licence}, not allowed there by deploy/licences.toml."


def may_use(package: Licensed) -> bool:
    """Tell whether the policy lets a package stand where it stands: one side of an OR is enough, AND needs all."""
    policy = read_policy()
    allowed = set(policy["allowed"]) | (set() if package.served else set(policy["allowed_in_development"]))
    allowed |= {licence for licence, names in policy["exceptions"].items() if package.name in names}
    if package.licence in allowed:
        return True
    return _allows(_SPDX.parse(package.licence), allowed)


def _allows(expression: LicenseExpression, allowed: set[str]) -> bool:
    if isinstance(expression, LicenseWithExceptionSymbol):
        # An exception only ever grants more.
        return expression.license_symbol.key in allowed
    if isinstance(expression, LicenseSymbol):
        return expression.key in allowed
    answers = [_allows(part, allowed) for part in expression.args]
    return all(answers) if isinstance(expression, AND) else any(answers)


def render_page(packages: tuple[Licensed, ...]) -> str:
    """Return docs/licences.md."""
    served = [package for package in packages if package.served]
    rest = [package for package in packages if not package.served]
    carried = [
        f"| {row['name']}, in {row['by']} | {row['licence']} | {row['why']} |" for row in read_policy()["carried"]
    ]
    return "\n".join(
        [
            "# Licences of what is installed",
            "",
            "Made by `make licences` from [deploy/locks](../deploy/locks) and what each package says of itself; edit",
            "[deploy/licences.toml](../deploy/licences.toml) instead. [NOTICE](../NOTICE) speaks of this repository.",
            "",
            "## Served, or run by `make demo`",
            "",
            "| package | licence | locks |",
            "| --- | --- | --- |",
            *(f"| {p.name} | {p.licence} | {', '.join(n for n in p.locks if n != 'development')} |" for p in served),
            "",
            "Wheels of these carry, under another licence:",
            "",
            "| what | licence | how it is used |",
            "| --- | --- | --- |",
            *carried,
            "",
            "## For development alone",
            "",
            "In no image. torch is apart: Apache-2.0, BSD-2-Clause, BSD-3-Clause, BSL-1.0 and MIT.",
            "",
            "| package | licence |",
            "| --- | --- |",
            *(f"| {p.name} | {p.licence} |" for p in rest),
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or compare it; returns the exit status, 1 too where a licence is not allowed."""
    parser = argparse.ArgumentParser(description="List the licences of what is locked.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the page differs")
    options = parser.parse_args(arguments)
    packages = list_licences()
    faults = list(find_faults(packages))
    page = render_page(packages)
    if not options.check:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        faults.append("docs/licences.md is not what the locks say. Run `make licences`.")
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
