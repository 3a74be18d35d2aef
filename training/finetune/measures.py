"""What generated pictures of captions are measured by, each beside what real pictures get in their place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.metrics.coverage import K, support, vendi_score
from training.metrics.features import FeatureSpace
from training.metrics.memorization import TooFewError
from training.metrics.quality import full_rank_frechet_distance, kernel_estimate

ENOUGH: Final = 50
"""Held-out pictures that samples can be compared to alone; with fewer, all real pictures stand for them."""

MEANINGS: Final = {
    "kd": f"kernel distance of the samples to the real pictures, held-out ones if there are {ENOUGH}; less is better",
    "kd-real": "kernel distance of the trained pictures to the held-out ones: what no model gets below",
    "fd": "Frechet distance of the samples to the real pictures; less is better",
    "precision": "share of the samples that look real; more is better",
    "recall": "share of the real pictures that the samples reach; more is better, little means collapse",
    "density": "how thickly real pictures lie around a sample; as much as the floor is best, little means unlike",
    "coverage": "share of the real pictures with a sample near them; more is better, little means collapse",
    "vendi": "how many different pictures the samples amount to; as many as the floor is best",
    "caption-retrieval": "share of the captions whose nearest sample, by the space's text tower, has that caption; "
    "more is better",
    "identity": "mean cosine of a sample to the real pictures of its caption; as much as the floor is best",
    "retrieval": "share of the samples whose nearest real picture has their caption; more is better",
    "drift": "1 - cosine of what the model makes of unrelated prompts to what it made of them before; less is better",
    "nearest": "mean cosine of a sample to the nearest trained picture; far above the floor means copies",
    "nearest-held-out": "the same of held-out pictures: what it is without any copying",
}
"""The scores by name, and what is better."""

LESS: Final = ("kd", "fd", "drift")
MORE: Final = ("precision", "recall", "coverage", "caption-retrieval", "retrieval")
BACKGROUND: Final = ("kd-real", "nearest-held-out")
"""Which way is better; of the others, as much as real pictures. A background says nothing of the model."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number, with all that its value depends on."""

    name: str
    """One of `MEANINGS`."""
    features: str
    """The space that it was measured in."""
    samples: int
    """How many pictures were generated for it."""
    value: float
    error: float | None = None
    """One standard error, where it is known."""
    real: int = 0
    """How many real pictures they were compared to."""
    k: int | None = None
    """Neighbours that were looked at."""
    floor: float | None = None
    """The same of real pictures in the place of the generated ones."""
    floor_error: float | None = None
    floor_samples: int | None = None
    """How many those were: as many as `samples` where there are that many."""

    @property
    def label(self) -> str:
        """Its whole name, such as coverage(pixels, N=64, k=3)."""
        return f"{self.name}({self.features}, N={self.samples}{f', k={self.k}' if self.k else ''})"

    @property
    def better(self) -> str:
        """Which way is better: less, more or as real; empty for a background."""
        ways = {**dict.fromkeys(LESS, "less"), **dict.fromkeys(MORE, "more"), **dict.fromkeys(BACKGROUND, "")}
        return ways.get(self.name, "as real")


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A score that so few pictures cannot tell."""

    name: str
    features: str
    reason: str
    """What it needs."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Pictures in a feature space, with their captions."""

    vectors: Float[Tensor, "n dim"]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: Int[Tensor, "m"]) -> "Shown":
        return Shown(vectors=self.vectors[index], captions=tuple(self.captions[k] for k in index.tolist()))

    def __add__(self, other: "Shown") -> "Shown":
        return Shown(vectors=torch.cat([self.vectors, other.vectors]), captions=self.captions + other.captions)


def measure(
    space: FeatureSpace, *, made: Shown, trained: Shown, held_out: Shown, k: int = K
) -> tuple[list[Score], list[Refused]]:
    """Measures generated pictures in one feature space.

    Scores of single pictures, and the kernel distance, which has no bias, are of all samples. What depends on how many
    pictures there are on each side is taken of as many samples as there are real pictures to take their place: those
    that were trained on where `ENOUGH` others were held out, else a random half of all.

    Args:
        k: neighbours for precision, recall, density and coverage.

    Raises:
        ValueError: there are fewer than two samples, or real pictures.
    """
    measures = _Measures(space, made=made, trained=trained, held_out=held_out, k=k)
    measures.distances()
    measures.support()
    measures.variety()
    measures.captions()
    measures.single()
    return measures.scores, measures.refused


class _Measures:
    def __init__(self, space: FeatureSpace, *, made: Shown, trained: Shown, held_out: Shown, k: int) -> None:
        self._space, self._made, self._trained, self._held_out, self._k = space, made, trained, held_out, k
        apart = len(held_out) >= ENOUGH
        self._real = held_out if apart else trained + held_out
        mixed = _mixed(trained if apart else self._real)
        half = len(mixed) if apart else len(mixed) // 2
        self._reference = held_out if apart else mixed[torch.arange(half, len(mixed))]
        self._count = min(len(made), half)
        self._some, self._others = (shown[torch.arange(self._count)] for shown in (_mixed(made), mixed))
        self._score = partial(Score, features=space.name)
        self.scores: list[Score] = []
        self.refused: list[Refused] = []

    def _refuse(self, names: Sequence[str], error: TooFewError) -> None:
        self.refused += [Refused(name=name, features=self._space.name, reason=str(error)) for name in names]

    def _unless_too_few(self, name: str, value: Callable[[Shown], float], real: int = 0) -> None:
        """A score of equally many samples and real pictures in their place."""
        try:
            ours, floor = value(self._some), value(self._others)
        except TooFewError as error:
            self._refuse([name], error)
            return
        count = self._count
        self.scores.append(
            self._score(name=name, samples=count, value=ours, real=real, floor=floor, floor_samples=count)
        )

    def distances(self) -> None:
        reference = self._reference.vectors
        found = kernel_estimate(self._made.vectors, self._real.vectors)
        enough = min(self._count, len(reference)) > 1
        floor = kernel_estimate(self._others.vectors, reference) if enough else None
        self.scores.append(
            self._score(
                name="kd", samples=len(self._made), value=found.value, error=found.error, real=len(self._real),
                floor=floor.value if floor else None, floor_error=floor.error if floor else None,
                floor_samples=self._count if floor else None,
            )
        )  # fmt: skip
        if len(self._held_out) > 1 and len(self._trained) > 1:
            found = kernel_estimate(self._trained.vectors, self._held_out.vectors)
            self.scores.append(
                self._score(
                    name="kd-real", samples=len(self._trained), value=found.value, error=found.error,
                    real=len(self._held_out),
                )
            )  # fmt: skip
        self._unless_too_few("fd", lambda some: full_rank_frechet_distance(some.vectors, reference), len(reference))

    def support(self) -> None:
        names = ("precision", "recall", "density", "coverage")
        try:
            ours, floor = (
                support(some.vectors, self._reference.vectors, k=self._k) for some in (self._some, self._others)
            )
        except TooFewError as error:
            self._refuse(names, error)
            return
        self.scores += [
            self._score(
                name=name, samples=ours.generated, value=getattr(ours, name), real=ours.real, k=ours.k,
                floor=getattr(floor, name), floor_samples=floor.generated,
            )
            for name in names
        ]  # fmt: skip

    def variety(self) -> None:
        self._unless_too_few("vendi", lambda some: vendi_score(some.vectors))

    def captions(self) -> None:
        if self._space.reads:
            self._unless_too_few("caption-retrieval", self._captions_found)

    def _captions_found(self, shown: Shown) -> float:
        captions = list(dict.fromkeys(shown.captions))
        if len(captions) < 2:
            raise TooFewError("captions are told apart by their pictures, but all have the same one")
        nearest = (self._space.texts(captions) @ shown.vectors.T).argmax(1).tolist()
        return sum(shown.captions[k] == own for k, own in zip(nearest, captions, strict=True)) / len(captions)

    def single(self) -> None:
        """What is a mean over pictures."""
        made, real, trained, held_out = self._made, self._real, self._trained, self._held_out
        captions = dict(zip(("identity", "retrieval"), _by_caption(made, real), strict=True))
        floors = dict(zip(captions, _by_caption(real, real, itself=False), strict=True))
        if len(set(real.captions)) < 2:
            del captions["retrieval"]
        self.scores += [
            self._score(
                name=name, samples=len(made), value=value, real=len(real), floor=floors[name],
                floor_samples=None if floors[name] is None else len(real),
            )
            for name, value in captions.items()
            if value is not None
        ]  # fmt: skip
        near = float((made.vectors @ trained.vectors.T).amax(1).mean())
        floor = float((held_out.vectors @ trained.vectors.T).amax(1).mean()) if len(held_out) > 1 else None
        held = None if floor is None else len(held_out)
        self.scores.append(
            self._score(
                name="nearest", samples=len(made), value=near, real=len(trained), floor=floor, floor_samples=held
            )
        )
        if floor is not None:
            self.scores.append(
                self._score(name="nearest-held-out", samples=len(held_out), value=floor, real=len(trained))
            )


def _mixed(shown: Shown) -> Shown:
    """In an order that is always the same, but not theirs, as neighbours in a folder are alike."""
    return shown[torch.randperm(len(shown), generator=torch.Generator().manual_seed(0))]


def _by_caption(shown: Shown, real: Shown, *, itself: bool = True) -> tuple[float | None, float | None]:
    """Mean cosine to the real pictures of the own caption, and share whose nearest has it; of those that have some.

    Args:
        itself: whether a picture that is in both counts.
    """
    alike = shown.vectors @ real.vectors.T
    same = torch.tensor([[a == c for c in real.captions] for a in shown.captions])
    if not itself:
        same.fill_diagonal_(False)
        alike.fill_diagonal_(-torch.inf)
    has = same.any(1)
    if not has.any():
        return None, None
    own = alike.masked_fill(~same, 0).sum(1)[has] / same.sum(1)[has]
    found = same[torch.arange(len(shown)), alike.argmax(1)][has]
    return float(own.mean()), float(found.double().mean())
