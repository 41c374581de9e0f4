"""Bills of materials of the images, CycloneDX 1.6: ``python -m deploy.supply.sbom [--out out/sbom]``.

One file for each lock that an image is built from: its packages with their licences and the SHA-256 of every file that
may be installed, what their wheels carry besides, and of a worker the model bundles with the SHA-256 of each file. The
same locks and bundles give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from packageurl import PackageURL

from deploy.supply.licences import licence_of, read_policy
from deploy.supply.pins import LOCKS, ROOT, Lock, Pin, image_pins


def make_bom(lock: Lock) -> Bom:
    """Return what an image from that lock holds beside its base image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    root = Component(
        name=f"animato-{lock.name}",
        version=project["version"],
        type=ComponentType.APPLICATION,
        bom_ref="animato",
        description=project["description"],
        licenses=[LicenseExpression(project["license"])],
    )
    parts = [*map(_package, image_pins(lock)), *(_models() if "worker" in lock.extras else ())]
    bom = Bom(components=parts)
    bom.metadata.component = root
    bom.register_dependency(root, parts)
    return bom


def _package(pin: Pin) -> Component:
    """Return one package of a lock, with what its wheel carries."""
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(f"https://pypi.org/project/{pin.name}/{pin.version}/"),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in pin.hashes],
    )
    carried = [
        Component(name=row["name"], bom_ref=f"{pin.name}/{row['name']}", licenses=[LicenseExpression(row["licence"])])
        for row in read_policy()["carried"]
        if row["by"] == pin.name
    ]
    licence = licence_of(pin.name)
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{pin.name}=={pin.version}",
        purl=PackageURL("pypi", name=pin.name, version=pin.version),
        licenses=[LicenseExpression(licence)] if licence else [],
        external_references=[files],
        components=carried,
    )


def _models() -> Iterator[Component]:
    """Yield the bundles that a worker carries; their manifests hold the hashes."""
    for path in sorted((ROOT / "bundles").glob("*/manifest.json")):
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = [
            Property(name=f"animato:sha256:{name}", value=entry["sha256"]) for name, entry in manifest["files"].items()
        ]
        yield Component(
            name=manifest["id"],
            version=manifest["version"],
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"bundle/{manifest['id']}",
            licenses=[LicenseExpression(manifest["license"])],
            properties=files,
        )


def render_bom(bom: Bom) -> str:
    """Return a bill of materials as JSON, without the moment and the random number that make two of them differ."""
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    document.pop("serialNumber", None)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True)).urn
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def expect_valid(text: str) -> None:
    """Return where CycloneDX's own schema takes a document.

    Raises: ValueError with what it says.
    """
    fault = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6).validate_str(text)
    if fault is not None:
        raise ValueError(f"this is no CycloneDX 1.6: {fault}")


def main(arguments: list[str] | None = None) -> int:
    """Write the files and tell where they are."""
    parser = argparse.ArgumentParser(description="Write the bills of materials of the images.")
    parser.add_argument("--out", type=Path, default=ROOT / "out/sbom", help="folder to write into")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for lock in LOCKS:
        if lock.image:
            path = options.out / f"{lock.name}.cdx.json"
            text = render_bom(make_bom(lock))
            expect_valid(text)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
