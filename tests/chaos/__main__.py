"""``python -m tests.chaos``: play the acts and end in one JSON line on standard output; the rest is standard error.

Exit code 0: every job was taken, and none of them was lost, duplicated or failed innocently.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from tests.chaos.act import Outcome, Script, play
from tests.chaos.ground import GROUNDS, mount_alone
from tests.chaos.report import sum_up
from tests.model.tiny_bundle import build_tiny_bundle

# Less than half of the default lease, so that a run fits into a build; --night measures recovery with the defaults.
QUICK = Script(
    jobs=300,
    storm_s=60.0,
    pause_s=3.0,
    outage_s=5.0,
    calm_outage_s=5.0,
    workers=2,
    night=False,
    seed=1,
    settings={"lease_s": 12.0, "heartbeat_s": 3.0, "sweep_s": 2.0},
)
NIGHT = replace(
    QUICK, jobs=2000, storm_s=440.0, pause_s=8.0, outage_s=12.0, calm_outage_s=60.0, night=True, settings={}
)


def main() -> int:
    """Play and print; return the exit code."""
    options = read_options()
    script = NIGHT if options.night else QUICK
    script = replace(script, jobs=options.jobs or script.jobs, storm_s=options.storm or script.storm_s)
    script = replace(script, jobs=script.jobs // len(options.ground), seed=options.seed)
    may_mount = mount_alone()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="animato-chaos-", ignore_cleanup_errors=True) as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bundle = build_tiny_bundle(folder / "bundles" / "tiny")
        outcomes = play_together(options.ground, script, folder, bundle.parent, may_mount)
    line, faultless = sum_up(outcomes, wanted=script.jobs * len(options.ground), settings=script.settings)
    line["took_s"] = round(time.monotonic() - began_s, 1)
    for outcome in outcomes:
        for words in outcome.verdict.why + outcome.complaints:
            print(f"[chaos {outcome.ground}] {words}", file=sys.stderr)
    print(json.dumps(line), flush=True)
    return 0 if faultless else 1


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--night", action="store_true", help="ten minutes, 2,000 jobs, default leases, API kills too")
    parser.add_argument("--jobs", type=int, help="jobs in all")
    parser.add_argument("--storm", type=float, metavar="S", help="for so long faults begin")
    parser.add_argument("--seed", type=int, default=1, help="another mixture of jobs and faults")
    parser.add_argument("--ground", nargs="+", choices=GROUNDS, default=list(GROUNDS))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave logs and data in this new folder")
    return parser.parse_args()


def play_together(
    grounds: list[str], script: Script, folder: Path, bundles_dir: Path, may_mount: bool
) -> list[Outcome]:
    """Play the acts at the same time: most of an act is waiting for leases to lapse. Raises what an act raised."""
    outcomes: list[Outcome] = []
    faults: list[BaseException] = []
    together = threading.Barrier(len(grounds))

    def run(name: str) -> None:
        try:
            outcomes.append(play(name, script, folder, bundles_dir, may_mount=may_mount, together=together))
        except BaseException as error:  # noqa: BLE001 - raised again below
            faults.append(error)
            together.abort()

    threads = [threading.Thread(target=run, args=(name,), name=name) for name in grounds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return outcomes


if __name__ == "__main__":
    raise SystemExit(main())
