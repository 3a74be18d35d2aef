"""What all pages share: the queue, how a job is started and watched, how one page hands over to another."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from pydantic import BaseModel

from studio.adapters import part_scale
from studio.cli.run import check_words
from studio.errors import RequestError
from studio.jobs import Job, Queue, ensure_worker, runs_folder
from studio.ui.form import put
from studio.ui.serve import typed_model, typed_path


@st.cache_resource(show_spinner=False, max_entries=4)
def _queue(root: str, database: str | None) -> Queue:
    return Queue(Path(root), database)


def queue() -> Queue:
    """The queue of this studio.

    Raises:
        RequestError: its database cannot be opened.
    """
    return _queue(str(runs_folder()), os.environ.get("STUDIO_DATABASE"))


@st.cache_data(ttl=5, show_spinner=False)
def attend(root: str) -> None:
    """Sees that somebody is there where jobs wait or run: a worker may have been killed."""
    counts = queue().counts()
    if counts["queued"] or counts["running"]:
        ensure_worker(queue())


def submit(
    words: Sequence[str], *, title: str = "", folder: Path | None = None, needs: Sequence[int] = (), priority: int = 0,
    clone_of: Job | None = None,
) -> Job:  # fmt: skip
    """Puts a command into the queue and sees that somebody is there to run it.

    Args:
        clone_of: where its relative paths begin as well.

    Raises:
        RequestError: the command is wrong, or reads a model or an adapter from elsewhere than the studio's folders.
    """
    check_words(words)
    _check_reads(words)
    directory, first = (None, None) if clone_of is None else (clone_of.directory, clone_of.id)
    job = queue().submit(words, title=title, folder=folder, needs=needs, priority=priority, directory=directory,
                         cloned_from=first)  # fmt: skip
    ensure_worker(queue())
    return job


def _check_reads(words: Sequence[str]) -> None:
    for word in words:
        flag, _, value = word.partition("=")
        if flag == "--model":
            typed_model(value)
        elif flag == "--adapter":
            typed_path(part_scale(value)[0], what="adapter")


def told(action: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Does something; a mistake becomes a message on the page, and None is given."""
    try:
        return action(*arguments, **named)
    except (RequestError, OSError) as error:
        st.error(str(error).replace("$", r"\$"), icon=":material/error:")
        return None


def chosen_job(page: str) -> Job | None:
    """The job that the page shows: from the address, so that a reload or a bookmark finds it again."""
    text = st.query_params.get("job", "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else st.session_state.get(f"{page}.job")
    if not isinstance(number, int):
        return None
    try:
        return queue().job(number)
    except RequestError:
        return None


def choose_job(page: str, job: Job) -> None:
    """Lets the page show a job from now on, also after it was left."""
    st.session_state[f"{page}.job"] = job.id
    st.query_params["job"] = str(job.id)


def hand_over(page: str, **values: Any) -> None:
    """Opens another page with values for its widgets, by the fields' names; its page must call `take_over`."""
    st.session_state[f"{page}.handed"] = values
    st.switch_page(st.session_state["pages"][page])


def take_over(page: str, model: type[BaseModel] | None = None) -> dict[str, Any]:
    """Sets the widgets that another page left values for, before they are drawn; gives the values.

    Args:
        model: whose fields the widgets stand for; by default the values are already as widgets have them.
    """
    values: dict[str, Any] = st.session_state.pop(f"{page}.handed", {})
    for name, value in values.items():
        if model is None:
            st.session_state[f"{page}.{name}"] = value
        elif name in model.model_fields:
            put(model, name, value, page=page)
    return values


@st.fragment(run_every="1s")
def watch(number: int, preview: Callable[[Job], None] | None = None) -> None:
    """Draws how far a job is, with its buttons, until it ends; then the whole page is drawn again.

    Args:
        preview: draws what can be seen of the result already.
    """
    attend(str(queue().root))
    job = queue().job(number)
    if not job.is_open:
        st.rerun()
    progress = job.progress()
    if job.state == "running":
        st.progress(progress.share, text=f"{progress.stage} · {progress.detail}" if progress.detail else progress.stage)
    else:
        ahead = [one for one in queue().jobs(("running", "queued"), limit=1000) if one.id != job.id]
        before = ahead.index(next((one for one in ahead if one.priority < job.priority), ahead[-1])) if ahead else 0
        st.progress(0.0, text=f"{job.shown_state}; {before} before it" if before else job.shown_state)
    job_buttons(job, page="watch")
    if preview is not None:
        preview(job)
    for note in progress.notes:
        st.warning(note, icon=":material/info:")


def job_buttons(job: Job, *, page: str) -> None:
    """Draws what can be done with a job now: pause, go on, cancel, end at once, try again."""
    with st.container(horizontal=True):
        key = f"{page}.{job.id}"
        if job.state == "paused":
            _button("Go on", "play_arrow", f"{key}.resume", queue().resume, job)
        if job.state in ("queued", "running") and job.wanted == "run":
            help_text = "It saves and can go on later." if job.state == "running" else "It keeps its place."
            _button("Pause", "pause", f"{key}.pause", queue().pause, job, help=help_text)
        if job.is_open:
            stopping = job.wanted in ("cancel", "kill")
            _button("End at once" if stopping else "Cancel", "stop", f"{key}.cancel", queue().cancel, job,
                    disabled=job.wanted == "kill")  # fmt: skip
        if job.state in ("failed", "cancelled"):
            _button("Try again", "replay", f"{key}.retry", _again, job)


def _again(number: int) -> Job:
    job = queue().retry(number)
    ensure_worker(queue())
    return job


def _button(label: str, icon: str, key: str, action: Callable[[int], Any], job: Job, **options: Any) -> None:
    if st.button(label, key=key, icon=f":material/{icon}:", **options):
        told(action, job.id)
        st.rerun()
