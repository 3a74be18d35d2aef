"""The timeline of the Pose page: how surely each part of the body is seen, frame by frame."""

from collections.abc import Sequence
from typing import Any, Final

import altair as alt

from studio.pose_table import LOOK_AT

PICKED: Final = "picked"
_SURE: Final = alt.Scale(domain=[0, 0.3, 0.6, 1], range=["#b23a48", "#e08e45", "#d9c45b", "#2a9d8f"], clamp=True)
_DOUBT: Final = "#a06cd5"


def timeline_chart(rows: list[dict[str, Any]], parts: Sequence[str], frame: int, num_frames: int) -> Any:
    """Draws the rows of `timeline_rows`: red is missing, green is sure, pale will be cut off; a line marks `frame`."""
    order = [*parts, LOOK_AT]
    row_px, font_px = (17, 11) if len(order) < 10 else (13, 9)
    across = alt.X("frame:Q", title=None, scale=alt.Scale(domain=[0, num_frames], nice=False),
                   axis=alt.Axis(grid=False, tickMinStep=1, format="d"))  # fmt: skip
    labels = alt.Axis(labelOverlap=False, labelFlush=False, labelBound=False, labelLimit=90, labelFontSize=font_px)
    down = alt.Y("part:N", sort=order, title=None, scale=alt.Scale(domain=order, paddingInner=0.12), axis=labels)
    pick = alt.selection_point(name=PICKED, fields=["frame"], on="click", clear=False, empty=False)
    sure = (
        alt.Chart(alt.Data(values=[row for row in rows if "sure" in row]))
        .mark_rect()
        .encode(
            x=across, x2="until:Q", y=down,
            color=alt.Color("sure:Q", scale=_SURE, legend=None),
            opacity=alt.condition("datum.kept", alt.value(1), alt.value(0.25)),
            tooltip=[alt.Tooltip("part:N"), alt.Tooltip("frame:Q"), alt.Tooltip("sure:Q", format=".2f")],
        )
        .add_params(pick)
    )  # fmt: skip
    doubts = (
        alt.Chart(alt.Data(values=[row for row in rows if "why" in row]))
        .mark_rect(color=_DOUBT)
        .encode(x=across, x2="until:Q", y=down, tooltip=[alt.Tooltip("frame:Q"), alt.Tooltip("why:N")])
    )
    here = (
        alt.Chart(alt.Data(values=[{"frame": frame + 0.5}]))
        .mark_rule(color="#4c8dff", strokeWidth=2)
        .encode(x=alt.X("frame:Q", scale=alt.Scale(domain=[0, num_frames], nice=False)))
    )
    return alt.layer(sure, doubts, here).properties(height=row_px * len(order) + 24)


def picked_frame(event: Any) -> int | None:
    """The frame that was clicked on, or None."""
    selection = (event or {}).get("selection", {}).get(PICKED) or []
    found = selection[0].get("frame") if selection and isinstance(selection[0], dict) else None
    return int(found) if isinstance(found, int | float) else None
