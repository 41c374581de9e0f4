"""Do the parts belong together, and what can be done about those that are missing; all in sentences.

A bundle without one of its graphs could serve no whole job (docs/checkpoints.md weighs it), so it is never written.
Must not import: services, worker, cli.
"""

from typing import NamedTuple

from training.convert.sources import Found
from training.errors import DataError

REMEDIES = {
    "generator": "give a StyleGAN2 as --generator, or an e4e or pSp file that brings its generator along as --encoder; "
    "without weights, train one of your own pictures: animato-train all --recipe own-faces-256 --data FOLDER",
    "encoder": "give the e4e or pSp encoder that was trained for this generator as --encoder (another generator's will "
    "not do), or train one: animato-train inversion --recipe checkpoints --generator F --identity F --data FOLDER "
    "--out RUN, then give RUN/inversion",
    "identity": "give ir_se50 as --identity: pictures are compared by its maps and faces by its features",
    "clip": "give a CLIP as --clip: a folder in Hugging Face's format, or OpenAI's .pt",
    "motion": "train it on top of these parts: animato-train motion --recipe checkpoints --generator F --encoder F "
    "--clip DIR --data FOLDER --out RUN, then give RUN/motion as --motion",
}


class Size(NamedTuple):
    """One number that two parts must share."""

    what: str
    part: str
    value: int
    other: str
    expected: int


def require_whole(found: Found) -> None:
    """Make sure that nothing is missing.

    Raises: DataError that names every missing part with what can be done.
    """
    if found.missing:
        advice = "; ".join(f"{part} is missing: {REMEDIES[part]}" for part in found.missing)
        raise DataError(f"no bundle was written. {advice}")


def require_fit(found: Found) -> None:
    """Make sure that the parts which are there have the same sizes.

    Raises: DataError that names the first two that don't.
    """
    for size in _list_sizes(found):
        if size.value != size.expected:
            raise DataError(
                f"{size.part} and {size.other} don't belong together: {found.told[size.part]}, but "
                f"{found.told[size.other]} ({size.what}: {size.value} and {size.expected})"
            )


def _list_sizes(found: Found) -> list[Size]:
    sizes = []
    generator, encoder, animation = found.generator, found.encoder, found.animation
    if generator is not None and encoder is not None:
        synthesis = generator.synthesis
        sizes += [
            Size("rows of ws", "encoder", encoder.num_ws, "generator", synthesis.num_ws),
            Size("numbers in a row", "encoder", encoder.w_dim, "generator", synthesis.w_dim),
        ]
    if generator is not None and animation is not None:
        mapper = animation.network.text_mapper
        sizes += [
            Size("rows of ws", "motion", mapper.num_ws, "generator", generator.synthesis.num_ws),
            Size("numbers in a row", "motion", mapper.w_dim, "generator", generator.synthesis.w_dim),
        ]
    if animation is not None:
        wanted = animation.network.cell.a.in_features
        sizes.append(Size("length of embeddings", "motion", wanted, "clip", animation.towers.embed_dim))
    return sizes
