"""Databases that several processes write to: SQLite for one machine, PostgreSQL for many."""

import errno
import hashlib
import importlib.util
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

_WAIT_S: Final = 120
"""For another process's lock on an SQLite file."""
_DRIVERS: Final = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class DatabaseError(ValueError):
    """An address is of no known kind, its driver is missing, or the database is out of reach or damaged."""


def database_url(storage: str) -> sa.URL:
    """Reads the address of a database.

    Raises:
        DatabaseError: it is of no known kind, or its driver is missing.
    """
    wrong = f"storage {storage!r}: must be sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    try:
        url = sa.make_url(storage)
    except ArgumentError as error:
        raise DatabaseError(wrong) from error
    if url.drivername in _DRIVERS:
        url = url.set(drivername=_DRIVERS[url.drivername])
    if url.get_backend_name() not in _DRIVERS:
        raise DatabaseError(wrong)
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise DatabaseError(f"storage {storage!r}: name a file, such as sqlite:///study.db")
    elif url.get_driver_name() == "psycopg" and importlib.util.find_spec("psycopg") is None:
        raise DatabaseError(f"storage {url}: needs the package psycopg; pip install 'animatex-studio[postgres]'")
    return url


class Database:
    """A database, its locks by name, and errors in words. Threads and processes may share an address."""

    def __init__(self, url: sa.URL, error: type[ValueError] = DatabaseError) -> None:
        self.url, self.sqlite = url, url.get_backend_name() == "sqlite"
        # without a pool: connections that stand idle for the hours of a training do not survive them
        self._engine = sa.create_engine(
            url, poolclass=sa.NullPool,
            connect_args={"timeout": _WAIT_S, "isolation_level": None} if self.sqlite else {},
        )  # fmt: skip
        self._error = error
        self._held = threading.local()

    @property
    def place(self) -> str:
        """The address without its password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def exists(self) -> bool:
        """Whether there is one to read from: an SQLite file begins with the first thing written."""
        return not self.sqlite or Path(str(self.url.database)).is_file()

    @property
    def held(self) -> sa.Connection | None:
        """The connection in which this thread holds a lock."""
        return getattr(self._held, "connection", None)

    @contextmanager
    def errors_are_told(self) -> Iterator[None]:
        """Words what a database says.

        Raises:
            OSError: the disk is full.
            DatabaseError: all else, as the class this database was made with.
        """
        try:
            yield
        except DBAPIError as error:
            words = str(error.orig).strip()
            if "disk is full" in words or getattr(error.orig, "sqlstate", None) == "53100":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.place) from error
            raise self._error(f"the database {self.place} cannot be used: {words}") from error

    @contextmanager
    def exclusive(self, *names: str) -> Iterator[sa.Connection]:
        """One transaction, in which the locks of these names are held; all of it is there at its end, or nothing.

        The database lets the locks go when the connection is lost. In SQLite there is one lock for all names.
        """
        if self.held is not None:
            yield self.held
            return
        with self.errors_are_told(), self._engine.connect() as connection:
            self._lock(connection, names)
            self._held.connection = connection
            try:
                yield connection
                connection.commit()
            finally:
                self._held.connection = None

    def _lock(self, connection: sa.Connection, names: Sequence[str]) -> None:
        if self.sqlite:
            # the driver itself begins too late, at the first change
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        for name in names:
            key = int.from_bytes(hashlib.sha256(f"animatex-studio {name}".encode()).digest()[:8], signed=True)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """The connection that holds a lock, or else one without."""
        if self.held is not None:
            yield self.held
            return
        with self.errors_are_told(), self._engine.connect() as connection:
            yield connection

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the database's clock, which is the same for all machines."""
        if self.sqlite:
            return time.time()
        return float(connection.scalar(sa.select(sa.func.extract("epoch", sa.func.clock_timestamp()))) or 0)

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()
