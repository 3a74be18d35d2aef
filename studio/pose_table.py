"""The joints of one frame as rows of a table, changes of the rows as fixes, and the timeline as rows of a chart."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pose.fixes import JointFix
from pose.skeleton import JOINTS

if TYPE_CHECKING:
    from pose.sequence import PoseSequence
    from pose.timeline import Doubt

MOST_COLUMNS: Final = 240
"""Frames are put together for the chart beyond this: more than a screen can show."""
LOOK_AT: Final = "look at"
"""The row of the chart that marks doubtful frames."""


def said(joint: str) -> str:
    """A joint's name as people write it."""
    return joint.replace("_", " ")


def joint_rows(poses: "PoseSequence", frame: int) -> list[dict[str, Any]]:
    """Lists joint, seen, x, y (px, one decimal; None where missing) and how sure, of one frame."""
    visible = poses.visible[frame].tolist()
    places = zip(JOINTS, visible, poses.xy[frame].tolist(), poses.confidence[frame].tolist(), strict=True)
    return [
        {
            "joint": said(name),
            "seen": seen,
            "x": round(x, 1) if seen else None,
            "y": round(y, 1) if seen else None,
            "sure": round(sure, 2),
        }
        for name, seen, (x, y), sure in places
    ]


def fixes_of(
    changed: Mapping[Any, Mapping[str, Any]], poses: "PoseSequence", frame: int
) -> tuple[list[JointFix], list[str]]:
    """Reads what was changed in the table, row number -> column -> value, as fixes and as words about what is wanting.

    A joint that is ticked as seen starts in the middle of the canvas when it has no place yet.
    """
    rows = joint_rows(poses, frame)
    fixes, wanting = [], []
    for number, change in changed.items():
        row = rows[int(number)] | dict(change)
        joint = JOINTS[int(number)]
        placed = "x" in change or "y" in change
        if not (placed or "seen" in change):
            continue
        if not (row["seen"] or placed):
            fixes.append(JointFix(first=frame, last=frame, joint=joint, xy=None))
            continue
        x, y = row["x"], row["y"]
        if "seen" in change and not placed and x is None:
            x, y = (round(side / 2, 1) for side in poses.frame_size)
        if x is None or y is None:
            wanting.append(f"{said(joint)} needs x and y; give the other one too, or untick it")
            continue
        fixes.append(JointFix(first=frame, last=frame, joint=joint, xy=(float(x), float(y))))
    return fixes, wanting


def timeline_rows(
    names: Iterable[str], values: Any, doubts: "Iterable[Doubt]", *, first: int, last: int
) -> list[dict[str, Any]]:
    """Makes a row for each part of the body and stretch of frames: the least sure frame of the stretch counts.

    Args:
        names: the parts.
        values: confidence 0..1, (parts, frames).
        doubts: get a row of their own, called `LOOK_AT`.
        first: first frame kept.
        last: last frame kept.
    """
    frames = values.shape[1]
    step = -(-frames // MOST_COLUMNS)
    stretches = [(start, min(start + step, frames)) for start in range(0, frames, step)]
    rows = [
        {
            "part": said(name),
            "frame": start,
            "until": stop,
            "sure": round(float(series[start:stop].min()), 3),
            "kept": stop > first and start <= last,
        }
        for name, series in zip(names, values, strict=True)
        for start, stop in stretches
    ]
    why: dict[int, list[str]] = {}
    for doubt in doubts:
        text = f"{said(doubt.joint)} {doubt.why}" if doubt.joint else doubt.why
        why.setdefault(doubt.frame // step * step, []).append(text)
    return rows + [
        {"part": LOOK_AT, "frame": start, "until": min(start + step, frames), "why": ", ".join(texts[:4])}
        for start, texts in sorted(why.items())
    ]


def next_doubt(doubts: "Iterable[Doubt]", frame: int, *, back: bool = False) -> int | None:
    """The next doubtful frame after `frame`, or before it; None when there is none."""
    frames = sorted({doubt.frame for doubt in doubts})
    beyond = [k for k in frames if (k < frame if back else k > frame)]
    return (beyond[-1] if back else beyond[0]) if beyond else None
