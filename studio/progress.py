"""What a job tells about itself while it runs, and how much memory it took."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage of the work is."""

    stage: str
    done: int
    total: int | None = None
    """None where nobody knows: a stream of frames."""
    unit: str = "steps"
    detail: str = ""
    """What else is worth a glance: a loss."""


OnProgress = Callable[[Progress], None]
OnNote = Callable[[str], None]
"""Takes what the user should know: a fallback, a download."""


def unheard(_: object) -> None:
    """Ignores progress and notes: the default of the Python door."""


def peak_memory_bytes() -> int:
    """Largest memory in use so far: of the GPU when torch used one, else of this process."""
    torch = sys.modules.get("torch")  # asking must not import torch: a light verb would pay seconds for it
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
