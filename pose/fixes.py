"""`JointFix`: what was decided by hand about joints, and how it is written as text."""

import re
from dataclasses import dataclass
from typing import Final, Self

from pose.skeleton import JOINTS

ALL: Final = "all"
"""Stands for every joint."""
MISSING: Final = "missing"
FORM: Final = "FRAME:JOINT=X,Y, FRAME:JOINT=missing or FIRST-LAST:all=missing"

_WRITTEN: Final = re.compile(r"^(\d{1,7})(?:-(\d{1,7}))?:([a-z_]+)=(?:missing|([^,]+),([^,]+))$")


@dataclass(frozen=True, kw_only=True)
class JointFix:
    """What was decided by hand about a joint over some frames."""

    first: int
    """First frame, counted from 0."""
    last: int
    """Last frame, inclusive."""
    joint: str
    """A name of `JOINTS`, or `ALL`."""
    xy: tuple[float, float] | None
    """Where it is, px of the clip's canvas; None marks it missing."""

    def __post_init__(self) -> None:
        if self.joint not in (*JOINTS, ALL):
            raise ValueError(f"there is no joint {self.joint!r}; known are {', '.join(JOINTS)} and {ALL}")
        if not 0 <= self.first <= self.last:
            raise ValueError(f"frames {self.first} to {self.last} are no range; count from 0, the smaller first")
        if self.joint == ALL and self.xy is not None:
            raise ValueError("all joints can be marked missing, not be put in one place; name one joint")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads 12:right_wrist=120,88 or 12-15:right_wrist=missing or 3:all=missing.

        Raises:
            ValueError: The text is none of these, or means nothing.
        """
        found = _WRITTEN.match(text.strip())
        try:
            if found is None:
                raise ValueError
            first, last, joint, x, y = found.groups()
            xy = None if x is None else (float(x), float(y))
        except ValueError:
            raise ValueError(f"{text[:80]!r} is no fix; write {FORM}, such as 12:right_wrist=120,88") from None
        return cls(first=int(first), last=int(last or first), joint=joint, xy=xy)

    def __str__(self) -> str:
        frames = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        place = MISSING if self.xy is None else f"{self.xy[0]:.10g},{self.xy[1]:.10g}"
        return f"{frames}:{self.joint}={place}"
