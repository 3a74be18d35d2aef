"""kill -9 of the app, of workers and of jobs at random moments: no job is lost, none runs twice, none hangs.

STUDIO_KILLS=30 makes it as many as one likes; the suite makes a few.
"""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

KILLS = int(os.environ.get("STUDIO_KILLS", "6"))
WORK = ["doctor"]  # some seconds, so that most kills find one running


def _start_app(queue):
    # the tests themselves may open no socket
    free = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
    port = subprocess.run([sys.executable, "-c", free], capture_output=True, text=True, check=True).stdout.strip()
    return subprocess.Popen(
        [sys.executable, "-m", "studio", "app", "--port", port, "--no-browser"], cwd=queue.root,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "STUDIO_RUNS": str(queue.root)},
    )  # fmt: skip


def _kill(process):
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.timeout(60 + 20 * KILLS)
def test_kills_at_random_moments_lose_no_job_and_run_none_twice(queue, start_worker, until):
    from studio.jobs.process import processes_of

    rng = random.Random(os.environ.get("STUDIO_KILLS_SEED", "0"))
    jobs, cancelled = [queue.submit(WORK).id for _ in range(2)], []
    app, worker = _start_app(queue), start_worker()
    deaths = {"app": 0, "worker": 0, "job": 0}
    for kill in range(KILLS):
        time.sleep(rng.uniform(0.1, 2.0))
        running = queue.jobs(("running",))
        assert len(running) <= 1
        if running:
            assert len(_first_ones(processes_of(running[0].token))) <= 1
        if kill % 6 == 1:  # asked to end just before the worker or the job dies: it must not hang
            cancelled.append(queue.cancel(running[0].id if running else queue.submit(WORK).id).id)
        what = rng.choice(["app", "worker", "job"] if running else ["app", "worker"])
        if what == "app":
            assert app.poll() is None, "the app ended by itself"
            _kill(app)
            app = _start_app(queue)
        elif what == "worker":
            _kill(worker)
            worker = start_worker()
        else:
            for process in processes_of(running[0].token):
                with suppress(Exception):
                    process.kill()
        deaths[what] += 1
        for job in queue.jobs(("failed",)):
            queue.retry(job.id)  # died three times, as it was told
        if queue.count(("queued",)) < 2:
            jobs.append(queue.submit(WORK).id)
    print(f"{KILLS} kills: {deaths}; {len(jobs)} jobs, {len(cancelled)} asked to end")
    _kill(app)

    def all_ended():
        for job in queue.jobs(("failed",)):
            queue.retry(job.id)
        return not queue.count(("queued", "running", "paused"))

    until(all_ended, 240)
    for job in jobs:
        told = [text for _, text in queue.history(job)]
        assert told.count("done") == (job not in cancelled or queue.job(job).state == "done"), told
        assert len([text for text in told if text.startswith("started")]) == queue.job(job).attempt
    # one that ended at the same moment as it was asked to has done its work
    assert {queue.job(job).state for job in cancelled} <= {"cancelled", "done"}


def _first_ones(processes):
    """Those that no other of them started."""
    import psutil

    found, ids = [], {process.pid for process in processes}
    for process in processes:
        with suppress(psutil.Error):
            if process.ppid() not in ids:
                found.append(process)
    return found
