"""Which files of a folder are data: any layout, Hugging Face's with splits and classes among them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.finetune.data.problems import DataError

PICTURES: Final = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
"""Endings of the pictures that are read."""
VIDEOS: Final = {".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif"}
"""Endings of the videos that are read."""
QUARANTINE: Final = "_quarantine"
"""The folder for bad files, which is never read."""
TRAIN: Final = "train"
"""The split that is trained where a folder has splits."""
OTHER_SPLITS: Final = {"test", "validation", "valid", "val", "dev", "eval"}
"""The splits that are kept out then."""
KEYPOINTS: Final = ".keypoints.json"
"""Keypoints of a video stand in a file of its name with this ending."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The data files of one folder."""

    folder: Path
    files: tuple[Path, ...]
    """Pictures and videos, sorted."""
    others: tuple[Path, ...]
    """All other files: captions, keypoints, and what is not meant for us."""
    left_out: tuple[str, ...]
    """Names of the splits that are not trained."""

    def caption_folder(self, path: Path) -> str:
        """The name that says what a file without a caption shows: its folder's, or the data set's below a split."""
        parent = path.parent
        if parent.name == TRAIN and parent.parent == self.folder:
            parent = self.folder
        return parent.absolute().name.replace("_", " ").replace("-", " ")


def list_files(folder: Path) -> Listing:
    """Lists a folder and all below it, without hidden files and the quarantine.

    With a folder `train` in it, the folders `test`, `validation` and the like beside that are left out, as
    `datasets.load_dataset(..., split="train")` does.

    Raises:
        DataError: it is no folder.
    """
    if folder.is_file():
        raise DataError(f"data folder {folder}: is a file; name the folder that it is in")
    if not folder.is_dir():
        raise DataError(f"data folder {folder}: no such folder")
    splits = {p.name for p in folder.iterdir() if p.is_dir()}
    left_out = splits & OTHER_SPLITS if TRAIN in splits else set()
    files: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == QUARANTINE for part in parts)
        if hidden or parts[0] in left_out or not path.is_file():
            continue
        (files if is_picture(path) or is_video(path) else others).append(path)
    return Listing(folder=folder, files=tuple(files), others=tuple(others), left_out=tuple(sorted(left_out)))


def is_picture(path: Path) -> bool:
    """Tells by the ending."""
    return path.suffix.lower() in PICTURES


def is_video(path: Path) -> bool:
    """Tells by the ending."""
    return path.suffix.lower() in VIDEOS


def keypoints_of(path: Path) -> Path | None:
    """The keypoint file of a video, where there is one."""
    found = path.with_name(path.stem + KEYPOINTS)
    return found if found.is_file() else None
