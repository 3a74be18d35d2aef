"""Pictures of a search: every checkpoint with the front among them, and what its points train."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.search_report import Row
    from training.search.study import Study

_BACKGROUND = 0.05
"""Of copy rates at the usual quantile: what there is without any copying."""


def front_plot(study: "Study", rows: "Sequence[Row]", chosen: str | None, path: Path) -> None:
    """Draws every checkpoint by its two objectives, lines along each trial, and the front."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for trial in study.trials():
        across, up = (
            [getattr(point, name) for point in trial.points if point.competes] for name in ("quality", "copying")
        )
        share = sum(trial.candidate.mask) / max(1, len(trial.candidate.mask))
        axes.plot(across, up, color="0.8", linewidth=0.8, zorder=1)
        drawn = axes.scatter(across, up, c=[share] * len(up), cmap="viridis", vmin=0, vmax=1, s=18, zorder=2)
    if rows:
        across, up = [row.quality for row in rows], [row.copying for row in rows]
        axes.step(across, up, where="post", color="C3", linewidth=1.5, label="front", zorder=3)
        figure.colorbar(drawn, ax=axes, label="share of the sites that is trained")
    for row in rows:
        bold = "bold" if row.name == chosen else "normal"
        axes.annotate(
            row.name, (row.quality, row.copying), fontsize=7, fontweight=bold, xytext=(3, 3), textcoords="offset points"
        )
    axes.axhline(_BACKGROUND, color="0.5", linestyle=":", linewidth=1, label="no copying")
    if study.header.limit is not None:
        axes.axhline(study.header.limit, color="C1", linestyle="--", linewidth=1, label="limit")
    quality, copying = study.header.objectives
    axes.set(xlabel=f"{quality}, less is better", ylabel=f"{copying}, less is better")
    axes.set_ylim(-0.01, max(2 * _BACKGROUND, 1.05 * axes.get_ylim()[1]))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, format="png", dpi=120)


def masks_plot(sites: Sequence[str], rows: "Sequence[Row]", path: Path) -> None:
    """Draws a row for each point of the front and a column for each site, filled where it is trained."""
    from matplotlib.figure import Figure

    height = 1.6 + 0.28 * max(1, len(rows))
    figure = Figure(figsize=(max(5.0, 1.5 + 0.32 * len(sites)), height), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        on = [k for k, site in enumerate(sites) if site in row.sites]
        axes.scatter(range(len(sites)), [place] * len(sites), marker="s", s=70, facecolors="none", edgecolors="0.75")
        axes.scatter(on, [place] * len(on), marker="s", s=70, color="C0")
    labels = [f"{row.name}  kd {row.quality:.3f}, copies {row.copying:.2f}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.set_xticks(range(len(sites)), sites, rotation=90, fontsize=6)
    axes.invert_yaxis()
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path, format="png", dpi=120)
