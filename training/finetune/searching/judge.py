"""How a checkpoint of a search is measured: what it makes of the captions, beside trained and held-out pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from training.finetune.data import Sample
from training.finetune.seen import sample_features
from training.finetune.workbench import Workbench
from training.metrics.features import FeatureSpace
from training.metrics.memorization import copy_rate
from training.metrics.quality import kernel_distance

FIRST_SEED, FINAL_SEED = 1_000_000, 2_000_000
"""Of the samples of a search, and of its final choice."""
LEAST_HELD_OUT = 20
"""On either side: so many are needed for a quantile of 5 %."""
_MEASURED = 32
"""Trained and held-out pictures whose losses are compared."""

_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One model, measured; both are better when smaller."""

    quality: float
    """Kernel distance of the samples to held-out pictures."""
    copying: float
    """Share of the samples that are nearer to a trained picture than nearly all held-out ones are."""
    metrics: dict[str, float]
    """These and others, by names that say feature space and number of samples."""
    shown: UInt8[Tensor, "n height width 3"]
    """The first few samples: the same captions and seeds for every model of a search."""


class Judge:
    """Measures the network as it is: the same prompts, seeds and noise every time, so that differences are its own."""

    def __init__(
        self, bench: Workbench, features: FeatureSpace, held_out: Sequence[Sample], *, samples: int, steps: int,
        quantile: float, first_seed: int = FIRST_SEED,
    ) -> None:  # fmt: skip
        self._bench, self._features = bench, features
        self._count, self._steps, self._quantile, self._first_seed = samples, steps, quantile, first_seed
        trained = list({sample.piece: sample for sample in bench.samples}.values())
        self._trained, self._held_out = trained, list(held_out)
        self._of_trained, self._of_held_out = (
            sample_features(side, features, bench.cache) for side in (trained, self._held_out)
        )
        self._size = trained[0].size
        self._told = [f"{bench.config.trigger} {sample.caption}".strip() for sample in trained]

    @torch.no_grad()
    def __call__(self) -> Judged:
        """Makes samples and measures them."""
        network, learner = self._bench.network, self._bench.learner
        was_training = network.training
        network.eval()
        with learner.measuring():
            made = self._make()
            found = self._features(rearrange(made, "n h w c -> n c h w").float() / 255)
            gap = self._loss_gap()
        network.train(was_training)
        rate = copy_rate(found, self._of_trained, self._of_held_out, quantile=self._quantile)
        quality = kernel_distance(found, self._of_held_out)
        told = f"({self._features.name}, N={self._count})"
        metrics = {
            f"kd{told}": quality, f"copy-rate{told}": rate.value, "copy_rate_low": rate.low,
            "copy_rate_high": rate.high, "loss-gap": gap,
        }  # fmt: skip
        return Judged(quality=quality, copying=rate.value, metrics=metrics, shown=made[:_SHOWN].cpu())

    def _make(self) -> UInt8[Tensor, "n height width 3"]:
        prompts = [self._told[k % len(self._told)] for k in range(self._count)]
        seeds = range(self._first_seed, self._first_seed + self._count)
        return self._bench.family.sample_many(prompts, self._size, seeds, steps=self._steps)

    def _loss_gap(self) -> float:
        """Held-out loss less trained loss at the same noise: 0 before training, and it grows with memorizing."""
        learner, task = self._bench.learner, self._bench.learner.tasks[0]
        count = min(_MEASURED, len(self._trained), len(self._held_out))
        seen, unseen = (
            float(learner.losses_at_fixed_noise(side[:count], task).mean()) for side in (self._trained, self._held_out)
        )
        return unseen - seen
