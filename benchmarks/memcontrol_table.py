"""Makes the tables of `memcontrol_tabular.py`: every way of masking a small diffusion model, trained to the end.

    .venv/bin/python benchmarks/memcontrol_table.py a b        # pip install scikit-learn; some minutes a table

A residual MLP denoises 8x8 digits (scikit-learn's set). It is trained on the digits 0-4 and adapted to a few of 5-9,
some of which are repeated often, with each of 2^8 choices of trainable matrices and two learning rates; the class table
and the output's bias are always trained. At five checkpoints its samples are measured: Frechet distance to held-out
digits in the space of a small classifier, and the share that lies nearer to a training picture than 95 % of held-out
pictures do. All models of a chunk are trained at once, as batches of matrices. Sizes are those of specs/memcontrol.md,
section 7.
"""

import argparse
import csv
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from training.metrics.quality import frechet_distance

PLACE = Path(__file__).parent / "data"
RATES, CHECKPOINTS = (1e-3, 4e-3), (40, 75, 150, 300, 600)
BLOCKS, WIDTH, TIME, BATCH, SAMPLES, LEVELS = 4, 96, 32, 32, 300, 200
NO_CLASS, DROPPED = 10, 0.1
"""The row of the class table that stands for no class, and how often a class is left out in training."""
BITS = 2 * BLOCKS


@dataclass(frozen=True)
class Table:
    """What tells the tables apart."""

    seed: int
    pictures: int
    extra: int
    """How many times more the first tenth of the pictures comes."""


TABLES = {
    "a": Table(seed=0, pictures=40, extra=5), "b": Table(seed=1, pictures=100, extra=9),
    "c": Table(seed=2, pictures=60, extra=7),
}  # fmt: skip


class Denoisers:
    """Many residual MLPs of one shape, side by side."""

    def __init__(self, generator: torch.Generator, count: int = 1) -> None:
        def matrix(rows: int, columns: int, gain: float = 1.0) -> Tensor:
            return torch.randn(count, rows, columns, generator=generator) * gain / math.sqrt(columns)

        self.inner = [matrix(WIDTH, WIDTH, 0.5 if k % 2 else 1.0) for k in range(BITS)]
        self.into, self.out = matrix(WIDTH, 64 + TIME), matrix(64, WIDTH, 0.1)
        self.classes = 0.1 * torch.randn(count, NO_CLASS + 1, WIDTH, generator=generator)
        self.bias = torch.zeros(count, 1, 64)

    def tensors(self) -> list[Tensor]:
        """What masks choose from, what is always trained, and what the base alone trains."""
        return [*self.inner, self.classes, self.bias, self.into, self.out]

    def repeat(self, count: int) -> "Denoisers":
        """As many copies of the one model that this is."""
        copy = Denoisers.__new__(Denoisers)
        copy.inner = [w.detach().repeat(count, 1, 1) for w in self.inner]
        for name in ("into", "out", "classes", "bias"):
            setattr(copy, name, getattr(self, name).detach().repeat(count, 1, 1))
        return copy

    def __call__(self, x: Tensor, level: Tensor, label: Tensor) -> Tensor:
        """The noise in x (models, batch, 64) at noise levels (models, batch), of classes (batch)."""
        angles = level[..., None] * 10 ** torch.linspace(0, -3, TIME // 2)
        h = torch.cat([x, angles.sin(), angles.cos()], -1) @ self.into.mT + self.classes[:, label]
        for k in range(BLOCKS):
            h = h + F.silu(F.layer_norm(h, (WIDTH,)) @ self.inner[2 * k].mT) @ self.inner[2 * k + 1].mT
        return F.layer_norm(h, (WIDTH,)) @ self.out.mT + self.bias


def alphas() -> Tensor:
    """How much of the signal is left at each level, linear schedule."""
    return (1 - torch.linspace(1e-4, 0.06, LEVELS)).cumprod(0)


class Adam:
    """Of many models at once, each with its own rate; a mask says which matrices move."""

    def __init__(self, tensors: list[Tensor], masks: list[Tensor]) -> None:
        self.tensors, self.masks, self.made = tensors, masks, 0
        self.first = [torch.zeros_like(t) for t in tensors]
        self.second = [torch.zeros_like(t) for t in tensors]

    def step(self, rate: Tensor) -> None:
        self.made += 1
        for tensor, mask, m, v in zip(self.tensors, self.masks, self.first, self.second, strict=True):
            grad = tensor.grad
            m.lerp_(grad, 0.1)
            v.lerp_(grad.square(), 0.01)
            update = (m / (1 - 0.9**self.made)) / ((v / (1 - 0.99**self.made)).sqrt() + 1e-8)
            with torch.no_grad():
                tensor -= rate[:, None, None] * mask[:, None, None] * update
            tensor.grad = None


@dataclass(frozen=True)
class Digits:
    """Pictures (n, 64) in -1..1 and what they show."""

    pictures: Tensor
    labels: Tensor


def loss_of(model: Denoisers, data: Digits, generator: torch.Generator) -> Tensor:
    """Summed over models, each with the same pictures, levels and noise."""
    index = torch.randint(len(data.pictures), (BATCH,), generator=generator)
    level = torch.randint(LEVELS, (BATCH,), generator=generator)
    noise = torch.randn(BATCH, 64, generator=generator)
    dropped = torch.rand(BATCH, generator=generator) < DROPPED
    kept = alphas()[level][:, None]
    noisy = kept.sqrt() * data.pictures[index] + (1 - kept).sqrt() * noise
    count = len(model.out)
    label = data.labels[index].masked_fill(dropped, NO_CLASS)
    predicted = model(noisy.expand(count, -1, -1), level.float().expand(count, -1), label)
    return (predicted - noise).square().mean((1, 2)).sum()


def fit(
    model: Denoisers,
    data: Digits,
    masks: Tensor,
    rates: Tensor,
    steps: int,
    generator: torch.Generator,
    *,
    base: bool = False,
):
    """Trains, yielding the steps made at every checkpoint. `masks` is (models, BITS)."""
    tensors = model.tensors()
    always, whole = torch.ones(len(rates)), torch.full((len(rates),), float(base))
    optimizer = Adam(tensors, [*masks.T.float(), always, always, whole, whole])
    for tensor in tensors:
        tensor.requires_grad_(True)
    for step in range(1, steps + 1):
        loss_of(model, data, generator).backward()
        optimizer.step(rates)
        if step in CHECKPOINTS:
            yield step


@torch.no_grad()
def sample(model: Denoisers, steps: int = 15) -> Tensor:
    """Pictures (models, SAMPLES, 64) by DDIM, of the same noise for every model."""
    count = len(model.out)
    x = torch.randn(SAMPLES, 64, generator=torch.Generator().manual_seed(123)).expand(count, -1, -1)
    label = torch.arange(SAMPLES) % 5 + 5
    kept = alphas()
    levels = torch.linspace(LEVELS - 1, 0, steps).round().long().tolist()
    for k, level in enumerate(levels):
        noise = model(x, torch.full((count, SAMPLES), float(level)), label)
        clean = ((x - (1 - kept[level]).sqrt() * noise) / kept[level].sqrt()).clamp(-1, 1)
        if k + 1 == len(levels):
            return clean
        after = kept[levels[k + 1]]
        x = after.sqrt() * clean + (1 - after).sqrt() * noise
    raise AssertionError


def classifier(pictures: Tensor, labels: Tensor) -> list[Tensor]:
    """A small classifier of all ten digits; its 24 hidden numbers are the space of the Frechet distance."""
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(96, 64, generator=generator) / 8, torch.randn(24, 96, generator=generator) / 10]
    weights.append(torch.randn(10, 24, generator=generator) / 5)
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=3e-3, weight_decay=1e-2)
    for _ in range(600):
        index = torch.randint(len(pictures), (128,), generator=generator)
        noisy = pictures[index] + 0.1 * torch.randn(128, 64, generator=generator)
        F.cross_entropy(features(noisy, weights) @ weights[2].T, labels[index]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [w.detach() for w in weights]


def features(pictures: Tensor, weights: list[Tensor]) -> Tensor:
    return F.silu(F.silu(pictures @ weights[0].T) @ weights[1].T)


def make(name: str) -> None:
    from sklearn.datasets import load_digits

    table = TABLES[name]
    generator = torch.Generator().manual_seed(table.seed)
    data = load_digits()
    pictures = torch.tensor(data.data, dtype=torch.float32) / 8 - 1
    labels = torch.tensor(data.target)
    weights = classifier(pictures, labels)
    new = (labels >= 5).nonzero()[:, 0]
    new = new[torch.randperm(len(new), generator=generator)]
    first, held_out = new[: table.pictures], pictures[new[table.pictures :]]
    trained = pictures[first]
    # the repeated ones stand several times in the list that batches are drawn from
    often = torch.cat([first, first[: table.pictures // 10].repeat(table.extra)])
    known, stream = Digits(pictures[labels < 5], labels[labels < 5]), Digits(pictures[often], labels[often])
    base = Denoisers(generator)
    for _ in fit(base, known, torch.ones(1, BITS), torch.tensor([2e-3]), 3000, generator, base=True):
        pass
    limit = torch.cdist(held_out, trained).amin(1).quantile(0.05)
    real = features(held_out, weights)
    rows = []
    ways = list(itertools.product(itertools.product((0, 1), repeat=BITS), RATES))
    for start in range(0, len(ways), 128):
        part = ways[start : start + 128]
        model = base.repeat(len(part))
        masks, rates = torch.tensor([mask for mask, _ in part]), torch.tensor([rate for _, rate in part])
        draws = torch.Generator().manual_seed(table.seed + 1000)  # common random numbers
        for step in fit(model, stream, masks, rates, CHECKPOINTS[-1], draws):
            for (mask, rate), made in zip(part, sample(model), strict=True):
                distance = frechet_distance(features(made, weights), real)
                copied = float((torch.cdist(made, trained).amin(1) < limit).float().mean())
                rows.append(["".join(map(str, mask)), rate, step, f"{distance:.4f}", f"{copied:.4f}"])
        print(f"table {name}: {start + len(part)} of {len(ways)}", flush=True)
    PLACE.mkdir(exist_ok=True)
    with (PLACE / f"memcontrol_{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["mask", "learning_rate", "step", "frechet_distance", "copy_rate"])
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="+", choices=sorted(TABLES))
    for name in parser.parse_args().table:
        make(name)


if __name__ == "__main__":
    main()
