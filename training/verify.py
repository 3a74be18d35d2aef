"""Proof that a run goes on bit for bit: N steps in one go against K steps, a new start, and the rest."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from training.checkpoint import load_checkpoint
from training.events import Event, Step
from training.going import Batch, OnBatch


@runtime_checkable
class Start(Protocol):
    """Starts or resumes a run in a folder."""

    def __call__(self, run: Path, *, resume: bool, on_batch: OnBatch) -> Iterator[Event]:
        """Its events."""
        ...


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a comparison."""

    steps: int
    stopped_at: int
    compared: dict[str, int]
    """How many numbers of each kind were compared."""
    differences: tuple[str, ...]
    """In words, the first ones first; none when all is identical."""

    @property
    def identical(self) -> bool:
        """Whether all bits are."""
        return not self.differences


def verify_resume(
    start: Start, folder: Path, steps: int, *, on_step: Callable[[int, int], None] = lambda done, total: None
) -> Verdict:
    """Runs `steps` steps twice, once with a stop in the middle, and compares every step and the last checkpoints.

    The second half is a new run from what is on disk: model, data, tuner and optimizer are made anew.

    Args:
        folder: where both runs may write; for the caller to remove.
        on_step: hears how many steps are done, of how many.
    """
    stopped_at = max(1, steps // 2)
    total = 2 * steps
    straight, bent = folder / "straight", folder / "bent"
    one, two = _Seen(), _Seen()
    _run(start, straight, steps, one, lambda done: on_step(done, total))
    _run(start, bent, stopped_at, two, lambda done: on_step(steps + done, total))
    _run(start, bent, steps, two, lambda done: on_step(steps + done, total), resume=True)
    differences = list(_steps_differ(one, two))
    compared = {"steps": len(one.steps), "batches": len(one.batches)}
    names = (straight / f"checkpoint-{steps}", bent / f"checkpoint-{steps}")
    (first, state), (second, other) = (load_checkpoint(path) for path in names)
    for kind in sorted(first.keys() | second.keys()):
        differences += _tensors_differ(kind, first.get(kind, {}), second.get(kind, {}))
        compared[kind] = sum(value.numel() for value in first.get(kind, {}).values())
    for key in sorted(state.keys() | other.keys()):
        if state.get(key) != other.get(key):
            differences.append(f"{key} of the checkpoint: {state.get(key)!r} and {other.get(key)!r}")
    return Verdict(steps=steps, stopped_at=stopped_at, compared=compared, differences=tuple(differences))


class _Seen:
    """What the steps of a run were made of."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.batches: list[tuple[int, str, str]] = []

    def on_batch(self, step: int, batch: Batch, generator: torch.Generator) -> None:
        """Remembers a batch and where its generator is, by hash."""
        self.batches.append((step, _digest(batch), _digest(generator.get_state())))


def _run(
    start: Start, run: Path, steps: int, seen: _Seen, on_step: Callable[[int], None], *, resume: bool = False
) -> None:
    """Goes up to a step and closes the run there, as Ctrl-C does."""
    events = start(run, resume=resume, on_batch=seen.on_batch)
    for event in events:
        if isinstance(event, Step):
            seen.steps.append(event)
            on_step(event.step)
            if event.step == steps:
                break
    close = getattr(events, "close", None)
    if close is not None:
        close()


def _steps_differ(one: _Seen, two: _Seen) -> Iterator[str]:
    """Where the steps of two runs part: data, random numbers, schedule, losses."""
    for (step, data, drawn), (other, other_data, other_drawn) in zip(one.batches, two.batches, strict=False):
        if step != other or data != other_data:
            yield f"data of step {step + 1}: another batch"
        elif drawn != other_drawn:
            yield f"random numbers of step {step + 1}: the generator is elsewhere"
    for a, b in zip(one.steps, two.steps, strict=False):
        if a.learning_rate != b.learning_rate:
            yield f"learning rate of step {a.step}: {a.learning_rate!r} and {b.learning_rate!r}"
        if a.task != b.task:
            yield f"task of step {a.step}: {a.task} and {b.task}"
        for name in a.losses.keys() | b.losses.keys():
            if a.losses.get(name) != b.losses.get(name):
                yield f"{name} of step {a.step}: {a.losses.get(name)!r} and {b.losses.get(name)!r}"
    for what, first, second in (("steps", one.steps, two.steps), ("batches", one.batches, two.batches)):
        if len(first) != len(second):
            yield f"{what}: {len(first)} and {len(second)}"


def _tensors_differ(kind: str, one: dict[str, Tensor], two: dict[str, Tensor]) -> Iterator[str]:
    """Where the tensors of two checkpoints differ."""
    for name in sorted(one.keys() ^ two.keys()):
        yield f"{kind} {name}: only in one of the two"
    for name in sorted(one.keys() & two.keys()):
        a, b = one[name], two[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{kind} {name}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
        elif not torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)):
            yield f"{kind} {name}: {int((a != b).sum())} of {a.numel()} numbers differ"


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """The bytes of all that a batch holds, in order."""
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key).encode()
            yield from _parts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from _parts(getattr(value, entry.name))
    else:
        yield repr(value).encode()
