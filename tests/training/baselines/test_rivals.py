"""From a run folder of untrained parts to trained rivals, and the one door to them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.paper.small_parts import small_tokenizer
from training.baselines.__main__ import main
from training.baselines.rivals import TITLES, open_rivals
from training.baselines.runs import RIVALS, Comparison, calm_faces, open_base
from training.encoder import Inversion, build_factor_head, build_trunk, build_wplus_encoder
from training.errors import CheckpointMismatchError, DataError
from training.generator import build_generator
from training.language import save_text_tower
from training.networks.encoder import ImageTower
from training.networks.text import TextTower
from training.paper.parts import load_rendered_parts
from training.recipes import SMOKE
from training.recipes.baselines import MAPPER_SMOKE, MOCOGAN_HD_SMOKE
from training.recipes.paper import PAPER_SMOKE
from training.renders import open_pool, render_pool
from training.stages import MissingStageError, Run
from training.vocabulary import count_rows

PICTURE = np.random.default_rng(1).integers(0, 255, (60, 60, 3), dtype=np.uint8)


def write_checkpoint(folder: Path, **parts: torch.nn.Module) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ema = torch.nn.ModuleDict(parts).state_dict()
    state = {"step": 1, "modules": ema, "ema": ema, "optimizers": [], "torch_rng": torch.get_rng_state()}
    torch.save(state, folder / "checkpoint.pt")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "smoke")


def write_base(folder: Path) -> Run:
    """Write the run folder of a recipe whose parts have learnt nothing."""
    torch.manual_seed(2)
    generator = build_generator(SMOKE.generator)
    trunk, head = build_trunk(SMOKE.encoder), build_factor_head(SMOKE.encoder)
    tower = ImageTower(trunk, SMOKE.embed_dim)
    write_checkpoint(folder / "generator", generator=generator)
    write_checkpoint(folder / "encoder", trunk=trunk, head=head)
    write_checkpoint(folder / "embedding", hidden=tower.hidden, out=tower.out)
    write_checkpoint(folder / "inversion", encoder=build_wplus_encoder(Inversion(trunk, head, generator)))
    tokenizer = small_tokenizer()
    text = TextTower(count_rows(tokenizer), 8, 16, 1, 4, 16, SMOKE.embed_dim, 0.0)
    save_text_tower(text, tokenizer, folder / "text")
    render_pool(folder / "renders-expressed", count=12, size_px=128, seed=3, kind="expressed")
    return Run(SMOKE, folder, lambda _: None)


@pytest.fixture(scope="module")
def comparison(base, tmp_path_factory):
    found = Comparison(base, tmp_path_factory.mktemp("compare"), report=lambda _: None, log_every=1)
    found.train("paper", dataclasses.replace(PAPER_SMOKE, steps=1, lr_towers=0.0))
    found.train("interpolation-mapper", dataclasses.replace(MAPPER_SMOKE, steps=1))
    found.train("mocogan-hd", dataclasses.replace(MOCOGAN_HD_SMOKE, steps=1, videos=2))
    return found


@pytest.mark.timeout(400)
def test_every_trained_rival_moves_a_face(comparison):
    rivals = {rival.name: rival for rival in open_rivals(comparison.folder)}
    assert list(rivals) == ["interpolation", "interpolation-mapper", "mocogan-hd", "paper"]
    for rival in rivals.values():
        moved = rival.move(PICTURE, "The person is smiling.", 3, 1)
        assert moved.shape == (3, 12, 16)
        assert moved.dtype == np.float32
        assert np.abs(moved[-1]).max() > 0
        assert (np.abs(moved[0]).max() == 0) == (rival.name != "paper"), rival.name
        assert rival.title == TITLES[rival.name]


def test_a_comparison_knows_where_its_parts_come_from(comparison, base):
    assert open_base(comparison.folder).folder.resolve() == base.folder.resolve()
    assert not Path(json.loads((comparison.folder / "base.json").read_text())["folder"]).is_absolute()
    with pytest.raises(DataError, match="is no folder of rivals"):
        open_rivals(comparison.folder / "paper")
    with pytest.raises(MissingStageError, match=r"holds no base\.json"):
        open_base(comparison.folder / "paper")


def test_a_finished_rival_is_left_alone(comparison):
    lines = []
    again = Comparison(comparison.base, comparison.folder, report=lines.append)
    again.train("paper", dataclasses.replace(PAPER_SMOKE, steps=1))
    assert lines == ["paper: finished before"]


def test_a_rival_of_other_parts_is_refused(comparison, tmp_path):
    for name in ("base.json", "paper/options.json", "paper/checkpoint.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((comparison.folder / name).read_bytes())
    where = json.loads((tmp_path / "base.json").read_text())
    where["folder"] = str(comparison.base.folder)
    (tmp_path / "base.json").write_text(json.dumps(where))
    options = json.loads((tmp_path / "paper" / "options.json").read_text())
    (tmp_path / "paper" / "options.json").write_text(json.dumps(options | {"hidden": 17}))
    with pytest.raises(CheckpointMismatchError, match="does not fit"):
        open_rivals(tmp_path)


def test_calm_faces_are_the_first_of_each_pair_and_none_is_held_out_and_trained_on(base):
    pool = open_pool(base.folder / "renders-expressed")
    pick, held = calm_faces(pool)
    calm = {pool.pictures[row].tobytes() for row in range(0, len(pool), 2)}
    as_bytes = lambda pictures: {  # noqa: E731
        ((p.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy().tobytes() for p in pictures
    }
    trained = as_bytes(pick(np.random.default_rng(0), 3))
    assert len(held) == 3
    assert as_bytes(held) | trained == calm
    assert not as_bytes(held) & trained


def test_parts_that_are_missing_are_named(tmp_path):
    with pytest.raises(MissingStageError, match="run the encoder stage first"):
        load_rendered_parts(Run(SMOKE, tmp_path))


def test_every_rival_has_a_recipe_and_a_title():
    assert set(RIVALS) == set(TITLES) - {"interpolation"}


def test_the_command_names_what_it_does_not_know(monkeypatch, capsys, tmp_path):
    ask = ["animato", "--base", str(tmp_path), "--recipe", "smoke", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*ask, "gan-9000"])
    with pytest.raises(SystemExit):
        main()
    assert "no rival gan-9000" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*ask, "paper"])
    assert main() == 1
    assert "run renders first" in capsys.readouterr().err
