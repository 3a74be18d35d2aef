"""Keeps the index in step with the files, and takes in what a job made."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from studio.jobs.job import Job
from studio.jobs.kinds import value_of
from studio.jobs.queue import Queue
from studio.jobs.tables import JOBS
from studio.library.index import LOCK, Library, Scanned, mark_scan
from studio.library.read import Told, read
from studio.library.tables import THINGS
from studio.library.thing import PICTURES, VIDEOS, Kind
from studio.library.walk import Spot, spot_of, walk_runs


def rescan(library: Library) -> Scanned:
    """See `Library.rescan`."""
    from studio.library.trash import recover

    begun = time.monotonic()
    recover(library)
    known = _known(library)
    jobs = _jobs_by_folder(library)
    rows: list[tuple[Spot, Told, int | None, str]] = []
    seen: set[tuple[str, str]] = set()
    new = 0
    for spot in library.spots():
        key = (spot.root, spot.path)
        seen.add(key)
        if key in known and known[key] == (spot.stamp, False):
            continue
        if (told := read(spot)) is None:
            seen.discard(key)
            continue
        new += key not in known
        number, title = jobs.get(_job_folder(spot.path), (None, ""))
        rows.append((spot, told, number, title if spot.kind == "result" else ""))
    library.write_all(rows)
    lost = [key for key, (_, gone) in known.items() if not gone and key not in seen and not _is_there(library, *key)]
    _mark_gone(library, lost)
    mark_scan(library)
    return Scanned(new=new, changed=len(rows) - new, gone=len(lost), seen=len(seen),
                   seconds=time.monotonic() - begun)  # fmt: skip


def _known(library: Library) -> dict[tuple[str, str], tuple[str, bool]]:
    wanted = sa.select(THINGS.c.root, THINGS.c.path, THINGS.c.stamp, THINGS.c.gone_at).where(THINGS.c.trash == "")
    with library.database.reading() as connection:
        return {(root, path): (stamp, gone is not None) for root, path, stamp, gone in connection.execute(wanted)}


def _jobs_by_folder(library: Library) -> dict[str, tuple[int | None, str]]:
    wanted = sa.select(JOBS.c.folder, JOBS.c.id, JOBS.c.title)
    with library.database.reading() as connection:
        return {folder: (number, title) for folder, number, title in connection.execute(wanted)}


def _job_folder(path: str) -> str:
    return "/".join(path.split("/")[:2])


def _is_there(library: Library, root: str, path: str) -> bool:
    if root == "bundled":
        return False  # the list of those is complete
    return os.path.exists(library.root / path)  # what only a job knew of, such as a video without a sidecar


def _mark_gone(library: Library, keys: list[tuple[str, str]]) -> None:
    with library.database.exclusive(LOCK) as connection:
        for root, path in keys:
            here = sa.and_(THINGS.c.root == root, THINGS.c.path == path, THINGS.c.trash == "")
            connection.execute(sa.update(THINGS).where(here).values(gone_at=time.time()))


def take_in_job(queue: Queue, job: Job) -> int:
    """Adds what an ended job made to the library; how many things that were."""
    return Library(queue).take_in(job.id, job.title if job.kind in ("animate", "background") else "",
                                  _made_by(queue.root, job))  # fmt: skip


def take_in_quietly(queue: Queue, number: int, say: Callable[[str], None]) -> None:
    """The same for a worker, which goes on whatever happens here."""
    try:
        take_in_job(queue, queue.job(number))
    except Exception as error:  # the next look at all files finds what was missed
        say(f"job {number}: the library could not take in what it made: {error}")


def _made_by(root: Path, job: Job) -> Iterator[tuple[Spot, bool]]:
    """What lies in the job's folder, and what it said that it made elsewhere below the runs folder."""
    found = {spot.path: (spot, False) for spot in walk_runs(root, job.folder)}
    for text in _places(job):
        place = Path(os.path.normpath(job.directory / text))
        if not place.is_relative_to(root) or place == root or place.is_symlink():
            continue
        if place.is_dir() and not place.is_relative_to(job.folder):
            found.update({spot.path: (spot, False) for spot in walk_runs(root, place)})
        elif place.is_file() and (kind := _kind_of_output(place, job)) is not None:
            spot = spot_of(kind, root, place)
            found[spot.path] = (spot, True)
    yield from found.values()


def _places(job: Job) -> list[str]:
    told: list[Any] = [job.result.get(key) for key in ("output", "run", "adapter", "study", "weights")]
    told += [value_of(job.words, "--output-dir"), value_of(job.words, "--output")]
    return [text for text in told if isinstance(text, str) and text]


def _kind_of_output(place: Path, job: Job) -> Kind | None:
    suffix = place.suffix.lower()
    if suffix in (*VIDEOS, *PICTURES):
        return "result"
    if suffix == ".safetensors":
        return "adapter"
    if suffix == ".json" and job.kind == "pose":
        return "motion"
    return None
