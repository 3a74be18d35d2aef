"""`studio jobs`: the queue of the studio, without a browser."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.requests import Positional, Request, Unit

if TYPE_CHECKING:
    from studio.jobs import Job, Queue

Number = Annotated[int, Field(ge=1), Positional()]


class QueueRequest(Request):
    """Which queue."""

    root: Path | None = None
    """The folder of the queue; by default $STUDIO_RUNS, or runs here."""
    database: str | None = None
    """postgresql://USER@HOST/DATABASE when several machines share a queue; by default $STUDIO_DATABASE, or a file in
    the folder."""


class ListRequest(QueueRequest):
    """Lists jobs: what runs, what waits in its order, and what has ended."""

    state: tuple[Literal["queued", "paused", "running", "done", "failed", "cancelled"], ...] = ()
    """Only jobs in this state; repeat it for several."""
    limit: Annotated[int, Field(ge=1, le=100_000)] = 30
    """How many."""


class SubmitRequest(QueueRequest):
    """Puts a command into the queue, such as: studio jobs submit "train run.toml --output-dir runs/cat"."""

    command: Annotated[str, Positional()]
    """What stands after `studio`, in quotes."""
    title: str = ""
    """A few words for lists; by default made from the command."""
    after: tuple[int, ...] = ()
    """A job that has to be done first; repeat it for several."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher ones first."""


class OneRequest(QueueRequest):
    """One job."""

    job: Number
    """Its number."""


class ShowRequest(OneRequest):
    """Shows a job: how far it is, its command, what happened to it, and its result."""


class LogsRequest(OneRequest):
    """Prints what a job prints."""

    attempt: Annotated[int, Field(ge=1)] | None = None
    """Which one, when it was started several times; by default the last."""
    follow: bool = False
    """Goes on printing until the job ends."""


class CancelRequest(OneRequest):
    """Ends a job: one that waits at once, one that runs after it has saved. Asked again: at once."""


class PauseRequest(OneRequest):
    """Keeps a job from being started; a running one saves and stops."""


class UnpauseRequest(OneRequest):
    """Lets a paused job go on."""


class RetryRequest(OneRequest):
    """Tries a job again that failed or was cancelled; a training goes on from its last checkpoint."""


class MoveRequest(OneRequest):
    """Puts a waiting job before another one, or to the front."""

    before: Annotated[int, Field(ge=1)] | None = None
    """The job that shall come after it; by default the first of all."""


class CloneRequest(OneRequest):
    """Puts the command of a job into the queue once more."""

    change: tuple[str, ...] = ()
    """Another value of a flag, FLAG=VALUE such as seed=7; repeat it for several."""


class ForgetRequest(OneRequest):
    """Takes an ended job out of the list; its files stay where they are."""


class RunRequest(QueueRequest):
    """Runs the jobs of the queue, one after the other, until it is stopped (Ctrl-C). One for every device."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """cpu or cuda:N; auto takes the first GPU, and the CPU where there is none."""
    until_empty: bool = False
    """Ends when nothing is left to do."""
    idle_exit: Annotated[float, Field(gt=0), Unit("s")] | None = None
    """Ends after so long without a job."""


def _queue(request: QueueRequest) -> "Queue":
    from studio.jobs import Queue

    return Queue(request.root, request.database)


def as_json(job: "Job") -> dict[str, object]:
    """A job as plain values."""
    progress = job.progress()
    return {
        "id": job.id, "title": job.title, "state": job.shown_state, "command": job.command, "words": list(job.words),
        "folder": str(job.folder), "device": job.device, "priority": job.priority, "attempt": job.attempt,
        "needs": list(job.needs), "created": job.created, "started": job.started, "ended": job.ended,
        "stage": progress.stage if job.state == "running" else None,
        "share": round(progress.share, 4) if job.state == "running" else None,
        "job_exit_code": job.exit_code, "error": job.error, "result": dict(job.result),
    }  # fmt: skip


def run_list(request: ListRequest, console: Console) -> Result:
    """Prints a line a job."""
    from studio.jobs import STATES

    queue = _queue(request)
    jobs = queue.jobs(request.state or STATES, limit=request.limit)
    for job in jobs:
        console.say(_line(queue, job))
    if not jobs:
        console.say('no jobs; put one in with `studio jobs submit "..."` or in the studio (`studio app`)')
    elif (all_of_them := queue.count(request.state or STATES)) > len(jobs):
        console.say(f"... and {all_of_them - len(jobs)} more (--limit)")
    counts = queue.counts()
    if counts["queued"] and not any(worker.is_alive for worker in queue.workers()):
        console.note("no worker is there to run them; start one with `studio jobs run`, or open the studio")
    return {"jobs": [as_json(job) for job in jobs], "counts": counts}


def _line(queue: "Queue", job: "Job") -> str:
    progress = job.progress()
    more = ""
    if job.state == "running":
        more = f"{progress.stage} {progress.share:.0%}" if progress.share else progress.stage
    elif job.error:
        more = job.error.splitlines()[0][:80]
    elif job.state == "queued" and (needs := queue.waits_for(job)):
        more = "waits for " + ", ".join(f"{need.id} ({need.shown_state})" for need in needs)
    return f"{job.id:>5}  {job.shown_state:<9}  {job.title:<44}  {more}".rstrip()


def run_submit(request: SubmitRequest, console: Console) -> Result:
    """Checks a command and puts it into the queue."""
    from studio.cli.run import check_words

    try:
        words = shlex.split(request.command)
    except ValueError as error:
        raise RequestError(f"command {request.command!r} cannot be read: {error}; close the quotes") from None
    words = words[1:] if words[:1] == ["studio"] else words
    check_words(words)
    job = _queue(request).submit(words, title=request.title, needs=request.after, priority=request.priority)
    console.say(f"job {job.id}: {job.title}")
    return as_json(job)


def run_show(request: ShowRequest, console: Console) -> Result:
    """Prints all that is known of a job."""
    queue = _queue(request)
    job = queue.job(request.job)
    console.say(_line(queue, job))
    console.say(f"command   {job.command}")
    console.say(f"folder    {job.folder}")
    if job.state == "running":
        progress = job.progress()
        console.say(f"progress  {progress.stage}: {progress.detail}")
    history = queue.history(job.id)
    for at, text in history:
        console.say(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))}  {text}")
    for name, value in job.result.items():
        console.say(f"{name:<9} {value}")
    return {**as_json(job), "history": [{"at": at, "text": text} for at, text in history]}


def run_logs(request: LogsRequest, console: Console) -> Result:
    """Prints a log, and what comes to it."""
    queue = _queue(request)
    job = queue.job(request.job)
    if request.attempt is not None and request.attempt > job.attempt:
        raise RequestError(f"--attempt {request.attempt}: job {job.id} was started {job.attempt} times")
    at = 0
    while True:
        job = queue.job(request.job)
        path = job.log("err", request.attempt)
        if path.is_file():
            with path.open("rb") as file:
                file.seek(at)
                new = file.read()
            whole = new if not (request.follow and job.is_open) else new[: new.rfind(b"\n") + 1]
            at += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                console.say(line)
        if not (request.follow and job.is_open):
            return {"id": job.id, "log": str(path), "state": job.shown_state}
        time.sleep(0.3)


def run_cancel(request: CancelRequest, console: Console) -> Result:
    """Ends a job."""
    return _changed(console, _queue(request).cancel(request.job))


def run_pause(request: PauseRequest, console: Console) -> Result:
    """Pauses a job."""
    return _changed(console, _queue(request).pause(request.job))


def run_unpause(request: UnpauseRequest, console: Console) -> Result:
    """Lets a job go on."""
    return _changed(console, _queue(request).resume(request.job))


def run_retry(request: RetryRequest, console: Console) -> Result:
    """Tries a job again."""
    return _changed(console, _queue(request).retry(request.job))


def run_move(request: MoveRequest, console: Console) -> Result:
    """Moves a job."""
    return _changed(console, _queue(request).move(request.job, before=request.before))


def run_forget(request: ForgetRequest, console: Console) -> Result:
    """Takes a job out of the list."""
    job = _queue(request).forget(request.job)
    console.say(f"job {job.id} is forgotten; its files stay in {job.folder}")
    return as_json(job)


def run_clone(request: CloneRequest, console: Console) -> Result:
    """Puts a changed copy of a job into the queue."""
    from studio.cli.run import check_words
    from studio.jobs.kinds import with_value

    queue = _queue(request)
    job = queue.job(request.job)
    words = list(job.words)
    for change in request.change:
        name, equals, value = change.partition("=")
        if not equals:
            raise RequestError(f"--change {change}: must be FLAG=VALUE, such as seed=7")
        words = with_value(words, f"--{name.lstrip('-').replace('_', '-')}", value)
    check_words(words)
    return _changed(console, queue.submit(words, directory=job.directory, device=job.device, cloned_from=job.id))


def _changed(console: Console, job: "Job") -> Result:
    console.say(f"job {job.id}: {job.shown_state}")
    return as_json(job)


def run_worker(request: RunRequest, console: Console) -> Result:
    """Works until it is stopped."""
    import signal

    from studio.jobs.worker import Worker, first_device

    queue = _queue(request)
    worker = Worker(queue, first_device() if request.device == "auto" else request.device, on_event=console.say)

    def stop(*_: object) -> None:
        if not worker.stopping:
            console.note("stops: what runs saves and waits in the queue; what waits stays there")
        worker.stopping = True

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    console.say(f"a worker for {worker.device}; the queue is {queue.database.place}")
    ended = worker.run(until_empty=request.until_empty, idle_exit_s=request.idle_exit)
    return {"ended": ended, "device": worker.device, "counts": queue.counts()}


VERBS = (
    Verb("jobs list", ListRequest, run_list), Verb("jobs submit", SubmitRequest, run_submit),
    Verb("jobs show", ShowRequest, run_show), Verb("jobs logs", LogsRequest, run_logs),
    Verb("jobs cancel", CancelRequest, run_cancel), Verb("jobs pause", PauseRequest, run_pause),
    Verb("jobs resume", UnpauseRequest, run_unpause), Verb("jobs retry", RetryRequest, run_retry),
    Verb("jobs move", MoveRequest, run_move), Verb("jobs clone", CloneRequest, run_clone),
    Verb("jobs forget", ForgetRequest, run_forget), Verb("jobs run", RunRequest, run_worker),
)  # fmt: skip
