"""The Animate page: a picture, a motion and a text in, a video out."""

import os
import shlex
from pathlib import Path

import streamlit as st

from pose.motions import MOTIONS
from studio.characters import CHARACTERS, character_file
from studio.jobs import Job, JobStatus, new_folder, start
from studio.requests import AnimateRequest

PICTURES = ["png", "jpg", "jpeg", "webp", "bmp"]
DRIVINGS = ["mp4", "mov", "webm", "mkv", "avi", "gif", "json"]


def jobs_folder() -> Path:
    """Where jobs of the app live: $STUDIO_RUNS/app, or runs/app here."""
    return Path(os.environ.get("STUDIO_RUNS", "runs")) / "app"


def animate_arguments(
    reference: Path, driving: str, output: Path, *, prompt: str, seed: int, steps: int | None, model: str
) -> list[str]:
    """Writes the command that the form stands for."""
    words = ["animate", "--reference", str(reference), "--driving", driving, "--output", str(output), "--preview",
             f"--seed={seed}", "--model", model]  # fmt: skip
    if prompt.strip():
        words.append(f"--prompt={prompt.strip()}")  # one word, so that a text may begin with a dash
    if steps:
        words.append(f"--num-inference-steps={steps}")
    return words


def keep_upload(folder: Path, stem: str, name: str, content: bytes) -> Path:
    """Saves an upload under a name of ours: only the suffix comes from outside."""
    path = folder / f"{stem}{Path(name).suffix.lower()}"
    path.write_bytes(content)
    return path


def draw() -> None:
    """Draws the page."""
    st.title("Animate")
    form, result = st.columns([2, 3], gap="large")
    with form:
        _draw_form()
    with result:
        _draw_result()


def _draw_form() -> None:
    help_of = {name: field.description for name, field in AnimateRequest.model_fields.items()}
    who = st.radio("Character", ["Bundled character", "My picture"], horizontal=True, key="who")
    picture, character = None, ""
    if who == "Bundled character":
        character = st.selectbox("Bundled character", sorted(CHARACTERS), index=sorted(CHARACTERS).index("juice-box"),
                                 key="character", format_func=lambda name: f"{name}: {CHARACTERS[name]}")  # fmt: skip
        st.image(str(character_file(character)), width=220)
    else:
        picture = st.file_uploader("Reference picture", type=PICTURES, key="reference", help=help_of["reference"])
        if picture is not None:
            st.image(picture.getvalue(), width=220)
    _take_over()
    handed = st.session_state.get("animate.driving")
    sources = ["Bundled motion", "Video or keypoints", *(["From the Pose page"] if handed else [])]
    source = st.radio("Driving motion", sources, horizontal=True, key="source")
    upload = None
    if source == "Bundled motion":
        names = sorted(MOTIONS)
        motion = st.selectbox("Motion", names, index=names.index("wave") if "wave" in names else 0, key="motion",
                              format_func=lambda name: f"{name}: {MOTIONS[name]}")  # fmt: skip
    elif source == "From the Pose page":
        motion = str(handed)
        adjust = st.session_state.get("animate.adjust", {})
        st.caption(", ".join(["Edited keypoints", *(f"{name} {value:g}" for name, value in adjust.items())]))
    else:
        motion = ""
        upload = st.file_uploader("Driving video or keypoints", type=DRIVINGS, key="driving", help=help_of["driving"])
    prompt = st.text_area("Prompt", key="prompt", help=help_of["prompt"], height=80)
    seed = st.number_input("Seed", min_value=0, value=0, step=1, key="seed", help=help_of["seed"])
    with st.expander("More"):
        model = st.text_input("Model", value="mini", key="model", help=help_of["model"])
        steps = st.number_input(
            "Steps", 1, 1000, None, placeholder="the model's", key="steps", help=help_of["num_inference_steps"]
        )
    ready = bool(character or picture) and bool(motion or upload)
    if st.button("Animate", type="primary", key="animate", disabled=not ready):
        folder = new_folder(jobs_folder())
        reference = Path(character)
        if picture is not None:
            reference = keep_upload(folder, "reference", picture.name, picture.getvalue())
        driving = motion or str(keep_upload(folder, "driving", upload.name, upload.getvalue()) if upload else "")
        words = animate_arguments(reference, driving, folder / "animation.mp4", prompt=prompt, seed=int(seed),
                                  steps=int(steps) if steps else None, model=model)  # fmt: skip
        if source == "From the Pose page":
            words += [f"--adjust={name}={value:g}" for name, value in st.session_state["animate.adjust"].items()]
        start(words, folder)
        st.query_params["job"] = folder.name  # a reload finds the job again
    if not ready:
        st.caption("Choose a picture and a motion first.")


def _take_over() -> None:
    """Takes what the Pose page handed over."""
    handed = st.session_state.pop("animate.handed", None)
    if handed:
        st.session_state.update({"animate.driving": handed["driving"], "animate.adjust": handed["adjust"],
                                 "source": "From the Pose page"})  # fmt: skip


def _draw_result() -> None:
    folder = jobs_folder() / Path(st.query_params.get("job", "-")).name
    if not (folder / "command.json").is_file():
        st.info("The video appears here.")
        return
    job = Job(folder)
    if job.status().state == "running":
        _watch(job)
    else:
        _show(job, job.status())


@st.fragment(run_every="1s")
def _watch(job: Job) -> None:
    """Draws the progress until the job ends, then the whole page."""
    status = job.status()
    if status.state != "running":
        st.rerun()
    st.progress(status.share, text=status.stage)
    if st.button("Stop", key="stop"):
        job.cancel()


def _show(job: Job, status: JobStatus) -> None:
    if status.state == "failed":
        st.error(status.result["error"])
    else:
        st.video(status.result["output"], loop=True, autoplay=True, muted=True)
        facts = status.result
        st.caption(f"{facts['frames']} frames of {facts['width']}x{facts['height']} at {facts['fps']:g} fps, "
                   f"made in {facts['seconds']:.1f} s, seed {facts['seed']}")  # fmt: skip
        st.download_button("Download", Path(facts["output"]).read_bytes(), "animation.mp4", "video/mp4", key="download")
        st.image(facts["preview"], caption="reference, pose, result")
    for note in status.notes:
        st.warning(note)
    st.caption("The same from the command line:")
    st.code(f"studio {shlex.join(job.command)}", language="bash", wrap_lines=True)
