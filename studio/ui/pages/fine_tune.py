"""The Fine-tune page: data, method and budget in, a run and its adapter out."""

from pathlib import Path
from typing import Any

import streamlit as st

from studio.errors import RequestError
from studio.finetune_form import settings_of, toml_of, widget_values
from studio.ui.form import put
from studio.ui.text import plain
from studio.ui.tune.budget import draw_budget, draw_kept
from studio.ui.tune.captions import draw_captions
from studio.ui.tune.data import draw_doctor, draw_fields, draw_sets
from studio.ui.tune.method import draw_method, draw_scope, take_over_method
from studio.ui.tune.shared import PAGE, trainer, why_not_read
from studio.ui.tune.summary import draw_model, draw_run, draw_summary
from studio.ui.weights import pick_model


def draw() -> None:
    """Draws the page."""
    st.title("Fine-tune")
    trainer()
    _take_over()
    form, result = st.columns([3, 2], gap="large")
    with form:
        settings, options, flags = _draw_form()
    with result:
        draw_summary(settings, options, flags)
        draw_run()


def _draw_form() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Draws all that is asked; the settings, all options of the method, and flags of the command."""
    config = trainer().FinetuneConfig
    values: dict[str, Any] = {"model": pick_model(PAGE, config)}
    draw_model(values["model"])
    data, method, budget, kept = st.tabs(["Data", "Method", "Budget", "Samples and guard"])
    with method:
        told, options = draw_method(values["model"])
        values |= told | draw_scope()
    with budget:
        told, flags = draw_budget()
        values |= told
    with kept:
        told, guard = draw_kept()
        values |= told
    with data:
        sets = draw_sets()
        looks = st.container()
        values |= draw_fields()
        settings = settings_of(values, sets=sets, options=options, guard=guard)
        with looks:
            _draw_looks(settings)
    return settings, {**_defaults(values["method"]), **{k: v for k, v in options.items() if v is not None}}, flags


def _draw_looks(settings: dict[str, Any]) -> None:
    """Draws what can be seen of the data."""
    folders = [Path(one["folder"]) for one in settings["data"] if not why_not_read(one["folder"])]
    there = folders and len(folders) == len(settings["data"])
    try:
        draw_doctor(toml_of(_of_data(settings)) if there else None, folders)
    except RequestError as error:
        st.error(plain(str(error)), icon=":material/error:")
    if there and st.toggle("Show captions", key=f"{PAGE}.captions"):
        draw_captions(folders, [str(one.get("caption", "")) for one in settings["data"]])


def _of_data(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that a look at the data depends on: another rate needs no other look."""
    from studio.finetune_form import LEARNED, SEEN

    return {name: settings[name] for name in ("model", *LEARNED, *SEEN, "data") if name in settings}


def _defaults(method: str) -> dict[str, Any]:
    from training.methods import METHODS

    return {name: info.default for name, info in METHODS[method].model_fields.items()}


def _take_over() -> None:
    """Puts the settings of an earlier run into the form, which another page hands over."""
    settings = st.session_state.pop(f"{PAGE}.handed", {}).get("settings")
    if not isinstance(settings, dict):
        return
    from training.methods import METHODS

    module = trainer()
    for key in [str(key) for key in st.session_state if str(key).startswith(f"{PAGE}.")]:
        if key != f"{PAGE}.job":
            del st.session_state[key]
    values = widget_values(settings)
    for name, value in values.items():
        first, _, option = name.partition(".")
        if name == "sets" or name == "guard.on":
            st.session_state[f"{PAGE}.{name}"] = value
        elif name in ("method", "report_to"):
            st.session_state[f"{PAGE}.{name}"] = list(value) if isinstance(value, list | tuple) else value
        elif first == "data":
            number, _, option = option.partition(".")
            put(module.DataSet, option, value, page=f"{PAGE}.data.{number}")
        elif first == "guard":
            put(module.GuardOptions, option, value, page=f"{PAGE}.guard")
        elif option and first in METHODS:
            if option in METHODS[first].model_fields:
                put(METHODS[first], option, value, page=f"{PAGE}.{first}")
        elif name in module.FinetuneConfig.model_fields:
            put(module.FinetuneConfig, name, value, page=PAGE)
    take_over_method(values)
    st.toast("The settings of the earlier run are in the form")
