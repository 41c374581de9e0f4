"""Compare a bundle with its rivals: `python -m training.compare --bundle DIR --rivals RUN --out DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model.errors import ModelError
from training.compare.comparison import run
from training.errors import TrainingError
from training.stages import MissingStageError


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and run; 1 where something is wrong, said in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m training.compare", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--rivals", type=Path, default=None, help="run folder of the trained rivals")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--people", type=int, default=4, help="held-out faces (default 4)")
    parser.add_argument("--frames", type=int, default=16, help="frames of every video (default 16)")
    parser.add_argument("--phrases", type=Path, default=None, help='{"smiling": ["…"], …} instead of the held-out list')
    parser.add_argument("--level", type=float, default=0.6, help="progress to compare at (default 0.6)")
    parser.add_argument(
        "--flow-weights", type=Path, default=None, help="TorchScript file of a flow network such as RAFT"
    )
    parser.add_argument("--quick", action="store_true", help="one person, two expressions: to see that all works")
    options = parser.parse_args(arguments)
    try:
        run(
            options.bundle,
            options.rivals,
            options.out,
            people=options.people,
            frames=options.frames,
            phrases=options.phrases,
            level=options.level,
            flow_weights=options.flow_weights,
            quick=options.quick,
            report=lambda line: print(line, flush=True),  # noqa: T201  # a command speaks on standard output
        )
    except (TrainingError, MissingStageError, ModelError, OSError) as error:
        print(f"training.compare: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
