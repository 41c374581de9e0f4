"""The score of understanding: bounds, pairs, sequences, what is refused, and that a bundle without it has none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.animator import Animator
from model.bundle.reader import read_bundle
from model.bundle.writer import write_bundle
from model.errors import BundleError, ModelError
from model.language import LanguageScale
from tests.model.tiny_bundle import build_tiny_bundle

AXES = np.eye(4, dtype=np.float32)


def content(**changes: Any) -> bytes:
    found = {
        "names": ["smiling", "winking", "winking", "neutral"], "neutral": "neutral", "floor": 0.5, "ceiling": 0.9,
        "prototypes": AXES.tolist(), **changes,
    }  # fmt: skip
    return json.dumps(found).encode()


@pytest.fixture(scope="module")
def scale() -> LanguageScale:
    return LanguageScale.from_bytes(content(), 4)


def mix(*weights: float) -> np.ndarray:
    embed = np.array(weights, np.float32)
    return embed / np.linalg.norm(embed)


def test_a_plain_wording_is_understood(scale: LanguageScale) -> None:
    found = scale.judge([mix(1, 0.2, 0, 0)])
    assert found.understood_as == "smiling"
    assert found.similarity == 1


def test_the_score_falls_with_the_distance(scale: LanguageScale) -> None:
    embed = np.array([0.7, 0, 0, np.sqrt(1 - 0.49)], np.float32)
    assert scale.judge([embed]).similarity == pytest.approx((0.7 - 0.5) / 0.4, abs=1e-5)


def test_a_sentence_that_asks_for_nothing_is_neutral_and_scores_nothing(scale: LanguageScale) -> None:
    found = scale.judge([mix(0.1, 0, 0, 1)])
    assert (found.understood_as, found.similarity) == ("neutral", 0)


def test_two_expressions_at_once_are_understood(scale: LanguageScale) -> None:
    found = scale.judge([mix(1, 0, 1, 0)])
    assert (found.understood_as, found.similarity) == ("smiling and winking", 1)


def test_a_name_is_never_paired_with_itself(scale: LanguageScale) -> None:
    assert scale.judge([mix(0, 1, 1, 0)]).understood_as == "winking"


def test_only_the_paired_ones_are_asked_for_two_at_a_time() -> None:
    names = ["smiling", "neutral", "winking", "smiling"]
    alone = LanguageScale.from_bytes(content(names=names, paired=1), 4)
    assert alone.judge([mix(1, 0, 1.01, 0)]).understood_as == "winking"
    two = LanguageScale.from_bytes(content(names=names, paired=2), 4)
    assert two.judge([mix(1, 0, 1.01, 0)]).understood_as == "smiling and winking"


def test_a_sequence_is_as_good_as_its_worst_part(scale: LanguageScale) -> None:
    found = scale.judge([mix(1, 0, 0, 0), mix(0, 1, 0, 0), mix(0, 0, 0, 1)])
    assert (found.understood_as, found.similarity) == ("smiling, then winking, then neutral", 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (content(names=["smiling", 3]), "names"),
        (content(neutral=None), "neutral"),
        (content(floor="low"), "floor must be a number"),
        (content(ceiling=True), "ceiling must be a number"),
        (content(floor=0.9), "below ceiling"),
        (content(paired=-1), "paired"),
        (content(prototypes=[[1, 2], [3]]), "prototypes"),
        (content(prototypes=[[1.0, 0, 0, 0]]), "4 rows of 4"),
        (content(prototypes=[["a"] * 4] * 4), "prototypes"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        LanguageScale.from_bytes(data, 4)


def with_language(source: Path, target: Path, data: bytes) -> Path:
    manifest = json.loads((source / "manifest.json").read_text())
    files: dict[str, Path | bytes] = {name: source / name for name in manifest.pop("files")}
    return write_bundle(target, {**manifest, "language": "language.json"}, {**files, "language.json": data})


def test_a_bundle_with_the_file_scores_prompts_and_one_without_does_not(tmp_path: Path) -> None:
    plain = build_tiny_bundle(tmp_path / "plain")
    animator = Animator.from_bundle(plain, threads=1)
    assert animator.measure_language("smiling") is None
    assert "language" not in json.loads((plain / "manifest.json").read_text())
    embed = animator._text.embed("smiling")
    other = np.roll(embed, 1)
    data = content(names=["smiling", "neutral"], prototypes=[embed.tolist(), other.tolist()])
    scored = Animator.from_bundle(with_language(plain, tmp_path / "scored", data), threads=1)
    found = scored.measure_language("smiling")
    assert found is not None
    assert (found.similarity, found.understood_as) == (1, "smiling")
    both = scored.measure_language("smiling, then smiling")
    assert both is not None
    assert both.understood_as == "smiling, then smiling"
    with pytest.raises(ModelError, match="empty"):
        scored.measure_language("  ")


def test_a_manifest_that_names_a_missing_language_file_is_refused(tmp_path: Path) -> None:
    plain = build_tiny_bundle(tmp_path / "plain")
    manifest = json.loads((plain / "manifest.json").read_text())
    (plain / "manifest.json").write_text(json.dumps({**manifest, "language": "language.json"}))
    with pytest.raises(BundleError, match="language names"):
        read_bundle(plain)
