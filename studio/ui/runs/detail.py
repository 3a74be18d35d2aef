"""One job: what can be done with it, its log, command, history and result."""

import time
from pathlib import Path
from typing import Final

import streamlit as st

from studio.errors import RequestError
from studio.job_changes import config_of
from studio.job_list import PAGE_OF
from studio.jobs import Job
from studio.jobs.job import tail
from studio.run_reading import run_of
from studio.ui import shell
from studio.ui.runs.clone import draw_clone
from studio.ui.runs.listing import PAGE
from studio.ui.runs.training import VIEWS, draw_view
from studio.ui.text import plain

_COLORS: Final = {"done": "green", "failed": "red", "running": "blue", "cancelled": "gray", "paused": "orange"}
_LOG_BYTES: Final = 24_000


def draw_job(job: Job) -> None:
    """Draws a job with all its views."""
    color = _COLORS.get(job.shown_state, "gray")
    st.subheader(f"{plain(job.title)} :{color}-badge[{plain(job.shown_state)}]", anchor=False)
    if job.is_open:
        shell.watch(job.id)
        waits = shell.queue().waits_for(job)
        if waits:
            st.caption("Waits for " + ", ".join(f"job {need.id} ({need.shown_state})" for need in waits))
    else:
        if job.error:
            st.error(plain(job.error), icon=":material/error:")
        shell.job_buttons(job, page=PAGE)
    _draw_actions(job)
    run = run_of(job)
    views = [*(VIEWS if run is not None and job.kind != "data" else ()), *(() if run is not None else ("Result",)),
             "Log", "Command", "History"]  # fmt: skip
    view = _choose_view(views)
    if view in VIEWS:
        assert run is not None
        draw_view(view, run, job)
    elif view == "Result":
        _draw_result(job)
    elif view == "Log":
        st.fragment(_draw_log, run_every="1s" if job.state == "running" else None)(job.id)
    elif view == "Command":
        _draw_command(job)
    else:
        _draw_history(job)


def draw_folder(run: Path) -> None:
    """Draws a run that no job made."""
    st.subheader(plain(run.name), anchor=False)
    draw_view(_choose_view(list(VIEWS)), run, None)


def _choose_view(views: list[str]) -> str:
    key = f"{PAGE}.view"
    if st.session_state.get(key) not in views:
        st.session_state[key] = views[0]
    return str(st.segmented_control("Show", views, key=key, required=True, label_visibility="collapsed") or views[0])


# --- what can be done --------------------------------------------------------------------------------------------


def _draw_actions(job: Job) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if job.state in ("queued", "paused"):
            if st.button("To the front", key=f"{PAGE}.front", icon=":material/vertical_align_top:"):
                _do(shell.queue().move, job.id)
            _draw_before(job)
        if job.is_open:
            key = f"{PAGE}.priority.{job.id}"
            priority = st.number_input(
                "Priority", -1000, 1000, job.priority, key=key, width=130, help="Higher ones first."
            )
            if priority != job.priority:
                _do(shell.queue().set_priority, job.id, int(priority))
        page = PAGE_OF.get(job.kind)
        if (
            page is not None
            and page in st.session_state.get("pages", {})
            and st.button(
                f"Open in {page.replace('_', '-').capitalize()}", key=f"{PAGE}.open", icon=":material/open_in_new:"
            )
        ):
            st.session_state[f"{page}.job"] = job.id
            shell.hand_over(page)
        with st.popover("Clone with changes", icon=":material/content_copy:"):
            draw_clone(job)
        with st.popover("Rename", icon=":material/edit:"):
            title = st.text_input("Title", job.title, key=f"{PAGE}.title.{job.id}", max_chars=200)
            if st.button("Rename it", key=f"{PAGE}.rename.{job.id}", disabled=not (title or "").strip()):
                _do(shell.queue().rename, job.id, title)
        why = "Takes it out of the list; its files stay where they are."
        if not job.is_open and st.button("Forget", key=f"{PAGE}.forget", icon=":material/delete:", help=why):
            _forget(job)


def _forget(job: Job) -> None:
    if shell.told(shell.queue().forget, job.id) is not None:
        st.session_state.pop(f"{PAGE}.job", None)
        st.query_params.pop("job", None)
        st.rerun()


def _draw_before(job: Job) -> None:
    others = {one.id: one.title for one in shell.queue().jobs(("queued", "paused"), limit=200) if one.id != job.id}
    if not others:
        return
    key = f"{PAGE}.before.{job.id}"
    before = st.selectbox("Put before", list(others), index=None, key=key, width=260, placeholder="another job",
                          format_func=lambda number: f"{number}: {others.get(number, '')}")  # fmt: skip
    if before is not None:
        try:
            shell.queue().move(job.id, before=int(before))
        except RequestError as error:
            st.error(plain(str(error)))
        else:
            del st.session_state[key]
            st.rerun()


def _do(action: object, *arguments: object) -> None:
    if shell.told(action, *arguments) is not None:  # type: ignore[arg-type]
        st.rerun()


# --- views -------------------------------------------------------------------------------------------------------


def _draw_log(number: int) -> None:
    job = shell.queue().job(number)
    if not job.attempt:
        st.info("It has not begun; its log appears here.", icon=":material/terminal:")
        return
    attempt = job.attempt
    if job.attempt > 1:
        key = f"{PAGE}.attempt.{number}"
        attempt = int(st.number_input(f"Attempt of {job.attempt}", 1, job.attempt, job.attempt, key=key, width=160))
    text = tail(job.log("err", attempt), _LOG_BYTES)
    st.code("\n".join(text.splitlines()[::-1]) or "nothing yet", language=None, height=420, wrap_lines=True)
    st.caption("The latest line first. All of it is in the file")
    st.code(str(job.log("err", attempt)), language=None)


def _draw_command(job: Job) -> None:
    st.code(job.command, language="bash", wrap_lines=True)
    config = config_of(job)
    if config is not None:
        st.caption(plain(config))
        st.code(config.read_text(encoding="utf-8", errors="replace"), language="toml", wrap_lines=True)
    st.caption(f"Its folder; relative paths begin in {plain(job.directory)}")
    st.code(str(job.folder), language=None)


def _draw_history(job: Job) -> None:
    rows = [{"when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)), "what": text}
            for at, text in shell.queue().history(job.id)]  # fmt: skip
    st.dataframe(rows, hide_index=True, key=f"{PAGE}.history")
    if job.cloned_from is not None:
        st.caption(f"Cloned from job {job.cloned_from}.")


def _draw_result(job: Job) -> None:
    if not job.result:
        st.info("Its result appears here when it is done.", icon=":material/hourglass_empty:")
        return
    output = Path(str(job.result.get("output") or ""))
    path = job.directory / output
    if path.is_file() and path.suffix.lower() == ".mp4":
        st.video(str(path), loop=True, muted=True)
    elif path.is_file() and path.suffix.lower() in (".png", ".jpg"):
        st.image(str(path), caption=plain(path.name), width="stretch")
    elif job.result.get("output"):
        st.caption("Written to")
        st.code(str(path), language=None)
    st.json(dict(job.result), expanded=1)
