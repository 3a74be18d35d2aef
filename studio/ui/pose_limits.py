"""Bounds of a field, for a slider; `studio.ui.controls` says the same of every kind of field once it is here."""

from typing import Annotated, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel


def limits(model: type[BaseModel], name: str) -> tuple[float, float]:
    """The lowest and the highest value of a number.

    Raises:
        StopIteration: the field has no such bound.
    """
    info = model.model_fields[name]
    marks = list(info.metadata)
    if get_origin(info.annotation) is Annotated:
        marks += get_args(info.annotation)[1:]
    low = next(float(str(mark.ge)) for mark in marks if isinstance(mark, Ge))
    high = next(float(str(mark.le)) for mark in marks if isinstance(mark, Le))
    return low, high
