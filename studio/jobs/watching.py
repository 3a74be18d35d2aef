"""Who works, and at what: for pages that show workers."""

import json
import os
import signal
from dataclasses import dataclass

import sqlalchemy as sa

from studio.errors import RequestError
from studio.jobs.job import Job
from studio.jobs.queue import Queue, WorkerRow
from studio.jobs.tables import JOBS
from training.owners import this_worker


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A worker and its job."""

    worker: WorkerRow
    job: Job | None
    """What it runs; None when it waits."""
    is_here: bool
    """Whether it is on this machine."""

    @property
    def state(self) -> str:
        """In a word: works, waits or gone."""
        if not self.worker.is_alive:
            return "gone"
        return "waits" if self.job is None else "works"


def watch_workers(queue: Queue) -> list[Watched]:
    """All workers, those that are gone among them until another one tidies up."""
    with queue.database.reading() as connection:
        rows = connection.execute(sa.select(JOBS.c.id, JOBS.c.owner).where(JOBS.c.state == "running")).all()
    runs = {str(json.loads(text)["worker"]): int(number) for number, text in rows if text}
    here = this_worker().machine
    return [
        Watched(worker=row, job=queue.job(runs[row.name]) if row.name in runs else None,
                is_here=row.owner.machine == here)
        for row in queue.workers()
    ]  # fmt: skip


def stop_worker(queue: Queue, name: str) -> None:
    """Asks a worker of this machine to end: what it runs saves and goes back into the queue.

    Raises:
        RequestError: it is gone, or on another machine.
    """
    found = next((one for one in watch_workers(queue) if one.worker.name == name), None)
    if found is None or not found.worker.is_alive:
        raise RequestError("that worker is gone already")
    if not found.is_here:
        raise RequestError(f"worker {name} is on another machine; stop it there")
    os.kill(found.worker.owner.pid, signal.SIGTERM)
