"""What the Pose page remembers of a visitor, and what it reads from disk, each only once."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from pose.fixes import JointFix
from studio.history import History
from studio.pose_clips import Clip, Someone, find_clip, read_people
from studio.pose_edits import PoseEdits, repair
from studio.pose_table import fixes_of
from studio.ui.pose_chart import picked_frame
from studio.ui.pose_stage import moved_joint

if TYPE_CHECKING:
    from pose.sequence import PoseSequence
    from pose.timeline import Doubt

STAGE: Final = "pose.stage"
CHART: Final = "pose.chart"


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A person's repaired poses, not yet trimmed, and what is doubtful in them."""

    poses: "PoseSequence"
    doubts: "tuple[Doubt, ...]"


def current_clip() -> Clip | None:
    """The clip that is open: from the address, so that a reload finds it again, or from before another page."""
    name = st.query_params.get("clip") or st.session_state.get("pose.clip", "")
    clip = find_clip(str(name))
    if clip is not None:
        if st.session_state.get("pose.clip") != clip.folder.name:
            open_clip(clip)
        st.query_params["clip"] = clip.folder.name  # another page took it out of the address
    return clip


def open_clip(clip: Clip) -> None:
    """Opens a clip with the edits that were kept with it."""
    person, edits = clip.load_edits()
    st.session_state.update({"pose.clip": clip.folder.name, "pose.person": person, "pose.history": History(edits),
                             "pose.at": 0, "pose.revision": 0, "pose.told": []})  # fmt: skip
    st.query_params["clip"] = clip.folder.name


def close_clip() -> None:
    """Closes the clip; it stays among the earlier ones."""
    st.session_state.pop("pose.clip", None)
    st.query_params.pop("clip", None)


def history() -> "History[PoseEdits]":
    """The edits and those before and after them."""
    found: History[PoseEdits] = st.session_state["pose.history"]
    return found


def edits() -> PoseEdits:
    """The edits as they stand."""
    return history().present


def keep(state: "History[PoseEdits]") -> None:
    """Goes to other edits and writes them down."""
    st.session_state["pose.history"] = state
    st.session_state["pose.revision"] += 1  # a table keeps its changed cells otherwise
    clip = find_clip(st.session_state["pose.clip"])
    if clip is not None:
        clip.save_edits(st.session_state["pose.person"], state.present)


def change(**values: Any) -> None:
    """Makes one step of editing."""
    keep(history().then(edits().model_copy(update=values)))


def add_fixes(fixes: list[JointFix]) -> None:
    """Makes one step of several decisions about joints."""
    state = edits()
    for fix in fixes:
        state = state.with_fix(fix)
    keep(history().then(state))


def choose_person() -> None:
    """Goes to another person, who has edits of their own."""
    chosen, clip = st.session_state["pose.people"], find_clip(st.session_state["pose.clip"])
    if chosen is not None and clip is not None:
        person, found = clip.load_edits(int(chosen) - 1)
        st.session_state.update({"pose.person": person, "pose.at": 0})
        keep(History(found))


def take_number(name: str) -> None:
    """Takes a number from its widget."""
    value = st.session_state[f"pose.{name}"]
    if value is not None:
        change(**{name: value - 1 + value % 2 if name == "smooth" else value})


def take_range(num_frames: int) -> None:
    """Takes both ends of the clip."""
    first, last = st.session_state["pose.range"]
    change(first=first, last=None if last == num_frames - 1 else last)


def take_table(key: str, poses: "PoseSequence", frame: int) -> None:
    """Takes what was typed into the joint table."""
    fixes, wanting = fixes_of(st.session_state[key].get("edited_rows", {}), poses, frame)
    st.session_state["pose.told"] = wanting
    add_fixes(fixes)


def take_drag(frames: int) -> None:
    """Takes a joint that was dragged on the stage."""
    moved = moved_joint(STAGE)
    if moved is not None and 0 <= moved[1] < frames:
        joint, frame, x, y = moved
        add_fixes([JointFix(first=frame, last=frame, joint=joint, xy=(x, y))])


def take_frame(frames: int) -> None:
    """Goes where the slider is."""
    go_to(st.session_state["pose.frame"], frames)


def take_pick(frames: int) -> None:
    """Goes to the frame that was clicked on in the timeline."""
    frame = picked_frame(st.session_state.get(CHART))
    if frame is not None:
        go_to(frame, frames)


def go_to(frame: int, frames: int) -> None:
    """Goes to a frame."""
    st.session_state["pose.at"] = min(max(0, frame), frames - 1)


def everyone(clip: Clip) -> list[Someone]:
    """Everyone in the clip; read again when a file changes.

    Raises:
        ValueError: a file cannot be read, or nobody is in it.
    """
    return _everyone(str(clip.folder), tuple((path.name, path.stat().st_mtime_ns) for path in clip.files))


@st.cache_resource(max_entries=6, show_spinner="Reading keypoints")
def _everyone(folder: str, stamp: tuple[tuple[str, int], ...]) -> list[Someone]:
    return read_people(Clip(Path(folder)))


def look(someone: Someone, state: PoseEdits) -> Looked:
    """The repaired poses; trimming does not count, so that frames keep their numbers.

    Raises:
        ValueError: an edit does not fit the clip.
    """
    plan = state.model_copy(update={"first": 0, "last": None}).model_dump_json()
    return _look(str(someone.file), someone.file.stat().st_mtime_ns, someone.person, plan, someone)


@st.cache_resource(max_entries=24, show_spinner=False)
def _look(file: str, stamp: int, person: int | None, plan: str, _someone: Someone) -> Looked:
    from pose.timeline import doubtful_frames

    poses = repair(_someone.poses, PoseEdits.model_validate_json(plan))
    return Looked(poses=poses, doubts=tuple(doubtful_frames(poses)))


@st.cache_data(max_entries=48, show_spinner=False)
def video_frame(path: str, stamp: int, time_s: float, longest_side: int = 960) -> Any:
    """One frame of a video, small; None when it cannot be decoded."""
    from pose.media import MediaError, read_frame

    try:
        return _small(read_frame(path, time_s).numpy(), longest_side)
    except MediaError:
        return None


@st.cache_data(max_entries=8, show_spinner=False)
def still(path: str, stamp: int, longest_side: int = 960) -> Any:
    """A picture, small; None when it cannot be read."""
    from pose.media import MediaError, read_image

    try:
        return _small(read_image(path).numpy(), longest_side)
    except MediaError:
        return None


def _small(pixels: Any, longest_side: int) -> Any:
    import cv2

    scale = min(1.0, longest_side / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
