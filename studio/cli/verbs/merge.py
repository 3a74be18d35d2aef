"""`studio merge`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.files import check_output
from studio.progress import Progress
from studio.requests import Positional, Request

if TYPE_CHECKING:
    from training.exporting import Base
    from training.merging import MergeOptions
    from training.methods.adapter import Adapter
    from training.methods.changes import Change


class MergeRequest(Request):
    """Joins adapters of the same model into one file; FILE:WEIGHT multiplies one by a number."""

    adapters: Annotated[tuple[str, ...], Positional(), Field(min_length=1)]
    """Adapter files, or the folders of runs."""
    rule: Literal["soup", "greedy", "linear", "ties", "dare", "pcb"] = "soup"
    """soup: the mean; greedy: the mean of those that help on --train-data-dir; linear: the weighted sum; ties: those
    that agree in sign; dare: drops at random first; pcb: by competition within and between adapters."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.5
    """ties, dare: share of each adapter's own numbers that is kept."""
    election: Literal["total", "frequency"] = "total"
    """ties: the sign with the larger sum wins, or that of more adapters."""
    then: Literal["linear", "ties"] = "linear"
    """dare: what follows the dropping."""
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    """pcb: share of each adapter's numbers that wins the competition."""
    per_tensor: bool = False
    """ties, pcb: ranks the numbers of every tensor apart, as PEFT does; else of all together, as the papers do."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """dare: which numbers are dropped; greedy: the noise of the measurement."""
    train_data_dir: Path | None = None
    """greedy: pictures with captions on which a mean is measured."""
    resolution: Annotated[int, Field(ge=32, le=4096, multiple_of=16)] = 128
    """greedy: pictures are scaled to the area of a square of this side."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """Where the model is that they were trained on; by default where it was then."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Values in the file; bf16 loses a 256th of a change at most."""
    output: Path
    """The adapter file to write."""


def run(request: MergeRequest, console: Console) -> Result:
    """Joins, writes and reads back."""
    from studio.adapters import find_adapter, split_scale
    from training.exporting import open_base
    from training.merging import MergeOptions
    from training.merging.join import check_bases
    from training.methods.adapter import load_adapter

    check_output(request.output, suffixes=(".safetensors",))
    if request.output.exists():
        raise RequestError(f"--output {request.output}: is there already; name another file or delete it")
    pairs = [split_scale(find_adapter(text, "ADAPTERS"), "ADAPTERS") for text in request.adapters]
    files, weights = [file for file, _ in pairs], [weight for _, weight in pairs]
    _check(request, files, weights)
    sources = {file: load_adapter(file) for file in files}
    check_bases({str(file): adapter for file, adapter in sources.items()})
    base = open_base(next(iter(sources.values())), request.model)
    options = MergeOptions(
        rule=request.rule, density=request.density, election=request.election, then=request.then, ratio=request.ratio,
        per_tensor=request.per_tensor, seed=request.seed,
    )  # fmt: skip
    parts = {file: base.changes(adapter) for file, adapter in sources.items()}
    scores: dict[str, float] = {}
    if request.rule == "greedy":
        parts, scores = _greedy(request, base, parts, console)
    return _write(request, console, base, parts, {f: sources[f] for f in parts}, weights, options, scores)


def _check(request: MergeRequest, files: list[Path], weights: list[float]) -> None:
    if len(files) < 2:
        raise RequestError(f"ADAPTERS: merging takes two adapters or more, got {files[0]} alone")
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise RequestError(f"ADAPTERS: {twice} is there twice; give each once, with a weight if it should count more")
    if request.rule in ("soup", "greedy") and any(weight != 1 for weight in weights):
        raise RequestError(f"--rule {request.rule} takes the plain mean and no weights; use --rule linear for them")
    if request.rule == "greedy" and request.train_data_dir is None:
        raise RequestError("--rule greedy measures what helps: name a folder of pictures with --train-data-dir")
    if request.rule != "greedy" and request.train_data_dir is not None:
        raise RequestError(f"--train-data-dir is for --rule greedy; --rule {request.rule} measures nothing")


def _greedy(
    request: MergeRequest, base: "Base", parts: "dict[Path, dict[str, Change]]", console: Console
) -> "tuple[dict[Path, dict[str, Change]], dict[str, float]]":
    """The adapters whose mean is best, and the loss of each alone."""
    from training.merging.greedy import greedy
    from training.merging.score import Scorer

    assert request.train_data_dir is not None
    scorer = Scorer(base, request.train_data_dir, resolution=request.resolution, seed=request.seed)
    told = 0

    def score(changes: "dict[str, Change]") -> float:
        nonlocal told
        loss = scorer(changes)
        told += 1
        console.progress(Progress(stage="measuring", done=told, total=2 * len(parts) - 1, unit="mixtures"))
        return loss

    chosen, losses, last = greedy({str(file): changes for file, changes in parts.items()}, score)
    for name, loss in losses.items():
        console.say(f"{name}: loss {loss:.6g}{'' if name in chosen else ', left out'}")
    console.say(f"their mean: loss {last:.6g}; the model without adapter: {scorer({}):.6g}")
    return {file: changes for file, changes in parts.items() if str(file) in chosen}, losses


def _write(
    request: MergeRequest,
    console: Console,
    base: "Base",
    parts: "dict[Path, dict[str, Change]]",
    sources: "dict[Path, Adapter]",
    weights: list[float],
    options: "MergeOptions",
    scores: dict[str, float],
) -> Result:
    from training.exporting.factors import relative_error
    from training.merging import join, save_merged
    from training.methods.adapter import load_adapter

    used = [1.0] * len(parts) if request.rule in ("soup", "greedy") else weights
    merged = next(iter(parts.values())) if len(parts) == 1 else join(list(parts.values()), used, options)
    request.output.parent.mkdir(parents=True, exist_ok=True)
    save_merged(request.output, merged, sources, used, options, base.sizes, dtype=request.dtype)
    read = base.changes(load_adapter(request.output))
    error = max(relative_error(read[name].dense(), change.dense()) for name, change in merged.items())
    count, size = sum(len(change.values) for change in merged.values()), request.output.stat().st_size
    limit = 1 / 256 if request.dtype == "bf16" else 1e-6
    if not error <= limit:
        request.output.unlink()
        raise ArithmeticError(f"{request.output} reads back with an error of {error:.1e}, limit {limit:.1e}; removed")
    console.say(
        f"{request.output}: {request.rule} of {len(parts)} adapters, {count:,} numbers in {len(merged)} tensors, "
        f"{size:,} bytes, relative error {error:.1e}"
    )
    return {"output": str(request.output), "max_error": error, "rule": request.rule, "merged": [str(f) for f in parts],
            "weights": used, "losses": scores, "numbers": count, "bytes": size}  # fmt: skip


VERB = Verb("merge", MergeRequest, run)
