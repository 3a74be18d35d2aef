"""Draws the form of a new comparison side by side, and puts its jobs into the queue."""

import statistics
import time
from pathlib import Path
from typing import Any, Final

import streamlit as st

from studio.cli.verbs.export import ExportRequest
from studio.cli.words import words_for
from studio.jobs import runs_folder
from studio.places import roots
from studio.requests import AnimateRequest
from studio.run_reading import checkpoint_adapter
from studio.side_sets import (
    MOST_VARIANTS,
    Side,
    Variant,
    check_variants,
    find_adapters,
    find_checkpoints,
    new_name,
    read_seeds,
    save_side,
    side_words,
)
from studio.ui import shell
from studio.ui.form import field, fields
from studio.ui.sources import pick_driving, pick_picture
from studio.ui.weights import pick_model

BASE: Final = "the base model"


def draw_new(page: str) -> None:
    """Draws the form, and starts what it asks for."""
    left, right = st.columns(2, gap="large")
    with left:
        picture, driving = pick_picture(page), pick_driving(page)
        values: dict[str, Any] = {"prompt": field(AnimateRequest, "prompt", page=page)}
        if f"{page}.seeds" not in st.session_state:
            st.session_state[f"{page}.seeds"] = "0, 1"
        seeds = st.text_input("Seeds", key=f"{page}.seeds", persist_state="session",
                              help="The same for every variant: 0, 1, 7 or 0-3.")  # fmt: skip
    with right:
        chosen = shell.told(_draw_variants, page)
        variants, to_make = chosen or ([], {})
        with st.expander("Model, quality and size"):
            values["model"] = pick_model(page, AnimateRequest)
            names = ["num_frames", "num_inference_steps", "guidance_scale", "fps", "width", "height", "device"]
            values |= fields(AnimateRequest, names, page=page, columns=2)
    wanted = shell.told(read_seeds, seeds)
    why_not = ("Choose a picture first." if picture is None else "Choose a motion first." if driving is None
               else "" if variants and wanted else "Variants and seeds come first; see above.")  # fmt: skip
    if variants and wanted:
        done = shell.queue().jobs(("done",), kinds=["animate"], limit=30)
        seconds = [float(job.result["seconds"]) for job in done if job.result.get("seconds")]
        count = len(variants) * len(wanted)
        about = f", about {statistics.median(seconds) * count:.0f} s as fast as the last ones" if seconds else ""
        st.caption(f"{count} videos: {len(variants)} variants at {len(wanted)} seeds{about}.")
    if st.button("Render them", type="primary", key=f"{page}.render", disabled=bool(why_not), icon=":material/movie:"):
        shell.told(_start, page, {**values, "reference": picture, "driving": driving}, variants, to_make, wanted)
    if why_not:
        st.caption(why_not)


def _draw_variants(page: str) -> tuple[list[Variant], dict[str, tuple[Path, int]]]:
    """Draws the choice of the variants; gives the checkpoints whose adapters are not made yet as well, by their files.

    Raises:
        RequestError: there are too few, or two are the same.
    """
    places = roots()
    adapters, to_make = find_adapters(places), {}
    for label, (run, step) in find_checkpoints(places).items():
        adapters[label] = file = checkpoint_adapter(run, step)
        if not file.is_file():
            to_make[str(file)] = (run, step)
    if not adapters:
        st.caption("There is no adapter yet; train one on the Fine-tune page, or upload one on the Library page.")
    key = f"{page}.count"
    if key not in st.session_state:
        st.session_state[key] = 2
    count = st.segmented_control("Variants", [2, 3, MOST_VARIANTS], key=key, persist_state="session", required=True)
    found = []
    for number in range(int(count or 2)):
        what, scale = st.columns([3, 1])
        which = f"{page}.variant.{number}"
        options = [BASE, *adapters]
        if st.session_state.get(which) not in options:
            st.session_state[which] = options[min(number, len(options) - 1)]
        name = what.selectbox(f"Variant {'ABCD'[number]}", options, key=which, persist_state="session")  # fmt: skip
        times = scale.number_input("Scale", -4.0, 4.0, 1.0, step=0.1, key=f"{which}.scale", persist_state="session",
                                   disabled=name == BASE, help="1 as it was trained, 0 is the base model.")  # fmt: skip
        if name == BASE:
            found.append(Variant(label=BASE))
        else:
            label = str(name) if times == 1 else f"{name} x {times:g}"
            found.append(Variant(label=label, adapter=str(adapters[str(name)]), scale=float(times)))
    check_variants(found, to_come=to_make)
    return found, to_make


def _start(
    page: str, values: dict[str, Any], variants: list[Variant], to_make: dict[str, tuple[Path, int]],
    seeds: tuple[int, ...],
) -> None:  # fmt: skip
    name, numbers = new_name(), []
    makers: dict[str, int] = {}
    for variant in variants:
        row = []
        if variant.adapter in to_make and variant.adapter not in makers:
            makers[variant.adapter] = _make_adapter(*to_make[variant.adapter], title=name)
        needs = [makers[variant.adapter]] if variant.adapter in makers else []
        for seed in seeds:
            folder = shell.queue().new_folder()
            words = side_words(values, variant, seed, folder)
            row.append(shell.submit(words, folder=folder, needs=needs,
                                    title=f"{name}: {variant.label}, seed {seed}").id)  # fmt: skip
        numbers.append(tuple(row))
    side = Side(name=name, reference=str(values["reference"]), driving=str(values["driving"]),
                prompt=str(values["prompt"]), seeds=seeds, variants=tuple(variants), jobs=tuple(numbers),
                made=time.time())  # fmt: skip
    save_side(runs_folder(), side)
    st.session_state[f"{page}.show_side"] = name
    st.rerun()


def _make_adapter(run: Path, step: int, *, title: str) -> int:
    """The job that makes the adapter of a checkpoint: one that another comparison waits for, or a new one."""
    words = words_for("export", ExportRequest, {"adapter": run, "checkpoint": step, "format": "adapter",
                                                "output": checkpoint_adapter(run, step)})  # fmt: skip
    waiting = shell.queue().jobs(("queued", "running"), kinds=["export"], limit=1000)
    known = next((job.id for job in waiting if list(job.words) == words), None)
    return known or shell.submit(words, title=f"{title}: adapter of {run.name}, step {step}").id
