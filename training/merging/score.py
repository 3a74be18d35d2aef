"""The denoising loss of a model with a change, on given pictures at fixed noise."""

from pathlib import Path

import torch
from torch import Tensor

from training.exporting.base import Base
from training.finetune.config import DataSet
from training.finetune.data import find_samples, load_pixels
from training.finetune.families import draw, open_family
from training.methods.changes import Change
from training.methods.stack import stack_of

PICTURES, LEVELS = 32, 4
"""Pictures that are measured at most, and noise levels of each."""


class Scorer:
    """Measures changes of one model."""

    def __init__(self, base: Base, data: Path, *, resolution: int, seed: int) -> None:
        """Encodes the pictures.

        Raises:
            ValueError: the model cannot be fine-tuned here, or there are no pictures.
        """
        self._family = open_family(base.folder, base.component)
        task = self._family.tasks[0]
        if task in self._family.conditioned:
            raise ValueError(
                f"rule greedy: {base.folder} is trained on {task}, which sees more than text, and pictures of text "
                "alone are measured; take another rule"
            )
        wanted = {task: self._family.wants(task)}
        found = find_samples([DataSet(folder=data)], wanted, resolution=resolution, multiple=self._family.multiple)
        pictures = list({picture.digest: picture for picture in found.samples}.values())[:PICTURES]
        self._encoded = [self._family.encode(load_pixels(picture)) for picture in pictures]
        self._embedded = [self._family.embed(picture.caption) for picture in pictures]
        self._seed = seed

    @torch.no_grad()
    def __call__(self, changes: dict[str, Change]) -> float:
        """The mean loss of the model with a change."""
        if not changes:
            return self._loss()
        with stack_of(self._family.network).add(changes, 1.0):
            return self._loss()

    def _loss(self) -> float:
        losses = []
        for number, (encoded, embedded) in enumerate(zip(self._encoded, self._embedded, strict=True)):
            seeds = [self._seed + number * LEVELS + level for level in range(LEVELS)]
            draws = draw(encoded["latents"].shape, seeds, torch.device("cpu"))
            losses.append(float(self._family.loss(_times(encoded), _times(embedded), draws, None).mean()))
        return sum(losses) / len(losses)


def _times(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.stack([part] * LEVELS) for name, part in parts.items()}
