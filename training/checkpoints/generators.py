"""Reads a foreign StyleGAN2 generator, whichever of the known formats its file has.

Must not import: services, worker.
"""

from pathlib import Path

from training.checkpoints.formats import GeneratorCheckpoint, expect, open_contents
from training.checkpoints.nvidia import read_contents as read_nvidia
from training.checkpoints.stylegan2_pytorch import read_contents as read_stylegan2_pytorch

READERS = {"stylegan2-pytorch": read_stylegan2_pytorch, "nvidia-stylegan2": read_nvidia}


def read_generator(path: Path, label: int | None = None) -> GeneratorCheckpoint:
    """Read a generator of any size and width.

    Args: `label` is the class of a conditional generator; it is worked into the mapping, which wants no c then.
    Raises: DataError where the file is something else, is conditional and no label is given, or has no such label;
    CheckpointMismatchError where weights are missing or of another shape; DamagedCheckpointError.
    """
    contents = open_contents(path)
    expect(contents, READERS, "a generator")
    return READERS[contents.format](contents, label)
