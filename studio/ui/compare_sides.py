"""Draws variants side by side: the form, the jobs on their way, the grid, and a table of numbers."""

import statistics
import time
from pathlib import Path
from typing import Final

import streamlit as st

from studio.errors import RequestError
from studio.jobs import Job, runs_folder
from studio.side_sets import Side, sides
from studio.ui import shell
from studio.ui.compare_new import draw_new
from studio.ui.compare_player import difference, draw_in_step, seen
from studio.ui.tables import draw_table
from studio.ui.text import plain

NEW: Final = "New"
_GRID: Final = "all seeds"
_MOST_SHOWN: Final = 16
"""Videos of a grid; more would keep the browser busy."""


def draw_sides(page: str) -> None:
    """Draws the view."""
    kept = {side.name: side for side in sides(runs_folder())}
    key = f"{page}.side"
    if st.session_state.get(key) not in (NEW, *kept):
        st.session_state[key] = next(iter(kept), NEW)
    if wanted := st.session_state.pop(f"{page}.show_side", None):
        st.session_state[key] = wanted
    if not kept:
        st.info(
            "Choose a character, a motion and two to four variants: the base model, adapters at some scale. Each is "
            "rendered with the same seeds, and you see them together.",
            icon=":material/grid_view:",
        )
    name = st.selectbox("Side by side", [*kept, NEW], key=key, persist_state="session",
                        format_func=lambda name: _label(kept[name]) if name in kept else "New …")  # fmt: skip
    if name == NEW:
        draw_new(page)
    else:
        _draw_side(page, kept[str(name)])


def _label(side: Side) -> str:
    when = time.strftime("%d %b, %H:%M", time.localtime(side.made))
    what = ", ".join(variant.label for variant in side.variants)
    return f"{when}: {what}; {Path(side.reference).stem}, {Path(side.driving).stem}"


# --- what became of it --------------------------------------------------------------------------------------------


def _draw_side(page: str, side: Side) -> None:
    jobs = _jobs(side)
    if any(job is not None and job.is_open for row in jobs for job in row):
        _watch(page, side)
    for row, variant in zip(jobs, side.variants, strict=True):
        for job, seed in zip(row, side.seeds, strict=True):
            if job is None:
                st.caption(f"{plain(variant.label)}, seed {seed}: its job was taken out of the queue.")
            elif job.state == "failed":
                st.error(f"{plain(variant.label)}, seed {seed}: {plain(job.error or 'failed')}",
                         icon=":material/error:")  # fmt: skip
    key = f"{page}.seed_shown"
    options = [*map(str, side.seeds), _GRID]
    if st.session_state.get(key) not in options:
        st.session_state[key] = options[0]
    shown = st.segmented_control("Seed", options, key=key, persist_state="session", required=True)
    if shown == _GRID:
        _draw_grid(side, jobs)
    else:
        _draw_seed(page, side, jobs, side.seeds.index(int(str(shown))))
    _draw_numbers(page, side, jobs)


def _jobs(side: Side) -> list[list[Job | None]]:
    def found(number: int) -> Job | None:
        try:
            return shell.queue().job(number)
        except RequestError:
            return None

    return [[found(number) for number in row] for row in side.jobs]


@st.fragment(run_every="2s")
def _watch(page: str, side: Side) -> None:
    """Draws how far the jobs are; the whole page again whenever one has ended."""
    jobs = [job for row in _jobs(side) for job in row if job is not None]
    waiting = [job for job in jobs if job.is_open]
    if st.session_state.get(f"{page}.open.{side.name}", len(waiting)) != len(waiting) or not waiting:
        st.session_state[f"{page}.open.{side.name}"] = len(waiting)
        st.rerun()
    st.session_state[f"{page}.open.{side.name}"] = len(waiting)
    done = sum(job.state == "done" for job in jobs)
    running = next((job for job in waiting if job.state == "running"), None)
    progress = running.progress() if running is not None else None
    told = f"; {progress.stage} {progress.detail}" if progress is not None else "; waiting for a worker"
    share = (done + (progress.share if progress is not None else 0)) / max(1, len(jobs))
    st.progress(min(1.0, share), text=f"{done} of {len(jobs)} videos{told}")
    if st.button("Cancel the rest", key=f"{page}.cancel", icon=":material/stop:"):
        for job in waiting:
            shell.told(shell.queue().cancel, job.id)
        st.rerun()


def _output(job: Job | None) -> str | None:
    if job is None or job.state != "done" or not job.result.get("output"):
        return None
    return str(job.result["output"])


def _draw_seed(page: str, side: Side, jobs: list[list[Job | None]], place: int) -> None:
    clips, labels = [], []
    for row, variant in zip(jobs, side.variants, strict=True):
        path = _output(row[place])
        clip = shell.told(seen, path) if path is not None else None
        if clip is not None:
            clips.append(clip)
            labels.append(variant.label)
    if len(clips) < 2:
        st.caption("Two videos of this seed must be there to play them in step.")
        return
    draw_in_step(page, clips, labels)


def _draw_grid(side: Side, jobs: list[list[Job | None]]) -> None:
    if len(side.seeds) * len(side.variants) > _MOST_SHOWN:
        st.caption(f"The first {_MOST_SHOWN // len(side.variants)} seeds; the others are seen one by one.")
    for place, seed in enumerate(side.seeds[: max(1, _MOST_SHOWN // len(side.variants))]):
        for column, row, variant in zip(st.columns(len(side.variants)), jobs, side.variants, strict=True):
            path = _output(row[place])
            if path is not None and Path(path).is_file():
                column.video(path, loop=True, autoplay=True, muted=True)
            else:
                column.caption("not there yet" if row[place] is not None else "taken out of the queue")
            column.caption(f"{plain(variant.label)}, seed {seed}")


def _draw_numbers(page: str, side: Side, jobs: list[list[Job | None]]) -> None:
    ask = st.toggle(
        f"Measure all against {side.variants[0].label}",
        key=f"{page}.measure_all",
        persist_state="session",
        help="PSNR and SSIM of every variant to the first one at the same seed; means over the seeds.",
    )
    head = ["variant", "videos", "s/video", "peak GiB", "colour drift", *(["PSNR", "SSIM"] if ask else [])]
    rows = []
    for row, variant in zip(jobs, side.variants, strict=True):
        done = [job.result for job in row if job is not None and job.state == "done"]
        cells = [variant.label, str(len(done)), _mean([float(r["seconds"]) for r in done if r.get("seconds")], ".1f"),
                 _mean([r["peak_memory_bytes"] / 2**30 for r in done if r.get("peak_memory_bytes")], ".2f"),
                 _mean([max(r["colour_drift"]) for r in done if r.get("colour_drift")], ".2f")]  # fmt: skip
        if ask:
            cells += _against(jobs[0], row)
        rows.append(cells)
    draw_table(head, rows, key=f"{page}.numbers", name=f"side-by-side-{side.name}")
    if ask:
        st.caption("PSNR in dB; the first variant is measured against itself.")


def _against(first: list[Job | None], row: list[Job | None]) -> list[str]:
    psnr, ssim = [], []
    for one, two in zip(map(_output, first), map(_output, row), strict=True):
        if one is None or two is None:
            continue
        try:
            found = difference(seen(one), seen(two))
        except (RequestError, OSError):
            continue
        psnr.append(statistics.mean(found.psnr))
        ssim.append(statistics.mean(found.ssim))
    return [_mean(psnr, ".2f"), _mean(ssim, ".4f")]


def _mean(values: list[float], form: str) -> str:
    return format(statistics.mean(values), form) if values else ""
