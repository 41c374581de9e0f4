"""The bills of materials name everything of an image, are valid CycloneDX, and the same each time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.supply.pins import LOCKS, ROOT, Lock, image_pins
from deploy.supply.sbom import expect_valid, make_bom, render_bom

IMAGES = [lock for lock in LOCKS if lock.image]


def components(lock: Lock) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in json.loads(render_bom(make_bom(lock)))["components"]}


@pytest.mark.parametrize("lock", IMAGES, ids=lambda lock: lock.name)
def test_every_package_is_named_with_version_hashes_and_licence(lock: Lock) -> None:
    found = components(lock)
    for pin in image_pins(lock):
        entry = found[pin.name]
        assert entry["version"] == pin.version
        assert entry["purl"] == f"pkg:pypi/{pin.name}@{pin.version}"
        assert {row["content"] for row in entry["externalReferences"][0]["hashes"]} == pin.hashes
        assert entry["licenses"]
    models = {entry["name"] for entry in found.values() if entry["type"] == "machine-learning-model"}
    assert models == (set() if lock.name == "api" else {"anime", "dog", "human"})
    assert len(found) == len(image_pins(lock)) + len(models)


def test_a_worker_tells_of_ffmpeg_and_of_the_weights() -> None:
    found = components(next(lock for lock in IMAGES if lock.name == "worker-cpu"))
    (ffmpeg,) = found["imageio-ffmpeg"]["components"]
    assert ffmpeg["name"] == "ffmpeg"
    assert ffmpeg["licenses"] == [{"expression": "GPL-3.0-or-later"}]
    manifest = json.loads((ROOT / "bundles/human/manifest.json").read_text(encoding="utf-8"))
    properties = {row["name"]: row["value"] for row in found["human"]["properties"]}
    assert properties == {f"animato:sha256:{name}": entry["sha256"] for name, entry in manifest["files"].items()}


def test_the_same_lock_gives_the_same_bytes() -> None:
    assert render_bom(make_bom(IMAGES[0])) == render_bom(make_bom(IMAGES[0]))
    serials = {json.loads(render_bom(make_bom(lock)))["serialNumber"] for lock in IMAGES}
    assert len(serials) == len(IMAGES)


def test_cyclonedx_itself_takes_them() -> None:
    document = json.loads(render_bom(make_bom(IMAGES[1])))
    # A few of each kind: what the schema says of one package it says of all, and takes its time for.
    document["components"] = [entry for entry in document["components"] if entry["name"] in {"human", "imageio-ffmpeg"}]
    expect_valid(json.dumps(document))
    document["components"][0]["type"] = "thing"
    with pytest.raises(ValueError, match=r"no CycloneDX 1\.6"):
        expect_valid(json.dumps(document))
