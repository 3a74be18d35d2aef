"""Bad files: written down by a run, moved away and put back by `studio data check`."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from training.disk import write_text
from training.finetune.data.folder import QUARANTINE, keypoints_of
from training.finetune.data.problems import DataError, Problem

RECORD: Final = "quarantine.jsonl"
"""In a run's folder: the files that it left out."""
MANIFEST: Final = "manifest.jsonl"
"""In the quarantine: what was moved there from where."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What `restore` did."""

    files: tuple[Path, ...]
    """Where they are again."""
    kept: tuple[tuple[Path, str], ...]
    """What stays in quarantine, and why."""


def write_quarantine(run: Path, problems: Sequence[Problem]) -> None:
    """Adds what a run leaves out to its record, each file with each reason once."""
    path = run / RECORD
    rows = _rows(path)
    known = {(row["file"], row["why"]) for row in rows}
    new = [_row(p) for p in problems if (str(p.file), p.why) not in known]
    if new:
        write_text(path, "".join(json.dumps(row) + "\n" for row in [*rows, *new]))


def move_away(folder: Path, problems: Sequence[Problem]) -> list[Path]:
    """Moves files, each with the caption and keypoints of its name, into the quarantine of their data folder.

    The manifest is written first, so that an interrupted move can be put back as well.

    Raises:
        DataError: the manifest cannot be read.
    """
    place = folder / QUARANTINE
    moves: list[dict[str, str]] = []
    for problem in problems:
        if problem.file.is_file():
            for path in (problem.file, *_companions(problem.file)):
                moves.append({**_row(problem), "file": path.relative_to(folder).as_posix()})
    if not moves:
        return []
    place.mkdir(exist_ok=True)
    moves = list({row["file"]: row for row in moves}.values())
    rows = [*_rows(place / MANIFEST), *moves]
    write_text(place / MANIFEST, "".join(json.dumps(row) + "\n" for row in rows))
    for row in moves:
        goal = place / row["file"]
        goal.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / row["file"], goal)
    return [folder / row["file"] for row in moves]


def restore(folder: Path) -> Restored:
    """Puts everything back from the quarantine of a data folder; what would overwrite another file stays.

    Raises:
        DataError: there is no quarantine, or its manifest cannot be read.
    """
    place = folder / QUARANTINE
    if not (place / MANIFEST).is_file():
        raise DataError(f"{folder} has no {QUARANTINE}/{MANIFEST}: nothing was moved away")
    back: list[Path] = []
    kept: list[tuple[Path, str]] = []
    left: list[dict[str, str]] = []
    for row in _rows(place / MANIFEST):
        goal, path = folder / row["file"], place / row["file"]
        if goal.is_relative_to(folder) and ".." not in Path(row["file"]).parts and path.is_file():
            if goal.exists():
                kept.append((path, f"{goal} is there again"))
                left.append(row)
                continue
            goal.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, goal)
            back.append(goal)
    if left:
        write_text(place / MANIFEST, "".join(json.dumps(row) + "\n" for row in left))
    else:
        (place / MANIFEST).unlink()
        _remove_empty(place)
    return Restored(files=tuple(back), kept=tuple(kept))


def _companions(path: Path) -> list[Path]:
    text, keypoints = path.with_suffix(".txt"), keypoints_of(path)
    return [*([text] if text.is_file() else []), *([keypoints] if keypoints else [])]


def _row(problem: Problem) -> dict[str, str]:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"file": str(problem.file), "kind": problem.kind, "why": problem.why, "when": when}


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); mend it or move it away") from error
    if not all(isinstance(row, dict) and isinstance(row.get("file"), str) for row in rows):
        raise DataError(f"{path} is not a record of files; mend it or move it away")
    return rows


def _remove_empty(place: Path) -> None:
    for path in sorted((p for p in place.rglob("*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    if not any(place.iterdir()):
        place.rmdir()
