"""Captions of rendered faces: English sentences whose meaning is known exactly.

For: the sentences that train and judge the text tower and the motion network. A caption carries the expressions it asks
for, each with a strength; none means "no motion" (neutral, negated and unrelated sentences). The phrases lie in
`phrases.json`, the wordings kept for tests in `heldout_phrases.json`, those for tuning in `dev_phrases.json`.
Must not import: torch, rendering, networks.

Conventions:

- left and right are the viewer's: "the left eye" is the eye on the left of the picture (`eye_l` of the renderer);
- a wink without a side is `wink_l`; "winking" is one eye, "blinking" is both for a moment, `close_eyes` both to stay;
- strength 1 is the expression as the renderer defines it; "slightly" is about 0.5, "a huge …" about 1.3.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.faces.realise import REALISE, draw_portrait, draw_subject, scale_strength
from training.faces.wording import (
    Phrase,
    add_article,
    common_phrases,
    grammar,
    inflect,
    normalise,
    phrases,
    pick,
    possess,
    read_list,
    reserved_phrases,
    roughen,
    short_phrases,
)

NEUTRAL = "neutral"

EXPRESSION_CLASSES: tuple[str, ...] = (
    "smile", "laugh", "sad", "angry", "shocked", "surprised", "close_eyes", "wink_l", "wink_r", "open_mouth", "pout",
    "raise_brows", "frown_brows", "skeptic", "sleepy", "disgust", "look_left", "look_right", "look_up", "look_down",
    "blush", "blink",
)  # fmt: skip

# Names that gates and people use for the prototype's names.
GATE_NAMES: dict[str, str] = {
    "smiling": "smile", "angry": "angry", "sad": "sad", "surprised": "surprised", "closing eyes": "close_eyes",
    "winking": "wink_l", "opening mouth": "open_mouth", "pouting": "pout",
}  # fmt: skip

# Expressions of different groups move different parts, so that two of them make sense together.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("smile", "laugh", "sad", "angry", "shocked", "surprised", "skeptic", "disgust", "raise_brows", "frown_brows"),
    ("close_eyes", "wink_l", "wink_r", "sleepy", "look_left", "look_right", "look_up", "look_down", "blink"),
    ("open_mouth", "pout"),
    ("blush",),
)
_CLASHES = frozenset({frozenset(p) for p in (
    ("laugh", "open_mouth"), ("shocked", "open_mouth"), ("shocked", "close_eyes"), ("surprised", "close_eyes"),
    ("surprised", "sleepy"), ("shocked", "sleepy"), ("laugh", "pout"), ("smile", "pout"), ("shocked", "pout"),
    ("surprised", "open_mouth"), ("surprised", "wink_l"), ("shocked", "wink_l"), ("angry", "sleepy"),
)})  # fmt: skip


@dataclass(frozen=True)
class Caption:
    """A sentence and what it asks for: (expression, strength) pairs, none for no motion."""

    text: str
    targets: tuple[tuple[str, float], ...]


def paper_prompts() -> dict[str, tuple[tuple[str, float], ...]]:
    """The paper's 28 prompts ("The person is {…}.") in terms of the renderer's expressions.

    The renderer has no tongue: a bitten tongue is an embarrassed grin with the mouth a little open. A blank stare and
    "no comment" show little.
    """
    return {
        prompt: tuple((name, float(s)) for name, s in targets) for prompt, targets in grammar("paper_prompts").items()
    }


def expression_of(name: str) -> str:
    """The expression behind a gate name ("smiling" → "smile"); other names stand for themselves."""
    return GATE_NAMES.get(name, name)


def _phrase(rng: np.random.Generator, expression: str, short: float = 0.0) -> Phrase:
    """A base wording: any of them, or one of the plainest, which stand first in the lists.

    `short` is the share of one- and two-word ones, which people deny and correct more than long ones.
    """
    draw = rng.random()
    if draw < 0.2:
        return pick(rng, common_phrases(expression))
    if draw < 0.2 + short:
        return pick(rng, short_phrases(expression))
    return pick(rng, phrases(expression))


def _template(rng: np.random.Generator, key: str, common: int = 30) -> str:
    """A template of the grammar; every other time one of the commonest, which stand first."""
    return str(pick(rng, grammar(key)[:common] if rng.random() < 0.5 else grammar(key)))


def _single(rng: np.random.Generator, expression: str) -> Caption:
    if rng.random() < 0.05:
        prompts = [(t, v) for t, v in paper_prompts().items() if v[0][0] == expression]
        if prompts:
            text, targets = pick(rng, prompts)
            return Caption(pick(rng, (f"The person is {text}.", f"the person is {text}", text)), targets)
    p = _phrase(rng, expression)
    text, strength = REALISE[p.form](rng, p)
    return Caption(text, () if expression == NEUTRAL else ((expression, round(strength, 3)),))


def _fragment(rng: np.random.Generator, expression: str) -> tuple[str, str, float]:
    """One part of a compound: (as the main part, as the part after "with" or "while", strength)."""
    while True:
        p = _phrase(rng, expression, short=0.2)
        if p.form == "adj" and len(p.text.split()) < 4:
            adverb, factor = pick(rng, grammar("adverbs")) if rng.random() < 0.15 else ("", 1.0)
            words = f"{adverb} {p.text}".strip()
            return words, f"looking {words}", scale_strength(p.strength, factor)
        if p.form == "verb":
            ing = inflect(possess(rng, p.text, pick(rng, ("her", "his", "their"))), "ing")
            return ing, ing, p.strength
        if p.form == "noun":
            return add_article(p.text), f"with {add_article(p.text)}", p.strength
        if p.form == "state":
            return p.text, f"with {p.text}", p.strength


def _compatible(rng: np.random.Generator, expression: str) -> str:
    while True:
        group = pick(rng, GROUPS)
        other = pick(rng, group)
        if expression not in group and frozenset((expression, other)) not in _CLASHES:
            return other


def _compound(rng: np.random.Generator, expression: str) -> Caption:
    other = _compatible(rng, expression)
    first, second = (expression, other) if rng.random() < 0.5 else (other, expression)
    main, _, strength_a = _fragment(rng, first)
    also, attached, strength_b = _fragment(rng, second)
    subject, _ = pick(rng, grammar("subjects"))
    joined = pick(rng, (
        f"{main} and {also}", f"{main} {attached}", f"{main}, {also}", f"{main}, {attached}",
        f"{main} while {attached}",
        f"both {main} and {also}", f"{main} plus {also}", f"{main} but also {also}", f"{main} then {also}",
        f"{main} & {also}",
        f"{main} and then {also}", f"{main} as well as {also}",
    ))  # fmt: skip
    if rng.random() < 0.3 and phrases(first, "verb") and phrases(second, "verb"):
        a, b = pick(rng, phrases(first, "verb")), pick(rng, phrases(second, "verb"))
        strength_a, strength_b = a.strength, b.strength
        form = pick(rng, ("s", ""))
        va, vb = inflect(a.text, form), inflect(b.text, form)
        link = pick(rng, ("and", "and", "then", "while also", "and also"))
        joined = f"{va} {link} {vb}" if form == "" else f"{subject} {va} {link} {vb}"
    elif rng.random() < 0.5:
        joined = f"{subject} {pick(rng, ('is ', '', 'looks ', ','))}".rstrip() + f" {joined}"
    targets = ((first, round(strength_a, 3)), (second, round(strength_b, 3)))
    return Caption(joined.replace(" with with ", " with ").replace("while with", "with"), targets)


def _affirmed(rng: np.random.Generator, expression: str) -> tuple[str, float] | None:
    """A sentence with a negation in it that asks for the expression all the same: "can't stop smiling"."""
    p = pick(rng, phrases(expression))
    if p.form not in {"adj", "verb", "noun"}:
        return None
    _, possessive = pick(rng, grammar("subjects"))
    if p.form == "verb":
        verb = possess(rng, p.text, possessive)
        text = pick(rng, grammar("still_verb")).format(v=verb, g=inflect(verb, "ing"))
    elif p.form == "adj":
        text = pick(rng, grammar("still_adj")).format(a=p.text)
    else:
        text = pick(rng, grammar("still_noun")).format(n=p.text).replace("a " + p.text, add_article(p.text))
    return (f"{draw_subject(rng)} {text}" if rng.random() < 0.6 else text), p.strength


def negate(rng: np.random.Generator, expression: str) -> str:
    """A sentence that denies an expression."""
    while True:
        p = _phrase(rng, expression, short=0.4)
        if p.form != "free":
            break
    subject, possessive = pick(rng, grammar("subjects"))
    if p.form == "adj":
        other = pick(rng, phrases(pick(rng, EXPRESSION_CLASSES[:6]), "adj")).text
        text = _template(rng, "not_adj").format(a=p.text, b=other)
    elif p.form == "verb":
        verb = possess(rng, p.text, possessive)
        text = _template(rng, "not_verb").format(v=verb, g=inflect(verb, "ing"))
    elif p.form == "noun":
        text = _template(rng, "not_noun", 12).format(n=p.text).replace("a " + p.text, add_article(p.text))
    else:
        text = pick(rng, grammar("not_state")).format(s=p.text)
    draw = rng.random()
    if draw < 0.45:
        text = f"{subject} {text}"
    elif draw < 0.6:
        text = f"{subject} is {text}".replace("is is", "is").replace("is isn't", "isn't")
    elif draw < 0.65:
        text = f"{draw_portrait(rng)} {subject}, {text}"
    elif draw < 0.7:
        text = f"{subject}, {text}"
    return text


def _denied(rng: np.random.Generator, expression: str) -> str:
    while True:
        p = _phrase(rng, expression, short=0.5)
        if p.form == "adj":
            return p.text
        if p.form == "verb":
            return inflect(p.text, "ing")
        if p.form == "noun" and rng.random() < 0.4:
            return p.text


def _corrected(rng: np.random.Generator, expression: str) -> Caption:
    """A sentence that denies one expression and asks for another: "not sad but smiling"."""
    other = pick(rng, [e for e in EXPRESSION_CLASSES if e != expression])
    third = pick(rng, [e for e in EXPRESSION_CLASSES if e != expression])
    wanted, _, strength = _fragment(rng, expression)
    text = pick(rng, grammar("corrected")).format(d=_denied(rng, other), d2=_denied(rng, third), w=wanted)
    if rng.random() < 0.4:
        text = f"{draw_subject(rng)} {pick(rng, ('is', ''))} {text}".replace("  ", " ").replace("is isn't", "isn't")
    return Caption(text, ((expression, round(strength, 3)),))


def unrelated(rng: np.random.Generator) -> str:
    """A sentence that asks for no facial motion: things, looks of a person, other requests."""
    data = read_list("unrelated")
    noun, noun_b = pick(rng, data["nouns"]), pick(rng, data["nouns"])
    adjective, attribute = pick(rng, data["adjectives"]), pick(rng, data["attributes"])
    subject = pick(rng, (*data["people"], *(s for s, _ in grammar("subjects"))))
    makers: list[str] = [
        noun, f"{adjective} {noun}", f"a {adjective} {noun}", f"the {noun} and the {noun_b}", f"{noun} with {noun_b}",
        f"a {noun} in the {noun_b}", f"how to repair a {noun}", f"{subject} with a {noun}",
        f"the {noun} is {adjective}",
        f"buy a {adjective} {noun}", f"make a {noun}", f"{subject} and a {noun}", f"where is the {noun}?",
        f"show the {noun}",
        f"{subject} looks at a {noun}", f"{subject} has a {adjective} {noun}", f"a photo of a {adjective} {noun}",
        attribute, f"{subject} with {attribute}", f"{subject} has {attribute}", f"give her {attribute}",
        f"with {attribute}",
        f"{draw_portrait(rng)} {subject} with {attribute}", subject, f"{draw_portrait(rng)} {subject}",
    ]  # fmt: skip
    draw = rng.random()
    if draw < 0.45:
        return pick(rng, data["sentences"])
    return pick(rng, makers)


def sample_caption(rng: np.random.Generator, expression: str | None = None) -> Caption:
    """Draw a sentence, of any meaning or for one expression.

    With an expression, it is among the targets, mostly alone; with "neutral" there are no targets. The same state of
    the generator gives the same caption. No caption equals a wording kept for tests or tuning.
    Raises: KeyError for an unknown expression.
    """
    if expression is not None and expression != NEUTRAL and expression not in EXPRESSION_CLASSES:
        raise KeyError(expression)
    while True:
        caption = _draw(rng, expression)
        if normalise(caption.text) not in reserved_phrases():
            return Caption(roughen(rng, caption.text), caption.targets)


def _draw(rng: np.random.Generator, expression: str | None) -> Caption:
    wanted = expression
    if wanted is None:
        # A wink has two names, and words for both sides are half as many.
        wanted = NEUTRAL if rng.random() < 0.3 else pick(rng, EXPRESSION_CLASSES)
    draw = rng.random()
    if wanted == NEUTRAL:
        if draw < 0.2:
            return _single(rng, NEUTRAL)
        if draw < 0.66:
            return Caption(negate(rng, pick(rng, EXPRESSION_CLASSES)), ())
        return Caption(unrelated(rng), ())
    if draw < 0.13:
        return _compound(rng, wanted)
    if draw < 0.21:
        return _corrected(rng, wanted)
    if draw < 0.24 and (affirmed := _affirmed(rng, wanted)) is not None:
        return Caption(affirmed[0], ((wanted, affirmed[1]),))
    return _single(rng, wanted)


def iterate_captions(rng: np.random.Generator, count: int) -> Iterator[Caption]:
    """Draw captions of any meaning."""
    for _ in range(count):
        yield sample_caption(rng)
