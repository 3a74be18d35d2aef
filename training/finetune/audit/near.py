"""How near samples come to trained pictures: by features, and pixel by pixel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from jaxtyping import Float
from torch import Tensor

from training.finetune.audit.figure import Figure, attempt, of_rate
from training.metrics.memorization import (
    Features,
    TooFewError,
    authenticity,
    cliques,
    components,
    copy_rate,
    data_copying,
    memorization_distance,
    memorization_informed,
    nearer_rate,
    neighbour_ratio,
    share,
    share_beside,
    tiled_distance,
)
from training.metrics.quality import frechet_distance

TILES_LIMIT: Final = 0.206
"""Carlini's and MemControl's 20 for tiles of 56 px, as a root mean square of 0..1."""
QUANTILE: Final = 0.05
"""Share of unseen pictures that are taken for copies."""
PERCENTILES: Final = (75, 90, 95)
"""Of the similarities, that are reported beside their mean."""
CLIQUE: Final = 3
"""Seeds that must make one picture."""
TELLS: Final = 3.0
"""The size of a z that is no chance."""


@dataclass(frozen=True, kw_only=True)
class Sets:
    """Features of the pictures that are compared, in one space."""

    space: str
    made: Features
    trained: Features
    once: tuple[int, ...]
    """The trained ones without near-duplicates."""
    held_out: Features
    blurred: Features
    """The held-out ones, as soft as the samples."""


def feature_figures(sets: Sets) -> list[Figure]:
    """All figures that need nothing but features."""
    count = len(sets.made)
    makers = {
        "copy-rate": lambda: _copy_rate("copy-rate", sets, sets.held_out),
        "copy-rate-blurred": lambda: _copy_rate("copy-rate-blurred", sets, sets.blurred),
        "neighbour-ratio": lambda: _neighbour_ratio(sets),
        "c-t": lambda: _data_copying(sets),
        "authenticity": lambda: _authenticity(sets),
        "amd": lambda: _distance(sets),
        "mifid": lambda: _informed(sets),
    }
    return [attempt(name, sets.space, count, make) for name, make in makers.items()]


def _copy_rate(name: str, sets: Sets, held_out: Features) -> Figure:
    return of_rate(name, sets.space, copy_rate(sets.made, sets.trained, held_out))


def _neighbour_ratio(sets: Sets) -> Figure:
    once = sets.trained[list(sets.once)]
    rate = neighbour_ratio(sets.made, once)
    unseen = neighbour_ratio(sets.held_out, once) if len(sets.held_out) else None
    beside = (unseen.hits, unseen.count) if unseen else (0, 0)
    return of_rate("neighbour-ratio", sets.space, share_beside(rate.hits, rate.count, *beside))


def _data_copying(sets: Sets) -> Figure:
    z = data_copying(sets.made, sets.trained, sets.held_out)
    return Figure(
        name="c-t", space=sets.space, count=len(sets.made), value=z, background=0.0,
        verdict="copying" if z < -TELLS else "no copying",
    )  # fmt: skip


def _authenticity(sets: Sets) -> Figure:
    sides = (sets.made, sets.held_out)
    hits, unseen = (round(authenticity(side, sets.trained) * len(side)) if len(side) else 0 for side in sides)
    rate = share_beside(hits, len(sets.made), unseen, len(sets.held_out))
    figure = of_rate("authenticity", sets.space, rate)
    if not len(sets.held_out):
        return replace(figure, background=None, background_low=None, background_high=None, verdict="reported")
    # authentic is what is not copied, so here it is the interval below the background that says copying
    return replace(figure, verdict="copying" if rate.below_background else "no copying")


def _distance(sets: Sets) -> Figure:
    unseen = memorization_distance(sets.held_out, sets.trained) if len(sets.held_out) else None
    value = memorization_distance(sets.made, sets.trained)
    return Figure(name="amd", space=sets.space, count=len(sets.made), value=value, background=unseen)


def _informed(sets: Sets) -> Figure:
    least = 2 * sets.made.shape[1] + 1
    for side, who in ((sets.made, "samples"), (sets.trained, "trained pictures")):
        if len(side) < least:
            raise TooFewError(
                f"a Frechet distance in {sets.made.shape[1]} dimensions needs {least} {who}, there are {len(side)}"
            )
    value = memorization_informed(
        frechet_distance(sets.made, sets.trained), memorization_distance(sets.made, sets.trained)
    )
    return Figure(name="mifid", space=sets.space, count=len(sets.made), value=value)


def similarity_figures(sets: Sets) -> list[Figure]:
    """The figures of SSCD, as DCR reports them, beside those of held-out pictures."""
    made, unseen = ((side @ sets.trained.T).amax(1) for side in (sets.made, sets.held_out))
    known = len(unseen) > 0
    tails = [
        Figure(
            name=f"sscd-{percent}", space=sets.space, count=len(made), value=float(made.quantile(percent / 100)),
            background=float(unseen.quantile(percent / 100)) if known else None,
        )
        for percent in PERCENTILES
    ]  # fmt: skip
    above = share_beside(int((made > 0.5).sum()), len(made), int((unseen > 0.5).sum()), len(unseen))
    mean = Figure(
        name="sscd", space=sets.space, count=len(made), value=float(made.mean()),
        background=float(unseen.mean()) if known else None,
    )  # fmt: skip
    return [mean, *tails, of_rate("sscd-above-half", sets.space, above)]


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiled distances of pictures to all trained ones."""

    made: Float[Tensor, "n trained"]
    held_out: Float[Tensor, "h trained"]
    blurred: Float[Tensor, "h trained"]

    @property
    def limit(self) -> float:
        """Below it two pictures are one: the usual limit, or less where held-out ones, blurred or not, come as near."""
        if len(self.held_out) < 1 / QUANTILE:
            return TILES_LIMIT
        return min(TILES_LIMIT, *(float(s.amin(1).quantile(QUANTILE)) for s in (self.held_out, self.blurred)))


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What groups of seeds made."""

    same: tuple[bool, ...]
    """Several of its seeds made one picture."""
    by_cliques: tuple[bool, ...]
    """And it was trained."""
    by_components: tuple[bool, ...]
    """The same of chains of alike pictures."""


def pixel_figures(tiles: Tiles, made: Sequence[Tensor], held_out: Sequence[Tensor]) -> tuple[list[Figure], Extracted]:
    """The tiled copy rate, and extraction by groups of seeds.

    Args:
        made: the samples in groups of one caption, in the order of `tiles`.
        held_out: held-out pictures in groups of one caption, as long as those: what extraction is by chance.
    """
    count = len(tiles.made)
    rate = attempt(
        "copy-rate-tiled", "pixels", count,
        lambda: of_rate("copy-rate-tiled", "pixels", nearer_rate(tiles.made.amin(1), tiles.held_out.amin(1))),
    )  # fmt: skip
    found = extract(tiles.made, made, tiles.limit)
    chance = extract(tiles.held_out, held_out, tiles.limit)
    figures = [rate]
    for name, ours, theirs in (
        ("extraction", found.by_cliques, chance.by_cliques),
        ("extraction-components", found.by_components, chance.by_components),
    ):
        make = partial(_extraction, name, ours, theirs, sum(found.same))
        figures.append(attempt(name, "pixels", len(ours), make))
    return figures, found


def _extraction(name: str, found: Sequence[bool], chance: Sequence[bool], same: int) -> Figure:
    if not found:
        raise TooFewError(
            f"extraction needs groups of {CLIQUE} seeds of one caption at least; raise --seeds-per-caption"
        )
    # where seeds make one picture that is none of the trained ones, it is as near to those as unseen ones are
    unseen = max(sum(chance) / len(chance) if chance else 0.0, QUANTILE * same / len(found))
    figure = of_rate(name, "pixels", share(sum(found), len(found), unseen))
    return figure if name == "extraction" else replace(figure, verdict="reported")


def extract(to_trained: Float[Tensor, "n trained"], groups: Sequence[Tensor], limit: float) -> Extracted:
    """Which groups have `CLIQUE` pictures that are one, and one of these a trained picture."""
    at = 0
    same, by_cliques, by_components = [], [], []
    for group in groups:
        own = to_trained[at : at + len(group)].amin(1) < limit
        at += len(group)
        if len(group) < CLIQUE:
            continue
        alike = tiled_distance(group, group) < limit
        groups_of_one = cliques(alike, CLIQUE)
        same.append(bool(groups_of_one))
        by_cliques.append(any(bool(own[members].any()) for members in groups_of_one))
        by_components.append(any(bool(own[members].any()) for members in components(alike, CLIQUE)))
    return Extracted(same=tuple(same), by_cliques=tuple(by_cliques), by_components=tuple(by_components))
