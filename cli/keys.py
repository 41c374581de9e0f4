"""``animato keys``: makes, lists, rotates and revokes API keys, in the database of the service, also while it runs.

The key itself is printed once and alone, so that ``KEY=$(animato keys create)`` works; what is said about it goes to
standard error. The API's image carries this room of the command line alone: ``python -m cli.keys``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import err, out, quiet_logs, run_in_words

if TYPE_CHECKING:
    from services.jobs.keys import KeyRecord
    from services.jobs.store import JobStore

app = typer.Typer(
    help="Make, list, rotate and revoke the API keys of clients.",
    epilog="Uses the service's database (ANIMATO_DATABASE_URL, ANIMATO_DATA_DIR); the service may run meanwhile.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}

DataDir = Annotated[Path | None, typer.Option(help="The service's data folder (default: .animato).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `animato keys list` shows it.")]


def _read_duration(text: str) -> float:
    """Return the seconds of ``90d``, ``12h`` and the like. Raises: typer.BadParameter."""
    found = re.fullmatch(r"([0-9]{1,6})([mhdwy])", text.strip().lower())
    if found is None:
        raise typer.BadParameter("write a number and m, h, d, w or y, for example 90d")
    return float(int(found[1]) * _UNITS_S[found[2]])


Lifetime = Annotated[
    float | None,
    typer.Option("--expires-in", parser=_read_duration, metavar="90d", help="m, h, d, w or y (default: never)."),
]


@app.command("create")
def create(
    owner: Annotated[str, typer.Option(help="Whose jobs it makes and sees; several keys may share one.")] = "default",
    name: Annotated[str, typer.Option(help="For you: who or what uses it.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it opens; may be repeated (default: all but metrics:read).", metavar="SCOPE"),
    ] = None,
    expires_in: Lifetime = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it; it can't be shown again.

    Scopes: animations:read, animations:write, models:read, webhooks:manage, metrics:read.
    """
    from services.jobs.keys import CLIENT_SCOPES

    chosen = CLIENT_SCOPES if not scope else _read_scopes(scope)
    with _open_store(data_dir) as store:
        text, record = store.create_key(owner, name, chosen, expires_in)
    _hand_over(text, record, as_json)


@app.command("list")
def list_keys(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the keys, dead ones too; of a key itself only the id is known."""
    with _open_store(data_dir) as store:
        records, now = store.list_keys(owner)
    if as_json:
        out().print_json(json.dumps([_describe(record, now) for record in records]))
        return
    if not records:
        err().print("There are no keys. `animato keys create` makes one.")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("ID", no_wrap=True)
    for title in ("OWNER", "NAME"):
        table.add_column(title, overflow="fold")
    for title in ("STATE", "SCOPES", "EXPIRES", "USED"):
        table.add_column(title, no_wrap=True)
    for record in records:
        dates = (_tell_day(record.expires_at), _tell_day(record.used_at))
        table.add_row(
            record.id, escape(record.owner), escape(record.name), record.state_at(now), "\n".join(record.scopes), *dates
        )
    out().print(table)


@app.command("rotate")
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        float, typer.Option(parser=_read_duration, metavar="24h", help="How long the old key lives on.")
    ] = "24h",  # type: ignore[assignment]  # typer parses the default like an argument
    expires_in: Lifetime = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a successor with the same owner, name and scopes; both work until the overlap ends."""
    with _open_store(data_dir) as store:
        text, record = store.rotate_key(key_id, overlap, expires_in)
    _hand_over(text, record, as_json)


@app.command("revoke")
def revoke(key_id: KeyId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """End a key for good, within two seconds on every API process; its owner's jobs stay."""
    with _open_store(data_dir) as store:
        record = store.revoke_key(key_id)
        _, now = store.list_keys(record.owner)
    if as_json:
        out().print_json(json.dumps(_describe(record, now)))
    else:
        err().print(f"The key {record.id} of {record.owner} is revoked.", markup=False)


@contextmanager
def _open_store(data_dir: Path | None) -> Iterator[JobStore]:
    from services.jobs.store import JobStore
    from services.settings import load_settings

    quiet_logs()
    settings = load_settings()
    if data_dir is not None:
        settings = settings.model_copy(update={"data_dir": data_dir.expanduser().absolute()})
    store = JobStore.from_settings(settings)
    try:
        store.migrate()  # a key may be made before the service's first start
        yield store
    finally:
        store.close()


def _read_scopes(names: list[str]) -> tuple[Any, ...]:
    from services.jobs.keys import Scope

    wanted = [part for name in names for part in name.replace(",", " ").split()]
    unknown = [name for name in wanted if name not in set(Scope)]
    if unknown:
        raise typer.BadParameter(f"there is no scope {unknown[0]!r}; choose from {', '.join(Scope)}")
    return tuple(Scope(name) for name in wanted)


def _hand_over(text: str, record: KeyRecord, as_json: bool) -> None:
    if as_json:
        out().print_json(json.dumps({"key": text, **_describe(record, record.created_at)}))
        return
    out().print(text, markup=False)
    ends = "never expires" if record.expires_at is None else f"expires {record.expires_at:%Y-%m-%d %H:%M}Z"
    err().print(f"Key {record.id} of {record.owner}: {', '.join(record.scopes)}; {ends}.", style="dim", markup=False)
    err().print("Keep it now: only its hash is stored. Send it as Authorization: Bearer …", style="dim", markup=False)


def _describe(record: KeyRecord, now: datetime) -> dict[str, Any]:
    return {
        "id": record.id,
        "owner": record.owner,
        "name": record.name,
        "scopes": list(record.scopes),
        "state": record.state_at(now),
        "created_at": record.created_at.isoformat(),
        "expires_at": record.expires_at and record.expires_at.isoformat(),
        "revoked_at": record.revoked_at and record.revoked_at.isoformat(),
        "used_at": record.used_at and record.used_at.isoformat(),
    }


def _tell_day(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment:%Y-%m-%d}"


if __name__ == "__main__":
    run_in_words(app)
