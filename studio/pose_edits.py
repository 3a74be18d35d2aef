"""`PoseEdits`: all that is done to a clip's keypoints, as one request that page, command line and file share.

The edits are a plan, not a history: they are applied in one fixed order to the clip as it was found, so that each can
be changed or taken back alone. Frames are counted in that clip, whatever is trimmed later.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from pose.fixes import JointFix
from studio.requests import Request, Unit

if TYPE_CHECKING:
    from pose.sequence import PoseSequence


def _odd(window: int) -> int:
    if window % 2 == 0:
        raise ValueError(f"must be an odd number of frames; try {max(1, window - 1)} or {window + 1}")
    return window


def _fix(text: str) -> str:
    return str(JointFix.parse(text))


Fix = Annotated[str, AfterValidator(_fix)]
Window = Annotated[int, Field(ge=1, le=99), AfterValidator(_odd)]


class PoseEdits(Request):
    """Repairs keypoints: joints by hand, then gaps, then jitter, then the ends of the clip."""

    fix: tuple[Fix, ...] = ()
    """Puts a joint in its place (px) or marks it missing, such as 12:right_wrist=120,88 or 12-15:left_knee=missing or
    3:all=missing; repeat it for several. What is set by hand is not smoothed."""
    fill_gaps: Annotated[int, Field(ge=0, le=1000), Unit("frames")] = 0
    """Longest gap that is filled, by a straight line between two sightings of a joint. Nothing is filled at the clip's
    ends."""
    smooth: Annotated[Window, Unit("frames")] = 1
    """Takes jitter away over so many frames, an odd number; 1 is off, 5 to 9 are usual."""
    first: Annotated[int, Field(ge=0), Unit("frame")] = 0
    """First frame to keep, counted from 0."""
    last: Annotated[int, Field(ge=0), Unit("frame")] | None = None
    """Last frame to keep; by default the end of the clip."""

    @property
    def fixes(self) -> tuple[JointFix, ...]:
        """What was decided by hand, in order: the later wins."""
        return tuple(JointFix.parse(text) for text in self.fix)

    def flags(self) -> list[str]:
        """Writes the edits as flags of `studio pose edit`."""
        plain = PoseEdits()
        words = [f"--fix={text}" for text in self.fix]
        for name in ("fill_gaps", "smooth", "first", "last"):
            if getattr(self, name) != getattr(plain, name):
                words.append(f"--{name.replace('_', '-')}={getattr(self, name)}")
        return words

    def with_fix(self, fix: JointFix) -> "PoseEdits":
        """Adds a decision; an older one about the same joint and frames is dropped."""

        def same(other: JointFix) -> bool:
            return (other.joint, other.first, other.last) == (fix.joint, fix.first, fix.last)

        kept = tuple(text for text in self.fix if not same(JointFix.parse(text)))
        return self.model_copy(update={"fix": (*kept, str(fix))})


def repair(sequence: "PoseSequence", edits: PoseEdits) -> "PoseSequence":
    """Applies everything but the trimming, so that frames keep their numbers.

    Raises:
        ValueError: a fix names a frame that is not there, or a place far outside.
    """
    from pose.editing import fill_gaps, fix_joint, smooth

    fixes = edits.fixes
    for fix in fixes:
        sequence = fix_joint(sequence, fix)
    sequence = smooth(fill_gaps(sequence, edits.fill_gaps), edits.smooth)
    if edits.smooth > 1:
        for fix in fixes:
            if fix.xy is not None:  # what was set by hand stays where it was put
                sequence = fix_joint(sequence, fix)
    return sequence


def apply_edits(sequence: "PoseSequence", edits: PoseEdits) -> "PoseSequence":
    """Applies all edits.

    Raises:
        ValueError: an edit names a frame that is not there, or a place far outside.
    """
    from pose.editing import trim

    return trim(repair(sequence, edits), edits.first, edits.last)
