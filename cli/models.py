"""``animato models``: which bundles there are, and with ``--verify`` whether every byte is what it should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import EXIT_FAILURE, err, out, show_failure

if TYPE_CHECKING:
    from model.bundle.manifest import Manifest


def models(
    bundles: Annotated[
        Path | None, typer.Option(help="Folder of bundles (default: ANIMATO_BUNDLES_DIR or ./bundles).")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Also check every file's SHA-256.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the model bundles on this machine."""
    from cli.console import quiet_logs
    from model.bundle.reader import list_bundles, list_faults
    from services.settings import load_settings

    quiet_logs()
    folder = (bundles or load_settings().bundles_dir).absolute()
    found, left_out = list_bundles(folder), list_faults(folder)
    for name, error in left_out.items():
        show_failure(f"{name} is left out: {error.message}", error.hint)
    if not found:
        show_failure(
            f"There is no model bundle in {folder}.", "Name another folder with --bundles or ANIMATO_BUNDLES_DIR."
        )
        raise typer.Exit(EXIT_FAILURE)
    faults = {manifest.id: _fault_of(folder, manifest.id) for manifest in found} if verify else {}
    if as_json:
        rows = [_facts(manifest) | ({"fault": faults[manifest.id]} if verify else {}) for manifest in found]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print_table(found)
    for model_id, fault in faults.items():
        if fault:
            show_failure(f"{model_id}: {fault}")
        else:
            err().print(f"[green]✓[/] {model_id}: every file is what the manifest says")
    if any(faults.values()) or (verify and left_out):
        raise typer.Exit(EXIT_FAILURE)


def _fault_of(folder: Path, model_id: str) -> str | None:
    from model.bundle.reader import find_bundle, read_bundle
    from model.errors import BundleError

    try:
        read_bundle(find_bundle(folder, model_id))
    except BundleError as error:
        return f"{error.message} {error.hint}".strip()
    return None


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "version": manifest.version,
        "domain": manifest.domain,
        "kind": manifest.kind,
        "resolution": manifest.resolution,
        "fps": manifest.fps,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "license": manifest.license,
        "expressions": list(manifest.expressions),
        "presets": list(manifest.presets),
    }


def _print_table(found: list[Manifest]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("model", "version", "faces", "size", "on disk", "licence", "try"):
        table.add_column(heading, overflow="fold")
    for manifest in found:
        facts = _facts(manifest)
        table.add_row(
            f"[bold]{facts['id']}[/]",
            facts["version"],
            f"{facts['domain']}, {facts['kind']}",
            f"{facts['resolution']} px",
            f"{facts['bytes'] / 1e6:.1f} MB",
            facts["license"],
            ", ".join((facts["presets"] or facts["expressions"])[:4]),
        )
    out().print(table)
