"""What the library lists."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

Kind = Literal["result", "run", "adapter", "study", "model", "motion", "character"]
KINDS: Final[tuple[Kind, ...]] = ("result", "run", "adapter", "study", "model", "motion", "character")
Root = Literal["runs", "bundled", "models"]
Order = Literal["newest", "oldest", "largest", "title"]
ORDERS: Final[tuple[Order, ...]] = ("newest", "oldest", "largest", "title")
VIDEOS: Final = (".mp4", ".webm", ".mov", ".gif")
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")
BESIDE: Final = (".json", ".png")
"""Suffixes of what `animate` writes beside a video: how it was made, and the contact sheet."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A thing of the library. Times are seconds since 1970."""

    id: int
    kind: Kind
    root: Root
    path: str
    """Below its root, with slashes."""
    place: Path
    """Its file or folder; of one in the trash, where it lies there."""
    title: str
    prompt: str
    model: str
    facts: Mapping[str, Any]
    """What a card shows: seed, frames, method and the like."""
    made_at: float
    bytes: int
    """All its files together."""
    job: int | None
    """The job that made it."""
    trashed_at: float | None
    trash: str | None
    tags: tuple[str, ...] = field(default=())

    @property
    def is_bundled(self) -> bool:
        """Whether it came with the studio or lies outside of its folder, and so is never thrown away."""
        return self.root != "runs"

    @property
    def is_video(self) -> bool:
        """Whether a player can show it."""
        return self.place.suffix.lower() in VIDEOS

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture."""
        return self.place.suffix.lower() in PICTURES

    def beside(self, suffix: str) -> Path | None:
        """A file of the same stem, such as the sidecar; None where there is none."""
        path = self.place.with_suffix(suffix)
        return path if path != self.place and path.is_file() else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "id": self.id, "kind": self.kind, "root": self.root, "path": self.path, "place": str(self.place),
            "title": self.title, "prompt": self.prompt, "model": self.model, "facts": dict(self.facts),
            "made_at": self.made_at, "bytes": self.bytes, "job": self.job, "trashed_at": self.trashed_at,
            "trash": self.trash, "tags": list(self.tags),
        }  # fmt: skip


def search_text(title: str, prompt: str, model: str, kind: str, path: str, facts: Mapping[str, Any],
                tags: tuple[str, ...]) -> str:  # fmt: skip
    """All the words by which a thing is found."""
    words = [title, prompt, model, kind, path, *tags, *(str(value) for value in facts.values())]
    return "\n".join(words).casefold()


def plain_json(values: Mapping[str, Any]) -> str:
    """Facts as text."""
    return json.dumps(dict(values), ensure_ascii=False, default=str)
