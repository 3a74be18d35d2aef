"""`studio evaluate animation`."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.files import moved_in
from studio.progress import Progress
from studio.requests import Device, Request

if TYPE_CHECKING:
    from torch import Tensor

    from training.metrics.a2bench import Row, Setting, Suite

_COLUMNS = {
    "psnr": ("PSNR* (dB)", "{:.2f}"), "ssim": ("SSIM", "{:.3f}"), "l1": ("L1", "{:.4f}"),
    "sharpness": ("sharpness", "{:.2f}"),
    "fd_mini": ("FD-mini", "{:.4f}"), "fd_mini_video": ("FD-mini-video", "{:.4f}"),
    "pck": ("PCK@0.1", "{:.3f}"), "identity": ("identity", "{:.3f}"),
    "background_motion": ("background motion", "{:.2f}"), "background_motion_true": ("of the truth", "{:.2f}"),
    "text_accuracy": ("text accuracy", "{:.2f}"), "text_accuracy_of_truth": ("of the truth", "{:.2f}"),
}  # fmt: skip


class EvaluateAnimationRequest(Request):
    """Measures an animator against its baselines: a table, and the same as JSON, CSV and pictures."""

    suite: str = "a2bench-mini"
    """Which benchmark: a2bench-mini, drawn characters with a known truth."""
    model: Annotated[str, Field(min_length=1)] = "mini"
    """mini, a folder in diffusers layout, or a hub id."""
    setting: Literal["a", "b", "t", "all"] = "all"
    """a: driven by a human body's skeleton; b: by its own; t: no pose, the background moves after the text."""
    limit: Annotated[int, Field(ge=2, le=100)] = 100
    """Characters in the suite. Frechet distances compare only at equal numbers."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 8
    """Denoising steps of every video."""
    guidance_scale: Annotated[float, Field(ge=0, le=50)] = 1.0
    """How much text and pose count; 1 is off and twice as fast."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""
    output_dir: Path | None = None
    """Where table, CSV and sample sheets go; by default they are only printed."""


def run(request: EvaluateAnimationRequest, console: Console) -> Result:
    """Runs the suite and prints the table."""
    if request.suite != "a2bench-mini":
        raise RequestError(f"--suite {request.suite}: no such suite; known is a2bench-mini")
    if request.output_dir is not None and request.output_dir.is_file():
        raise RequestError(f"--output-dir {request.output_dir}: is a file; name a folder")
    from models.loading import resolve_folder
    from models.pipeline import load_pipeline
    from models.quiet import quiet_loading
    from studio.weights import choose_device, mini_folder, open_detector
    from training.metrics.a2bench import rows
    from training.metrics.judge import open_judge

    device = choose_device(request.device)
    try:
        with quiet_loading():
            pipeline = load_pipeline(resolve_folder(request.model, announce=console.note), device=device)
            # the judge is always the shipped CLIP and detector, so that models are measured alike
            judge = open_judge(mini_folder(), open_detector("mini"), device=device)
    except ValueError as error:
        raise RequestError(f"--model {request.model}: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    settings: tuple[Setting, ...] = ("b", "a", "t") if request.setting == "all" else (request.setting,)
    done, stage, total = 0, "", 0

    def start(setting: str, method: str, clips: int) -> None:
        nonlocal done, stage, total
        done, stage, total = 0, f"setting {setting}, {method}", clips

    def advance(clips: int) -> None:
        nonlocal done
        done += clips
        console.progress(Progress(stage=stage, done=done, total=total, unit="clips"))

    found: list[Row] = []
    samples: dict[str, list[tuple[str, Tensor]]] = {}
    suites: dict[str, Suite] = {}
    for row, suite, video in rows(
        pipeline, judge, settings, request.limit,
        steps=request.num_inference_steps, guidance=request.guidance_scale, on_start=start, on_clips=advance,
    ):  # fmt: skip
        found.append(row)
        suites[row.setting] = suite
        samples.setdefault(row.setting, []).append((row.method, video[:4]))
    table = "\n\n".join(markdown([r for r in found if r.setting == s]) for s in settings)
    for line in table.splitlines():
        console.say(line)
    if request.output_dir is not None:
        _write(request.output_dir, table, found, suites, samples)
    return {
        "metrics": [{"setting": r.setting, "method": r.method, "samples": r.samples, **r.metrics} for r in found],
        "suite": request.suite, "model": request.model, "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale, "output": str(request.output_dir) if request.output_dir else None,
    }  # fmt: skip


def markdown(rows: "list[Row]") -> str:
    """The table of one setting."""
    keys = [key for key in _COLUMNS if any(key in row.metrics for row in rows)]
    head = [f"setting {rows[0].setting.upper()} ({rows[0].samples} clips)", *(_COLUMNS[k][0] for k in keys)]
    lines = [" | ".join(head), " | ".join(["---"] + ["---:"] * len(keys))]
    for row in rows:
        cells = [_COLUMNS[k][1].format(row.metrics[k]) if k in row.metrics else "" for k in keys]
        lines.append(" | ".join([row.method, *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def _write(
    folder: Path,
    table: str,
    rows: "list[Row]",
    suites: "dict[str, Suite]",
    samples: "dict[str, list[tuple[str, Tensor]]]",
) -> None:
    from pose.media import to_uint8
    from studio.sheet import contact_sheet, write_png

    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    keys = [key for key in _COLUMNS if any(key in row.metrics for row in rows)]
    writer = csv.writer(text)
    writer.writerow(["setting", "method", "samples", *keys])
    writer.writerows([row.setting, row.method, row.samples, *(row.metrics.get(k, "") for k in keys)] for row in rows)
    for name, content in (("table.md", table + "\n"), ("table.csv", text.getvalue())):
        with moved_in(folder / name) as path:
            path.write_text(content, encoding="utf-8")

    for setting, methods in samples.items():
        suite = suites[setting]
        for k in range(min(4, len(suite))):
            shown = [("reference", to_uint8(suite.clips.reference[k, None])), ("truth", to_uint8(suite.clips.video[k]))]
            shown += [(name, to_uint8(video[k])) for name, video in methods if name != "reference repeated"]
            with moved_in(folder / f"setting_{setting}_{k}.png") as path:
                write_png(path, contact_sheet(shown, fps=12.0))


VERB = Verb("evaluate animation", EvaluateAnimationRequest, run)
