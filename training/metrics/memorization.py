"""How much of what a model makes is copied from what it was trained on.

G are features of generated pictures, T of the trained ones, H of held-out ones of the same kind. Every figure has a
background: what it is for H, which nobody copied. A figure that so few pictures cannot tell is refused, not made up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from scipy.stats import beta, mannwhitneyu
from torch import Tensor

Features = Float[Tensor, "n dim"]
Pictures = Float[Tensor, "n 3 height width"]
Distances = Float[Tensor, "k"]


class TooFewError(ValueError):
    """There are too few pictures for a figure to mean anything."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share with its confidence interval and what it would be without any copying."""

    value: float
    low: float
    high: float
    """The 95 % interval of Clopper and Pearson."""
    background: float
    count: int
    """How many pictures it is a share of."""
    background_low: float
    background_high: float
    """The 95 % interval of the background, which is measured too: of few held-out pictures it is wide."""

    @property
    def hits(self) -> int:
        """How many pictures the share is."""
        return round(self.value * self.count)

    @property
    def above_background(self) -> bool:
        """The interval lies above that of what there is without copying."""
        return self.low > self.background_high

    @property
    def below_background(self) -> bool:
        """The interval lies below it."""
        return self.high < self.background_low


def share(hits: int, count: int, background: float, *, background_interval: tuple[float, float] | None = None) -> Rate:
    """A share with its interval; a background without one is known exactly."""
    low = float(beta.ppf(0.025, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, count - hits)) if hits < count else 1.0
    below, above = background_interval or (background, background)
    return Rate(
        value=hits / count, low=low, high=high, background=background, count=count, background_low=below,
        background_high=above,
    )  # fmt: skip


def share_beside(hits: int, count: int, unseen_hits: int, unseen: int) -> Rate:
    """A share beside the same one of pictures that nobody copied; of none of these the background is 0."""
    if not unseen:
        return share(hits, count, 0.0)
    beside = share(unseen_hits, unseen, 0.0)
    return share(hits, count, beside.value, background_interval=(beside.low, beside.high))


def _need(count: int, least: int, what: str, who: str) -> None:
    if count < least:
        raise TooFewError(f"{what} needs {least} {who} at least, there are {count}; add some or choose another figure")


def copy_rate(generated: Features, trained: Features, held_out: Features, *, quantile: float = 0.05) -> Rate:
    """Share of G nearer to T than `quantile` of H are: the quantile itself means no copying.

    Raises:
        TooFewError: fewer than 1 / quantile held-out pictures, so that the quantile is not between any.
    """
    return nearer_rate(_nearest(generated, trained), _nearest(held_out, trained), quantile=quantile)


def nearer_rate(generated: Distances, held_out: Distances, *, quantile: float = 0.05) -> Rate:
    """`copy_rate` of distances to the nearest of T, in whatever way they were measured.

    Raises:
        TooFewError: fewer than 1 / quantile held-out pictures, so that the quantile is not between any.
    """
    _need(len(held_out), math.ceil(1 / quantile), f"a copy rate at the {quantile:.0%} quantile", "held-out pictures")
    _need(len(generated), 2, "a copy rate", "generated pictures")
    # below the k-th of n draws lies a share of all pictures that is Beta(k, n + 1 - k), with the mean k / (n + 1)
    n = len(held_out)
    k = quantile * (n + 1)
    limit = held_out.double().quantile((k - 1) / (n - 1))
    low, high = (float(beta.ppf(q, k, n + 1 - k)) for q in (0.025, 0.975))
    hits = int((generated.double() < limit).sum())
    return share(hits, len(generated), quantile, background_interval=(low, high))


def _nearest(points: Features, others: Features) -> Float[Tensor, "n"]:
    return torch.cdist(points.double(), others.double()).amin(1)


def neighbour_ratio(generated: Features, trained: Features, *, limit: float = 1 / 3) -> Rate:
    """Share of G whose nearest of T is nearer than `limit` times the second one (arXiv 2310.02664).

    Duplicates in T hide copies from it, so take them out first. Its background is 0.

    Raises:
        TooFewError: fewer than two trained pictures.
    """
    _need(len(trained), 2, "a neighbour ratio", "trained pictures")
    first, second = torch.cdist(generated.double(), trained.double()).topk(2, largest=False).values.unbind(1)
    return share(int((first < limit * second).sum()), len(generated), 0.0)


def tiled_distance(first: Pictures, second: Pictures, *, tiles: int = 4) -> Float[Tensor, "n m"]:
    """The largest RMS difference over aligned tiles (Carlini et al. 2023, sec. 4.2), pictures in 0..1.

    As a mean over a tile's numbers it does not depend on its size: the usual limit of 20 for tiles of 56 px is 0.206.
    """
    cut = "n c (a h) (b w) -> n (a b) (c h w)"
    one, two = (rearrange(side, cut, a=tiles, b=tiles) for side in (first, second))
    size = one.shape[-1]
    each = [torch.cdist(one[:, k].double(), two[:, k].double()) / math.sqrt(size) for k in range(tiles**2)]
    return torch.stack(each).amax(0)


def cliques(alike: Bool[Tensor, "n n"], least: int) -> list[list[int]]:
    """The largest groups of pictures that are all alike to one another, of `least` or more, largest first.

    Extraction asks for these (Carlini et al. 2023, sec. 4.2): several seeds that make the same picture. The public
    MemControl code takes connected components, which join pictures that are nothing alike. A picture stands in one
    group only, the largest.
    """
    import networkx

    graph = networkx.from_numpy_array(np.triu(alike.numpy(), 1))
    found: list[list[int]] = []
    while True:
        largest: list[int] = max(networkx.find_cliques(graph), key=len, default=[])
        if len(largest) < least:
            return found
        found.append(sorted(largest))
        graph.remove_nodes_from(largest)


def components(alike: Bool[Tensor, "n n"], least: int) -> list[list[int]]:
    """Groups of `least` or more pictures that chains of alike ones join, for comparison with `cliques`."""
    import networkx

    found = networkx.connected_components(networkx.from_numpy_array(np.triu(alike.numpy(), 1)))
    return sorted((sorted(group) for group in found if len(group) >= least), key=len, reverse=True)


def data_copying(generated: Features, trained: Features, held_out: Features, *, cells: int = 5, seed: int = 0) -> float:
    """C_T (Meehan et al. 2020, arXiv 2004.05675): below -3 the model copies, above 3 it has not learned T.

    In each cell of a k-means of T, the z-scored Mann-Whitney statistic of the distances to T of G against those of H;
    the mean over cells, weighted by the share of H in them. Cells with fewer than ten of either count for nothing.

    Raises:
        TooFewError: no cell has ten of both.
    """
    centres = _k_means(trained, min(cells, len(trained)), seed)
    to_t = {name: _nearest(side, trained) for name, side in (("g", generated), ("h", held_out))}
    cell = {name: torch.cdist(side, centres).argmin(1) for name, side in (("g", generated), ("h", held_out))}
    scores, weights = [], []
    for k in range(len(centres)):
        own = {name: to_t[name][cell[name] == k].numpy() for name in ("g", "h")}
        n, m = len(own["g"]), len(own["h"])
        if min(n, m) < 10:
            continue
        wins = float(mannwhitneyu(own["g"], own["h"]).statistic)
        scores.append((wins - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))
        weights.append(m)
    if not scores:
        raise TooFewError(
            "C_T needs ten generated and ten held-out pictures in a cell; take fewer cells or more pictures"
        )
    return float(np.average(scores, weights=weights))


def _k_means(points: Features, count: int, seed: int, rounds: int = 25) -> Features:
    generator = torch.Generator().manual_seed(seed)
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(rounds):
        own = torch.cdist(points, centres).argmin(1)
        for k in range(count):
            if (own == k).any():
                centres[k] = points[own == k].mean(0)
    return centres


def authenticity(generated: Features, trained: Features) -> float:
    """AuthPct, 0..1 (arXiv 2102.08921; 2306.04675): share of G farther from its nearest of T than that is from T.

    Raises:
        TooFewError: fewer than two trained pictures.
    """
    _need(len(trained), 2, "authenticity", "trained pictures")
    within = torch.cdist(trained.double(), trained.double()).fill_diagonal_(torch.inf).amin(1)
    distance, index = torch.cdist(generated.double(), trained.double()).min(1)
    return float((distance >= within[index]).double().mean())


@dataclass(frozen=True, kw_only=True)
class Attack:
    """How well something tells trained pictures from held-out ones: 0.5 and 0.01 are luck."""

    auc: float
    true_positive_rate: float
    """At a false positive rate of 1 %."""
    members: int
    others: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the area (Hanley and McNeil 1982, eq. 2)."""
        area, n, m = self.auc, self.members, self.others
        one, two = area / (2 - area), 2 * area**2 / (1 + area)
        variance = area * (1 - area) + (n - 1) * (one - area**2) + (m - 1) * (two - area**2)
        reach = 1.96 * math.sqrt(max(variance, 0.0) / (n * m))
        return max(0.0, area - reach), min(1.0, area + reach)


def membership(members: Float[Tensor, "n"], others: Float[Tensor, "m"]) -> Attack:
    """An attack by a statistic that is smaller for trained pictures, such as a loss on fixed noise (or PIA's distance).

    Raises:
        TooFewError: fewer than 100 held-out pictures, so that 1 % of them is none.
    """
    _need(len(others), 100, "a rate at 1 % false positives", "held-out pictures")
    wins = float(mannwhitneyu(others.numpy(), members.numpy()).statistic)
    limit = others.double().sort().values[len(others) // 100 - 1]
    return Attack(
        auc=wins / (len(members) * len(others)),
        true_positive_rate=float((members.double() <= limit).double().mean()),
        members=len(members), others=len(others),
    )  # fmt: skip


def difference_interval(
    first: Float[Tensor, "n"], second: Float[Tensor, "m"], *, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % bootstrap interval of mean(first) - mean(second), pictures drawn anew on either side."""
    generator = torch.Generator().manual_seed(seed)

    def means(values: Tensor) -> Tensor:
        return values.double()[torch.randint(len(values), (rounds, len(values)), generator=generator)].mean(1)

    low, high = (means(first) - means(second)).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def memorization_distance(generated: Features, trained: Features) -> float:
    """AMD (arXiv 2106.03062): the mean over G of 1 - |cosine| to the nearest of T; larger means less copying.

    torchmetrics takes the minimum for every real picture instead; this is the definition's, for every generated one.
    """
    cosine = F.normalize(generated.double(), dim=1) @ F.normalize(trained.double(), dim=1).T
    return float((1 - cosine.abs()).amin(1).mean())


def memorization_informed(distance: float, amd: float, *, limit: float = 0.1) -> float:
    """MIFID: a Frechet distance, divided by AMD where that is below `limit`. It jumps there: never optimise it."""
    return distance / max(amd, 1e-12) if amd < limit else distance


def duplicates(features: Features, *, limit: float) -> list[tuple[int, int]]:
    """Pairs nearer than `limit`, nearest first."""
    distance = torch.cdist(features.double(), features.double())
    first, second = torch.triu_indices(len(features), len(features), 1)
    near = distance[first, second] < limit
    order = distance[first, second][near].argsort()
    return [(int(i), int(j)) for i, j in zip(first[near][order], second[near][order], strict=True)]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's, of planted repeats and what an audit says of them."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def correlation_interval(correlation: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a rank correlation of `count` pairs, by Fisher's z (Fieller et al. 1957)."""
    z = math.atanh(max(-0.999999, min(0.999999, correlation)))
    reach = 1.96 * math.sqrt(1.06 / max(count - 3, 1))
    return math.tanh(z - reach), math.tanh(z + reach)


def worst_pairs(generated: Features, trained: Features, count: int) -> Int[Tensor, "count 2"]:
    """The nearest pairs (generated, trained), one a generated picture."""
    distance, index = torch.cdist(generated.double(), trained.double()).min(1)
    order = distance.argsort()[:count]
    return torch.stack([order, index[order]], dim=1)
