"""Zip files from outside: what is in them is looked at before, and measured while, anything is unpacked."""

import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from studio.errors import RequestError
from studio.uploads.limits import Limits
from studio.uploads.names import safe_part, shown_path
from studio.uploads.spool import CHUNK, MB, Clock, refusal

WHAT: Final = "zip file"
ARCHIVES: Final = {".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".cab", ".iso", ".jar"}
_JUNK: Final = {"thumbs.db", "desktop.ini"}
_ENTRY: Final = b"PK\x01\x02"
_DRIVE: Final = re.compile(r"^[A-Za-z]:")
_OTHER_ARCHIVES: Final = {b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7-Zip archive", b"\x1f\x8b": "a gzip archive",
                          b"BZh": "a bzip2 archive", b"\xfd7zXZ": "an xz archive"}  # fmt: skip


class DamagedMemberError(ValueError):
    """One file of the archive cannot be unpacked; the others may be well."""


@dataclass(frozen=True)
class Member:
    """A file of the archive that may be unpacked."""

    info: zipfile.ZipInfo
    said: str
    """Its path as the archive has it, with slashes."""
    parts: tuple[str, ...]
    """Its path as it is written here."""


@contextmanager
def opened_archive(path: Path, name: str, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Opens a zip file whose list of files is not too long to be read into memory.

    Raises:
        RequestError: another kind of archive, damaged, or with too many files.
    """
    if _count_entries(path) > limits.zip_members:
        raise refusal(WHAT, name, f"has more than {limits.zip_members} files and folders", "split it")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, OSError, ValueError, EOFError) as error:
        if isinstance(error, RequestError):
            raise
        with path.open("rb") as file:
            head = file.read(8)
        kind = next((words for start, words in _OTHER_ARCHIVES.items() if head.startswith(start)), None)
        if kind:
            raise refusal(WHAT, name, f"is {kind}", "pack the folder as ZIP") from None
        raise refusal(WHAT, name, "is not a zip file, or cut off", "pack the folder as ZIP again") from None


def vetted(archive: zipfile.ZipFile, name: str, limits: Limits) -> Iterator[Member]:
    """Looks at every entry by what the archive says of it; gives the files in order, folders not.

    Raises:
        RequestError: an entry that leads out of the archive, is no plain file, is encrypted, too large, or is there
            twice. Such archives are made by hand or broken, so nothing of them is kept.
    """
    seen: dict[str, str] = {}
    total = 0
    for info in archive.infolist():
        parts = _parts_of(info, name, limits)
        if info.is_dir() or not parts:
            continue
        total += info.file_size
        _check_size(info.file_size, total, parts, name, limits)
        member = Member(info, "/".join(parts), tuple(safe_part(part) for part in parts))
        key = "/".join(member.parts).casefold()
        if key in seen:
            raise refusal(WHAT, name, f"has two files under one name, {shown_path(seen[key])!r} and "
                          f"{shown_path(member.said)!r}, where capitals do not count", "rename one")  # fmt: skip
        seen[key] = member.said
        yield member
    for key, said in seen.items():
        above = key.rpartition("/")[0]
        while above:
            if above in seen:
                raise refusal(WHAT, name, f"has {shown_path(said)!r} below a file", "pack the folder again")
            above = above.rpartition("/")[0]


def why_left_out(member: Member, *, known: Sequence[str], quarantine: str) -> str:
    """Says why a file is not unpacked; "" for one that is."""
    said = member.said.split("/")
    last = said[-1].lower()
    if said[0] == "__MACOSX" or any(part.startswith("._") for part in said):
        return "a macOS companion file"
    if any(part.startswith(".") for part in said) or last in _JUNK:
        return "a hidden file"
    if any(part.lower() == quarantine for part in said[:-1]):
        return "it is in the quarantine of another folder"
    if Path(last).suffix in ARCHIVES:
        return "an archive in the archive; unpack it first"
    if not last.endswith(tuple(known)):
        return "no picture, video or caption"
    if member.info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed in an unusual way; pack it as an ordinary ZIP"
    if not member.info.file_size and not last.endswith(".txt"):
        return "empty, 0 bytes"
    return ""


def unpack(
    archive: zipfile.ZipFile, member: Member, goal: Path, name: str, done: int, limits: Limits, clock: Clock
) -> int:
    """Writes one file, measured as it comes out; returns its bytes. `done` is what was unpacked before it.

    Raises:
        DamagedMemberError: it cannot be unpacked.
        RequestError: it is a bomb: larger than it may be, whatever the archive says.
    """
    packed = max(1, min(member.info.compress_size, member.info.file_size))
    size = 0
    try:
        with archive.open(member.info) as source, goal.open("xb") as file:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                _check_size(size, done + size, (member.said,), name, limits)
                if size > MB and size > limits.zip_ratio * packed:
                    raise refusal(WHAT, name, f"{shown_path(member.said)!r} grows to more than {limits.zip_ratio:g} "
                                  "times its packed size, as a zip bomb does", "pack plain pictures")  # fmt: skip
                clock.check()
                file.write(chunk)
    except RequestError:
        goal.unlink(missing_ok=True)
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        goal.unlink(missing_ok=True)
        raise DamagedMemberError(f"damaged in the archive ({str(error)[:80]})") from None
    except OSError as error:
        raise refusal(WHAT, name, f"cannot be unpacked ({error.strerror})", "make room on the disk") from None
    return size


def _count_entries(path: Path) -> int:
    """Counts the marks of entries in the file's list: `zipfile` would make an object of each before we could look."""
    count, tail = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            count += (tail + chunk).count(_ENTRY)
            tail = chunk[-len(_ENTRY) + 1 :]
    return count


def _parts_of(info: zipfile.ZipInfo, name: str, limits: Limits) -> tuple[str, ...]:
    said = info.orig_filename.replace("\\", "/")
    where = repr(shown_path(said))
    again = "pack plain files and folders"
    if "\0" in said:
        raise refusal(WHAT, name, f"{where} has a zero byte in its name", again)
    if said.startswith("/") or _DRIVE.match(said):
        raise refusal(WHAT, name, f"{where} is an absolute path", again)
    parts = tuple(part for part in said.split("/") if part not in ("", "."))
    if ".." in parts:
        raise refusal(WHAT, name, f"{where} leads out of the archive", again)
    if len(parts) > limits.zip_depth + 1:
        raise refusal(WHAT, name, f"{where} is more than {limits.zip_depth} folders deep", "pack it flatter")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise refusal(WHAT, name, f"{where} is a symbolic link", "put the file itself in its place")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refusal(WHAT, name, f"{where} is a device, pipe or socket, not a file", again)
    if info.flag_bits & 0x1:
        raise refusal(WHAT, name, f"{where} is encrypted", "pack it without a password")
    return parts


def _check_size(size: int, total: int, parts: Sequence[str], name: str, limits: Limits) -> None:
    if size > limits.zip_member_mb * MB:
        raise refusal(WHAT, name, f"{shown_path('/'.join(parts))!r} is larger than {limits.zip_member_mb} MB unpacked",
                      "leave it out")  # fmt: skip
    if total > limits.zip_total_mb * MB:
        raise refusal(WHAT, name, f"is more than {limits.zip_total_mb} MB unpacked", "split it")
