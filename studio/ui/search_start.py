"""Draws the form of a new study: the base run, what is searched, the budget with its forecast, the command."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import streamlit as st

from studio.cli.verbs.search import DEFAULT_TRIALS, SearchRequest
from studio.errors import RequestError
from studio.jobs import Job, runs_folder
from studio.search_form import (
    SITES,
    STRATEGIES,
    TEMPLATE,
    check_run,
    duration,
    free_name,
    looks_of,
    read_options,
    read_steps,
    search_toml,
    search_words,
    settings_in,
)
from studio.studies import Place, setup_of
from studio.study_view import Rate, learn_rate, open_place
from studio.ui import shell
from studio.ui.base import draw_base
from studio.ui.form import field, fields
from studio.ui.serve import typed_model, typed_path
from studio.uploads.names import safe_part
from training.finetune.searching.settings import SearchSettings

OWN: Final = "own list"
_HELP: Final = {name: info.description or "" for name, info in SearchSettings.model_fields.items()}
_MOST_READ: Final = 8
"""Studies that a forecast is learned from."""


def draw_start(page: str, places: Sequence[Place]) -> Job | None:
    """Draws the form; the job where one was just started. Its folder is then in the state, PAGE.made."""
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.subheader("The runs")
        base = draw_base(page, TEMPLATE, note=_held_out)
    with right:
        st.subheader("The search")
        settings = shell.told(_draw_settings, page, base or {})
        values = _draw_budget(page, places)
    return _draw_go(page, base, settings, values, places)


def _held_out(base: dict[str, Any]) -> None:
    if not base.get("validation_share"):
        st.warning(
            "The runs keep no pictures out: a search needs 40 held-out ones, so set validation_share.",
            icon=":material/info:",
        )


# --- the search ---------------------------------------------------------------------------------------------------


def _draw_settings(page: str, base: dict[str, Any]) -> dict[str, Any]:
    """Draws the settings of the search.

    Raises:
        RequestError: one is wrong.
    """
    _begin(page, settings_in(base))
    found: dict[str, Any] = {"sites": _draw_sites(page)}
    left, right = st.columns(2)
    with left:
        low = st.number_input(
            "Lowest rate",
            0.0,
            10.0,
            None,
            step=1e-5,
            format="%.2e",
            key=f"{page}.low",
            placeholder="a tenth of the run's",
            help=_HELP["learning_rate"],
            persist_state="session",
        )
    with right:
        high = st.number_input("Highest rate", 0.0, 10.0, None, step=1e-5, format="%.2e", key=f"{page}.high",
                               placeholder="three times the run's", help=_HELP["learning_rate"],
                               persist_state="session")  # fmt: skip
    if (low is None) != (high is None):
        raise RequestError("give both the lowest and the highest rate, or neither")
    found["learning_rate"] = None if low is None else (low, high)
    found["limit"] = st.number_input(
        "Highest copy rate", 0.01, 1.0, None, step=0.01, key=f"{page}.limit", placeholder="no limit",
        help=_HELP["limit"], persist_state="session",
    )  # fmt: skip
    with st.expander("How candidates are judged"):
        names = ["samples", "final_samples", "num_inference_steps", "copying_quantile"]
        found |= fields(SearchSettings, names, page=page, columns=2)
        found["features"] = field(SearchSettings, "features", page=page)
        steps = st.text_input("Checkpoints", key=f"{page}.checkpoints", placeholder="75, 150, 300, 600",
                              help=_HELP["checkpoints"], persist_state="session")  # fmt: skip
        found["checkpoints"] = read_steps(steps)
    with st.expander("More of what is searched"):
        found |= fields(SearchSettings, ["always", "search_stop", "early_stop"], page=page)
        options = st.text_area("Options of the method", key=f"{page}.options", height=80, persist_state="session",
                               placeholder="fraction = [0.01, 0.05]", help=_HELP["options"])  # fmt: skip
        found["options"] = read_options(options)
        first, second = st.columns(2)
        default = SearchSettings.model_fields["reference"].default
        for number, (place, label) in enumerate([(first, "Worst distance"), (second, "Worst copy rate")]):
            key = f"{page}.reference.{number}"
            if key not in st.session_state:
                st.session_state[key] = float(default[number])
            place.number_input(label, 0.0, 1000.0, step=0.1, key=key, help=_HELP["reference"], persist_state="session")
        found["reference"] = tuple(st.session_state[f"{page}.reference.{k}"] for k in (0, 1))
    return found


def _begin(page: str, table: dict[str, Any]) -> None:
    """Puts the table [search] of a base into the widgets, once for each table."""
    from studio.ui.form import put

    if not table or st.session_state.get(f"{page}.taken") == table:
        return
    st.session_state[f"{page}.taken"] = table
    for name in ("samples", "final_samples", "num_inference_steps", "copying_quantile", "features", "limit", "always",
                 "search_stop", "early_stop"):  # fmt: skip
        if name in table:
            put(SearchSettings, name, table[name], page=page)
    if rate := table.get("learning_rate"):
        st.session_state[f"{page}.low"], st.session_state[f"{page}.high"] = map(float, rate)
    if "checkpoints" in table:
        st.session_state[f"{page}.checkpoints"] = ", ".join(map(str, table["checkpoints"]))
    if sites := table.get("sites"):
        listed = not isinstance(sites, str)
        st.session_state[f"{page}.sites"] = OWN if listed else sites
        st.session_state[f"{page}.words"] = "\n".join(sites) if listed else ""
    if options := table.get("options"):
        from training.toml import dump_toml

        st.session_state[f"{page}.options"] = dump_toml(options)
    for number, value in enumerate(table.get("reference", ())):
        st.session_state[f"{page}.reference.{number}"] = float(value)


def _draw_sites(page: str) -> str | tuple[str, ...]:
    key = f"{page}.sites"
    if key not in st.session_state:
        st.session_state[key] = SearchSettings.model_fields["sites"].default
    sites = st.selectbox(
        "Sites",
        [*SITES, OWN],
        key=key,
        help=_HELP["sites"],
        persist_state="session",
        format_func=lambda name: f"{name}: {SITES.get(name, 'scope words, one bit each')}",
    )
    if sites != OWN:
        return str(sites)
    words = st.text_area("Scope words", key=f"{page}.words", height=80, persist_state="session",
                         help="One a line, such as blocks.0.* or norms.")  # fmt: skip
    found = tuple(line.strip() for line in words.splitlines() if line.strip())
    if not found:
        raise RequestError("sites: write scope words, one a line, or choose a layout")
    return found


# --- budget and start ---------------------------------------------------------------------------------------------


def _draw_budget(page: str, places: Sequence[Place]) -> dict[str, Any]:
    """Draws strategy, budget and what it begins with."""
    found: dict[str, Any] = {}
    key = f"{page}.strategy"
    if key not in st.session_state:
        st.session_state[key] = SearchRequest.model_fields["strategy"].default
    found["strategy"] = st.selectbox("Strategy", list(STRATEGIES), key=key, persist_state="session",
                                     help=SearchRequest.model_fields["strategy"].description,
                                     format_func=lambda name: f"{name}: {STRATEGIES[name]}")  # fmt: skip
    kind, amount = st.columns(2, vertical_alignment="bottom")
    with kind:
        if f"{page}.budget" not in st.session_state:
            st.session_state[f"{page}.budget"] = "Trials"
        counted = st.segmented_control("Budget in", ["Trials", "Steps"], key=f"{page}.budget", required=True,
                                       persist_state="session")  # fmt: skip
    name = "trials" if counted == "Trials" else "budget_steps"
    with amount:
        default = DEFAULT_TRIALS if name == "trials" else 5000
        found[name] = field(SearchRequest, name, page=page, label=counted, default=default)
    seeds = ["nothing", *(str(place.folder) for place in places)]
    begin = st.selectbox(
        "Begin with the front of",
        seeds,
        key=f"{page}.begin",
        persist_state="session",
        format_func=lambda name: Path(name).name,
        help=SearchRequest.model_fields["seed_configs"].description,
    )
    found["seed_configs"] = None if begin == "nothing" else Path(str(begin))
    with st.expander("More"):
        found |= fields(SearchRequest, ["seed", "device", "storage"], page=page)
    return found


def _draw_go(
    page: str, base: dict[str, Any] | None, settings: dict[str, Any] | None, values: dict[str, Any],
    places: Sequence[Place],
) -> Job | None:  # fmt: skip
    st.divider()
    key = f"{page}.name"
    if key not in st.session_state:
        st.session_state[key] = free_name("study", [place.folder.name for place in places])
    name = st.text_input(
        "Name",
        key=key,
        max_chars=60,
        persist_state="session",
        help="The study's folder below the runs. A name that is there goes on with that study.",
    )
    folder = runs_folder() / "searches" / safe_part(name.strip() or "study")
    text = None if base is None or settings is None else shell.told(search_toml, base, settings)
    if text is not None and base is not None and settings is not None:
        _draw_forecast(base, settings, values, places)
        words = search_words(Path("search.toml"), {**values, "output_dir": folder})
        with st.expander("The same from the command line"):
            st.code(text, language="toml")
            st.code(f"studio {shlex.join(words)}", language="bash", wrap_lines=True)
    if (folder / "ledger.jsonl").is_file():
        st.caption("A study of this name is there: the search goes on with it, if its settings are the same.")
    why_not = "" if text is not None else "The settings of the runs and of the search come first; see above."
    if st.button("Start the search", type="primary", key=f"{page}.go", disabled=bool(why_not),
                 icon=":material/query_stats:"):  # fmt: skip
        job = shell.told(_start, page, base or {}, text or "", {**values, "output_dir": folder})
        return job if isinstance(job, Job) else None
    if why_not:
        st.caption(why_not)
    return None


def _start(page: str, base: dict[str, Any], text: str, values: dict[str, Any]) -> Job:
    typed_model(str(base.get("model", "mini")))
    with st.spinner("Checking the settings of the runs"):
        check_run(base)
    storage = str(values.get("storage") or "")
    if storage.startswith("sqlite:///"):
        typed_path(storage.removeprefix("sqlite:///"), what="storage")
    folder = shell.queue().new_folder()
    file = folder / "search.toml"
    file.write_text(text, encoding="utf-8")
    job = shell.submit(search_words(file, values), folder=folder, title=f"search {values['output_dir'].name}")
    st.session_state[f"{page}.made"] = str(values["output_dir"])
    return job


def _draw_forecast(
    base: dict[str, Any], settings: dict[str, Any], values: dict[str, Any], places: Sequence[Place]
) -> None:
    steps = int(base.get("max_train_steps") or 500)
    trials = values.get("trials") or max(1, int(values.get("budget_steps") or 0) // steps)
    rate = _rate(str(base.get("model", "mini")), str(base.get("method", "sara")), places)
    asked = {name: value for name, value in settings.items() if value is not None}
    looks, samples = looks_of(asked, steps), int(settings["samples"])
    if rate is None:
        st.caption(f"Up to {trials} runs of {steps} steps, each measured {looks} times with {samples} pictures. How "
                   "long that takes is told once a study of this model and method is there.")  # fmt: skip
        return
    whole = rate.seconds(trials=trials, steps=steps, looks=looks, samples=samples)
    st.caption(
        f"About {duration(whole)} at most for {trials} runs of {steps} steps, as fast as in "
        f"{rate.studies} earlier {'study' if rate.studies == 1 else 'studies'} of this model and method."
    )


def _rate(model: str, method: str, places: Sequence[Place]) -> Rate | None:
    told = []
    for place in places:
        setup = setup_of(place)
        if (setup.get("config", {}).get("model"), setup.get("config", {}).get("method")) != (model, method):
            continue
        try:
            told.append((open_place(place), setup))
        except RequestError:
            continue
        if len(told) == _MOST_READ:
            break
    return learn_rate(told, model=model, method=method)
