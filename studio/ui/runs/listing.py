"""The list of jobs, and of run folders that no job made."""

import time
from pathlib import Path
from typing import Any, Final

import streamlit as st

from studio.job_list import FILTERS, PER_PAGE, ago, pages, rows
from studio.jobs import Job, ensure_worker, runs_folder
from studio.run_reading import run_of, runs_in
from studio.ui import shell
from studio.ui.text import plain

PAGE: Final = "runs"
_EVERY: Final = "every kind"
_KINDS: Final = ("train", "resume", "animate", "background", "search", "compare", "evaluate", "export", "data", "pose")
_SHOWN: Final = f"{PAGE}.shown"
_CHANGED: Final = f"{PAGE}.changed"


def draw_list() -> None:
    """Draws filters and the table of jobs."""
    counts = shell.queue().counts()
    total = sum(counts.values())
    states, kind, find = st.columns([3, 1, 2], vertical_alignment="bottom")
    with states:
        state = st.segmented_control(
            "State",
            list(FILTERS),
            key=f"{PAGE}.state",
            default="All",
            required=True,
            persist_state="session",
            format_func=lambda name: f"{name} {sum(counts[one] for one in FILTERS[name])}",
        )
    with kind:
        kind_name = st.selectbox("Kind", [_EVERY, *_KINDS], key=f"{PAGE}.kind", persist_state="session")
    with find:
        text = st.text_input("Find", key=f"{PAGE}.find", placeholder="part of a title", persist_state="session")
    if not total:
        st.info("No jobs yet. What is started on Animate, Fine-tune and the other pages waits here for its turn, runs "
                "one after the other, and stays as history.", icon=":material/list_alt:")  # fmt: skip
        return
    wanted = FILTERS[str(state or "All")]
    kinds = [] if kind_name == _EVERY else [kind_name]
    found = shell.queue().count(wanted, kinds=kinds, text=text or "")
    if not found:
        st.info("No job is like that; choose another state or kind, or find something else.")
        return
    page = _draw_pages(found)
    every = "2s" if counts["running"] or counts["queued"] else None
    st.fragment(_draw_table, run_every=every)(list(wanted), kinds, text or "", page)
    if counts["queued"] and not any(worker.is_alive for worker in shell.queue().workers()):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.warning("Jobs wait, and no worker is there to run them.", icon=":material/warning:")
            if st.button("Start a worker", key=f"{PAGE}.worker", icon=":material/play_arrow:"):
                shell.told(ensure_worker, shell.queue())
                st.rerun()


def _draw_pages(found: int) -> int:
    count = pages(found)
    if count == 1:
        return 1
    key = f"{PAGE}.page"
    st.session_state[key] = min(int(st.session_state.get(key) or 1), count)
    return int(st.number_input(f"Page of {count} ({found:,} jobs, {PER_PAGE} a page)", 1, count, key=key, width=260))


def _draw_table(states: list[Any], kinds: list[str], text: str, page: int) -> None:
    jobs = shell.queue().jobs(states, kinds=kinds, text=text, limit=PER_PAGE, offset=(page - 1) * PER_PAGE)
    st.session_state[_SHOWN] = [job.id for job in jobs]
    columns: dict[str, Any] = {
        "job": st.column_config.NumberColumn("job", width=50, format="%d"),
        "state": st.column_config.TextColumn("state", width=80),
        "what": st.column_config.TextColumn("what", width=250),
        "kind": st.column_config.TextColumn("kind", width=80),
        "done": st.column_config.ProgressColumn("done", min_value=0, max_value=1, format="percent", width=90),
        "took": st.column_config.TextColumn("took", width=65),
        "made": st.column_config.TextColumn("made", width=85),
        "priority": st.column_config.NumberColumn("priority", width=60, format="%d"),
        "now": st.column_config.TextColumn("now", width="large"),
    }
    if not any(job.priority for job in jobs):
        columns["priority"] = None
    if not any(job.state == "running" for job in jobs):
        columns["done"] = None
    st.dataframe(rows(jobs), hide_index=True, height=min(320, 40 + 35 * len(jobs)), column_config=columns,
                 key=f"{PAGE}.table", on_select=_choose, selection_mode="single-row")  # fmt: skip
    if st.session_state.pop(_CHANGED, False):
        st.rerun()


def _choose() -> None:
    """Shows the job whose row was clicked: rows move while the table is on, so the job counts and not the row."""
    selected = st.session_state[f"{PAGE}.table"].selection.rows
    shown = st.session_state.get(_SHOWN, [])
    if selected and selected[0] < len(shown):
        shell.choose_job(PAGE, shell.queue().job(shown[selected[0]]))
        st.session_state[_CHANGED] = True


# --- run folders -------------------------------------------------------------------------------------------------


def draw_folders() -> Path | None:
    """Draws the choice of a run folder that was made in a terminal; the chosen one."""
    root = runs_folder()
    known = _runs_of_jobs()
    found = runs_in(root, known=lambda run: run.resolve() in known)
    if not found:
        st.info(f"Every run in {plain(root)} has a job. Runs that are started in a terminal (`studio train ... "
                "--output-dir runs/NAME`) appear here.", icon=":material/terminal:")  # fmt: skip
        return None
    now = time.time()
    changed = {one.run.name: one.changed for one in found[:500]}
    key = f"{PAGE}.folder"
    asked = st.query_params.get("run", "")
    if key not in st.session_state and asked in changed:
        st.session_state[key] = asked
    name = st.selectbox("Run", list(changed), key=key, persist_state="session",
                        format_func=lambda name: f"{name}, {ago(now - changed.get(name, now))}")  # fmt: skip
    if name not in changed:
        return None
    st.query_params["run"] = name
    return root / name


def _runs_of_jobs() -> set[Path]:
    jobs: list[Job] = shell.queue().jobs(kinds=["train", "resume"], limit=2000)
    return {run.resolve() for job in jobs if (run := run_of(job)) is not None}
