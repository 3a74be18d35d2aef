"""`studio evaluate quality`."""

import json
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

    Writes scores.json and scores.png (real pictures, samples, and unrelated prompts before and after) into the run.
    """

    run: Annotated[Path, Positional()]
    """The run folder."""
    samples: Annotated[int, Field(ge=4, le=100_000)] = 32
    """Pictures that are generated of its captions, and a fourth as many of unrelated prompts, twice."""
    features: Annotated[str, Field(min_length=1)] | None = None
    """Where pictures are compared: efficientnet-lite0 where it is installed (pip extra `features`), else mini-clip."""
    drift_prompt: tuple[str, ...] = ()
    """An unrelated prompt; repeat it for several. By default some of the model's own world."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


def run(request: EvaluateQualityRequest, console: Console) -> Result:
    """Scores the run and prints the numbers."""
    from studio.weights import choose_device, mini_folder
    from training.finetune.scores import score_run
    from training.metrics.features import default_features, open_features

    device = choose_device(request.device)
    features = open_features(request.features or default_features(), mini_folder(), device=device)

    def told(done: int, total: int) -> None:
        console.progress(Progress(stage="generating", done=done, total=total, unit="pictures"))

    scored = score_run(
        request.run, features, samples=request.samples, drift_prompts=request.drift_prompt, device=device,
        on_sample=told,
    )  # fmt: skip
    rows = [{"name": s.name, "features": s.features, "samples": s.samples, "value": s.value} for s in scored.scores]
    for score in scored.scores:
        console.say(f"{score.name:<18}{score.value:9.4f}   {score.features}, {score.samples} samples")
    with moved_in(request.run / SCORES) as path:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    _write_sheet(request.run / "scores.png", scored)
    return {"metrics": rows, "run": str(request.run), "sheet": str(request.run / "scores.png")}


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
