"""CLIP's byte-level BPE in plain Python, reading a Hugging Face ``tokenizer.json``.

Bundles that were trained with CLIP bring its tokenizer. A test compares ids with the ``tokenizers`` wheel, which
serving does without. One difference is wanted: a prompt in which somebody writes ``<|endoftext|>`` is plain text.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from model.errors import BundleError

FIRST, LAST = "<|startoftext|>", "<|endoftext|>"
_ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


class ClipTokenizer:
    """Turns a sentence into token ids, ``<|startoftext|>`` first and ``<|endoftext|>`` last."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        """Read a parsed ``tokenizer.json``.

        Raises:
            BundleError: bundle-invalid where it is another kind of tokenizer.
        """
        model = definition.get("model")
        if not isinstance(model, Mapping) or not isinstance(model.get("vocab"), Mapping):
            raise _unfit("its model has no vocabulary")
        if model.get("end_of_word_suffix") != "</w>" or model.get("continuing_subword_prefix"):
            raise _unfit("it is a BPE of another kind than CLIP's")
        self.vocab: dict[str, int] = dict(model["vocab"])
        for token in (FIRST, LAST):
            if token not in self.vocab:
                raise _unfit(f"its vocabulary has no {token}")
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges", ()))
        self._ranks = {(str(a), str(b)): rank for rank, (a, b) in enumerate(pairs)}
        self._letters = _byte_letters()
        self._merge_cached = lru_cache(maxsize=4096)(self._merge)

    def encode(self, text: str, max_tokens: int) -> list[int]:
        """Return at most ``max_tokens`` ids, both ends included; what is longer is cut at the end."""
        ids: list[int] = []
        spaced = " ".join(unicodedata.normalize("NFC", text).split())
        # letter by letter: str.lower() would look at a sigma's neighbours
        for word in split_words("".join(letter.lower() for letter in spaced)):
            if len(ids) >= max_tokens - 2:
                break
            ids += self._merge_cached(word)
        return [self.vocab[FIRST], *ids[: max_tokens - 2], self.vocab[LAST]]

    def _merge(self, word: str) -> tuple[int, ...]:
        """Join a word's letters pair by pair, the earliest learnt pair first."""
        parts = [self._letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            pairs = enumerate(itertools.pairwise(parts))
            ranked = [(self._ranks[pair], i) for i, pair in pairs if pair in self._ranks]
            if not ranked:
                break
            first, second = (parts[min(ranked)[1] + i] for i in (0, 1))
            joined, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == (first, second):
                    joined.append(first + second)
                    i += 2
                else:
                    joined.append(parts[i])
                    i += 1
            parts = joined
        # a letter that the vocabulary lacks counts as the end of the text, as CLIP has it
        return tuple(self.vocab.get(part, self.vocab[LAST]) for part in parts)


def split_words(text: str) -> Iterator[str]:
    """Split as CLIP does: English endings, runs of letters, single digits, runs of everything else but white space."""
    start = 0
    while start < len(text):
        ending = next((end for end in _ENDINGS if text.startswith(end, start)), None)
        kind = _kind(text[start])
        stop = start + 1
        if ending is not None:
            stop = start + len(ending)
        elif kind in "LO":
            while stop < len(text) and _kind(text[stop]) == kind:
                stop += 1
        if ending is not None or kind != " ":
            yield text[start:stop]
        start = stop


def _kind(character: str) -> str:
    if character.isspace():
        return " "
    first = unicodedata.category(character)[0]
    return first if first in "LN" else "O"


def _byte_letters() -> list[str]:
    """Give every byte its visible letter, as GPT-2 numbered them."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(hidden)) for byte in range(256)]


def _unfit(reason: str) -> BundleError:
    return BundleError(
        "bundle-invalid",
        f"The bundle's tokenizer can't be used: {reason}.",
        "Export the bundle again with the tokenizer.json of its text tower.",
    )
