"""How long a fine-tuning will take and how much memory and disk it needs: by earlier runs where there are some."""

import json
import math
import shutil
import statistics
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from studio.jobs.job import tail
from studio.run_reading import EVENTS, runs_in

Basis = Literal["measured", "scaled", "rough", "unknown"]
_WARM: Final = 3
"""The first steps of a run are slower: caches fill, memory is taken."""
_BASE_BYTES: Final = 950_000_000
"""What the program itself holds, torch among it."""
_EFFICIENCY: Final = 0.25
"""Of the speed of one large matrix product, what a step comes to."""
_STATE_BYTES: Final = 16
"""Bytes a trained number: itself, its gradient and AdamW's two averages, in float32."""
_KEPT_BYTES: Final = 16
"""Bytes a trained number in a checkpoint: itself, its average, and the optimizer's two."""
_DEFAULTS: Final = {
    "model": "mini", "method": "sara", "resolution": 128, "train_batch_size": 4, "gradient_checkpointing": False,
    "gradient_accumulation_steps": 1, "num_frames": None, "weights_dtype": "fp32",
    "max_train_steps": 500, "checkpoints_total_limit": 2,
}  # fmt: skip
"""Of the settings that a forecast looks at; what a TOML file leaves out. A test compares them with the config's."""
_SAME: Final = (
    "method", "resolution", "train_batch_size", "gradient_checkpointing", "gradient_accumulation_steps", "num_frames",
    "mixed_precision", "weights_dtype",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Past:
    """What an earlier run came to on this machine."""

    name: str
    settings: Mapping[str, Any]
    seconds_per_step: float
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is to be expected."""

    seconds: float | None
    """Of all steps, without encoding the data and without samples; None where nothing is known."""
    peak_bytes: float | None
    disk_bytes: float | None
    """Of the checkpoints that are kept."""
    basis: Basis
    words: str
    """Where the figures come from."""


def past_runs(root: Path, *, most: int = 50) -> list[Past]:
    """Reads what the latest runs in a folder took, from the ends of their events."""
    found = []
    for one in runs_in(root)[:most]:
        past = _past(one.run)
        if past is not None:
            found.append(past)
    return found


def _past(run: Path) -> Past | None:
    try:
        settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8")).get("finetune")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    if not isinstance(settings, dict):
        return None
    seconds, peak = [], 0
    for line in tail(run / EVENTS).splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "step" and int(event.get("step") or 0) > _WARM:
            seconds.append(float(event.get("seconds") or 0))
            peak = max(peak, int(event.get("peak_bytes") or 0))
    if not seconds or not peak:
        return None
    return Past(name=run.name, settings={**_DEFAULTS, **settings}, seconds_per_step=statistics.median(seconds),
                peak_bytes=peak)  # fmt: skip


def forecast(
    settings: Mapping[str, Any],
    past: Iterable[Past],
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    trained: float | None = None,
    other_bytes: int = 0,
    flops: float | None = None,
) -> Forecast:
    """Forecasts a run.

    Args:
        past: runs of this machine, the latest first.
        shapes: of the network's tensors, for a rough estimate where there is no run to go by.
        trained: how many numbers will be trained.
        other_bytes: size of the model's other parts.
        flops: what the machine does in a second, see `matrix_speed`; without it no time is guessed.
    """
    wanted = {**_DEFAULTS, **settings}
    steps = int(wanted["max_train_steps"])
    disk = None if trained is None else trained * _KEPT_BYTES * int(wanted["checkpoints_total_limit"])
    near = [one for one in past if one.settings["model"] == wanted["model"]]
    same = next((one for one in near if _same(one.settings, wanted)), None)
    if same is not None:
        return Forecast(seconds=same.seconds_per_step * steps, peak_bytes=same.peak_bytes, disk_bytes=disk,
                        basis="measured", words=f"as {same.name} took, which had the same settings")  # fmt: skip
    alike = next((one for one in near if one.settings["method"] == wanted["method"]), None) or next(iter(near), None)
    if alike is not None:
        factor = _work(wanted) / _work(alike.settings)
        part = _held(wanted) / _held(alike.settings)
        peak = min(alike.peak_bytes, _BASE_BYTES) + max(0, alike.peak_bytes - _BASE_BYTES) * part
        other = "" if alike.settings["method"] == wanted["method"] else f", which was by {alike.settings['method']}"
        return Forecast(seconds=alike.seconds_per_step * factor * steps, peak_bytes=peak, disk_bytes=disk,
                        basis="scaled", words=f"from {alike.name}{other}, scaled to this size")  # fmt: skip
    if shapes is None:
        return Forecast(seconds=None, peak_bytes=None, disk_bytes=disk, basis="unknown",
                        words="the model is not on this machine yet; its first run will tell")  # fmt: skip
    return _rough(wanted, shapes, trained, other_bytes, flops, disk)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether they take as long and as much; what one leaves out goes by the machine, which is the same."""
    return all(one[name] == other[name] for name in _SAME if name in one and name in other)


def _samples_size(settings: Mapping[str, Any]) -> float:
    """Of one sample, in pictures of 16x16 px."""
    frames = settings.get("num_frames") or 1
    return (int(settings["resolution"]) / 16) ** 2 * (1 + (int(frames) - 1) / 4)


def _work(settings: Mapping[str, Any]) -> float:
    again = 4 / 3 if settings["gradient_checkpointing"] else 1.0
    return _samples_size(settings) * int(settings["train_batch_size"]) * again


def _held(settings: Mapping[str, Any]) -> float:
    """How much a step holds in memory, relative to others."""
    batch = int(settings["train_batch_size"]) / int(settings["gradient_accumulation_steps"])
    return _samples_size(settings) * max(1.0, batch) * (0.3 if settings["gradient_checkpointing"] else 1.0)


def _rough(settings: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], trained: float | None,
           other_bytes: int, flops: float | None, disk: float | None) -> Forecast:  # fmt: skip
    total = sum(math.prod(shape) for shape in shapes.values())
    tokens = _samples_size(settings) * int(settings["train_batch_size"])
    width = statistics.median([min(shape) for shape in shapes.values() if len(shape) == 2] or [256])
    number_bytes = {"fp32": 4.0, "int8": 1.1, "nf4": 0.6}.get(settings["weights_dtype"], 2.0)
    # a layer of 12 width^2 numbers keeps about 34 numbers a token and channel
    kept = 34 * 2 * _held(settings) * width * (total / (12 * width**2))
    peak = _BASE_BYTES + total * number_bytes + other_bytes + (trained or total) * _STATE_BYTES + kept
    again = 4 / 3 if settings["gradient_checkpointing"] else 1.0
    seconds = None
    if flops is not None:
        # forward 2 operations a number and token, backward twice that
        seconds = 6 * total * tokens * again / (flops * _EFFICIENCY) * int(settings["max_train_steps"])
    words = "by the model's size alone, no run of it was made here yet; it may be off by a factor of three"
    return Forecast(seconds=seconds, peak_bytes=peak, disk_bytes=disk, basis="rough", words=words)


def trained_numbers(
    method: str, options: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], *, share: float | None = None
) -> float | None:
    """About how many numbers a method trains of a network's tensors; None where only the trainer knows.

    Args:
        options: all of the method's, defaults among them.
        share: what `trainable_share` asks for.
    """
    total = sum(math.prod(shape) for shape in shapes.values())
    matrices = [(int(shape[0]), math.prod(shape[1:])) for shape in shapes.values() if len(shape) > 1]
    if share is not None:
        return share * total
    match method:
        case "full":
            return total
        case "bitfit":
            return sum(math.prod(shape) for name, shape in shapes.items() if name.endswith(".bias"))
        case "lora" | "dora":
            return sum(int(options["rank"]) * (rows + columns) for rows, columns in matrices)
        case "paca":
            return sum(min(int(options["rank"]), columns) * rows for rows, columns in matrices)
        case "svdiff":
            return sum(min(pair) for pair in matrices)
    fraction = options.get("fraction")
    return None if fraction is None else float(fraction) * total


def matrix_speed() -> float:
    """Floating-point operations a second of one large matrix product on this machine's CPU; takes a moment."""
    import numpy as np

    side = 768
    left = np.ones((side, side), np.float32)
    best = math.inf
    for _ in range(3):
        begun = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def free_bytes(folder: Path) -> int:
    """Room on the disk that a folder is on, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def shown_time(seconds: float) -> str:
    """In words that do not promise more than is known: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def shown_bytes(count: float) -> str:
    """800 kB, 12 MB, 1.4 GB."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count / 1e3:.0f} kB"
