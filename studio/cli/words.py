"""From a request back to the words of a command: what the app starts is what a person could type."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pose.adjustment import written
from studio.requests import Positional, Repeated, make_request


def words_for(verb: str, kind: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """Writes the command for some values: a verb, what stands without a flag, and a flag for all that is not a default.

    Raises:
        RequestError: a value is wrong.
    """
    request = make_request(kind, {name: value for name, value in values.items() if value is not None})
    places: list[str] = []
    flags: list[str] = []
    for name, info in kind.model_fields.items():
        value = getattr(request, name)
        if value == info.default and not info.is_required():
            continue
        if any(isinstance(mark, Positional) for mark in info.metadata):
            places += map(str, value) if isinstance(value, tuple) else [str(value)]
            continue
        flag = f"--{name.replace('_', '-')}"
        if any(isinstance(mark, Repeated) for mark in info.metadata):
            flags += [f"{flag}={part}" for part in written(value)]
        elif isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        else:
            # one word, so that a text may begin with a dash
            flags += [f"{flag}={one}" for one in (value if isinstance(value, tuple) else (value,))]
    return [*verb.split(), *places, *flags]
