"""From a phrase to the words of a sentence, and how strongly they ask for it.

For: `training.faces.captions`. Must not import: torch, rendering, networks.
"""

from collections.abc import Callable

import numpy as np

from training.faces.wording import (
    Phrase,
    add_article,
    grammar,
    inflect,
    pick,
    possess,
)

MIN_STRENGTH, MAX_STRENGTH = 0.3, 1.4


def draw_subject(rng: np.random.Generator) -> str:
    """Choose who the sentence is about."""
    return str(pick(rng, grammar("subjects"))[0])


def draw_object(rng: np.random.Generator) -> str:
    """Choose who somebody else makes do it."""
    return str(pick(rng, grammar("objects")))


def draw_portrait(rng: np.random.Generator) -> str:
    """Choose words for a picture of somebody."""
    return str(pick(rng, grammar("portraits")))


def scale_strength(strength: float, factor: float) -> float:
    """Weaken or strengthen, within what captions may ask for."""
    return float(min(max(strength * factor, MIN_STRENGTH), MAX_STRENGTH))


def _adjective(rng: np.random.Generator, p: Phrase) -> tuple[str, float]:
    subject, _ = pick(rng, grammar("subjects"))
    words, strength = p.text, p.strength
    prepositional = words.split()[0] in {
        "in",
        "over",
        "on",
        "with",
        "about",
        "full",
        "as",
        "close",
        "beside",
        "fit",
        "up",
        "without",
    }
    if rng.random() < 0.25:
        adverb, factor = pick(rng, grammar("adverbs"))
        words, strength = f"{adverb} {words}", scale_strength(strength, factor)
    makers: list[str] = [
        words, words, f"{subject} is {words}", f"{subject} looks {words}", f"looking {words}",
        f"{subject} looking {words}",
        f"make {draw_object(rng)} look {words}", f"look {words}", f"{subject} seems {words}", f"be {words}",
        f"{subject}, {words}", f"{draw_portrait(rng)} {subject} looking {words}", f"{subject} appears {words}",
        f"{subject} becomes {words}", f"feeling {words}", f"{subject} turns {words}",
        f"{subject} suddenly looks {words}",
        f"{subject} was {words}", f"{subject} is so {words} today", f"you are {words}", f"I feel {words}",
        f"they look {words}", f"we are {words}", f"turn {draw_object(rng)} {words}", f"{words}!", f"{words} please",
        f"{subject} is feeling {words}", f"{subject} got {words}", f"can you make {draw_object(rng)} look {words}?",
        f"{words} {subject}" if not prepositional else words, f"animate {draw_object(rng)} to look {words}",
        f"{subject} feels {words}", f"I am {words}", f"she's {words}",
        f"the person is {words}", f"getting {words}", f"{subject} gets {words}",
    ]  # fmt: skip
    if not prepositional:
        kind = pick(rng, grammar("kinds"))
        makers += [f"a {words} {kind}", f"{words} {kind}", f"with a {words} {kind}", f"{subject} with a {words} {kind}"]
    return pick(rng, makers), strength


def _verb(rng: np.random.Generator, p: Phrase) -> tuple[str, float]:
    subject, possessive = pick(rng, grammar("subjects"))
    base, strength = p.text, p.strength
    before = after = ""
    if rng.random() < 0.22:
        adverb, factor = pick(rng, grammar("verb_adverbs"))
        strength = scale_strength(strength, factor)
        if rng.random() < 0.3 and adverb.endswith("ly"):
            before = adverb + " "
        else:
            after = " " + adverb
    base = possess(rng, base, possessive)
    s, ing = before + inflect(base, "s") + after, before + inflect(base, "ing") + after
    base, ed = before + base + after, before + inflect(base, "ed") + after
    makers = (
        base, s, ing, ing, f"{subject} {s}", f"{subject} {s}", f"{subject} is {ing}", f"{subject} {ing}", f"{base}!",
        f"make {draw_object(rng)} {base}", f"can you {base}?", f"let {draw_object(rng)} {base}", f"the person is {ing}",
        f"{draw_portrait(rng)} {subject} {ing}", f"{subject} starts to {base}", f"{subject}, {ing}", f"start {ing}",
        f"{subject} {ed}", f"I want {draw_object(rng)} to {base}", f"{subject} has to {base}",
        f"{subject} begins {ing}",
        f"I {base}", f"you {base}", f"they {base}", f"they are {ing}", f"we are {ing}", f"I am {ing}", f"you're {ing}",
        f"{subject} should {base}", f"{subject} wants to {base}", f"{subject} has been {ing}", f"{subject} was {ing}",
        f"{subject} just {ed}", f"could you please {base}?", f"have {draw_object(rng)} {base}",
        f"get {draw_object(rng)} to {base}",
        f"tell {draw_object(rng)} to {base}", f"I'd like {draw_object(rng)} to {base}",
        f"animate {draw_object(rng)} {ing}",
        f"{subject} while {ing}", f"slowly {base}", f"to {base}", f"go on, {base}", f"{subject} tries to {base}",
        f"try to {base}", f"{subject} can't stop {ing}", f"keep {ing}", f"now {base}", f"{subject} will {base}",
    )  # fmt: skip
    return pick(rng, makers), strength


def _noun(rng: np.random.Generator, p: Phrase) -> tuple[str, float]:
    subject, possessive = pick(rng, grammar("subjects"))
    noun, strength = p.text, p.strength
    phrase = add_article(noun)
    draw = rng.random()
    if draw < 0.2:
        adjective, factor = pick(rng, grammar("noun_adjectives"))
        phrase, strength = add_article(f"{adjective} {noun}"), scale_strength(strength, factor)
    elif draw < 0.27:
        hint, factor = pick(rng, grammar("hints"))
        phrase, strength = f"{hint} {phrase}", scale_strength(strength, factor)
    makers = (
        phrase, noun if phrase == add_article(noun) else phrase, f"with {phrase}", f"{subject} with {phrase}",
        f"{subject} has {phrase}",
        f"{subject} shows {phrase}", f"put {phrase} on {possessive} face", f"give {draw_object(rng)} {phrase}",
        f"{draw_portrait(rng)} {subject} with {phrase}", f"{subject} makes {phrase}", f"make {phrase}",
        f"show {phrase}",
        f"{phrase} on {possessive} face", f"{subject}, {phrase}", f"doing {phrase}", f"add {phrase}", f"do {phrase}",
        f"{phrase} appears", f"wearing {phrase}", f"{phrase}, please",
    )  # fmt: skip
    return pick(rng, makers), strength


def _state(rng: np.random.Generator, p: Phrase) -> tuple[str, float]:
    subject, possessive = pick(rng, grammar("subjects"))
    words, strength = p.text, p.strength
    if rng.random() < 0.1:
        adverb, factor = pick(rng, grammar("adverbs")[:10])
        words, strength = f"{words}, {adverb}", scale_strength(strength, factor)
    words = possess(rng, words, possessive)
    makers = (
        words, words, f"with {words}", f"{subject} with {words}", f"{subject} has {words}", f"{subject}, {words}",
        f"{words}!",
        f"{draw_portrait(rng)} {subject} with {words}", f"make {words}", f"show {words}", f"I want {words}",
    )  # fmt: skip
    return pick(rng, makers), strength


def _free(rng: np.random.Generator, p: Phrase) -> tuple[str, float]:
    if rng.random() < 0.15:
        subject, _ = pick(rng, grammar("subjects"))
        return (
            f"{pick(rng, (f'{subject}: ', 'a face that says ', f'{subject} like ', 'reaction: '))}{p.text}",
            p.strength,
        )
    return p.text, p.strength


REALISE: dict[str, Callable[[np.random.Generator, Phrase], tuple[str, float]]] = {
    "adj": _adjective, "verb": _verb, "noun": _noun, "state": _state, "free": _free,
}  # fmt: skip
