"""Leaves out of a sentence what it denies, where it asks for something too. Words alone: no text tower, no runtime.

Embeddings of sentences, CLIP's as well as those of the towers that ship, lie near what is named and hardly see that it
is denied: "not sad but smiling" is read as sad. What is only denied ("not smiling") is left to the tower.
"""

from __future__ import annotations

import re

_FLAGS = re.VERBOSE | re.IGNORECASE

# All of these are linear in the sentence's length: white space comes as single characters, and runs are possessive.
_BREAKS = re.compile(
    r"""
      (?<![,.!?:])[,.!?:]++(?:\s|$)(?:(?:but|yet|and)\s)?
    | \s(?:but|yet)\s
    | (?<!\bnot)(?<!never)\s(?=(?:without|with\sno|instead\sof|rather\sthan)\s
        (?!(?:any\s)?(?:emotion|expression|feeling)))
    | \sand\s(?=(?:not|never|(?:do|does|is|are)(?:n['’]t|\snot))\s)
    """,
    _FLAGS,
)
_STOP = r"(?:stop(?:s|ped|ping)?|quits?)"
# "stops smiling and gets furious": what comes after "and" is asked for, unless it is stopped as well.
_STOPPED = re.compile(rf"^(?:\S+\s){{0,3}}?{_STOP}\s\w+ing(?:\s\w+){{0,3}}?\sand\s(?!\w+ing\b)", re.IGNORECASE)
_DENIAL = re.compile(
    rf"""
    ^(?:(?:please|so|now|then|just|the|this|that|a|her|his|their|he|she|it|they|you|face|eyes|mouth
        |man|woman|person|girl|boy|lady|guy|dog
        |is|are|am|be|was|were|do|does|did|should|shall|must|will|would|to|looks?|seems?)\s)*+
     (?:(?:he|she|it)['’]s\s|they['’]re\s)?+
     (?:not|never|nothing|no|no\slonger|without|with\sno|instead\sof|rather\sthan|{_STOP}(?=\s\w+ing\b)
       |(?:do|does|did|is|are|was|were|wo|would|should|must)n['’]?t)
     \s(?!(?:just|only|merely|simply|even                                   # more than that is asked for
           |too|so|very|quite|that                                          # how much, not whether
           |now|any\s?(?:more|longer)                                       # denies what stands before
           |stop|stops|stopping|quit|help|hesitate|forget|wonder|without    # denied twice
           |you|again|bad|fair|way|kidding|doubt|idea                       # idioms: "won't you smile", "no way"
           |emotion|expression|feeling)\b)                                  # asks for a still face
    """,
    _FLAGS,
)
# "don't keep the mouth closed, open it": what is asked for can't be read without what is denied.
_POINTS_BACK = re.compile(r"\b(?:it|them|ones?)$", re.IGNORECASE)
_COURTESY = re.compile(r"^(?:please|thanks|thank\syou|ok|okay)$", re.IGNORECASE)


def leave_out_denied(sentence: str) -> str:
    """Return what a sentence asks for: "not sad but smiling" → "smiling", "smile, don't laugh" → "smile".

    A sentence that denies nothing comes back as it is; of one that does nothing else, its first clause
    ("not happy, not sad" → "not happy"). What seems a denial and is none stays: "can't stop laughing", "not only".
    """
    going_on = _STOPPED.sub("", sentence)
    clauses = [clause for piece in _BREAKS.split(going_on) if (clause := piece.strip())]
    clauses = [clause for clause in clauses if not _COURTESY.match(clause)]
    asked = [clause for clause in clauses if not _DENIAL.match(clause)]
    if len(asked) == len(clauses) or any(map(_POINTS_BACK.search, asked)):
        return going_on
    return ", ".join(asked or clauses[:1])
