"""Draws what an animation or a background became, and what can be done with it next."""

from pathlib import Path

import streamlit as st

from studio.animate_form import LIVE, settings_of
from studio.jobs import Job
from studio.ui import shell


def draw_result(page: str, job: Job) -> None:
    """Draws a job of the page: its progress with a preview, what went wrong, or the video."""
    if job.is_open:
        st.subheader(job.title)
        shell.watch(job.id, _live)
        return
    if job.state == "done":
        _draw_video(page, job)
    else:
        st.error(job.error or "It was cancelled.", icon=":material/error:")
        shell.job_buttons(job, page=page)
    with st.container(horizontal=True):
        if st.button("Reuse settings", key=f"{page}.reuse", icon=":material/tune:",
                     help="Puts all that this one was asked into the form."):  # fmt: skip
            shell.hand_over(job.kind, **settings_of(job))
    with st.expander("The same from the command line"):
        st.code(job.command, language="bash", wrap_lines=True)


def _live(job: Job) -> None:
    picture = job.folder / LIVE
    if job.state == "running" and picture.is_file():
        st.image(picture.read_bytes(), caption="Beginning, middle and end as they take shape", width="stretch")


def _draw_video(page: str, job: Job) -> None:
    facts = job.result
    output = Path(facts["output"])
    if not output.is_file():
        st.warning(f"The video is not there any more: {output.name} was moved or deleted.", icon=":material/warning:")
        return
    st.video(str(output), loop=True, autoplay=True, muted=True)
    st.caption(
        f"{facts['frames']} frames of {facts['width']}x{facts['height']} at {facts['fps']:g} fps, made in "
        f"{facts['seconds']:.1f} s, peak memory {facts['peak_memory_bytes'] / 2**30:.1f} GiB, seed {facts['seed']}"
    )
    with st.container(horizontal=True):
        st.download_button("Download", output.read_bytes(), f"{job.id}-{output.name}", "video/mp4",
                           key=f"{page}.download", icon=":material/download:", on_click="ignore")  # fmt: skip
        sidecar = output.with_suffix(".json")
        if sidecar.is_file():
            st.download_button("How it was made", sidecar.read_bytes(), f"{job.id}-animation.json", "application/json",
                               key=f"{page}.sidecar", icon=":material/description:", on_click="ignore")  # fmt: skip
    for note in facts.get("notes", ()):
        st.warning(note, icon=":material/info:")
    sheet, drift = st.tabs(["Reference, pose, result", "Colour drift"])
    if facts.get("preview") and Path(facts["preview"]).is_file():
        sheet.image(str(facts["preview"]), caption="Rows: reference, pose, result", width="stretch")
    _draw_drift(drift, list(facts.get("colour_drift") or ()), float(facts["fps"]))


def _draw_drift(place: "st.delta_generator.DeltaGenerator", drift: list[float], fps: float) -> None:
    if not drift:
        place.caption("Not measured for this video.")
        return
    place.caption("How far the mean colour of each frame is from the first one's, in levels of 255. A slow rise over "
                  "a long video is drift; a background that changes by the prompt rises too.")  # fmt: skip
    place.line_chart({"seconds": [i / fps for i in range(len(drift))], "levels": drift}, x="seconds", y="levels",
                     height=220)  # fmt: skip


def draw_grid(page: str, jobs: list[Job]) -> None:
    """Draws the results of several seeds side by side."""
    columns = st.columns(min(4, len(jobs)))
    for number, job in enumerate(jobs):
        with columns[number % len(columns)], st.container(border=True):
            if job.state == "done" and Path(job.result["output"]).is_file():
                st.video(job.result["output"], loop=True, autoplay=True, muted=True)
            elif job.is_open:
                progress = job.progress()
                st.progress(
                    progress.share, text=f"{job.shown_state} {progress.stage if job.state == 'running' else ''}"
                )
            else:
                st.caption(job.error or job.shown_state)
            if st.button(f"Open {job.title}", key=f"{page}.open.{job.id}"):
                shell.choose_job(page, job)
                st.rerun()


def draw_recent(page: str, kind: str) -> None:
    """Draws the last results of a kind, to be opened again."""
    recent = shell.queue().jobs(("running", "queued", "done"), kinds=[kind], limit=8)
    if not recent:
        st.info("Nothing was made yet. Choose a picture, then press the button: the video appears here.",
                icon=":material/animation:")  # fmt: skip
        return
    st.caption("Made before")
    for job in recent:
        label = f"{job.title} · {job.shown_state}"
        if st.button(label, key=f"{page}.recent.{job.id}", type="tertiary", icon=":material/movie:"):
            shell.choose_job(page, job)
            st.rerun()
