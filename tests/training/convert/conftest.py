"""Small checkpoints in foreign formats, and one bundle that the command makes of them."""

from pathlib import Path

import pytest

from tests.training.checkpoints.test_clip import _save as save_tiny_clip
from tests.training.convert.foreign import SMALL, write_encoder, write_generator, write_identity, write_motion
from tests.training.photos.conftest import run_command
from training.convert.sources import Sources


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Sources:
    """Each of the four parts in a file of its own."""
    folder = tmp_path_factory.mktemp("foreign")
    return Sources(
        write_generator(folder / "generator.pt", SMALL),
        write_encoder(folder / "e4e.pt", SMALL),
        save_tiny_clip(folder / "clip"),
        write_motion(folder / "motion.pt", SMALL),
    )


def name_options(sources: Sources) -> list[object]:
    """Give the sources as a command line does."""
    named = {"generator": sources.generator, "encoder": sources.encoder, "clip": sources.clip, "motion": sources.motion}
    return [word for name, path in named.items() if path is not None for word in (f"--{name}", path)]


@pytest.fixture(scope="session")
def bundle(files, tmp_path_factory) -> Path:
    """What the command makes of them."""
    note = tmp_path_factory.mktemp("note") / "note.txt"
    note.write_text("Nobody's face: random weights.")
    out = tmp_path_factory.mktemp("bundles") / "Small_faces"
    identity = ("--identity", write_identity(note.with_name("ir_se50.pth")))
    more = ("--license", "CC0-1.0", "--note", note)
    result = run_command("convert", *name_options(files), *identity, "--out", out, *more)
    assert result.exit_code == 0, result.output
    assert "bundle: " in result.output
    return out
