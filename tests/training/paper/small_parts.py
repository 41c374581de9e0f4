"""Untrained parts of the right kinds, small enough for seconds."""

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.export.graphs import MappingGraph
from training.faces.parameters import Z_DIM
from training.generator import build_generator
from training.networks.encoder import ImageTower, Trunk
from training.networks.text import TextTower
from training.paper.distance import trunk_distance
from training.paper.parts import FrozenParts, freeze
from training.paper.towers import RenderedTowers, resize
from training.recipes import GeneratorRecipe
from training.recipes.paper import PAPER_PROMPTS
from training.vocabulary import build_tokenizer, collect_tokens, count_rows, select_tokens


def small_tokenizer() -> Tokenizer:
    """Letters and the words of the paper's prompts."""
    return build_tokenizer(select_tokens(collect_tokens(2 * [f"The person is {prompt}." for prompt in PAPER_PROMPTS])))


def build_small_parts(embed_dim: int = 16) -> FrozenParts:
    torch.manual_seed(11)
    generator = build_generator(GeneratorRecipe(channels=(12, 12, 8, 6), w_dim=10, phases=()))  # 32 px
    tokenizer = small_tokenizer()
    trunk = Trunk((4, 6, 6, 6, 6), 12)
    text = TextTower(count_rows(tokenizer), 8, 16, 1, 2, 16, embed_dim, 0.0)
    towers = RenderedTowers(text, tokenizer, ImageTower(trunk, embed_dim))
    sampler, reader = MappingGraph(generator), torch.nn.Linear(12, 5)
    freeze(generator, towers, sampler, reader)

    def encode(pictures: Tensor) -> Tensor:
        colours = pictures.mean((2, 3)).repeat(1, 4)[:, :10]
        return generator.broadcast(colours)

    def identify(pictures: Tensor) -> Tensor:
        return torch.nn.functional.normalize(reader(trunk(resize(pictures, 128))), dim=1)

    def sample_ws(z: Tensor) -> Tensor:
        return sampler(z, torch.ones(1))

    return FrozenParts(
        generator, encode, towers, identify, trunk_distance(trunk), sample_ws, Z_DIM, torch.device("cpu")
    )


def draw_pictures(rng, count: int) -> Tensor:
    noise = torch.from_numpy(rng.uniform(-1, 1, (count, 3, 8, 8)).astype("float32"))
    return resize(noise, 32)
