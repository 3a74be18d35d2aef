"""`studio export`."""

from pathlib import Path
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
    format: Literal["merged", "diffusers", "comfyui", "lora"]
    """merged: the whole model with the change in it; diffusers: a LoRA for load_lora_weights; lora: one with kohya's
    names; comfyui: one that ComfyUI loads."""
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
    from studio.adapters import find_adapter
    from training.exporting import export_merged, open_base
    from training.methods.adapter import load_adapter

    merged = request.format == "merged"
    if not merged:
        check_output(request.output, suffixes=(".safetensors",))
    if request.output.exists():
        raise RequestError(f"--output {request.output}: is there already; name another or delete it")
    if merged and (request.rank is not None or request.drop_rest):
        raise RequestError("--format merged keeps everything; leave --rank and --drop-rest out")
    file = Path(find_adapter(str(request.adapter), "ADAPTER"))
    if not file.is_file():
        raise RequestError(f"ADAPTER {file}: no such file")
    adapter = load_adapter(file)
    base = open_base(adapter, request.model)
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

    assert request.format != "merged"
    return export_lora(
        adapter, base, request.output, request.format, rank=request.rank, drop_rest=request.drop_rest,
        dtype=getattr(torch, request.dtype),
    )  # fmt: skip


VERB = Verb("export", ExportRequest, run)
