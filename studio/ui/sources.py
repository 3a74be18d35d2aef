"""Where a picture or a motion comes from: bundled, uploaded, from the camera, or what another page handed over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import streamlit as st

from pose.motions import MOTIONS
from studio.characters import CHARACTERS, character_file
from studio.errors import RequestError
from studio.jobs import runs_folder

BUNDLED: Final = "Bundled"
MINE: Final = "Upload"
CAMERA: Final = "Camera"
CHOSEN: Final = "Chosen"
PICTURES: Final = ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif"]
MOVING: Final = ["mp4", "mov", "webm", "mkv", "avi", "gif", "json"]


def uploads_folder() -> Path:
    """Where uploads are kept, under names made of their content."""
    folder = runs_folder() / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pick_picture(page: str, *, label: str = "Character") -> str | None:
    """Draws the choice of a picture; a file, the name of a bundled character, or None where there is none yet."""
    source = _source(page, "picture", label, [BUNDLED, MINE, CAMERA])
    if source == BUNDLED:
        names = sorted(CHARACTERS)
        _begin_with(f"{page}.character", "juice-box")
        name = st.selectbox("Bundled character", names, key=f"{page}.character", persist_state="session",
                            format_func=lambda name: f"{name}: {CHARACTERS[name]}")  # fmt: skip
        return str(name)
    if source == CHOSEN:
        path: str = st.session_state[f"{page}.chosen_picture"]
        st.caption(f"From an earlier result: {Path(path).name}")
        return path
    if source == CAMERA:
        upload = st.camera_input("Photo", key=f"{page}.camera", help="Stand back so that your whole body is seen.")
    else:
        upload = st.file_uploader("Picture", type=PICTURES, key=f"{page}.picture",
                                  help="A whole figure on a calm ground works best.")  # fmt: skip
    return _kept(page, "picture", upload, _keep_picture)


def pick_driving(page: str) -> str | None:
    """Draws the choice of a motion; a file, the name of a bundled motion, or None where there is none yet."""
    source = _source(page, "driving", "Motion", [BUNDLED, MINE])
    if source == BUNDLED:
        _begin_with(f"{page}.motion", "wave")
        name = st.selectbox("Bundled motion", sorted(MOTIONS), key=f"{page}.motion", persist_state="session",
                            format_func=lambda name: f"{name}: {MOTIONS[name]}")  # fmt: skip
        return str(name)
    if source == CHOSEN:
        path: str = st.session_state[f"{page}.chosen_driving"]
        st.caption(f"From an earlier result: {Path(path).name}")
        return path
    upload = st.file_uploader("Video or keypoints", type=MOVING, key=f"{page}.driving_file",
                              help="One person from head to feet; or a keypoint file of the Pose page.")  # fmt: skip
    return _kept(page, "driving", upload, _keep_driving)


def pick_skeleton(page: str, picture: str | None) -> str | None:
    """Draws the choice of the picture's own skeleton; a keypoint file, or None where it is to be detected."""
    of, skeleton = st.session_state.get(f"{page}.chosen_skeleton", (None, None))
    if skeleton is not None and of == picture:
        st.caption(f"Skeleton of the picture: {Path(skeleton).name}")
        st.button("Detect it instead", key=f"{page}.detect", icon=":material/undo:",
                  on_click=st.session_state.pop, args=(f"{page}.chosen_skeleton",))  # fmt: skip
        return str(skeleton)
    upload = st.file_uploader("Skeleton of the picture", type=["json"], key=f"{page}.skeleton_file",
                              help="A keypoint file, as the Pose page makes of a picture, where the detected skeleton "
                                   "is wrong.")  # fmt: skip
    return _kept(page, "skeleton", upload, _keep_keypoints)


def choose_skeleton(page: str, *, picture: str, skeleton: str) -> None:
    """Chooses a skeleton from elsewhere for a picture; for another picture it does not count."""
    st.session_state[f"{page}.chosen_skeleton"] = (picture, skeleton)


def choose(page: str, what: str, value: str) -> None:
    """Chooses a picture ("picture") or a motion ("driving") from elsewhere, before the page is drawn."""
    known, key = (CHARACTERS, "character") if what == "picture" else (MOTIONS, "motion")
    if value in known:
        st.session_state[f"{page}.{key}"] = value
        st.session_state[f"{page}.{what}_source"] = BUNDLED
    else:
        st.session_state[f"{page}.chosen_{what}"] = value
        st.session_state[f"{page}.{what}_source"] = CHOSEN


def shown_picture(picture: str) -> Path:
    """The file to show for a picture."""
    return character_file(picture) if picture in CHARACTERS else Path(picture)


def _source(page: str, what: str, label: str, options: list[str]) -> str:
    if f"{page}.chosen_{what}" in st.session_state:
        options = [*options, CHOSEN]
    _begin_with(f"{page}.{what}_source", BUNDLED)
    found = st.segmented_control(label, options, key=f"{page}.{what}_source", persist_state="session", required=True)
    return str(found or BUNDLED)


def _begin_with(key: str, value: str) -> None:
    if key not in st.session_state:
        st.session_state[key] = value


def _kept(page: str, what: str, upload: Any, keep: Callable[[Any], Path]) -> str | None:
    """Keeps an upload once; a message where it is refused."""
    if upload is None:
        return None
    known = st.session_state.setdefault(f"{page}.kept_{what}", {})
    if known.get("id") != upload.file_id:
        try:
            with st.spinner("Looking at the file"):
                path = str(keep(upload))
        except (RequestError, OSError) as error:
            path, message = "", str(error)
        else:
            message = ""
        known = st.session_state[f"{page}.kept_{what}"] = {"id": upload.file_id, "path": path, "message": message}
    if known["message"]:
        st.error(known["message"], icon=":material/error:")
    return known["path"] or None


def _keep_picture(upload: Any) -> Path:
    from studio.uploads import keep_picture

    return keep_picture(upload.name, upload, uploads_folder())


def _keep_keypoints(upload: Any) -> Path:
    from studio.uploads import keep_keypoints

    return keep_keypoints(upload.name, upload, uploads_folder())


def _keep_driving(upload: Any) -> Path:
    from studio.uploads import keep_video

    if Path(upload.name).suffix.lower() == ".json":
        return _keep_keypoints(upload)
    return keep_video(upload.name, upload, uploads_folder()).path
