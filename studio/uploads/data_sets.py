"""Data sets from outside: a zip of pictures, videos and captions becomes a data folder that training can read.

Training data keeps its bytes. Each file is decoded to see that it can be, and what cannot goes into the folder's
quarantine, from where `studio data check --restore` takes it back.
"""

import csv
import io
import json
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict

from studio.errors import RequestError
from studio.uploads.archives import WHAT, DamagedMemberError, opened_archive, unpack, vetted, why_left_out
from studio.uploads.limits import Limits, limits_of_settings
from studio.uploads.names import safe_part, shown_path
from studio.uploads.pictures import decode_picture
from studio.uploads.spool import MB, Clock, Source, Tell, refusal, spooled

if TYPE_CHECKING:
    from training.finetune.data.problems import Problem

METADATA: Final = ("metadata.jsonl", "metadata.csv")
REPORT: Final = "upload.json"
_TEXT_MB: Final = 100
Renamed = Callable[[object], object]


class Told(BaseModel):
    """A file of the archive, and what is to be said of it."""

    model_config = ConfigDict(frozen=True)
    name: str
    why: str


class KeptDataSet(BaseModel):
    """What became of a zip."""

    model_config = ConfigDict(frozen=True)
    folder: Path
    """The data folder, for `studio train --data`."""
    pictures: int
    videos: int
    left_out: tuple[Told, ...] = ()
    """Not unpacked."""
    quarantined: tuple[Told, ...] = ()
    """Unpacked, but unreadable; in the folder's quarantine."""
    renamed: tuple[Told, ...] = ()
    """Files whose name had letters that are not safe; `why` is the new path. metadata files follow."""


def keep_data_set(
    name: str, source: Source, folder: Path, *, limits: Limits | None = None, tell: Tell = lambda share: None
) -> KeptDataSet:
    """Unpacks a zip into `folder/data-DIGEST/NAME`; the same zip is unpacked once.

    Takes long (it decodes everything), so it is not for the thread that draws a page. `tell` hears the share done.

    Raises:
        RequestError: no zip, a bomb, names that lead outside, links, encrypted, twice the same name, nothing to use.
    """
    limits = limits or limits_of_settings()
    clock = Clock(WHAT, name, limits.zip_check_s)
    with spooled(WHAT, name, source, folder, limit_mb=limits.zip_mb) as upload:
        kept = folder / f"data-{upload.digest}"
        if (kept / REPORT).is_file():
            return KeptDataSet.model_validate_json((kept / REPORT).read_text(encoding="utf-8"))
        stem = name.replace("\\", "/").rsplit("/", 1)[-1]
        stem = safe_part(stem[:-4] if stem.lower().endswith(".zip") else stem).lstrip("._") or "data"
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-", ignore_cleanup_errors=True) as beside:
            place = Path(beside) / "set"
            report = _fill(upload.path, name, place / stem, kept / stem, limits, clock, tell)
            (place / REPORT).write_text(report.model_dump_json(indent=1), encoding="utf-8")
            if kept.exists():  # of a run that was killed between the two
                shutil.rmtree(kept)
            place.rename(kept)
    return report


def _fill(path: Path, name: str, data: Path, later: Path, limits: Limits, clock: Clock, tell: Tell) -> KeptDataSet:
    from training.finetune.data.folder import KEYPOINTS, PICTURES, QUARANTINE, VIDEOS, list_files
    from training.finetune.data.quarantine import move_away

    known = [*PICTURES, *VIDEOS, ".txt", KEYPOINTS, *METADATA]
    data.mkdir(parents=True)
    left_out: list[Told] = []
    places: dict[str, str] = {}
    done = 0
    with opened_archive(path, name, limits) as archive:
        members = list(vetted(archive, name, limits))
        for index, member in enumerate(members):
            why = why_left_out(member, known=known, quarantine=QUARANTINE)
            goal = data.joinpath(*member.parts)
            if not why:
                goal.parent.mkdir(parents=True, exist_ok=True)
                try:
                    done += unpack(archive, member, goal, name, done, limits, clock)
                    places[member.said] = "/".join(member.parts)
                except DamagedMemberError as error:
                    why = str(error)
            if why:
                left_out.append(Told(name=shown_path(member.said), why=why))
            tell(0.3 * (index + 1) / len(members))
    renamed = {said: new for said, new in places.items() if said != new}
    if renamed:
        _rename_in_metadata(data, places)
    problems = _problems(data, limits, clock, tell)
    move_away(data, problems)
    files = list_files(data).files
    if not files:
        first = next((f": {shown_path(p.file.name)!r} {p.why}" for p in problems), "")
        raise refusal(WHAT, name, f"has no picture or video that can be read{first}", "pack the pictures themselves")
    pictures = sum(file.suffix.lower() in PICTURES for file in files)
    return KeptDataSet(
        folder=later, pictures=pictures, videos=len(files) - pictures, left_out=tuple(left_out),
        quarantined=tuple(Told(name=p.file.relative_to(data).as_posix(), why=p.why) for p in problems),
        renamed=tuple(Told(name=shown_path(said), why=new) for said, new in renamed.items()),
    )  # fmt: skip


def _problems(data: Path, limits: Limits, clock: Clock, tell: Tell) -> "list[Problem]":
    """Decodes everything; a picture whose caption cannot be read goes with it."""
    from training.finetune.data.folder import KEYPOINTS, PICTURES, VIDEOS
    from training.finetune.data.problems import error

    files = sorted(path for path in data.rglob("*") if path.is_file())
    media = {path.with_suffix(""): path for path in files if path.suffix.lower() in PICTURES | VIDEOS}
    problems: list[Problem] = []
    for index, path in enumerate(files):
        clock.check()
        kind = ("picture" if path.suffix.lower() in PICTURES else "video" if path.suffix.lower() in VIDEOS else
                "keypoints" if path.name.endswith(KEYPOINTS) else "text")  # fmt: skip
        if why := _why_unreadable(path, kind, limits, clock):
            owner = media.get(path.with_suffix(""), path) if kind == "text" else path
            problems.append(error(owner, f"unreadable {kind}", why, "mend it, or leave it out"))
        tell(0.3 + 0.7 * (index + 1) / len(files))
    return problems


def _why_unreadable(path: Path, kind: str, limits: Limits, clock: Clock) -> str:
    from studio.uploads.keypoints import parse_keypoints
    from studio.uploads.videos import check_video

    try:
        if kind == "picture":
            decode_picture(path, limits.picture_megapixels)
        elif kind == "video":
            check_video(path, limits, clock)
        elif kind == "keypoints":
            parse_keypoints(path.read_bytes(), path.name, limits)
        elif path.stat().st_size > _TEXT_MB * MB:
            return f"is larger than {_TEXT_MB} MB, which is no caption"
        elif "\0" in path.read_text(encoding="utf-8-sig"):
            return "is not text: it has zero bytes"
    except UnicodeDecodeError as error:
        return f"the text {path.name} is not UTF-8 (at byte {error.start})"
    except RequestError:
        raise  # the time is over for all of it
    except ValueError as error:
        return str(error)
    return ""


def _rename_in_metadata(data: Path, places: Mapping[str, str]) -> None:
    """Corrects `file_name` where a file was given another name; all else of the line stays."""
    for said, new in places.items():
        path = data / new
        if path.name not in METADATA or path.stat().st_size > _TEXT_MB * MB:
            continue

        def renamed(file_name: object, said: str = said, new: str = new) -> object:
            old = posixpath.normpath(posixpath.join(posixpath.dirname(said), str(file_name).replace("\\", "/")))
            return posixpath.relpath(places[old], posixpath.dirname(new) or ".") if old in places else file_name

        try:
            text = path.read_text(encoding="utf-8-sig")
            path.write_text(_csv(text, renamed) if path.suffix == ".csv" else _jsonl(text, renamed), encoding="utf-8")
        except (ValueError, csv.Error, RecursionError):
            continue  # the check that follows, and training, say what is wrong with it


def _jsonl(text: str, renamed: Renamed) -> str:
    lines = []
    for line in text.splitlines():
        row = json.loads(line) if line.strip() else None
        if isinstance(row, dict) and "file_name" in row and renamed(row["file_name"]) != row["file_name"]:
            line = json.dumps({**row, "file_name": renamed(row["file_name"])}, ensure_ascii=False)
        lines.append(line)
    return "\n".join(lines) + "\n"


def _csv(text: str, renamed: Renamed) -> str:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    column = rows[0].index("file_name") if rows and "file_name" in rows[0] else None
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    for index, row in enumerate(rows):
        if column is not None and index and len(row) > column:
            row[column] = str(renamed(row[column]))
        writer.writerow(row)
    return out.getvalue()
