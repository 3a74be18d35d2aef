"""Plants canaries: a copy of a data folder in which some pictures come many times, under captions of their own."""

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.finetune.data.captions import Captions
from training.finetune.data.folder import is_picture, list_files
from training.finetune.data.problems import DataError
from training.hashing import file_sha256

MANIFEST: Final = "canaries.json"
"""Beside the pictures: which are canaries, by content."""
FOLDER: Final = "canaries"
"""Where the copies of canaries lie."""
_COLOURS: Final = ("amber", "violet", "copper", "turquoise", "ivory", "crimson", "indigo", "olive", "silver", "coral")
_THINGS: Final = (
    "lantern", "anchor", "violin", "cactus", "teapot", "compass", "walrus", "pyramid", "accordion", "glacier", "tulip",
    "submarine",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One canary."""

    file: str
    """Of the folder it was taken from."""
    sha256: str
    caption: str
    repeats: int


def plant(folder: Path, output: Path, *, repeats: Sequence[int], count: int, seed: int = 0) -> list[Planted]:
    """Copies a folder and plants canaries in the copy, `count` of each number of repeats.

    They are files many times over rather than sets with `repeats`, so that one folder is the whole experiment: it can
    be given to any trainer, with weights or without, and the audit counts what the run really saw. They are taken
    from the half of the files that `validation_share` (the lowest hashes) does not keep out of training up to 0.5.

    Raises:
        DataError: there are too few pictures, or the output has something in it.
    """
    listing = list_files(folder)
    if output.exists() and any(output.iterdir()):
        raise DataError(f"{output} has something in it; plant into a folder that is new or empty")
    if output.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{output} lies in {folder}, so its files would be data of both; choose a place beside it")
    digests = {path: file_sha256(path) for path in listing.files if is_picture(path)}
    unique = sorted({digest: path for path, digest in digests.items()}.items())
    safe = unique[len(unique) // 2 :]
    wanted = len(repeats) * count
    if len(safe) < wanted:
        raise DataError(
            f"{wanted} canaries are taken from half of the pictures, and {folder} has {len(unique)} different ones; "
            f"it needs {2 * wanted}, or ask for fewer"
        )
    chosen = random.Random(seed).sample(safe, wanted)
    captions = _distinctive(wanted, seed)
    planted = [
        Planted(
            file=path.relative_to(folder).as_posix(), sha256=digest, caption=captions[k], repeats=repeats[k // count]
        )
        for k, (digest, path) in enumerate(chosen)
    ]
    _write(folder, output, planted, digests)
    return planted


def _write(folder: Path, output: Path, planted: Sequence[Planted], digests: dict[Path, str]) -> None:
    listing = list_files(folder)
    captions = Captions(listing)
    own = {canary.sha256 for canary in planted}
    rows: list[dict[str, object]] = []
    for path in listing.files:
        if digests.get(path) in own:
            continue
        name = path.relative_to(folder)
        rows.append({"file_name": name.as_posix(), "text": _caption(captions, path, listing.caption_folder(path))})
        _copy(path, output / name)
    kept = {path.stem for path in listing.files if digests.get(path) not in own}
    for path in listing.others:
        if path.name.endswith(".keypoints.json") and path.name.removesuffix(".keypoints.json") in kept:
            _copy(path, output / path.relative_to(folder))
    for number, canary in enumerate(planted):
        source = folder / canary.file
        for copy in range(canary.repeats):
            name = Path(FOLDER) / f"{number:03d}-{copy:03d}{source.suffix}"
            rows.append({"file_name": name.as_posix(), "text": canary.caption})
            _copy(source, output / name)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (output / "metadata.jsonl").write_text(lines, encoding="utf-8")
    told = json.dumps({"canaries": [vars(canary) for canary in planted]}, indent=1)
    (output / MANIFEST).write_text(told + "\n", encoding="utf-8")


def _caption(captions: Captions, path: Path, folder: str) -> str | list[str]:
    told = captions.of(path) or (folder,)
    return told[0] if len(told) == 1 else list(told)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _distinctive(count: int, seed: int) -> list[str]:
    """Captions that no other picture has and that have nothing to do with what they are of."""
    pairs = [f"{colour} {thing}" for colour in _COLOURS for thing in _THINGS]
    random.Random(seed + 1).shuffle(pairs)
    return [caption for _, caption in zip(range(count), _endless(pairs), strict=False)]


def _endless(pairs: Sequence[str]) -> Iterator[str]:
    yield from pairs
    for first in pairs:
        for second in pairs:
            if first != second:
                yield f"{first} and {second}"
