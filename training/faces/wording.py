"""Words of captions: the phrase lists, the grammar that bends them into sentences, and typing noise.

For: `training.faces.captions`, which decides what a sentence means. Data: `phrases.json` (base wordings by expression
and form; "…@0.7" is a weaker or stronger wording), `grammar.json` (subjects, adverbs, negations, inflections),
`heldout_phrases.json` and `dev_phrases.json` (wordings kept for tests and for tuning).
Must not import: torch, rendering, networks.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
FOLDER = Path(__file__).parent
BODY_PARTS = (
    "eyes|eye|mouth|lips|lip|eyebrows|brows|eyebrow|brow|cheeks|jaw|forehead|nose|eyelids|gaze|teeth|lids|eyelashes"
)
OPENINGS: tuple[str, ...] = (
    "please", "can you", "could you", "make", "let", "they", "her", "him", "his", "their", "your", "its", "the",
    "a", "an", "with", "is", "are", "looks?", "looking", "seems?", "has", "feels?", "feeling", "i want", "now",
)  # fmt: skip


@dataclass(frozen=True)
class Phrase:
    """One base wording: its text, what kind of words it is (adj, verb, noun, state, free) and how strong."""

    text: str
    form: str
    strength: float


@cache
def read_list(name: str) -> Any:
    """Read one of the JSON files beside this module, once."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def grammar(key: str) -> Any:
    """One table of `grammar.json`."""
    return read_list("grammar")[key]


@cache
def phrases(expression: str, form: str | None = None) -> tuple[Phrase, ...]:
    """All base wordings of an expression (or of "neutral"), or those of one form.

    Raises: KeyError for an unknown expression.
    """
    found = []
    for listed_form, texts in read_list("phrases")[expression].items():
        for text in texts if form in {None, listed_form} else ():
            words, _, strength = text.partition("@")
            found.append(Phrase(words, listed_form, float(strength or 1.0)))
    return tuple(found)


@cache
def common_phrases(expression: str, count: int = 10) -> tuple[Phrase, ...]:
    """The first wordings of each form, which are the plainest."""
    found: list[Phrase] = []
    for form in read_list("phrases")[expression]:
        found += phrases(expression, form)[:count]
    return tuple(found)


@cache
def short_phrases(expression: str) -> tuple[Phrase, ...]:
    """Adjectives, verbs and nouns of one or two words."""
    return tuple(p for p in phrases(expression) if p.form in {"adj", "verb", "noun"} and len(p.text.split()) < 3)


def heldout_phrases() -> dict[str, Any]:
    """The frozen test wordings by gate name or expression, with "neutral", "negated", "unrelated" and "compounds"."""
    loaded: dict[str, Any] = read_list("heldout_phrases")
    return loaded


def dev_phrases() -> dict[str, Any]:
    """The wordings for tuning, with the keys of `heldout_phrases`."""
    loaded: dict[str, Any] = read_list("dev_phrases")
    return loaded


@cache
def _opening_words() -> re.Pattern[str]:
    openings = [*(s.lower() for s, _ in grammar("subjects")), *(o.lower() for o in grammar("objects")), *OPENINGS]
    return re.compile(rf"^(?:(?:{'|'.join(sorted(openings, key=len, reverse=True))})\s+)+")


def normalise(text: str) -> str:
    """The bare wording: lower case, letters and digits alone, without the subject before it or a "please" after it.

    Emoticons, which hold no letters, are kept as they are.
    """
    words = " ".join(re.sub(r"[^a-z0-9']+", " ", text.lower().replace("’", "'")).split())
    if not words:
        return text.strip()
    return re.sub(r"\s+please$", "", _opening_words().sub("", words))


@cache
def reserved_phrases() -> frozenset[str]:
    """The normalised wordings of the held-out and the dev list, which no caption for training may equal."""
    return frozenset(
        normalise(t) for kept in (heldout_phrases(), dev_phrases()) for texts in kept.values() for t in texts
    )


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Draw one of the items, all equally likely."""
    return items[int(rng.integers(len(items)))]


def _ends_in_y(word: str) -> bool:
    return word.endswith("y") and word[-2] not in "aeiou"


def inflect(verb: str, form: str) -> str:
    """Put the first word of a verb phrase into a form: "s" (smiles), "ing" (smiling), "ed" (smiled) or "" (smile)."""
    first, _, rest = verb.partition(" ")
    doubled = first + first[-1] if first in grammar("doubled") else first
    if form == "s":
        regular = first[:-1] + "ies" if _ends_in_y(first) else first + "s"
        if first.endswith(("s", "sh", "ch", "x", "z")):
            regular = first + "es"
        first = grammar("irregular_s").get(first, regular)
    elif form == "ing":
        silent_e = first.endswith("e") and not first.endswith(("ee", "be", "ie"))
        first = first[:-2] + "ying" if first.endswith("ie") else (first[:-1] if silent_e else doubled) + "ing"
    elif form == "ed":
        regular = first[:-1] + "ied" if _ends_in_y(first) else first + "d" if first.endswith("e") else doubled + "ed"
        first = grammar("past").get(first, regular)
    return f"{first} {rest}" if rest else first


def add_article(noun: str) -> str:
    """ "wink" → "a wink", "open mouth" → "an open mouth"; plurals and mass nouns stay."""
    head = noun.partition(" of ")[0].partition(" in ")[0]
    mass = noun.partition(" ")[0] in {"laughter", "disgust", "embarrassment", "duck", "surprise", "peaceful"}
    if mass or (head.endswith(("s", "eyes")) and not noun.startswith("pair")):
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def possess(rng: np.random.Generator, text: str, possessive: str) -> str:
    """ "shut the eyes" → "shut her eyes", more often than not."""
    if rng.random() < 0.4:
        return text
    return re.sub(rf"\b(?:the|your) (?=(?:left |right |lower |upper )?(?:{BODY_PARTS})\b)", f"{possessive} ", text)


def _mistype(rng: np.random.Generator, text: str) -> str:
    places = [i for i, c in enumerate(text) if c.isalpha()]
    if len(places) < 5:
        return text
    i = pick(rng, places[1:])
    kind = int(rng.integers(4))
    if kind == 0:
        return text[:i] + text[i] + text[i:]
    if kind == 1:
        return text[:i] + text[i + 1 :]
    if kind == 2 and i + 1 < len(text) and text[i + 1].isalpha():
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + pick(rng, grammar("near_keys").get(text[i].lower(), "e")) + text[i + 1 :]


def roughen(rng: np.random.Generator, text: str) -> str:
    """Write a sentence as people type: typos, capitals, punctuation, "please"."""
    if rng.random() < 0.05:
        text = f"please {text}" if rng.random() < 0.5 else f"{text} please"
    if rng.random() < 0.12:
        text = _mistype(rng, text)
    draw = rng.random()
    if draw < 0.03:
        text = text.upper()
    elif draw < 0.2:
        text = text[:1].upper() + text[1:]
    if text[-1:].isalpha():
        text += pick(rng, ("", "", "", "", "", "", ".", ".", "!", "...", "!!"))
    return text
