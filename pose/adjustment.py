"""`Adjustment`: what a person changes by hand when the automatic alignment does not fit."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

Factor = Annotated[float, Field(ge=0.5, le=2)]
Share = Annotated[float, Field(ge=-1, le=1)]


class Adjustment(BaseModel):
    """Changes the aligned motion by hand; a limb's factor moves everything beyond it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shift_x: Share = 0.0
    """Moves the figure to the right, as a share of the picture's width."""
    shift_y: Share = 0.0
    """Moves the figure down, as a share of the picture's height."""
    scale: Factor = 1.0
    """Size of the whole figure; its feet stay on the ground."""
    shoulders: Factor = 1.0
    """Width of the shoulders."""
    arms: Factor = 1.0
    """Length of the upper arms."""
    forearms: Factor = 1.0
    """Length of the forearms, and size of the hands."""
    torso: Factor = 1.0
    """Length of the torso, and with it the width of the hips."""
    thighs: Factor = 1.0
    """Length of the thighs."""
    shins: Factor = 1.0
    """Length of the shins, and size of the feet."""
    neck: Factor = 1.0
    """Length from the neck to the nose."""
    head: Factor = 1.0
    """Distance of eyes and ears from the nose, and size of the face."""


NOT_ADJUSTED: Final = Adjustment()


def read_adjustment(value: Any) -> Any:
    """Takes texts such as arms=1.2 or scale=0.9,shift_x=0.1, one or several, to what `Adjustment` validates.

    Raises:
        ValueError: A text is not NAME=NUMBER.
    """
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple):
        return value
    found: dict[str, float] = {}
    for part in (part.strip() for text in value for part in str(text).split(",")):
        name, _, number = part.partition("=")
        try:
            found[name.strip().replace("-", "_")] = float(number)
        except ValueError:
            known = ", ".join(Adjustment.model_fields)
            raise ValueError(f"{part!r} must be NAME=NUMBER, such as arms=1.2; names are {known}") from None
    return found


def written(adjustment: Adjustment) -> tuple[str, ...]:
    """Writes what differs from no adjustment, as `read_adjustment` reads it."""
    return tuple(
        f"{name}={getattr(adjustment, name):g}"
        for name in Adjustment.model_fields
        if getattr(adjustment, name) != getattr(NOT_ADJUSTED, name)
    )


BONE_OF_JOINT: Final = (
    "neck", None, "shoulders", "arms", "forearms", "shoulders", "arms", "forearms",
    "torso", "thighs", "shins", "torso", "thighs", "shins", "head", "head", "head", "head",
)  # fmt: skip
"""Which factor the bone above each joint has; the neck is the root."""
