"""The charts of a study: every checkpoint with the front, what was won, and a mask as a picture of the network."""

from collections.abc import Sequence
from typing import Any, Final

import altair as alt

from studio.mask_grid import Cell
from studio.study_view import StudyView

CLICK: Final = "point"
"""The name of the selection in the front's chart; it holds the names of points."""
_ROLES: Final = ["front", "anchor", "other"]
_COLORS: Final = ["#e4572e", "#4c78a8", "#9aa0a6"]
"""Seen on light and on dark ground, and told apart by the colour blind; the shapes differ as well."""
_BACKGROUND: Final = 0.05
"""Of copy rates: what there is without any copying."""


def front_chart(view: StudyView, *, limit: float | None, marked: str | None) -> Any:
    """Every checkpoint by copy rate and quality: front, anchors, the recommended one, and the limit."""
    quality, copying = view.objectives
    data = alt.Data(
        values=[
            {"name": d.name, "trial": d.trial, "step": d.step, "quality": d.quality, "copying": d.copying,
             "role": d.role, "share": d.share, "why": d.why}
            for d in view.dots
        ]
    )  # fmt: skip
    across = alt.X("copying:Q", title=f"{copying}, less is better", scale=alt.Scale(zero=True))
    up = alt.Y("quality:Q", title=f"{quality}, less is better", scale=alt.Scale(zero=False, padding=12))
    click = alt.selection_point(name=CLICK, fields=["name"], on="click", empty=False)
    dots = (
        alt.Chart(data)
        .mark_point(filled=True, opacity=0.9)
        .encode(
            x=across,
            y=up,
            color=alt.Color(
                "role:N", scale=alt.Scale(domain=_ROLES, range=_COLORS), title=None, legend=alt.Legend(orient="top")
            ),
            shape=alt.Shape(
                "role:N", scale=alt.Scale(domain=_ROLES, range=["circle", "diamond", "circle"]), title=None
            ),
            size=alt.condition(click, alt.value(260), alt.value(90)),
            tooltip=[
                alt.Tooltip("name:N", title="point (trial:step)"),
                alt.Tooltip("quality:Q", format=".4f"),
                alt.Tooltip("copying:Q", format=".3f"),
                alt.Tooltip("share:Q", format=".0%", title="sites trained"),
                alt.Tooltip("why:N", title="proposed by"),
            ],
        )
        .add_params(click)
    )
    line = (
        alt.Chart(data)
        .transform_filter("datum.role == 'front'")
        .mark_line(interpolate="step-after", color=_COLORS[0], strokeWidth=1.5)
        .encode(x="copying:Q", y="quality:Q", order="copying:Q")
    )
    layers = [_rule(_BACKGROUND, "no copying", [2, 3]), line, dots]
    if limit is not None:
        layers.insert(0, _rule(limit, "limit", [6, 3]))
    if marked is not None:
        ring = alt.Chart(data).transform_filter(alt.datum.name == marked)
        layers.append(
            ring.mark_point(size=420, strokeWidth=2, color=_COLORS[0], filled=False).encode(
                x="copying:Q", y="quality:Q"
            )
        )
        layers.append(
            ring.mark_text(dy=-18, color=_COLORS[0], fontWeight="bold", text="recommended").encode(
                x="copying:Q", y="quality:Q"
            )
        )
    return alt.layer(*layers).properties(height=380)


def _rule(at: float, title: str, dash: list[int]) -> Any:
    data = alt.Data(values=[{"at": at, "title": title}])
    rule = alt.Chart(data).mark_rule(strokeDash=dash, color="#9aa0a6").encode(x="at:Q")
    text = alt.Chart(data).mark_text(align="left", dx=4, baseline="top", color="#9aa0a6")
    return rule + text.encode(x="at:Q", y=alt.value(2), text="title:N")


def won_chart(view: StudyView) -> Any:
    """The hypervolume after every trial."""
    data = alt.Data(values=[{"trials": trials, "volume": volume} for trials, volume in view.won])
    chart = alt.Chart(data).mark_line(interpolate="step-after", point=True, color=_COLORS[1])
    return chart.encode(
        x=alt.X("trials:Q", title="trials", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("volume:Q", title="hypervolume", scale=alt.Scale(zero=False)),
        tooltip=["trials:Q", alt.Tooltip("volume:Q", format=".4f")],
    ).properties(height=200)


def mask_chart(cells: Sequence[Cell]) -> Any:
    """The network as a grid: a column for each block, in the order in which data goes through, a row for each kind."""
    data = alt.Data(
        values=[{"site": c.site, "block": c.block, "kind": c.kind, "place": c.place, "state":
                 "trained" if c.on else "frozen"} for c in cells]
    )  # fmt: skip
    blocks, kinds = list(dict.fromkeys(c.block for c in cells)), list(dict.fromkeys(c.kind for c in cells))
    chart = alt.Chart(data).mark_rect(cornerRadius=3, stroke="#9aa0a6", strokeWidth=1)
    return chart.encode(
        x=alt.X("block:N", sort=blocks, title="block", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("kind:N", sort=kinds, title=None),
        color=alt.Color("state:N", scale=alt.Scale(domain=["trained", "frozen"], range=[_COLORS[0], "#9aa0a622"]),
                        legend=None),
        tooltip=["site:N", "state:N"],
    ).properties(height=70 + 34 * len(kinds))  # fmt: skip
