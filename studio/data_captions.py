"""The pictures and videos of a data folder with their captions, to be read and changed on a page."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from studio.errors import RequestError
from training.finetune.data.captions import Captions
from training.finetune.data.folder import Listing, is_video, list_files

MAX_CAPTION: Final = 4000


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """A file and what is said of it."""

    path: Path
    name: str
    """Its path within the folder."""
    caption: str
    source: str
    """Where the caption is: "text" for the .txt of its name, "metadata", "set" for the data set's, "folder" for the
    folder's name, or "unreadable"."""
    is_video: bool

    @property
    def is_editable(self) -> bool:
        """Whether writing its .txt changes it: metadata goes before that."""
        return self.source != "metadata"


def look_at(folder: Path) -> Listing:
    """Lists a folder.

    Raises:
        RequestError: it is none.
    """
    try:
        return list_files(folder)
    except (ValueError, OSError) as error:
        raise RequestError(str(error)) from error


def captioned(listing: Listing, files: Sequence[Path], *, set_caption: str = "") -> list[Captioned]:
    """The captions of some files of a listing, as training reads them."""
    told = Captions(listing)
    found = []
    for path in files:
        text = path.with_suffix(".txt")
        try:
            captions = told.of(path)
            source = "folder" if captions is None else "text"
            if captions is not None and not (text.is_file() and captions == (_read(text),)):
                source = "metadata"
        except ValueError:
            captions, source = (text.read_bytes().decode(errors="replace"),), "unreadable"
        if captions is None:
            captions, source = ((set_caption,), "set") if set_caption else ((listing.caption_folder(path),), "folder")
        found.append(Captioned(path=path, name=path.relative_to(listing.folder).as_posix(), is_video=is_video(path),
                               caption=" | ".join(captions), source=source))  # fmt: skip
    return found


def _read(text: Path) -> str:
    return text.read_text(encoding="utf-8-sig").strip()


def write_caption(folder: Path, name: str, caption: str) -> Path:
    """Writes the .txt beside a file of a data folder; it is whole or as it was.

    Args:
        name: the file's path within the folder.

    Raises:
        RequestError: the file is not in the folder, or the caption is too long or cannot be written.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise RequestError(f"{name} is not in {folder}; look at the folder again")
    if len(caption) > MAX_CAPTION:
        raise RequestError(
            f"{name}: a caption of {len(caption)} letters is more than any model reads; {MAX_CAPTION} at most"
        )
    goal = path.with_suffix(".txt")
    try:
        handle, beside = tempfile.mkstemp(dir=goal.parent, prefix=".caption-", suffix=".txt")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(" ".join(caption.split()) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o644)
            os.replace(beside, goal)
        finally:
            Path(beside).unlink(missing_ok=True)
    except (OSError, UnicodeEncodeError) as error:
        raise RequestError(
            f"{goal}: the caption cannot be written ({error}); choose a folder that you may write to"
        ) from None
    return goal
