"""The Compare page: videos in step, adapters at the same seeds, methods under the same budget."""

from typing import Final

import streamlit as st

from studio.ui import shell
from studio.ui.compare_methods import draw_methods
from studio.ui.compare_player import choose_videos, draw_player
from studio.ui.compare_sides import draw_sides

PAGE: Final = "compare"
PLAYER: Final = "Videos in step"
SIDES: Final = "Adapters at the same seeds"
METHODS: Final = "Methods under the same budget"


def draw() -> None:
    """Draws the page."""
    st.title("Compare")
    handed = shell.take_over(PAGE)
    key = f"{PAGE}.view"
    if videos := handed.get("videos"):
        choose_videos(PAGE, [str(video) for video in videos])
        st.session_state[key] = PLAYER
    if key not in st.session_state:
        asked = {"sides": SIDES, "methods": METHODS}.get(st.query_params.get("view", ""), PLAYER)
        st.session_state[key] = asked
    if wanted := st.session_state.pop(f"{PAGE}.go_to", None):
        st.session_state[key] = wanted
    view = st.segmented_control("View", [PLAYER, SIDES, METHODS], key=key, persist_state="session", required=True,
                                label_visibility="collapsed")  # fmt: skip
    if view == SIDES:
        st.query_params["view"] = "sides"
        draw_sides(PAGE)
    elif view == METHODS:
        st.query_params["view"] = "methods"
        draw_methods(PAGE)
    else:
        st.query_params.pop("view", None)
        draw_player(PAGE)
