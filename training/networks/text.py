"""The small text tower: a table of word pieces and a shallow transformer, sentence → unit-norm embedding τ.

The table is made for int8 with one scale a row, so that the export is small. Plain PyTorch; no files, no stages.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_TOKENS = 64
INT8_STEPS = 127.0
RECALL_SHARPNESS = 80.0
RECALL_SHARE = 0.5
"""Chosen on the development list. All of τ from memory moves single expressions a little further still, but two asked
for at once, which the memory holds few of, get lost."""


def quantise_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """Round a table to int8 with one scale a row.

    Shapes: [V, D] → int8 [V, D], float32 [V, 1] with table ≈ int8 × scale.
    """
    scale = table.abs().amax(1, keepdim=True).clamp_min(1e-8) / INT8_STEPS
    return torch.round(table / scale).clamp(-INT8_STEPS, INT8_STEPS).to(torch.int8), scale


class TextLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(
        self,
        width: int,  # [N, L, width] in and out
        heads: int,
        inner: int,  # hidden width of the feed-forward part
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm_in, self.norm_mid = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Shapes: x [N, L, width], bias [N, 1, 1, L] added to the attention logits (-1e4 on padding)."""
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm_in(x)).reshape(n, length, 3, self.heads, width // self.heads).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        # Written out: the exported graph is a handful of plain operators that every runtime has.
        weights = torch.softmax(q @ k.transpose(2, 3) * (width // self.heads) ** -0.5 + bias, dim=-1)
        x = x + self.dropout(self.out((weights @ v).transpose(1, 2).reshape(n, length, width)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm_mid(x)), approximate="tanh")))


def recall(embed: Tensor, memory: Tensor) -> Tensor:
    """Draw τ towards what is remembered near it: a mean of taught sentences' τ, weighted by likeness.

    A sentence that was never taught lies beside the ones that were, where the motion network answers weakly; what is
    recalled for it lies where it was taught.

    Shapes: embed [N, E], memory [M, E], all of unit norm → [N, E], unit norm.
    """
    near = F.normalize(torch.softmax(RECALL_SHARPNESS * embed @ memory.t(), dim=1) @ memory, dim=-1)
    return F.normalize(torch.lerp(embed, near, RECALL_SHARE), dim=-1)


class TextTower(nn.Module):
    """Word pieces → τ [N, embed_dim], unit norm."""

    memory: Tensor

    def __init__(
        self,
        vocabulary_size: int,  # rows of the table
        table_dim: int = 128,
        width: int = 192,  # of the transformer
        layers: int = 2,
        heads: int = 4,
        inner: int = 384,
        embed_dim: int = 128,
        dropout: float = 0.1,
        memory_rows: int = 0,  # taught sentences whose τ are kept; 0: τ is given as it is computed
    ) -> None:
        super().__init__()
        self.dims = {
            "vocabulary_size": vocabulary_size, "table_dim": table_dim, "width": width, "layers": layers,
            "heads": heads, "inner": inner, "embed_dim": embed_dim, "memory_rows": memory_rows,
        }  # fmt: skip
        if memory_rows:
            self.register_buffer("memory", torch.zeros(memory_rows, embed_dim, dtype=torch.float16))
        self.table = nn.Embedding(vocabulary_size, table_dim)
        self.lift = nn.Linear(table_dim, width)
        self.positions = nn.Parameter(0.02 * torch.randn(MAX_TOKENS, width))
        self.layers = nn.ModuleList(TextLayer(width, heads, inner, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)  # attention pooling: negations and content words weigh more than fillers
        self.head = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, embed_dim)
        )

    def look_up(self, input_ids: Tensor) -> Tensor:
        """Rows of the table: int64 [N, L] → [N, L, table_dim]."""
        return cast(Tensor, self.table(input_ids))

    def encode_words(self, words: Tensor, attention_mask: Tensor) -> Tensor:
        """Contextual sentence features of looked-up words.

        Shapes: words [N, L, table_dim], attention_mask int64 [N, L] → [N, 2·width].
        """
        mask = attention_mask.to(words.dtype)
        bias = (mask - 1)[:, None, None, :] * 1e4
        x = self.lift(words) + self.positions[: words.shape[1]]
        for layer in self.layers:
            x = layer(x, bias)
        x = self.norm(x)
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        weights = torch.softmax(self.pool(x) + (mask - 1)[..., None] * 1e4, dim=1)
        return torch.cat([mean, (x * weights).sum(1)], dim=1)

    def embed_features(self, features: Tensor) -> Tensor:
        """Sentence features [N, 2·width] → τ [N, embed_dim], unit norm."""
        embed = F.normalize(self.head(features), dim=-1)
        return recall(embed, self.memory.to(embed.dtype)) if self.dims["memory_rows"] else embed

    def remember(self, embeds: Tensor) -> "TextTower":
        """Give a copy that recalls these sentences' τ [M, embed_dim], which were computed without a memory."""
        tower = TextTower(**{**self.dims, "memory_rows": len(embeds)}, dropout=0.0)
        state = {name: value for name, value in self.state_dict().items() if name != "memory"}
        tower.load_state_dict(state | {"memory": embeds.to(torch.float16)})
        return tower.train(self.training)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Shapes: input_ids, attention_mask int64 [N, L], L ≤ 64 → text_embed [N, embed_dim], unit norm."""
        return self.embed_features(self.encode_words(self.look_up(input_ids), attention_mask))

    def snap_table(self) -> None:
        """Round the table to what int8 can hold, so that the tower computes exactly what its export computes."""
        with torch.no_grad():
            quantised, scale = quantise_rows(self.table.weight)
            self.table.weight.copy_(quantised.float() * scale)
