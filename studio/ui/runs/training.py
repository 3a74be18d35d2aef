"""A training run: loss, measurements, samples, copies, checkpoints and what can be done with them."""

from pathlib import Path
from typing import Any, Final

import altair as alt
import streamlit as st

from studio.cli.verbs.export import ExportRequest
from studio.cli.verbs.memorization import EvaluateMemorizationRequest
from studio.cli.words import words_for
from studio.forecast import shown_bytes, shown_time
from studio.job_changes import free_name
from studio.jobs import Job
from studio.run_reading import (
    RunLog,
    checkpoint_adapter,
    checkpoints,
    guard_pictures,
    memorization_report,
    samples,
    settings_of_run,
)
from studio.run_series import (
    grid_of,
    guard_rows,
    loss_rows,
    metric_rows,
    seconds_left,
    shown_size,
    step_rows,
)
from studio.ui import shell
from studio.ui.form import fields
from studio.ui.runs.listing import PAGE
from studio.ui.serve import typed_path
from studio.ui.text import plain

VIEWS: Final = ("Loss", "Samples", "Memorization", "Checkpoints")


@st.cache_resource(max_entries=16, show_spinner="Reading the run")
def _log(run: str) -> RunLog:
    """The log of a run, which is read on from where it was each time."""
    return RunLog(Path(run))


def log_of(run: Path) -> RunLog:
    """What a run has told so far."""
    return _log(str(run)).read()


def draw_view(view: str, run: Path, job: Job | None) -> None:
    """Draws one of `VIEWS`, again and again while the job runs."""
    draw = {"Loss": _draw_loss, "Samples": _draw_samples, "Memorization": _draw_memorization,
            "Checkpoints": _draw_checkpoints}[view]  # fmt: skip
    live = job is not None and job.state == "running" and view in ("Loss", "Samples")
    st.fragment(draw, run_every="2s" if live else None)(run, job)


# --- loss --------------------------------------------------------------------------------------------------------


def _draw_loss(run: Path, job: Job | None) -> None:
    log = log_of(run)
    for note in log.notes[:8]:
        st.caption(plain(note))
    if not log.steps:
        st.info("No step was made yet; the loss appears here.", icon=":material/show_chart:")
        return
    _draw_figures(log, job)
    smoothing, scale, which = st.columns([2, 1, 2], vertical_alignment="bottom")
    weight = smoothing.slider(
        "Smoothing",
        0.0,
        0.99,
        0.8,
        step=0.01,
        key=f"{PAGE}.smoothing",
        persist_state="session",
        help="Weight of what came before in the thick line; the thin one is as measured.",
    )
    logarithmic = scale.toggle("Logarithmic", key=f"{PAGE}.log", persist_state="session")
    names = list(log.losses)
    if len(names) > 1:
        chosen = which.multiselect("Losses", names, default=["loss"] if "loss" in names else names[:1],
                                   key=f"{PAGE}.losses.{run}")  # fmt: skip
        names = [name for name in names if name in chosen]
    st.altair_chart(_loss_chart(loss_rows(log, names, weight), logarithmic), width="stretch", height=260)
    measured = metric_rows(log)
    if measured:
        st.caption("Measured on held-out data, with the averaged weights")
        line = alt.Chart(alt.Data(values=measured)).mark_line(point=True).encode(
            x="step:Q", y=alt.Y("value:Q", scale=alt.Scale(zero=False)), color=alt.Color("metric:N", title=None),
            tooltip=["step:Q", "metric:N", alt.Tooltip("value:Q", format=".4g")],
        )  # fmt: skip
        st.altair_chart(line, width="stretch", height=200)
    with st.expander("Learning rate and time of a step"):
        rows = step_rows(log)
        for name in ("learning rate", "seconds"):
            chart = alt.Chart(alt.Data(values=rows)).mark_line().encode(x="step:Q", y=f"{name}:Q")
            st.altair_chart(chart, width="stretch", height=140)


def _draw_figures(log: RunLog, job: Job | None) -> None:
    step, loss, left, memory = st.columns(4)
    step.metric("Step", f"{log.step:,}" + (f" of {log.total_steps:,}" if log.total_steps else ""))
    values = [value for value in log.losses.get("loss", [])[-20:] if value is not None]
    loss.metric("Loss", f"{sum(values) / len(values):.4g}" if values else "none", help="Mean of the last 20 steps.")
    rest = seconds_left(log) if job is not None and job.state == "running" else None
    left.metric("Left", "nothing" if rest is None else shown_time(rest))
    memory.metric("Peak memory", shown_bytes(log.peak_bytes))


def _loss_chart(rows: list[dict[str, Any]], logarithmic: bool) -> Any:
    scale = alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)
    base = alt.Chart(alt.Data(values=rows)).encode(x="step:Q", color=alt.Color("loss:N", title=None))
    raw = base.mark_line(opacity=0.25, strokeWidth=1).encode(y=alt.Y("raw:Q", scale=scale, title="loss"))
    smoothed = base.mark_line(strokeWidth=2).encode(
        y=alt.Y("smoothed:Q", scale=scale),
        tooltip=["step:Q", "loss:N", alt.Tooltip("raw:Q", format=".4g"), alt.Tooltip("smoothed:Q", format=".4g")],
    )
    return alt.layer(raw, smoothed)


# --- samples -----------------------------------------------------------------------------------------------------


def _draw_samples(run: Path, job: Job | None) -> None:
    pictures = samples(run)
    if not pictures:
        st.info("No samples yet; they are made at every validation.", icon=":material/image:")
        return
    prompts = log_of(run).sampled
    steps = list(pictures)
    chosen = steps[-1]
    if len(steps) > 1:
        key = f"{PAGE}.sample.{run}"
        if st.session_state.get(key) not in steps:
            st.session_state[key] = steps[-1]
        chosen = st.select_slider("Step", steps, key=key)
    told = " | ".join(prompts.get(chosen, ()))
    width, aspect = shown_size(pictures[chosen])
    st.image(str(pictures[chosen]), caption=plain(f"Step {chosen}" + (f": {told}" if told else "")), width=width)
    if len(steps) > 1:
        st.caption("Over time" if len(steps) <= 12 else f"Over time, 12 of {len(steps)}")
        count = 4 if aspect < 2 else 2 if aspect < 5 else 1
        columns = st.columns(count)
        for number, step in enumerate(grid_of(steps)):
            columns[number % count].image(str(pictures[step]), caption=f"Step {step}", width="stretch")


# --- memorization ------------------------------------------------------------------------------------------------


def _draw_memorization(run: Path, job: Job | None) -> None:
    rows = guard_rows(log_of(run))
    if rows:
        st.caption("The guard's looks: share of samples that copy a trained picture, with its 95 % interval; dashed is "
                   "the most that luck gives")  # fmt: skip
        base = alt.Chart(alt.Data(values=rows)).encode(x="step:Q")
        percent = alt.Axis(format=".0%")
        band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", axis=percent, title="copies"), y2="high:Q")
        line = base.mark_line(point=True).encode(y="copy_rate:Q", tooltip=["step:Q", "copy_rate:Q", "action:N"])
        luck = base.mark_line(strokeDash=[4, 3], color="#8f98a8").encode(y="background_high:Q")
        st.altair_chart(alt.layer(band, line, luck), width="stretch", height=200)
        gap = alt.Chart(alt.Data(values=rows)).mark_line(point=True).encode(
            x="step:Q", y=alt.Y("loss_gap:Q", title="loss gap"))  # fmt: skip
        st.altair_chart(gap, width="stretch", height=140)
    pictures = guard_pictures(run)
    if pictures:
        steps = list(pictures)
        step = steps[-1] if len(steps) == 1 else st.select_slider("Look at step", steps, value=steps[-1])
        st.image(str(pictures[step]), width="stretch",
                 caption=f"Step {step}: samples above the trained pictures nearest to them")  # fmt: skip
    report = memorization_report(run)
    if report is not None:
        _draw_report(run, report)
    elif not rows:
        st.info("Nothing has looked for copies of the trained pictures here: the guard was off, and no audit was made.",
                icon=":material/content_copy:")  # fmt: skip
    _draw_audit(run)


def _draw_report(run: Path, report: dict[str, Any]) -> None:
    st.markdown(f"**Audit.** {plain(report.get('verdict', ''))}")
    rows = [{"figure": row.get("title"), "value": row.get("value"), "low": row.get("low"), "high": row.get("high"),
             "says": row.get("verdict") or row.get("why")} for row in report.get("metrics", ())]  # fmt: skip
    st.dataframe(rows, hide_index=True, key=f"{PAGE}.report")
    pairs, page = run / "memorization" / "pairs.png", run / "memorization" / "report.html"
    if pairs.is_file():
        st.image(str(pairs), caption="Samples above the trained pictures nearest to them", width="stretch")
    if page.is_file():
        st.download_button("Download the report", page.read_bytes(), f"{run.name}-memorization.html", "text/html",
                           key=f"{PAGE}.report.download", icon=":material/download:", on_click="ignore")  # fmt: skip


def _draw_audit(run: Path) -> None:
    ready = (run / "adapter.safetensors").is_file()
    with st.popover("Audit this run", icon=":material/policy:", disabled=not ready):
        names = ["samples", "seeds_per_caption", "num_inference_steps", "held_out", "allow_leakage"]
        values = fields(EvaluateMemorizationRequest, names, page=f"{PAGE}.audit")
        if st.button("Put it into the queue", key=f"{PAGE}.audit.go", type="primary"):
            shell.told(_audit, run, values)
    if not ready:
        st.caption("An audit is possible when the run is finished.")


def _audit(run: Path, values: dict[str, Any]) -> None:
    if values["held_out"]:
        typed_path(values["held_out"], what="held_out")
    _submit("evaluate memorization", EvaluateMemorizationRequest, {**values, "run": run}, f"audit {run.name}")


def _submit(verb: str, kind: Any, values: dict[str, Any], title: str) -> None:
    job = shell.submit(words_for(verb, kind, values), title=title)
    st.toast(f"Job {job.id}: {plain(title)}", icon=":material/check:")


# --- checkpoints, adapter, export --------------------------------------------------------------------------------


def _draw_checkpoints(run: Path, job: Job | None) -> None:
    found = checkpoints(run)
    adapter = run / "adapter.safetensors"
    running = job is not None and job.state == "running"
    if found:
        rows = [{"step": one.step, "size": shown_bytes(one.bytes), "latest": one.is_latest, "folder": str(one.path)}
                for one in found]  # fmt: skip
        st.dataframe(rows, hide_index=True, key=f"{PAGE}.checkpoints")
    else:
        st.caption("No checkpoint yet.")
    with st.container(horizontal=True):
        if running and st.button("Save now", key=f"{PAGE}.save", icon=":material/save:",
                                 help="Makes a checkpoint after this step, and goes on."):  # fmt: skip
            shell.told((run / "save").touch)
            st.toast("It saves after this step", icon=":material/save:")
        if found and not running and not adapter.is_file() and (job is None or job.state == "done"):
            _draw_resume(run)
        if adapter.is_file():
            if st.button("Use in Animate", key=f"{PAGE}.use", type="primary", icon=":material/animation:"):
                shell.hand_over("animate", adapter=(str(adapter),))
            st.download_button("Download the adapter", adapter.read_bytes(), f"{run.name}.safetensors",
                               key=f"{PAGE}.adapter", icon=":material/download:", on_click="ignore")  # fmt: skip
        if adapter.is_file() or found:
            _draw_export(run, ["the finished adapter"] * adapter.is_file() + [f"step {one.step}" for one in found])
        settings = settings_of_run(run)
        if settings is not None and st.button("Change and train again", key=f"{PAGE}.again", icon=":material/tune:",
                                              help="Puts all settings of this run into the form."):  # fmt: skip
            shell.hand_over("fine_tune", settings=settings)
    card = run / "README.md"
    if card.is_file():
        with st.expander("Model card"):
            st.code(card.read_text(encoding="utf-8", errors="replace"), language="markdown", wrap_lines=True)


def _draw_resume(run: Path) -> None:
    if st.button("Go on from the last checkpoint", key=f"{PAGE}.resume", icon=":material/play_arrow:"):
        job = shell.told(shell.submit, ["resume", str(run)], title=f"resume {run.name}")
        if job is not None:
            shell.choose_job(PAGE, job)
            st.rerun(scope="app")


def _draw_export(run: Path, sources: list[str]) -> None:
    with st.popover("Export", icon=":material/ios_share:"):
        page = f"{PAGE}.export"
        source = st.selectbox("What", sources, key=f"{page}.source.{run.name}",
                              help="A checkpoint can be exported like a finished run, or become an adapter file, "
                                   "which the Compare page makes by itself.")  # fmt: skip
        step = int(source.removeprefix("step ")) if source.startswith("step ") else None
        values = fields(ExportRequest, ["format", "rank", "dtype", "drop_rest"], page=page)
        merged = values["format"] == "merged"
        if merged:
            values |= {"rank": None, "drop_rest": None}
        of = run.name if step is None else f"{run.name}-step-{step}"
        output = run / "exports" / (f"{of}-{values['format']}" + ("" if merged else ".safetensors"))
        if values["format"] == "adapter":
            if step is None:
                st.caption("This is the file which the run has already; choose a checkpoint, or another format.")
                return
            output = checkpoint_adapter(run, step)
        st.caption(f"It is written to {plain(output)}.")
        if output.exists():
            st.caption("That is there already; the new one gets a number.")
            output = free_name(output) if merged else free_name(output.with_suffix("")).with_suffix(".safetensors")
        if st.button("Put it into the queue", key=f"{page}.go", type="primary"):
            shell.told(_submit, "export", ExportRequest,
                       {**values, "adapter": run, "checkpoint": step, "output": output},
                       f"export {of} as {values['format']}")  # fmt: skip
