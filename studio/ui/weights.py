"""The choice of a model and of adapters: what is on this machine in a list, anything else typed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import streamlit as st
from pydantic import BaseModel

from studio.adapters import part_scale
from studio.errors import RequestError
from studio.jobs import runs_folder
from studio.places import folders_with, roots
from studio.settings import studio_settings
from studio.side_sets import find_adapters
from studio.ui.controls import control_of

MINI: Final = "mini"
_WEIGHT: Final = (-2.0, 2.0, 1.0)
"""Lowest, highest, and as it was trained."""


def pick_model(page: str, kind: type[BaseModel], *, default: str | None = None) -> str:
    """Draws the choice of a model: mini, a folder that is known here, or a folder or hub id that is typed."""
    control, key = control_of(kind, "model"), f"{page}.model"
    if not st.session_state.get(key):
        st.session_state[key] = default or control.default or MINI
    names = _models(_places())
    options = list(dict.fromkeys([MINI, *names, str(st.session_state[key])]))
    found = st.selectbox("Model", options, key=key, persist_state="session", accept_new_options=True, help=control.help,
                         format_func=lambda name: names.get(name, name))  # fmt: skip
    return str(found or MINI)


def pick_adapters(page: str) -> tuple[str, ...]:
    """Draws the choice of adapters, each with its weight; FILE or FILE:WEIGHT, as `--adapter` takes them."""
    key, names = f"{page}.adapters", _adapters(_places())
    chosen: list[str] = st.session_state.setdefault(key, [])
    options = list(dict.fromkeys([*names, *chosen]))
    found = st.multiselect(
        "Adapters", options, key=key, persist_state="session", accept_new_options=True,
        format_func=lambda path: names.get(path, path), placeholder="None; choose, or type a file",
        help="What was fine-tuned here: finished runs, points of searches, uploads. Several add up.",
    )  # fmt: skip
    told = []
    for path in map(str, found):
        if part_scale(path)[1] is not None:
            told.append(path)
            continue
        low, high, usual = _WEIGHT
        if _weight_key(page, path) not in st.session_state:
            st.session_state[_weight_key(page, path)] = usual
        weight = st.slider(f"Weight of {names.get(path, Path(path).name)}", low, high, step=0.05,
                           key=_weight_key(page, path), persist_state="session",
                           help="1 as it was trained, 0 is the model without it.")  # fmt: skip
        told.append(path if weight == usual else f"{path}:{weight:g}")
    return tuple(told)


def choose_adapters(page: str, adapters: Sequence[Any]) -> None:
    """Chooses adapters from elsewhere, before the page is drawn."""
    low, high, usual = _WEIGHT
    chosen = []
    for text in map(str, adapters):
        path, weight = part_scale(text)
        if weight is None or low <= weight <= high:
            st.session_state[_weight_key(page, path)] = usual if weight is None else weight
            text = path
        chosen.append(text)
    st.session_state[f"{page}.adapters"] = chosen


def _weight_key(page: str, path: str) -> str:
    return f"{page}.weight.{path}"


@st.cache_data(ttl=10, show_spinner=False)
def _models(places: tuple[Path, ...]) -> dict[str, str]:
    """Models on this machine, with what they are called in the list."""
    names: dict[str, str] = {}
    for folder in folders_with(["model_index.json"], places):
        name = _short(folder, places)
        taken = name == MINI or name in names.values()  # a list tells its entries apart by what they are called
        names[str(folder)] = str(folder) if taken else name
    return names


@st.cache_data(ttl=10, show_spinner=False)
def _adapters(places: tuple[Path, ...]) -> dict[str, str]:
    """Adapters on this machine, with what they are called in the list."""
    return {str(path): name for name, path in find_adapters(places).items()}


def _places() -> tuple[Path, ...]:
    """Where models and adapters may lie; wrong settings are told by the System page, and by what is started."""
    try:
        return (*roots(), *studio_settings().model_folders)
    except RequestError:
        return (runs_folder(),)


def _short(folder: Path, places: Sequence[Path]) -> str:
    place = next((place for place in places if folder.is_relative_to(place) and folder != place), None)
    return folder.name if place is None else folder.relative_to(place).as_posix()
