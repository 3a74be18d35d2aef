"""Draws the fields of configs as widgets. What a person types is kept when the page is left and found again."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import streamlit as st
from pydantic import BaseModel

from studio.ui.controls import Control, control_of

AUTO: Final = "automatic"
_WIDGETS: Final[Any] = st
"""Untyped: streamlit's overloads want to see every combination of arguments written out."""


def field(
    model: type[BaseModel],
    name: str,
    *,
    page: str,
    label: str | None = None,
    default: Any = None,
    disabled: bool = False,
    help: str | None = None,
    step: float | None = None,
) -> Any:
    """Draws one field and gives its value; None where nothing is chosen.

    Args:
        page: the widget's key is "PAGE.NAME", so pages do not disturb each other.
        default: what it begins with; by default the field's own.
        help: instead of the field's.
        step: of the buttons beside a number, where that of the default is too coarse.
    """
    control = control_of(model, name, label=label)
    if step is not None:
        control = replace(control, step=step)
    key = f"{page}.{name}"
    if key not in st.session_state:
        # the state is the one source of a widget's value, also for a page that hands values over
        st.session_state[key] = _shown(control, control.default if default is None else default)
    shared = {"key": key, "help": help or control.help, "disabled": disabled, "persist_state": "session"}
    return _read(control, _draw(control, shared))


def put(model: type[BaseModel], name: str, value: Any, *, page: str) -> None:
    """Sets the widget of a field before it is drawn; a field without a widget is left alone."""
    try:
        control = control_of(model, name)
    except TypeError:
        return
    st.session_state[f"{page}.{name}"] = _shown(control, value)


def _draw(control: Control, shared: dict[str, Any]) -> Any:
    placeholder = AUTO if control.optional else None
    match control.kind:
        case "switch":
            return _WIDGETS.toggle(control.label, **shared)
        case "choice":
            return _WIDGETS.selectbox(
                control.label, [*((AUTO,) if control.optional else ()), *control.options], **shared
            )
        case "whole" | "number":
            as_number = int if control.kind == "whole" else float
            limits = {"min_value": control.low, "max_value": control.high, "step": control.step}
            limits = {name: None if limit is None else as_number(limit) for name, limit in limits.items()}
            return _WIDGETS.number_input(control.label, value=None, format=control.format, placeholder=placeholder,
                                         **limits, **shared)  # fmt: skip
        case "line":
            return _WIDGETS.text_input(control.label, placeholder=placeholder, max_chars=control.max_length, **shared)
        case "text":
            return _WIDGETS.text_area(control.label, height=100, max_chars=control.max_length, **shared)
        case "lines":
            return _WIDGETS.text_area(control.label, height=80, **shared)


def _shown(control: Control, value: Any) -> Any:
    """A field's value as its widget has it."""
    match control.kind:
        case "switch":
            return bool(value)
        case "choice":
            return AUTO if value is None and control.optional else str(control.options[0] if value is None else value)
        case "whole" | "number":
            return None if value is None else (int if control.kind == "whole" else float)(value)
        case "lines":
            return "\n".join(map(str, value or ()))
        case "line" | "text":
            return "" if value is None else str(value)


def _read(control: Control, shown: Any) -> Any:
    """A widget's value as the field has it."""
    match control.kind:
        case "choice":
            return None if shown == AUTO else shown
        case "lines":
            return tuple(line.strip() for line in (shown or "").splitlines() if line.strip())
        case "line" | "text":
            return shown or (None if control.optional else "")
        case _:
            return shown


def fields(
    model: type[BaseModel], names: Iterable[str], /, *, page: str, columns: int = 1, **defaults: Any
) -> dict[str, Any]:
    """Draws several fields, in so many columns; their values by name."""
    places = st.columns(columns) if columns > 1 else None
    found = {}
    for number, name in enumerate(names):
        with places[number % columns] if places else st.container():
            found[name] = field(model, name, page=page, default=defaults.get(name))
    return found
