"""The right side of the Fine-tune page: what it will take, the start, the command and TOML, and how the run goes."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import streamlit as st

from studio.errors import RequestError
from studio.finetune_form import RESERVED, check_settings, run_folder, suggest_name, toml_of, train_words
from studio.forecast import Forecast, forecast, free_bytes, shown_bytes, shown_time, trained_numbers
from studio.jobs import Job, runs_folder
from studio.run_reading import RunLog, run_of, samples
from studio.ui import shell
from studio.ui.serve import typed_model, typed_path
from studio.ui.text import plain
from studio.ui.tune.shared import (
    PAGE,
    TOML,
    changed_at,
    cpu_speed,
    network_folder,
    other_bytes,
    past,
    shapes_of,
    submit_with,
    why_not_read,
)

_BASIS: Final = {"measured": "Measured", "scaled": "Estimate", "rough": "Rough", "unknown": "Unknown"}


def draw_summary(settings: dict[str, Any], options: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """Draws the forecast, the start and the command.

    Args:
        options: all of the method's options, defaults among them.
        flags: of the command beside the settings.
    """
    st.subheader("This run")
    name = _draw_name(settings)
    _draw_forecast(settings, options)
    try:
        typed_model(str(settings["model"]))
        for one in settings["data"]:
            if why := why_not_read(one["folder"]):
                raise RequestError(why)
        if settings.get("cache_dir"):
            typed_path(settings["cache_dir"], what="cache_dir")
        check_settings(settings)
        run = run_folder(runs_folder(), name)
        text, why_not = toml_of(settings), ""
    except RequestError as error:
        run, text, why_not = runs_folder() / name, "", str(error)
    if st.button("Start", type="primary", key=f"{PAGE}.start", icon=":material/play_arrow:", width="stretch",
                 disabled=bool(why_not)):  # fmt: skip
        words = train_words(Path("{toml}"), run, flags)
        job = shell.told(submit_with, text, words, title=f"train {run.name}")
        if job is not None:
            st.session_state.pop(f"{PAGE}.name", None)
            shell.choose_job(PAGE, job)
            st.rerun()
    if why_not:
        st.caption(f":material/block: {plain(why_not)}")
    else:
        with st.expander("The same from the command line"):
            st.code(f"studio {shlex.join(train_words(Path(TOML), run, flags))}", language="bash", wrap_lines=True)
            st.caption(f"with this as {TOML}:")
            st.code(text, language="toml", wrap_lines=True)


def _draw_name(settings: Mapping[str, Any]) -> str:
    root = runs_folder()
    taken = {path.name for path in root.iterdir()} | RESERVED if root.is_dir() else RESERVED
    folder = str(settings["data"][0]["folder"]) if settings.get("data") else ""
    suggested = suggest_name(str(settings["method"]), folder, taken | _to_come())
    name = st.text_input("Name", key=f"{PAGE}.name", placeholder=suggested, max_chars=80,
                         help="Of the folder that all of the run is in, below the runs folder.")  # fmt: skip
    return (name or "").strip() or suggested


def _to_come() -> set[str]:
    """Names of runs that wait for their turn."""
    waiting = shell.queue().jobs(("queued", "paused", "running"), kinds=["train"], limit=200)
    return {run.name for job in waiting if (run := run_of(job)) is not None}


# --- the forecast ------------------------------------------------------------------------------------------------


def _draw_forecast(settings: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    found = _forecast(settings, options)
    about = "" if found.basis == "measured" else "about "
    time = "unknown" if found.seconds is None else f"{about}{shown_time(found.seconds)}"
    memory = "unknown" if found.peak_bytes is None else f"{about}{shown_bytes(found.peak_bytes)}"
    disk = "unknown" if found.disk_bytes is None else f"about {shown_bytes(found.disk_bytes)}"
    st.markdown(
        f"Time **{time}** · memory **{memory}** · checkpoints **{disk}**",
        help="Time of the steps alone: encoding the data, samples and the guard come on top. Memory is the most that "
        "the program holds, on the GPU where there is one. Checkpoints are as many as are kept at a time.",
    )
    st.caption(f"{_BASIS[found.basis]}: {plain(found.words)}.")
    room = free_bytes(runs_folder())
    if found.disk_bytes is not None and found.disk_bytes > room:
        st.warning(f"The disk has {shown_bytes(room)} left, less than the checkpoints need. Keep fewer, train fewer "
                   "numbers, or make room.", icon=":material/hard_drive:")  # fmt: skip


def _forecast(settings: Mapping[str, Any], options: Mapping[str, Any]) -> Forecast:
    shapes, trained, others = None, None, 0
    try:
        network = network_folder(str(settings["model"]))
        if network is not None:
            changed = changed_at(network)
            shapes, others = shapes_of(str(network), changed), other_bytes(str(network), changed)
            trained = trained_numbers(str(settings["method"]), options, shapes, share=settings.get("trainable_share"))
    except (RequestError, ValueError, OSError):
        pass  # what is wrong with the model stands beside its name
    return forecast(settings, past(str(runs_folder())), shapes=shapes, trained=trained, other_bytes=others,
                    flops=cpu_speed())  # fmt: skip


def draw_model(model: str) -> None:
    """Draws what is known of the model."""
    try:
        network = network_folder(model)
        shapes = None if network is None else shapes_of(str(network), changed_at(network))
    except (RequestError, ValueError, OSError) as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    if network is None or shapes is None:
        st.caption(":material/cloud_download: Not on this machine; the run downloads it, where that is allowed.")
        return
    count = sum(math.prod(shape) for shape in shapes.values())
    st.caption(f"Its {plain(network.name)} has {count:,} weights in {len(shapes)} tensors.")


# --- how it goes -------------------------------------------------------------------------------------------------


def draw_run() -> None:
    """Draws the run that was started last, or the one in the address."""
    job = shell.chosen_job(PAGE)
    if job is None or job.kind not in ("train", "resume"):
        st.info("Its progress, loss and samples appear here, and stay on the Runs page.", icon=":material/show_chart:")
        return
    st.divider()
    st.subheader(plain(job.title))
    if job.is_open:
        shell.watch(job.id, _live)
    elif job.state == "done":
        _draw_done(job)
    else:
        st.error(plain(job.error or "It was cancelled."), icon=":material/error:")
        shell.job_buttons(job, page=PAGE)
        _live(job)
    if st.button("Open in Runs", key=f"{PAGE}.open", icon=":material/list_alt:"):
        shell.hand_over("runs", job=job.id)


def _live(job: Job) -> None:
    run = run_of(job)
    if run is None:
        return
    log = RunLog(run).read() if job.is_open else _ended_log(str(run), job.attempt)
    losses = [loss for loss in log.losses.get("loss", []) if loss is not None]
    if losses:
        st.line_chart(losses[-500:], height=180, y_label="loss")
    pictures = samples(run)
    if pictures:
        step = max(pictures)
        st.image(str(pictures[step]), caption=f"Samples at step {step}", width="stretch")


@st.cache_resource(max_entries=8, show_spinner=False)
def _ended_log(run: str, attempt: int) -> RunLog:
    return RunLog(Path(run)).read()


def _draw_done(job: Job) -> None:
    result = job.result
    if result.get("complete"):
        st.success(f"{result.get('steps')} steps, loss {result.get('loss') or 0:.4g}. The adapter is ready.")
    else:
        st.warning(plain(f"It stopped: {result.get('reason')}"), icon=":material/pause:")
    adapter = result.get("adapter")
    if isinstance(adapter, str) and st.button("Use in Animate", key=f"{PAGE}.use_adapter", icon=":material/animation:"):
        shell.hand_over("animate", adapter=(str(job.directory / adapter),))
    _live(job)
