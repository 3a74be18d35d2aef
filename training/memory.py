"""What is done when memory runs out in a step, rung by rung, so that the same step can be made again.

First activations are computed twice instead of being kept; then a batch goes through the network in smaller parts,
which gives the same step; then what a step does not need is moved off the GPU.
"""

import gc
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from pose.wording import in_a_line

_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "not enough memory",
    "unable to find an engine",
    "unable to find a valid cudnn",
)


@runtime_checkable
class SavesMemory(Protocol):
    """A learner that can do with less memory. Both are for good, and change no number but for rounding."""

    def checkpoint_activations(self) -> bool:
        """Computes activations twice instead of keeping them; False where that cannot be, or is so already."""
        ...

    def offload(self) -> bool:
        """Moves what a step does not need off the GPU; False where there is nothing to move."""
        ...


class NoMemoryLeftError(RuntimeError):
    """A step does not fit, whatever was tried."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tells a lack of memory, on whatever device, from other errors."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def no_room_to_choose(error: BaseException) -> str:
    """Words that what a method chooses its numbers by does not fit."""
    return (
        f"out of memory while choosing what is trained ({in_a_line(error)}); use gradient_checkpointing, "
        "gradient_accumulation_steps, a smaller batch or resolution, or another method"
    )


def free_memory() -> None:
    """Gives back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class Ladder:
    """The rung that a run is on."""

    learner: object
    share: int
    """Samples of a step of one process. They are a whole number of `parts`."""
    parts: int
    """In how many parts they go through the network."""
    checkpointing: bool = False
    offloaded: bool = False
    tried: list[str] = field(default_factory=list)
    """In words."""

    def climb(self) -> str | None:
        """Takes the next rung and says what it is; None where there is no further one."""
        said = self._next()
        if said is not None:
            self.tried.append(said)
        return said

    def _next(self) -> str | None:
        frugal = self.learner if isinstance(self.learner, SavesMemory) else None
        if not self.checkpointing and frugal is not None:
            self.checkpointing = True
            if frugal.checkpoint_activations():
                return "gradient checkpointing is on"
        samples = self.share // self.parts
        if samples > 1:
            smaller = max(k for k in range(1, samples // 2 + 1) if samples % k == 0)
            self.parts = self.share // smaller
            return f"a batch goes through the network in {self.parts} parts of {smaller} of its samples"
        if not self.offloaded and frugal is not None:
            self.offloaded = True
            if frugal.offload():
                return "encoders wait in main memory"
        return None

    def state(self) -> dict[str, Any]:
        """For a checkpoint, so that a resumed run need not climb again."""
        return {"checkpointing": self.checkpointing, "parts": self.parts, "offloaded": self.offloaded}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to the rung of a checkpoint; a run with more processes may have smaller parts already."""
        frugal = self.learner if isinstance(self.learner, SavesMemory) else None
        if state["checkpointing"] and frugal is not None:
            self.checkpointing = True
            frugal.checkpoint_activations()
        if state["offloaded"] and frugal is not None:
            self.offloaded = True
            frugal.offload()
        if state["parts"] > self.parts and self.share % state["parts"] == 0:
            self.parts = state["parts"]
