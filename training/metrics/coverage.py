"""How many generated pictures look real, and how many of the real ones they stand for; by neighbours, not Gaussians.

G are features of generated pictures, R of real ones. The ball of a point reaches to its k-th nearest neighbour among
its own kind. A distance says that two sets differ; these say in which way: copies and blur keep precision high and
lose recall and coverage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from training.metrics.memorization import TooFewError

Features = Float[Tensor, "n dim"]

K: Final = 3
"""Neighbours of a ball, as in Kynkaanniemi et al. 2019; Naeem et al. 2020 take 5."""
_ROWS: Final = 1024
"""Points whose distances are held at once."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """Two sets beside each other. Values compare only at equal k, and equal numbers of both."""

    precision: float
    """Share of G that lie in a ball of R (Kynkaanniemi et al. 2019, arXiv 1904.06991, sec. 3)."""
    recall: float
    """Share of R that lie in a ball of G (the same)."""
    density: float
    """Balls of R around a point of G, over k; 1 for sets of one kind (Naeem et al. 2020, arXiv 2002.09797, eq. 2)."""
    coverage: float
    """Share of the balls of R that hold a point of G (the same, eq. 3)."""
    k: int
    generated: int
    real: int


def support(generated: Features, real: Features, *, k: int = K) -> Support:
    """All four.

    Raises:
        TooFewError: a side has fewer than 2k + 1 points, so that a ball holds half of them.
    """
    _check(generated, real, k)
    hits, held, near = 0, 0, 0
    reach = _reach(real, k)
    filled = torch.zeros(len(real), dtype=torch.bool)
    for distance in _distances(generated, real):
        inside = distance <= reach
        hits += int(inside.any(1).sum())
        held += int(inside.sum())
        filled |= inside.any(0)
    reach = _reach(generated, k)
    for distance in _distances(real, generated):
        near += int((distance <= reach).any(1).sum())
    return Support(
        precision=hits / len(generated), recall=near / len(real), density=held / (k * len(generated)),
        coverage=float(filled.double().mean()), k=k, generated=len(generated), real=len(real),
    )  # fmt: skip


def coverage(generated: Features, real: Features, *, k: int = K) -> float:
    """Share of the balls of R that hold a point of G: the guard against collapse, as outliers of G cannot raise it.

    Raises:
        TooFewError: a side has fewer than 2k + 1 points.
    """
    return support(generated, real, k=k).coverage


def recall(generated: Features, real: Features, *, k: int = K) -> float:
    """Share of R that lie in a ball of G.

    Raises:
        TooFewError: a side has fewer than 2k + 1 points.
    """
    return support(generated, real, k=k).recall


def expected_coverage(generated: int, real: int, *, k: int = K) -> float:
    """The coverage of two sets of one kind, whatever the kind (Naeem et al. 2020, Lemma 2)."""
    empty = 1.0
    for i in range(1, k + 1):
        empty *= (real - i) / (real + generated - i)
    return 1 - empty


def vendi_score(features: Features) -> float:
    """How many different pictures a set amounts to, 1..n: exp of the entropy of the eigenvalues of its cosines over n.

    Friedman & Dieng 2023, arXiv 2210.02410, def. 3.1. It grows with n, so compare at equal numbers.

    Raises:
        TooFewError: the set is empty.
    """
    if not len(features):
        raise TooFewError("a Vendi score needs a picture at least, there are none")
    x = F.normalize(features.double(), dim=1)
    # the cosines and the smaller of the two products have the same eigenvalues above 0
    products = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    values = torch.linalg.eigvalsh(products / len(x)).clamp(min=0)
    return float(torch.special.entr(values).sum().exp())


def _check(generated: Features, real: Features, k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    least = 2 * k + 1
    if min(len(generated), len(real)) < least:
        raise TooFewError(
            f"precision, recall, density and coverage with {k} neighbours need {least} pictures a side, there are "
            f"{len(generated)} generated and {len(real)} real; generate or add some"
        )


def _distances(points: Features, others: Features) -> Iterator[Float[Tensor, "rows n"]]:
    """Of some points at a time; exact, as equal pictures must be at 0."""
    for some in points.double().split(_ROWS):
        yield torch.cdist(some, others.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _reach(points: Features, k: int) -> Float[Tensor, "n"]:
    """To the k-th neighbour; the first is the point itself."""
    return torch.cat([distance.kthvalue(k + 1, dim=1).values for distance in _distances(points, points)])
