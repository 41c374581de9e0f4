"""``animato doctor``: what is missing on this machine, for what it is needed and how to get it. Changes nothing."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cli.checks import Finding, State, examine
from cli.console import EXIT_FAILURE, out, quiet_logs

SIGNS = {State.OK: "[green]ok      [/]", State.MISSING: "[red]missing [/]", State.OPTIONAL: "[yellow]optional[/]"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what is missing on this machine and how to get it.

    "missing" is needed to serve and makes the exit code 1; "optional" is needed only for what its line names.
    """
    from services.settings import load_settings

    quiet_logs()
    findings = list(examine(load_settings()))
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings], indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            _print_finding(finding)
    missing = [finding.name for finding in findings if finding.state is State.MISSING]
    if missing:
        if not as_json:
            out().print(f"\n[bold red]Not ready[/]: {', '.join(missing)}")
        raise typer.Exit(EXIT_FAILURE)
    if not as_json:
        out().print("\n[bold green]Ready to serve[/]: `animato up`, `animato demo`")


def _print_finding(finding: Finding) -> None:
    from rich.markup import escape

    out().print(f"{SIGNS[finding.state]} [bold]{finding.name:<16}[/] {escape(finding.found)}")
    if finding.remedy:
        out().print(f"{'':26}→ {escape(finding.remedy)}", style="dim")
