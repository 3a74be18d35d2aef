"""The Pose page: what was found in a clip, seen, repaired, fitted to a character and kept."""

from typing import Any, Final

import streamlit as st

from studio.errors import RequestError
from studio.pose_clips import Clip, Someone
from studio.pose_edits import PoseEdits
from studio.pose_table import next_doubt, said, timeline_rows
from studio.ui import pose_state as state
from studio.ui import shell
from studio.ui.pose_chart import timeline_chart
from studio.ui.pose_fit import draw_fit
from studio.ui.pose_open import draw_open
from studio.ui.pose_panels import draw_joints, draw_keep, draw_tidy
from studio.ui.pose_stage import draw_stage
from studio.ui.text import plain

STAGE_PX: Final = 360
TIDY, JOINTS, FIT, KEEP = "Clean up", "Joints", "Fit", "Keep"


def draw() -> None:
    """Draws the page."""
    st.title("Pose")
    clip = state.current_clip()
    if clip is None:
        draw_open()
        return
    if not clip.files:
        _draw_head(clip)
        _draw_waiting(clip)
        return
    try:
        people = state.everyone(clip)
        someone = people[min(st.session_state["pose.person"], len(people) - 1)]
        looked = state.look(someone, state.edits())
    except ValueError as error:
        _draw_head(clip)
        st.error(plain(str(error)), icon=":material/error:")
        if state.edits() != PoseEdits():
            st.button("Forget the edits", key="pose.forget", on_click=state.change, kwargs=PoseEdits().model_dump())
        return
    _draw_head(clip, with_history=True)
    _draw_clip(clip, people, someone, looked)


def _draw_head(clip: Clip, *, with_history: bool = False) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Open another", key="pose.close", icon=":material/folder_open:", on_click=state.close_clip)
        if with_history:
            history = state.history()
            st.button("Undo", icon=":material/undo:", key="pose.undo", disabled=not history.past,
                      on_click=state.keep, args=(history.undo(),))  # fmt: skip
            st.button("Redo", icon=":material/redo:", key="pose.redo", disabled=not history.future,
                      on_click=state.keep, args=(history.redo(),))  # fmt: skip
            st.button("Start over", icon=":material/restart_alt:", key="pose.reset",
                      disabled=history.present == PoseEdits(), on_click=state.change,
                      kwargs=PoseEdits().model_dump())  # fmt: skip
        st.text(clip.name)


def _draw_waiting(clip: Clip) -> None:
    """Draws how far the job is that finds the keypoints, or why it found none."""
    try:
        job = None if clip.job is None else shell.queue().job(clip.job)
    except RequestError:
        job = None
    if job is not None and job.is_open:
        shell.watch(job.id)
        return
    why = "nothing was found" if job is None else job.error or f"it was {job.state}"
    st.error(plain(f"No keypoints: {why}"), icon=":material/error:")
    st.caption("A video in which the whole body is seen works best. The detectors dwpose and rtmw find more than mini.")
    if job is not None:
        shell.job_buttons(job, page="pose")


def _draw_clip(clip: Clip, people: list[Someone], someone: Someone, looked: state.Looked) -> None:
    total = len(looked.poses)
    state.go_to(st.session_state["pose.at"], total)
    frame = st.session_state["pose.at"]
    left, right = st.columns([3, 2], gap="medium")
    with left:
        stage = st.container(height=STAGE_PX + 24, border=False, horizontal_alignment="center")
        _draw_transport(looked, frame)
    with right:
        if len(people) > 1:
            _draw_people(people)
        panel = st.segmented_control("Panel", [TIDY, JOINTS, FIT, KEEP], default=TIDY, required=True, key="pose.panel",
                                     label_visibility="collapsed", persist_state="session")  # fmt: skip
        match panel:
            case "Joints":
                draw_joints(looked)
            case "Fit":
                draw_fit(someone, state.edits(), frame, stage)
            case "Keep":
                draw_keep(clip, someone, looked)
            case _:
                draw_tidy(looked, still=clip.picture is not None)
    if panel != FIT:
        with stage:
            _draw_stage(clip, looked, frame)


def _draw_people(people: list[Someone]) -> None:
    numbers = [str(number) for number in range(1, len(people) + 1)]
    st.session_state["pose.people"] = numbers[min(st.session_state["pose.person"], len(people) - 1)]
    st.segmented_control("Person, from the left", numbers, key="pose.people", on_change=state.choose_person,
                         required=True, help="Another choice starts with no edits.")  # fmt: skip


def _draw_stage(clip: Clip, looked: state.Looked, frame: int) -> None:
    picture: Any = None
    if clip.video is not None:
        stamp = clip.video.stat().st_mtime_ns
        picture = state.video_frame(str(clip.video), stamp, round(frame / looked.poses.fps, 4))
    elif clip.picture is not None:
        picture = state.still(str(clip.picture), clip.picture.stat().st_mtime_ns)
    doubtful = frozenset(doubt.joint for doubt in looked.doubts if doubt.frame == frame and doubt.joint)
    draw_stage(looked.poses, frame, picture, doubtful=doubtful, height_px=STAGE_PX, key=state.STAGE,
               on_moved=lambda: state.take_drag(len(looked.poses)))  # fmt: skip


def _draw_transport(looked: state.Looked, frame: int) -> None:
    """Draws where in time we are: buttons, slider, timeline."""
    total = len(looked.poses)
    if total == 1:
        return
    before, after = next_doubt(looked.doubts, frame, back=True), next_doubt(looked.doubts, frame)
    first, back, middle, on, last = st.columns([1, 1, 8, 1, 1], vertical_alignment="bottom", gap="small")
    for column, icon, target, tip in (
        (first, "keyboard_double_arrow_left", before, "To the doubtful frame before"),
        (back, "chevron_left", frame - 1 if frame else None, "One frame back"),
        (on, "chevron_right", frame + 1 if frame + 1 < total else None, "One frame on"),
        (last, "keyboard_double_arrow_right", after, "To the next doubtful frame"),
    ):
        column.button("", icon=f":material/{icon}:", key=f"pose.go.{icon}", help=tip, disabled=target is None,
                      on_click=state.go_to, args=(target, total), width="stretch")  # fmt: skip
    st.session_state["pose.frame"] = frame
    middle.slider("Frame", 0, total - 1, key="pose.frame", on_change=state.take_frame, args=(total,),
                  label_visibility="collapsed")  # fmt: skip
    here = [f"{said(doubt.joint)} {doubt.why}" if doubt.joint else doubt.why
            for doubt in looked.doubts if doubt.frame == frame]  # fmt: skip
    st.caption(" · ".join([f"Frame {frame} of {total - 1}, {frame / looked.poses.fps:.2f} s", *here]))
    _draw_timeline(looked, frame)


def _draw_timeline(looked: state.Looked, frame: int) -> None:
    from pose.timeline import confidence_over_time

    edits, total = state.edits(), len(looked.poses)
    each = bool(st.session_state.get("pose.each"))
    names, values = confidence_over_time(looked.poses, by="joints" if each else "limbs")
    last = total - 1 if edits.last is None else edits.last
    rows = timeline_rows(names, values, looked.doubts, first=edits.first, last=last)
    st.altair_chart(timeline_chart(rows, [said(name) for name in names], frame, total), key=state.CHART,
                    on_select=lambda: state.take_pick(total))  # fmt: skip
    st.toggle("Every joint", key="pose.each", persist_state="session",
              help="A row for each joint instead of each part of the body.")  # fmt: skip
    st.caption("Green is seen for sure, red is missing, violet deserves a look. Click to go there.")
