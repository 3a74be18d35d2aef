"""The Fit tab: the motion on a character, adjusted by hand."""

from typing import TYPE_CHECKING

import streamlit as st

from pose.adjustment import NOT_ADJUSTED, Adjustment, written
from studio.characters import CHARACTERS, character_file
from studio.pose_clips import Someone
from studio.pose_edits import PoseEdits, apply_edits
from studio.ui.pose_limits import limits
from studio.ui.text import plain

if TYPE_CHECKING:
    from studio.pose_fitting import Fitted

PICTURES = ["png", "jpg", "jpeg", "webp", "bmp"]
MINE = "my picture"


def draw_fit(someone: Someone, edits: PoseEdits, frame: int) -> None:
    """Draws the motion over a character, the sliders, and what would look bad."""
    names = [*sorted(CHARACTERS), MINE]
    who = st.selectbox("Character", names, key="pose.who", format_func=lambda name: CHARACTERS.get(name, name))
    content = None
    if who == MINE:
        file = st.file_uploader("Picture", type=PICTURES, key="pose.reference", max_upload_size=50)
        if file is None:
            st.info("Choose a picture to see the motion on it.")
            return
        content = file.getvalue()
    else:
        content = character_file(who).read_bytes()
    from studio.pose_fitting import draw_fitted, findings_of

    adjustment = Adjustment(**{**NOT_ADJUSTED.model_dump(), **st.session_state.get("pose.adjust", {})})
    try:
        fitted = fit(content, someone, edits)
    except (ValueError, OSError) as error:
        st.error(plain(str(error)))
        return
    place = min(max(0, frame - edits.first), len(fitted.poses) - 1)
    st.image(draw_fitted(fitted, adjustment, place), caption=f"Frame {place + edits.first} on the character", width=260)
    _draw_sliders()
    findings = findings_of(fitted, adjustment)
    for note in (*fitted.notes, *map(str, findings)):
        st.warning(plain(note))
    if not (findings or fitted.notes):
        st.success("The motion fits, and stays in the picture.")
    if adjustment != NOT_ADJUSTED:
        st.caption("For studio animate and studio pose align:")
        st.code(" ".join(f"--adjust {text}" for text in written(adjustment)), language="bash", wrap_lines=True)


def _draw_sliders() -> None:
    kept: dict[str, float] = st.session_state.setdefault("pose.adjust", {})
    with st.expander("Adjust", expanded=True):
        left, right = st.columns(2)
        for number, (name, field) in enumerate(Adjustment.model_fields.items()):
            key = f"pose.adjust.{name}"
            st.session_state[key] = float(kept.get(name, field.default))
            low, high = limits(Adjustment, name)
            (left, right)[number % 2].slider(
                name.replace("_", " ").capitalize(), low, high, step=0.01 if name.startswith("shift") else 0.05,
                key=key, help=field.description, on_change=_take, args=(name,),
            )  # fmt: skip
        st.button("Back to none", key="pose.adjust.none", disabled=not kept, on_click=kept.clear)


def _take(name: str) -> None:
    kept = st.session_state["pose.adjust"]
    value = round(float(st.session_state[f"pose.adjust.{name}"]), 3)
    if value == Adjustment.model_fields[name].default:
        kept.pop(name, None)
    else:
        kept[name] = value


def fit(content: bytes, someone: Someone, edits: PoseEdits) -> "Fitted":
    """Aligns the edited motion to the picture's body; done once for each picture and edit.

    Raises:
        ValueError: the picture cannot be read, or shows several people.
    """
    stamp = someone.file.stat().st_mtime_ns
    return _fit(content, str(someone.file), stamp, someone.person, edits.model_dump_json(), someone)


@st.cache_resource(max_entries=8, show_spinner="Fitting the motion")
def _fit(content: bytes, file: str, stamp: int, person: int | None, edits: str, _someone: Someone) -> "Fitted":
    from studio.pose_fitting import fit_to_picture

    return fit_to_picture(content, apply_edits(_someone.poses, PoseEdits.model_validate_json(edits)))
