"""From a sentence to its embedding; and from "winks, then laughs" to its parts. No onnxruntime, no torch."""

from __future__ import annotations

import re
import unicodedata
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from model.denials import leave_out_denied
from model.errors import ModelError
from model.sessions import Session, as_float32
from model.tokenizer import Tokenizer

MAX_SEGMENTS = 12

_WHITE_SPACE = re.compile(r"\s+")
# Linear in the prompt's length: runs of white space are one character by now, and an arrow is tried where its shaft
# begins, once.
_JOINTS = re.compile(
    r"""
      \s?(?:[;\n→⇒➜➡]|(?<![-=])[-=]++>)\s?                                  # smile; wink · angry → sad · angry -> sad
    | (?<!now\sand)\s?(?:[,.]\s?|\s)(?:(?<!now\s)and\s|but\s)?
      (?:then|afterwards?|after\s(?:that|which)|followed\sby|finally)\b(?!\sand\sagain)\s?[,:]?\s?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_OPENERS = re.compile(r"^(?:(?:(?:at\s)?first(?:ly)?|then|finally|afterwards?|after\sthat)\b\s?,?\s?)++", re.IGNORECASE)
_EDGES = " \t,.;:-–—"


def split_prompt(prompt: str) -> list[str]:
    """Return the parts of a sentence that shall happen one after another, one for a plain sentence.

    "winks, then laughs" · "smile and then close eyes" · "angry → sad" · "first smile; finally pout" have two parts;
    "smiles and winks" is one, both at once. Of each part what it denies is left out, where it asks for something too.

    Raises:
        ModelError: prompt-empty, prompt-too-long (more than MAX_SEGMENTS parts).
    """
    spaced = _WHITE_SPACE.sub(lambda run: "\n" if "\n" in run[0] else " ", prompt)  # a new line parts, a space doesn't
    parts = [_OPENERS.sub("", part.strip(_EDGES)).strip(_EDGES) for part in _JOINTS.split(spaced)]
    parts = [part for part in parts if any(map(_means_something, part))] or ([prompt.strip()] if prompt.strip() else [])
    if not parts:
        raise ModelError("prompt-empty", "The prompt is empty.", 'Say what the face shall do, for example "smiling".')
    if len(parts) > MAX_SEGMENTS:
        raise ModelError(
            "prompt-too-long",
            f"The prompt asks for {len(parts)} motions one after another; {MAX_SEGMENTS} is the most.",
            "Shorten the sequence, or make several videos.",
        )
    return [leave_out_denied(part) for part in parts]


def _means_something(character: str) -> bool:
    """Whether a part may consist of it alone: of a face, as well as of words."""
    return character.isalnum() or unicodedata.category(character) == "So"


class TextEncoder:
    """Embeds sentences with the bundle's text tower; remembers the last ones, as presets come again and again."""

    def __init__(self, session: Session, tokenizer: Tokenizer, max_tokens: int, cache_size: int = 256) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._cache_size = cache_size
        self._cache: OrderedDict[tuple[int, ...], NDArray[np.float32]] = OrderedDict()

    def embed(self, sentence: str) -> NDArray[np.float32]:
        """Return the unit-norm embedding of one sentence.

        Shapes: [embed_dim], read-only.
        """
        ids = tuple(self._tokenizer.encode(sentence, self._max_tokens))
        known = self._cache.pop(ids, None)
        embed = self._run(ids) if known is None else known
        self._cache[ids] = embed
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return embed

    def _run(self, ids: tuple[int, ...]) -> NDArray[np.float32]:
        input_ids = np.asarray([ids], dtype=np.int64)
        outputs = self._session.run(input_ids=input_ids, attention_mask=np.ones_like(input_ids))
        embed = as_float32(outputs["text_embed"][0])
        embed.setflags(write=False)
        return embed
