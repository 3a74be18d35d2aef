"""Draws a point of a study: its mask as a picture of the network, its figures, and what it can become."""

from typing import Final

import streamlit as st

from studio.jobs import runs_folder
from studio.mask_grid import grid_of, in_words
from studio.search_best import settings_of_point, write_best
from studio.search_report import Row
from studio.studies import setup_of
from studio.study_view import StudyView, point_of
from studio.ui import shell
from studio.ui.search_charts import mask_chart
from studio.ui.serve import typed_path
from studio.ui.text import plain

_RECOMMENDED: Final = "the recommended one"


def choose_point(page: str, view: StudyView) -> str | None:
    """Draws the choice of a point; None where none is recommended."""
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


def draw_point(page: str, view: StudyView, name: str) -> None:
    """Draws what a point trains, its figures, and what it can become."""
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
    told = ("trained-numbers", "kd(", "copy-rate(", "quality", "copying")
    found += [
        {"what": name, "search": _number(row.metrics.get(name), ".4g"), "final": _number(final.get(name), ".4g")}
        for name in {**row.metrics, **final}
        if not name.startswith(told)
    ]
    return found


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _draw_samples(view: StudyView, row: Row) -> None:
    """Draws what the point makes beside the model as it was: the same captions and seeds."""
    base = next((dot for dot in view.dots if dot.step == 0 and dot.name != row.name), None)
    wanted = [(row.trial, row.step, f"What {row.name} makes of the captions")]
    if base is not None:
        wanted.append((base.trial, base.step, "The same from the model before"))
    for trial, step, caption in wanted:
        path = view.place.folder / f"trial-{trial}" / "samples" / f"step-{step}.png"
        if path.is_file():
            st.image(str(path), caption=caption, width="stretch")


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
