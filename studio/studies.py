"""The studies of `studio search`: where they are, and which jobs work on them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from studio.cli.flags import parse_flags
from studio.cli.verbs.search import SearchRequest
from studio.errors import RequestError
from studio.jobs import Job
from studio.places import folders_with

LEDGER: Final = "ledger.jsonl"
SETUP: Final = "setup.json"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a study is."""

    folder: Path
    storage: str | None = None
    """Its database, where the ledger is not in the folder."""
    name: str | None = None
    """Its name there."""

    @property
    def title(self) -> str:
        """How a list calls it."""
        return self.name or self.folder.name


def is_search(job: Job) -> bool:
    """Whether a job searches, instead of showing a study."""
    return job.kind == "search" and job.words[1:2] != ("show",)


def request_of(job: Job) -> SearchRequest | None:
    """What a search was asked; None for any other job."""
    if not is_search(job):
        return None
    try:
        return parse_flags("studio search", SearchRequest, job.words[1:])
    except RequestError:
        return None


def place_of(job: Job) -> Place | None:
    """Where the study of a job is; None for a job that does not search."""
    request = request_of(job)
    if request is None:
        return None
    folder = Path(job.directory / request.output_dir)
    return Place(folder=folder, storage=request.storage, name=request.name if request.storage else None)


def find_places(roots: Sequence[Path], jobs: Iterable[Job]) -> list[Place]:
    """The studies below some folders and those that jobs work on or wait to begin, the latest first."""
    found: dict[Path, tuple[float, Place]] = {}
    for job in jobs:
        if (place := place_of(job)) is not None:
            begun = _changed(place) or (job.created if job.is_open else 0.0)
            found.setdefault(place.folder.resolve(), (begun, place))
    for folder in folders_with([LEDGER, SETUP], roots):
        place = Place(folder=folder)
        found.setdefault(folder.resolve(), (_changed(place), place))
    there = [(begun, place) for begun, place in found.values() if begun]
    return [place for _, place in sorted(there, key=lambda one: -one[0])]


def _changed(place: Place) -> float:
    """When it last went on; 0 where there is nothing yet."""
    times = [0.0]
    for name in (LEDGER, SETUP):
        try:
            times.append((place.folder / name).stat().st_mtime)
        except OSError:
            continue
    return max(times)


def jobs_of(place: Place, jobs: Iterable[Job]) -> list[Job]:
    """The searches among some jobs that work on a study, the latest first."""
    wanted = place.folder.resolve()
    found = [job for job in jobs if (there := place_of(job)) is not None and there.folder.resolve() == wanted]
    return sorted(found, key=lambda job: -job.id)


def setup_of(place: Place) -> dict[str, Any]:
    """The settings of its runs and of the search as they stand in setup.json; empty where it cannot be read."""
    try:
        told = json.loads((place.folder / SETUP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) and isinstance(told.get("config"), dict) else {}
