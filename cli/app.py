"""The ``animato`` command; its failures become sentences and exit codes in ``console``.

Exit codes: 0 done, 1 it failed (one sentence says why, one what to do), 2 the command was used wrongly, 130 Ctrl-C.
Imports nothing heavy: every command imports what it needs when it runs, so that ``--help`` is there at once.
"""

from __future__ import annotations

import sys

try:
    import typer
except ModuleNotFoundError:  # installed without the cli extra
    sys.exit("animato: the command line is not installed. Install it with: pip install -e '.[cli]'")

from cli import animate, demo, doctor, keys, models, up
from cli.console import run_in_words

app = typer.Typer(
    name="animato",
    help="One still face and one sentence become a short video.",
    epilog="Exit codes: 0 done · 1 failed, in words · 2 wrong use · 130 stopped by Ctrl-C",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"animato {version('animato')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and leave."
    ),
) -> None:
    pass


app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("animate")(animate.animate)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line; never ends in a traceback for something that a person can act on."""
    run_in_words(app)
