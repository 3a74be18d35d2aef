"""What a field of a config looks like to a person: kind, bounds, step, unit and help, read from the field itself."""

import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from studio.requests import Unit

Kind = Literal["switch", "whole", "number", "choice", "line", "text", "lines"]
_LONG: Final = 200
"""A text that may have more characters than this gets a box of several lines."""

_EXACT: Final = 2.0**53 - 1
"""The largest whole number that a browser counts exactly."""

_ALMOST: Final = 1e-9
"""How near a number may come to a bound that is not itself allowed: learning rates are small."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A widget-to-be."""

    name: str
    label: str
    """With the unit in brackets."""
    kind: Kind
    help: str
    default: Any
    optional: bool
    """Whether nothing may be chosen, so that the program decides."""
    low: float | None = None
    high: float | None = None
    step: float | None = None
    format: str | None = None
    options: tuple[str, ...] = ()
    max_length: int | None = None


def control_of(model: type[BaseModel], name: str, *, label: str | None = None) -> Control:
    """Reads a field.

    Raises:
        KeyError: the model has no such field.
        TypeError: a field of its type has no widget: a nested model, a mapping.
    """
    info = model.model_fields[name]
    bare, optional, marks = _bare(info)
    unit = next((f" ({mark.name})" for mark in marks if isinstance(mark, Unit)), "")
    default = None if info.default is PydanticUndefined else info.default
    shared: dict[str, Any] = {
        "name": name, "label": (label or name.replace("_", " ").capitalize()) + unit, "help": info.description or "",
        "default": default, "optional": optional,
    }  # fmt: skip
    if bare is bool:
        return Control(kind="switch", **shared)
    if get_origin(bare) is Literal:
        return Control(kind="choice", options=tuple(map(str, get_args(bare))), **shared)
    if bare is int:
        return Control(kind="whole", **shared, **_bounds(marks, 1))
    if bare is float:
        return Control(kind="number", **shared, **_bounds(marks, _step(default), _ALMOST), format=_format(default))
    if bare in (str, Path):
        longest = next((mark.max_length for mark in marks if isinstance(mark, MaxLen)), None)
        kind: Kind = "text" if (longest or 0) > _LONG else "line"
        return Control(kind=kind, max_length=longest, **shared)
    if get_origin(bare) is tuple and get_args(bare)[0] in (str, Path):
        return Control(kind="lines", **shared)
    raise TypeError(f"{model.__name__}.{name}: a field of type {info.annotation} has no widget")


def _bare(info: FieldInfo) -> tuple[Any, bool, list[Any]]:
    """The type without Annotated and None, whether None is allowed, and all that Annotated says."""
    kind: Any = info.annotation
    optional, marks = False, list(info.metadata)
    while True:
        if get_origin(kind) is Annotated:
            marks += kind.__metadata__
            kind = kind.__origin__
        elif get_origin(kind) in (Union, types.UnionType):
            parts = [part for part in get_args(kind) if part is not type(None)]
            optional = optional or len(parts) < len(get_args(kind))
            kind = parts[0]
        else:
            found = [m for mark in marks for m in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
            return kind, optional, found


def _bounds(marks: list[Any], step: float, least: float | None = None) -> dict[str, Any]:
    """Low, high and step; `least` is how near a number may come to a bound that is not itself allowed."""
    step = next((float(str(mark.multiple_of)) for mark in marks if isinstance(mark, MultipleOf)), step)
    low: float | None = None
    high: float | None = None
    for mark in marks:
        if isinstance(mark, Ge):
            low = float(str(mark.ge))
        elif isinstance(mark, Gt):
            low = float(str(mark.gt)) + (least or step)
        elif isinstance(mark, Le):
            high = float(str(mark.le))
        elif isinstance(mark, Lt):
            high = float(str(mark.lt)) - (least or step)
    if high is not None and high > _EXACT:
        high = _EXACT
    if low is not None and step > 1:
        low = -(-low // step) * step
    return {"low": low, "high": high, "step": step}


def _step(default: Any) -> float:
    """A tenth of the first digit: 0.01 for 0.1, 1e-5 for 1e-4."""
    if not isinstance(default, float | int) or default == 0 or abs(default) >= 1:
        return 0.1
    exponent = int(f"{abs(default):e}".partition("e")[2])
    return float(f"1e{exponent - 1}")


def _format(default: Any) -> str:
    return "%.2e" if isinstance(default, float) and 0 < abs(default) < 0.01 else "%g"
