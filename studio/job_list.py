"""The list of jobs as the Runs page shows it."""

import time
from collections.abc import Sequence
from typing import Any, Final

from studio.jobs import STATES, Job, State

FILTERS: Final[dict[str, tuple[State, ...]]] = {
    "All": STATES,
    "Open": ("running", "queued", "paused"),
    "Done": ("done",),
    "Failed": ("failed",),
    "Cancelled": ("cancelled",),
}
PER_PAGE: Final = 50
PAGE_OF: Final = {
    "animate": "animate", "background": "background", "pose": "pose", "train": "fine_tune", "data": "fine_tune",
    "search": "search", "compare": "compare",
}  # fmt: skip
"""By a job's kind: the page that shows such jobs best."""


def rows(jobs: Sequence[Job], *, now: float | None = None) -> list[dict[str, Any]]:
    """A row a job, for a table."""
    now = time.time() if now is None else now
    return [_row(job, now) for job in jobs]


def _row(job: Job, now: float) -> dict[str, Any]:
    share, doing = None, ""
    if job.state == "running":
        progress = job.progress()
        share, doing = progress.share, f"{progress.stage} {progress.detail}".strip()
    elif job.error:
        doing = job.error.splitlines()[0][:120]
    elif job.state == "queued" and job.needs:
        doing = f"after {', '.join(map(str, job.needs))}"
    end = job.ended or (now if job.state == "running" else None)
    took = end - job.started if end is not None and job.started is not None else None
    return {
        "job": job.id, "state": job.shown_state, "what": job.title, "kind": job.kind, "done": share,
        "took": "" if took is None else length(took), "made": ago(now - job.created), "priority": job.priority,
        "now": doing,
    }  # fmt: skip


def ago(seconds: float) -> str:
    """How long ago, in a few letters."""
    return "just now" if seconds < 60 else f"{length(seconds)} ago"


def length(seconds: float) -> str:
    """A time in a few letters: 12 s, 5 min, 3 h, 2 d."""
    for size, unit in ((86400 * 2, "d"), (3600 * 2, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'d': 86400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def pages(count: int, *, per_page: int = PER_PAGE) -> int:
    """How many pages so many jobs make; one at least."""
    return max(1, -(-count // per_page))
