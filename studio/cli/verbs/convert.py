"""`studio convert animate-x-plusplus`."""

from pathlib import Path

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.requests import Request

_WORST_ERROR = 1e-4


class ConvertRequest(Request):
    """Turns the released Animate-X++ weights into a folder in diffusers layout."""

    base: Path
    """The Wan2.1 I2V transformer in its original key names: a .safetensors file, or the folder of its shards."""
    checkpoint: Path
    """The released animate-x++.ckpt; it is read as numbers only, never as code."""
    output: Path
    """The folder to write."""
    clip: Path | None = None
    """open_clip_pytorch_model of LAION's ViT-H-14, .bin or .safetensors: the implicit indicator sees with it."""
    verify: Path | None = None
    """A folder with inputs.safetensors and outputs.safetensors: runs the result on them and prints the errors."""


def run(request: ConvertRequest, console: Console) -> Result:
    """Converts, and verifies when asked."""
    from models.convert import convert_animate_x_plusplus, verify_conversion

    for flag, path in (
        ("--base", request.base), ("--checkpoint", request.checkpoint), ("--clip", request.clip),
        ("--verify", request.verify),
    ):  # fmt: skip
        if path is not None and not path.exists():
            raise RequestError(f"{flag} {path}: no such file or folder")
    if request.output.is_file():
        raise RequestError(f"--output {request.output}: is a file; give a folder")
    report = convert_animate_x_plusplus(request.base, request.checkpoint, request.output, clip=request.clip)
    console.say(f"{report.output}: {len(report.unused_keys)} unused keys, {len(report.missing_keys)} missing keys")
    for key in (*report.unused_keys, *report.missing_keys):
        console.note(f"unused or missing: {key}")
    if report.missing_components:
        console.note(
            f"the folder has no {', '.join(report.missing_components)}: give the base as a folder in diffusers layout, "
            "or copy them from one; ipi_image_encoder is what --clip makes, and without it the implicit indicator is "
            "left out"
        )
    errors: dict[str, float] = {}
    if request.verify is not None:
        errors = verify_conversion(report.output, request.verify)
        width = max(map(len, errors))
        for name, error in errors.items():
            console.say(f"{name:<{width}}  {error:.2e}{'' if error < _WORST_ERROR else '  too large'}")
        if max(errors.values()) >= _WORST_ERROR:
            raise ArithmeticError(
                f"the converted model is off by more than {_WORST_ERROR:g}; do not use {report.output}"
            )
    return {"output": str(report.output), "unused_keys": list(report.unused_keys),
            "missing_keys": list(report.missing_keys), "missing_components": list(report.missing_components),
            "errors": errors}  # fmt: skip


VERB = Verb("convert animate-x-plusplus", ConvertRequest, run)
