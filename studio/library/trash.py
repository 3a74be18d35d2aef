"""The trash: files are moved, not deleted, and can be put back until it is emptied.

A manifest is written before anything is moved and says what is meant to happen, so a kill at any point leaves a thing
either where it was or in the trash, and never in both or in neither: `recover` finishes what was begun.
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa

from studio.errors import RequestError
from studio.files import moved_in
from studio.jobs.job import OPEN, Job
from studio.library.index import LOCK, Library
from studio.library.tables import TAGS, THINGS
from studio.library.thing import BESIDE, Thing
from studio.library.walk import TRASH

Aim = Literal["in", "out", "gone"]
_MANIFEST: Final = "manifest.json"
_NAME: Final = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
_QUEUE_LOCK: Final = "studio queue"


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A folder of the trash."""

    folder: Path
    aim: Aim
    """Where its files are meant to be: in the trash, out of it, or nowhere any more."""
    row: dict[str, Any]
    """What the index knew of the thing."""
    moved: dict[str, str]
    """Where each file was, below the runs folder -> its name here."""

    def here(self, name: str) -> Path:
        return self.folder / "files" / name


def put_in_trash(library: Library, numbers: Iterable[int]) -> list[Thing]:
    """Moves things into the trash: a result with its sidecar and sheet, a run's folder, an adapter.

    Raises:
        RequestError: one is bundled, in the trash already, or used by a job that has not ended; nothing was moved then.
        OSError: the disk cannot be written.
    """
    moved = []
    # both locks: no job may be submitted that uses a thing while it goes
    with library.database.exclusive(_QUEUE_LOCK, LOCK):
        things = [library.thing(number) for number in dict.fromkeys(numbers)]
        jobs = library.queue.jobs(OPEN, limit=100_000)
        for thing in things:
            _check_may_go(library, thing, jobs)
    for thing in things:
        # one transaction each: what was moved before an error stays known
        with library.database.exclusive(_QUEUE_LOCK, LOCK):
            _check_may_go(library, library.thing(thing.id), library.queue.jobs(OPEN, limit=100_000))
            moved.append(_put(library, thing))
    return moved


def _check_may_go(library: Library, thing: Thing, jobs: list[Job]) -> None:
    if thing.trash:
        raise RequestError(f"{thing.title} is in the trash already")
    if thing.is_bundled:
        why = "came with the studio" if thing.root == "bundled" else "lies outside of the runs folder"
        raise RequestError(f"{thing.title} {why} and cannot be deleted here")
    _check_inside(library.root, thing.place)
    for job in jobs:
        if _uses(job, thing.place, library.root):
            raise RequestError(
                f"{thing.title} is used by job {job.id} ({job.title}), which is {job.shown_state}; cancel it first"
            )


def _check_inside(root: Path, place: Path) -> None:
    """A row of the database is no proof of where a path leads.

    Raises:
        RequestError: it is not below the runs folder, or a link leads out of it.
    """
    inside = place.resolve().is_relative_to(root.resolve()) and not place.is_symlink()
    if not inside or place.resolve() == root.resolve() or ".." in place.parts:
        raise RequestError(f"{place} is not below {root}; only what lies there can be deleted")


def _uses(job: Job, place: Path, root: Path) -> bool:
    """Whether a job's folder or a path in its command is the place, in it, or a folder around it below the root."""

    def meets(path: Path) -> bool:
        return path.is_relative_to(place) or (place.is_relative_to(path) and path != root and path.is_relative_to(root))

    if meets(job.folder):
        return True
    for word in job.words:
        value = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        for text in (value, value.rpartition(":")[0]):  # ADAPTER:SCALE
            if text and "\0" not in text and meets(Path(os.path.normpath(job.directory / text))):
                return True
    return False


def _files_of(thing: Thing) -> list[Path]:
    if thing.kind != "result":
        return [thing.place]
    return [thing.place, *(path for suffix in BESIDE if (path := thing.beside(suffix)) is not None)]


def _put(library: Library, thing: Thing) -> Thing:
    root = library.root
    if not thing.place.exists():
        raise RequestError(f"{thing.place} is not there any more; look again with `studio library rescan`")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    moved = {path.relative_to(root).as_posix(): path.name for path in _files_of(thing)}
    entry = _Entry(folder=root / TRASH / name, aim="in", row=_row_of(library, thing), moved=moved)
    (entry.folder / "files").mkdir(parents=True)
    _write(entry)
    _move_in(root, entry)
    _mark_in_trash(library, entry)
    return library.thing(thing.id)


def _move_in(root: Path, entry: _Entry) -> None:
    for origin, name in entry.moved.items():
        if (root / origin).exists() and not entry.here(name).exists():
            os.rename(root / origin, entry.here(name))


def _mark_in_trash(library: Library, entry: _Entry) -> None:
    """Tells the index; a thing that it does not know any more is added from the manifest."""
    row, name = entry.row, entry.folder.name
    with library.database.exclusive(LOCK) as connection:
        if connection.scalar(sa.select(THINGS.c.id).where(THINGS.c.trash == name)) is not None:
            return
        here = sa.and_(THINGS.c.root == "runs", THINGS.c.path == row["path"], THINGS.c.trash == "")
        values = {"trash": name, "trashed_at": row["trashed_at"], "gone_at": None}
        if connection.scalar(sa.select(THINGS.c.id).where(here)) is not None:
            connection.execute(sa.update(THINGS).where(here).values(**values))
            connection.execute(sa.update(THINGS).where(_within(row["path"])).values(gone_at=time.time()))
            return
        known = {key: row[key] for key in (c.name for c in THINGS.c) if key in row and key not in ("id", *values)}
        made = connection.execute(sa.insert(THINGS).values(**{**known, **values})).inserted_primary_key
        assert made is not None
        if row["tags"]:
            connection.execute(sa.insert(TAGS), [{"thing": made[0], "tag": tag} for tag in row["tags"]])


def _within(path: str) -> sa.ColumnElement[bool]:
    """Things that lie in a folder that is one itself, such as the adapter of a run."""
    inside = THINGS.c.path.startswith(f"{path}/", autoescape=True)
    return sa.and_(THINGS.c.root == "runs", THINGS.c.trash == "", inside)


def restore(library: Library, number: int) -> Thing:
    """Puts a thing back where it was.

    Raises:
        RequestError: it is not in the trash, or something is in its place now.
        OSError: the disk cannot be written.
    """
    with library.database.exclusive(LOCK):
        thing = library.thing(number)
        entry = _read(library.root / TRASH / thing.trash) if thing.trash else None
        if entry is None or entry.aim == "gone":
            raise RequestError(f"{thing.title} is not in the trash")
        for origin in entry.moved:
            if (library.root / origin).exists():
                raise RequestError(f"{library.root / origin} is there again; move it away first, then restore")
        _check_inside(library.root, library.root / thing.path)
        entry = _with_aim(entry, "out")
        _move_out(library, entry)
        return library.thing(number)


def _move_out(library: Library, entry: _Entry) -> None:
    for origin, name in entry.moved.items():
        if entry.here(name).exists() and not (library.root / origin).exists():
            (library.root / origin).parent.mkdir(parents=True, exist_ok=True)
            os.rename(entry.here(name), library.root / origin)
    with library.database.exclusive(LOCK) as connection:
        here = sa.and_(THINGS.c.root == "runs", THINGS.c.path == entry.row["path"], THINGS.c.trash == "")
        mine = THINGS.c.trash == entry.folder.name
        if connection.scalar(sa.select(THINGS.c.id).where(mine)) is not None:
            # a row of the same place is of files that went away: it gives way to the one with tags and history
            connection.execute(sa.delete(THINGS).where(here))
            connection.execute(sa.update(THINGS).where(mine).values(trash="", trashed_at=None, gone_at=None))
            connection.execute(sa.update(THINGS).where(_within(entry.row["path"])).values(gone_at=None))
    _discard(entry)


def empty(library: Library, numbers: Iterable[int] | None = None) -> tuple[int, int]:
    """Deletes what is in the trash for good: things and bytes. By default all of it.

    Raises:
        RequestError: one of them is not in the trash.
    """
    folder = library.root / TRASH
    if numbers is None:
        names = [entry.folder.name for entry in _entries(folder)]
    else:
        names = []
        for number in numbers:
            thing = library.thing(number)
            if not thing.trash:
                raise RequestError(f"{thing.title} is not in the trash")
            names.append(thing.trash)
    things = size = 0
    for name in names:
        with library.database.exclusive(LOCK) as connection:
            entry = _read(folder / name)
            if entry is None or entry.aim == "out":
                continue
            size += int(connection.scalar(sa.select(sa.func.sum(THINGS.c.bytes)).where(THINGS.c.trash == name)) or 0)
            entry = _with_aim(entry, "gone")
            _forget(library, name)
        _discard(entry)  # outside of the lock: gigabytes may go here
        things += 1
    return things, size


def _forget(library: Library, name: str) -> None:
    with library.database.exclusive(LOCK) as connection:
        mine = sa.select(THINGS.c.id).where(THINGS.c.trash == name)
        connection.execute(sa.delete(TAGS).where(TAGS.c.thing.in_(mine)))
        connection.execute(sa.delete(THINGS).where(THINGS.c.trash == name))


def recover(library: Library) -> int:
    """Finishes what a killed process had begun; how many things that concerned.

    What was not moved at all stays where it is. What was moved in part goes where it was meant to go.
    """
    concerned = 0
    for entry in _entries(library.root / TRASH):
        with library.database.exclusive(LOCK) as connection:
            again = _read(entry.folder)
            if again is None:
                continue
            entry = again
            marked = connection.scalar(sa.select(THINGS.c.id).where(THINGS.c.trash == entry.folder.name)) is not None
            here = [name for name in entry.moved.values() if entry.here(name).exists()]
            if entry.aim == "in" and marked and here:
                continue  # as it should be; what lies at its old place now is something else
            concerned += 1
            if entry.aim == "in" and here:
                _move_in(library.root, entry)
                _mark_in_trash(library, entry)
                continue
            if entry.aim == "out":
                _move_out(library, entry)
                continue
            _forget(library, entry.folder.name)  # it never went in, its files were taken away, or it was to go
        _discard(entry)
    return concerned


# --- folders of the trash ----------------------------------------------------------------------------------------


def _entries(folder: Path) -> list[_Entry]:
    try:
        names = sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))
    except FileNotFoundError:
        return []
    return [entry for name in names if (entry := _read(folder / name)) is not None]


def _read(folder: Path) -> _Entry | None:
    """Reads a manifest; None where there is none, or it names what lies outside."""
    if not _NAME.fullmatch(folder.name) or folder.is_symlink():
        return None
    try:
        told = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        moved = {str(origin): str(name) for origin, name in told["moved"].items()}
        aim, row = told["aim"], dict(told["row"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    tame = all("/" not in n and n not in ("", ".", "..") and not Path(o).is_absolute() and ".." not in Path(o).parts
               for o, n in moved.items())  # fmt: skip
    if aim not in ("in", "out", "gone") or not tame:
        return None
    return _Entry(folder=folder, aim=aim, row=row, moved=moved)


def _write(entry: _Entry) -> None:
    with moved_in(entry.folder / _MANIFEST) as beside:
        told = {"aim": entry.aim, "row": entry.row, "moved": entry.moved}
        with beside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _with_aim(entry: _Entry, aim: Aim) -> _Entry:
    changed = _Entry(folder=entry.folder, aim=aim, row=entry.row, moved=entry.moved)
    _write(changed)
    return changed


def _discard(entry: _Entry) -> None:
    """Takes a folder of the trash away, its manifest last."""
    files = entry.folder / "files"
    if files.is_dir() and not files.is_symlink():
        shutil.rmtree(files, ignore_errors=True)  # two may empty the trash at once
        if files.exists():
            raise OSError(f"{files} cannot be deleted; look at its owner and rights")
    (entry.folder / _MANIFEST).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        entry.folder.rmdir()


def _row_of(library: Library, thing: Thing) -> dict[str, Any]:
    with library.database.reading() as connection:
        row = connection.execute(sa.select(THINGS).where(THINGS.c.id == thing.id)).mappings().one()
    return {**dict(row), "tags": list(thing.tags), "trashed_at": time.time()}
