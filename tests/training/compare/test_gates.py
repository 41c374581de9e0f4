"""Gates pass when they should, fail when they should, and never pass unmeasured."""

from __future__ import annotations

import pytest

from training.compare.gates import INTERPOLATION, MOCOGAN, RULES, Gate, Rule, judge_gate

ROW = {"direction": 0.5, "identity": 0.9, "flow": 0.2, "tremble": 0.1, "acd": 0.02}


def rows(**changes: float) -> list[dict[str, float]]:
    return [{**ROW, **changes}, {**ROW, **changes}]


@pytest.mark.parametrize(
    ("rule", "better", "worse"),
    [
        (Rule("direction", MOCOGAN, "above"), {"direction": 0.51}, {"direction": 0.49}),
        (Rule("identity", INTERPOLATION, "above"), {"identity": 0.91}, {"identity": 0.9}),
        (Rule("flow", INTERPOLATION, "times"), {"flow": 0.301}, {"flow": 0.299}),
        (Rule("jitter", MOCOGAN, "below"), {"tremble": 0.09}, {"tremble": 0.11}),
        (Rule("acd", MOCOGAN, "below"), {"acd": 0.019}, {"acd": 0.02}),
    ],
)
def test_each_kind_of_gate_both_ways(rule: Rule, better: dict[str, float], worse: dict[str, float]) -> None:
    assert judge_gate(rule, rows(**better), rows()).state == "PASS"
    assert judge_gate(rule, rows(**worse), rows()).state == "FAIL"


def test_jitter_is_judged_relative_to_the_motion() -> None:
    rule = Rule("jitter", MOCOGAN, "below")
    twice = judge_gate(rule, rows(tremble=0.15, flow=0.4), rows())
    assert twice.state == "PASS"
    assert twice.ours == pytest.approx(0.375)


def test_a_gate_without_its_rival_is_not_passed() -> None:
    gate = judge_gate(RULES[0], [], [])
    assert gate.state == "NOT MEASURED"
    assert gate.to_json()["ours"] is None, "what is no number must not reach a JSON file"


def test_to_be_ahead_of_an_unfinished_rival_is_no_pass() -> None:
    assert judge_gate(Rule("acd", MOCOGAN, "below"), rows(acd=0.01), rows(), finished=False).state == "UNFINISHED"


def test_the_issue_s_gates_are_all_there() -> None:
    asked = {(rule.figure, rule.rival, rule.kind) for rule in RULES if not rule.extra}
    assert asked == {
        ("direction", INTERPOLATION, "above"),
        ("direction", MOCOGAN, "above"),
        ("identity", INTERPOLATION, "above"),
        ("identity", MOCOGAN, "above"),
        ("flow", INTERPOLATION, "times"),
        ("jitter", MOCOGAN, "below"),
        ("acd", MOCOGAN, "below"),
    }


def test_the_error_of_a_difference_is_paired() -> None:
    ours = [{**ROW, "identity": x + 0.1} for x in (0.2, 0.8, 0.5)]
    theirs = [{**ROW, "identity": x} for x in (0.2, 0.8, 0.5)]
    gate: Gate = judge_gate(Rule("identity", MOCOGAN, "above"), ours, theirs)
    assert gate.ours - gate.theirs == pytest.approx(0.1)
    assert gate.error == pytest.approx(0.0, abs=1e-9), "always 0.1 better: faces differ, the difference does not"
