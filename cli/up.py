"""``animato up``: the whole service in the foreground, until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import err

if TYPE_CHECKING:
    from services.settings import Settings


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on, 0 for a free one (default: 8000).")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where jobs and results are kept (default: .animato).")] = None,
) -> None:
    """Start API, page, worker and, where none is configured, the embedded queue server. Ctrl-C stops them all.

    Every setting of the service is an environment variable with the prefix ANIMATO_; the options above win over them.
    """
    from services.launcher import run_up
    from services.settings import load_settings

    chosen: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir and data_dir.expanduser().absolute()}
    settings = load_settings().model_copy(update={name: value for name, value in chosen.items() if value is not None})
    run_up(settings, on_ready=lambda base_url: _greet(base_url, settings))


def _greet(base_url: str, settings: Settings) -> None:
    err().print(f"[bold]animato[/] is up: [link={base_url}]{base_url}[/link]  (Ctrl-C stops it)")
    err().print(tell_keys(settings), style="dim", markup=False)


def tell_keys(settings: Settings) -> str:
    """Return who may call the service, in one sentence."""
    from services.jobs.store import JobStore
    from services.settings import is_loopback

    if not settings.keys_needed:
        others = "this machine alone reaches it" if is_loopback(settings.host) else "ANYBODY WHO REACHES IT MAY CALL IT"
        return f"It asks for no API keys; {others}."
    store = JobStore.from_settings(settings)
    try:
        some = store.has_live_keys()
    finally:
        store.close()
    return "It asks for API keys." if some else "It asks for API keys, and there are none yet: animato keys create"
