"""The queue of the studio: commands that wait, run and have ended; nothing is lost when anything is killed."""

from studio.jobs.job import OPEN, STATES, Job, Progress, State
from studio.jobs.queue import Queue, WorkerRow
from studio.jobs.worker import Worker, ensure_worker
from studio.settings import runs_folder

__all__ = [
    "OPEN", "STATES", "Job", "Progress", "Queue", "State", "Worker", "WorkerRow", "ensure_worker", "runs_folder",
]  # fmt: skip
