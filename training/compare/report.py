"""Turns trials into the report folder: report.md, report.html, results.json, plots, strips and flow pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.bundle.manifest import Manifest
from training.compare.document import Block, Heading, Listing, Paragraph, Picture, Table, to_html, to_markdown
from training.compare.figures import FIGURES, Figure, Row, Summary, summarise
from training.compare.gates import INTERPOLATION, OURS, RULES, STILL, Gate, judge_gate
from training.compare.methods import MAX_INTENSITY, MAX_RIVAL_SCALE, Method
from training.compare.pictures import draw_flow, draw_grid, save_jpeg
from training.compare.plots import plot_bars, plot_lines
from training.compare.trials import LEAST_TARGET, Trial
from training.faces.expressions import CYCLIC, GATE_NAMES
from training.metrics.frechet import frechet_of

if TYPE_CHECKING:
    from training.compare.comparison import Settings

TRUTH = "renderer"
BAR_FIGURES = ("direction", "reading_direction", "identity", "off_target", "flow", "jitter", "acd", "perceptual")
MAX_FLOW_PICTURES = 2
LEAST_VIDEOS = 4
"""Fewer videos have no spread that a Fréchet distance could compare."""


@dataclass(frozen=True)
class Outcome:
    """Everything that a report is made of."""

    manifest: Manifest
    settings: Settings
    methods: Sequence[Method]
    trials: Sequence[Trial]
    flow_name: str
    towers_name: str

    def of(self, method: str) -> list[Trial]:
        """Give a method's trials in the order of the cases."""
        return [trial for trial in self.trials if trial.method == method]

    def rows(self, method: str, equal: bool) -> list[Row]:
        """Give a method's raw figures, one row a case; at equal progress without the cases that had no target."""
        if not equal:
            return [trial.natural for trial in self.of(method)]
        return [trial.equal for trial in self.of(method) if trial.equal is not None]

    def gates(self) -> list[Gate]:
        """Judge all rules on paired videos at equal progress."""
        names = {method.name for method in self.methods}
        found = []
        for rule in RULES:
            theirs = self.rows(rule.rival, equal=True) if rule.rival in names else []
            finished = all(method.finished for method in self.methods if method.name == rule.rival)
            found.append(judge_gate(rule, self.rows(OURS, equal=True) if theirs else [], theirs, finished))
        return found

    def summaries(self, equal: bool) -> dict[str, dict[str, Summary]]:
        """Give every method's figures."""
        return {
            method.name: {figure.key: summarise(figure, self.rows(method.name, equal)) for figure in FIGURES}
            for method in self.methods
        }

    def distances(self, equal: bool) -> dict[str, dict[str, float]]:
        """Give FID and FVD of every method's videos to the renderer's; nan where there are too few."""
        sets = {}
        for method in self.methods:
            trials = [t for t in self.of(method.name) if not equal or t.equal is not None]
            frames = [t.equal_features if equal else t.natural_features for t in trials]
            sets[method.name] = (
                np.concatenate([f for f in frames if f is not None]) if trials else np.zeros((0, 1), np.float32),
                np.stack([t.describe(equal) for t in trials]) if trials else np.zeros((0, 1), np.float32),
            )
        found = {}
        for name, (seen, videos) in sets.items():
            enough = len(videos) >= LEAST_VIDEOS
            found[name] = {
                "fid": round(frechet_of(seen, sets[TRUTH][0]), 6) if enough else float("nan"),
                "fvd": round(frechet_of(videos, sets[TRUTH][1]), 6) if enough else float("nan"),
            }
        return found


def write_report(outcome: Outcome) -> None:
    """Write the whole folder; what an earlier report left under other names stays."""
    out = outcome.settings.out
    out.mkdir(parents=True, exist_ok=True)
    pictures = write_pictures(outcome, out)
    blocks = compose(outcome, pictures)
    (out / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
    (out / "report.html").write_text(to_html(blocks), encoding="utf-8")
    (out / "results.json").write_text(
        json.dumps(to_json(outcome), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def write_pictures(outcome: Outcome, out: Path) -> dict[str, list[Picture]]:
    """Write plots, strips and flow pictures → pictures by section."""
    titles = [method.title for method in outcome.methods]
    names = [method.name for method in outcome.methods]
    equal = outcome.summaries(equal=True)
    shown = [figure for figure in FIGURES if figure.key in BAR_FIGURES]
    panels = []
    for figure in shown:
        found = [equal[name][figure.key] for name in names]
        panels.append((f"{figure.title}{_arrow(figure)}", [f.mean for f in found], [f.error for f in found]))
    (out / "equal-progress.svg").write_text(plot_bars(names, panels), encoding="utf-8")
    lasting = {trial.case for trial in outcome.trials if not _is_cyclic(trial.expression)}

    def average(of: Callable[[Trial], npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float64] | None]:
        lines = [[of(trial) for trial in outcome.of(name) if trial.case in lasting] for name in names]
        return [np.mean(np.stack(line).astype(np.float64), axis=0) if line else None for line in lines]

    across = "share of the video that has passed"
    (out / "progress.svg").write_text(
        plot_lines("progress, as it comes", across, names, average(lambda t: t.path)), encoding="utf-8"
    )
    (out / "speed.svg").write_text(
        plot_lines("mean flow, px a frame, as it comes", across, names, average(lambda t: t.speed)), encoding="utf-8"
    )
    written: dict[str, list[Picture]] = {
        "bars": [Picture("equal-progress.svg", "Figures at equal progress, mean and standard error")],
        "lines": [
            Picture("progress.svg", "Progress over the video, motions that rise and stay (winks left out)"),
            Picture("speed.svg", "How fast the picture moves over the video, the same motions"),
        ],
        "strips": [],
        "flows": [],
    }
    by_case: dict[int, list[Trial]] = {}
    for trial in outcome.trials:
        if trial.cells is not None:
            by_case.setdefault(trial.case, []).append(trial)
    title_of = dict(zip(names, titles, strict=True))
    for trials in by_case.values():
        first = trials[0]
        slug = first.expression.replace(" ", "-").replace("_", "-")
        rows = [(title_of[t.method], t.cells) for t in trials if t.cells is not None]
        save_jpeg(draw_grid(rows), out / f"strip-{slug}.jpg")
        written["strips"].append(Picture(f"strip-{slug}.jpg", f"{first.expression}: “{first.sentence}”"))
        if len(written["flows"]) < MAX_FLOW_PICTURES and not _is_cyclic(first.expression):
            flows = [(title_of[t.method], t.flows) for t in trials if t.flows is not None]
            painted, full_px = draw_flow(flows)
            save_jpeg(painted, out / f"flow-{slug}.jpg")
            written["flows"].append(
                Picture(
                    f"flow-{slug}.jpg",
                    f"Flow to the next frame, {first.expression}; full colour is {full_px:.2g} px a frame",
                )
            )
    return written


def compose(outcome: Outcome, pictures: dict[str, list[Picture]]) -> list[Block]:
    """Write the report's words and tables around the pictures."""
    manifest, settings = outcome.manifest, outcome.settings
    gates = outcome.gates()
    asked = [gate for gate in gates if not gate.extra]
    passed = sum(gate.state == "PASS" for gate in asked)
    cases = len({trial.case for trial in outcome.trials})
    blocks: list[Block] = [
        Heading(f"{manifest.id} {manifest.version} beside its rivals", 1),
        Paragraph(
            f"{passed} of {len(asked)} gates passed. {cases} videos a method: {settings.people} held-out faces, "
            f"{cases // settings.people} expressions with held-out sentences, {settings.frames} frames of "
            f"{manifest.resolution} px, the same faces, sentences and seeds for all."
        ),
        Heading("Gates"),
        gate_table(asked),
        *(
            Paragraph(f"UNFINISHED: {method.title}. Its gates are measured and have no verdict.")
            for method in outcome.methods
            if not method.finished
        ),
        Paragraph(
            "Beside the gates, by the evaluator that no loss saw and by the truth of where the face should move:"
        ),
        gate_table([gate for gate in gates if gate.extra]),
        *tell_sway(outcome.summaries(equal=True)),
        Heading("At equal progress"),
        Paragraph(
            "Every motion is scaled until the evaluator reads the same progress at the judged frame. Ours is scaled by "
            f"the intensity of the request (0 to {MAX_INTENSITY:g}) to a progress of {settings.level:g}, or as far as "
            "it gets; what is read there is the target of the others in this case. A rival's delta_ws is multiplied by "
            f"a factor (0 to {MAX_RIVAL_SCALE:g}), all frames alike. A rival that reaches the target at no factor is "
            "scaled until it changes the 15 expression factors as much as ours does (mean absolute change at the "
            "judged frame): “equal amount” below; one that can't do that either is taken at its largest: “fell short”. "
            f"Cases in which ours makes less progress than {LEAST_TARGET:g} are left out."
        ),
        matching_table(outcome),
        figure_table(outcome, equal=True),
        *pictures["bars"],
        Heading("As it comes"),
        Paragraph("No scaling: intensity 1, the rivals' motions as they were learnt or optimised."),
        figure_table(outcome, equal=False),
        *pictures["lines"],
        Heading("Strips"),
        Paragraph("The first held-out face that ours moves, at equal progress; eight of the frames, first to last."),
        *pictures["strips"],
        Heading("Flow"),
        Paragraph("Hue is the direction, depth of colour the speed; white stands still. Same video as the strip."),
        *pictures["flows"],
        Heading("What the figures are"),
        Listing([f"{figure.title}: {figure.about}." for figure in FIGURES]),
        Paragraph(
            f"Flow by {outcome.flow_name}, 0 where the picture does not change (training/metrics/flow.py says how "
            "little that is). A face that smiles moves few pixels, and slowly: part of every flow is the "
            "estimator's own noise, and the renderer's row says how much jitter it finds in a motion that has none. "
            f"Language by {outcome.towers_name}: a rival that was optimised against these very towers can raise its "
            "figure without looking right, which is why the evaluator's direction stands beside it. FID and FVD are "
            "Fréchet distances to the renderer's videos of the same faces and expressions, by the evaluator's factors "
            "and identity features of the frames (FID) and by mean, spread and speed of the factors of a video (FVD); "
            "with so few videos they are biased upwards and serve to compare the rows of one table alone. Figures are "
            "means over videos (a ratio is the ratio of two means) ± standard error by the jackknife over videos; "
            "videos of one face are not independent of each other, so the true uncertainty is larger. The renderer is "
            "the truth drawn without any network: a mark to read the other rows by, not a competitor."
        ),
        Heading("Who is compared"),
        Listing([f"{method.name}: {method.title}" for method in outcome.methods]),
        Heading("Sentences"),
        Listing(list_sentences(outcome)),
    ]
    return blocks


def tell_sway(summaries: dict[str, dict[str, Summary]]) -> list[Paragraph]:
    """Say which part of the figures is the head's sway, where it was kept still beside it."""
    if not {STILL, INTERPOLATION} <= set(summaries):
        return []

    def pair(key: str) -> str:
        swaying, still = (summaries[name][key].mean for name in (OURS, STILL))
        return f"{_number(still)} instead of {_number(swaying)}"

    times = summaries[STILL]["flow"].mean / max(summaries[INTERPOLATION]["flow"].mean, 1e-9)
    return [
        Paragraph(
            "A part of our motion is a gentle sway of the head, which no sentence asked for. With the head kept still "
            f"(`sway: false` in a request) and all else alike, flow is {pair('flow')} px, {_number(times)} times "
            f"interpolation's; followed points go {pair('followed')} px; jitter is {pair('jitter')}, ACD {pair('acd')}."
        )
    ]


def gate_table(gates: Sequence[Gate]) -> Table:
    """Write gates as a table."""
    rows = []
    for gate in gates:
        times = "at least" in gate.statement
        against = gate.ours / max(gate.theirs, 1e-9) if times else gate.ours - gate.theirs
        found = (
            f"{'ratio' if times else 'difference'} {_number(against)} ± {_number(gate.error)}" if gate.videos else "–"
        )
        rows.append([gate.statement, _number(gate.ours), _number(gate.theirs), found, str(gate.videos), gate.state])
    return Table(["gate", "ours", "theirs", "", "videos", "result"], rows)


def matching_table(outcome: Outcome) -> Table:
    """Say for each method how it was brought to equal progress."""
    rows = []
    for method in outcome.methods:
        trials = outcome.of(method.name)
        scales = [trial.scale for trial in trials if trial.how != "none"]
        counts = {how: sum(trial.how == how for trial in trials) for how in ("progress", "amount", "short", "none")}
        spread = f"{np.median(scales):.2f} ({min(scales):.2f} – {max(scales):.2f})" if scales else "–"
        rows.append([method.title, *(str(count) for count in counts.values()), spread])
    return Table(
        ["method", "equal progress", "equal amount", "fell short", "left out", "scale: median (least – most)"], rows
    )


def figure_table(outcome: Outcome, equal: bool) -> Table:
    """Write all figures, a column a method; FID and FVD at the end."""
    summaries, distances = outcome.summaries(equal), outcome.distances(equal)
    names = [method.name for method in outcome.methods]
    rows = [
        [f"{figure.title}{_arrow(figure)}", *(_spread(summaries[n][figure.key]) for n in names)] for figure in FIGURES
    ]
    rows += [[f"{key.upper()} ↓", *(_number(distances[n][key]) for n in names)] for key in ("fid", "fvd")]
    return Table(["", *names], rows)


def list_sentences(outcome: Outcome) -> list[str]:
    """List each expression's sentences."""
    found: dict[str, list[str]] = {}
    for trial in outcome.of(OURS):
        listed = found.setdefault(trial.expression, [])
        if trial.sentence not in listed:
            listed.append(trial.sentence)
    return [f"{name}: {'; '.join(f'“{sentence}”' for sentence in sentences)}" for name, sentences in found.items()]


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Give everything that is a number, null where there is none."""
    settings, manifest = outcome.settings, outcome.manifest

    def plain(summaries: dict[str, dict[str, Summary]]) -> dict[str, Any]:
        return {
            name: {
                key: {"mean": _finite(s.mean), "standard_error": _finite(s.error), "videos": s.videos}
                for key, s in figures.items()
            }
            for name, figures in summaries.items()
        }

    return {
        "bundle": {"id": manifest.id, "version": manifest.version, "resolution": manifest.resolution},
        "settings": {
            "people": settings.people,
            "frames": settings.frames,
            "level": settings.level,
            "quick": settings.quick,
            "flow": outcome.flow_name,
            "towers": outcome.towers_name,
        },
        "methods": {method.name: method.title for method in outcome.methods},
        "gates": [gate.to_json() for gate in outcome.gates()],
        "equal_progress": plain(outcome.summaries(equal=True)),
        "as_it_comes": plain(outcome.summaries(equal=False)),
        "distances": {
            key: {name: {k: _finite(v) for k, v in row.items()} for name, row in outcome.distances(equal).items()}
            for key, equal in (("equal_progress", True), ("as_it_comes", False))
        },
        "videos": [
            {
                "case": trial.case,
                "method": trial.method,
                "expression": trial.expression,
                "sentence": trial.sentence,
                "matched_by": trial.how,
                "scale": round(trial.scale, 4),
                "as_it_comes": _round(trial.natural),
                "equal_progress": _round(trial.equal) if trial.equal is not None else None,
            }
            for trial in outcome.trials
        ],
    }


def _is_cyclic(expression: str) -> bool:
    found = GATE_NAMES.get(expression, expression)
    return (found if isinstance(found, str) else found[0]) in CYCLIC or expression == "wink"


def _arrow(figure: Figure) -> str:
    return {"more": " ↑", "less": " ↓", "": ""}[figure.better]


def _number(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "–"


def _spread(summary: Summary) -> str:
    if not np.isfinite(summary.mean):
        return "–"
    if not np.isfinite(summary.error) or summary.error == 0:
        return f"{summary.mean:.3g}"
    places = min(max(1 - int(np.floor(np.log10(summary.error))), 0), 6)  # two digits of the error
    return f"{summary.mean:.{places}f} ± {summary.error:.{places}f}"


def _finite(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _round(row: Row) -> dict[str, float | None]:
    return {key: _finite(value) for key, value in row.items()}
