"""The Fit panel of the Pose page: the motion on a character, adjusted by hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from pose.adjustment import NOT_ADJUSTED, Adjustment, written
from studio.pose_clips import Someone
from studio.pose_edits import PoseEdits, apply_edits
from studio.ui.controls import control_of
from studio.ui.sources import pick_picture, shown_picture
from studio.ui.text import plain

if TYPE_CHECKING:
    from studio.preflight import Preflight

ADJUST: Final = "pose.adjustment"
STEP: Final = 0.05


def adjustment() -> Adjustment:
    """What was changed by hand."""
    found: Adjustment = st.session_state.get(ADJUST, NOT_ADJUSTED)
    return found


def draw_fit(someone: Someone, edits: PoseEdits, frame: int, stage: Any) -> None:
    """Draws the choice of a character, the motion on it into `stage`, the sliders, and what would look bad."""
    picture = pick_picture("pose", label="Character")
    if picture is None:
        stage.info("Choose a picture: the motion is drawn on it here.")
        return
    st.session_state["pose.reference"] = picture
    try:
        fitted = _fitted(shown_picture(picture), someone, edits)
    except (ValueError, OSError) as error:
        stage.error(plain(str(error)), icon=":material/error:")
        return
    place = min(max(0, frame - edits.first), len(fitted.fitted) - 1)
    stage.image(fitted.fitted_overlay(place, adjustment()), width=_width(fitted),
                caption=f"Frame {place + edits.first} on the character")  # fmt: skip
    _draw_sliders()
    findings = fitted.findings_with(adjustment())
    for note in (*fitted.notes, *map(str, findings)):
        st.warning(plain(note), icon=":material/accessibility_new:")
    if not (findings or fitted.notes):
        st.success("The motion fits, and stays in the picture.")
    if adjustment() != NOT_ADJUSTED:
        st.caption("For studio animate and studio pose align:")
        st.code(" ".join(f"--adjust {text}" for text in written(adjustment())), language="bash", wrap_lines=True)


def _width(fitted: "Preflight", height: int = 360) -> int:
    wide, high = fitted.fitted.frame_size
    return max(1, round(height * wide / high))


def _draw_sliders() -> None:
    with st.container(height=240):
        columns = st.columns(2)
        for number, name in enumerate(Adjustment.model_fields):
            control = control_of(Adjustment, name)
            key = f"pose.adjust.{name}"
            st.session_state[key] = getattr(adjustment(), name)
            columns[number % 2].slider(control.label, control.low, control.high, step=STEP, key=key,
                                       help=control.help, on_change=_take, args=(name,))  # fmt: skip
    st.button("As it was fitted", key="pose.adjust.none", icon=":material/undo:", on_click=_forget,
              disabled=adjustment() == NOT_ADJUSTED)  # fmt: skip


def _take(name: str) -> None:
    value = round(float(st.session_state[f"pose.adjust.{name}"]), 3)
    st.session_state[ADJUST] = adjustment().model_copy(update={name: value})


def _forget() -> None:
    st.session_state[ADJUST] = NOT_ADJUSTED


def _fitted(picture: Path, someone: Someone, edits: PoseEdits) -> "Preflight":
    """Fits the edited motion to the picture; done once for each picture and edit.

    Raises:
        ValueError: the picture cannot be read, or shows several people.
    """
    stamps = picture.stat().st_mtime_ns, someone.file.stat().st_mtime_ns
    return _fit(str(picture), str(someone.file), stamps, someone.person, edits.model_dump_json(), someone)


@st.cache_resource(max_entries=16, show_spinner="Fitting the motion")
def _fit(
    picture: str, file: str, stamps: tuple[int, int], person: int | None, edits: str, _someone: Someone
) -> "Preflight":
    from studio.preflight import fit_motion

    return fit_motion(Path(picture), apply_edits(_someone.poses, PoseEdits.model_validate_json(edits)))
