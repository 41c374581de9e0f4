"""A run folder made again from a shipped bundle, so that single stages can be trained on: `animato-train restore`.

Every stage's checkpoint holds the bundle's weights (large ones as float16 kept them) and counts as finished; to train
one anew, remove its folder; to train one on, give its recipe more steps: its optimisers begin anew.
Must not import: services, worker, cli.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.bundle.reader import read_bundle
from training import language
from training.checkpoints import shipped
from training.encoder import Inversion, build_factor_head, build_trunk, build_wplus_encoder
from training.errors import DataError
from training.faces.domains import find_domain
from training.generator import build_generator, to_pictures
from training.loop import CHECKPOINT, write_atomically
from training.motion import build_motion_network
from training.networks.encoder import ImageTower, spread_norms
from training.recipes import Recipe
from training.renders import draw_pair
from training.stages import TEXT_MARK, Run

PAIRS = 48
"""So many rendered people, two expressions of each, say how widely the encoder's maps are spread."""
MEASURED = ("generator", "encoder", "embedding", "inversion", "motion")


def restore_run(run: Run, bundle: Path) -> None:
    """Write every trained stage's checkpoint and figures from a bundle of the same recipe.

    Raises: DataError where the folder holds a run already, or the bundle is of another domain; BundleError;
        CheckpointMismatchError where it is of another size.
    """
    recipe, manifest = run.recipe, read_bundle(bundle).manifest
    if manifest.domain != recipe.domain:
        raise DataError(f"{bundle} is of the domain {manifest.domain}, {recipe.name} is of {recipe.domain}")
    taken = [name for name in (*MEASURED, "text") if (run.folder / name).exists()]
    if taken:
        raise DataError(f"{run.folder} holds a run already ({taken[0]}): restore into another folder")
    generator = build_generator(recipe.generator)
    shipped.load_generator(bundle, generator)
    trunk, head = build_trunk(recipe.encoder), build_factor_head(recipe.encoder)
    shipped.load_reader(bundle, trunk, head)
    spread_norms(trunk, _render_people(recipe))
    tower = ImageTower(trunk, recipe.embed_dim)
    shipped.load_tower(bundle, tower)
    motion = build_motion_network(recipe.motion, generator.mapping, recipe.embed_dim, generator.synthesis.num_ws)
    shipped.load_motion(bundle, motion)
    # before the inversion: it shares trunk and head with the reader, but trains the head further
    parts: dict[str, nn.Module] = {
        "generator": nn.ModuleDict({"generator": generator}),
        "encoder": nn.ModuleDict({"trunk": trunk, "head": head}),
        "embedding": nn.ModuleDict({"hidden": tower.hidden, "out": tower.out}),
        "motion": nn.ModuleDict({"motion": motion}),
    }
    steps = manifest.made_by.get("steps", {})
    for name, modules in parts.items():
        _save(run.folder / name, modules, int(steps.get(name, 0)))
    encoder = build_wplus_encoder(Inversion(trunk, build_factor_head(recipe.encoder), generator))
    shipped.load_inversion(bundle, encoder)
    _save(run.folder / "inversion", nn.ModuleDict({"encoder": encoder}), int(steps.get("inversion", 0)))
    language.save_text_tower(*shipped.load_text(bundle), run.folder / "text")
    (run.folder / "motion" / TEXT_MARK).write_text(run.hash_text())
    _write_figures(run.folder, manifest.made_by.get("measured", {}), steps)
    run.report(f"restored: {run.folder} from {bundle}")


def _render_people(recipe: Recipe) -> Tensor:
    """Render some people as the encoder looks at them: [N,3,S,S] in [-1,1]."""
    render = find_domain(recipe.domain).render
    pairs = (draw_pair(recipe.renders.seed, index) for index in range(PAIRS))
    return to_pictures(np.stack([render(params, recipe.encoder_resolution) for pair in pairs for params in pair]))


def _save(folder: Path, modules: nn.Module, step: int) -> None:
    folder.mkdir(parents=True)
    weights = modules.state_dict()
    state = {"step": step, "modules": weights, "ema": weights, "optimizers": [], "torch_rng": torch.get_rng_state()}
    state["restored"] = True
    write_atomically(folder / CHECKPOINT, lambda target: torch.save(state, target))


def _write_figures(folder: Path, measured: dict[str, float], steps: dict[str, int]) -> None:
    """Keep what the bundle says was measured, where the stages log it: a new export says it again."""
    for stage in MEASURED:
        figures = {key.split(".", 1)[1]: value for key, value in measured.items() if key.startswith(f"{stage}.")}
        record = {"step": int(steps.get(stage, 0)), **{f"held_{name}": value for name, value in figures.items()}}
        (folder / stage / "stats.jsonl").write_text(json.dumps(record) + "\n")
