"""`studio animate` and `studio background`."""

from typing import TYPE_CHECKING

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.requests import AnimateRequest, BackgroundRequest

if TYPE_CHECKING:
    from studio.animation import Animation


def run_animate(request: AnimateRequest, console: Console) -> Result:
    """Makes and saves the animation."""
    from studio import animation

    made = animation.run_animate(request, on_progress=console.progress, on_note=console.note)
    return _save(made, request, console)


def run_background(request: BackgroundRequest, console: Console) -> Result:
    """Makes and saves the animation."""
    from studio import animation

    made = animation.run_background(request, on_progress=console.progress, on_note=console.note)
    return _save(made, request, console)


def _save(made: "Animation", request: AnimateRequest | BackgroundRequest, console: Console) -> Result:
    from studio.animation import output_of

    output = made.save(output_of(request))
    frames, height, width = made.frames.shape[:3]
    metrics = made.facts["metrics"]
    console.say(
        f"{output}: {frames} frames of {width}x{height} at {made.fps:g} fps, made in {metrics['seconds']:.1f} s, "
        f"peak memory {metrics['peak_memory_bytes'] / 2**30:.2f} GiB"
    )
    result: dict[str, object] = {
        "output": str(output), "sidecar": str(output.with_suffix(".json")), "frames": frames, "height": height,
        "width": width, "fps": made.fps, "seed": request.seed, "model": request.model, **metrics,
        "notes": list(made.notes),
    }  # fmt: skip
    if request.preview:
        result["preview"] = str(output.with_suffix(".png"))
        console.say(f"{output.with_suffix('.png')}: contact sheet")
    return result


VERBS = (Verb("animate", AnimateRequest, run_animate), Verb("background", BackgroundRequest, run_background))
