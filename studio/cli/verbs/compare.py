"""`studio compare`."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.files import moved_in
from studio.progress import Progress
from studio.requests import Device, Positional, Request, make_request

if TYPE_CHECKING:
    from studio.comparison import Row


class CompareRequest(Request):
    """Trains the same data, seed and steps by several methods and puts them side by side: table, CSV, plot, samples.

    Each run is a process and a folder of its own. What is there already is not trained again, so an interrupted
    comparison goes on with the same command.
    """

    config: Annotated[Path, Positional()]
    """The TOML file of a fine-tuning run; its method does not count."""
    methods: Annotated[str, Field(min_length=1)] = "full,lora,sara"
    """Methods with commas between, or all; NAME@RATE takes this learning rate instead of the method's own."""
    trainable_shares: Annotated[str, Field(min_length=1)] | None = None
    """Shares of the network to train, such as 0.005,0.02: every method that has a size is trained at each."""
    learning_rates: Annotated[str, Field(min_length=1)] | None = None
    """Tries these on every method that has no rate in --methods, and takes that of the lowest loss on fixed noise."""
    samples: Annotated[int, Field(ge=4, le=100_000)] = 32
    """Pictures that each of them generates to be scored."""
    features: Annotated[str, Field(min_length=1)] | None = None
    """Where pictures are compared, see `studio evaluate quality`."""
    output_dir: Path = Path("runs/comparison")
    """Where runs, table, plot and samples go."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


def run(request: CompareRequest, console: Console) -> Result:
    """Trains, scores and writes."""
    from studio.comparison import Comparison, Variant, numbers, parse_methods
    from training.finetune.config import FinetuneConfig, named_from_anywhere, read_config
    from training.methods import METHODS
    from training.metrics.features import check_features, default_features

    if not request.config.is_file():
        raise RequestError(f"CONFIG {request.config}: no such file")
    if request.output_dir.is_file():
        raise RequestError(f"--output-dir {request.output_dir}: is a file; name a folder")
    values = named_from_anywhere(read_config(request.config), Path.cwd())
    make_request(FinetuneConfig, values)
    _check_same(request.output_dir, values, request.config.parent)
    methods = parse_methods(request.methods, list(METHODS))
    shares = numbers("--trainable-shares", request.trainable_shares) if request.trainable_shares else []
    rates = numbers("--learning-rates", request.learning_rates) if request.learning_rates else []
    features = request.features or default_features()
    check_features(features)  # a wrong name is told before anything is trained

    def told(name: str, share: float) -> None:
        console.progress(Progress(stage=name, done=round(100 * share), total=100, unit="%"))

    comparison = Comparison(
        values, request.output_dir, device=request.device,
        score=["--samples", str(request.samples), "--features", features], on_progress=told,
    )  # fmt: skip
    sized = {name: shares if METHODS[name].sized_by is not None and shares else [None] for name, _ in methods}
    tried = [name for name, rate in methods if rate is None and rates]
    comparison.total = sum(map(len, sized.values())) + len(tried) * len(rates)
    rows = []
    for name, rate in methods:
        if name in tried:
            rate = comparison.best_rate(name, sized[name][len(sized[name]) // 2], rates)
            console.say(f"{name}: learning rate {rate:g}")
        for share in sized[name]:
            rows.append(comparison.scored(Variant(method=name, share=share, rate=rate)))
            _say(rows[-1], console)
    table = markdown(rows)
    for line in table.splitlines():
        console.say(line)
    _write(request.output_dir, rows, table)
    broken = [row for row in rows if row.error]
    if broken and len(broken) == len(rows):
        raise RuntimeError(f"every method failed; the first: {broken[0].error}")
    return {
        "rows": [asdict(row) for row in rows], "failed": len(broken), "output": str(request.output_dir),
        "table": str(request.output_dir / "table.md"), "plot": str(request.output_dir / "plot.png"),
    }  # fmt: skip


def _check_same(folder: Path, values: dict[str, Any], place: Path) -> None:
    """A folder is of one comparison: results of other data or steps must not stand in its table."""
    from training.finetune.config import named_from_anywhere

    path = folder / "comparison.json"
    now = json.loads(json.dumps(values, sort_keys=True, default=str))
    if path.is_file():
        then = named_from_anywhere(json.loads(path.read_text(encoding="utf-8")), place)
        for key in sorted({*then, *now}):
            if then.get(key) != now.get(key):
                raise RequestError(
                    f"--output-dir {folder}: holds a comparison with {key} = {then.get(key)!r}, now it is "
                    f"{values.get(key)!r}; name another folder"
                )
    folder.mkdir(parents=True, exist_ok=True)
    with moved_in(path) as staged:
        staged.write_text(json.dumps(now), encoding="utf-8")


def _say(row: "Row", console: Console) -> None:
    if row.error:
        console.note(f"{row.method}: {row.error}")
    else:
        console.say(f"{Path(row.run).name}: loss {row.loss:.4g}")


_COLUMNS = {
    "trainable_parameters": ("trained", "{:,}"), "learning_rate": ("rate", "{:.2g}"), "loss": ("loss", "{:.4f}"),
    "kd": ("KD", "{:.4f}"), "identity": ("identity", "{:.3f}"), "retrieval": ("retrieval", "{:.2f}"),
    "coverage": ("coverage", "{:.2f}"), "drift": ("drift", "{:.3f}"), "nearest": ("nearest", "{:.3f}"),
    "seconds_per_step": ("s/step", "{:.3f}"),
    "peak_memory_bytes": ("peak MiB", "{:.0f}"), "adapter_bytes": ("adapter kB", "{:,.0f}"),
}  # fmt: skip
_UNITS = {"peak_memory_bytes": 2**20, "adapter_bytes": 1000}


def markdown(rows: "list[Row]") -> str:
    """The table."""
    cells = [{**asdict(row), **row.scores} for row in rows]
    keys = [key for key in _COLUMNS if any(cell.get(key) is not None for cell in cells)]
    lines = [["method", *(_COLUMNS[k][0] for k in keys)], ["---", *["---:"] * len(keys)]]
    for row, cell in zip(rows, cells, strict=True):
        worded = [
            "" if cell.get(k) is None else _COLUMNS[k][1].format(cell[k] / _UNITS.get(k, 1) if k in _UNITS else cell[k])
            for k in keys
        ]
        lines.append([row.method + (" (failed)" if row.error else ""), *worded])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _write(folder: Path, rows: "list[Row]", table: str) -> None:
    from studio.plots import quality_plot

    text = io.StringIO()
    flat = [{**{k: v for k, v in asdict(row).items() if k != "scores"}, **row.scores} for row in rows]
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows(flat)
    for name, content in (("table.md", table + "\n"), ("table.csv", text.getvalue())):
        with moved_in(folder / name) as path:
            path.write_text(content, encoding="utf-8")
    with moved_in(folder / "plot.png") as path:
        quality_plot([row for row in rows if row.error is None], path)


VERB = Verb("compare", CompareRequest, run)
