"""The folder of bundles, looked at before every claim and read when it has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.model.tiny_bundle import build_tiny_bundle
from worker import bundles
from worker.bundles import Bundles


def test_bundles_are_found_by_id(tiny_bundle: Path):
    assert Bundles(tiny_bundle.parent).folders() == {"tiny": tiny_bundle}


def test_a_folder_that_is_not_there_holds_none(tmp_path: Path):
    assert Bundles(tmp_path / "nowhere").folders() == {}


def test_what_comes_goes_or_changes_is_seen_at_the_next_look(tmp_path: Path, tiny_bundle: Path):
    found = Bundles(tmp_path)
    assert found.folders() == {}
    shutil.copytree(tiny_bundle, tmp_path / "one")
    assert found.folders() == {"tiny": tmp_path / "one"}
    two = build_tiny_bundle(tmp_path / "two", model_id="another", quality=False)
    assert set(found.folders()) == {"tiny", "another"}
    shutil.rmtree(tmp_path / "one")
    assert found.folders() == {"another": two}
    manifest = two / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"another"', '"renamed"'))
    assert found.folders() == {"renamed": two}


def test_manifests_are_not_read_again_while_nothing_changes(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    found = Bundles(tiny_bundle.parent)
    before = found.folders()

    def read_again(_folder: Path) -> dict[str, Path]:
        raise AssertionError("nothing has changed")

    monkeypatch.setattr(bundles, "map_bundles", read_again)
    assert found.folders() == before
