"""The Pose page: what was found in a clip, seen, repaired, fitted to a character and kept."""

import shlex
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from pose.fixes import ALL, JointFix
from pose.skeleton import JOINTS
from studio.pose_clips import (
    Clip,
    Someone,
    edit_words,
    list_clips,
    open_keypoints,
    open_motion,
    save_poses,
    start_extraction,
)
from studio.pose_edits import PoseEdits, apply_edits
from studio.pose_table import joint_rows, next_doubt, said, timeline_rows
from studio.ui import pose_state as state
from studio.ui.pose_chart import timeline_chart
from studio.ui.pose_fit import draw_fit
from studio.ui.pose_stage import draw_stage
from studio.ui.text import plain

VIDEOS = ["mp4", "mov", "webm", "mkv", "avi", "gif"]
STAGE_PX = 430
MOTION, VIDEO, KEYPOINTS, EARLIER = "Bundled motion", "Video", "Keypoint file", "Earlier clip"
DETECTORS = ("mini", "rtmpose", "rtmw", "dwpose")
ABOUT = {name: field.description or "" for name, field in PoseEdits.model_fields.items()}


def draw() -> None:
    """Draws the page."""
    st.title("Pose")
    clip = state.current_clip()
    if clip is None:
        _draw_open()
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(clip.name)
        st.button("Open another", key="pose.close", icon=":material/folder_open:", on_click=state.close_clip)
    job = clip.job
    if job is not None and job.status().state == "running":
        _watch(clip)
        return
    if not clip.files:
        st.error(plain(str(job.status().result.get("error", "nothing was found") if job else "no keypoints are here")))
        st.caption("A video in which the whole body is seen from the front works best. Other detectors find more.")
        return
    try:
        people = state.everyone(clip)
        _draw_clip(clip, people)
    except ValueError as error:
        st.error(plain(str(error)))
        st.button("Forget the edits", key="pose.forget", on_click=state.change, kwargs=PoseEdits().model_dump())


def _draw_open() -> None:
    """Draws the ways to open a clip."""
    st.caption("See what the program found in a clip, repair it, fit it to a character, and animate with it.")
    source = st.segmented_control("Open", [MOTION, VIDEO, KEYPOINTS, EARLIER], default=MOTION, key="pose.source")
    if source == VIDEO:
        _draw_open_video()
    elif source == KEYPOINTS:
        file = st.file_uploader("Keypoints (JSON)", type=["json"], key="pose.keypoints", max_upload_size=64,
                                help="Our own, OpenPose, COCO, mmpose, rtmlib or DWPose.")  # fmt: skip
        if st.button("Open", type="primary", key="pose.open", disabled=file is None) and file is not None:
            _open(lambda: open_keypoints(file.name, file.getvalue()))
        if file is None:
            st.caption("Choose a keypoint file first.")
    elif source == EARLIER:
        _draw_open_earlier()
    else:
        from pose.motions import MOTIONS

        names = sorted(MOTIONS)
        name = st.selectbox("Motion", names, index=names.index("wave"), key="pose.motion",
                            format_func=lambda name: f"{name}: {MOTIONS[name]}")  # fmt: skip
        if st.button("Open", type="primary", key="pose.open"):
            _open(lambda: open_motion(name))


def _draw_open_video() -> None:
    file = st.file_uploader("Video", type=VIDEOS, key="pose.video", help="One or several people, the whole body seen.")
    left, middle, right = st.columns(3)
    detector = left.selectbox("Detector", DETECTORS, key="pose.detector", help="mini is ours and ships with the "
                              "program; the others find several people, and fetch their weights once.")  # fmt: skip
    fps = middle.number_input("Frame rate", 1.0, 240.0, None, placeholder="the video's", key="pose.fps",
                              help="Fewer frames a second are found sooner.")  # fmt: skip
    frames = right.number_input("Frames", 1, 100_000, None, placeholder="all", key="pose.num_frames",
                                help="How many frames to read.")  # fmt: skip
    if st.button("Find the pose", type="primary", key="pose.open", disabled=file is None) and file is not None:
        _open(lambda: start_extraction(file.name, file.getvalue(), detector=detector, fps=fps, num_frames=frames))
    if file is None:
        st.caption("Choose a video first. It is read in the background: the page may be closed.")


def _draw_open_earlier() -> None:
    clips = list_clips()
    if not clips:
        st.info("Nothing was opened yet. What you open, and its edits, stays here.")
        return
    number = st.selectbox("Clip", range(len(clips)), key="pose.earlier",
                          format_func=lambda k: f"{clips[k].name} ({clips[k].folder.name[:15]})")  # fmt: skip
    if st.button("Open", type="primary", key="pose.open"):
        _open(lambda: clips[number])


def _open(make: Callable[[], Clip]) -> None:
    try:
        state.open_clip(make())
    except (ValueError, OSError) as error:
        st.error(plain(str(error)))
        return
    st.rerun()


@st.fragment(run_every="1s")
def _watch(clip: Clip) -> None:
    """Draws how far the extraction is, then the whole page."""
    job = clip.job
    assert job is not None
    status = job.status()
    if status.state != "running":
        st.rerun()
    st.progress(status.share, text=status.stage)
    st.button("Stop", key="pose.stop", on_click=job.cancel)


def _draw_clip(clip: Clip, people: list[Someone]) -> None:
    if len(people) > 1:
        numbers = [str(number) for number in range(1, len(people) + 1)]
        st.session_state["pose.people"] = numbers[min(st.session_state["pose.person"], len(people) - 1)]
        st.segmented_control("Person, from the left", numbers, key="pose.people", on_change=state.choose_person,
                             help="Every person has edits of their own; another choice starts anew.")  # fmt: skip
    someone = people[min(st.session_state["pose.person"], len(people) - 1)]
    looked = state.look(someone, state.edits())
    state.go_to(st.session_state["pose.at"], len(looked.poses))
    left, right = st.columns([3, 2], gap="large")
    with left:
        _draw_left(clip, looked)
    with right:
        _draw_history()
        tidy, joints, fit, keep = st.tabs(["Clean up", "Joints", "Fit", "Keep"])
        with tidy:
            _draw_tidy(looked, len(people))
        with joints:
            _draw_joints(looked)
        with fit:
            draw_fit(someone, state.edits(), st.session_state["pose.at"])
        with keep:
            _draw_keep(clip, someone, looked)


def _draw_left(clip: Clip, looked: state.Looked) -> None:
    poses, frame = looked.poses, st.session_state["pose.at"]
    total = len(poses)
    picture = None
    if clip.video is not None:
        stamp = clip.video.stat().st_mtime_ns
        picture = state.video_frame(str(clip.video), stamp, round(frame / poses.fps, 4))
    here = [doubt for doubt in looked.doubts if doubt.frame == frame]
    draw_stage(poses, frame, picture, doubtful=frozenset(doubt.joint for doubt in here if doubt.joint),
               height_px=STAGE_PX, key=state.STAGE, on_moved=lambda: state.take_drag(total))  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center"):
        before, after = next_doubt(looked.doubts, frame, back=True), next_doubt(looked.doubts, frame)
        for label, icon, target, tip in (
            ("Doubt", "keyboard_double_arrow_left", before, "The doubtful frame before"),
            ("Frame", "chevron_left", frame - 1 if frame else None, "One frame back"),
            ("Frame ", "chevron_right", frame + 1 if frame + 1 < total else None, "One frame on"),
            ("Doubt ", "keyboard_double_arrow_right", after, "The next doubtful frame"),
        ):
            st.button(label, icon=f":material/{icon}:", key=f"pose.go.{icon}", help=tip, disabled=target is None,
                      on_click=state.go_to, args=(target, total))  # fmt: skip
        wrong = ", ".join(f"{said(doubt.joint)} {doubt.why}" if doubt.joint else doubt.why for doubt in here)
        st.caption(f"{frame / poses.fps:.2f} s{f' · {wrong}' if wrong else ''}")
    if total > 1:
        st.session_state["pose.frame"] = frame
        st.slider("Frame", 0, total - 1, key="pose.frame",
                  on_change=lambda: state.go_to(st.session_state["pose.frame"], total))  # fmt: skip
        _draw_timeline(looked, frame)


def _draw_timeline(looked: state.Looked, frame: int) -> None:
    from pose.timeline import confidence_over_time

    edits, total = state.edits(), len(looked.poses)
    each = st.toggle("Every joint", key="pose.each", help="A row for each joint instead of each part of the body.")
    names, values = confidence_over_time(looked.poses, by="joints" if each else "limbs")
    last = total - 1 if edits.last is None else edits.last
    rows = timeline_rows(names, values, looked.doubts, first=edits.first, last=last)
    st.altair_chart(timeline_chart(rows, [said(name) for name in names], frame, total), key=state.CHART,
                    on_select=lambda: state.take_pick(total))  # fmt: skip
    st.caption("Green is seen for sure, red is missing, violet deserves a look. Click to go there.")


def _draw_history() -> None:
    history = state.history()
    with st.container(horizontal=True):
        st.button("Undo", icon=":material/undo:", key="pose.undo", disabled=not history.past,
                  on_click=lambda: state.keep(history.undo()))  # fmt: skip
        st.button("Redo", icon=":material/redo:", key="pose.redo", disabled=not history.future,
                  on_click=lambda: state.keep(history.redo()))  # fmt: skip
        st.button("Start over", icon=":material/restart_alt:", key="pose.reset",
                  disabled=history.present == PoseEdits(), on_click=state.change,
                  kwargs=PoseEdits().model_dump())  # fmt: skip


def _draw_tidy(looked: state.Looked, num_people: int) -> None:
    from pose.checks import check_driving

    edits, total = state.edits(), len(looked.poses)
    left, right = st.columns(2)
    st.session_state["pose.fill_gaps"], st.session_state["pose.smooth"] = edits.fill_gaps, edits.smooth
    left.number_input("Fill gaps (frames)", 0, 1000, step=1, key="pose.fill_gaps", help=ABOUT["fill_gaps"],
                      on_change=state.take_number, args=("fill_gaps",))  # fmt: skip
    right.number_input("Smooth (frames)", 1, 99, step=2, key="pose.smooth", help=ABOUT["smooth"],
                       on_change=state.take_number, args=("smooth",))  # fmt: skip
    if total > 1:
        st.session_state["pose.range"] = (edits.first, total - 1 if edits.last is None else edits.last)
        st.slider("Keep the frames", 0, total - 1, key="pose.range", on_change=state.take_range, args=(total,),
                  help="What lies outside is cut off; frames keep their numbers here.")  # fmt: skip
    poses = apply_edits(looked.poses, PoseEdits(first=edits.first, last=edits.last))
    missing = int((~poses.visible).sum())
    st.caption(f"{len(poses)} frames of {poses.frame_size[0]}x{poses.frame_size[1]} px at {poses.fps:g} fps, "
               f"{poses.duration_s:.1f} s; {missing} joints missing; "
               f"{len({doubt.frame for doubt in looked.doubts})} frames deserve a look")  # fmt: skip
    findings = check_driving(poses)
    for finding in findings:
        show = st.error if finding.stops else st.warning
        show(f"**{plain(finding.what)}**: {plain(finding.why)}. {plain(finding.fix)}.")
    if not findings:
        st.success("Ready to animate: the body is seen throughout.")


def _draw_joints(looked: state.Looked) -> None:
    poses, frame = looked.poses, st.session_state["pose.at"]
    st.caption(f"Frame {frame}, px of the canvas. Drag a joint on the picture, or type here.")
    key = f"pose.joints.{frame}.{st.session_state['pose.revision']}"
    st.data_editor(
        joint_rows(poses, frame), key=key, hide_index=True, height=300, num_rows="fixed",
        disabled=["joint", "sure"], on_change=state.take_table, args=(key, poses, frame),
        column_config={
            "joint": st.column_config.TextColumn("Joint"),
            "seen": st.column_config.CheckboxColumn("Seen", help="Untick to mark it missing."),
            "x": st.column_config.NumberColumn("x", step=0.1), "y": st.column_config.NumberColumn("y", step=0.1),
            "sure": st.column_config.NumberColumn("Sure", help="The detector's confidence, 0 to 1.", format="%.2f"),
        },
    )  # fmt: skip
    for text in st.session_state["pose.told"]:
        st.warning(plain(text))
    with st.expander("Mark missing over several frames"):
        names = [ALL, *JOINTS]
        joint = st.selectbox("Joint", names, key="pose.lost", format_func=said)
        last = st.number_input("From this frame to", frame, len(poses) - 1, frame, key=f"pose.lost.{frame}",
                               help="Short gaps are then filled on the first tab.")  # fmt: skip
        fix = JointFix(first=frame, last=int(last), joint=joint, xy=None)
        st.button("Mark missing", key="pose.lose", on_click=state.add_fixes, args=([fix],))


def _draw_keep(clip: Clip, someone: Someone, looked: state.Looked) -> None:
    from pose.readers import keypoints_json

    edits = state.edits()
    poses = apply_edits(looked.poses, PoseEdits(first=edits.first, last=edits.last))
    name = st.text_input("Name", value=Path(clip.name).stem[:60], key=f"pose.name.{clip.folder.name}", max_chars=60)
    with st.container(horizontal=True):
        st.download_button("Download", keypoints_json(poses), f"{Path(name).name or 'motion'}.json",
                           "application/json", key="pose.download", icon=":material/download:",
                           on_click="ignore")  # fmt: skip
        save = st.button("Save", key="pose.save", icon=":material/save:", help="Into the studio's own folder of poses.")
        go = st.button("Animate with this", type="primary", key="pose.animate", icon=":material/movie:")
    if save or go:
        try:
            path = save_poses(name, poses)
        except OSError as error:
            st.error(plain(f"{error.filename}: {error.strerror}"))
            return
        if go:
            _hand_over(path)
        st.success("Saved as")
        st.code(str(path), language=None, wrap_lines=True)
    st.caption("The same from the command line:")
    words = edit_words(someone, edits, Path("motion.json"))
    st.code(f"studio {shlex.join(words)}", language="bash", wrap_lines=True)


def _hand_over(path: Path) -> None:
    """Opens the Animate page with these poses and the adjustment that was tried."""
    st.session_state["animate.handed"] = {"driving": str(path), "adjust": st.session_state.get("pose.adjust", {})}
    st.switch_page(st.session_state["pages"]["animate"])
