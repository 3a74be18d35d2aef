"""What is drawn for each sample of the stream: mirror, cut, caption, reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from training.finetune.config import FinetuneConfig
from training.finetune.data.clips import CENTRE, CROPS, load_pixels, offset
from training.finetune.data.find import Sample
from training.finetune.data.order import Order

REFERENCES: Final = 4
"""Frames of a clip that may be its reference: few, so that all are encoded only once."""
_LEAST_CROP_PX: Final = 4
"""What stands over by less is cut in the middle."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A sample as it is seen once."""

    sample: Sample
    mirrored: bool = False
    crop: float = CENTRE
    caption: str
    """Without the trigger word; empty where it is left out."""
    reference: int = 0
    """The frame that the reference shows, for tasks that have one."""
    seed: int = 0
    """Of all else that is drawn for it."""

    @property
    def key(self) -> str:
        """Names the pixels."""
        return f"{self.sample.piece} {self.sample.size} {self.mirrored} {self.crop}"

    def pixels(self) -> Float[Tensor, "frames 3 height width"]:
        """The pixels, in -1..1."""
        return load_pixels(self.sample, mirrored=self.mirrored, crop=self.crop)


class Stream:
    """The endless stream of one task's samples; what is drawn follows from the seed and the place in it alone."""

    def __init__(self, samples: Sequence[Sample], config: FinetuneConfig) -> None:
        self._config = config
        # a mirrored sample is another one
        mirrors = (False, True) if config.flip else (False,)
        self._all = [(sample, mirrored) for sample in samples for mirrored in mirrors]
        self._order = Order(
            [sample.bucket for sample, _ in self._all], config.train_batch_size, config.seed,
            groups=[sample.group for sample, _ in self._all], weights=config.weights,
        )  # fmt: skip
        self.samples = list(samples)

    def take(self, first: int, count: int) -> list[View]:
        """Views `first` .. `first + count`; they are of one bucket."""
        chosen = [self._all[k] for k in self._order.take(first, count)]
        return [self._view(*pair, seed_of(self._config.seed, first + k)) for k, pair in enumerate(chosen)]

    def _view(self, sample: Sample, mirrored: bool, seed: int) -> View:
        drop, which, where, frame = torch.rand(4, generator=torch.Generator().manual_seed(seed + 1)).tolist()
        caption = sample.captions[int(which * len(sample.captions))]
        return View(
            sample=sample, mirrored=mirrored, crop=self._crop(sample, where), seed=seed,
            caption="" if drop < self._config.caption_dropout else caption,
            reference=round(int(frame * REFERENCES) * (sample.frames - 1) / (REFERENCES - 1)),
        )  # fmt: skip

    def _crop(self, sample: Sample, chance: float) -> float:
        over = max(offset(sample.source, sample.size, 1.0))
        return CROPS[int(chance * len(CROPS))] if self._config.crop == "random" and over >= _LEAST_CROP_PX else CENTRE


def seed_of(seed: int, number: int) -> int:
    """A seed of its own for every sample of the stream."""
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) % (1 << 62)
