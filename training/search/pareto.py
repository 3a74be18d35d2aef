"""Which points are not beaten by another, how much they cover, and which one to take."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

P = TypeVar("P")
Objectives = tuple[float, float]
"""Two numbers, both better when smaller: quality (a distance) and memorization (a copy rate)."""


def front(points: Sequence[P], of: Callable[[P], Objectives]) -> list[P]:
    """The points that no other one equals or beats in both numbers, by the first; of equal ones the first given."""
    best, found = math.inf, []
    for point in sorted(points, key=lambda p: of(p)):
        if of(point)[1] < best:
            best = of(point)[1]
            found.append(point)
    return found


def hypervolume(points: Sequence[Objectives], reference: Objectives) -> float:
    """The area that lies behind at least one point and before the reference; exact in two dimensions.

    A point beyond the reference counts nothing.
    """
    inside = [p for p in points if p[0] < reference[0] and p[1] < reference[1]]
    area, ceiling = 0.0, reference[1]
    for x, y in front(inside, lambda p: p):
        area += (reference[0] - x) * (ceiling - y)
        ceiling = y
    return area


def knee(points: Sequence[P], of: Callable[[P], Objectives]) -> P:
    """The point of the front that lies deepest under the line between its two ends, both axes scaled to 0..1.

    Raises:
        ValueError: there are no points.
    """
    found = front(points, of)
    if not found:
        raise ValueError("there are no points to choose from")
    values = np.array([of(p) for p in found])
    span = np.ptp(values, axis=0)
    if len(found) < 3 or not span.all():
        # an end is no knee: the point nearest to the best of both
        scaled = (values - values.min(0)) / np.where(span > 0, span, 1)
        return found[int((scaled**2).sum(1).argmin())]
    scaled = (values - values.min(0)) / span
    return found[int((scaled.sum(1)).argmin())]


def best_within(points: Sequence[P], of: Callable[[P], Objectives], limit: float) -> P | None:
    """The point of the best quality whose memorization is at most `limit`; None where there is none."""
    allowed = [p for p in points if of(p)[1] <= limit]
    return min(allowed, key=lambda p: of(p)) if allowed else None
