"""Plots of results, as PNG files."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.comparison import Row


def quality_plot(rows: "Sequence[Row]", path: Path) -> None:
    """Draws how near each method came, by trained numbers and by what it changed of unrelated prompts."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(12, 5), layout="constrained")
    by_size, by_drift = figure.subplots(1, 2)
    methods: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "kd" in row.scores and row.trainable_parameters:
            methods[row.method].append(row)
    for number, (name, found) in enumerate(sorted(methods.items())):
        found.sort(key=lambda row: row.trainable_parameters or 0)
        style = {"marker": "osD^vP*Xh<>"[number % 11], "color": f"C{number % 10}", "label": name, "linewidth": 1}
        near = [row.scores["kd"] for row in found]
        by_size.plot([row.trainable_parameters or 0 for row in found], near, **style)
        by_drift.plot([row.scores["drift"] for row in found], near, **style)
    points = sorted((row.scores["drift"], row.scores["kd"]) for found in methods.values() for row in found)
    nearest_first = sorted(near for _, near in points)
    nearest = list(accumulate((near for _, near in points), min))
    by_drift.step([drift for drift, _ in points], nearest, where="post", color="0.85", linewidth=6, zorder=0)
    by_size.set(xscale="log", xlabel="trained numbers", ylabel="kernel distance to the real pictures (less is nearer)")
    by_drift.set(
        xlabel="drift of unrelated prompts (less is better)",
        ylabel="kernel distance (grey: the least at that drift or below)",
    )
    by_size.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    by_size.xaxis.set_major_formatter(EngFormatter(sep=""))
    by_size.xaxis.set_minor_formatter(NullFormatter())
    # a run that went astray would press all others together
    top = 3 * statistics.median(nearest_first) - 2 * nearest_first[0] if nearest_first else 0.0
    beyond = sorted(name for name, found in methods.items() if any(row.scores["kd"] > top for row in found))
    for axes in (by_size, by_drift):
        axes.grid(alpha=0.3)
        if beyond and top > nearest_first[0]:
            axes.set_ylim(nearest_first[0] - 0.05 * (top - nearest_first[0]), top)
            axes.set_title(f"above: {', '.join(beyond)}", fontsize=8, loc="right")
    if methods:
        # beside the points, which fill both halves when all methods are there
        handles = by_drift.get_legend_handles_labels()
        figure.legend(*handles, loc="outside right center", fontsize=7, labelspacing=0.3)
    figure.savefig(path, format="png", dpi=120)
