"""A ledger in a database: SQLite for one machine, PostgreSQL for many. Several studies fit into one, by name."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import sqlalchemy as sa

from training.databases import Database, DatabaseError, database_url
from training.owners import Owner
from training.search.entries import Entry, LedgerError, from_json, to_json
from training.search.leases import Leases

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


def open_sql(storage: str, study: str | None) -> "SqlLedger":
    """A study's ledger in a database.

    Raises:
        LedgerError: the address is of no known kind, its driver is missing, the database is out of reach, or no study
            is named and it does not hold exactly one.
    """
    try:
        url = database_url(storage)
    except DatabaseError as error:
        raise LedgerError(str(error)) from error
    return SqlLedger(url, study)


class SqlLedger:
    """A table of entries. Ids of one study are given out under its lock, so they stand in the order of the entries."""

    def __init__(self, url: sa.URL, study: str | None) -> None:
        self.database = Database(url, LedgerError)
        self._made = False
        self.study = study or self._only_study()
        self.leases: Leases = SqlLeases(self)

    @property
    def place(self) -> str:
        """The database's address without its password, and the study."""
        return f"{self.database.place} ({self.study})"

    def _only_study(self) -> str:
        with self.reading() as connection:
            names = [] if connection is None else list(connection.scalars(sa.select(_ENTRIES.c.study).distinct()))
        if len(names) != 1:
            there = f"{len(names)} studies, {', '.join(sorted(names))}: name one" if names else "no study"
            raise LedgerError(f"{self.database.place} holds {there}")
        return str(names[0])

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One transaction, in which this study's lock is held; all that is added in it is there at its end, or nothing.

        The database lets the lock go when the connection is lost.
        """
        # the tables of all studies are made under one lock
        with self.database.exclusive(*([self.study] if self._made else ["", self.study])) as connection:
            if not self._made:
                _DATA.create_all(connection)
                self._made = True
            yield

    @contextmanager
    def reading(self) -> Iterator[sa.Connection | None]:
        """The connection that holds the lock, or else one without; None where nothing was ever written."""
        if not self.database.exists:
            yield None
            return
        with self.database.reading() as connection:
            self._made = self._made or sa.inspect(connection).has_table(_LEASES.name)
            yield connection if self._made else None

    def append(self, entry: Entry) -> None:
        """Inserts a row."""
        with self.exclusive():
            text = json.dumps(to_json(entry), allow_nan=False)
            assert self.database.held is not None
            self.database.held.execute(sa.insert(_ENTRIES).values(study=self.study, entry=text))

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
        return self.database.now(connection)

    def close(self) -> None:
        """Lets go of the database."""
        self.database.close()


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
