"""The Background page: a picture comes alive after a text, without a pose."""

from pathlib import Path
from typing import Any, Final

import streamlit as st

from studio.animate_form import background_words
from studio.requests import BackgroundRequest
from studio.settings import animate_defaults
from studio.ui import shell
from studio.ui.form import field, fields
from studio.ui.results import draw_recent, draw_result
from studio.ui.sources import choose, pick_picture, shown_picture
from studio.ui.weights import choose_adapters, pick_adapters, pick_model

PAGE: Final = "background"


def draw() -> None:
    """Draws the page."""
    st.title("Background")
    st.caption("The picture is kept and begins to move as the text says: clouds drift, water flows, lights change.")
    handed = shell.take_over(PAGE, BackgroundRequest)
    if picture := handed.get("image"):
        choose(PAGE, "picture", str(picture))
    if "adapter" in handed:
        choose_adapters(PAGE, handed["adapter"])
    form, result = st.columns([2, 3], gap="large")
    with form:
        _draw_form()
    with result:
        job = shell.chosen_job(PAGE)
        if job is not None and job.kind == PAGE:
            draw_result(PAGE, job)
            st.divider()
        draw_recent(PAGE, PAGE)


def _draw_form() -> None:
    picture = pick_picture(PAGE, label="Picture")
    if picture is not None:
        st.image(str(shown_picture(picture)), width=260, caption="Picture")
    begins = animate_defaults()
    values: dict[str, Any] = {"prompt": field(BackgroundRequest, "prompt", page=PAGE)}
    values |= fields(BackgroundRequest, ["num_frames", "seed"], page=PAGE, columns=2)
    with st.expander("Model and adapters"):
        values["model"] = pick_model(PAGE, BackgroundRequest, default=begins.get("model"))
        values["adapter"] = pick_adapters(PAGE)
        values |= fields(BackgroundRequest, ["device", "dtype", "offload"], page=PAGE, **begins)
    with st.expander("Quality and size"):
        names = ["num_inference_steps", "guidance_scale", "scheduler", "fps", "width", "height", "fit"]
        values |= fields(BackgroundRequest, names, page=PAGE, columns=2, **begins)
    with st.expander("More"):
        names = ["negative_prompt", "prompt_noise", "prompt_random_words", "guidance_before"]
        values |= fields(BackgroundRequest, names, page=PAGE, **begins)
    why_not = "Choose a picture first." if picture is None else "" if values["prompt"] else "Write what happens first."
    if st.button("Bring it alive", type="primary", key=f"{PAGE}.go", disabled=bool(why_not), width="stretch"):
        shell.told(_start, {**values, "image": picture})
    if why_not:
        st.caption(why_not)


def _start(values: dict[str, Any]) -> None:
    folder = shell.queue().new_folder()
    title = f"{Path(values['image']).stem}, {values['prompt'][:60]}"
    shell.choose_job(PAGE, shell.submit(background_words(values, folder), folder=folder, title=title))
    st.rerun()
