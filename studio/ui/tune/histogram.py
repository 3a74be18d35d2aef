"""The histogram of |w|, with what SaRA trains of it."""

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import numpy as np
import streamlit as st
from numpy.typing import NDArray

from studio.threshold import Choice, chosen, layer_shares, spread
from studio.ui.text import plain
from studio.weight_histogram import WeightHistogram

_BARS: Final = 90
_TRAINED: Final = "#d6455a"
_REST: Final = "#8f98a8"
_IS: Final = ("trained", "as it is")


@st.cache_data(max_entries=8, show_spinner=False)
def _grid(low: float, high: float) -> list[float]:
    return [float(f"{value:.3g}") for value in np.geomspace(low, high, 241)]


def thresholds(found: WeightHistogram) -> list[float]:
    """Where the slider stops: from where one weight in 100,000 is smaller to the largest."""
    low, high = spread(found)
    return _grid(low, high)


def draw_histogram(
    found: WeightHistogram, inside: NDArray[np.bool_], values: Mapping[str, Any], *, share: float | None
) -> None:
    """Draws how many weights are trained, and which.

    Args:
        values: SaRA's options.
        share: of the whole network, which goes before them.
    """
    if not inside.any():
        st.warning("No tensor's name fits the scope; the run will look at the modules themselves.")
        return
    choice = chosen(found, inside, values, share=share)
    _draw_figures(found, choice)
    st.altair_chart(_chart(found, inside, choice), width="stretch", height=210)
    st.caption(_words(found, choice, bool(inside.all())))
    with st.expander("Share that is trained, layer by layer"):
        rows = layer_shares(found, inside, choice)
        bars = alt.Chart(alt.Data(values=rows)).mark_bar(color=_TRAINED).encode(
            x=alt.X("share:Q", axis=alt.Axis(format="%"), title="trained"), y=alt.Y("layer:N", sort=None, title=None),
            tooltip=["layer:N", alt.Tooltip("share:Q", format=".2%"), alt.Tooltip("trained:Q", format=",")],
        )  # fmt: skip
        st.altair_chart(bars, width="stretch", height=60 + 18 * len(rows))


def _draw_figures(found: WeightHistogram, choice: Choice) -> None:
    from training.methods.sara import learning_rate_of

    trained, limit, rate = st.columns(3)
    share = f"{choice.count / found.total:.2%} of the network"
    trained.metric("Trained", f"{choice.count:,}", share, delta_color="off", delta_arrow="off")
    limit.metric("|w| below", f"{choice.threshold:.3g}")
    rate.metric("Its learning rate", f"{learning_rate_of(choice.fraction):.1e}",
                help="SaRA's own for this share; a rate in the budget goes before it.")  # fmt: skip


def _words(found: WeightHistogram, choice: Choice, everywhere: bool) -> str:
    words = [f"Of {found.total:,} weights"]
    if not everywhere:
        words.append("those in the scope, by their tensors' names")
    if found.is_sampled:
        words.append(f"an even sample of {found.read:,} was counted, so figures are about right")
    if found.unread:
        words.append(f"{found.unread:,} of 8 bits or fewer are not counted")
    if choice.held_back:
        words.append(f"the cap keeps {choice.held_back:,} back")
    return plain("; ".join(words)) + ". Halfway, those that came to matter are left as they are."


def _chart(found: WeightHistogram, inside: NDArray[np.bool_], choice: Choice) -> Any:
    low, high = spread(found)
    edges = sorted({*np.geomspace(low, high, _BARS + 1).tolist(), choice.threshold})
    rows = [
        {"low": edges[k], "high": edges[k + 1], "weights": max(0.0, count), "none": 0,
         "is": _IS[0] if edges[k + 1] <= choice.threshold * 1.0000001 else _IS[1]}
        for k, count in enumerate(found.bars(edges, inside=inside)) if edges[k + 1] > edges[k]
    ]  # fmt: skip
    axis = alt.Axis(format=".0e", tickCount=6)
    size = alt.X("low:Q", scale=alt.Scale(type="log", domain=[low, high], nice=False), title="|w|", axis=axis)
    # by the root: what SaRA trains would be a line on the ground else
    height = alt.Y("weights:Q", title="weights", scale=alt.Scale(type="sqrt"), axis=alt.Axis(format="~s", tickCount=4))
    colors = alt.Scale(domain=list(_IS), range=[_TRAINED, _REST])
    legend = alt.Legend(orient="top-left", title=None)
    told = [alt.Tooltip("low:Q", format=".2e"), alt.Tooltip("high:Q", format=".2e")]
    bars = alt.Chart(alt.Data(values=rows)).mark_rect(stroke=None).encode(
        x=size, x2="high:Q", y=height, y2="none:Q", color=alt.Color("is:N", scale=colors, legend=legend),
        tooltip=[*told, alt.Tooltip("weights:Q", format=",.0f")],
    )  # fmt: skip
    here = alt.Chart(alt.Data(values=[{"threshold": choice.threshold}]))
    return alt.layer(bars, here.mark_rule(strokeDash=[4, 3], color=_TRAINED).encode(x="threshold:Q"))
