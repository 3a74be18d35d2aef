"""A queue in a folder, and workers in processes of their own, as the studio starts them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest


@pytest.fixture
def queue(tmp_path):
    """A queue in a file, as everybody has it."""
    from studio.jobs import Queue

    return Queue(tmp_path / "runs")


@pytest.fixture
def start_worker(queue):
    """Starts `studio jobs run`; all of them are gone after the test."""
    started = []

    def start(*flags, root=None):
        process = subprocess.Popen(
            [sys.executable, "-m", "studio", "jobs", "run", "--root", str(root or queue.root), *flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    from studio.jobs.process import kill

    for job in queue.jobs(("running",)):
        kill(job.token)


@pytest.fixture
def until():
    """Waits for something to come true."""

    def wait(condition, seconds=60):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "it did not come true in time"
            time.sleep(0.05)
        return found

    return wait


@pytest.fixture
def held(queue):
    """A job that nobody runs; those that wait for its log go on until it is let go."""
    return queue.pause(queue.submit(["motions"], title="held").id)


@pytest.fixture
def long_job(queue, held, until):
    """Submits a job that lasts as long as it is let: it follows the log of a job that never starts. Light, no torch."""

    def submit(**options):
        return queue.submit(["jobs", "logs", str(held.id), "--follow", "--root", str(queue.root)], **options)

    return submit


@pytest.fixture
def let_go(queue, held):
    """Lets the long jobs come to their end."""
    return lambda: queue.cancel(held.id)


@pytest.fixture
def runs_now(queue, until):
    """Waits until a job's process is what it shall be, an attempt's own."""
    from studio.jobs.process import is_locked, processes_of

    def is_there(number, attempt):
        job = queue.job(number)
        if job.state != "running" or job.token is None or (attempt and job.attempt != attempt):
            return False
        return is_locked(job.folder) and any("studio.jobs.runner" not in p.cmdline() for p in processes_of(job.token))

    return lambda job, attempt=None: until(lambda: is_there(job.id, attempt))
