"""Draws a study: how far it is, its front, the point that was clicked, and what can be done with it."""

from pathlib import Path
from typing import Any

import streamlit as st

from studio.errors import RequestError
from studio.jobs import Job
from studio.search_form import best_words, duration, more_toml, search_words
from studio.studies import LEDGER, Place, setup_of
from studio.study_view import NO_LIMIT, StudyView, left_of, view_of
from studio.ui import shell
from studio.ui.search_charts import CLICK, front_chart, won_chart
from studio.ui.search_point import choose_point, draw_point
from studio.ui.text import plain
from training.finetune.searching.settings import SearchSettings


def draw_study(page: str, place: Place, jobs: list[Job]) -> None:
    """Draws a study with the jobs that work on it."""
    at_work = [job for job in jobs if job.is_open]
    for job in at_work:
        shell.watch(job.id)
    if jobs and not at_work and jobs[0].state in ("failed", "cancelled"):
        st.error(plain(jobs[0].error or "The search was cancelled. Try again goes on where it stopped."),
                 icon=":material/error:")  # fmt: skip
        shell.job_buttons(jobs[0], page=page)
    if at_work:
        _draw_live(page, place)
    else:
        _draw_still(page, place)
    _draw_more(page, place, jobs)


@st.fragment(run_every="3s")
def _draw_live(page: str, place: Place) -> None:
    _draw_still(page, place)


def _draw_still(page: str, place: Place) -> None:
    if place.storage is None and not (place.folder / LEDGER).is_file():
        st.info("Nothing is measured yet: the model is loaded and the pictures are encoded first.",
                icon=":material/hourglass:")  # fmt: skip
        return
    try:
        limit = _choose_limit(page, view_of(place))
        view = view_of(place, limit=limit)
    except RequestError as error:
        st.error(plain(error), icon=":material/error:")
        return
    _draw_numbers(view)
    if not view.dots:
        st.info("Nothing is measured yet. The first point appears when the first trial has made its pictures.",
                icon=":material/hourglass:")  # fmt: skip
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        _draw_front(page, view, limit)
    with right:
        name = choose_point(page, view)
        if name is None:
            st.caption("No point is within the limit. Raise it, or choose a point.")
        else:
            draw_point(page, view, name)
    _draw_tables(view)


def _choose_limit(page: str, view: StudyView) -> float:
    key = f"{page}.limit.{view.place.folder}"
    if key not in st.session_state:
        st.session_state[key] = NO_LIMIT if view.limit is None else view.limit
    info = SearchSettings.model_fields["limit"]
    limit = st.slider(
        "Highest copy rate",
        0.0,
        NO_LIMIT,
        step=0.01,
        width=480,
        key=key,
        persist_state="session",
        help=f"{info.description} At 1 there is no limit, and the knee of the front is recommended.",
    )
    return float(limit)


def _draw_numbers(view: StudyView) -> None:
    volume = f"{view.won[-1][1]:.4g}" if view.won else "not yet"
    left = left_of(view)
    facts = st.columns(4)
    facts[0].metric("Trials", view.trials, help=f"{len(view.running)} in training, {len(view.failed)} failed")
    facts[1].metric("Steps", f"{view.steps:,}")
    facts[2].metric("Time", duration(view.seconds) if view.seconds else "none yet", help="Of training and measuring.")
    facts[3].metric("Hypervolume", volume, help="The area that the front covers; more is better.")
    rest = "" if left is None else f"; about {duration(left)} left"
    st.progress(view.used, text=f"{view.used:.0%} of {view.budget} used by {view.strategy}{rest}")
    for number, reason in view.failed[:5]:
        st.warning(f"Trial {number} failed: {plain(reason)}", icon=":material/warning:")


def _draw_front(page: str, view: StudyView, limit: float) -> None:
    shown = None if limit >= NO_LIMIT else limit
    key = f"{page}.front.{view.place.folder}"
    st.altair_chart(front_chart(view, limit=shown, marked=view.recommended), key=key, width="stretch",
                    on_select=lambda: _clicked(page, key), selection_mode=CLICK)  # fmt: skip
    st.caption("Every checkpoint of every trial. Less is better in both directions: the front is what no other one "
               "beats. Click a point to see what it trains.")  # fmt: skip
    if view.won:
        st.altair_chart(won_chart(view), width="stretch", key=f"{page}.won.{view.place.folder}")


def _clicked(page: str, key: str) -> None:
    """Shows the point that was clicked in the chart."""
    state: Any = st.session_state.get(key)
    found = (state or {}).get("selection", {}).get(CLICK) or []
    if found:
        st.session_state[f"{page}.point"] = str(found[0].get("name"))


def _draw_tables(view: StudyView) -> None:
    with st.expander(f"The front as a table, {len(view.rows)} points"):
        st.dataframe(
            [
                {"point": row.name, "kernel distance": row.quality, "copy rate": row.copying,
                 "final distance": (row.final or {}).get("quality"), "final copies": (row.final or {}).get("copying"),
                 "sites": row.sites_on, "trained numbers": row.trained, "rate": row.rate}
                for row in view.rows
            ], hide_index=True, width="stretch",
        )  # fmt: skip
        for file, kind in (("front.csv", "text/csv"), ("front.json", "application/json")):
            path = view.place.folder / file
            if path.is_file():
                st.download_button(file, path.read_bytes(), f"{view.place.title}-{file}", kind, on_click="ignore",
                                   key=f"search.get.{file}", icon=":material/download:")  # fmt: skip


def _draw_more(page: str, place: Place, jobs: list[Job]) -> None:
    """Draws how a study goes on with a larger budget, and its commands."""
    setup = setup_of(place)
    at_work = any(job.is_open for job in jobs)
    with st.expander("Go on with a larger budget"):
        try:
            view = view_of(place)
        except RequestError:
            st.caption("The study has not begun yet.")
            return
        by_steps = view.budget_trials is None
        more = st.number_input(
            "More steps" if by_steps else "More trials",
            1,
            None,
            1000 if by_steps else 10,
            key=f"{page}.more",
            help="What is there counts; only what is new is trained.",
        )
        why_not = (
            "It is at work; its budget can grow when it has ended."
            if at_work
            else ""
            if setup
            else "The study's setup.json is missing; go on with the command that began it."
        )
        if st.button("Go on", key=f"{page}.go_on", icon=":material/playlist_add:", disabled=bool(why_not)):
            shell.told(_go_on, page, view, int(more), by_steps)
        if why_not:
            st.caption(why_not)
    with st.expander("The same from the command line"):
        if jobs:
            st.code(jobs[0].command, language="bash", wrap_lines=True)
        words = best_words(place, view.recommended or "0:0", Path("best.toml"))
        st.code(f"studio search show {place.folder}\nstudio {' '.join(words)}", language="bash", wrap_lines=True)


def _go_on(page: str, view: StudyView, more: int, by_steps: bool) -> None:
    place, setup = view.place, setup_of(view.place)
    folder = shell.queue().new_folder()
    file = folder / "search.toml"
    file.write_text(more_toml(setup), encoding="utf-8")
    whole = (view.budget_trials or view.budget_steps or 0) + more
    values: dict[str, Any] = {"budget_steps" if by_steps else "trials": whole, "strategy": view.strategy,
                              "output_dir": place.folder, "storage": place.storage, "name": view.name,
                              "seed": view.seed}  # fmt: skip
    job = shell.submit(search_words(file, values), folder=folder, title=f"search {place.title}, {more} more")
    shell.choose_job(page, job)
    st.rerun()
