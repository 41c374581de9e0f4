"""What the language stage learns from its teacher: general words, and sentence embeddings of MiniLM.

For: `training.language`. Embeddings are kept in the run folder, so that a second run costs nothing.
The word list comes from `pyspellchecker` (MIT), the sentiment words and emoji names from `vaderSentiment` (MIT); both
are training dependencies, and a missing one only makes the list of words shorter.
Must not import: services, worker, model.
"""

import gzip
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from training.checkpoints.minilm import MiniLM

log = logging.getLogger(__name__)

CHUNK = 4096


def _package_file(package: str, name: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / name
    return path if path.exists() else None


def frequent_words(count: int) -> list[str]:
    """The commonest English words, most frequent first; empty where `pyspellchecker` is missing."""
    path = _package_file("spellchecker", "resources/en.json.gz")
    if path is None:
        log.warning("pyspellchecker is not installed: no list of frequent words")
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        counts: dict[str, int] = json.load(file)
    return [w for w in sorted(counts, key=lambda w: -counts[w])[:count] if len(w) > 1]


def sentiment_words() -> list[str]:
    """Words that carry feelings, without any label; empty where `vaderSentiment` is missing."""
    path = _package_file("vaderSentiment", "vader_lexicon.txt")
    if path is None:
        log.warning("vaderSentiment is not installed: no list of words that carry feelings")
        return []
    words = (line.split("\t", 1)[0] for line in path.read_text(encoding="utf-8").splitlines())
    return sorted({w for w in words if w.replace(" ", "").replace("-", "").isalpha()})


def emoji_names() -> dict[str, str]:
    """Single-character emoji and what they are called; empty where `vaderSentiment` is missing."""
    path = _package_file("vaderSentiment", "emoji_utf8_lexicon.txt")
    if path is None:
        return {}
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2 and len(row[0]) == 1}


def pad_ids(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Stack token ids of unequal length: (input_ids, attention_mask), int64 [N, L], padded with id 0."""
    length = max(map(len, rows))
    input_ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    attention_mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return input_ids, attention_mask


def encode_ids(teacher: MiniLM, rows: Sequence[Sequence[int]], batch_size: int = 192) -> Tensor:
    """Teacher embeddings of token-id rows (with [CLS] and [SEP]), [N, 384]; rows of like length run together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: list[Tensor | None] = [None] * len(rows)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            for place, row in zip(places, teacher(*pad_ids([rows[i] for i in places])).float(), strict=True):
                found[place] = row
    return torch.stack([row for row in found if row is not None])


def encode_texts(teacher: MiniLM, tokenizer: Tokenizer, texts: Iterable[str], cache: Path) -> Tensor:
    """Teacher embeddings of sentences, [N, 384], computed once: each chunk of sentences is kept in `cache`."""
    listed = list(texts)
    cache.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(listed), CHUNK):
        chunk = listed[start : start + CHUNK]
        path = cache / f"{hashlib.sha256(chr(0).join(chunk).encode()).hexdigest()[:24]}.safetensors"
        if not path.exists():
            begun = time.perf_counter()
            rows = [encoding.ids[:64] for encoding in tokenizer.encode_batch(chunk)]
            part = path.with_suffix(".part")
            save_file({"embeddings": encode_ids(teacher, rows).to(torch.float16)}, str(part))
            part.rename(path)
            log.info(
                "teacher: %d of %d sentences, %.0f/s",
                start + len(chunk),
                len(listed),
                len(chunk) / (time.perf_counter() - begun),
            )
        parts.append(load_file(str(path))["embeddings"].float())
    return torch.cat(parts)
