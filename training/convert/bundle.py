"""Parts that fit together → a bundle. Must not import: services, worker, cli."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from model.bundle.writer import check_place
from training.convert.card import write_card
from training.convert.fitting import require_fit, require_whole
from training.convert.sources import Found, Report, Sources, read_sources
from training.export.synthesis_graph import Precision
from training.photos.export import (
    Export,
    PhotoNetworks,
    export_photo_graphs,
    export_text,
    name_bundle,
    write_photo_bundle,
)
from training.stages import read_version

UNKNOWN_LICENSE = "LicenseRef-of-the-checkpoints"


@dataclass(frozen=True)
class Wishes:
    """How the bundle shall be."""

    out: Path
    precision: Precision = "fp32"
    domain: str = "human"
    version: str = "1.0.0"
    license: str = UNKNOWN_LICENSE
    note: str = ""
    align: bool = True  # find the face in a picture and cut it as FFHQ's pictures are cut


def convert(sources: Sources, wishes: Wishes, report: Report) -> Path:
    """Read, check, export, compare, write.

    Raises: DataError for what is missing or does not fit, CheckpointMismatchError, DamagedCheckpointError, ParityError;
    BundleError where something else stands at the bundle's place.
    """
    check_place(wishes.out)
    found = read_sources(sources)
    for part, told in found.told.items():
        report(f"{part}: {told}")
    for remark in found.remarks:
        report(f"  {remark}")
    require_fit(found)
    require_whole(found)
    return write_converted(found, wishes, report)


def write_converted(found: Found, wishes: Wishes, report: Report) -> Path:
    """Export networks that fit together and write the bundle, all or nothing.

    Raises: ParityError, DataError, BundleError.
    """
    assert found.generator is not None
    assert found.encoder is not None
    assert found.animation is not None
    networks = PhotoNetworks(found.generator, found.encoder, found.animation, found.encoder.input_size, found.identity)
    name = name_bundle(wishes.out.resolve().name)
    with tempfile.TemporaryDirectory() as folder:
        export = Export(Path(folder), wishes.precision, halves=wishes.precision == "fp16", report=report)
        export_photo_graphs(networks, export)
        max_tokens = export_text(networks, export)
        made_by = {
            "program": "animato-train convert",
            "version": read_version(),
            "precision": wishes.precision,
            "sources": found.origins,
            "remarks": found.remarks,
        }
        fields = {
            "id": name,
            "version": wishes.version,
            "domain": wishes.domain,
            "max_tokens": max_tokens,
            "license": wishes.license,
            "made_by": made_by,
        }
        card = write_card(name, networks.resolution, made_by, export.parity, align=wishes.align, note=wishes.note)
        path = write_photo_bundle(wishes.out, networks, export, fields, card, detector=wishes.align)
    size = sum(file.stat().st_size for file in path.iterdir())
    report(f"bundle: {path} ({size / 1e6:.1f} MB, {wishes.precision})")
    return path
