"""A run's folder: its config, its events, and the files by which it is asked to stop or to save."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError

from training.checkpoint import CheckpointError, SaveError, latest_checkpoint
from training.disk import full_disk, write_text
from training.events import Event, Note, Saved
from training.toml import dump_toml
from training.trackers import TrackerName, open_trackers

STOP, SAVE = "stop", "save"
"""Files that ask a run to stop after its step, or to save after it and go on."""
_LOCK, _EVENTS = ".lock", "events.jsonl"


def is_main() -> bool:
    """Whether this process writes: `accelerate launch` starts several of us."""
    return os.environ.get("RANK", "0") == "0"


def refuse_another_run(run: Path) -> None:
    """Looks whether a new run may begin in a folder.

    Raises:
        CheckpointError: there is one in it.
    """
    if latest_checkpoint(run) is not None:
        raise CheckpointError(
            f"{run} holds a run already; resume it with `studio resume {run}`, or name another folder"
        )


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Holds a run's folder, from before anything is loaded: two processes that train in one would spoil both.

    What an earlier run was asked for, to stop or to save, is forgotten. A folder that was made for a run with a wrong
    setting is taken away again.

    Raises:
        CheckpointError: another process trains in it.
    """
    if not is_main():
        yield
        return
    made = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    lock = run / _LOCK
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"{run}: another process trains in this folder; wait for it, end it with `touch {run / STOP}`, or name "
                "another folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        for asked in (STOP, SAVE):
            (run / asked).unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):  # another process may be there already
                if made and list(run.iterdir()) == [lock]:
                    lock.unlink()
                    run.rmdir()


def record(
    run: Path,
    config: Mapping[str, Any],
    events: Iterator[Event],
    *,
    resume: bool = False,
    report_to: Sequence[TrackerName] = (),
) -> Iterator[Event]:
    """Passes the events of a run on, and writes its folder: config.toml, events.jsonl, and what trackers make.

    The config of a resumed run is written again at its first step, for then the loop has found it to fit the
    checkpoint. A run that begins forgets the events of one that ended before its first checkpoint.

    Raises:
        SaveError: the disk is full.
    """
    main = is_main()
    run.mkdir(parents=True, exist_ok=True)
    if main and not resume:
        (run / _EVENTS).unlink(missing_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_full_disk_is_told(run))
        stack.enter_context(closing(cast(Generator[Event], events)))
        log = stack.enter_context(_Lines(run / _EVENTS if main else Path(os.devnull)))
        trackers = open_trackers(report_to, run, config) if main else []
        for tracker in trackers:
            stack.callback(tracker.close)
        unwritten = main
        for event in events:
            if unwritten and not (resume and isinstance(event, Note)):
                write_text(run / "config.toml", dump_toml(config))
                unwritten = False
            log.write(json.dumps(event.as_dict()))
            for tracker in trackers:
                tracker.take(event)
            if main and isinstance(event, Saved):
                (run / SAVE).unlink(missing_ok=True)
            yield event


class _Lines:
    """A file of lines that is appended to. A line that an earlier process left unfinished is taken off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_file():
            whole = path.read_bytes()
            os.truncate(path, whole.rfind(b"\n") + 1)
        # no buffer: what does not fit on the disk is not tried again when the file is closed
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, line: str) -> None:
        """Appends a line."""
        left = memoryview(f"{line}\n".encode())
        while left:
            left = left[self._file.write(left) :]


@contextmanager
def _full_disk_is_told(run: Path) -> Iterator[None]:
    """Words what a full disk does, whoever wrote to it: the log, the cache, a sample, the adapter.

    Raises:
        SaveError: the disk is full.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        told = full_disk(error)
        if told is None:
            raise
        raise SaveError(
            f"{told}; the last checkpoint is {latest_checkpoint(run)}. "
            f"Make space, then go on with `studio resume {run}`"
        ) from error


def stopper(run: Path, began: float, time_limit_s: float | None) -> Callable[[], str | None]:
    """Asks for a stop when the file `stop` lies in the run's folder, or when the time is over."""

    def should_stop() -> str | None:
        if (run / STOP).exists():
            return f"{run / STOP} was there"
        if time_limit_s is not None and time.monotonic() - began > time_limit_s:
            return f"the time limit of {time_limit_s:g} s was reached"
        return None

    return should_stop


def saver(run: Path) -> Callable[[], bool]:
    """Asks for a checkpoint when the file `save` lies in the run's folder; `record` takes it away afterwards."""
    return (run / SAVE).exists
