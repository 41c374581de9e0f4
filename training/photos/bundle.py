"""Writes a picture set's run as a bundle that serving animates: every graph is compared with PyTorch first.

Must not import: services, worker, cli.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from training.photos.card import write_photo_card
from training.photos.export import (
    Export,
    PhotoNetworks,
    export_photo_graphs,
    export_text,
    name_bundle,
    write_photo_bundle,
)
from training.stages import CARD_NOTE, read_version

if TYPE_CHECKING:
    from training.networks.irse import PyramidEncoder
    from training.networks.stylegan2 import ZGenerator
    from training.photos.run import PhotoRun


def load_networks(run: "PhotoRun") -> PhotoNetworks:
    """Load what a finished run is made of.

    Raises: MissingStageError.
    """
    run.device = torch.device("cpu")
    parts = run.frozen_parts()
    generator, encoder = cast("ZGenerator", parts.generator), cast("PyramidEncoder", parts.encode)
    return PhotoNetworks(generator, encoder, run.load_motion(parts), parts.resolution)


def export_photo_bundle(run: "PhotoRun", directory: Path, *, share_text: bool = False) -> Path:
    """Export everything and write the bundle, all or nothing.

    Raises: ParityError, MissingStageError.
    """
    recipe = run.recipe
    networks = load_networks(run)
    made_by = {
        "recipe": recipe.name,
        "version": read_version(),
        "steps": run.count_steps(),
        "towers": "CLIP" if run.clip else "own text tower, image tower taught by captions",
        "measured": run.read_figures(),
    }
    name = name_bundle(directory.name if directory.name.lower() != "bundle" else recipe.name)
    note = run.folder / CARD_NOTE
    with tempfile.TemporaryDirectory() as folder:
        export = Export(Path(folder))
        export_photo_graphs(networks, export)
        fields = {
            "id": name,
            "version": recipe.version,
            "domain": "human",
            "max_tokens": export_text(networks, export),
            "license": "LicenseRef-as-your-pictures",
            "made_by": made_by,
        }
        words_of_maker = note.read_text() if note.exists() else ""
        card = write_photo_card(name, recipe, networks.resolution, made_by, export.parity, words_of_maker)
        return write_photo_bundle(directory, networks, export, fields, card, share_text=share_text)
