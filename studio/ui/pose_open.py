"""The ways to open a clip on the Pose page."""

from collections.abc import Callable, Sequence
from typing import Final

import streamlit as st

from studio.cli.verbs.pose import ExtractRequest
from studio.errors import RequestError
from studio.jobs import Job
from studio.pose_clips import Clip, list_clips, open_keypoints, open_motion, open_picture, start_extraction
from studio.ui import pose_state as state
from studio.ui import shell
from studio.ui.form import field
from studio.ui.sources import PICTURES, uploads_folder
from studio.ui.text import plain

PAGE: Final = "pose"
VIDEOS: Final = ["mp4", "mov", "webm", "mkv", "avi", "gif"]
MOTION, VIDEO, PICTURE, KEYPOINTS, EARLIER = "Bundled motion", "Video", "Picture", "Keypoint file", "Earlier clip"


def draw_open() -> None:
    """Draws what can be opened."""
    st.caption("See what the program found in a clip, repair it, fit it to a character, and animate with it.")
    source = st.segmented_control("Open", [MOTION, VIDEO, PICTURE, KEYPOINTS, EARLIER], default=MOTION, required=True,
                                  key="pose.source")  # fmt: skip
    {VIDEO: _draw_video, PICTURE: _draw_picture, KEYPOINTS: _draw_keypoints, EARLIER: _draw_earlier}.get(
        str(source), _draw_motion
    )()


def _draw_motion() -> None:
    from pose.motions import MOTIONS

    names = sorted(MOTIONS)
    name = st.selectbox("Motion", names, index=names.index("wave"), key="pose.motion",
                        format_func=lambda name: f"{name}: {MOTIONS[name]}")  # fmt: skip
    if st.button("Open", type="primary", key="pose.open"):
        _open(lambda: open_motion(name))


def _draw_video() -> None:
    file = st.file_uploader("Video", type=VIDEOS, key="pose.video", help="One or several people, the whole body seen.")
    columns = st.columns(3)
    values = {}
    for column, name, label in zip(columns, ("detector", "fps", "num_frames"), ("Detector", "Frame rate", "Frames"),
                                   strict=True):  # fmt: skip
        with column:
            values[name] = field(ExtractRequest, name, page=PAGE, label=label)
    if st.button("Find the pose", type="primary", key="pose.open", disabled=file is None) and file is not None:

        def kept() -> Clip:
            with st.spinner("Looking at the video"):
                from studio.uploads import keep_video  # brings a video library, which takes a moment

                video = keep_video(file.name, file, uploads_folder()).path
            return start_extraction(file.name, video, _submit, **values)

        _open(kept)
    st.caption(
        "mini knows drawn figures best. For people take dwpose, rtmw or rtmpose: their weights are fetched once."
    )
    if file is None:
        st.caption("Choose a video first. It is read in the background; you may leave the page.")


def _draw_picture() -> None:
    st.caption("The skeleton of a character, repaired by hand, is what motions are fitted to: --reference-pose.")
    file = st.file_uploader("Picture", type=PICTURES, key="pose.still", help="The whole figure seen.")
    detector = field(ExtractRequest, "detector", page=PAGE, label="Detector")
    if st.button("Find the pose", type="primary", key="pose.open", disabled=file is None) and file is not None:

        def kept() -> Clip:
            with st.spinner("Finding the skeleton"):
                from studio.uploads import keep_picture

                picture = keep_picture(file.name, file, uploads_folder())
                if detector == "mini":
                    return open_picture(file.name, picture)
            return start_extraction(file.name, picture, _submit, detector=detector, fps=None, num_frames=None)

        _open(kept)
    if file is None:
        st.caption("Choose a picture first.")


def _submit(words: Sequence[str], title: str) -> Job:
    return shell.submit(words, title=title)


def _draw_keypoints() -> None:
    file = st.file_uploader("Keypoints (JSON)", type=["json"], key="pose.keypoints",
                            help="Our own, OpenPose, COCO, mmpose, rtmlib or DWPose.")  # fmt: skip
    if st.button("Open", type="primary", key="pose.open", disabled=file is None) and file is not None:
        _open(lambda: open_keypoints(file.name, file, uploads_folder()))
    if file is None:
        st.caption("Choose a keypoint file first.")


def _draw_earlier() -> None:
    clips = list_clips()
    if not clips:
        st.info("Nothing was opened yet. What you open, and its edits, stays here.")
        return
    number = st.selectbox("Clip", range(len(clips)), key="pose.earlier", format_func=lambda k: _listed(clips[k]))
    if st.button("Open", type="primary", key="pose.open"):
        _open(lambda: clips[number])


def _listed(clip: Clip) -> str:
    stamp = clip.folder.name
    return f"{clip.name}, {stamp[6:8]}.{stamp[4:6]}. {stamp[9:11]}:{stamp[11:13]}"


def _open(make: Callable[[], Clip]) -> None:
    try:
        state.open_clip(make())
    except (RequestError, ValueError, OSError) as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    st.rerun()
