"""A whole comparison on the human bundle with two rivals whose faults are known, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.animator import Animator, Face
from training.baselines.rivals import Rival
from training.compare.__main__ import main
from training.compare.comparison import (
    Settings,
    build_cases,
    check_settings,
    compare_methods,
    find_candidates,
    format_time,
    read_phrases,
)
from training.compare.judging import BundleTowers, FrameReader, open_bundle
from training.compare.methods import Ours, Renderer, ScaledRival, envelope, open_methods, tell_training
from training.compare.report import Outcome, write_report
from training.compare.trials import Bench
from training.errors import DataError
from training.evaluate import Judge
from training.faces.domains import find_domain
from training.loop import CHECKPOINT
from training.metrics.flow import DisFlow

BUNDLE = Path(__file__).parents[3] / "bundles" / "human"
HUMAN = find_domain("human")
FRAMES = 10
PHRASES = {"smiling": ["smiling"], "winking": ["winking"]}


@pytest.fixture(scope="module")
def opened() -> tuple[Animator, BundleTowers]:
    return open_bundle(BUNDLE)


def add_rivals(animator: Animator) -> list[Rival]:
    """One goes straight to where ours ends and a little aside; one walks about without listening."""

    def straight(picture: npt.NDArray[np.uint8], sentence: str, frames: int, seed: int) -> npt.NDArray[np.float32]:
        face = animator.invert(picture)
        ours = animator.move(face, sentence, frames, seed).delta_ws
        end = ours[np.argmax(np.abs(ours).sum((1, 2)))]
        aside = np.random.default_rng(7).standard_normal(end.shape).astype(np.float32)
        goal = end + 0.25 * aside * np.linalg.norm(end) / np.linalg.norm(aside)
        return np.linspace(0, 1, frames, dtype=np.float32)[:, None, None] * goal

    def wander(picture: npt.NDArray[np.uint8], sentence: str, frames: int, seed: int) -> npt.NDArray[np.float32]:
        face = animator.invert(picture)
        rng = np.random.default_rng(seed)
        places = 1.0 * rng.standard_normal((frames, 1, face.ws.shape[1])).astype(np.float32)
        places[0] = 0
        return np.broadcast_to(places, (frames, *face.ws.shape)).copy()

    return [Rival("interpolation", "a straight line", straight), Rival("mocogan-hd", "a walk", wander)]


@pytest.fixture(scope="module")
def outcome(opened: tuple[Animator, BundleTowers], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    animator, towers = opened
    settings = Settings(BUNDLE, None, tmp_path_factory.mktemp("report"), people=1, frames=FRAMES)
    rivals = (ScaledRival(rival, animator) for rival in add_rivals(animator))
    methods = [*open_methods(animator, None), *rivals]
    lines: list[str] = []
    outcome = compare_methods(settings, animator, towers, Judge("human"), methods, PHRASES, lines.append)
    assert lines[0].startswith("1/2 faces and sentences")
    assert lines[-1] == "2/2 faces and sentences, 0:00 left"
    write_report(outcome)
    return outcome


def test_methods_are_compared_at_the_same_progress(outcome: Outcome) -> None:
    ours, straight, true = (outcome.rows(name, equal=True) for name in ("ours", "interpolation", "renderer"))
    assert len(ours) == len(straight) == len(true) == 2
    for mine, theirs, drawn in zip(ours, straight, true, strict=True):
        assert theirs["progress"] == pytest.approx(mine["progress"], abs=0.03)
        assert drawn["progress"] == pytest.approx(mine["progress"], abs=0.03)
    assert {trial.how for trial in outcome.of("interpolation")} == {"progress"}


def test_a_rival_that_does_not_listen_is_compared_at_an_equal_amount(outcome: Outcome) -> None:
    smiling = outcome.of("mocogan-hd")[0]
    assert smiling.how == "amount"
    assert smiling.equal is not None
    mine = outcome.of("ours")[0].equal
    assert mine is not None

    def amount(row: dict[str, float], asked: int = 7, others: int = 8) -> float:
        return (asked * row["asked"] + others * row["outside"]) / (asked + others)

    assert amount(smiling.equal) == pytest.approx(amount(mine), rel=0.15)


def test_a_motion_too_small_even_for_that_is_said_to_fall_short(opened: tuple[Animator, BundleTowers]) -> None:
    animator, towers = opened
    shape = (animator.manifest.num_ws, animator.manifest.w_dim)
    still = Rival("mocogan-hd", "hardly moves", lambda p, s, frames, seed: np.full((frames, *shape), 1e-3, np.float32))
    bench = Bench(animator, HUMAN, FrameReader(Judge("human")), towers, DisFlow(), 0.6)
    case = build_cases(animator, HUMAN, {"smiling": ["smiling"]}, 1, FRAMES)[0]
    mine, theirs = bench.try_case(0, case, [Ours(animator), ScaledRival(still, animator)])
    assert mine.how == "progress"
    assert theirs.how == "short"
    assert theirs.cells is None, "no strip was asked for"


def test_flow_is_told_apart_by_where_the_truth_moves(outcome: Outcome) -> None:
    true, walk = (outcome.summaries(equal=False)[name] for name in ("renderer", "mocogan-hd"))
    assert true["flow_asked"].mean > 10 * true["flow_elsewhere"].mean
    assert walk["flow_elsewhere"].mean > 10 * true["flow_elsewhere"].mean


def test_the_report_says_what_the_sway_does(outcome: Outcome) -> None:
    ours, still = (outcome.summaries(equal=True)[name] for name in ("ours", "head still"))
    assert still["progress"].mean == pytest.approx(ours["progress"].mean, abs=0.03)
    assert still["flow"].mean < 0.7 * ours["flow"].mean
    assert still["acd"].mean < ours["acd"].mean
    text = (outcome.settings.out / "report.md").read_text()
    assert f"flow is {still['flow'].mean:.3g} instead of {ours['flow'].mean:.3g} px" in text


def test_known_faults_show(outcome: Outcome) -> None:
    states = {gate.statement: gate.state for gate in outcome.gates()}
    assert states["flow jitter below that of mocogan-hd"] == "PASS"
    assert states["ACD below that of mocogan-hd"] == "PASS"
    assert states["language direction above that of mocogan-hd"] == "PASS"
    assert states["evaluator's direction above that of interpolation"] == "PASS"
    natural = outcome.summaries(equal=False)
    assert natural["renderer"]["progress"].mean == pytest.approx(1.0, abs=0.1)
    assert natural["interpolation"]["off_target"].mean > natural["ours"]["off_target"].mean


def test_the_report_is_whole(outcome: Outcome) -> None:
    out = outcome.settings.out
    text, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    for name in re.findall(r"\]\(([^)]+)\)", text) + re.findall(r"src='([^']+)'", page):
        assert (out / name).is_file(), name
    results = json.loads((out / "results.json").read_text())
    assert {gate["state"] for gate in results["gates"]} <= {"PASS", "FAIL"}
    assert results["equal_progress"]["ours"]["progress"]["videos"] == 2
    assert len(results["videos"]) == 2 * 5
    passed = sum(gate["state"] == "PASS" for gate in results["gates"] if not gate["extra"])
    assert f"{passed} of 7 gates passed" in text
    assert "“winking”" in text


def test_a_rival_for_another_bundle_is_refused(opened: tuple[Animator, BundleTowers]) -> None:
    animator, _ = opened
    alien = Rival(
        "alien", "of another size", lambda picture, sentence, frames, seed: np.zeros((frames, 2, 3), np.float32)
    )
    case = build_cases(animator, HUMAN, {"smiling": ["smiling"]}, 1, FRAMES)[0]
    with pytest.raises(DataError, match=r"alien gave delta_ws .* another bundle"):
        ScaledRival(alien, animator).film(case, 1.0)


def test_ours_is_what_the_service_makes(opened: tuple[Animator, BundleTowers]) -> None:
    animator, _ = opened
    case = build_cases(animator, HUMAN, {"smiling": ["smiling"]}, 1, FRAMES)[0]
    served = np.concatenate(list(animator.animate(case.face.crop, "smiling", FRAMES, case.seed, intensity=0.7)))
    assert np.array_equal(Ours(animator).film(case, 0.7), served)
    assert np.array_equal(Ours(animator).sample(case, [0.0, 0.7], 3)[1], served[3])
    still = np.concatenate(
        list(animator.animate(case.face.crop, "smiling", FRAMES, case.seed, intensity=0.7, sway=False))
    )
    assert np.array_equal(Ours(animator, sway=False).film(case, 0.7), still)
    assert not np.array_equal(still, served)


def test_cases_vary_faces_and_sentences_and_repeat_exactly(opened: tuple[Animator, BundleTowers]) -> None:
    animator, _ = opened
    cases = build_cases(animator, HUMAN, {"smiling": ["a", "b"], "winking": ["c"]}, 2, FRAMES)
    assert [(c.expression, c.sentence, c.seed) for c in cases] == [
        ("smiling", "a", 0), ("smiling", "b", 1), ("winking", "c", 0), ("winking", "c", 1)
    ]  # fmt: skip
    assert cases[0].face is cases[2].face
    assert cases[2].candidates == ("wink_l", "wink_r")
    again: Face = build_cases(animator, HUMAN, {"smiling": ["a"]}, 1, FRAMES)[0].face
    assert np.array_equal(cases[0].face.ws, again.ws)


def test_the_truth_rises_and_a_wink_comes_back() -> None:
    rising, there_and_back = envelope(9, cyclic=False), envelope(9, cyclic=True)
    assert rising[0] == 0.0
    assert rising[-1] == 1.0
    assert rising == sorted(rising)
    assert there_and_back[0] == there_and_back[-1] == 0.0
    assert there_and_back[4] == 1.0
    assert Renderer(HUMAN, 64).max_scale == 1.0


def test_phrases(tmp_path: Path) -> None:
    held_out = read_phrases(None, HUMAN)
    assert set(held_out) == set(HUMAN.core)
    mine = tmp_path / "mine.json"
    mine.write_text('{"laugh": ["ha ha"], "neutral": ["calm"]}')
    assert read_phrases(mine, HUMAN) == {"laugh": ["ha ha"]}
    assert find_candidates("wink", mine) == ("wink_l", "wink_r")
    for text, words in (
        ("{", "not JSON"),
        ("[1]", "must map"),
        ('{"dancing": ["dance"]}', "'dancing' is no expression"),
        ('{"smiling": []}', "at least one sentence"),
        ('{"smiling": [" "]}', "at least one sentence"),
        ('{"neutral": ["calm"]}', "no sentence that asks for a motion"),
    ):
        mine.write_text(text)
        with pytest.raises(DataError, match=words):
            read_phrases(mine, HUMAN)
    with pytest.raises(DataError, match=r"absent\.json can't be read"):
        read_phrases(tmp_path / "absent.json", HUMAN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"people": 0}, "at least one person"),
        ({"frames": 4}, "at least 5 frames"),
        ({"level": 0.0}, r"lies in \(0, 1\]"),
        ({"level": 1.5}, r"lies in \(0, 1\]"),
        ({"rivals": Path("nowhere/at/all")}, "no run folder of rivals at nowhere"),
        ({"out": Path(__file__)}, "is a file"),
    ],
)
def test_settings_that_make_no_comparison_are_refused(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    good: dict[str, object] = {"bundle": BUNDLE, "rivals": None, "out": tmp_path}
    check_settings(Settings(**good))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=words):
        check_settings(Settings(**{**good, **changes}))  # type: ignore[arg-type]


def test_the_command_says_what_is_wrong_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert f"There is no model bundle at {tmp_path}" in capsys.readouterr().err
    assert main(["--bundle", str(BUNDLE), "--out", str(tmp_path / "out"), "--rivals", str(tmp_path)]) == 1
    assert "base.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "nothing is written before the first film"


def test_a_rival_in_training_says_so(tmp_path: Path) -> None:
    assert tell_training(tmp_path, "paper") == "", "what needs no training is finished"
    (tmp_path / "paper").mkdir()
    empty: dict[str, object] = {"modules": {}, "ema": {}, "optimizers": [], "torch_rng": torch.get_rng_state()}
    torch.save({"step": 3, **empty}, tmp_path / "paper" / CHECKPOINT)
    assert re.fullmatch(r"3 of \d+ steps", tell_training(tmp_path, "paper"))


def test_time_left_reads_as_minutes() -> None:
    assert format_time(0.4) == "0:00"
    assert format_time(125.9) == "2:05"
