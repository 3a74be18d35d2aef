"""Trains the same data, seed and steps by several methods, one process each, and puts the results side by side."""

import json
import statistics
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from studio.child import Child
from studio.cli.verbs.quality import SCORES
from studio.errors import RequestError, did_you_mean
from studio.files import moved_in
from training.toml import dump_toml

LOSSES: Final = ("validation_loss", "loss_at_fixed_noise")
"""What a run measures at its end, the better one first."""
OnProgress = Callable[[str, float], None]
"""Told what is done and how far (0..1) it is."""

SCORED_BY = "scored_by.json"
"""In a run: what it was scored with, so that it is scored again with anything else."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of training."""

    method: str
    share: float | None
    """Share of the network that is trained; None for a method without a size, or as the config says."""
    rate: float | None
    """Learning rate; None for the method's own."""

    @property
    def name(self) -> str:
        """Names its folder."""
        parts = [self.method]
        parts += [f"{self.share:g}"] if self.share is not None else []
        parts += [f"lr{self.rate:g}"] if self.rate is not None else []
        return "-".join(parts)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of a variant."""

    method: str
    trainable_share: float | None
    trainable_parameters: int | None = None
    learning_rate: float | None = None
    loss: float | None = None
    """On fixed noise: of held-out pictures where there are some."""
    scores: dict[str, float] = field(default_factory=dict)
    seconds_per_step: float | None = None
    """The median."""
    peak_memory_bytes: int | None = None
    """Of the whole process."""
    adapter_bytes: int | None = None
    run: str = ""
    error: str | None = None


def parse_methods(text: str, known: Sequence[str]) -> list[tuple[str, float | None]]:
    """Reads "lora@1e-3,sara": names with the learning rate that each takes, if not its own.

    Raises:
        RequestError: a name is unknown or twice there, or a rate is no number above 0.
    """
    found: list[tuple[str, float | None]] = []
    for word in known if text == "all" else [w.strip() for w in text.split(",") if w.strip()]:
        name, at, rate = word.partition("@")
        if name not in known:
            raise RequestError(
                f"--methods {name}: no such method{did_you_mean(name, known)}; known are all, {', '.join(known)}"
            )
        found.append((name, numbers(f"--methods {word}", rate)[0] if at else None))
    if not found:
        raise RequestError(f"--methods {text!r}: names no method; give some of {', '.join(known)}, or all")
    if len({name for name, _ in found}) < len(found):
        raise RequestError(f"--methods {text}: names a method twice")
    return found


def numbers(flag: str, text: str) -> list[float]:
    """Reads numbers above 0, with commas between.

    Raises:
        RequestError: one is not.
    """
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise RequestError(f"{flag} {text}: must be numbers above 0 with commas between, such as 0.005,0.02")
    return found


class Comparison:
    """Runs variants in a folder. What is there already is not done again, so it goes on where it was stopped."""

    def __init__(
        self, values: Mapping[str, Any], folder: Path, *, device: str, score: Sequence[str], on_progress: OnProgress
    ) -> None:
        """`values` are the config's; `score` the words of `studio evaluate quality` beside the run."""
        self._values, self._folder, self._device, self._score = values, folder, device, score
        self._on_progress = on_progress
        self.done, self.total = 0, 0

    def best_rate(self, method: str, share: float | None, rates: Sequence[float]) -> float:
        """Trains with every rate and returns that of the lowest loss on fixed noise.

        Raises:
            RequestError: it failed with all of them.
        """
        rows = [self.train(Variant(method=method, share=share, rate=rate)) for rate in rates]
        losses = {rate: row.loss for rate, row in zip(rates, rows, strict=True) if row.loss is not None}
        if not losses:
            raise RequestError(f"{method} failed with every learning rate: {rows[0].error}")
        return min(losses, key=lambda rate: losses[rate])

    def train(self, variant: Variant) -> Row:
        """Trains a variant, or reads what came of it; what it does not say is None."""
        run = self._folder / variant.name
        result = run / "result.json"
        self.done += 1
        if not result.is_file():
            begun = any(run.glob("checkpoint-*"))
            config = self._config_of(variant)
            words = ["resume", str(run)] if begun else ["train", str(config), "--output-dir", str(run)]
            found = self._do(words, run, "training")
            if "error" in found:
                return Row(
                    method=variant.method, trainable_share=self._share_of(variant), learning_rate=variant.rate,
                    run=str(run), error=found["error"],
                )  # fmt: skip
            with moved_in(result) as staged:
                staged.write_text(json.dumps(found), encoding="utf-8")
        return self._row(variant, run, json.loads(result.read_text(encoding="utf-8")))

    def scored(self, variant: Variant) -> Row:
        """Trains a variant and scores what it makes."""
        row = self.train(variant)
        run = self._folder / variant.name
        if row.error is not None:
            return row
        if not (run / SCORES).is_file() or self._scored_by(run) != list(self._score):
            found = self._do(["evaluate", "quality", str(run), *self._score], run, "scoring")
            if "error" in found:
                return replace(row, error=found["error"])
            with moved_in(run / SCORED_BY) as path:
                path.write_text(json.dumps(list(self._score)), encoding="utf-8")
        scores: dict[str, float] = {}
        for score in json.loads((run / SCORES).read_text(encoding="utf-8")):
            # a run that was scored in several spaces by hand stands in the table by the first
            scores.setdefault(score["name"], score["value"])
        return replace(row, scores=scores)

    def _scored_by(self, run: Path) -> object:
        path = run / SCORED_BY
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _config_of(self, variant: Variant) -> Path:
        """Writes what `studio train` is told; the options of the config belong to its own method."""
        values = dict(self._values)
        values["method"], values["trainable_share"] = variant.method, self._share_of(variant)
        if variant.method != self._values.get("method", "sara"):
            values["method_options"] = {}
        if variant.rate is not None:
            values["learning_rate"] = variant.rate
        path = self._folder / f"{variant.name}.toml"
        with moved_in(path) as staged:
            staged.write_text(dump_toml({"finetune": values}), encoding="utf-8")
        return path

    def _share_of(self, variant: Variant) -> float | None:
        """The variant's share, else the config's; None for a method without a size."""
        from training.methods import METHODS

        if METHODS[variant.method].sized_by is None:
            return None
        share: float | None = self._values.get("trainable_share")
        return share if variant.share is None else variant.share

    def _do(self, words: Sequence[str], run: Path, what: str) -> dict[str, Any]:
        folder = self._folder / "jobs" / f"{run.name}-{what}"
        folder.mkdir(parents=True, exist_ok=True)
        child = Child([*words, "--device", self._device], folder)
        name = f"{run.name} ({self.done} of {self.total}), {what}"
        try:
            while not child.wait(1.0):
                self._on_progress(name, child.progress().share)
        except KeyboardInterrupt:
            child.interrupt()
            child.wait(120)
            raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
        return child.result()

    def _row(self, variant: Variant, run: Path, result: dict[str, Any]) -> Row:
        events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
        steps = [event for event in events if event["event"] == "step"]
        metrics = result.get("metrics") or {}
        settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))["finetune"]
        return Row(
            method=variant.method, trainable_share=settings.get("trainable_share"),
            trainable_parameters=result.get("trainable_parameters"),
            learning_rate=max(event["learning_rate"] for event in steps),
            loss=next((metrics[name] for name in LOSSES if name in metrics), None),
            seconds_per_step=statistics.median(event["seconds"] for event in steps),
            peak_memory_bytes=result.get("peak_memory_bytes"),
            adapter_bytes=Path(result["adapter"]).stat().st_size if result.get("adapter") else None, run=str(run),
        )  # fmt: skip
