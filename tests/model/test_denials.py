"""What a sentence denies is left out where it asks for something too, and only there."""

import pytest

from model.denials import leave_out_denied
from model.text import split_prompt


@pytest.mark.parametrize(
    ("sentence", "asked"),
    [
        ("not sad but smiling", "smiling"),
        ("not sad, but happy", "happy"),
        ("don't be sad, smile!", "smile"),
        ("they don’t smile but wink", "wink"),
        ("she's not sad, she's smiling", "she's smiling"),
        ("She is not laughing. She is crying.", "She is crying"),
        ("smile, don't laugh", "smile"),
        ("happy and not sad", "happy"),
        ("winks but does not smile", "winks"),
        ("winks without smiling", "winks"),
        ("smiles instead of frowning", "smiles"),
        ("rather than smiling, she pouts", "she pouts"),
        ("no longer angry, now happy", "now happy"),
        ("no smile, only a wink", "only a wink"),
        ("never sad, always smiling", "always smiling"),
        ("eyes not closed, mouth open", "mouth open"),
        ("stops smiling and gets furious", "gets furious"),
        ("he stopped being angry and is happy", "is happy"),
        ("slightly sad, not crying, with closed eyes", "slightly sad, with closed eyes"),
    ],
)
def test_what_is_denied_is_left_out(sentence: str, asked: str) -> None:
    assert leave_out_denied(sentence) == asked
    assert split_prompt(f"winks, then {sentence}") == ["winks", asked]


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("not happy, not sad", "not happy"),
        ("not smiling, please", "not smiling"),
        ("nothing shocking here, not shocked", "nothing shocking here"),
    ],
)
def test_of_a_sentence_that_only_denies_its_first_clause_stays(sentence: str, kept: str) -> None:
    assert leave_out_denied(sentence) == kept


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "smiling",
        "not",
        "not smiling",
        "don't smile",
        "smiling, with closed eyes",
        "smiles and winks",
        # denied twice, or no denial at all
        "can't stop laughing",
        "don't stop smiling, dear",
        "never without a smile",
        "couldn't be happier, really",
        "not only smiling but laughing",
        "not just smiling, laughing",
        "no, she is angry",
        "no way, surprised",
        "won't you smile, dear",
        "smile but not too much",
        "was angry but isn't any more",
        "used to be angry, not now",
        # one half can't be read without the other
        "don't keep the mouth closed, open it",
        "stop crying and laughing",
        "a face without expression",
    ],
)
def test_what_denies_nothing_stays_as_it_is(sentence: str) -> None:
    assert leave_out_denied(sentence) == sentence


# Work that grows with the square of the length lasts minutes here, and ours a blink.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit",
    [" ", ",", ", ", ",x", ", not ", "not ", "is ", "but ", "stop ", "stop a", "without ", "and not ", "it"],
)
def test_work_grows_with_the_length_of_the_sentence_alone(unit: str) -> None:
    leave_out_denied(unit * (200_000 // len(unit)))
    leave_out_denied("stop " + unit * (200_000 // len(unit)))
