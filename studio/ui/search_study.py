"""Draws a study: how far it is, its front, the point that was clicked, and what can be done with it."""

from pathlib import Path
from typing import Any, Final

import streamlit as st

from studio.errors import RequestError
from studio.jobs import Job, runs_folder
from studio.mask_grid import grid_of, in_words
from studio.search_best import settings_of_point, write_best
from studio.search_form import best_words, duration, more_toml, search_words
from studio.search_report import Row
from studio.studies import LEDGER, Place, setup_of
from studio.study_view import NO_LIMIT, StudyView, left_of, point_of, view_of
from studio.ui import shell
from studio.ui.search_charts import CLICK, front_chart, mask_chart, won_chart
from studio.ui.serve import typed_path
from studio.ui.text import plain
from training.finetune.searching.settings import SearchSettings

_RECOMMENDED: Final = "the recommended one"


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
        name = _choose_point(page, view)
        if name is None:
            st.caption("No point is within the limit. Raise it, or choose a point.")
        else:
            _draw_point(page, view, name)
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


def _choose_point(page: str, view: StudyView) -> str | None:
    names = [row.name for row in view.rows]
    key = f"{page}.point"
    chosen = st.session_state.get(key, _RECOMMENDED)
    if chosen != _RECOMMENDED and view.dot(chosen) is None:
        st.session_state[key] = _RECOMMENDED
    elif chosen not in (_RECOMMENDED, *names):
        names.append(chosen)
    options = [_RECOMMENDED, *names]
    found = st.selectbox(
        "Point",
        options,
        key=key,
        persist_state="session",
        format_func=lambda name: _worded(view, name),
        help="TRIAL:STEP. Those of the front are here; any other one can be clicked in the chart.",
    )
    return view.recommended if found == _RECOMMENDED else str(found)


def _worded(view: StudyView, name: str) -> str:
    dot = view.dot(view.recommended if name == _RECOMMENDED else name)
    if dot is None:
        return f"{name}: none"
    numbers = f"distance {dot.quality:.4f}, copies {dot.copying:.1%}"
    return f"{_RECOMMENDED}, {dot.name}: {numbers}" if name == _RECOMMENDED else f"{name}: {numbers}"


def _draw_point(page: str, view: StudyView, name: str) -> None:
    row = point_of(view.place, name)
    cells = grid_of(view.sites, row.sites)
    st.altair_chart(mask_chart(cells), width="stretch", key=f"{page}.mask")
    few = len(view.sites) <= 24
    told = plain(in_words(cells)) if few else f"{row.sites_on} of {len(cells)} sites are trained."
    st.caption(f"{told} Orange is trained; data goes through the blocks from left to right.")
    st.dataframe(
        _facts(row),
        hide_index=True,
        width="stretch",
        height="content",
        column_config={"what": st.column_config.TextColumn(""), "search": "in the search", "final": "final choice"},
    )
    st.caption("The final choice is measured on held-out pictures and seeds that the search never saw." if row.final
               else "The final choice comes at the end of the search, for the points of the front.")  # fmt: skip
    _draw_samples(view, row)
    _draw_train(page, view, row)


def _facts(row: Row) -> list[dict[str, str]]:
    final = row.final or {}
    values = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in row.values.items()}
    found = [
        {"what": "kernel distance", "search": f"{row.quality:.4f}", "final": _number(final.get("quality"), ".4f")},
        {"what": "copy rate", "search": f"{row.copying:.3f}", "final": _number(final.get("copying"), ".3f")},
        {"what": "trained numbers", "search": f"{row.trained:,}", "final": ""},
        {"what": "steps", "search": f"{row.step:,}", "final": ""},
        *({"what": name.replace("_", " "), "search": value, "final": ""} for name, value in values.items()),
    ]
    told = {"trained-numbers"}
    found += [
        {"what": name, "search": f"{value:.4g}", "final": _number(final.get(name), ".4g")}
        for name, value in row.metrics.items()
        if name not in told and "(" not in name
    ]
    return found


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _draw_samples(view: StudyView, row: Row) -> None:
    folder = view.place.folder / f"trial-{row.trial}"
    pictures = sorted({*folder.glob(f"samples/step-{row.step}*.png"), *folder.glob(f"step-{row.step}*.png")})
    if pictures:
        st.image([str(path) for path in pictures[:8]], caption=[path.stem for path in pictures[:8]], width=160)


def _draw_train(page: str, view: StudyView, row: Row) -> None:
    """Draws what a point can become: a run on more pictures, a page, a file."""
    if not row.sites:
        st.caption("Nothing is trained here: it is the base model.")
        return
    setup = setup_of(view.place)
    with st.container(border=True):
        st.markdown("**Train it**")
        data = st.text_input("New pictures", key=f"{page}.new_data", persist_state="session",
                             placeholder="the same pictures as the search",
                             help="A folder of other pictures for the same way of training.")  # fmt: skip
        pictures = st.number_input(
            "Pictures that are trained",
            1,
            None,
            None,
            key=f"{page}.pictures",
            placeholder=str(setup.get("trained", "as in the search")),
            persist_state="session",
            help="Copies come later in proportion to the pictures, so the steps are scaled.",
        )
        with st.container(horizontal=True):
            if st.button("Train the best" if row.name == view.recommended else f"Train {row.name}", type="primary",
                         key=f"{page}.train", icon=":material/model_training:", disabled=not setup):  # fmt: skip
                shell.told(_train, view, row, data.strip(), pictures)
            adapter = None if row.adapter is None else view.place.folder / row.adapter
            if st.button("Animate with it", key=f"{page}.animate", icon=":material/animation:",
                         disabled=adapter is None or not adapter.is_file(),
                         help="Opens the Animate page with this checkpoint's adapter."):  # fmt: skip
                shell.hand_over("animate", adapter=(str(adapter),), model=setup.get("config", {}).get("model", "mini"))
            if "fine_tune" in st.session_state["pages"]:
                asked = st.button("Open in Fine-tune", key=f"{page}.tune", icon=":material/tune:", disabled=not setup)
                if asked and (run := shell.told(settings_of_point, view.place, row.name)) is not None:
                    shell.hand_over("fine_tune", settings=run)
        if not setup:
            st.caption("The study's setup.json is missing, so its runs cannot be written down again.")


def _train(view: StudyView, row: Row, data: str, pictures: int | None) -> None:
    data = str(typed_path(data, what="new pictures")) if data else ""
    folder = shell.queue().new_folder()
    with st.spinner("Writing the run"):
        file = write_best(view.place, row.name, folder / "train.toml", data=data, pictures=pictures)
    run = runs_folder() / f"{view.place.title}-{row.name.replace(':', '-')}-{folder.name[-8:]}"
    job = shell.submit(["train", str(file), f"--output-dir={run}"], folder=folder,
                       title=f"train {row.name} of {view.place.title}")  # fmt: skip
    st.success(f"Job {job.id} trains it; see the Runs page.", icon=":material/check:")
    st.code(job.command, language="bash", wrap_lines=True)


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
