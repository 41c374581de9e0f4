"""Sequences are split where a person would, and embeddings are remembered."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from model.errors import ModelError
from model.text import MAX_SEGMENTS, TextEncoder, split_prompt
from model.tokenizer import WordPieceTokenizer
from tests.model.tiny_bundle import make_tokenizer


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("smiling", ["smiling"]),
        ("winks, then laughs", ["winks", "laughs"]),
        ("smile and then close eyes", ["smile", "close eyes"]),
        ("angry → sad", ["angry", "sad"]),
        ("angry->sad --> surprised => smiling", ["angry", "sad", "surprised", "smiling"]),
        ("smile; wink; pout", ["smile", "wink", "pout"]),
        ("She smiles. Then she winks.", ["She smiles", "she winks"]),
        ("smiles, and then, after that winks", ["smiles", "winks"]),
        ("First smile, then wink, and finally pout!", ["smile", "wink", "pout!"]),
        ("at first angry, but then sad", ["angry", "sad"]),
        ("smiling followed by crying", ["smiling", "crying"]),
        ("opens the mouth, afterwards closes the eyes", ["opens the mouth", "closes the eyes"]),
        ("smiles\nwinks", ["smiles", "winks"]),
        ("smiles THEN winks", ["smiles", "winks"]),
        ("smiles  ,\t then\u3000winks \r\n  pouts", ["smiles", "winks", "pouts"]),
        ("smile   and \t  then  close   eyes", ["smile", "close eyes"]),
        # at the same time, not one after another
        ("smiles and winks", ["smiles and winks"]),
        ("smiling, with closed eyes", ["smiling, with closed eyes"]),
        ("winks now and then", ["winks now and then"]),
        ("winks now  and   then", ["winks now and then"]),
        ("looks strengthened, authentic", ["looks strengthened, authentic"]),
        ("a half-closed-eyes smile - tired", ["a half-closed-eyes smile - tired"]),
        ("winks then and again", ["winks then and again"]),
        # nothing to split
        ("then smile", ["smile"]),
        ("smile, then", ["smile"]),
        ("; ; smile ;", ["smile"]),
        ("😀", ["😀"]),
        ("winks, then 😂", ["winks", "😂"]),
        ("!?", ["!?"]),
        ("then", ["then"]),
    ],
)
def test_split(prompt: str, parts: list[str]) -> None:
    assert split_prompt(prompt) == parts


@pytest.mark.parametrize("prompt", ["", "  \n\t "])
def test_empty_prompt(prompt: str) -> None:
    with pytest.raises(ModelError) as caught:
        split_prompt(prompt)
    assert caught.value.code == "prompt-empty"


def test_too_many_parts() -> None:
    assert len(split_prompt(";".join(["smile"] * MAX_SEGMENTS))) == MAX_SEGMENTS
    with pytest.raises(ModelError) as caught:
        split_prompt(";".join(["smile"] * (MAX_SEGMENTS + 1)))
    assert caught.value.code == "prompt-too-long"


# Work that grows with the square of the length lasts many minutes here, with its cube years; ours, half a second.
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "unit",
    [" ", "\n", "\t\n", "-", "=", "- ", ",", ", ", ", then", "and ", "now and ", "then ", "first, ", "after ", "a\n "],
)
@pytest.mark.parametrize("end", ["", ">", "then"])
def test_work_grows_with_the_length_of_the_prompt_alone(unit: str, end: str) -> None:
    with contextlib.suppress(ModelError):  # empty, or too many parts: both are fine here
        split_prompt(unit * (1_000_000 // len(unit)) + end)


class CountingSession:
    """A text tower that counts its calls."""

    provider = "cpu"

    def __init__(self) -> None:
        self.calls: list[np.ndarray[Any, Any]] = []

    def run(self, **inputs: Any) -> dict[str, Any]:
        assert inputs["input_ids"].dtype == np.int64
        assert inputs["attention_mask"].shape == inputs["input_ids"].shape
        self.calls.append(inputs["input_ids"])
        return {"text_embed": np.full((1, 4), inputs["input_ids"].sum(), np.float32)}


def test_embeddings_are_remembered_and_the_oldest_forgotten() -> None:
    session = CountingSession()
    encoder = TextEncoder(session, WordPieceTokenizer(make_tokenizer()), max_tokens=16, cache_size=2)
    smile, angry = encoder.embed("smile"), encoder.embed("angry")
    assert not np.array_equal(smile, angry)
    assert np.array_equal(encoder.embed("  SMILE "), smile)  # the same tokens
    assert len(session.calls) == 2
    encoder.embed("sad")  # forgets "angry", which was used longest ago
    encoder.embed("smile")
    assert len(session.calls) == 3
    encoder.embed("angry")
    assert len(session.calls) == 4


def test_a_remembered_embedding_cannot_be_changed_by_mistake() -> None:
    encoder = TextEncoder(CountingSession(), WordPieceTokenizer(make_tokenizer()), max_tokens=16)
    with pytest.raises(ValueError, match="read-only"):
        encoder.embed("smile")[0] = 1.0
