"""What a training run says of itself, one event at a time."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a run; `as_dict` is one line of `events.jsonl`."""

    kind: ClassVar[str]
    step: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a number that is not finite becomes None, since JSON has no NaN."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: plain(v) for k, v in value.items()}
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {"event": self.kind, **{k: plain(v) for k, v in asdict(self).items()}}


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    """One optimizer step was made."""

    kind = "step"
    total_steps: int
    task: str
    """The task that the batch was of."""
    losses: dict[str, float]
    learning_rate: float
    seconds: float
    """Of this step, data included."""
    peak_bytes: int
    """The most memory that the process has held so far."""


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """Something that the user should know of the run."""

    kind = "note"
    text: str
    counts: dict[str, int] = field(default_factory=dict)
    """Numbers in it, by name."""


@dataclass(frozen=True, kw_only=True)
class Skipped(Event):
    """A step's gradient was infinite in half precision: the weights stay, and the loss is scaled less from now on."""

    kind = "skipped"
    scale: float
    """What the loss is multiplied by from now on."""
    skipped: int
    """How many steps of the run were skipped so far."""


@dataclass(frozen=True, kw_only=True)
class OutOfMemory(Event):
    """Memory ran out in a step, which is made again, the same, with less."""

    kind = "out_of_memory"
    error: str
    """What the allocator said."""
    remedy: str
    """What is done about it from now on."""


@dataclass(frozen=True, kw_only=True)
class Sampled(Event):
    """A picture of samples was made with the averaged weights."""

    kind = "sampled"
    path: str
    prompts: tuple[str, ...]
    """From left to right."""


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """The averaged weights were measured on held-out data."""

    kind = "evaluated"
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Guarded(Event):
    """The averaged weights were looked at for copies of what they were trained on."""

    kind = "guarded"
    features: str
    """The space in which pictures were compared."""
    samples: int
    """How many pictures were made."""
    copy_rate: float
    """The share of them that is nearer to a trained picture than nearly all held-out ones are."""
    low: float
    high: float
    """Its 95 % interval."""
    background: float
    background_high: float
    """What it is without copying, and the end of that one's 95 % interval."""
    loss_gap: float
    """Loss of held-out pictures less that of trained ones, at the same noise."""
    action: str
    """What comes of it: none, warn, lower-rate or stop."""
    path: str
    """A picture of the nearest pairs."""

    def worded(self) -> str:
        """For people, in one line."""
        return (
            f"copy rate {self.copy_rate:.1%} ({self.low:.1%} to {self.high:.1%}; without copying "
            f"{self.background:.1%}, {self.background_high:.1%} at most) of {self.samples} samples by {self.features}, "
            f"loss gap {self.loss_gap:.3g}"
        )


@dataclass(frozen=True, kw_only=True)
class Saved(Event):
    """A whole checkpoint is on disk."""

    kind = "saved"
    path: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The run ended: `complete` when it has its result, after all steps or by its watcher; else it can be resumed."""

    kind = "finished"
    complete: bool
    reason: str
    seconds: float
    """Since this process began; a resumed run has one such event a piece."""
    metrics: dict[str, float] = field(default_factory=dict)
