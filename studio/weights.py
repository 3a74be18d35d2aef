"""Finds the weights that a request names and opens the pipeline with them."""

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from pose.wording import in_a_line
from studio.adapters import split_scale
from studio.errors import RequestError
from studio.progress import OnNote

if TYPE_CHECKING:
    import torch

    from models.pipeline import AnimateXPipeline
    from pose.detect import PoseDetector
    from studio.requests import SamplingRequest

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
    """Opens the pipeline that a request names, on its device, with its adapters and scheduler.

    Raises:
        RequestError: the model, the device or an adapter cannot be used.
    """
    adapters = [split_scale(text, "--adapter") for text in request.adapter]
    device = choose_device(request.device)
    import torch

    if device.type == "cuda":
        torch.cuda.init()
        if device.index is not None:
            torch.cuda.set_device(device)  # or peaks would be read from another card
        torch.cuda.reset_peak_memory_stats()
    offload = request.offload and device.type == "cuda"
    from models.loading import resolve_folder
    from models.pipeline import load_pipeline
    from models.quiet import quiet_loading

    try:
        folder = resolve_folder(request.model, announce=note)
        with quiet_loading():
            pipeline = load_pipeline(
                folder, device="cpu" if offload else device, dtype=choose_dtype(request.dtype, device)
            )
    except ValueError as error:
        raise RequestError(f"--model {request.model}: {error}") from error
    _add_adapters(pipeline, folder, adapters)
    if request.scheduler is not None:
        _set_scheduler(pipeline, request.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    if offload:
        from models.offload import offload as send_away

        index = 0 if device.index is None else device.index
        told = send_away(pipeline, device, memory_bytes=torch.cuda.get_device_properties(index).total_memory)
        if told:
            note(told)
    return pipeline, folder


def _add_adapters(pipeline: "AnimateXPipeline", folder: Path, adapters: list[tuple[Path, float]]) -> None:
    """Puts adapters of ours, or LoRA files of any program, on the pipeline."""
    for file, _ in adapters:
        if file.suffix != ".safetensors":
            raise RequestError(
                f"--adapter {file}: must be a .safetensors file; others can hold code, so they are not read"
            )
    from studio.adapters import fold_lora, load_adapter
    from training.methods.adapter import is_adapter

    loras: dict[str, float] = {}
    # ours first: they are folded into weights that a LoRA's layers would hide; LoRAs of ours before those whose
    # originals are remembered
    rest: list[tuple[Path, float]] = []
    for file, scale in adapters:
        try:
            if not (is_adapter(file) and fold_lora(pipeline, file, scale=scale, folder=folder)):
                rest.append((file, scale))
        except ValueError as error:
            raise RequestError(f"--adapter {file}: {error}") from error
    for index, (file, scale) in enumerate(sorted(rest, key=lambda adapter: not is_adapter(adapter[0]))):
        if is_adapter(file):
            try:
                load_adapter(pipeline, file, scale=scale, folder=folder)
            except ValueError as error:
                raise RequestError(f"--adapter {file}: {error}") from error
        else:
            _add_lora(pipeline, file, f"adapter-{index}")
            loras[f"adapter-{index}"] = scale
    if loras:
        pipeline.set_adapters(list(loras), list(loras.values()))


def _add_lora(pipeline: "AnimateXPipeline", file: Path, name: str) -> None:
    """Puts a LoRA file of any program on the transformer."""
    try:
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise RequestError(f"--adapter {file}: does not fit this model ({in_a_line(error)})") from error


def _set_scheduler(pipeline: "AnimateXPipeline", name: str) -> None:
    """Changes the sampler and keeps the shift that the model was made for."""
    from models.sampling import euler, unipc

    config = pipeline.scheduler.config
    shift = float(config.get("flow_shift") or config.get("shift") or 1.0)
    pipeline.scheduler = unipc(shift) if name == "unipc" else euler(shift)


def hash_weights(folder: Path) -> dict[str, str]:
    """Hashes the weight files of a model; very large ones are named by their size, for hashing takes minutes."""
    from training.hashing import file_sha256

    files = sorted(folder.rglob("*.safetensors"))
    whole = sum(file.stat().st_size for file in files) <= _HASHED_BYTES
    return {
        str(file.relative_to(folder)): f"sha256:{file_sha256(file)}" if whole else f"bytes:{file.stat().st_size}"
        for file in files
    }
