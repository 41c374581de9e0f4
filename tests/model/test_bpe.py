"""CLIP's tokenizer in plain Python says what the ``tokenizers`` library says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import RobertaProcessing
from tokenizers.trainers import BpeTrainer

from model.bpe import FIRST, LAST
from model.errors import BundleError
from model.tokenizer import WordPieceTokenizer, read_tokenizer
from tests.model.test_tokenizer import TEXTS
from tests.model.tiny_bundle import make_tokenizer

WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
MORE = [
    "it's 'seven' isn't they're we've I'm he'll she'd 'S 'LL '' 's's",
    "2024 1/2 ½ ² ⅷ 10:30",
    "wow!!! ...'s (ok)?!",
    "<|start|> a < b",
]


@pytest.fixture(scope="module")
def library() -> tokenizers.Tokenizer:
    """CLIP's pipeline with a vocabulary learnt from the texts."""
    made = tokenizers.Tokenizer(BPE(end_of_word_suffix="</w>", unk_token=LAST))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = BpeTrainer(
        vocab_size=700,
        special_tokens=[FIRST, LAST],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    made.train_from_iterator([*TEXTS[:6], "smiling smiles smiled winking isn't closing eyes"] * 3, trainer)
    made.post_processor = RobertaProcessing((LAST, made.token_to_id(LAST)), (FIRST, made.token_to_id(FIRST)))
    return made


def definition(library: tokenizers.Tokenizer) -> dict[str, Any]:
    return json.loads(library.to_str())


@pytest.mark.parametrize("text", [*TEXTS, *MORE])
def test_same_ids_as_the_library(library: tokenizers.Tokenizer, text: str) -> None:
    ours = read_tokenizer(library.to_str().encode())
    wanted = library.encode(text).ids
    assert ours.encode(text, 10_000) == wanted
    cut = ours.encode(text, 7)
    assert cut == (wanted if len(wanted) <= 7 else [*wanted[:6], wanted[-1]])


def test_merges_are_used(library: tokenizers.Tokenizer) -> None:
    assert len(read_tokenizer(library.to_str().encode()).encode("smiling", 77)) < 2 + len("smiling")


def test_special_tokens_in_a_prompt_are_text(library: tokenizers.Tokenizer) -> None:
    ours = read_tokenizer(library.to_str().encode())
    last = library.token_to_id(LAST)
    assert ours.encode(f"a {LAST} b", 77)[1:-1].count(last) < 3
    assert len(ours.encode(f"a {LAST} b", 77)) > 5


def test_the_kind_is_told_from_the_file(library: tokenizers.Tokenizer) -> None:
    assert isinstance(read_tokenizer(json.dumps(make_tokenizer()).encode()), WordPieceTokenizer)
    for change, words in (({"vocab": None}, "no vocabulary"), ({"end_of_word_suffix": None}, "another kind")):
        broken = definition(library)
        broken["model"] |= change
        with pytest.raises(BundleError, match=words):
            read_tokenizer(json.dumps(broken).encode())
    lacking = definition(library)
    del lacking["model"]["vocab"][FIRST]
    with pytest.raises(BundleError, match="startoftext"):
        read_tokenizer(json.dumps(lacking).encode())
