"""A worker: takes jobs from the queue one after the other and runs each in a process of its own.

What is true of a job stands in the database and in the job's folder, never in the worker alone: it may be killed at any
moment, and the next one takes over the process that still runs, or finds that there is none and begins it again.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from studio.errors import DONE, INTERRUPTED, RequestError, describe
from studio.files import moved_in
from studio.jobs.job import Job, State, Wanted, read_result, tail
from studio.jobs.kinds import device_of, numbered, with_value, words_to_go_on
from studio.jobs.process import ATTEMPT, STALE, TOKEN, interrupt, is_locked, kill, new_token, spawn
from studio.jobs.queue import LEASE_S, Queue
from studio.jobs.tables import JOBS, NEEDS, WORKERS
from training.databases import DatabaseError
from training.owners import Owner, this_worker

MAX_DEATHS: Final = 3
"""So often a job may lose its process; then it has failed."""
PATIENCE_S: Final = {"pause": 300.0, "cancel": 30.0, "kill": 0.0}
"""How long a job may take to save before its processes are ended."""
_BEAT_S: Final = 5.0


class Worker:
    """Runs jobs for one device."""

    def __init__(
        self,
        queue: Queue,
        device: str = "cpu",
        *,
        poll_s: float = 0.3,
        on_event: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.queue, self.device = queue, numbered(device)
        self.owner: Owner = this_worker()
        self._poll_s, self._say = poll_s, on_event
        self._job: Job | None = None
        self._process: subprocess.Popen[bytes] | None = None  # None for one that another worker started
        self._asked: Wanted | None = None
        self._asked_at = 0.0
        self._beaten = 0.0
        self.stopping = False
        """Set from outside, by a signal: no more jobs, and what runs saves and goes back into the queue."""

    def run(self, *, until_empty: bool = False, idle_exit_s: float | None = None) -> int:
        """Works until it is stopped; how many jobs ended.

        Args:
            until_empty: ends when nothing is left that it could run.
            idle_exit_s: ends after so long without a job.

        Raises:
            RequestError: a worker for this device runs on this machine already.
        """
        self._register()
        ended, idle_since = 0, time.monotonic()
        try:
            while True:
                try:
                    ended += self._turn()
                except (DatabaseError, OSError) as error:
                    # a database or a shared disk that is away: what runs goes on as long as the lease lasts
                    self._say(f"waits: {error}")
                    self._give_up_a_lost_lease()
                if self._job is not None:
                    idle_since = time.monotonic()
                elif (
                    self.stopping
                    or (until_empty and not self._anything_left())
                    or (idle_exit_s is not None and time.monotonic() - idle_since > idle_exit_s)
                ):
                    return ended
                time.sleep(self._poll_s)
        finally:
            with suppress(DatabaseError), self.queue.database.exclusive() as connection:
                connection.execute(sa.delete(WORKERS).where(WORKERS.c.name == self.owner.worker))

    # --- one turn -----------------------------------------------------------------------------------------------

    def _turn(self) -> int:
        """Looks after the job that runs, or finds one; 1 when one ended."""
        self._beat()
        if self._job is None:
            self._job = self._take_over() or (None if self.stopping else self._claim())
            return 0
        job = self.queue.job(self._job.id)
        if job.token != self._job.token:
            # another worker was given it, this one having been away for too long
            if self._job.token is not None:
                kill(self._job.token)
            self._let_go()
            return 0
        if self._lives():
            self._heed(job)
            return 0
        return int(self._settle(job))

    def _claim(self) -> Job | None:
        """Takes the next job that may run here, and starts it."""
        queue, devices = self.queue, self._devices()
        with queue.database.exclusive("studio queue") as connection:
            need = JOBS.alias()
            unmet = sa.select(NEEDS.c.job).join(need, need.c.id == NEEDS.c.needs).where(need.c.state != "done")
            wanted = (
                sa.select(JOBS.c.id)
                .where(JOBS.c.state == "queued", JOBS.c.device.in_(devices), JOBS.c.id.not_in(unmet))
                .order_by(JOBS.c.priority.desc(), JOBS.c.place, JOBS.c.id)
                .limit(1)
            )
            number = connection.scalar(wanted)
            if number is None:
                return None
            job = queue.job(number)
            now = queue.database.now(connection)
            queue.change(job.id, state="running", wanted="run", wanted_at=None, attempt=job.attempt + 1,
                         token=new_token(), owner=asdict(self.owner), beaten=now, started=now, ended=None, error=None,
                         exit_code=None, result=None)  # fmt: skip
            queue.tell(job.id, f"started for {self.device} (attempt {job.attempt + 1})")
            job = queue.job(number)
        try:
            self._start(job)
        except OSError as error:
            self._refuse(job, f"it could not be started: {describe(error)}")
            return None
        return job

    def _refuse(self, job: Job, why: str) -> None:
        with self.queue.database.exclusive("studio queue") as connection:
            now = self.queue.database.now(connection)
            self.queue.change(job.id, state="failed", token=None, owner=None, ended=now, error=why)
            self.queue.tell(job.id, f"failed: {why}")
        self._say(f"job {job.id}: {why}")

    def _start(self, job: Job) -> None:
        assert job.token is not None
        self._asked = None
        job.folder.mkdir(parents=True, exist_ok=True)
        if is_locked(job.folder):
            raise OSError(f"job {job.id} has a process already")
        with moved_in(job.folder / ATTEMPT) as beside:
            beside.write_text(job.token)
        words = words_to_go_on(job.words, job.directory) if job.attempt > 1 else job.words
        visible = self.device.partition(":")[2] if self.device.startswith("cuda") else ""
        if device_of(words).startswith("cuda"):
            words = with_value(words, "--device", "cuda")  # of all GPUs it sees that one
        self._process = spawn(
            job.folder, words, attempt=job.attempt, token=job.token, directory=job.directory,
            # numbered as nvidia-smi numbers them, which is not CUDA's own order where cards differ
            environment={"STUDIO_PROGRESS_EVERY_S": "0.5", "CUDA_VISIBLE_DEVICES": visible,
                         "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        )  # fmt: skip
        self._say(f"job {job.id}: {job.title}")

    def _lives(self) -> bool:
        assert self._job is not None
        if self._process is not None:
            return self._process.poll() is None
        return is_locked(self._job.folder)

    def _heed(self, job: Job) -> None:
        """Does what is asked of a job that runs."""
        assert job.token is not None
        wanted: Wanted = "pause" if self.stopping and job.wanted == "run" else job.wanted
        if wanted == "run":
            return
        if self._asked is None:
            self._asked_at = time.monotonic()
            interrupt(job.token)
        self._asked = wanted
        if time.monotonic() - self._asked_at > PATIENCE_S[wanted]:
            kill(job.token)

    def _settle(self, job: Job) -> bool:
        """Writes down how a job ended; False when it goes back into the queue."""
        assert job.token is not None
        code = self._process.returncode if self._process is not None else None
        if code == STALE and is_locked(job.folder):
            self._process = None  # a process from before lives on, and is watched instead
            return False
        kill(job.token)  # what it left behind
        self._let_go()
        return conclude(self.queue, job, back_to_the_queue=self.stopping, say=self._say)

    def _let_go(self) -> None:
        self._job = self._process = self._asked = None

    # --- other workers' jobs --------------------------------------------------------------------------------------

    def _take_over(self) -> Job | None:
        """Looks for a running job whose worker is gone: one whose process lives on is taken over."""
        queue = self.queue
        with queue.database.reading() as connection:
            wanted = sa.select(JOBS.c.id, JOBS.c.owner, JOBS.c.beaten).where(JOBS.c.state == "running")
            rows = connection.execute(wanted).all()
            now = queue.database.now(connection)
        for number, text, beaten in rows:
            owner = Owner(**json.loads(text))
            here = owner.machine == self.owner.machine
            # one of its own that it knows nothing of: the end of which could not be written down
            if owner != self.owner and not owner.is_dead and (here or now - beaten < LEASE_S):
                continue
            with queue.database.exclusive("studio queue"):
                job = queue.job(number)
                with queue.database.reading() as connection:
                    if connection.scalar(sa.select(JOBS.c.owner).where(JOBS.c.id == number)) != text:
                        continue  # another worker was quicker
                if not (here and is_locked(job.folder)):
                    if here and job.token is not None:
                        kill(job.token)  # one that did not come as far as its lock
                    conclude(queue, job, back_to_the_queue=False, say=self._say)
                    continue
                queue.change(number, owner=asdict(self.owner), beaten=now)
                queue.tell(number, "its worker is gone; another one watches it now")
                self._process = self._asked = None
                return queue.job(number)
        return None

    def _register(self) -> None:
        queue = self.queue
        with queue.database.exclusive("studio queue") as connection:
            for row in queue.workers():
                if row.owner.machine == self.owner.machine and row.device == self.device and row.is_alive:
                    raise RequestError(
                        f"a worker for {self.device} runs on this machine already (process {row.owner.pid}); "
                        "one is enough"
                    )
                if not row.is_alive:
                    connection.execute(sa.delete(WORKERS).where(WORKERS.c.name == row.name))
            now = queue.database.now(connection)
            connection.execute(
                sa.insert(WORKERS).values(name=self.owner.worker, machine=self.owner.machine, device=self.device,
                                          owner=json.dumps(asdict(self.owner)), started=now, beaten=now)
            )  # fmt: skip
        self._beaten = time.monotonic()

    def _beat(self) -> None:
        if time.monotonic() - self._beaten < _BEAT_S:
            return
        with self.queue.database.exclusive("studio queue") as connection:
            now = self.queue.database.now(connection)
            connection.execute(sa.update(WORKERS).where(WORKERS.c.name == self.owner.worker).values(beaten=now))
            if self._job is not None:
                mine = sa.and_(JOBS.c.id == self._job.id, JOBS.c.token == self._job.token)
                connection.execute(sa.update(JOBS).where(mine).values(beaten=now))
        self._beaten = time.monotonic()

    def _give_up_a_lost_lease(self) -> None:
        if self._job is not None and self._job.token and time.monotonic() - self._beaten > LEASE_S * 0.8:
            kill(self._job.token)

    def _devices(self) -> list[str]:
        """Whose jobs are this worker's: a CPU leaves those for any device to a GPU that works beside it."""
        beside_gpu = self.device == "cpu" and any(name != "cpu" for name in _devices_at_work(self.queue))
        return [self.device] if beside_gpu else ["auto", self.device]

    def _anything_left(self) -> bool:
        """Whether something waits or runs that this worker may have to do."""
        devices = self._devices()
        return any(job.device in devices and not self._is_stuck(job)
                   for job in self.queue.jobs(("queued", "running"), limit=100_000))  # fmt: skip

    def _is_stuck(self, job: Job) -> bool:
        needs = self.queue.waits_for(job)
        return any(need.state in ("failed", "cancelled", "paused") or self._is_stuck(need) for need in needs)


def conclude(queue: Queue, job: Job, *, back_to_the_queue: bool, say: Callable[[str], None]) -> bool:
    """Writes down how a job's process ended; False when the job waits again.

    Args:
        back_to_the_queue: it was stopped because its worker ends, not because anybody asked for it.
    """
    result = read_result(job.log("out"))
    code = None if result is None else int(result.get("exit_code", DONE))
    asked = job.wanted in ("cancel", "kill")
    state: State
    error, deaths = None, 0
    if code is not None and code != INTERRUPTED:
        state = "done" if code == DONE or "error" not in (result or {}) else "failed"
        error = None if result is None else result.get("error")
        said = "done" if state == "done" else f"failed: {error}"
    elif asked:
        state, said = "cancelled", "cancelled"
    elif job.wanted == "pause":
        state, said = "paused", "paused" if code is not None else "paused; it was ended before it could save"
    elif back_to_the_queue:
        state, said = "queued", "back in the queue, its worker was stopped"
    elif code == INTERRUPTED:
        state, said = "paused", "interrupted from outside; it is paused"
    else:
        state, said, error, deaths = _after_a_death(queue, job)
    with queue.database.exclusive("studio queue") as connection:
        if queue.job(job.id).token != job.token:
            return False
        ended = queue.database.now(connection) if state in ("done", "failed", "cancelled") else None
        queue.change(job.id, state=state, wanted="run", wanted_at=None, token=None, owner=None, beaten=None,
                     ended=ended, exit_code=code, error=error, deaths=deaths,
                     result=result if ended else None)  # fmt: skip
        queue.tell(job.id, said)
    say(f"job {job.id}: {said}")
    if state == "done":
        from studio.library.scan import take_in_quietly

        take_in_quietly(queue, job.id, say)
    return ended is not None


def _after_a_death(queue: Queue, job: Job) -> tuple[State, str, str | None, int]:
    """What becomes of a job whose process ended without a word."""
    with queue.database.reading() as connection:
        deaths = int(connection.scalar(sa.select(JOBS.c.deaths).where(JOBS.c.id == job.id)) or 0) + 1
    last = next(reversed(tail(job.log("err")).splitlines()), "it printed nothing")
    if deaths < MAX_DEATHS:
        return "queued", f"its process ended without a result; it is begun again (last words: {last})", None, deaths
    error = (
        f"the process ended {deaths} times without a result, as when memory runs out; its last words: {last}. "
        "Try less at a time, or look into the log"
    )
    return "failed", f"failed: {error}", error, deaths


def first_device() -> str:
    """The first GPU of this machine, or cpu; without loading torch, which a worker does not need."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # a container may have but the second card, and WSL shows none of them by name
    there = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if visible == "" or not there:
        return "cpu"
    return f"cuda:{(visible or '0').split(',')[0]}"


def _devices_at_work(queue: Queue) -> set[str]:
    """The devices of this machine's workers that are alive."""
    machine = this_worker().machine
    return {row.device for row in queue.workers() if row.is_alive and row.owner.machine == machine}


def ensure_worker(queue: Queue, *, idle_exit_s: float | None = None) -> bool:
    """Starts workers in the background where there are none, for this machine and for what waits; whether it did.

    Args:
        idle_exit_s: they end after so long without a job; by default what the settings say.
    """
    there, first = _devices_at_work(queue), first_device()
    wanted = queue.wanted_devices()
    # beside a CPU's worker only for what it leaves to others
    missing = {first} if not there or (there == {"cpu"} != {first} and "auto" in wanted) else set()
    # a queue may be shared: what waits for a GPU is no business of a machine without any
    missing |= {name for name in wanted - there - {"auto"} if name == "cpu" or first != "cpu"}
    for name in sorted(missing):
        start_worker(queue, "auto" if name == first else name, idle_exit_s=idle_exit_s)
    return bool(missing)


def start_worker(queue: Queue, device: str = "auto", *, idle_exit_s: float | None = None) -> None:
    """Starts a worker in the background; one for a device that has one already ends at once.

    It outlives the page and the app that asked for it, and ends by itself when there is nothing to do.
    """
    from studio.settings import idle_exit_of_settings

    idle_exit_s = idle_exit_of_settings() if idle_exit_s is None else idle_exit_s
    log_file = worker_log(queue)
    log_file.parent.mkdir(exist_ok=True)
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "studio", "jobs", "run", "--root", str(queue.root), "--idle-exit", str(idle_exit_s),
             "--device", device],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=Path("/"),
            env={k: v for k, v in os.environ.items() if k != TOKEN},  # not a part of the job that asks for it
        )  # fmt: skip
    process.returncode = 0  # it lives on its own; Popen would warn about a child still running


def worker_log(queue: Queue) -> Path:
    """What the workers of this studio say."""
    return queue.root / "workers" / "worker.log"
