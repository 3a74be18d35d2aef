"""Series of a run, ready to be drawn: smoothed, thinned, in rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from studio.run_reading import RunLog, smooth, thinned

MOST_POINTS: Final = 800


def loss_rows(log: RunLog, names: Sequence[str], weight: float, *, most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """Rows of step, name, value and smoothed value; smoothed over all steps, and thinned after that."""
    places = thinned(len(log.steps), most)
    rows = []
    for name in names:
        values = log.losses.get(name, [])
        smoothed = smooth(values, weight)
        rows += [
            {"step": log.steps[k], "loss": name, "raw": values[k], "smoothed": smoothed[k]}
            for k in places if values[k] is not None
        ]  # fmt: skip
    return rows


def metric_rows(log: RunLog) -> list[dict[str, Any]]:
    """Rows of step, metric and value, of every measurement on held-out data."""
    return [
        {"step": step, "metric": name, "value": value}
        for step, metrics in sorted(log.evaluated.items())
        for name, value in metrics.items()
    ]


def guard_rows(log: RunLog) -> list[dict[str, Any]]:
    """Rows of the guard's looks: the share of copies, its interval, what luck gives, the gap of losses."""
    names = ("copy_rate", "low", "high", "background", "background_high", "loss_gap", "action")
    return [{"step": step, **{name: look.get(name) for name in names}} for step, look in sorted(log.guarded.items())]


def step_rows(log: RunLog, *, most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """Rows of step, learning rate and seconds."""
    return [
        {"step": log.steps[k], "learning rate": log.rates[k], "seconds": log.seconds[k]}
        for k in thinned(len(log.steps), most)
    ]


def grid_of(steps: Sequence[int], most: int = 12) -> list[int]:
    """The steps whose samples are shown together: all, or so many evenly spread."""
    return [steps[k] for k in thinned(len(steps), most)]


def seconds_left(log: RunLog) -> float | None:
    """How long the rest will take at the pace of the last steps; None where nothing is known."""
    recent = sorted(log.seconds[-50:])
    if not recent or not log.total_steps:
        return None
    return recent[len(recent) // 2] * max(0, log.total_steps - log.step)


def shown_size(picture: Path, *, most: int = 1200) -> tuple[int, float]:
    """How wide a picture of samples is shown, and its width by its height: small ones grow, but not to blocks."""
    try:
        with Image.open(picture) as image:
            width, height = image.size
    except OSError:
        return most, 1.0
    return max(1, min(most, width * 4, round(480 * width / max(1, height)))), width / max(1, height)
