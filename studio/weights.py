"""Finds the weights that a request names and opens the pipeline with them."""

import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import RequestError
from studio.progress import OnNote

if TYPE_CHECKING:
    import torch

    from models.pipeline import AnimateXPipeline
    from pose.detect import PoseDetector
    from studio.requests import SamplingRequest

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_HASHED_BYTES = 2 << 30


def mini_folder() -> Path:
    """The folder of the weights that this package ships."""
    return Path(str(resources.files("models"))) / "weights" / "mini"


def mini_detector() -> Path:
    """The keypoint detector that this package ships."""
    return mini_folder() / "pose" / "model.onnx"


def open_detector(name: str) -> "PoseDetector":
    """Loads a keypoint detector by name or from MODEL.onnx."""
    from pose.detect import load_detector

    return load_detector(name, weights=mini_detector() if name == "mini" else None)


def find_model(model: str, note: OnNote) -> Path:
    """Finds the folder of a model: ours, a folder, or a hub id (downloaded after saying what, how large, from where).

    Raises:
        RequestError: there is no such model, or a file of it is missing.
    """
    if model == "mini":
        folder = mini_folder()
    elif Path(model).is_dir():
        folder = Path(model)
    elif Path(model).exists():
        raise RequestError(f"--model {model}: is a file; give the folder that holds model_index.json")
    elif _HUB_ID.match(model) and not model.startswith((".", "/")):
        folder = _from_hub(model, note)
    else:
        raise RequestError(f"--model {model}: no such folder; give mini, a folder in diffusers layout or a hub id")
    check_model(folder)
    return folder


def check_model(folder: Path) -> None:
    """Checks that a folder in diffusers layout is whole, before minutes are spent on loading it.

    Raises:
        RequestError: names the missing file.
    """
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise RequestError(
            f"--model {folder}: model_index.json is missing, so this is not a model in diffusers layout; "
            "`studio convert` makes one from released weights"
        )
    try:
        index = json.loads(index_file.read_text())
    except ValueError as error:
        raise RequestError(f"--model {index_file}: is not JSON ({error}); copy the folder again") from None
    for name, kind in index.items():
        if name.startswith("_") or not (isinstance(kind, list) and len(kind) == 2 and kind[0]):
            continue
        part = folder / name
        if not part.is_dir():
            raise _missing(part, folder)
        config = part / "config.json"
        if config.is_file():
            _check_weights(part, folder)
        elif not any(part.iterdir()) or any(part.glob("*.safetensors*")):
            raise _missing(config, folder)


def _check_weights(part: Path, folder: Path) -> None:
    """Checks that a component has its weights, all shards of them."""
    for index in part.glob("*.safetensors.index.json"):
        for shard in set(json.loads(index.read_text())["weight_map"].values()):
            if not (part / shard).is_file():
                raise _missing(part / shard, folder)
        return
    if not any(part.glob("*.safetensors")):
        usual = "model" if "transformers" in (part / "config.json").read_text() else "diffusion_pytorch_model"
        raise _missing(part / f"{usual}.safetensors", folder)


def _missing(file: Path, folder: Path) -> RequestError:
    return RequestError(f"--model {folder}: {file.relative_to(folder)} is missing; copy, convert or download it again")


def _from_hub(model: str, note: OnNote) -> Path:
    """Takes a model from the hub cache, or downloads it and says so."""
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise RequestError(
            f"--model {model}: not in the hub cache and HF_HUB_OFFLINE is set; unset it to download, or give a folder"
        )
    try:
        info = model_info(model, files_metadata=True)
        gigabytes = sum(file.size or 0 for file in info.siblings or []) / 1e9
        note(f"downloading {model} from huggingface.co: {len(info.siblings or [])} files, {gigabytes:.1f} GB")
        return Path(snapshot_download(model))
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"--model {model}: no such folder here and no download from the hub ({reason})") from None


def choose_device(name: str) -> "torch.device":
    """Chooses the device: auto is the first GPU, else the CPU.

    Raises:
        RequestError: that GPU is not there.
    """
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if found else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= found:
        raise RequestError(
            f"--device {name}: torch sees {found} GPUs here; use --device cpu or auto, or `studio doctor`"
        )
    return device


def choose_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """Chooses the number format: bfloat16 on a GPU, float32 on the CPU."""
    import torch

    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def open_pipeline(request: "SamplingRequest", note: OnNote) -> tuple["AnimateXPipeline", Path]:
    """Opens the pipeline that a request names, on its device, with its adapters and scheduler."""
    folder = find_model(request.model, note)
    adapters = [_split_scale(text) for text in request.adapter]
    device = choose_device(request.device)
    from models.pipeline import AnimateXPipeline

    try:
        pipeline = AnimateXPipeline.from_pretrained(folder, torch_dtype=choose_dtype(request.dtype, device))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:  # a damaged file shows up as any of these
        if type(error).__name__ == "OutOfMemoryError":
            raise
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise RequestError(
            f"--model {folder}: cannot be loaded ({reason}); copy, convert or download it again"
        ) from error
    for index, (file, scale) in enumerate(adapters):
        _add_adapter(pipeline, file, scale, f"adapter-{index}")
    if request.scheduler is not None:
        _set_scheduler(pipeline, request.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    if request.offload and device.type == "cuda":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return pipeline, folder


def _split_scale(text: str) -> tuple[Path, float]:
    """Reads FILE or FILE:SCALE."""
    head, colon, tail = text.rpartition(":")
    file, scale = Path(text), 1.0
    if colon and not file.exists():
        try:
            file, scale = Path(head), float(tail)
        except ValueError:
            raise RequestError(f"--adapter {text}: {tail!r} is not a number; write FILE or FILE:SCALE") from None
    if not file.is_file():
        raise RequestError(f"--adapter {file}: no such file")
    return file, scale


def _add_adapter(pipeline: "AnimateXPipeline", file: Path, scale: float, name: str) -> None:
    """Loads a LoRA file. Adapters of the other methods come with the training methods."""
    if file.suffix != ".safetensors":
        raise RequestError(f"--adapter {file}: must be a .safetensors file; others can hold code, so they are not read")
    try:
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise RequestError(f"--adapter {file}: does not fit this model ({reason})") from error
    pipeline.set_adapters(name, scale)


def _set_scheduler(pipeline: "AnimateXPipeline", name: str) -> None:
    """Changes the sampler and keeps the shift that the model was made for."""
    from models.sampling import euler, unipc

    config = pipeline.scheduler.config
    shift = float(config.get("flow_shift") or config.get("shift") or 1.0)
    pipeline.scheduler = unipc(shift) if name == "unipc" else euler(shift)


def hash_weights(folder: Path) -> dict[str, str]:
    """Hashes the weight files of a model; very large ones are named by their size, for hashing takes minutes."""
    from studio.files import sha256

    files = sorted(folder.rglob("*.safetensors"))
    whole = sum(file.stat().st_size for file in files) <= _HASHED_BYTES
    return {
        str(file.relative_to(folder)): f"sha256:{sha256(file)}" if whole else f"bytes:{file.stat().st_size}"
        for file in files
    }
