"""What the command line shows: results on stdout, progress and errors on stderr."""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from studio.progress import Progress, peak_memory_bytes

if TYPE_CHECKING:
    import rich.progress

_SECONDS_BETWEEN_LINES = 5.0
"""Time between two plain lines; the app sets STUDIO_PROGRESS_EVERY_S to hear more often."""


class Console:
    """Shows a job: a rich progress bar on a terminal, plain lines elsewhere, JSON at the end when asked."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._stage = ""
        self._started = self._last_line = 0.0
        self._first = 0
        self._speaks = os.environ.get("RANK", "0") == "0"  # of several processes of one training, one
        self._every_s = float(os.environ.get("STUDIO_PROGRESS_EVERY_S", _SECONDS_BETWEEN_LINES))

    def say(self, text: str) -> None:
        """Prints a line of the result; with `--json` it goes to stderr."""
        self.close()
        if self._speaks:
            print(text, file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def note(self, text: str) -> None:
        """Tells something the user should know, on stderr."""
        self.close()
        if self._speaks:
            print(f"note: {text}", file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """Tells what went wrong, on stderr."""
        self.close()
        print(f"error: {text}", file=sys.stderr, flush=True)

    def finish(self, result: Mapping[str, object]) -> None:
        """Ends the job; with `--json` the result is the last line of stdout."""
        self.close()
        if self.as_json and self._speaks:
            print(json.dumps(result, allow_nan=False, default=str), flush=True)

    def progress(self, progress: Progress) -> None:
        """Shows how far a stage is: rate, time left, peak memory."""
        if not self._speaks:
            return
        if progress.stage != self._stage:
            self.close()
            self._stage, self._started, self._last_line = progress.stage, time.monotonic(), 0.0
            # a resumed stage did not do all of it now; of a fresh one, what came first took time
            self._first = progress.done if progress.done > 1 else 0
        if sys.stderr.isatty():
            self._draw_bar(progress)
        else:
            self._print_line(progress)

    def close(self) -> None:
        """Takes the bar away, so that a line can be printed."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None
        self._stage = ""

    def _draw_bar(self, progress: Progress) -> None:
        import rich.console
        import rich.progress as bars

        if self._bar is None:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[rate]}"), bars.TimeRemainingColumn(),
                bars.TextColumn("{task.fields[memory]}"),
                console=rich.console.Console(stderr=True), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(progress.stage, total=progress.total, rate="", memory="")
        assert self._task is not None
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total,
            rate=f"{progress.detail} {self._rate(progress)}",
            memory=_memory(),
        )

    def _print_line(self, progress: Progress) -> None:
        now, last = time.monotonic(), progress.done == progress.total
        if not last and self._last_line and now - self._last_line < self._every_s:
            return
        self._last_line = now
        total = f"/{progress.total}" if progress.total is not None else ""
        rate, left = self._rate(progress), self._seconds_left(progress)
        facts = [f"{progress.done}{total} {progress.unit}", *filter(None, (progress.detail, rate, left)), _memory()]
        print(f"{progress.stage}: {', '.join(facts)}", file=sys.stderr, flush=True)

    def _rate(self, progress: Progress) -> str:
        elapsed, done = time.monotonic() - self._started, progress.done - self._first
        if done <= 0 or elapsed < 0.05:
            return ""
        rate = done / elapsed
        return f"{rate:.1f} {progress.unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{progress.unit.removesuffix('s')}"

    def _seconds_left(self, progress: Progress) -> str:
        elapsed, done = time.monotonic() - self._started, progress.done - self._first
        # what came first tells nothing yet: the clock began with it
        if progress.total is None or done <= 0 or elapsed < 0.05 or progress.done == progress.total:
            return ""
        left = elapsed / done * (progress.total - progress.done)
        return f"{left:.0f} s left"


def _memory() -> str:
    return f"peak {peak_memory_bytes() / 2**30:.2f} GiB"
