"""A run's folder as a page shows it: series from events.jsonl, read on each time, samples and checkpoints."""

import json
import math
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from studio.jobs import Job
from studio.jobs.kinds import value_of

EVENTS: Final = "events.jsonl"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")
_SAMPLE: Final = re.compile(r"step-(\d+)\.png")
_GUARD: Final = re.compile(r"guard-step-(\d+)\.png")
_CHUNK: Final = 8 << 20


@dataclass
class RunLog:
    """What a run has told so far. `read` takes what came since; a step that was made again counts once."""

    run: Path
    total_steps: int = 0
    steps: list[int] = field(default_factory=list)
    losses: dict[str, list[float | None]] = field(default_factory=dict)
    """By name, one a step; None where the step has none of that name, or one that is not finite."""
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    evaluated: dict[int, dict[str, float]] = field(default_factory=dict)
    """Metrics by step."""
    guarded: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The guard's looks by step."""
    sampled: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Prompts by step."""
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    finished: dict[str, Any] = field(default_factory=dict)
    """The last end that it came to; empty while it goes on."""
    _at: int = 0

    @property
    def step(self) -> int:
        """The last step that was made."""
        return self.steps[-1] if self.steps else 0

    def read(self) -> "RunLog":
        """Reads what was written since, whole lines only; from the beginning where the file is another one."""
        try:
            with (self.run / EVENTS).open("rb") as file:
                if file.seek(0, 2) < self._at:
                    self._forget()
                file.seek(self._at)
                rest = b""
                while chunk := file.read(_CHUNK):
                    whole, newline, rest = (rest + chunk).rpartition(b"\n")
                    self._at += len(whole) + len(newline)
                    for line in whole.splitlines():
                        self._take(line)
        except OSError:
            pass  # it has not begun
        return self

    def _forget(self) -> None:
        self.__init__(self.run)  # type: ignore[misc]

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            step = int(event["step"])
        except (ValueError, KeyError, TypeError):
            return  # a line of a newer version, or a torn one
        if not isinstance(event, dict):
            return
        match event.get("event"):
            case "step":
                self._take_step(step, event)
            case "evaluated":
                self.evaluated[step] = {k: v for k, v in event["metrics"].items() if _is_number(v)}
            case "guarded":
                self.guarded[step] = event
            case "sampled":
                self.sampled[step] = tuple(map(str, event.get("prompts", ())))
            case "note":
                self._note(str(event.get("text", "")))
                self.counts |= {k: v for k, v in event.get("counts", {}).items() if _is_number(v)}
            case "out_of_memory":
                self._note(f"step {step}: out of memory; {event.get('remedy', '')}")
            case "skipped":
                self._note(f"step {step} skipped: its gradient was infinite")
            case "finished":
                self.finished = event

    def _take_step(self, step: int, event: Mapping[str, Any]) -> None:
        if self.steps and step <= self.steps[-1]:
            # a run that was killed went on from a checkpoint before
            keep = bisect_left(self.steps, step)
            del self.steps[keep:], self.rates[keep:], self.seconds[keep:]
            for series in self.losses.values():
                del series[keep:]
        self.finished = {}
        self.total_steps = int(event.get("total_steps") or self.total_steps)
        losses = {name: value if _is_number(value) else None for name, value in (event.get("losses") or {}).items()}
        for name in losses.keys() - self.losses.keys():
            self.losses[name] = [None] * len(self.steps)
        for name, values in self.losses.items():
            values.append(losses.get(name))
        self.steps.append(step)
        self.rates.append(float(event.get("learning_rate") or 0.0))
        self.seconds.append(float(event.get("seconds") or 0.0))
        self.peak_bytes = max(self.peak_bytes, int(event.get("peak_bytes") or 0))

    def _note(self, text: str) -> None:
        if text and text not in self.notes and len(self.notes) < 200:
            self.notes.append(text)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def smooth(values: Sequence[float | None], weight: float) -> list[float | None]:
    """An exponential average, corrected for its beginning: the first value is itself, gaps stay gaps.

    Args:
        weight: of what came before, 0 (nothing is smoothed) up to but not 1.
    """
    average, norm = 0.0, 0.0
    found: list[float | None] = []
    for value in values:
        if value is None:
            found.append(None)
            continue
        average = weight * average + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        found.append(average / norm)
    return found


def thinned(count: int, most: int) -> list[int]:
    """Places out of a series of `count`, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on the disk."""

    step: int
    path: Path
    bytes: int
    is_latest: bool


def checkpoints(run: Path) -> list[Checkpoint]:
    """The checkpoints of a run, the newest first."""
    try:
        latest = (run / "latest").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        latest = ""
    found = []
    for path, step in _numbered(run, _CHECKPOINT):
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        found.append(Checkpoint(step=step, path=path, bytes=size, is_latest=path.name == latest))
    return found[::-1]


def checkpoint_adapter(run: Path, step: int) -> Path:
    """Where the pages keep the adapter of a checkpoint."""
    return run / "exports" / f"step-{step}.safetensors"


def samples(run: Path) -> dict[int, Path]:
    """Pictures of samples by step."""
    return {step: path for path, step in _numbered(run / "samples", _SAMPLE)}


def guard_pictures(run: Path) -> dict[int, Path]:
    """Pictures of the nearest pairs by step."""
    return {step: path for path, step in _numbered(run / "samples", _GUARD)}


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, int]]:
    try:
        found = [(path, int(match[1])) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    except OSError:
        return []
    return sorted(found, key=lambda pair: pair[1])


def settings_of_run(run: Path) -> dict[str, Any] | None:
    """The settings in a run's folder; None where it is no fine-tuning run."""
    try:
        values = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    found = values.get("finetune")
    return found if isinstance(found, dict) else None


def run_of(job: Job) -> Path | None:
    """The run folder that a job trains, or looks at; None where it has none."""
    told = job.result.get("run")
    if isinstance(told, str) and told:
        return job.directory / told
    match job.words:
        case ("train", *_):
            made = value_of(job.words, "--output-dir")
            return None if made is None else job.directory / made
        case ("resume", run, *_) | ("evaluate", "memorization" | "quality", run, *_) if not run.startswith("-"):
            return job.directory / run
    return None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A run folder."""

    run: Path
    changed: float
    """Seconds since 1970 when it last told something."""


def runs_in(root: Path, *, known: Callable[[Path], bool] = lambda _: False) -> list[Found]:
    """Run folders right in a folder, the latest first; also those that were started in a terminal.

    Args:
        known: those that need not be listed.
    """
    found = []
    try:
        folders = [path for path in root.iterdir() if path.is_dir()]
    except OSError:
        return []
    for run in folders:
        try:
            changed = (run / EVENTS).stat().st_mtime
        except OSError:
            continue
        if not known(run):
            found.append(Found(run=run, changed=changed))
    return sorted(found, key=lambda one: one.changed, reverse=True)


def memorization_report(run: Path) -> dict[str, Any] | None:
    """What `studio evaluate memorization` wrote into a run; None where it did not."""
    try:
        found = json.loads((run / "memorization" / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
