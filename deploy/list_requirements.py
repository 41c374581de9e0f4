"""Print what chosen extras of the project need, one requirement a line, for an image's cached dependency layer.

Runs in a bare Python before anything is installed, so it imports the standard library alone.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path


def list_requirements(project_file: Path, extras: list[str]) -> list[str]:
    """Return the base dependencies and those of ``extras``, sorted, each once.

    Raises: KeyError for an extra that the project does not define.
    """
    project = tomllib.loads(project_file.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return sorted({*project["dependencies"], *(line for extra in extras for line in optional[extra])})


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="+", help="names under [project.optional-dependencies]")
    parser.add_argument("--project", type=Path, default=Path("pyproject.toml"))
    arguments = parser.parse_args()
    sys.stdout.write("\n".join(list_requirements(arguments.project, arguments.extras)) + "\n")


if __name__ == "__main__":
    main()
