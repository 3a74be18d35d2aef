"""The index: what there is, found by words, and kept in step with the files."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import sqlalchemy as sa

from studio.errors import RequestError
from studio.jobs.queue import Queue
from studio.library.read import Told, read
from studio.library.tables import SCANS, TAGS, THINGS
from studio.library.thing import KINDS, Kind, Order, Root, Thing, plain_json, search_text
from studio.library.walk import TRASH, Spot, bundled, models_in

LOCK: Final = "studio library"
_MAX_TAGS: Final = 30
_MAX_TAG: Final = 60
_AT_ONCE: Final = 400
"""Rows a transaction: the queue is not to wait long for its turn."""


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What a look at the files changed."""

    new: int
    changed: int
    gone: int
    seen: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Use:
    """What one kind takes of the disk."""

    kind: str
    """A kind, or "trash"."""
    things: int
    bytes: int


class Library:
    """The things of a studio. Objects are cheap."""

    def __init__(self, queue: Queue, model_folders: tuple[Path, ...] = ()) -> None:
        self.queue, self.database, self.root = queue, queue.database, queue.root
        self.model_folders = model_folders

    # --- asking -------------------------------------------------------------------------------------------------

    def thing(self, number: int) -> Thing:
        """One thing.

        Raises:
            RequestError: there is none of that number.
        """
        found = self._select(THINGS.c.id == number)
        if not found:
            raise RequestError(
                f"there is no thing {number} in the library; `studio library list` shows those there are"
            )
        return found[0]

    def search(
        self,
        text: str = "",
        *,
        kinds: Iterable[Kind] = (),
        tags: Iterable[str] = (),
        trashed: bool = False,
        order: Order = "newest",
        limit: int = 24,
        offset: int = 0,
    ) -> list[Thing]:
        """Things that have all the words somewhere in title, prompt, tags, kind, model, path or facts."""
        return self._select(
            *_filters(text, kinds, tags, trashed), order=order, limit=limit, offset=offset, trashed=trashed
        )

    def count(
        self, text: str = "", *, kinds: Iterable[Kind] = (), tags: Iterable[str] = (), trashed: bool = False
    ) -> int:
        """How many things `search` would find in all."""
        with self.database.reading() as connection:
            wanted = sa.select(sa.func.count()).select_from(THINGS).where(*_filters(text, kinds, tags, trashed))
            return int(connection.scalar(wanted) or 0)

    def usage(self) -> list[Use]:
        """How much each kind takes of the disk, the trash last. An adapter in a run counts with its run as well."""
        with self.database.reading() as connection:
            kind = sa.case((THINGS.c.trash != "", "trash"), else_=THINGS.c.kind)
            wanted = sa.select(kind, sa.func.count(), sa.func.coalesce(sa.func.sum(THINGS.c.bytes), 0))
            rows = connection.execute(wanted.where(THINGS.c.gone_at.is_(None)).group_by(kind)).all()
        found = {str(row[0]): Use(kind=str(row[0]), things=int(row[1]), bytes=int(row[2])) for row in rows}
        return [found.get(kind, Use(kind=kind, things=0, bytes=0)) for kind in (*KINDS, "trash")]

    def tags(self) -> list[str]:
        """All tags of things that are there."""
        there = sa.select(TAGS.c.tag).join(THINGS, THINGS.c.id == TAGS.c.thing)
        with self.database.reading() as connection:
            wanted = there.where(THINGS.c.gone_at.is_(None), THINGS.c.trash == "").distinct().order_by(TAGS.c.tag)
            return [str(tag) for tag in connection.scalars(wanted)]

    def scanned_at(self) -> float | None:
        """When the files were looked at last; None before the first time."""
        with self.database.reading() as connection:
            found = connection.scalar(sa.select(SCANS.c.at).where(SCANS.c.root == "runs"))
        return None if found is None else float(found)

    # --- changing -----------------------------------------------------------------------------------------------

    def set_tags(self, number: int, tags: Iterable[str]) -> Thing:
        """Gives a thing these tags and no others.

        Raises:
            RequestError: a tag is empty or too long, or there are too many.
        """
        wanted = tuple(sorted({" ".join(tag.split()).casefold() for tag in tags}))
        if len(wanted) > _MAX_TAGS:
            raise RequestError(f"{len(wanted)} tags are too many; use at most {_MAX_TAGS}")
        for tag in wanted:
            if not tag or len(tag) > _MAX_TAG or "," in tag:
                raise RequestError(f"tag {tag[:80]!r}: must have 1 to {_MAX_TAG} characters and no comma")
        with self.database.exclusive(LOCK) as connection:
            thing = self.thing(number)
            connection.execute(sa.delete(TAGS).where(TAGS.c.thing == number))
            if wanted:
                connection.execute(sa.insert(TAGS), [{"thing": number, "tag": tag} for tag in wanted])
            text = search_text(thing.title, thing.prompt, thing.model, thing.kind, thing.path, thing.facts, wanted)
            connection.execute(sa.update(THINGS).where(THINGS.c.id == number).values(text=text))
            return self.thing(number)

    def rename(self, number: int, title: str) -> Thing:
        """Gives a thing another title; its files keep their names.

        Raises:
            RequestError: it is empty, or the thing is bundled.
        """
        words = " ".join(title.split())[:200]
        if not words:
            raise RequestError("a title cannot be empty; give a few words")
        with self.database.exclusive(LOCK) as connection:
            thing = self.thing(number)
            if thing.root == "bundled":
                raise RequestError(f"{thing.title} came with the studio and keeps its name")
            text = search_text(words, thing.prompt, thing.model, thing.kind, thing.path, thing.facts, thing.tags)
            facts = plain_json({**thing.facts, "named": True})
            connection.execute(
                sa.update(THINGS).where(THINGS.c.id == number).values(title=words, text=text, facts=facts)
            )
            return self.thing(number)

    def take_in(self, job: int, title: str, spots: Iterable[tuple[Spot, bool]]) -> int:
        """Adds what a job made, or brings it up to date; how many things that were.

        Args:
            title: for its results; by default what the files say.
            spots: where they are, and whether the job itself said that it made them.
        """
        rows = [(spot, told, job, title if spot.kind == "result" else "")
                for spot, known in spots if (told := read(spot, known=known)) is not None]  # fmt: skip
        self.write_all(rows)
        return len(rows)

    def rescan(self) -> Scanned:
        """Looks at all files again; only what changed is read. What went away is marked, and found if it comes back."""
        from studio.library.scan import rescan

        return rescan(self)

    # --- for the rooms beside this one --------------------------------------------------------------------------

    def spots(self) -> Iterator[Spot]:
        """All that lies there now."""
        from studio.library.walk import walk_runs

        yield from walk_runs(self.root)
        yield from bundled()
        yield from models_in(self.model_folders)

    def write_all(self, rows: Sequence[tuple[Spot, Told, int | None, str]]) -> None:
        """Adds or changes many things, some at a time."""
        waiting = iter(rows)
        while part := list(islice(waiting, _AT_ONCE)):
            with self.database.exclusive(LOCK) as connection:
                known = _known_rows(connection, [spot.path for spot, *_ in part])
                new = []
                for spot, told, job, title in part:
                    row = known.get((spot.root, spot.path))
                    values = _values(spot, told, job, title, row)
                    if row is None:
                        new.append({"root": spot.root, "path": spot.path, "trash": "", "job": None, **values})
                    else:
                        connection.execute(sa.update(THINGS).where(THINGS.c.id == row.id).values(**values))
                if new:
                    connection.execute(sa.insert(THINGS), new)

    def _select(
        self, *where: sa.ColumnElement[bool], order: Order = "newest", limit: int = 1, offset: int = 0,
        trashed: bool = False,
    ) -> list[Thing]:  # fmt: skip
        when = THINGS.c.trashed_at if trashed else THINGS.c.made_at
        by = {"newest": when.desc(), "oldest": when, "largest": THINGS.c.bytes.desc(), "title": THINGS.c.title}[order]
        wanted = (
            sa.select(THINGS).where(*where).order_by(by, THINGS.c.title, THINGS.c.id.desc()).limit(limit).offset(offset)
        )
        with self.database.reading() as connection:
            rows = connection.execute(wanted).mappings().all()
            ids = [row["id"] for row in rows]
            pairs = connection.execute(sa.select(TAGS).where(TAGS.c.thing.in_(ids)).order_by(TAGS.c.tag)).all()
        tags: dict[int, list[str]] = {}
        for thing, tag in pairs:
            tags.setdefault(thing, []).append(tag)
        return [self._thing(row, tuple(tags.get(row["id"], ()))) for row in rows]

    def _thing(self, row: sa.RowMapping, tags: tuple[str, ...]) -> Thing:
        kind, root = cast(Kind, row["kind"]), cast(Root, row["root"])
        return Thing(
            id=row["id"], kind=kind, root=root, path=row["path"],
            place=self._place(kind, root, row["path"], row["trash"]),
            title=row["title"], prompt=row["prompt"], model=row["model"], facts=json.loads(row["facts"]),
            made_at=row["made_at"], bytes=row["bytes"], job=row["job"], trashed_at=row["trashed_at"],
            trash=row["trash"] or None, tags=tags,
        )  # fmt: skip

    def _place(self, kind: Kind, root: Root, path: str, trash: str) -> Path:
        if trash:
            return self.root / TRASH / trash / "files" / Path(path).name
        if root == "runs":
            return self.root / path
        if root == "models":
            return Path(path)
        return _bundled_place(kind, Path(path).name)


def _bundled_place(kind: Kind, name: str) -> Path:
    from studio.characters import character_file
    from studio.weights import mini_folder

    if kind == "character":
        return character_file(name)
    return mini_folder() if kind == "model" else Path(name)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What the index says of a place already."""

    id: int
    title: str
    named: bool
    """Whether a person gave it its title."""
    tags: tuple[str, ...]


def _known_rows(connection: sa.Connection, paths: list[str]) -> dict[tuple[str, str], _Row]:
    wanted = sa.select(THINGS.c.id, THINGS.c.root, THINGS.c.path, THINGS.c.title, THINGS.c.facts)
    found = connection.execute(wanted.where(THINGS.c.path.in_(paths), THINGS.c.trash == "")).all()
    tags: dict[int, list[str]] = {}
    for thing, tag in connection.execute(sa.select(TAGS).where(TAGS.c.thing.in_([row.id for row in found]))):
        tags.setdefault(thing, []).append(tag)
    return {
        (row.root, row.path): _Row(id=row.id, title=row.title, named=bool(json.loads(row.facts).get("named")),
                                   tags=tuple(sorted(tags.get(row.id, ()))))
        for row in found
    }  # fmt: skip


def _values(spot: Spot, told: Told, job: int | None, title: str, row: _Row | None) -> dict[str, Any]:
    """The columns of a thing; what a person gave it stays."""
    shown = row.title if row is not None and row.named else (title or told.title)[:200]
    facts = {**told.facts, "named": True} if row is not None and row.named else dict(told.facts)
    tags = () if row is None else row.tags
    return {
        "kind": spot.kind, "title": shown, "prompt": told.prompt, "model": told.model,
        "text": search_text(shown, told.prompt, told.model, spot.kind, spot.path, told.facts, tags),
        "facts": plain_json(facts), "made_at": spot.made_at, "bytes": spot.bytes, "stamp": spot.stamp,
        "gone_at": None, **({} if job is None else {"job": job}),
    }  # fmt: skip


def _filters(text: str, kinds: Iterable[Kind], tags: Iterable[str], trashed: bool) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [THINGS.c.gone_at.is_(None)]
    found.append(THINGS.c.trash != "" if trashed else THINGS.c.trash == "")
    if wanted := list(kinds):
        found.append(THINGS.c.kind.in_(wanted))
    # words are looked for as they are; "%" and "_" have no meaning of their own
    found += [THINGS.c.text.contains(word, autoescape=True) for word in text.casefold().split()[:12]]
    for tag in tags:
        found.append(THINGS.c.id.in_(sa.select(TAGS.c.thing).where(TAGS.c.tag == tag.casefold())))
    return found


def mark_scan(library: Library) -> None:
    """Remembers that the files were looked at."""
    with library.database.exclusive(LOCK) as connection:
        connection.execute(sa.delete(SCANS).where(SCANS.c.root == "runs"))
        connection.execute(sa.insert(SCANS).values(root="runs", at=time.time()))
