"""The panels of the Pose page beside the stage: cleaning up, joints, keeping."""

import shlex
from pathlib import Path

import streamlit as st

from pose.fixes import ALL, JointFix
from pose.skeleton import JOINTS
from studio.pose_clips import Clip, Someone, edit_words, save_poses
from studio.pose_edits import PoseEdits, apply_edits
from studio.pose_table import joint_rows, said
from studio.ui import pose_state as state
from studio.ui import shell
from studio.ui.controls import control_of
from studio.ui.pose_fit import adjustment
from studio.ui.text import plain


def draw_tidy(looked: state.Looked, *, still: bool = False) -> None:
    """Draws gaps, smoothing and the ends, and what would look bad."""
    from pose.checks import check_driving, check_reference

    edits, total = state.edits(), len(looked.poses)
    for column, name, step in zip(st.columns(2), ("fill_gaps", "smooth"), (1, 2), strict=True):
        control = control_of(PoseEdits, name)
        st.session_state[f"pose.{name}"] = getattr(edits, name)
        column.number_input(control.label, int(control.low or 0), int(control.high or 0), step=step,
                            key=f"pose.{name}", help=control.help, on_change=state.take_number,
                            args=(name,))  # fmt: skip
    if total > 1:
        st.session_state["pose.range"] = (edits.first, total - 1 if edits.last is None else edits.last)
        st.slider("Keep the frames", 0, total - 1, key="pose.range", on_change=state.take_range, args=(total,),
                  help="What lies outside is cut off; frames keep their numbers here.")  # fmt: skip
    poses = apply_edits(looked.poses, PoseEdits(first=edits.first, last=edits.last))
    frames = "frame" if len(poses) == 1 else "frames"
    doubtful = len({doubt.frame for doubt in looked.doubts})
    st.caption(f"{len(poses)} {frames} of {poses.frame_size[0]}x{poses.frame_size[1]} px at {poses.fps:g} fps, "
               f"{poses.duration_s:.1f} s · {int((~poses.visible).sum())} joints missing · "
               f"{doubtful} frames deserve a look")  # fmt: skip
    findings = check_reference(poses) if still else check_driving(poses)
    for finding in findings:
        show = st.error if finding.stops else st.warning
        show(f"**{plain(_begun(finding.what))}**: {plain(finding.why)}. {plain(_begun(finding.fix))}.",
             icon=":material/accessibility_new:")  # fmt: skip
    if not findings:
        st.success("Motions can be fitted to it." if still else "Ready to animate: the body is seen throughout.")


def _begun(text: str) -> str:
    """The text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def draw_joints(looked: state.Looked) -> None:
    """Draws the joints of the frame as a table that can be typed into."""
    poses, frame = looked.poses, st.session_state["pose.at"]
    st.caption(f"Frame {frame}, px of the canvas. Drag a joint on the picture, or type here.")
    key = f"pose.joints.{frame}.{st.session_state['pose.revision']}"
    st.data_editor(
        joint_rows(poses, frame), key=key, hide_index=True, height=320, num_rows="fixed", row_height=28,
        disabled=["joint", "sure"], on_change=state.take_table, args=(key, poses, frame),
        column_config={
            "joint": st.column_config.TextColumn("Joint", width=100),
            "seen": st.column_config.CheckboxColumn("Seen", width=64, help="Untick to mark it missing."),
            "x": st.column_config.NumberColumn("x", width=54), "y": st.column_config.NumberColumn("y", width=54),
            "sure": st.column_config.NumberColumn("Sure", width=40, help="The detector's confidence, 0 to 1."),
        },
    )  # fmt: skip
    for text in st.session_state["pose.told"]:
        st.warning(plain(text))
    with st.expander("Mark missing over several frames"):
        joint = st.selectbox("Joint", [ALL, *JOINTS], key="pose.lost", format_func=said)
        last = st.number_input("From this frame to", frame, len(poses) - 1, frame, key=f"pose.lost.{frame}",
                               help="Short gaps can then be filled under Clean up.")  # fmt: skip
        fix = JointFix(first=frame, last=int(last), joint=joint, xy=None)
        st.button("Mark missing", key="pose.lose", on_click=state.add_fixes, args=([fix],))


def draw_keep(clip: Clip, someone: Someone, looked: state.Looked) -> None:
    """Draws the ways on: download, save, animate."""
    from pose.readers import keypoints_json

    edits = state.edits()
    poses = apply_edits(looked.poses, PoseEdits(first=edits.first, last=edits.last))
    name = st.text_input("Name", value=Path(clip.name).stem[:60], key=f"pose.name.{clip.folder.name}", max_chars=60)
    with st.container(horizontal=True):
        st.download_button("Download", lambda: keypoints_json(poses), f"{Path(name).name or 'motion'}.json",
                           "application/json", key="pose.download", icon=":material/download:",
                           on_click="ignore")  # fmt: skip
        save = st.button("Save", key="pose.save", icon=":material/save:", help="Into the studio's own folder of poses.")
    still = clip.picture is not None
    go = st.button("Animate this character" if still else "Animate with this", type="primary", key="pose.animate",
                   icon=":material/animation:", width="stretch")  # fmt: skip
    if save or go:
        try:
            path = save_poses(name, poses)
        except OSError as error:
            st.error(plain(f"{error.filename}: {error.strerror}"), icon=":material/error:")
            return
        if go and still:
            shell.hand_over("animate", reference=str(clip.picture), reference_pose=str(path))
        if go:
            shown = st.session_state.get("pose.reference")
            picture = {"reference": shown} if shown else {}
            shell.hand_over("animate", driving=str(path), adjust=adjustment(), **picture)
        st.success("Saved as")
        st.code(str(path), language=None, wrap_lines=True)
        if still:
            st.caption("For studio animate, with the picture as --reference:")
            st.code(shlex.join(["--reference-pose", str(path)]), language="bash", wrap_lines=True)
    st.caption("The same from the command line:")
    st.code(f"studio {shlex.join(edit_words(someone, edits, Path('motion.json')))}", language="bash", wrap_lines=True)
