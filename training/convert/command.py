"""`animato-train convert`: checkpoints that people have, as a bundle. Must not import: services, worker, cli."""

from pathlib import Path
from typing import Annotated, cast

import typer

from training.convert.bundle import UNKNOWN_LICENSE, Wishes, convert
from training.convert.sources import Sources
from training.errors import DataError
from training.export.synthesis_graph import Precision

PRECISIONS = ("fp32", "fp16")


def run_conversion(
    out: Annotated[Path, typer.Option(help="folder of the bundle; its name is the model's id")],
    generator: Annotated[Path | None, typer.Option(help="StyleGAN2: stylegan2-pytorch .pt, NVIDIA .pkl …")] = None,
    encoder: Annotated[Path | None, typer.Option(help="e4e or pSp encoder for this generator")] = None,
    clip: Annotated[Path | None, typer.Option(help="CLIP: Hugging Face folder, or OpenAI's .pt")] = None,
    motion: Annotated[Path | None, typer.Option(help="published motion checkpoint, or RUN/motion of ours")] = None,
    identity: Annotated[Path | None, typer.Option(help="ir_se50: jobs then tell how much a face stays itself")] = None,
    label: Annotated[int | None, typer.Option(help="class that a conditional generator shall draw", min=0)] = None,
    precision: Annotated[
        str, typer.Option(help="fp32: the very same pictures; fp16: half the size, computed in halves on a GPU")
    ] = "fp32",
    domain: Annotated[str, typer.Option(help="what the pictures show")] = "human",
    license_id: Annotated[str, typer.Option("--license", help="SPDX identifier of the weights")] = UNKNOWN_LICENSE,
    version: Annotated[str, typer.Option("--model-version", help="the model's own version")] = "1.0.0",
    align: Annotated[
        bool, typer.Option(help="find the face and cut pictures as FFHQ's are cut; no: the centred square is the face")
    ] = True,
    note: Annotated[Path | None, typer.Option(help="text file for the model card: whose faces, what consent")] = None,
) -> None:
    """Turn checkpoints into a bundle that `animato` serves; parts that are missing are named, with what can be done."""
    if precision not in PRECISIONS:
        raise typer.BadParameter(f"{precision!r} is neither fp32 nor fp16", param_hint="--precision")
    if generator is None and encoder is None and clip is None and motion is None:
        raise DataError("nothing to convert: give --generator, --encoder, --clip and --motion")
    wishes = Wishes(
        out,
        cast("Precision", precision),
        domain,
        version,
        license_id,
        "" if note is None else note.read_text(encoding="utf-8"),
        align,
    )
    convert(Sources(generator, encoder, clip, motion, label, identity), wishes, typer.echo)
