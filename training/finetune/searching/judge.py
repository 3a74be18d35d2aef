"""How a checkpoint of a search is measured: what it makes of the captions, beside trained and held-out pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from training.finetune.data import Sample
from training.finetune.learner import DRAWS
from training.finetune.seen import at_most, evenly, features_as_soft, plain_views, usual_size, view_features
from training.finetune.workbench import Workbench
from training.metrics.coverage import support
from training.metrics.features import FeatureSpace
from training.metrics.memorization import copy_rate, membership
from training.metrics.quality import kernel_estimate

FIRST_SEED, FINAL_SEED = 1_000_000, 2_000_000
"""Of the samples of a search, and of its final choice."""
WAY = "2"
"""Of measuring: raise it when figures change, so that a study has none of both."""
LEAST_HELD_OUT = 20
"""On either side: so many are needed for a quantile of 5 %."""
_MEASURED, _MEASURED_AT_LAST = 32, 256
"""Trained and held-out pictures whose losses are compared: at every checkpoint, and in the final choice."""
_SOFTENED = 256
"""Held-out pictures that are made as soft as the samples, at every checkpoint anew."""
_FOR_MEMBERSHIP = 100
"""Held-out pictures without which 1 % false alarms are none."""

_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One model, measured; both are better when smaller."""

    quality: float
    """Kernel distance of the samples to held-out pictures."""
    copying: float
    """Share of the samples that are nearer to a trained picture than nearly all held-out ones, as soft, are."""
    metrics: dict[str, float]
    """These and others, by names that say feature space and number of samples."""
    shown: UInt8[Tensor, "n height width 3"]
    """A few samples: the same captions and seeds for every model of a search."""


class Judge:
    """Measures the network as it is: the same prompts, seeds and noise every time, so that differences are its own."""

    def __init__(
        self, bench: Workbench, features: FeatureSpace, held_out: Sequence[Sample], *, samples: int, steps: int,
        quantile: float, first_seed: int = FIRST_SEED, last: bool = False,
    ) -> None:  # fmt: skip
        """Looks at the pictures.

        Args:
            last: of the final choice, which takes more time: losses of more pictures, and what they give away.
        """
        self._bench, self._features = bench, features
        self._count, self._steps, self._quantile, self._first_seed = samples, steps, quantile, first_seed
        trained = list({sample.piece: sample for sample in bench.samples}.values())
        self._size = usual_size(bench.samples)
        seen, real = plain_views(trained, mirrors=bench.config.flip), plain_views(held_out)
        self._unseen = at_most(real, _SOFTENED)
        self._of_trained, self._of_held_out = (
            view_features(views, features, bench.cache, self._size) for views in (seen, real)
        )
        # files lie in order, often by what they show, so their beginning is not like the whole
        self._told = [f"{bench.config.trigger} {sample.caption}".strip() for sample in evenly(trained, samples)]
        most = _MEASURED_AT_LAST if last else _MEASURED
        self._alike = min(most, len(trained), len(held_out))
        self._measured = [_evenly_first(side, self._alike, most if last else 0) for side in (trained, held_out)]

    @property
    def passes(self) -> int:
        """Samples that go through the network in one look; guidance takes every step twice."""
        return 2 * self._steps * self._count + DRAWS * sum(map(len, self._measured))

    @torch.no_grad()
    def __call__(self) -> Judged:
        """Makes samples and measures them."""
        network, learner = self._bench.network, self._bench.learner
        was_training = network.training
        network.eval()
        with learner.measuring():
            made = self._make()
            pictures = rearrange(made, "n h w c -> n c h w").float() / 255
            found = self._features(pictures)
            soft = features_as_soft(self._unseen, pictures, self._features, self._bench.cache, self._size)
            seen, unseen = self._losses()
        network.train(was_training)
        rate = copy_rate(found, self._of_trained, soft, quantile=self._quantile)
        quality = kernel_estimate(found, self._of_held_out)
        told = f"({self._features.name}, N={self._count})"
        spread = support(found, self._of_held_out)
        metrics = {
            f"kd{told}": quality.value, f"copy-rate{told}": rate.value, f"copy-rate-low{told}": rate.low,
            f"copy-rate-high{told}": rate.high, f"recall{told}": spread.recall, f"coverage{told}": spread.coverage,
            # as many of both, and so at the same noise, which goes by the place in the list
            f"loss-gap(N={2 * self._alike})": float(unseen[: self._alike].mean() - seen[: self._alike].mean()),
        }  # fmt: skip
        if quality.error is not None:
            metrics[f"kd-error{told}"] = quality.error
        if len(unseen) >= _FOR_MEMBERSHIP:
            attack, measured = membership(seen, unseen), f"(N={len(seen) + len(unseen)})"
            metrics[f"membership-loss{measured}"] = attack.auc
            metrics[f"membership-loss-tpr{measured}"] = attack.true_positive_rate
        shown = torch.stack(at_most(made.cpu().unbind(), _SHOWN))
        return Judged(quality=quality.value, copying=rate.value, metrics=metrics, shown=shown)

    def _make(self) -> UInt8[Tensor, "n height width 3"]:
        seeds = range(self._first_seed, self._first_seed + self._count)
        return self._bench.family.sample_many(self._told, self._size, seeds, steps=self._steps)

    def _losses(self) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Of trained and of held-out pictures at the same noise: alike before training, and memorizing parts them."""
        learner, task = self._bench.learner, self._bench.learner.tasks[0]
        seen, unseen = (learner.losses_at_fixed_noise(side, task).mean(1) for side in self._measured)
        return seen, unseen


def _evenly_first(samples: Sequence[Sample], alike: int, most: int) -> list[Sample]:
    """So many that are spread over all, and after these others, up to `most`."""
    first = evenly(samples, alike)
    chosen = {id(sample) for sample in first}
    return [*first, *[sample for sample in samples if id(sample) not in chosen]][: max(alike, most)]
