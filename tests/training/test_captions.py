"""Captions: same seed, same sentences; test wordings kept apart; meaning as the words say."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from training.faces.captions import (
    EXPRESSION_CLASSES,
    NEUTRAL,
    Caption,
    expression_of,
    paper_prompts,
    sample_caption,
)
from training.faces.expressions import EXPRESSIONS, GATE_NAMES
from training.faces.wording import dev_phrases, heldout_phrases, inflect, normalise, phrases, roughen

CORE = ("smile", "angry", "sad", "surprised", "close_eyes", "wink_l", "open_mouth", "pout")


def _draw(seed: int, count: int, expression: str | None = None) -> list[Caption]:
    rng = np.random.default_rng(seed)
    return [sample_caption(rng, expression) for _ in range(count)]


def test_the_same_generator_gives_the_same_captions() -> None:
    assert _draw(5, 200) == _draw(5, 200)
    assert _draw(5, 200) != _draw(6, 200)


def test_every_class_is_an_expression_of_the_renderer() -> None:
    assert set(EXPRESSION_CLASSES) == set(EXPRESSIONS)


def test_gate_names_agree_with_the_renderer() -> None:
    for gate, names in GATE_NAMES.items():
        assert expression_of(gate) in ((names,) if isinstance(names, str) else names)


@pytest.mark.parametrize("expression", EXPRESSION_CLASSES)
def test_a_wanted_expression_is_among_the_targets(expression: str) -> None:
    for caption in _draw(1, 60, expression):
        assert expression in [name for name, _ in caption.targets], caption
        assert all(0.3 <= strength <= 1.4 for _, strength in caption.targets), caption
        assert caption.text.strip()


@pytest.mark.parametrize("expression", [*EXPRESSION_CLASSES, NEUTRAL])
def test_there_are_many_wordings(expression: str) -> None:
    base = {p.text for p in phrases(expression)}
    assert len(base) >= (60 if expression in CORE else 30)
    texts = {normalise(c.text) for c in _draw(2, 400, expression)}
    assert len(texts) > 200


def test_an_unknown_expression_is_refused() -> None:
    with pytest.raises(KeyError):
        sample_caption(np.random.default_rng(0), "levitate")


def test_neutral_negated_and_unrelated_sentences_ask_for_nothing() -> None:
    assert all(c.targets == () for c in _draw(3, 200, NEUTRAL))


def _wordings(listed: dict[str, Iterable[str]]) -> dict[str, set[str]]:
    return {key: {normalise(t) for t in texts} for key, texts in listed.items()}


def test_no_base_phrase_is_a_heldout_phrase() -> None:
    held = {t.lower() for texts in heldout_phrases().values() for t in texts}
    for expression in (*EXPRESSION_CLASSES, NEUTRAL):
        assert not held & {p.text.lower() for p in phrases(expression)}, expression


def test_no_caption_is_a_heldout_or_development_phrase_in_another_frame() -> None:
    kept = set().union(*_wordings(heldout_phrases()).values(), *_wordings(dev_phrases()).values())
    assert normalise("The boy WINKS!") in kept, "she winks is on the list, so this frame must count as the same"
    assert not kept & {normalise(c.text) for c in _draw(4, 10_000)}


def test_heldout_and_development_lists_differ() -> None:
    held, dev = _wordings(heldout_phrases()), _wordings(dev_phrases())
    assert set(held) == set(dev)
    for key in held:
        assert not held[key] & dev[key], key


def test_heldout_list_is_as_it_was_frozen() -> None:
    held = heldout_phrases()
    counts = Counter({key: len(texts) for key, texts in held.items()})
    assert all(counts[gate] >= 10 for gate in GATE_NAMES)
    assert sum(counts.values()) == 255
    assert held["smiling"][2] == "elated"
    assert held["compounds"]["tired and pouting"] == ["sleepy", "pout"]


def test_paper_prompts_are_the_28_of_the_paper() -> None:
    prompts = paper_prompts()
    assert len(prompts) == 28
    for targets in prompts.values():
        assert targets
        assert all(name in EXPRESSION_CLASSES for name, _ in targets)


@pytest.mark.parametrize(
    ("verb", "form", "wanted"),
    [
        ("smile broadly", "ing", "smiling broadly"),
        ("grin", "ing", "grinning"),
        ("shut the eyes", "ing", "shutting the eyes"),
        ("cry", "s", "cries"),
        ("purse the lips", "s", "purses the lips"),
        ("give a wink", "ed", "gave a wink"),
        ("die laughing", "ing", "dying laughing"),
        ("pout", "", "pout"),
    ],
)
def test_verbs_are_inflected(verb: str, form: str, wanted: str) -> None:
    assert inflect(verb, form) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("She is SMILING!", "smiling"), ("make her smile, please", "smile"), ("the man winks", "winks"), (":-)", ":-)")],
)
def test_normalise_strips_the_frame(text: str, wanted: str) -> None:
    assert normalise(text) == wanted


def test_roughen_keeps_most_sentences_readable() -> None:
    rng = np.random.default_rng(0)
    roughened = [roughen(rng, "she smiles") for _ in range(300)]
    assert "SHE SMILES" in {t.rstrip(".!") for t in roughened}
    assert sum("smiles" in t.lower() for t in roughened) > 250
    assert any("please" in t for t in roughened)


def test_adverbs_change_the_strength() -> None:
    weak = [c for c in _draw(7, 3000, "smile") if "slightly" in c.text.lower() and len(c.targets) == 1]
    strong = [c for c in _draw(7, 3000, "smile") if "extremely" in c.text.lower() and len(c.targets) == 1]
    assert max(c.targets[0][1] for c in weak) < 0.75
    assert min(c.targets[0][1] for c in strong) > 1
