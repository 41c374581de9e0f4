"""The plain-Python tokenizer says what the ``tokenizers`` library says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tokenizers

from model.errors import BundleError
from model.tokenizer import WordPieceTokenizer
from tests.model.tiny_bundle import make_tokenizer

TEXTS = [
    "smiling",
    "The person is smiling.",
    "  Winks,   then LAUGHS!! ",
    "don't-stop_me (now) [CLSX] {x} <y> $5 = 3+2 ~ ^ ` |",
    "café Éclair naïve Ångström ÇA VA İstanbul ǅungla ﬁancée",
    "Grüße straße ẞ ΣΑΣ ὈΔΥΣΣΕΎΣ",
    "улыбается и подмигивает",
    "笑う 微笑 한국어 ภาษาไทย हिन्दी مبتسم",
    "smile 😀 😃 wink 😉 ❤",
    "zero\u200bwidth\u200djoin\ufeff soft\u00adhyphen \u202eright\u202c",
    "tab\tnew\nline\rreturn\x00null\x07bell\x85next\u2028line\u00a0nbsp\u3000wide",
    "private \ue000 replacement \ufffd unassigned \u0378",
    "a" * 100,
    "a" * 101,
    "smil" * 40,
    "…—–‘’“”¿¡«»、。！？",
    "１２３ ½ ² ⅷ ㎏ ﷺ",
    "e\u0301 a\u0308\u0304 o\u0327",
    "",
    "   ",
    "smiling " * 200,
    "##ing ##s x##ing",
]


def reference(definition: dict[str, Any], max_tokens: int) -> Any:
    library = tokenizers.Tokenizer.from_str(json.dumps(definition))
    library.enable_truncation(max_tokens)
    return library


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("max_tokens", [3, 32, 512])
def test_same_ids_as_the_library(text: str, max_tokens: int) -> None:
    definition = make_tokenizer()
    ours = WordPieceTokenizer(definition).encode(text, max_tokens)
    assert ours == reference(definition, max_tokens).encode(text).ids
    assert len(ours) <= max_tokens


@pytest.mark.parametrize(
    "options",
    [
        {"lowercase": False},
        {"strip_accents": False},
        {"lowercase": False, "strip_accents": True},
        {"clean_text": False},
        {"handle_chinese_chars": False},
    ],
)
def test_same_ids_with_other_normalisers(options: dict[str, bool]) -> None:
    definition = make_tokenizer()
    definition["normalizer"] |= options
    ours, library = WordPieceTokenizer(definition), reference(definition, 64)
    for text in TEXTS:
        assert ours.encode(text, 64) == library.encode(text).ids, text


def test_same_ids_for_random_text() -> None:
    """Characters of Unicode 8, which the library's tables know; and not those whose category changed since."""
    definition = make_tokenizer()
    ours, library = WordPieceTokenizer(definition), reference(definition, 64)
    random = np.random.default_rng(7)
    blocks = [(0x20, 0x7F), (0x20, 0x7F), (0xA0, 0x500), (0x2000, 0x2070), (0x3041, 0x3097), (0x4E00, 0x4F00)]
    for _ in range(2000):
        low, high = blocks[random.integers(len(blocks))]
        characters = random.integers(low, high, random.integers(1, 40))
        text = "".join(chr(c) for c in characters if c not in {0x378, 0x379})
        assert ours.encode(text, 64) == library.encode(text).ids, ascii(text)


@pytest.mark.parametrize(
    "text", ["smiling✨", "✨smiling", "smiling👨‍👩‍👧‍👦", "smiling🧑🏽\u200d🚀", "smiling🇫🇷", "smiling❤️"]
)
def test_unknown_sign_leaves_its_word_alone(text: str) -> None:
    tokenizer = WordPieceTokenizer(make_tokenizer())
    assert tokenizer.vocab["smiling"] in tokenizer.encode(text, 64)


def test_known_sign_stays_with_its_word() -> None:
    definition = make_tokenizer()
    rows = definition["model"]["vocab"]
    rows["##✨"] = max(rows.values()) + 1
    ours = WordPieceTokenizer(definition).encode("smiling✨", 64)
    assert ours == reference(definition, 64).encode("smiling✨").ids
    assert rows["##✨"] in ours


def test_special_tokens_in_a_prompt_are_text() -> None:
    tokenizer = WordPieceTokenizer(make_tokenizer())
    first, last = tokenizer.vocab["[CLS]"], tokenizer.vocab["[SEP]"]
    ids = tokenizer.encode("[SEP] smiling [CLS]", 64)
    assert ids.count(first) == 1
    assert ids.count(last) == 1
    assert tokenizer.vocab["smiling"] in ids


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": {"type": "BPE", "vocab": {}}}, "WordPiece"),
        ({"normalizer": {"type": "NFC"}}, "BertNormalizer"),
        ({"pre_tokenizer": None}, "pre_tokenizer"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, r"\[UNK\]"),
    ],
)
def test_other_tokenizers_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(BundleError, match=word):
        WordPieceTokenizer(make_tokenizer() | change)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff"])
def test_tokenizer_that_is_no_json_object(data: bytes) -> None:
    with pytest.raises(BundleError, match="JSON"):
        WordPieceTokenizer.from_bytes(data)
