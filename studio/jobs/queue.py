"""The queue: jobs in a database, and all that may be done with them. The app and the command line do the same here."""

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import sqlalchemy as sa

from studio.errors import RequestError
from studio.jobs.job import OPEN, STATES, Job, State, Wanted
from studio.jobs.kinds import device_of, numbered, title_of
from studio.jobs.tables import EVENTS, JOBS, NEEDS, WORKERS, migrate
from studio.settings import runs_folder
from training.databases import Database, DatabaseError, database_url
from training.owners import Owner

_LOCK: Final = "studio queue"
LEASE_S: Final = 60.0
"""A worker on another machine that was not heard of for so long is gone."""


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """A worker as the queue knows it."""

    name: str
    device: str
    owner: Owner
    started: float
    beaten: float
    is_alive: bool


class Queue:
    """The jobs below a folder. Objects are cheap; threads and processes have their own or share one."""

    def __init__(self, root: Path | None = None, storage: str | None = None) -> None:
        """Opens the queue.

        Args:
            root: the folder of jobs; by default that of the studio. Machines that share a database share it too.
            storage: `postgresql://USER@HOST/DATABASE`; by default $STUDIO_DATABASE or a file in the folder.

        Raises:
            RequestError: the database is of no known kind, out of reach, or of a newer version.
        """
        self.root = (root or runs_folder()).absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            address = storage or os.environ.get("STUDIO_DATABASE") or f"sqlite:///{self.root / 'studio.db'}"
            self.database = Database(database_url(address))
            migrate(self.database)
        except (DatabaseError, OSError) as error:
            raise RequestError(f"the queue of {self.root} cannot be opened: {error}") from error

    # --- asking -------------------------------------------------------------------------------------------------

    def job(self, number: int) -> Job:
        """One job.

        Raises:
            RequestError: there is none of that number.
        """
        found = self._select(JOBS.c.id == number)
        if not found:
            raise RequestError(f"there is no job {number}; `studio jobs list` shows those there are")
        return found[0]

    def jobs(
        self,
        states: Iterable[State] = STATES,
        *,
        kinds: Iterable[str] = (),
        text: str = "",
        limit: int = 100,
        offset: int = 0,
    ) -> list[Job]:
        """Jobs: what runs, then what waits in its order, then what has ended, the latest first."""
        return self._select(*_filters(states, kinds, text), limit=limit, offset=offset)

    def count(self, states: Iterable[State] = STATES, *, kinds: Iterable[str] = (), text: str = "") -> int:
        """How many jobs there are of these."""
        with self.database.reading() as connection:
            wanted = sa.select(sa.func.count()).select_from(JOBS).where(*_filters(states, kinds, text))
            return int(connection.scalar(wanted) or 0)

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        with self.database.reading() as connection:
            rows = connection.execute(sa.select(JOBS.c.state, sa.func.count()).group_by(JOBS.c.state)).all()
        return {**dict.fromkeys(STATES, 0), **{cast(State, state): int(number) for state, number in rows}}

    def history(self, number: int) -> list[tuple[float, str]]:
        """What happened to a job: when and what."""
        with self.database.reading() as connection:
            wanted = sa.select(EVENTS.c.at, EVENTS.c.text).where(EVENTS.c.job == number).order_by(EVENTS.c.id)
            return [(float(at), str(text)) for at, text in connection.execute(wanted)]

    def waits_for(self, job: Job) -> list[Job]:
        """The jobs a job waits for."""
        return [need for need in map(self.job, job.needs) if need.state != "done"]

    def workers(self) -> list[WorkerRow]:
        """The workers, the dead ones among them until they are tidied away."""
        with self.database.reading() as connection:
            now = self.database.now(connection)
            rows = connection.execute(sa.select(WORKERS).order_by(WORKERS.c.started)).mappings().all()
        found = []
        for row in rows:
            owner = Owner(**json.loads(row["owner"]))
            alive = not owner.is_dead and now - row["beaten"] < LEASE_S
            found.append(WorkerRow(name=row["name"], device=row["device"], owner=owner, started=row["started"],
                                   beaten=row["beaten"], is_alive=alive))  # fmt: skip
        return found

    def wanted_devices(self) -> set[str]:
        """The devices that waiting jobs are for, auto among them where any will do."""
        named = sa.select(JOBS.c.device).where(JOBS.c.state == "queued").distinct()
        with self.database.reading() as connection:
            return set(connection.scalars(named))

    # --- changing -----------------------------------------------------------------------------------------------

    def new_folder(self) -> Path:
        """Makes a folder for a job that is to come, for its uploads; names sort by time."""
        folder = self.root / "jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        return folder

    def submit(
        self,
        words: Sequence[str],
        *,
        title: str = "",
        folder: Path | None = None,
        needs: Sequence[int] = (),
        priority: int = 0,
        device: str = "",
        directory: Path | None = None,
        cloned_from: int | None = None,
    ) -> Job:
        """Puts a command at the end of those that wait.

        Args:
            words: what stands after `studio`, without `--json`.
            folder: from `new_folder`; by default a new one.
            needs: jobs that have to be done first.
            priority: higher ones first.
            device: cpu, cuda:N, or auto; by default what the words say.
            directory: relative paths in the words begin here; by default where this process is.

        Raises:
            RequestError: a needed job is not there.
        """
        folder = folder or self.new_folder()
        with self.database.exclusive(_LOCK) as connection:
            for need in needs:
                self.job(need)
            made = connection.execute(
                sa.insert(JOBS).values(
                    title=(title or title_of(words))[:200], words=json.dumps(list(words)),
                    folder=folder.relative_to(self.root).as_posix(), directory=str((directory or Path()).absolute()),
                    device=numbered(device) or device_of(words), state="queued", wanted="run", priority=priority,
                    place=self._last_place(connection) + 1, attempt=0, deaths=0,
                    created=self.database.now(connection), cloned_from=cloned_from,
                )
            ).inserted_primary_key  # fmt: skip
            assert made is not None
            number = int(made[0])
            if needs:
                connection.execute(sa.insert(NEEDS), [{"job": number, "needs": need} for need in dict.fromkeys(needs)])
            self.tell(number, "queued")
            return self.job(number)

    def cancel(self, number: int) -> Job:
        """Ends a job: one that waits at once, one that runs after it has saved; asked again, without waiting."""
        with self.database.exclusive(_LOCK):
            job = self.job(number)
            if job.state in ("queued", "paused"):
                self.change(number, state="cancelled", ended=self._now())
                self.tell(number, "cancelled")
            elif job.state == "running":
                again = job.wanted in ("cancel", "kill")
                self.change(number, wanted="kill" if again else "cancel", wanted_at=self._now())
                self.tell(number, "asked to end at once" if again else "asked to end")
            return self.job(number)

    def pause(self, number: int) -> Job:
        """Keeps a job from being started; one that runs saves and stops.

        Raises:
            RequestError: it has ended.
        """
        with self.database.exclusive(_LOCK):
            job = self._open(number, "paused")
            if job.state == "queued":
                self.change(number, state="paused")
                self.tell(number, "paused")
            elif job.state == "running" and job.wanted == "run":
                self.change(number, wanted="pause", wanted_at=self._now())
                self.tell(number, "asked to pause")
            return self.job(number)

    def resume(self, number: int) -> Job:
        """Lets a paused job go on.

        Raises:
            RequestError: it has ended.
        """
        with self.database.exclusive(_LOCK):
            job = self._open(number, "resumed; use retry")
            if job.state == "paused":
                self.change(number, state="queued", wanted="run", wanted_at=None)
                self.tell(number, "goes on")
            return self.job(number)

    def retry(self, number: int) -> Job:
        """Puts a job that failed or was cancelled back into the queue; a training goes on from its last checkpoint.

        Raises:
            RequestError: it did not fail and was not cancelled.
        """
        with self.database.exclusive(_LOCK) as connection:
            job = self.job(number)
            if job.state not in ("failed", "cancelled"):
                raise RequestError(
                    f"job {number} is {job.shown_state}; only failed and cancelled jobs can be tried again"
                )
            self.change(number, state="queued", wanted="run", wanted_at=None, deaths=0, error=None, exit_code=None,
                        ended=None, place=self._last_place(connection) + 1)  # fmt: skip
            self.tell(number, "to be tried again")
            return self.job(number)

    def set_priority(self, number: int, priority: int) -> Job:
        """Higher ones first."""
        with self.database.exclusive(_LOCK):
            self._open(number, "moved")
            self.change(number, priority=priority)
            return self.job(number)

    def move(self, number: int, *, before: int | None = None) -> Job:
        """Puts a waiting job before another one, or to the front; it takes over the other's priority.

        Raises:
            RequestError: one of them does not wait.
        """
        with self.database.exclusive(_LOCK):
            waiting = [job for job in self.jobs(("queued", "paused"), limit=100_000) if job.id != number]
            moved = self.job(number)
            if moved.state not in ("queued", "paused"):
                raise RequestError(f"job {number} is {moved.shown_state}; only waiting jobs can be moved")
            ids = [job.id for job in waiting]
            if before is not None and before not in ids:
                raise RequestError(f"job {before} does not wait; name one that `studio jobs list` shows as queued")
            at = ids.index(before) if before is not None else 0
            if waiting:
                self.change(number, priority=waiting[min(at, len(waiting) - 1)].priority)
            for place, identity in enumerate([*ids[:at], number, *ids[at:]]):
                self.change(identity, place=float(place))
            return self.job(number)

    def rename(self, number: int, title: str) -> Job:
        """Gives a job another title.

        Raises:
            RequestError: it is empty.
        """
        if not title.strip():
            raise RequestError("a title cannot be empty; give a few words")
        with self.database.exclusive(_LOCK):
            self.job(number)
            self.change(number, title=title.strip()[:200])
            return self.job(number)

    def forget(self, number: int) -> Job:
        """Takes an ended job out of the queue; its files stay where they are.

        Raises:
            RequestError: it has not ended, or another one needs it.
        """
        with self.database.exclusive(_LOCK) as connection:
            job = self.job(number)
            if job.is_open:
                raise RequestError(f"job {number} is {job.shown_state}; cancel it first")
            waiting = sa.select(NEEDS.c.job).join(JOBS, JOBS.c.id == NEEDS.c.job)
            waiting = waiting.where(NEEDS.c.needs == number, JOBS.c.state.in_(OPEN))
            if (needing := connection.scalar(waiting)) is not None:
                raise RequestError(f"job {needing} needs job {number}; cancel that one first")
            for table, column in (
                (EVENTS, EVENTS.c.job),
                (NEEDS, NEEDS.c.job),
                (NEEDS, NEEDS.c.needs),
                (JOBS, JOBS.c.id),
            ):
                connection.execute(sa.delete(table).where(column == number))
            return job

    # --- for workers, within the lock ---------------------------------------------------------------------------

    def change(self, number: int, **values: Any) -> None:
        """Writes columns of a job; a dict as JSON."""
        with self.database.exclusive(_LOCK) as connection:
            plain = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in values.items()}
            connection.execute(sa.update(JOBS).where(JOBS.c.id == number).values(**plain))

    def tell(self, number: int, text: str) -> None:
        """Writes into a job's history."""
        with self.database.exclusive(_LOCK) as connection:
            connection.execute(sa.insert(EVENTS).values(job=number, at=self.database.now(connection), text=text))

    def _now(self) -> float:
        with self.database.reading() as connection:
            return self.database.now(connection)

    def _open(self, number: int, what: str) -> Job:
        job = self.job(number)
        if not job.is_open:
            raise RequestError(f"job {number} is {job.state}; it cannot be {what}")
        return job

    def _last_place(self, connection: sa.Connection) -> float:
        return float(connection.scalar(sa.select(sa.func.max(JOBS.c.place)).where(JOBS.c.state.in_(OPEN))) or 0)

    def _select(self, *where: sa.ColumnElement[bool], limit: int = 1, offset: int = 0) -> list[Job]:
        turn = sa.case({"running": 0, "queued": 1, "paused": 1}, value=JOBS.c.state, else_=2)
        ended_last_first = sa.func.coalesce(JOBS.c.ended, 0).desc()
        wanted = sa.select(JOBS).where(*where).limit(limit).offset(offset)
        wanted = wanted.order_by(turn, ended_last_first, JOBS.c.priority.desc(), JOBS.c.place, JOBS.c.id)
        with self.database.reading() as connection:
            rows = connection.execute(wanted).mappings().all()
            ids = [row["id"] for row in rows]
            pairs = connection.execute(sa.select(NEEDS.c.job, NEEDS.c.needs).where(NEEDS.c.job.in_(ids))).all()
        needs: dict[int, list[int]] = {}
        for job, need in pairs:
            needs.setdefault(job, []).append(need)
        return [self._job(row, needs.get(row["id"], [])) for row in rows]

    def _job(self, row: sa.RowMapping, needs: list[int]) -> Job:
        return Job(
            id=row["id"], title=row["title"], words=tuple(json.loads(row["words"])), folder=self.root / row["folder"],
            directory=Path(row["directory"]), device=row["device"], state=row["state"],
            wanted=cast(Wanted, row["wanted"]), wanted_at=row["wanted_at"], priority=row["priority"],
            attempt=row["attempt"], token=row["token"], created=row["created"], started=row["started"],
            ended=row["ended"], exit_code=row["exit_code"],
            result=cast(Mapping[str, Any], json.loads(row["result"] or "{}")), error=row["error"],
            cloned_from=row["cloned_from"], needs=tuple(sorted(needs)),
        )  # fmt: skip


def _filters(states: Iterable[State], kinds: Iterable[str], text: str) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [JOBS.c.state.in_(list(states))]
    if wanted := list(kinds):
        found.append(sa.or_(*[JOBS.c.words.startswith(json.dumps([kind])[:-1], autoescape=True) for kind in wanted]))
    if text.strip():
        found.append(JOBS.c.title.icontains(text.strip(), autoescape=True))
    return found
