"""`studio export`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.files import check_output
from studio.requests import Positional, Request

if TYPE_CHECKING:
    from training.exporting import Base, Report
    from training.methods.adapter import Adapter


class ExportRequest(Request):
    """Writes an adapter in a form that other programs load, reads it back and says how exact it is."""

    adapter: Annotated[Path, Positional()]
    """The adapter file, or the folder of a run."""
    format: Literal["merged", "diffusers", "comfyui", "lora", "adapter"]
    """merged: the whole model with the change in it; diffusers: a LoRA for load_lora_weights; lora: one with kohya's
    names; comfyui: one that ComfyUI loads; adapter: our own file, of a checkpoint."""
    checkpoint: Annotated[int, Field(ge=1)] | None = None
    """The step of a checkpoint of the run, in place of what it came to in the end."""
    rank: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rank of the nearest LoRA for layers that have no exact one. Columns and rows have, whatever this is."""
    drop_rest: bool = False
    """Leaves out what a LoRA has no place for, such as biases and norms."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Values in a LoRA; a merged model keeps its own."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """Where the model is that it was trained on; by default where it was then."""
    output: Path
    """The .safetensors file to write, or the folder for merged."""


def run(request: ExportRequest, console: Console) -> Result:
    """Exports, and says what it came to."""
    merged = request.format == "merged"
    if not merged:
        check_output(request.output, suffixes=(".safetensors",))
    if request.output.exists():
        raise RequestError(f"--output {request.output}: is there already; name another or delete it")
    if merged and (request.rank is not None or request.drop_rest):
        raise RequestError("--format merged keeps everything; leave --rank and --drop-rest out")
    if request.checkpoint is not None:
        return _checkpoint(request, request.checkpoint, console)
    if request.format == "adapter":
        raise RequestError("--format adapter needs --checkpoint STEP; what a run came to is in its adapter.safetensors")
    from studio.adapters import find_adapter

    file = Path(find_adapter(str(request.adapter), "ADAPTER"))
    if not file.is_file():
        raise RequestError(f"ADAPTER {file}: no such file")
    return _export(request, file, console)


def _checkpoint(request: ExportRequest, step: int, console: Console) -> Result:
    """Makes the adapter of a checkpoint, and exports that where another format is wanted."""
    from training.finetune.of_checkpoint import write_checkpoint_adapter
    from training.finetune.run import read_finetune
    from training.methods.adapter import load_adapter

    config = read_finetune(request.adapter) if (request.adapter / "config.toml").is_file() else None
    if config is None:
        raise RequestError(f"--checkpoint {step}: ADAPTER {request.adapter} is no folder of a fine-tuning run")
    if request.format == "adapter":
        request.output.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint_adapter(config, request.adapter, step, request.output)
        count = sum(value.numel() for value in load_adapter(request.output).delta.values() if value.is_floating_point())
        console.say(f"{request.output}: {count:,} numbers of step {step}, {request.output.stat().st_size:,} bytes")
        return {"output": str(request.output), "format": request.format, "step": step}
    with TemporaryDirectory(prefix="studio-") as folder:
        file = Path(folder) / f"step-{step}.safetensors"
        write_checkpoint_adapter(config, request.adapter, step, file)
        return _export(request, file, console)


def _export(request: ExportRequest, file: Path, console: Console) -> Result:
    from training.exporting import export_merged, open_base
    from training.methods.adapter import load_adapter

    adapter = load_adapter(file)
    base = open_base(adapter, request.model)
    merged = request.format == "merged"
    report = export_merged(adapter, base, request.output) if merged else _lora(request, adapter, base)
    for name, error in report.approximate.items():
        console.say(f"{name}: approximate, relative error {error:.3g}")
    for name in report.dropped:
        console.say(f"{name}: left out")
    console.say(
        f"{report.output}: read back with a relative error of {report.max_error:.1e} at most"
        + (f"; {report.lost:.2%} of the change is not in it" if report.lost > 1e-4 else "; exact")
    )
    return {
        "output": str(report.output), "max_error": report.max_error, "format": request.format, "lost": report.lost,
        "round_trip": report.round_trip, "approximate": report.approximate, "dropped": list(report.dropped),
        "dropped_share": report.dropped_share, "base": str(base.folder), "component": base.component,
    }  # fmt: skip


def _lora(request: ExportRequest, adapter: "Adapter", base: "Base") -> "Report":
    import torch

    from training.exporting import export_lora

    assert request.format != "merged" and request.format != "adapter"
    return export_lora(
        adapter, base, request.output, request.format, rank=request.rank, drop_rest=request.drop_rest,
        dtype=getattr(torch, request.dtype),
    )  # fmt: skip


VERB = Verb("export", ExportRequest, run)
