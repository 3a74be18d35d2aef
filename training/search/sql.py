"""A ledger in a database: SQLite for one machine, PostgreSQL for many. Several studies fit into one, by name."""

import errno
import hashlib
import importlib.util
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from training.search.entries import Entry, LedgerError, from_json, to_json
from training.search.leases import Leases, Owner

_DATA = sa.MetaData()
_ENTRIES = sa.Table(
    "study_ledger",
    _DATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("study", sa.String(200), nullable=False, index=True),
    sa.Column("entry", sa.Text, nullable=False),
)
_LEASES = sa.Table(
    "study_leases",
    _DATA,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("trial", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("beaten", sa.Float(53), nullable=False),
)
_WAIT_S: Final = 120
"""For another process's lock on an SQLite file."""
_DRIVERS: Final = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def open_sql(storage: str, study: str | None) -> "SqlLedger":
    """A study's ledger in a database.

    Raises:
        LedgerError: the address is of no known kind, its driver is missing, the database is out of reach, or no study
            is named and it does not hold exactly one.
    """
    try:
        url = sa.make_url(storage)
    except ArgumentError as error:
        raise LedgerError(f"storage {storage!r}: must be sqlite:///FILE or postgresql://USER@HOST/DATABASE") from error
    if url.drivername in _DRIVERS:
        url = url.set(drivername=_DRIVERS[url.drivername])
    if url.get_backend_name() not in _DRIVERS:
        raise LedgerError(f"storage {storage!r}: must be sqlite:///FILE or postgresql://USER@HOST/DATABASE")
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise LedgerError(f"storage {storage!r}: name a file, such as sqlite:///study.db")
    elif url.get_driver_name() == "psycopg" and importlib.util.find_spec("psycopg") is None:
        raise LedgerError(f"storage {url}: needs the package psycopg; pip install 'animatex-studio[postgres]'")
    return SqlLedger(url, study)


class SqlLedger:
    """A table of entries. Ids of one study are given out under its lock, so they stand in the order of the entries."""

    def __init__(self, url: sa.URL, study: str | None) -> None:
        self._url, self._sqlite = url, url.get_backend_name() == "sqlite"
        # without a pool: connections that stand idle for the hours of a training do not survive them
        self._engine = sa.create_engine(
            url, poolclass=sa.NullPool,
            connect_args={"timeout": _WAIT_S, "isolation_level": None} if self._sqlite else {},
        )  # fmt: skip
        self._held = threading.local()
        self._made = False
        with self._errors_are_told():
            self.study = study or self._only_study()
        self.leases: Leases = SqlLeases(self)

    @property
    def place(self) -> str:
        """The database's address without its password, and the study."""
        return f"{self._url.render_as_string(hide_password=True)} ({self.study})"

    def _only_study(self) -> str:
        with self.reading() as connection:
            names = [] if connection is None else list(connection.scalars(sa.select(_ENTRIES.c.study).distinct()))
        if len(names) != 1:
            there = f"{len(names)} studies, {', '.join(sorted(names))}: name one" if names else "no study"
            raise LedgerError(f"{self._url.render_as_string(hide_password=True)} holds {there}")
        return str(names[0])

    @contextmanager
    def _errors_are_told(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            words = str(error.orig).strip()
            if "disk is full" in words or getattr(error.orig, "sqlstate", None) == "53100":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.place) from error
            raise LedgerError(
                f"the database {self._url.render_as_string(hide_password=True)} cannot be used: {words}"
            ) from error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One transaction, in which this study's lock is held; all that is added in it is there at its end, or nothing.

        The database lets the lock go when the connection is lost.
        """
        if getattr(self._held, "connection", None) is not None:
            yield
            return
        with self._errors_are_told(), self._engine.connect() as connection:
            self._lock(connection)
            self._held.connection = connection
            try:
                if not self._made:
                    _DATA.create_all(connection)
                    self._made = True
                yield
                connection.commit()
            finally:
                self._held.connection = None

    def _lock(self, connection: sa.Connection) -> None:
        if self._sqlite:
            # the driver itself begins too late, at the first change
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        # the tables of all studies are made under one lock
        for name in [self.study] if self._made else ["", self.study]:
            key = int.from_bytes(hashlib.sha256(f"animatex-studio {name}".encode()).digest()[:8], signed=True)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    @contextmanager
    def reading(self) -> Iterator[sa.Connection | None]:
        """The connection that holds the lock, or else one without; None where nothing was ever written."""
        held: sa.Connection | None = getattr(self._held, "connection", None)
        if held is not None:
            yield held
            return
        if self._sqlite and not Path(str(self._url.database)).is_file():
            yield None
            return
        with self._errors_are_told(), self._engine.connect() as connection:
            self._made = self._made or sa.inspect(connection).has_table(_LEASES.name)
            yield connection if self._made else None

    def append(self, entry: Entry) -> None:
        """Inserts a row."""
        with self.exclusive():
            text = json.dumps(to_json(entry), allow_nan=False)
            self._held.connection.execute(sa.insert(_ENTRIES).values(study=self.study, entry=text))

    def read(self, offset: int = 0) -> tuple[list[Entry], int]:
        """The rows after an id."""
        wanted = (
            sa.select(_ENTRIES.c.id, _ENTRIES.c.entry)
            .where(_ENTRIES.c.study == self.study, _ENTRIES.c.id > offset)
            .order_by(_ENTRIES.c.id)
        )
        with self.reading() as connection:
            rows = [] if connection is None else connection.execute(wanted).all()
        try:
            return [from_json(json.loads(text)) for _, text in rows], rows[-1][0] if rows else offset
        except ValueError as error:
            raise LedgerError(f"{self.place}: {error}") from error

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the database's clock, which is the same for all machines."""
        if self._sqlite:
            return time.time()
        return float(connection.scalar(sa.select(sa.func.extract("epoch", sa.func.clock_timestamp()))) or 0)

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()


class SqlLeases:
    """One row a trial."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger

    def _of(self, trial: int) -> sa.ColumnElement[bool]:
        return sa.and_(_LEASES.c.study == self._ledger.study, _LEASES.c.trial == trial)

    def owner(self, trial: int) -> tuple[Owner, float] | None:
        """Who holds a trial."""
        with self._ledger.reading() as connection:
            if connection is None:
                return None
            row = connection.execute(sa.select(_LEASES.c.owner, _LEASES.c.beaten).where(self._of(trial))).first()
            return None if row is None else (Owner(**json.loads(row[0])), self._ledger.now(connection) - row[1])

    def take(self, trial: int, owner: Owner) -> None:
        """Writes the row."""
        with self._ledger.exclusive(), self._ledger.reading() as connection:
            assert connection is not None
            connection.execute(sa.delete(_LEASES).where(self._of(trial)))
            connection.execute(
                sa.insert(_LEASES).values(
                    study=self._ledger.study, trial=trial, owner=json.dumps(asdict(owner)),
                    beaten=self._ledger.now(connection),
                )
            )  # fmt: skip

    def beat(self, trial: int, owner: Owner) -> None:
        """Writes the time into the row."""
        with self._ledger.exclusive(), self._ledger.reading() as connection:
            assert connection is not None
            mine = sa.and_(self._of(trial), _LEASES.c.owner == json.dumps(asdict(owner)))
            connection.execute(sa.update(_LEASES).where(mine).values(beaten=self._ledger.now(connection)))

    def release(self, trial: int, owner: Owner) -> None:
        """Deletes the row."""
        with self._ledger.exclusive():
            if (held := self.owner(trial)) is not None and held[0] == owner:
                with self._ledger.reading() as connection:
                    assert connection is not None
                    connection.execute(sa.delete(_LEASES).where(self._of(trial)))
