"""The tables of the library. They are in the queue's database; `studio.jobs.tables` makes them."""

from typing import Final

import sqlalchemy as sa

DATA: Final = sa.MetaData()

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

THINGS: Final = sa.Table(
    "library",
    DATA,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(12), nullable=False),
    sa.Column("root", sa.String(12), nullable=False),  # runs, bundled or models
    sa.Column("path", sa.String(1000), nullable=False),  # below the root; of a folder of models, absolute
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),  # all that a search looks at, in small letters
    sa.Column("facts", sa.Text, nullable=False),  # JSON, small: what a card shows
    sa.Column("made_at", sa.Float(53), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("stamp", sa.String(60), nullable=False),  # of its files; another one means that they are read again
    sa.Column("job", _ID),  # no foreign key: a job may be forgotten, what it made stays
    sa.Column("gone_at", sa.Float(53)),  # the files are not there any more
    sa.Column("trashed_at", sa.Float(53)),
    sa.Column("trash", sa.String(40), nullable=False),  # its folder in the trash; empty for what is not there
    sa.UniqueConstraint("root", "path", "trash", name="library_places"),
    sa.Index("library_by_kind", "kind", "made_at"),
    sa.Index("library_by_time", "made_at"),
)
TAGS: Final = sa.Table(
    "library_tags",
    DATA,
    sa.Column("thing", _ID, sa.ForeignKey("library.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag", sa.String(60), primary_key=True),
    sa.Index("library_by_tag", "tag"),
)
SCANS: Final = sa.Table(
    "library_scans",
    DATA,
    sa.Column("root", sa.Text, primary_key=True),
    sa.Column("at", sa.Float(53), nullable=False),
)
