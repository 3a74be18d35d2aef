"""One figure of an audit: a number with its interval, its background and what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from training.metrics.memorization import Attack, Rate, TooFewError

Verdict = Literal["copying", "no copying", "reported", "not measured"]

MEANINGS: Final = {
    "copy-rate": "share of the samples nearer to a trained picture than 95 % of held-out ones are",
    "copy-rate-blurred": "the same beside held-out pictures as soft as the samples: blur is no copying",
    "copy-rate-tiled": "the same by the largest difference of 16 tiles: copies pixel by pixel",
    "neighbour-ratio": "share of samples three times as near to one trained picture as to any other",
    "extraction": "share of groups of seeds of a caption that make one trained picture (cliques)",
    "extraction-components": "the same by chains of alike samples, as the public MemControl code counts",
    "c-t": "z of the samples' distances to trained pictures among those of held-out ones; below -3 is copying",
    "authenticity": "share of the samples farther from their nearest trained picture than that is from another one",
    "amd": "mean of 1 - cosine of a sample to the nearest trained picture; less is nearer. Reported, not judged",
    "mifid": "Frechet distance, divided by amd where that is below 0.1. Reported, not judged",
    "sscd": "mean similarity of a sample to the nearest trained picture, by a network made to find copies",
    "sscd-75": "the similarity that a quarter of the samples is above",
    "sscd-90": "the similarity that a tenth of the samples is above",
    "sscd-95": "the similarity that a twentieth of the samples is above",
    "sscd-above-half": "share of the samples that are more alike than 0.5 to a trained picture",
    "loss-gap": "how much higher the loss of held-out pictures is than that of trained ones, at the same noise",
    "membership-loss": "how well the loss tells trained pictures from held-out ones: area under the curve",
    "membership-loss-tpr": "share of the trained pictures that the loss tells at 1 % false alarms",
    "membership-pia": "how well PIA tells trained pictures from held-out ones: area under the curve",
    "membership-pia-tpr": "share of the trained pictures that PIA tells at 1 % false alarms",
    "text-magnitude": "how much a trained caption changes what the network says (Wen). Reported, not judged",
    "canaries-nearest": "rank correlation of a canary's repeats with how near samples of its caption come",
    "canaries-loss": "rank correlation of a canary's repeats with how far its loss fell in the run",
    "canaries-pia": "rank correlation of a canary's repeats with how far its PIA distance fell in it",
}
"""The figures by name."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured number, or why there is none."""

    name: str
    """One of `MEANINGS`."""
    space: str
    """What it was measured in: a feature space, "pixels", "loss"."""
    count: int
    """How many pictures, groups or captions it is of."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """Its 95 % interval, where one is known."""
    background: float | None = None
    """What it is where nothing was copied."""
    background_low: float | None = None
    background_high: float | None = None
    """The 95 % interval of that, where it was measured."""
    verdict: Verdict = "reported"
    why: str = ""
    """Why it could not be measured."""

    @property
    def title(self) -> str:
        """The name with what its value depends on."""
        return f"{self.name}({self.space}, N={self.count})"

    @property
    def meaning(self) -> str:
        """One sentence for whoever does not know it."""
        return MEANINGS[self.name]


def attempt(name: str, space: str, count: int, make: Callable[[], Figure]) -> Figure:
    """The figure, or what it would need."""
    try:
        return make()
    except TooFewError as error:
        return Figure(name=name, space=space, count=count, verdict="not measured", why=str(error))


def of_rate(name: str, space: str, rate: Rate) -> Figure:
    """A share, which says copying where its interval lies above that of its background."""
    return Figure(
        name=name, space=space, count=rate.count, value=rate.value, low=rate.low, high=rate.high,
        background=rate.background, background_low=rate.background_low, background_high=rate.background_high,
        verdict="copying" if rate.above_background else "no copying",
    )  # fmt: skip


def of_attack(name: str, attack: Attack, before: Attack) -> tuple[Figure, Figure]:
    """The two figures of an attack. Their background is the same attack on the model as it was before the run."""
    low, high = attack.interval
    count = attack.members + attack.others
    area = Figure(
        name=name, space="loss", count=count, value=attack.auc, low=low, high=high, background=before.auc,
        # the model before the run has seen neither side, so what it tells apart is luck of the split
        verdict="copying" if low > max(0.5, before.auc) else "no copying",
    )  # fmt: skip
    caught = Figure(
        name=f"{name}-tpr", space="loss", count=count, value=attack.true_positive_rate,
        background=before.true_positive_rate,
    )  # fmt: skip
    return area, caught
