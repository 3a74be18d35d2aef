"""Finds the folder of a pipeline and checks that it is whole, before minutes are spent on loading it."""

import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from pose.wording import in_a_line

_PIPELINE: Final = "AnimateXPipeline"
_HUB_ID: Final = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_REMEDY: Final = "copy, convert or download it again"
_WANTED: Final = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md"]
"""What is taken from the hub: never pickles."""
NETWORKS: Final = ("transformer", "transformer_2", "unet", "prior", "controlnet")
"""What pipelines call the part that denoises; others follow in the order of the index."""
_OURS: Final = ("models.", "pose.")


def license_of(folder: Path) -> str:
    """The licence that a model's card names in its first lines, as the hub reads them; empty where none is known."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    head = re.match(r"---\s*\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    named = re.search(r"^license:[ \t]*([^\n#]+)", head.group(1), re.MULTILINE) if head else None
    return named.group(1).strip().strip("\"'") if named else ""


def resolve_folder(name_or_path: str | Path, *, announce: Callable[[str], None] | None = None) -> Path:
    """Finds the folder of a model: "mini" (packaged), a local folder, or a hub id (from the cache or downloaded).

    `announce` is told what is downloaded, how large it is and from where, before it is.

    Raises:
        ValueError: there is no such model, or the hub cannot be asked.
    """
    name = str(name_or_path)
    if name == "mini":
        return Path(str(resources.files("models"))) / "weights" / "mini"
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"model {name} is a file; name the folder that holds model_index.json")
    if not isinstance(name_or_path, str) or not is_hub_id(name):
        raise ValueError(f"there is no model {name!r}; give 'mini', a folder in diffusers layout, or a hub id")
    return _from_hub(name, announce)


def is_hub_id(name: str) -> bool:
    """Whether a name that is no folder here would be looked for on the hub: OWNER/NAME."""
    return _HUB_ID.match(name) is not None


def folder_here(name_or_path: str | Path) -> Path | None:
    """The folder of a model that is on this machine already; None where it is not, and nothing is downloaded."""
    name = str(name_or_path)
    if name == "mini" or Path(name).is_dir():
        return resolve_folder(name)
    if not is_hub_id(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def read_index(folder: Path) -> dict[str, Any]:
    """Reads a pipeline's model_index.json: its class, and library and class of every part.

    Raises:
        ValueError: the folder is no pipeline.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no pipeline: it has no model_index.json; name a folder in diffusers layout")
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return index


def component_names(folder: Path) -> list[str]:
    """Names of the parts that diffusers or this project load and that have weights, those that denoise first."""
    found = [
        name
        for name, kind in read_index(folder).items()
        if isinstance(kind, list) and _known(str(kind[0])) and any((folder / name).glob("*.safetensors"))
    ]
    return sorted(found, key=lambda name: (name not in NETWORKS, NETWORKS.index(name) if name in NETWORKS else 0))


def _known(library: str) -> bool:
    return library == "diffusers" or library.startswith(_OURS)


def check_folder(folder: Path, *, pipeline: str | None = _PIPELINE) -> None:
    """Checks that a folder in diffusers layout has every file that its model_index.json asks for, undamaged.

    Args:
        pipeline: the class that it must be of; None for any.

    Raises:
        ValueError: names the missing or damaged file.
    """
    index = _read_json(folder, "model_index.json")
    if pipeline is not None and index.get("_class_name") != pipeline:
        raise ValueError(f"model folder {folder} is of a {index.get('_class_name')}, not of an {pipeline}")
    for name, kind in index.items():
        if name.startswith("_") or not (isinstance(kind, list) and len(kind) == 2 and kind[0]):
            continue
        _check_component(folder, name, str(kind[1]))


def _check_component(folder: Path, name: str, kind: str) -> None:
    if "Scheduler" in kind:
        _read_json(folder, f"{name}/scheduler_config.json")
    elif "Tokenizer" in kind:
        _read_json(folder, f"{name}/tokenizer_config.json")
    elif "Processor" in kind:
        if not any((folder / name).glob("*processor_config.json")):
            raise _lacks(folder, f"{name}/preprocessor_config.json")
    else:
        config = _read_json(folder, f"{name}/config.json")
        for file in _weight_files(folder, name, "model" if "architectures" in config else "diffusion_pytorch_model"):
            _check_weights(folder, file)


def _weight_files(folder: Path, name: str, stem: str) -> list[str]:
    """Lists the weight files of a component: one, or the shards of its index."""
    shards = f"{name}/{stem}.safetensors.index.json"
    if (folder / shards).is_file():
        return sorted({f"{name}/{file}" for file in _read_json(folder, shards)["weight_map"].values()})
    return [f"{name}/{stem}.safetensors"]


def _check_weights(folder: Path, file: str) -> None:
    if not (folder / file).is_file():
        raise _lacks(folder, file)
    try:
        with safe_open(folder / file, framework="pt"):  # reads the header and compares it with the file's length
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / file} is damaged ({error}); {_REMEDY}") from None


def _read_json(folder: Path, file: str) -> dict[str, Any]:
    path = folder / file
    if not path.is_file():
        raise _lacks(folder, file)
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {_REMEDY}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not valid: a JSON object was expected; {_REMEDY}")
    return content


def _lacks(folder: Path, file: str) -> ValueError:
    return ValueError(f"model folder {folder} lacks {file}; {_REMEDY}")


def _from_hub(name: str, announce: Callable[[str], None] | None) -> Path:
    """Takes a model from the hub cache, or downloads it after saying so."""
    from huggingface_hub import constants, model_info, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED, local_files_only=True))
    except LocalEntryNotFoundError:
        if constants.HF_HUB_OFFLINE:
            raise ValueError(
                f"model {name!r} is neither a folder nor in the hub cache, and HF_HUB_OFFLINE forbids a download; "
                "unset it, or give a folder"
            ) from None
    try:
        if announce is not None:
            every = model_info(name, files_metadata=True).siblings or []
            files = [file for file in every if file.rfilename.endswith(tuple(pattern[1:] for pattern in _WANTED))]
            gigabytes = sum(file.size or 0 for file in files) / 1e9
            announce(f"downloading {name} from {constants.ENDPOINT}: {len(files)} files, {gigabytes:.1f} GB")
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"model {name!r} is no folder here and cannot be had from the hub ({in_a_line(error)})"
        ) from None
