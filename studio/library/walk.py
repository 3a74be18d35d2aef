"""Finds what there is: walks the runs folder, and names what is bundled. Nothing is opened here, only looked at."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from studio.library.thing import BESIDE, PICTURES, VIDEOS, Kind, Root

TRASH: Final = "trash"
THUMBS: Final = ".thumbs"
_NOT_OURS: Final = frozenset({TRASH, "workers", "studies.cache"})
"""Folders right below the runs folder that hold no things."""
_DEEPEST: Final = 8
_CHARACTERS, _MOTIONS = "characters", "motions"


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A place where a thing is."""

    kind: Kind
    root: Root
    path: str
    place: Path
    made_at: float
    bytes: int
    stamp: str
    """Changes when its files change."""
    title: str = ""
    """For what needs no reading."""
    about: str = ""
    facts: dict[str, object] = field(default_factory=dict)


def walk_runs(root: Path, below: Path | None = None) -> Iterator[Spot]:
    """All things below the runs folder, or one folder in it. Links are not followed, hidden names are left out."""
    yield from _folder(root, below or root, 0 if below is None else 1)


def _folder(root: Path, folder: Path, depth: int) -> Iterator[Spot]:
    files, folders = _listed(folder)
    if depth and (whole := _whole(files)):
        yield _spot_of_folder(whole, root, folder)
        if (adapter := files.get("adapter.safetensors")) is not None:
            yield _spot("adapter", root, folder / adapter.name, [adapter])
        if "mini" in folders and whole == "run":
            yield _spot_of_folder("model", root, folder / "mini")
        return
    for name, entry in files.items():
        if found := _kind_of_file(name, files, folder.name if depth else ""):
            stem, suffix = os.path.splitext(name)
            beside = [files[stem + other] for other in BESIDE if other != suffix and stem + other in files]
            yield _spot(found, root, folder / name, [entry, *(beside if found == "result" else [])])
    if depth < _DEEPEST:
        for name in folders:
            if depth or name not in _NOT_OURS:
                yield from _folder(root, folder / name, depth + 1)


def _listed(folder: Path) -> "tuple[dict[str, os.DirEntry[str]], list[str]]":
    files, folders = {}, []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.is_symlink():
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "logs":
                        folders.append(entry.name)
                else:
                    files[entry.name] = entry
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}, []
    return files, sorted(folders)


def _whole(files: "dict[str, os.DirEntry[str]]") -> Kind | None:
    """What a folder is as one thing."""
    if "model_index.json" in files:
        return "model"
    if "setup.json" in files or "comparison.json" in files or "ledger.jsonl" in files:
        return "study"
    if "config.toml" in files:
        return "run"
    return None


def _kind_of_file(name: str, files: "dict[str, os.DirEntry[str]]", folder: str) -> Kind | None:
    stem, suffix = os.path.splitext(name)
    small = suffix.lower()
    if small == ".safetensors":
        return "adapter"
    if folder == _CHARACTERS and small in PICTURES:
        return "character"
    if folder == _MOTIONS and small == ".json":
        return "motion"
    if small in VIDEOS and f"{stem}.json" in files:
        return "result"
    return None


def _spot(kind: Kind, root: Path, place: Path, files: "list[os.DirEntry[str]]") -> Spot:
    told = [entry.stat(follow_symlinks=False) for entry in files]
    newest = max(stat.st_mtime for stat in told)
    size = sum(stat.st_size for stat in told)
    return Spot(kind=kind, root="runs", path=place.relative_to(root).as_posix(), place=place, made_at=told[0].st_mtime,
                bytes=size, stamp=f"{newest:.6f} {size} {len(told)}")  # fmt: skip


def _spot_of_folder(kind: Kind, root: Path, folder: Path) -> Spot:
    newest, size, count = measure(folder)
    return Spot(kind=kind, root="runs", path=folder.relative_to(root).as_posix(), place=folder, made_at=newest,
                bytes=size, stamp=f"{newest:.6f} {size} {count}")  # fmt: skip


def spot_of(kind: Kind, root: Path, place: Path) -> Spot:
    """Looks at one place below the runs folder that is known to be a thing.

    Raises:
        OSError: it is not there.
    """
    if place.is_dir():
        return _spot_of_folder(kind, root, place)
    names = [place.name, *(place.stem + other for other in BESIDE if kind == "result" and other != place.suffix)]
    with os.scandir(place.parent) as entries:
        found = {entry.name: entry for entry in entries if entry.name in names and not entry.is_symlink()}
    if place.name not in found:
        raise FileNotFoundError(place)
    return _spot(kind, root, place, [found[name] for name in names if name in found])


def measure(folder: Path) -> tuple[float, int, int]:
    """The newest change of a folder's files, their bytes, and how many there are."""
    newest, size, count = folder.stat().st_mtime, 0, 0
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif not entry.is_symlink():
                        stat = entry.stat(follow_symlinks=False)
                        newest, size, count = max(newest, stat.st_mtime), size + stat.st_size, count + 1
        except FileNotFoundError:
            continue  # a run that goes on tidies up meanwhile
    return newest, size, count


def bundled() -> Iterator[Spot]:
    """What came with the studio: characters, motions, the small model."""
    from pose.bundled import MOTIONS
    from studio.characters import CHARACTERS, character_file
    from studio.weights import mini_folder

    for name, about in CHARACTERS.items():
        file = character_file(name)
        stat = file.stat()
        yield Spot(kind="character", root="bundled", path=f"characters/{name}", place=file, title=name, about=about,
                   made_at=stat.st_mtime, bytes=stat.st_size, stamp=f"{stat.st_mtime:.6f}")  # fmt: skip
    for name, about in MOTIONS.items():
        yield Spot(kind="motion", root="bundled", path=f"motions/{name}", place=Path(name), title=name, about=about,
                   made_at=0.0, bytes=0, stamp=about[:60])  # fmt: skip
    folder = mini_folder()
    if folder.is_dir():
        newest, size, count = measure(folder)
        yield Spot(kind="model", root="bundled", path="models/mini", place=folder, title="mini", made_at=newest,
                   bytes=size, stamp=f"{newest:.6f} {size} {count}",
                   about="the small animator that the studio brings; runs on a CPU")  # fmt: skip


def models_in(folders: tuple[Path, ...]) -> Iterator[Spot]:
    """Models in diffusers layout that lie in folders of the user's, or one level deeper."""
    for folder in folders:
        for place in [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]:
            if (place / "model_index.json").is_file():
                newest, size, count = measure(place)
                yield Spot(kind="model", root="models", path=str(place), place=place, made_at=newest, bytes=size,
                           stamp=f"{newest:.6f} {size} {count}")  # fmt: skip
