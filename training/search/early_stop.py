"""When a trial need not go on, for only worse points can follow. Never on quality alone: early ranks say nothing."""

import itertools
from collections.abc import Sequence
from typing import Final

from training.search.trial import Point

PATIENCE: Final = 2
"""Checkpoints without a gain of quality while copying rises."""
COPYING_LOW: Final = "copy-rate-low"
"""How the name of the metric begins that holds the lower confidence bound of copying, where there is one."""


def why_stop(points: Sequence[Point], limit: float | None = None) -> str | None:
    """Why a trial with these checkpoints should stop; None if it should not.

    Either it copies more than `limit`, by the lower confidence bound where there is one, or copying rose at each of
    the last checkpoints while quality gained nothing.
    """
    points = [point for point in points if point.competes]
    if not points:
        return None
    last = points[-1]
    low = next((value for name, value in last.metrics.items() if name.startswith(COPYING_LOW)), last.copying)
    if limit is not None and low > limit:
        return f"copying is {low:.3g} at least, above the limit of {limit:g}"
    before, recent = points[:-PATIENCE], points[-PATIENCE - 1 :]
    if not before:
        return None
    rises = all(one.copying < two.copying for one, two in itertools.pairwise(recent))
    gains = min(p.quality for p in recent[1:]) < min(p.quality for p in before)
    if rises and not gains:
        return f"copying rose and quality gained nothing at {PATIENCE} checkpoints"
    return None
