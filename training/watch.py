"""Who may look at a run between its steps and ask it for something."""

from collections.abc import Callable
from dataclasses import dataclass

from training.events import Event


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a watcher asks of a run."""

    events: tuple[Event, ...] = ()
    """What it has to say."""
    rate_factor: float = 1.0
    """What the learning rate is multiplied by from now on."""
    stop: str | None = None
    """Why the run should end."""
    complete: bool = False
    """With `stop`: the run has a result, and there is nothing to go on with."""


Watch = Callable[[int, dict[str, float]], Asked]
"""Called after every measurement, and before the first step, with the step and the metrics; in the main process alone,
with the averaged weights in place. What it asks must follow from these alone: a resumed run may ask it again."""
