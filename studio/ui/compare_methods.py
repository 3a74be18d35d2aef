"""Draws comparisons of methods: the form of a new one, its progress, its table, plot and samples."""

import shlex
from pathlib import Path
from typing import Any, Final

import streamlit as st

from studio.cli.verbs.compare import CompareRequest
from studio.compare_form import (
    TEMPLATE,
    base_toml,
    cells_of,
    compare_words,
    find_comparisons,
    folder_of,
    read_table,
)
from studio.errors import RequestError
from studio.jobs import Job, runs_folder
from studio.places import roots
from studio.search_form import check_run, free_name
from studio.ui import shell
from studio.ui.base import draw_base
from studio.ui.form import fields
from studio.ui.tables import draw_table
from studio.ui.text import plain
from studio.uploads.names import safe_part

NEW: Final = "New comparison"
_COLUMNS: Final = {
    "KD": "kernel distance of samples to the pictures, less is better", "identity": "likeness to the pictures",
    "coverage": "share of the pictures that a sample comes near to", "drift": "change of what was not trained",
    "nearest": "distance to the nearest trained picture", "rate": "learning rate",
}  # fmt: skip


def draw_methods(page: str) -> None:
    """Draws the view."""
    jobs = shell.queue().jobs(kinds=["compare"], limit=500)
    places = shell.told(find_comparisons, roots(), jobs) or []
    names = {_title(place): place for place in places}
    key = f"{page}.comparison"
    if st.session_state.get(key) not in (NEW, *names):
        st.session_state[key] = next(iter(names), NEW)
    if wanted := st.session_state.pop(f"{page}.show", None):
        st.session_state[key] = wanted if wanted in names else NEW
    if not places:
        st.info("Train the same pictures by several methods, with the same seed and the same steps, and see which one "
                "learns most for its size. Every run is kept.", icon=":material/compare:")  # fmt: skip
    chosen = st.selectbox("Comparison", [*names, NEW], key=key, persist_state="session")
    if chosen == NEW:
        _draw_new(page, places)
    else:
        _draw_comparison(page, names[str(chosen)], jobs)


def _title(folder: Path) -> str:
    root = runs_folder().resolve()
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)


# --- a comparison -------------------------------------------------------------------------------------------------


def _draw_comparison(page: str, folder: Path, jobs: list[Job]) -> None:
    own = [job for job in jobs if (place := folder_of(job)) is not None and place.resolve() == folder]
    if own and own[0].is_open:
        shell.watch(own[0].id)
    elif own and own[0].state in ("failed", "cancelled"):
        st.error(plain(own[0].error or "It was cancelled; trying again goes on where it stopped."),
                 icon=":material/error:")  # fmt: skip
        shell.job_buttons(own[0], page=page)
    table = read_table(folder)
    if table is None:
        st.caption("The table comes when all methods are trained and scored.")
    else:
        head, rows = cells_of(table)
        draw_table(head, rows, key=f"{page}.methods", name=folder.name)
        st.caption("; ".join(f"{name}: {about}" for name, about in _COLUMNS.items() if name in head) + ".")
        if (folder / "plot.png").is_file():
            st.image(str(folder / "plot.png"), caption="Quality against what is trained, one dot for each run",
                     width="stretch")  # fmt: skip
    sheets = sorted(folder.glob("*/scores.png"))
    if sheets:
        with st.expander("Samples of each method"):
            for sheet in sheets[:20]:
                st.image(str(sheet), caption=plain(sheet.parent.name), width="stretch")
    if own:
        with st.expander("The same from the command line"):
            st.code(own[0].command, language="bash", wrap_lines=True)


# --- a new one ----------------------------------------------------------------------------------------------------


@st.cache_resource(show_spinner="Reading the methods", max_entries=1)
def _methods() -> dict[str, str]:
    """Methods with a line about each; they take torch along, so they are read once."""
    from training.methods import METHODS

    return {name: str(getattr(METHODS[name], "about", "") or "") for name in METHODS}


def _draw_new(page: str, places: list[Path]) -> None:
    known = _methods()
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("The runs")
        base = draw_base(page, TEMPLATE)
    with right:
        st.subheader("The methods")
        key = f"{page}.methods"
        if key not in st.session_state:
            default = str(CompareRequest.model_fields["methods"].default).split(",")
            st.session_state[key] = [name for name in default if name in known]
        methods = st.multiselect(
            "Methods",
            list(known),
            key=key,
            persist_state="session",
            help=CompareRequest.model_fields["methods"].description,
            format_func=lambda name: f"{name}: {known[name]}" if known[name] else name,
        )
        own = _draw_rates(page, methods)
        first, second = st.columns(2)
        steps = first.number_input("Steps of each", 1, None, None, key=f"{page}.steps", persist_state="session",
                                   placeholder="as in the settings", help="The same for all methods.")  # fmt: skip
        seed = second.number_input("Seed", 0, None, None, key=f"{page}.seed", persist_state="session",
                                   placeholder="as in the settings", help="The same for all methods.")  # fmt: skip
        values = fields(CompareRequest, ["trainable_shares", "learning_rates"], page=page)
        with st.expander("More"):
            values |= fields(CompareRequest, ["samples", "features", "device"], page=page)
    _draw_go(page, base, own, {**values, "steps": steps, "seed": seed}, places)


def _draw_rates(page: str, methods: list[str]) -> list[str]:
    """Draws a rate for each method that shall not take its own; names as the command has them."""
    found = []
    with st.expander("Learning rates of their own"):
        for name in methods:
            rate = st.number_input(name, 0.0, 10.0, None, step=1e-5, format="%.2e", key=f"{page}.rate.{name}",
                                   placeholder="the method's", persist_state="session")  # fmt: skip
            found.append(f"{name}@{rate:g}" if rate else name)
        if not methods:
            st.caption("Choose methods first.")
    return found


def _draw_go(
    page: str, base: dict[str, Any] | None, methods: list[str], values: dict[str, Any], places: list[Path]
) -> None:
    key = f"{page}.name"
    if key not in st.session_state:
        st.session_state[key] = free_name("comparison", [place.name for place in places])
    name = st.text_input("Name", key=key, max_chars=60, persist_state="session",
                         help="Its folder below the runs; what is there already is not trained again.")  # fmt: skip
    folder = runs_folder() / "comparisons" / safe_part(name.strip() or "comparison")
    steps, seed = values.pop("steps"), values.pop("seed")
    why_not = "The settings of the runs come first." if base is None else "" if methods else "Choose methods first."
    if base is not None and methods:
        text = base_toml(base, steps=steps, seed=seed)
        words = shell.told(compare_words, Path("run.toml"), methods, {**values, "output_dir": folder})
        with st.expander("The same from the command line"):
            st.code(text, language="toml")
            if words is not None:
                st.code(f"studio {shlex.join(words)}", language="bash", wrap_lines=True)
        why_not = "" if words is not None else "A value above is wrong."
    if st.button("Compare", type="primary", key=f"{page}.go", disabled=bool(why_not), icon=":material/compare:"):
        shell.told(_start, page, base or {}, methods, {**values, "output_dir": folder}, steps, seed)
    if why_not:
        st.caption(why_not)


def _start(
    page: str, base: dict[str, Any], methods: list[str], values: dict[str, Any], steps: int | None, seed: int | None
) -> None:
    if len(methods) < 2 and not values.get("trainable_shares"):
        raise RequestError("one method compares nothing; choose another one, or give several trainable shares")
    with st.spinner("Checking the settings of the runs"):
        check_run(base)
    folder = shell.queue().new_folder()
    file = folder / "run.toml"
    file.write_text(base_toml(base, steps=steps, seed=seed), encoding="utf-8")
    words = compare_words(file, methods, values)
    job = shell.submit(words, folder=folder, title=f"compare {values['output_dir'].name}")
    shell.choose_job(page, job)
    st.session_state[f"{page}.show"] = _title(values["output_dir"].resolve())
    st.rerun()
