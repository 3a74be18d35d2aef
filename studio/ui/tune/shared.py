"""What the parts of the Fine-tune page share."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import streamlit as st

from models.loading import folder_here
from studio.errors import RequestError
from studio.forecast import Past, matrix_speed, past_runs
from studio.jobs import Job, runs_folder
from studio.roots import declared_roots, inside_roots
from studio.ui import shell
from studio.ui.serve import typed_model, typed_path
from studio.weight_histogram import WeightHistogram, cached_histogram, network_of, read_entries

PAGE: Final = "fine_tune"
TOML: Final = "run.toml"
"""In a job's folder: the settings that it reads."""


@st.cache_resource(show_spinner="Loading the trainer's options, once")
def trainer() -> Any:
    """The module of the config; it brings torch with it, so the first look takes some seconds."""
    import_module("training.methods")
    return import_module("training.finetune.config")


def why_not_read(folder: str) -> str:
    """Why the files of a folder may not be shown or moved; nothing where they may."""
    try:
        found = typed_path(folder, what="data folder")
    except RequestError as error:
        return str(error)
    if found.is_file():
        return f"data folder {folder}: is a file; name the folder that it is in"
    return "" if found.is_dir() else f"data folder {folder}: no such folder"


def why_not_write(folder: Path) -> str:
    """Why captions in a folder may not be changed from a page; nothing where they may."""
    try:
        inside_roots(folder, roots=declared_roots(local=False))
    except RequestError:
        return (
            "Captions are changed here only in uploads and in folders that the owner of the studio declared "
            "(data_folders in the settings); elsewhere, edit the .txt files themselves."
        )
    return ""


# --- the model ---------------------------------------------------------------------------------------------------


def network_folder(model: str) -> Path | None:
    """Where the weights of a model's network lie; None where the model is not on this machine.

    Raises:
        RequestError: it is no model, or lies outside the studio's folders.
    """
    folder = folder_here(typed_model(model))
    return None if folder is None else folder / network_of(folder)


@st.cache_resource(max_entries=4, show_spinner=False)
def shapes_of(network: str, changed: float) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's tensors, from the files' headers."""
    return {entry.name: entry.shape for entry in read_entries(Path(network))}


@st.cache_resource(max_entries=4, show_spinner="Counting the weights by size, once for this model")
def histogram_of(network: str, changed: float) -> WeightHistogram:
    """The histogram of a network's weights."""
    return cached_histogram(Path(network), runs_folder() / "cache")


def changed_at(folder: Path) -> float:
    """When a folder of weights changed last."""
    return max((file.stat().st_mtime for file in folder.glob("*.safetensors")), default=0.0)


@st.cache_resource(max_entries=4, show_spinner=False)
def other_bytes(network: str, changed: float) -> int:
    """Size of a model's other weights."""
    own = Path(network)
    return sum(file.stat().st_size for file in own.parent.glob("*/*.safetensors") if file.parent != own)


# --- this machine ------------------------------------------------------------------------------------------------


@st.cache_data(ttl=30, max_entries=4, show_spinner=False)
def past(root: str) -> list[Past]:
    """What earlier runs took."""
    return past_runs(Path(root))


@st.cache_resource(show_spinner=False)
def cpu_speed() -> float | None:
    """Operations a second, where training will be on the CPU; None where there is a GPU."""
    return None if Path("/proc/driver/nvidia").exists() or Path("/dev/kfd").exists() else matrix_speed()


# --- jobs --------------------------------------------------------------------------------------------------------


def submit_with(text: str, words: Sequence[str], *, title: str, needs: Sequence[int] = ()) -> Job:
    """Puts a command into the queue whose settings are a TOML file in its folder.

    In the words, `{toml}` stands for that file and `{folder}` for the folder.

    Raises:
        RequestError: the command is wrong.
    """
    folder = shell.queue().new_folder()
    (folder / TOML).write_text(text, encoding="utf-8")
    placed = [word.replace("{toml}", str(folder / TOML)).replace("{folder}", str(folder)) for word in words]
    return shell.submit(placed, title=title, folder=folder, needs=needs)


def latest_job(verb: tuple[str, str], text: str, *, flag: str = "") -> Job | None:
    """The last job of a verb that had just these settings; so a reload finds it, and other settings do not.

    Args:
        flag: only one with this flag; by default only one without --quarantine and --restore.
    """
    found = None
    for job in shell.queue().jobs(kinds=[verb[0]], limit=60):
        special = [word for word in job.words if word in ("--quarantine", "--restore")]
        if job.words[:2] != verb or special != ([flag] if flag else []):
            continue
        if (found is None or job.id > found.id) and _text(job.folder / TOML) == text:
            found = job
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
