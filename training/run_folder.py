"""How a run is asked to stop from outside."""

import time
from collections.abc import Callable
from pathlib import Path


def stopper(run: Path, began: float, time_limit_s: float | None) -> Callable[[], str | None]:
    """Asks for a stop when the file `stop` lies in the run's folder, or when the time is over."""

    def should_stop() -> str | None:
        if (run / "stop").exists():
            return f"{run / 'stop'} was there"
        if time_limit_s is not None and time.monotonic() - began > time_limit_s:
            return f"the time limit of {time_limit_s:g} s was reached"
        return None

    return should_stop
