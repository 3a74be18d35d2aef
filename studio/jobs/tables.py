"""The tables of the queue, and how an older file becomes a newer one."""

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from studio.errors import RequestError
from training.databases import Database

DATA: Final = sa.MetaData()

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

JOBS: Final = sa.Table(
    "jobs",
    DATA,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("words", sa.Text, nullable=False),  # JSON list: what stands after `studio`
    sa.Column("folder", sa.String(500), nullable=False),  # below the root of the queue
    sa.Column("directory", sa.Text, nullable=False),  # relative paths in the words begin here
    sa.Column("device", sa.String(20), nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("wanted", sa.String(12), nullable=False),
    sa.Column("wanted_at", sa.Float(53)),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("place", sa.Float(53), nullable=False),  # among those of a priority
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("deaths", sa.Integer, nullable=False),
    sa.Column("token", sa.String(40)),  # of the attempt; one that is over can change nothing any more
    sa.Column("owner", sa.Text),
    sa.Column("beaten", sa.Float(53)),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("started", sa.Float(53)),
    sa.Column("ended", sa.Float(53)),
    sa.Column("exit_code", sa.Integer),
    sa.Column("result", sa.Text),  # JSON, what `--json` printed
    sa.Column("error", sa.Text),
    sa.Column("cloned_from", _ID),
    sa.Index("jobs_by_turn", "state", "priority", "place"),
)
NEEDS: Final = sa.Table(
    "job_needs",
    DATA,
    sa.Column("job", _ID, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("needs", _ID, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
)
EVENTS: Final = sa.Table(
    "job_events",
    DATA,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("job", _ID, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)
WORKERS: Final = sa.Table(
    "workers",
    DATA,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("machine", sa.String(200), nullable=False),
    sa.Column("device", sa.String(20), nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("started", sa.Float(53), nullable=False),
    sa.Column("beaten", sa.Float(53), nullable=False),
)
_VERSION = sa.Table("studio_schema", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False))


def _first(connection: sa.Connection) -> None:
    """The queue."""
    DATA.create_all(connection, tables=[JOBS, NEEDS, EVENTS, WORKERS])


def _library(connection: sa.Connection) -> None:
    """The library of what was made. Its tables stand in its own room, which knows the queue."""
    from studio.library.tables import DATA as LIBRARY

    LIBRARY.create_all(connection)


MIGRATIONS: Final[list[Callable[[sa.Connection], None]]] = [_first, _library]
"""From each version to the next, 0 being an empty file. What stands here is never changed: add one at the end."""


def migrate(database: Database) -> None:
    """Makes the tables, or brings older ones up to date; all of it or nothing.

    Raises:
        RequestError: a newer version of this program made them.
    """
    if database.exists:
        with database.reading() as connection:
            if sa.inspect(connection).has_table(_VERSION.name) and _version(connection) == len(MIGRATIONS):
                return
    if database.sqlite:
        with database.errors_are_told(), database.reading() as connection:
            # readers and a writer side by side; the file remembers it
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    with database.exclusive("studio schema") as connection:
        _VERSION.create(connection, checkfirst=True)
        version = _version(connection)
        if version > len(MIGRATIONS):
            raise RequestError(
                f"{database.place} was made by a newer version of the studio (schema {version}, this one knows "
                f"{len(MIGRATIONS)}); update with pip install -U animatex-studio"
            )
        for step in MIGRATIONS[version:]:
            step(connection)
        connection.execute(sa.delete(_VERSION))
        connection.execute(sa.insert(_VERSION).values(version=len(MIGRATIONS)))


def _version(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.select(_VERSION.c.version)) or 0)
