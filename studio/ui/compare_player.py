"""Draws the choice of videos and the player that keeps them in step, with numbers of how much they differ."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import altair as alt
import streamlit as st

from studio.errors import RequestError
from studio.side_by_side import PLAYABLE, Clip, Difference, look_at, measure
from studio.side_sets import MOST_VARIANTS
from studio.ui import shell
from studio.ui.player import play_in_step
from studio.ui.serve import typed_path
from studio.ui.sources import uploads_folder
from studio.ui.text import plain

KINDS: Final = ("animate", "background")
_MOST_JOBS: Final = 200


def choose_videos(page: str, paths: Sequence[str]) -> None:
    """Lets the player show these files, before the page is drawn."""
    kept = st.session_state.setdefault(f"{page}.extra", {})
    names = []
    made = {path: name for name, path in _made().items()}
    for path in paths[:MOST_VARIANTS]:
        name = made.get(path) or Path(path).name
        if path not in made:
            kept[name] = path
        names.append(name)
    st.session_state[f"{page}.videos"] = list(dict.fromkeys(names))


def draw_player(page: str) -> None:
    """Draws the view of the videos."""
    videos = {**_made(), **st.session_state.setdefault(f"{page}.extra", {})}
    key = f"{page}.videos"
    st.session_state[key] = [name for name in st.session_state.get(key, []) if name in videos]
    names = st.multiselect("Videos", list(videos), key=key, max_selections=MOST_VARIANTS, persist_state="session",
                           placeholder="two to four of those that were made")  # fmt: skip
    with st.expander("Other videos"):
        _draw_others(page)
    clips, labels = [], []
    for name in names:
        clip = shell.told(seen, videos[name])
        if clip is not None:
            clips.append(clip)
            labels.append(name)
    if len(clips) < 2:
        st.info("Choose two videos or more: they play side by side with one clock, go on by single frames, and lie "
                "over each other with a line to drag or as their difference.", icon=":material/compare:")  # fmt: skip
        return
    draw_in_step(page, clips, labels)


def draw_in_step(page: str, clips: list[Clip], labels: list[str]) -> None:
    """Draws the player with what there is to say of the videos."""
    for note in notes_of(clips):
        st.caption(note)
    play_in_step(clips, labels, key=f"{page}.player")
    st.caption("Space plays and pauses, the arrow keys go by one frame, Home and End to the ends.")
    if st.toggle("Measure how much the first two differ", key=f"{page}.measure", persist_state="session",
                 help="PSNR and SSIM of each frame, on the computer that runs the studio."):  # fmt: skip
        _draw_difference(clips[0], clips[1], labels)


def notes_of(clips: Sequence[Clip]) -> list[str]:
    """What a viewer should know before comparing."""
    notes = []
    if len({round(clip.fps, 3) for clip in clips}) > 1:
        rates = ", ".join(f"{clip.fps:g}" for clip in clips)
        notes.append(f"The rates differ ({rates} frames/s); a step is a frame of the finest.")
    lengths = [clip.frames / clip.fps for clip in clips]
    if max(lengths) - min(lengths) > 0.5 / max(clip.fps for clip in clips):
        notes.append(f"The lengths differ; all end with the shortest, after {min(lengths):.2f} s.")
    return notes


@st.cache_data(show_spinner=False, max_entries=200, ttl=600)
def _looked(path: str, changed: float) -> Clip:
    return look_at(Path(path))


def seen(path: str) -> Clip:
    """A video as its file says it is, read once.

    Raises:
        RequestError: it cannot be shown.
    """
    changed = Path(path).stat().st_mtime if Path(path).is_file() else 0.0
    return _looked(path, changed)


@st.cache_data(show_spinner="Measuring", max_entries=64)
def _measured(one: Clip, two: Clip, changed: tuple[float, float]) -> Difference:
    return measure(one, two)


def difference(one: Clip, two: Clip) -> Difference:
    """How much two videos differ, measured once.

    Raises:
        RequestError: they cannot be laid over each other.
    """
    return _measured(one, two, (one.path.stat().st_mtime, two.path.stat().st_mtime))


def _draw_difference(one: Clip, two: Clip, labels: list[str]) -> None:
    found = shell.told(difference, one, two)
    if found is None:
        return
    left, right, about = st.columns([1, 1, 2], vertical_alignment="center")
    left.metric("PSNR", f"{statistics.mean(found.psnr):.2f} dB", help="More is more alike; equal frames count as 100.")
    right.metric("SSIM", f"{statistics.mean(found.ssim):.4f}", help="1 is equal.")
    least = found.frames[min(range(len(found.ssim)), key=lambda k: found.ssim[k])]
    about.caption(f"Means of {len(found.frames)} frames at {found.size[0]}x{found.size[1]}, {plain(labels[0])} and "
                  f"{plain(labels[1])}. They differ most in frame {least + 1}.")  # fmt: skip
    data = alt.Data(values=[{"frame": k + 1, "ssim": value} for k, value in zip(found.frames, found.ssim, strict=True)])
    chart = alt.Chart(data).mark_line().encode(
        x=alt.X("frame:Q", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("ssim:Q", title="SSIM", scale=alt.Scale(zero=False)),
        tooltip=["frame:Q", alt.Tooltip("ssim:Q", format=".4f")],
    )  # fmt: skip
    st.altair_chart(chart.properties(height=180), width="stretch")


def _made() -> dict[str, str]:
    """The videos that jobs have made, by a name for lists, the latest first."""
    jobs = shell.queue().jobs(("done",), kinds=KINDS, limit=_MOST_JOBS)
    return {f"{job.title} · job {job.id}": str(job.result["output"]) for job in jobs if job.result.get("output")}


def _draw_others(page: str) -> None:
    kept = st.session_state[f"{page}.extra"]
    uploads = st.file_uploader("Upload videos", type=[kind[1:] for kind in PLAYABLE], accept_multiple_files=True,
                               key=f"{page}.uploads", help="Converted to MP4 and kept below the runs.")  # fmt: skip
    for upload in uploads or ():
        if upload.file_id in kept.values() or st.session_state.get(f"{page}.kept.{upload.file_id}"):
            continue
        path = shell.told(_keep, upload)
        if path is not None:
            st.session_state[f"{page}.kept.{upload.file_id}"] = True
            kept[f"{_name(upload.name)} (upload {Path(path).stem[-6:]})"] = path
            st.session_state[f"{page}.add"] = True
    text = st.text_input("Video file on this computer", key=f"{page}.path",
                         help="Below the runs or a declared folder.")  # fmt: skip
    if st.button("Add it", key=f"{page}.add_path", disabled=not text.strip(), icon=":material/add:"):
        found = shell.told(_checked, text)
        if found is not None:
            kept[found.name] = str(found)
            st.rerun()
    if st.session_state.pop(f"{page}.add", False):
        st.rerun()


def _name(name: str) -> str:
    from studio.uploads import shown_name

    return shown_name(name)


def _keep(upload: "st.runtime.uploaded_file_manager.UploadedFile") -> str:
    from studio.uploads import keep_video

    with st.spinner("Looking at the video"):
        return str(keep_video(upload.name, upload, uploads_folder()).path)


def _checked(text: str) -> Path:
    path = typed_path(text, what="the video")
    if path.suffix.lower() not in PLAYABLE:
        raise RequestError(f"the video {path.name}: browsers play {', '.join(PLAYABLE)}; convert it first")
    if not path.is_file():
        raise RequestError(f"the video {path.name}: no such file")
    return path
