"""The System page: is the machine well, who works, what is set, which versions."""

import time
from pathlib import Path
from typing import Any, Final

import streamlit as st

from studio.health import Doctor, Gpu, Report, gpus, last_report, room_of
from studio.jobs.job import tail
from studio.jobs.watching import Watched, stop_worker, watch_workers
from studio.jobs.worker import start_worker, worker_log
from studio.library.shown import count_text, size_text, when_text
from studio.ui import shell
from studio.ui.settings_form import draw_settings
from studio.ui.text import plain
from studio.versions import software_versions

PAGE: Final = "system"
_VIEWS: Final = ("Machine", "Workers", "Settings", "About")
_ICON: Final = {"works": ":green[:material/play_circle:]", "waits": ":material/hourglass_empty:",
                "gone": ":red[:material/cancel:]"}  # fmt: skip
_LICENCES: Final = """\
animatex-studio, its documents, the bundled characters and the mini weights are under the Apache License 2.0. It stands
on other programs, each under its own terms: PyTorch, diffusers, transformers, Streamlit, OpenCV, onnxruntime and more.
The wheels of PyAV carry FFmpeg and x264 (GPL), those of OpenCV carry Qt and FFmpeg (LGPL). Weights that you add have
terms of their own; read them before you use what they make. The whole list is in `docs/licences.md`.

Pictures and videos that you put in stay yours, and so does the duty to have the right to use them, above all those of
people. Every video says in its metadata that it is generated, and by what."""


def draw() -> None:
    """Draws the page."""
    st.title("System")
    view = st.segmented_control("View", _VIEWS, default=_VIEWS[0], required=True, key=f"{PAGE}.view",
                                label_visibility="collapsed", persist_state="session")  # fmt: skip
    match view:
        case "Workers":
            _draw_workers()
        case "Settings":
            draw_settings()
        case "About":
            _draw_about()
        case _:
            _draw_machine()


# --- machine ----------------------------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False, max_entries=4)
def _doctor(root: Path) -> Doctor:
    return Doctor(root)


@st.cache_data(show_spinner=False, ttl=15, max_entries=1)
def _gpus() -> list[Gpu]:
    return gpus()


def _draw_machine() -> None:
    root = shell.queue().root
    room = room_of(root)
    cards = _gpus()
    columns = st.columns(4)
    columns[0].metric("Processor", f"{room.cores} cores", border=True, height="stretch")
    columns[1].metric("Memory free", size_text(room.memory_free), f"of {size_text(room.memory_total)}",
                      delta_color="off", delta_arrow="off", border=True, height="stretch")  # fmt: skip
    columns[2].metric("Disk free", size_text(room.disk_free), f"of {size_text(room.disk_total)}", delta_color="off",
                      delta_arrow="off", border=True, height="stretch")  # fmt: skip
    first = cards[0] if cards else None
    columns[3].metric("GPU", first.name if first else "none", f"{len(cards)} in all" if len(cards) > 1 else
                      size_text(first.total_bytes) if first else "CPU only", delta_color="off",
                      delta_arrow="off", border=True, height="stretch")  # fmt: skip
    for card in cards:
        st.progress(min(1.0, card.used_bytes / max(1, card.total_bytes)),
                    text=f"cuda:{card.index} {plain(card.name)}: {size_text(card.used_bytes)} of "
                         f"{size_text(card.total_bytes)} used, {card.busy:.0%} busy")  # fmt: skip
    doctor = _doctor(root)
    if last_report(root) is None and not doctor.is_looking:
        doctor.look()
    st.fragment(_draw_health, run_every="1s" if doctor.is_looking else None)(doctor)


def _draw_health(doctor: Doctor) -> None:
    report = last_report(doctor.root)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Health", anchor=False, width="stretch")
        if report is not None:
            st.caption(f"looked {when_text(report.at)}")
        if st.button("Look again", key=f"{PAGE}.doctor", icon=":material/refresh:", disabled=doctor.is_looking,
                     help="Runs studio doctor."):  # fmt: skip
            doctor.look()
            st.rerun()
    if doctor.is_looking:
        st.progress(0.0 if report is None else 1.0, text="Looking at packages, devices, weights and disk; some seconds")
    elif st.session_state.pop(f"{PAGE}.looking", False):
        st.rerun()  # stops asking
    st.session_state[f"{PAGE}.looking"] = doctor.is_looking
    if report is not None:
        _draw_report(report)


def _draw_report(report: Report) -> None:
    if report.error:
        st.error(plain(report.error), icon=":material/error:")
    missing = report.missing()
    if report.checks and not missing:
        st.success("All that is needed is here.", icon=":material/check_circle:")
    for check in missing:
        st.error(f"{plain(check['name'])}: {plain(check['found'])}", icon=":material/error:")
        st.code(check["fix"], language="bash", wrap_lines=True)
    rows = [check for check in report.checks if check not in missing]
    if rows:
        st.dataframe(
            {"": ["✓" if check["ok"] else "–" for check in rows], "what": [check["name"] for check in rows],
             "found": [check["found"] for check in rows], "to add it": [check["fix"] for check in rows]},
            hide_index=True, height="content",
            column_config={"": st.column_config.TextColumn(width=30),
                           "found": st.column_config.TextColumn(width="large")},
        )  # fmt: skip
        st.caption("✓ is here, – is not here and only adds something.")


# --- workers ----------------------------------------------------------------------------------------------------


def _draw_workers() -> None:
    _watch_workers()
    queue = shell.queue()
    with st.expander("What the workers say"):
        said = tail(worker_log(queue), 16_000)
        st.code("\n".join(said.splitlines()[-60:]) or "nothing yet", language=None, wrap_lines=True)
    st.caption("Where the queue is")
    st.code(queue.database.place, language=None, wrap_lines=True)
    st.caption("A worker runs the jobs of one device, one after the other, and outlives this page. Machines that share "
               "a PostgreSQL database and the runs folder share the queue: docs/app.md says how.")  # fmt: skip


@st.fragment(run_every="2s")
def _watch_workers() -> None:
    queue = shell.queue()
    found = watch_workers(queue)
    counts = queue.counts()
    waiting = counts["queued"]
    if not any(one.worker.is_alive for one in found):
        text = "No worker is there. One starts by itself with the next job." if not waiting else (
            f"{count_text(waiting, 'job')} in the queue and no worker is there; start one.")  # fmt: skip
        (st.warning if waiting else st.info)(text, icon=":material/engineering:")
    for one in found:
        _draw_worker(one)
    _draw_start(found)
    st.caption(f"{counts['running']} running, {waiting} waiting, {counts['paused']} paused, {counts['done']} done, "
               f"{counts['failed']} failed")  # fmt: skip


def _draw_worker(one: Watched) -> None:
    row = one.worker
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f"{_ICON[one.state]} **{plain(row.device)}**")
        if one.job is not None:
            progress = one.job.progress()
            share = f", {progress.stage} {progress.share:.0%}" if progress.share else ""
            st.markdown(plain(f"job {one.job.id}: {one.job.title}{share}"), width="stretch")
        else:
            st.markdown("is gone" if one.state == "gone" else "waits for a job", width="stretch")
        where = f"process {row.owner.pid}" if one.is_here else "on another machine"
        st.caption(plain(f"{where}, started {when_text(row.started)}"))
        can_stop = row.is_alive and one.is_here
        if can_stop and st.button("Stop", key=f"{PAGE}.stop.{row.name}", icon=":material/stop_circle:",
                                  help="What it runs saves and goes back into the queue."):  # fmt: skip
            shell.told(stop_worker, shell.queue(), row.name)


def _draw_start(found: list[Watched]) -> None:
    devices = ["cpu", *(f"cuda:{card.index}" for card in _gpus())]
    taken = {one.worker.device for one in found if one.worker.is_alive and one.is_here}
    started = st.session_state.get(f"{PAGE}.started", 0.0)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        device = st.selectbox("Device", devices, index=1 if len(devices) > 1 else 0, key=f"{PAGE}.device", width=160)
        coming = time.time() - started < 5 and device not in taken
        if st.button("Start a worker", key=f"{PAGE}.start", icon=":material/play_arrow:",
                     disabled=device in taken or coming):  # fmt: skip
            shell.told(start_worker, shell.queue(), device)
            st.session_state[f"{PAGE}.started"] = time.time()
            st.rerun(scope="fragment")
        if device in taken:
            st.caption(f"{device} has one; one for each device is enough.")
        elif coming:
            st.caption("It starts.")


# --- about ------------------------------------------------------------------------------------------------------


@st.cache_data(show_spinner=False, max_entries=1)
def _versions() -> dict[str, Any]:
    return {name: found or "not installed" for name, found in software_versions().items()}


def _draw_about() -> None:
    versions = _versions()
    st.subheader("Versions", anchor=False)
    st.dataframe({"what": list(versions), "version": list(versions.values())}, hide_index=True, height="content",
                 width=640)  # fmt: skip
    st.subheader("Licences", anchor=False)
    st.markdown(_LICENCES)
