"""A small picture set in folders named by expression, a text tower, and one run of the whole chain on them."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from training.cli import app
from training.faces.domains import find_domain
from training.faces.expressions import EXPRESSIONS
from training.language import save_text_tower
from training.networks.text import TextTower
from training.renders import draw_expressed_pair
from training.vocabulary import build_tokenizer, collect_tokens, count_rows, select_tokens

FOLDERS = {"smiling": "smile", "closing eyes": "close_eyes", "angry": "angry", "surprised": "surprised"}
SIZE_PX = 32


def draw_faces(folder: Path, count: int = 64, size_px: int = SIZE_PX) -> Path:
    """Draw faces into folders named by their expression."""
    render, names = find_domain("human").render, list(EXPRESSIONS)
    for i in range(count):
        label = list(FOLDERS)[i % len(FOLDERS)]
        _, params = draw_expressed_pair(5, names.index(FOLDERS[label]) + len(names) * i)
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(params, size_px)).save(folder / label / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    return draw_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    return save_small_text(tmp_path_factory.mktemp("text"))


def save_small_text(folder: Path) -> Path:
    """Save a text tower as the language stage does, with random weights: what it means does not matter here."""
    torch.manual_seed(3)
    tokens = select_tokens(collect_tokens(["The person is smiling and smiling.", "closing eyes angry surprised"] * 2))
    tokenizer = build_tokenizer(tokens)
    tower = TextTower(count_rows(tokenizer), table_dim=16, width=24, layers=1, inner=24, embed_dim=16).eval()
    tower.snap_table()
    save_text_tower(tower, tokenizer, folder)
    return folder


def run_command(*words: object):
    """Run the command line in this process."""
    return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)


def animato_train(*words: object):
    """Run a stage on the CPU."""
    return run_command(*words, "--device", "cpu")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, faces, text):
    """The run folder of the whole chain, and what the command said."""
    folder = tmp_path_factory.mktemp("run")
    result = animato_train("all", "--recipe", "own-faces-smoke", "--data", faces, "--text", text, "--out", folder)
    assert result.exit_code == 0, result.output
    return folder, result.output
