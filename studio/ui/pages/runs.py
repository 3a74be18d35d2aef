"""The Runs page: the queue and the history of every kind of job, and runs that were started in a terminal."""

import streamlit as st

from studio.ui import shell
from studio.ui.runs.detail import draw_folder, draw_job
from studio.ui.runs.listing import PAGE, draw_folders, draw_list

_JOBS, _FOLDERS = "Jobs", "From a terminal"


def draw() -> None:
    """Draws the page."""
    st.title("Runs")
    _take_over()
    if "run" in st.query_params and f"{PAGE}.what" not in st.session_state:
        st.session_state[f"{PAGE}.what"] = _FOLDERS
    what = st.segmented_control("What", [_JOBS, _FOLDERS], key=f"{PAGE}.what", default=_JOBS, required=True,
                                label_visibility="collapsed", persist_state="session")  # fmt: skip
    if what == _FOLDERS:
        run = draw_folders()
        if run is not None:
            draw_folder(run)
        return
    st.query_params.pop("run", None)
    draw_list()
    job = shell.chosen_job(PAGE)
    if job is not None:
        st.divider()
        draw_job(job)
    elif sum(shell.queue().counts().values()):
        st.caption("Click on the left of a row to see its job.")


def _take_over() -> None:
    number = st.session_state.pop(f"{PAGE}.handed", {}).get("job")
    if isinstance(number, int):
        st.session_state[f"{PAGE}.what"] = _JOBS
        shell.choose_job(PAGE, shell.queue().job(number))
