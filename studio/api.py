"""The Python door: the same options, defaults and messages as the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pose.adjustment import NOT_ADJUSTED, Adjustment
from studio.animation import Animation, run_animate, run_background
from studio.progress import OnNote, OnProgress, unheard
from studio.requests import AnimateRequest, BackgroundRequest, make_request

if TYPE_CHECKING:
    from models.pipeline import AnimateXPipeline

__all__ = ["Animation", "animate", "background"]


def animate(
    reference: str | Path,
    driving: str | Path,
    *,
    prompt: str = "",
    negative_prompt: str = "",
    model: str = "mini",
    adapter: tuple[str, ...] = (),
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fit: Literal["cover", "contain"] = "cover",
    fps: float | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    prompt_noise: float = 0.0,
    prompt_random_words: int = 0,
    guidance_start: float | Literal["auto"] = 0.0,
    guidance_before: float = 1.0,
    scheduler: Literal["euler", "unipc"] | None = None,
    align: Literal["auto", "none"] = "auto",
    adjust: Adjustment | Mapping[str, float] = NOT_ADJUSTED,
    reference_pose: str | Path | None = None,
    detector: str = "mini",
    person: int | None = None,
    driving_fps: float | None = None,
    audio: bool = False,
    preview: bool = False,
    live: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    offload: bool = False,
    output: str | Path | None = None,
    pipeline: "AnimateXPipeline | None" = None,
    on_progress: OnProgress = unheard,
    on_note: OnNote = unheard,
) -> Animation:
    """Animates the reference picture with the driving motion; `AnimateRequest` explains each option.

    `driving` is a video, a keypoint file or folder, or a bundled motion. A `pipeline` that is open already is used
    as it is (device, dtype, scheduler and adapters included), which saves loading it again. Nothing is written
    before `Animation.save`, unless `output` is given.

    Raises:
        ValueError: an option or an input is wrong; the message names it and the fix.
    """
    values = {
        "reference": reference, "driving": str(driving), "prompt": prompt, "negative_prompt": negative_prompt,
        "model": model, "adapter": adapter, "num_frames": num_frames, "height": height, "width": width, "fit": fit,
        "fps": fps, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale,
        "prompt_noise": prompt_noise, "prompt_random_words": prompt_random_words, "guidance_start": guidance_start,
        "guidance_before": guidance_before, "scheduler": scheduler, "align": align, "adjust": adjust,
        "reference_pose": reference_pose, "detector": detector, "person": person, "driving_fps": driving_fps,
        "audio": audio, "preview": preview, "live": live, "seed": seed, "device": device, "dtype": dtype,
        "offload": offload, "output": output,
    }  # fmt: skip
    request = make_request(AnimateRequest, values)
    animation = run_animate(request, pipeline=pipeline, on_progress=on_progress, on_note=on_note)
    if request.output is not None:
        animation.save(request.output)
    return animation


def background(
    image: str | Path,
    prompt: str,
    *,
    negative_prompt: str = "",
    model: str = "mini",
    adapter: tuple[str, ...] = (),
    num_frames: int = 17,
    height: int | None = None,
    width: int | None = None,
    fit: Literal["cover", "contain"] = "cover",
    fps: float | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    prompt_noise: float = 0.0,
    prompt_random_words: int = 0,
    guidance_start: float | Literal["auto"] = 0.0,
    guidance_before: float = 1.0,
    scheduler: Literal["euler", "unipc"] | None = None,
    preview: bool = False,
    live: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    offload: bool = False,
    output: str | Path | None = None,
    pipeline: "AnimateXPipeline | None" = None,
    on_progress: OnProgress = unheard,
    on_note: OnNote = unheard,
) -> Animation:
    """Brings a picture alive after a text, without a pose; `BackgroundRequest` explains each option.

    Raises:
        ValueError: an option or an input is wrong; the message names it and the fix.
    """
    values = {
        "image": image, "prompt": prompt, "negative_prompt": negative_prompt, "model": model, "adapter": adapter,
        "num_frames": num_frames, "height": height, "width": width, "fit": fit, "fps": fps,
        "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, "prompt_noise": prompt_noise,
        "prompt_random_words": prompt_random_words, "guidance_start": guidance_start,
        "guidance_before": guidance_before, "scheduler": scheduler, "preview": preview, "live": live, "seed": seed,
        "device": device, "dtype": dtype, "offload": offload, "output": output,
    }  # fmt: skip
    request = make_request(BackgroundRequest, values)
    animation = run_background(request, pipeline=pipeline, on_progress=on_progress, on_note=on_note)
    if request.output is not None:
        animation.save(request.output)
    return animation
