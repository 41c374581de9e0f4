"""How the command line speaks: results on standard output, everything else on standard error, failures in sentences.

Imports rich only when something is said, and nothing of the service but its error classes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from model.errors import ModelError
from services.errors import AnimatoError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

INSTALL_HINT = "Run `make demo` once, or: pip install -e '.[api,worker,cpu,embedded,cli]'"


@cache
def out() -> Console:
    """Return the console for results: what another program may read."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


@cache
def err() -> Console:
    """Return the console for progress, hints and failures."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_failure(message: str, hint: str = "") -> None:
    """Print one sentence that says what happened and one that says what to do."""
    from rich.markup import escape

    err().print(f"[bold red]animato:[/] {escape(message)}")
    if hint:
        err().print(f"         {escape(hint)}", style="dim")


def describe(error: BaseException) -> tuple[str, str] | None:
    """Return message and hint of a failure that a person can act on; None for one that is our own fault."""
    if isinstance(error, AnimatoError | ModelError):
        return error.message, error.hint
    if isinstance(error, ModuleNotFoundError):
        return f"The Python package {error.name} is not installed.", INSTALL_HINT
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}.", "Check the path and its permissions."
    return None


def run_in_words(command: Callable[[], object]) -> None:
    """Run a command; failures that a person can act on become sentences and exit codes, ours keep their traceback."""
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:  # the outermost boundary
        words = describe(error)
        if words is None:
            raise
        show_failure(*words)
        sys.exit(EXIT_FAILURE)


def quiet_logs() -> None:
    """Keep the parts' log lines out of a one-shot command; what matters is said by the command itself."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)


def make_progress() -> Progress:
    """Return the progress bar of a job: stage, bar, frames done, time left. Silent where nobody watches a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=36),
        TextColumn("{task.fields[frames]:>9}"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[left]}"),
        console=err(),
        disable=not err().is_terminal,
    )
