"""Train a domain's factor reader: `python -m training.evaluator.fit --domain human`.

It learns from clean renders, from renders that were blurred, shrunk and made noisy the way a small generator draws, and
(with --drawn) from pictures that a generator drew of known factors, so that its readings are calibrated on both. No
bundle is trained against it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.evaluator.network import IDENTITY_DIM, FactorReader, to_reader_input
from training.faces.domains import DOMAINS, find_domain
from training.faces.expressions import EXPRESSIONS, apply_expression, vary_expression
from training.faces.parameters import (
    CATEGORIES,
    CATEGORY_SLICES,
    NUM_CONTINUOUS,
    NUM_EXPRESSION,
    NUM_IDENTITY,
    encode,
    sample_parameters,
)

FIT_SEED = 424_242
"""Seed of the reader's own faces; disjoint from the seeds of the training pools and of the held-out identities."""


def weights_path(domain: str) -> Path:
    """Give the file that a domain's reader is kept in."""
    return Path(__file__).with_name(f"reader-{domain}.safetensors")


def render_pool(pairs: int, seed: int, domain: str) -> tuple[np.ndarray, np.ndarray]:
    """Render pairs of one identity with two expressions.

    Shapes: → pictures [2·pairs,128,128,3] uint8, factors [2·pairs,62].
    """
    rng, render = np.random.default_rng(seed), find_domain(domain).render
    pictures = np.empty((2 * pairs, 128, 128, 3), np.uint8)
    factors = np.empty((2 * pairs, len(encode(sample_parameters(rng)))), np.float32)
    for i in range(pairs):
        person = sample_parameters(rng)
        for j in (0, 1):
            params = vary_expression(person, rng)
            pictures[2 * i + j] = render(params, 128)
            factors[2 * i + j] = encode(params)
    return pictures, factors


def soften(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, shift, dim and speckle a batch the way generators and encoders do.

    Shapes: image [N,3,H,W] → the same. Range: [-1,1].
    """

    def draw() -> float:
        return float(torch.rand((), generator=generator))

    side = image.shape[-1]
    kind = draw()
    if kind < 0.3:
        small = int(side * (0.35 + 0.5 * draw()))
        image = F.interpolate(image, (small, small), mode="bilinear", antialias=True)
        image = F.interpolate(image, (side, side), mode="bicubic")
    elif kind < 0.55:
        sigma = 0.4 + 1.6 * draw()
        taps = torch.arange(-3, 4, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
        kernel = (kernel / kernel.sum()).repeat(3, 1)
        image = F.conv2d(F.pad(image, (3, 3, 0, 0), mode="replicate"), kernel[:, None, None, :], groups=3)
        image = F.conv2d(F.pad(image, (0, 0, 3, 3), mode="replicate"), kernel[:, None, :, None], groups=3)
    if draw() < 0.5:
        image = image * (0.9 + 0.2 * draw()) + 0.1 * (draw() - 0.5)
    if draw() < 0.5:
        image = image + 0.06 * draw() * torch.randn(image.shape, generator=generator)
    return image.clamp(-1.0, 1.0)


def measure_loss(reader: FactorReader, image: Tensor, factors: Tensor) -> Tensor:
    """Sum the regression, classification and same-person losses of a batch of pairs.

    Shapes: image [2P,3,128,128], factors [2P,62] → [].
    """
    expression, identity, rest = reader(image)
    loss = F.smooth_l1_loss(expression, factors[:, :NUM_EXPRESSION], beta=0.1) * 4
    loss = loss + F.mse_loss(rest[:, :NUM_IDENTITY], factors[:, NUM_EXPRESSION:NUM_CONTINUOUS])
    for category in CATEGORIES:
        where = CATEGORY_SLICES[category.name]
        shift = NUM_CONTINUOUS - NUM_IDENTITY
        logits = rest[:, where.start - shift : where.stop - shift]
        loss = loss + 0.1 * F.cross_entropy(logits, factors[:, where].argmax(1))
    similarity = identity[0::2] @ identity[1::2].T / 0.1
    person = torch.arange(len(similarity))
    return loss + 0.1 * (F.cross_entropy(similarity, person) + F.cross_entropy(similarity.T, person))


def render_expressed(people: int, seed: int, domain: str) -> tuple[np.ndarray, np.ndarray]:
    """Render people, calm and with each named expression in turn.

    Shapes: → pictures [2·people,128,128,3] uint8, factors [2·people,62].
    """
    rng, render, names = np.random.default_rng(seed), find_domain(domain).render, list(EXPRESSIONS)
    pictures, factors = [], []
    for i in range(people):
        person = sample_parameters(rng)
        moved = apply_expression(person, names[i % len(names)], float(rng.uniform(0.7, 1.1)), rng)
        for params in (person, moved):
            pictures.append(render(params, 128))
            factors.append(encode(params))
    return np.stack(pictures), np.stack(factors)


def fit_identity(reader: FactorReader, domain: str, people: int, steps: int) -> None:
    """Train the identity head alone to know a person whatever the face does, in place.

    What an expression hides (the irises behind closed lids) must not count as another person. The trunk and the
    expression readings stay as they are, so the pictures' features are computed once.
    """
    torch.manual_seed(FIT_SEED + 2)
    generator = torch.Generator().manual_seed(FIT_SEED + 2)
    pictures, factors = render_expressed(people, FIT_SEED + 2, domain)
    with torch.no_grad():
        parts = torch.from_numpy(pictures).split(64)
        features = torch.cat(
            [reader.stages(soften(to_reader_input(part), generator)).flatten(1).half() for part in parts]
        )
    truth = torch.from_numpy(factors)[:, NUM_EXPRESSION:]
    head = [*reader.identity.parameters(), *reader.identity_factors.parameters()]
    optimizer = torch.optim.AdamW(head, 1e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps, pct_start=0.1)
    rng = np.random.default_rng(FIT_SEED + 2)
    reader.train()
    for step in range(1, steps + 1):
        chosen = rng.choice(people, 96, replace=False)
        index = torch.from_numpy(np.stack([2 * chosen, 2 * chosen + 1], 1).ravel())
        identity = F.normalize(reader.identity(features[index].float()), dim=1)
        rest = reader.identity_factors(identity * IDENTITY_DIM**0.5)
        similarity = identity[0::2] @ identity[1::2].T / 0.1
        person = torch.arange(len(similarity))
        apart = F.cross_entropy(similarity, person) + F.cross_entropy(similarity.T, person)
        same = (1 - (identity[0::2] * identity[1::2]).sum(1)).mean()
        loss = 0.2 * apart + 4 * same + F.mse_loss(rest[:, :NUM_IDENTITY], truth[index, :NUM_IDENTITY])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps:
            print(f"identity step {step} apart {apart.item():.4f} same {1 - same.item():.4f}", flush=True)
    reader.eval()


def load_reader(path: Path) -> FactorReader:
    """Load a fitted reader."""
    reader = FactorReader()
    reader.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return reader


def fit(
    pairs: int, steps: int, batch_pairs: int, drawn: Path | None, domain: str = "human", start: str | None = None
) -> FactorReader:
    """Train a reader and return it in evaluation mode; prints R² of the expression factors on fresh faces.

    `start`: the domain whose reader is gone on with; None begins from nothing.
    """
    torch.manual_seed(FIT_SEED)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(FIT_SEED)
    pictures, factors = render_pool(pairs, FIT_SEED, domain)
    if drawn is not None:
        with np.load(drawn) as archive:  # pairs that a generator drew: pictures [2P,128,128,3], factors [2P,62]
            pictures = np.concatenate([pictures, archive["pictures"]])
            factors = np.concatenate([factors, archive["factors"]])
    held_pictures, held_factors = render_pool(200, FIT_SEED + 1, domain)
    reader = FactorReader() if start is None else load_reader(weights_path(start))
    reader.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare it
    optimizer = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    rng = np.random.default_rng(FIT_SEED)
    started = time.monotonic()
    for step in range(1, steps + 1):
        chosen = rng.integers(len(pictures) // 2, size=batch_pairs)
        index = np.stack([2 * chosen, 2 * chosen + 1], 1).ravel()
        image = soften(to_reader_input(torch.from_numpy(pictures[index])), generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = measure_loss(
                reader, image.contiguous(memory_format=torch.channels_last), torch.from_numpy(factors[index])
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps:
            with torch.no_grad():
                read = reader(to_reader_input(torch.from_numpy(held_pictures)))[0].numpy()
            truth = held_factors[:, :NUM_EXPRESSION]
            r2 = 1 - ((read - truth) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)
            seconds = time.monotonic() - started
            spread = f"R² mean {r2[:12].mean():.3f} min {r2[:12].min():.3f}"
            print(f"step {step} loss {loss.item():.4f} {spread} {seconds:.0f} s", flush=True)
    return reader.eval()


def main() -> None:
    """Train, and write the weights beside this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-pairs", type=int, default=16)
    parser.add_argument("--people", type=int, default=6300, help="of the identity head's lessons; 0 leaves it")
    parser.add_argument("--identity-steps", type=int, default=2000)
    parser.add_argument("--identity-only", action="store_true", help="train the identity head of the existing reader")
    parser.add_argument("--drawn", type=Path, default=None, help="npz with pairs that a generator drew")
    parser.add_argument("--domain", choices=sorted(DOMAINS), default="human")
    parser.add_argument("--start", choices=sorted(DOMAINS), default=None, help="go on with this domain's reader")
    parser.add_argument("--out", type=Path, default=None, help="default: beside this module")
    options = parser.parse_args()
    out = options.out or weights_path(options.domain)
    if options.identity_only:
        reader = load_reader(out)
    else:
        reader = fit(options.pairs, options.steps, options.batch_pairs, options.drawn, options.domain, options.start)
    if options.people:
        fit_identity(reader, options.domain, options.people, options.identity_steps)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in reader.state_dict().items()}
    made_by = {
        "pairs": options.pairs,
        "steps": options.steps,
        "drawn": options.drawn is not None,
        "start": options.start,
        "people": options.people,
    }
    save_file(weights, out, metadata={"made_by": json.dumps(made_by)})


if __name__ == "__main__":
    main()
