"""Trains rivals from the command line: see `training.baselines.runs`."""

import argparse
import sys
from pathlib import Path

import torch

from training.baselines.runs import RIVALS, Comparison
from training.devices import pick_device
from training.errors import InterruptedRunError, TrainingError
from training.recipes import RECIPES
from training.stages import MissingStageError, Run


def say(line: str) -> None:
    """Write a line at once, also into a file."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.baselines", description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="run folder that the parts come from")
    parser.add_argument("--recipe", choices=sorted(RECIPES), required=True, help="that run's recipe")
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--device", default="auto")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RIVALS)}; all without one")
    options = parser.parse_args()
    if unknown := set(options.names) - set(RIVALS):
        parser.error(f"no rival {', '.join(sorted(unknown))}; there are: {', '.join(RIVALS)}")
    torch.set_num_threads(1)
    try:
        comparison = Comparison(
            Run(RECIPES[options.recipe], options.base), options.out, pick_device(options.device), say
        )
        for name in options.names or RIVALS:
            comparison.train(name)
    except (TrainingError, MissingStageError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 130 if isinstance(error, InterruptedRunError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
