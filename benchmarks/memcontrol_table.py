"""Makes the tables of `memcontrol_tabular.py`: every way of masking a small diffusion model, trained to the end.

    .venv/bin/python benchmarks/memcontrol_table.py a b        # pip install scikit-learn; some minutes a table

A residual MLP denoises 8x8 digits (scikit-learn's set). It is trained on the digits 0-4 and adapted to a few of 5-9,
some of which are repeated often, with each of 2^8 choices of trainable matrices and two learning rates. At five
checkpoints its samples are measured: Frechet distance to held-out digits in the space of a small classifier, and the
share that lies nearer to a training picture than 95 % of held-out pictures do. All models of a chunk are trained at
once, as batches of matrices.
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
BLOCKS, WIDTH, TIME, BATCH, SAMPLES, LEVELS = 4, 128, 32, 64, 300, 200
BITS = 2 * BLOCKS


@dataclass(frozen=True)
class Table:
    """What tells the tables apart."""

    seed: int
    pictures: int
    repeated: int
    """Pictures that come ten times as often as the others."""


TABLES = {"a": Table(seed=0, pictures=40, repeated=4), "b": Table(seed=1, pictures=100, repeated=4)}


class Denoisers:
    """Many residual MLPs of one shape, side by side."""

    def __init__(self, generator: torch.Generator, count: int = 1) -> None:
        def matrix(rows: int, columns: int, gain: float = 1.0) -> Tensor:
            return torch.randn(count, rows, columns, generator=generator) * gain / math.sqrt(columns)

        self.inner = [matrix(WIDTH, WIDTH, 0.5 if k % 2 else 1.0) for k in range(BITS)]
        self.into, self.out = matrix(WIDTH, 64 + TIME), matrix(64, WIDTH, 0.1)

    def tensors(self) -> list[Tensor]:
        return [*self.inner, self.into, self.out]

    def repeat(self, count: int) -> "Denoisers":
        """As many copies of the one model that this is."""
        copy = Denoisers.__new__(Denoisers)
        copy.inner = [w.detach().repeat(count, 1, 1) for w in self.inner]
        copy.into, copy.out = self.into.detach().repeat(count, 1, 1), self.out.detach().repeat(count, 1, 1)
        return copy

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        """The noise in x (models, batch, 64) at noise levels (models, batch)."""
        angles = level[..., None] * 10 ** torch.linspace(0, -3, TIME // 2)
        h = torch.cat([x, angles.sin(), angles.cos()], -1) @ self.into.mT
        for k in range(BLOCKS):
            h = h + F.silu(F.layer_norm(h, (WIDTH,)) @ self.inner[2 * k].mT) @ self.inner[2 * k + 1].mT
        return F.layer_norm(h, (WIDTH,)) @ self.out.mT


def alphas() -> Tensor:
    """How much of the signal is left at each level, cosine schedule."""
    steps = torch.arange(LEVELS + 1) / LEVELS
    kept = ((steps + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (kept[1:] / kept[0]).clamp(min=1e-4)


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
            v.lerp_(grad.square(), 0.001)
            update = (m / (1 - 0.9**self.made)) / ((v / (1 - 0.999**self.made)).sqrt() + 1e-8)
            with torch.no_grad():
                tensor -= rate[:, None, None] * mask[:, None, None] * update
            tensor.grad = None


def loss_of(model: Denoisers, pictures: Tensor, index: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """Summed over models, each with the same pictures, levels and noise."""
    kept = alphas()[level][:, None]
    noisy = kept.sqrt() * pictures[index] + (1 - kept).sqrt() * noise
    count = len(model.out)
    predicted = model(noisy.expand(count, -1, -1), level.float().expand(count, -1))
    return (predicted - noise).square().mean((1, 2)).sum()


def fit(
    model: Denoisers,
    pictures: Tensor,
    masks: Tensor,
    rates: Tensor,
    steps: int,
    generator: torch.Generator,
    *,
    base: bool = False,
):
    """Trains, yielding the steps made at every checkpoint. `masks` is (models, BITS)."""
    tensors = model.tensors()
    # the base is trained whole; in an adaptation nothing but the masked matrices moves
    whole = torch.full((len(rates),), float(base))
    optimizer = Adam(tensors, [*masks.T.float(), whole, whole])
    for tensor in tensors:
        tensor.requires_grad_(True)
    for step in range(1, steps + 1):
        index = torch.randint(len(pictures), (BATCH,), generator=generator)
        level = torch.randint(LEVELS, (BATCH,), generator=generator)
        noise = torch.randn(BATCH, 64, generator=generator)
        loss_of(model, pictures, index, level, noise).backward()
        optimizer.step(rates)
        if step in CHECKPOINTS:
            yield step


@torch.no_grad()
def sample(model: Denoisers, steps: int = 25) -> Tensor:
    """Pictures (models, SAMPLES, 64) by DDIM, of the same noise for every model."""
    count = len(model.out)
    x = torch.randn(SAMPLES, 64, generator=torch.Generator().manual_seed(123)).expand(count, -1, -1)
    kept = alphas()
    levels = torch.linspace(LEVELS - 1, 0, steps).round().long().tolist()
    for k, level in enumerate(levels):
        noise = model(x, torch.full((count, SAMPLES), float(level)))
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
    known, new = pictures[labels < 5], pictures[labels >= 5]
    new = new[torch.randperm(len(new), generator=generator)]
    trained, held_out = new[: table.pictures], new[table.pictures :]
    # the repeated ones stand ten times in the list that batches are drawn from
    stream = torch.cat([trained, trained[: table.repeated].repeat(9, 1)])
    base = Denoisers(generator)
    for _ in fit(base, known, torch.ones(1, BITS), torch.tensor([2e-3]), 3000, generator, base=True):
        pass
    limit = torch.cdist(held_out, trained).amin(1).quantile(0.05)
    real = features(held_out, weights)
    rows = []
    ways = list(itertools.product(itertools.product((0, 1), repeat=BITS), RATES))
    for first in range(0, len(ways), 128):
        part = ways[first : first + 128]
        model = base.repeat(len(part))
        masks, rates = torch.tensor([mask for mask, _ in part]), torch.tensor([rate for _, rate in part])
        draws = torch.Generator().manual_seed(table.seed + 1000)  # common random numbers
        for step in fit(model, stream, masks, rates, CHECKPOINTS[-1], draws):
            for (mask, rate), made in zip(part, sample(model), strict=True):
                distance = frechet_distance(features(made, weights), real)
                copied = float((torch.cdist(made, trained).amin(1) < limit).float().mean())
                rows.append(["".join(map(str, mask)), rate, step, f"{distance:.4f}", f"{copied:.4f}"])
        print(f"table {name}: {first + len(part)} of {len(ways)}", flush=True)
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
