"""BERT's WordPiece in plain Python, reading a Hugging Face ``tokenizer.json``.

Our own bundles need this one kind of tokenizer (``model.bpe`` has CLIP's) for sentences of at most 300 characters; the
``tokenizers`` wheel would be a native dependency for that alone. A test compares the two. Two differences are wanted: a
prompt in which somebody writes ``[CLS]`` is text like any other here, never a special token; and an emoji that the
vocabulary lacks does not take the word along that it clings to ("laugh✨" is the word and an unknown sign).
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from model.bpe import ClipTokenizer
from model.errors import BundleError

_CJK_RANGES = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
_REMOVED_CATEGORIES = frozenset({"Cc", "Cf", "Co"})
_FIRST_SIGN = "\u2190"  # arrows; below are letters' companions such as ° and ´
_SIGN_CATEGORIES = frozenset({"So", "Sk"})  # emoji, and the tones of skin behind them


class Tokenizer(Protocol):
    """What the text encoder needs of a tokenizer."""

    def encode(self, text: str, max_tokens: int) -> list[int]:
        """Return at most ``max_tokens`` ids, both end tokens included."""


def read_tokenizer(data: bytes) -> Tokenizer:
    """Read the bytes of a ``tokenizer.json``: WordPiece as our own text towers have it, or CLIP's byte-level BPE.

    Raises:
        BundleError: bundle-invalid.
    """
    definition = _parse(data)
    model = definition.get("model")
    if isinstance(model, Mapping) and model.get("type") == "BPE":
        return ClipTokenizer(definition)
    return WordPieceTokenizer(definition)


class WordPieceTokenizer:
    """Turns a sentence into token ids, ``[CLS]`` first and ``[SEP]`` last."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        """Read a parsed ``tokenizer.json``.

        Raises:
            BundleError: bundle-invalid where it is another kind of tokenizer.
        """
        model, normalizer = _section(definition, "model"), _section(definition, "normalizer")
        pre_tokenizer = _section(definition, "pre_tokenizer")
        if model.get("type", "WordPiece") != "WordPiece" or not isinstance(model.get("vocab"), Mapping):
            raise _unfit("its model is not WordPiece with a vocabulary")
        if normalizer.get("type") != "BertNormalizer" or pre_tokenizer.get("type") != "BertPreTokenizer":
            raise _unfit("it does not use BertNormalizer and BertPreTokenizer")
        self.vocab: dict[str, int] = dict(model["vocab"])
        self._prefix = str(model.get("continuing_subword_prefix", "##"))
        self._longest_word = int(model.get("max_input_chars_per_word", 100))
        self._unknown_id = self._id_of(str(model.get("unk_token", "[UNK]")))
        self._first_id, self._last_id = self._id_of("[CLS]"), self._id_of("[SEP]")
        self._clean = bool(normalizer.get("clean_text", True))
        self._space_cjk = bool(normalizer.get("handle_chinese_chars", True))
        self._lowercase = bool(normalizer.get("lowercase", True))
        strip = normalizer.get("strip_accents")
        self._strip_accents = self._lowercase if strip is None else bool(strip)

    @classmethod
    def from_bytes(cls, data: bytes) -> WordPieceTokenizer:
        """Read the bytes of a ``tokenizer.json``.

        Raises:
            BundleError: bundle-invalid.
        """
        return cls(_parse(data))

    def encode(self, text: str, max_tokens: int) -> list[int]:
        """Return at most ``max_tokens`` ids, ``[CLS]`` and ``[SEP]`` included; what is longer is cut at the end."""
        ids: list[int] = []
        for word in _split_words(self._normalize(text)):
            if len(ids) >= max_tokens - 2:
                break
            ids += self._split_pieces(word)
        return [self._first_id, *ids[: max_tokens - 2], self._last_id]

    def _id_of(self, token: str) -> int:
        if token not in self.vocab:
            raise _unfit(f"its vocabulary has no {token}")
        return self.vocab[token]

    def _normalize(self, text: str) -> str:
        if self._clean:
            text = "".join(_clean_characters(text))
        if self._space_cjk:
            text = "".join(f" {c} " if _is_cjk(c) else c for c in text)
        text = "".join(f" {c} " if self._is_unknown_sign(c) else c for c in text)
        if self._strip_accents:
            text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        if self._lowercase:
            text = "".join(c.lower() for c in text)  # one by one: str.lower() would look at a sigma's neighbours
        return text

    def _is_unknown_sign(self, c: str) -> bool:
        return c >= _FIRST_SIGN and unicodedata.category(c) in _SIGN_CATEGORIES and self._prefix + c not in self.vocab

    def _split_pieces(self, word: str) -> list[int]:
        """Return the ids of the longest known pieces from the left, or the unknown token for the whole word."""
        if len(word) > self._longest_word:
            return [self._unknown_id]
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = self._prefix if start else ""
            for end in range(len(word), start, -1):
                piece = self.vocab.get(prefix + word[start:end])
                if piece is not None:
                    ids.append(piece)
                    start = end
                    break
            else:
                return [self._unknown_id]
        return ids


def _parse(data: bytes) -> Mapping[str, Any]:
    try:
        definition = json.loads(data)
    except ValueError as error:
        raise _unfit("it is not JSON") from error
    if not isinstance(definition, Mapping):
        raise _unfit("it is not a JSON object")
    return definition


def _section(definition: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = definition.get(key)
    if not isinstance(value, Mapping):
        raise _unfit(f"it has no {key}")
    return value


def _unfit(reason: str) -> BundleError:
    return BundleError(
        "bundle-invalid",
        f"The bundle's tokenizer can't be used: {reason}.",
        "Export the bundle again with a BERT WordPiece tokenizer.json.",
    )


def _clean_characters(text: str) -> Iterator[str]:
    for c in text:
        if c in "\t\n\r":
            yield " "
        elif c == "\ufffd" or unicodedata.category(c) in _REMOVED_CATEGORIES:
            continue
        else:
            yield " " if c.isspace() else c


def _split_words(text: str) -> Iterator[str]:
    """Split on white space, and make every punctuation mark a word of its own."""
    word = ""
    for c in text:
        if c.isspace() or _is_punctuation(c):
            if word:
                yield word
            word = ""
            if not c.isspace():
                yield c
        else:
            word += c
    if word:
        yield word


def _is_punctuation(c: str) -> bool:
    if c.isascii():  # BERT takes $, +, <, = and their like for punctuation too
        return c.isprintable() and not c.isalnum() and c != " "
    return unicodedata.category(c).startswith("P")


def _is_cjk(c: str) -> bool:
    code = ord(c)
    return any(low <= code <= high for low, high in _CJK_RANGES)
