"""The Animate page: a picture, a motion and a text in, a video out."""

import secrets
from pathlib import Path
from typing import Any, Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pose.adjustment import Adjustment
from studio.animate_form import MOST_SEEDS, adjustment_of, animate_words, estimate, seeds_from
from studio.errors import RequestError
from studio.jobs import Job
from studio.preflight import FitOptions, Preflight, look_ahead, stops
from studio.requests import AnimateRequest
from studio.settings import animate_defaults
from studio.ui import shell
from studio.ui.controls import control_of
from studio.ui.form import field, fields
from studio.ui.results import draw_grid, draw_recent, draw_result
from studio.ui.sources import choose, choose_skeleton, pick_driving, pick_picture, pick_skeleton, shown_picture
from studio.ui.weights import choose_adapters, pick_adapters, pick_model

PAGE: Final = "animate"


def draw() -> None:
    """Draws the page."""
    st.title("Animate")
    _take_over()
    form, result = st.columns([2, 3], gap="large")
    job = shell.chosen_job(PAGE)
    job = job if job is not None and job.kind == PAGE else None
    with result:
        shown = st.container()
        fit = st.expander("Fit of the motion") if job is not None else st.container()
        before = st.container()
    with form:
        _draw_form(fit)
    with shown:
        _draw_result(job)
    with before:
        draw_recent(PAGE, PAGE)


def _take_over() -> None:
    """Takes what another page hands over: an earlier job's settings, an adapter, a motion, a picture."""
    handed = shell.take_over(PAGE, AnimateRequest)
    for what, name in (("picture", "reference"), ("driving", "driving")):
        if value := handed.get(name):
            choose(PAGE, what, str(value))
    if "adapter" in handed:
        choose_adapters(PAGE, handed["adapter"])
    if pose := handed.get("reference_pose"):
        choose_skeleton(PAGE, picture=str(handed["reference"]), skeleton=str(pose))
    if isinstance(adjust := handed.get("adjust"), Adjustment):
        for name in Adjustment.model_fields:
            st.session_state[f"{PAGE}.adjust.{name}"] = getattr(adjust, name)


def _draw_form(fit: DeltaGenerator) -> None:
    picture = pick_picture(PAGE)
    driving = pick_driving(PAGE)
    person = field(AnimateRequest, "person", page=PAGE) if driving and Path(driving).suffix == ".mp4" else None
    begins = animate_defaults()
    values: dict[str, Any] = {"prompt": field(AnimateRequest, "prompt", page=PAGE), "person": person}
    length, seed, seeds_place, dice = st.columns([3, 3, 3, 1], vertical_alignment="bottom")
    with length:
        values["num_frames"] = field(AnimateRequest, "num_frames", page=PAGE, label="Length")
    with dice:
        if st.button("", icon=":material/casino:", key=f"{PAGE}.dice", help="Another seed"):
            st.session_state[f"{PAGE}.seed"] = secrets.randbelow(10_000)
    with seed:
        values["seed"] = field(AnimateRequest, "seed", page=PAGE)
    with seeds_place:
        seeds = st.number_input("Seeds", 1, MOST_SEEDS, 1, key=f"{PAGE}.seeds", persist_state="session",
                                help="So many videos, with this seed and the next ones, side by side.")  # fmt: skip
    start = st.container()
    with st.expander("Model and adapters"):
        values |= {
            "model": pick_model(PAGE, AnimateRequest, default=begins.get("model")),
            "adapter": pick_adapters(PAGE),
        }
        values |= fields(AnimateRequest, ["device", "dtype", "offload"], page=PAGE, **begins)
    with st.expander("Quality and size"):
        names = ["num_inference_steps", "guidance_scale", "scheduler", "fps", "width", "height", "fit", "audio"]
        values |= fields(AnimateRequest, names, page=PAGE, columns=2, **begins)
    with st.expander("More"):
        names = ["negative_prompt", "align", "detector", "prompt_noise", "prompt_random_words", "guidance_before"]
        values |= fields(AnimateRequest, names, page=PAGE, **begins)
        values["reference_pose"] = pick_skeleton(PAGE, picture)
    with fit:
        found = _look_ahead(picture, driving, values)
        values["adjust"] = _draw_fit(picture, found)
    with start:
        why_not = _why_not(picture, driving, found)
        if st.button("Animate", type="primary", key=f"{PAGE}.go", disabled=bool(why_not), width="stretch"):
            shell.told(_start, {**values, "reference": picture, "driving": driving}, int(seeds))
        if why_not:
            st.caption(why_not)
        else:
            _draw_estimate(values, found, int(seeds))


def _why_not(picture: str | None, driving: str | None, found: "Preflight | None") -> str:
    if picture is None:
        return "Choose a picture first."
    if driving is None:
        return "Choose a motion first."
    if found is not None and stops(found.findings):
        return "This would fail; see above what is wrong."
    return ""


def _start(values: dict[str, Any], seeds: int) -> None:
    jobs: list[Job] = []
    for seed in seeds_from(values["seed"], seeds):
        folder = shell.queue().new_folder()
        words = animate_words({**values, "seed": seed}, folder)
        title = f"{Path(values['reference']).stem}, {Path(values['driving']).stem}, seed {seed}"
        jobs.append(shell.submit(words, folder=folder, title=title))
    st.session_state[f"{PAGE}.grid"] = [job.id for job in jobs] if seeds > 1 else []
    shell.choose_job(PAGE, jobs[0])
    st.rerun()


# --- before the render -------------------------------------------------------------------------------------------


def _look_ahead(picture: str | None, driving: str | None, values: dict[str, Any]) -> Preflight | None:
    """Looks at picture and motion; a message where they cannot be used."""
    if picture is None or driving is None:
        return None
    pose = values["reference_pose"]
    options = FitOptions(fit=values["fit"], width=values["width"], height=values["height"], align=values["align"],
                         detector=values["detector"], reference_pose=None if pose is None else Path(pose))  # fmt: skip
    try:
        changed = tuple(Path(name).stat().st_mtime for name in (picture, driving, pose or "") if Path(name).is_file())
        return _seen(picture, driving, values["person"], options, changed)
    except (RequestError, ValueError, OSError) as error:
        st.error(str(error), icon=":material/error:")
        return None


@st.cache_resource(max_entries=32, show_spinner="Finding skeletons")
def _seen(picture: str, driving: str, person: int | None, options: FitOptions, changed: tuple[float, ...]) -> Preflight:
    return look_ahead(Path(picture), driving, person=person, options=options)


def _draw_fit(picture: str | None, found: Preflight | None) -> Adjustment:
    """Draws the skeletons and the sliders that fit the motion by hand."""
    if found is None:
        if picture is not None:
            st.image(str(shown_picture(picture)), width=260, caption="Reference")
        return Adjustment()
    pictures = st.container()
    moment, moving = 0, False
    if len(found.fitted) > 1:
        still, play = st.columns([3, 1], vertical_alignment="bottom")
        moving = play.toggle("Play", key=f"{PAGE}.play", persist_state="session")
        moment = still.slider("Moment", 0, len(found.fitted) - 1, 0, key=f"{PAGE}.moment", disabled=moving,
                              help="A frame of the motion")  # fmt: skip
    with st.expander("Fit the motion by hand"):
        adjustment = adjustment_of(_draw_sliders())
        st.button("As it was fitted", key=f"{PAGE}.adjust.reset", icon=":material/undo:", on_click=_reset)
    own, fitted = pictures.columns(2)
    own.image(found.reference_overlay(), caption="The reference and its own skeleton", width="stretch")
    if moving:
        fitted.image(found.fitted_clip(adjustment), caption="The motion that it takes over", width="stretch")
    else:
        shown = found.fitted_overlay(moment, adjustment)
        fitted.image(shown, caption=f"The pose it takes in frame {moment}", width="stretch")
    for finding in found.findings:
        (st.error if finding.stops else st.warning)(f"{finding.what}: {finding.why}. {finding.fix}",
                                                    icon=":material/accessibility_new:")  # fmt: skip
    for note in found.notes:
        st.info(note, icon=":material/info:")
    return adjustment


def _draw_sliders() -> dict[str, float]:
    columns = st.columns(2)
    values = {}
    for number, name in enumerate(Adjustment.model_fields):
        control = control_of(Adjustment, name)
        key = f"{PAGE}.adjust.{name}"
        if key not in st.session_state:
            st.session_state[key] = control.default
        with columns[number % 2]:
            values[name] = st.slider(control.label, control.low, control.high, step=0.01, key=key, help=control.help,
                                     persist_state="session")  # fmt: skip
    return values


def _reset() -> None:
    for name in Adjustment.model_fields:
        st.session_state[f"{PAGE}.adjust.{name}"] = getattr(Adjustment(), name)


def _draw_estimate(values: dict[str, Any], found: Preflight | None, seeds: int) -> None:
    frames = values["num_frames"] or (len(found.fitted) if found is not None else 17)
    done = shell.queue().jobs(("done",), kinds=["animate"], limit=30)
    guess = estimate(done, model=values["model"], frames=frames * seeds)
    if guess is not None:
        st.caption(f"About {guess[0]:.0f} s and {guess[1] / 2**30:.1f} GiB, from what was made before with this model.")


# --- after it ----------------------------------------------------------------------------------------------------


def _draw_result(job: Job | None) -> None:
    if job is None:
        return
    if job.id in st.session_state.get(f"{PAGE}.grid", ()):
        _draw_grid()
    draw_result(PAGE, job)


@st.fragment(run_every="2s")
def _draw_grid() -> None:
    draw_grid(PAGE, [shell.queue().job(number) for number in st.session_state.get(f"{PAGE}.grid", ())])
