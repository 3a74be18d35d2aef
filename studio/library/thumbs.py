"""Small pictures of things, made once and kept in `runs/.thumbs`."""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

from studio.files import moved_in
from studio.library.thing import PICTURES, VIDEOS, Thing
from studio.library.walk import THUMBS

CARD_PX: Final = (320, 240)
_LARGEST_PIXELS: Final = 64_000_000
_QUALITY: Final = 82


def source_of(thing: Thing) -> Path | None:
    """The picture or video that stands for a thing; None where there is none."""
    place = thing.place
    if thing.kind in ("result", "character"):
        return place if place.suffix.lower() in (*VIDEOS, *PICTURES) and place.is_file() else None
    if thing.kind == "adapter":
        place = place.parent
    if thing.kind in ("run", "adapter"):
        with suppress(OSError):
            return max((place / "samples").glob("*.png"), key=lambda path: path.stat().st_mtime, default=None)
    if thing.kind == "study":
        return next((place / name for name in ("front.png", "plot.png") if (place / name).is_file()), None)
    return None


def place_of(root: Path, source: Path) -> Path:
    """Where the small picture of a file is kept: another name when the file changes.

    Raises:
        OSError: the file is not there.
    """
    stat = source.stat()
    key = hashlib.sha256(f"{source}\0{stat.st_mtime_ns}\0{stat.st_size}".encode()).hexdigest()[:32]
    return root / THUMBS / key[:2] / f"{key}.jpg"


def make_thumb(source: Path, target: Path) -> bool:
    """Makes a small picture of a picture, or of the first frame of a video; whether that was possible.

    What cannot be read leaves an empty file, so that it is not tried again.
    """
    try:
        picture = _first_frame(source) if source.suffix.lower() in VIDEOS else _picture(source)
        card = _on_card(picture)
        with moved_in(target) as beside:
            card.save(beside, format="JPEG", quality=_QUALITY)
    except Exception:  # a damaged file, whatever its decoder calls that
        with suppress(OSError), moved_in(target) as beside:
            beside.touch()
        return False
    return True


def _on_card(picture: Any) -> Any:
    """The whole picture in a card's shape; what is left free is filled with the picture itself, large and dark."""
    from PIL import Image, ImageEnhance, ImageFilter, ImageOps

    has_holes = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    picture = picture.convert("RGBA" if has_holes else "RGB")
    if has_holes:
        ground = Image.new("RGBA", picture.size, (236, 236, 240, 255))
        picture = Image.alpha_composite(ground, picture).convert("RGB")
    small = ImageOps.fit(picture, (CARD_PX[0] // 8, CARD_PX[1] // 8)).filter(ImageFilter.GaussianBlur(3))
    card = ImageEnhance.Brightness(small.resize(CARD_PX)).enhance(0.55)
    inner = ImageOps.contain(picture, CARD_PX)
    card.paste(inner, ((CARD_PX[0] - inner.width) // 2, (CARD_PX[1] - inner.height) // 2))
    return card


def _picture(source: Path) -> Any:
    from PIL import Image

    picture = Image.open(source)
    if picture.width * picture.height > _LARGEST_PIXELS:
        raise ValueError(f"{source} has too many pixels for a small picture of it")
    picture.draft("RGB", (CARD_PX[0] * 2, CARD_PX[1] * 2))
    return picture


def _first_frame(source: Path) -> Any:
    import av

    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        if stream.width * stream.height > _LARGEST_PIXELS:
            raise ValueError(f"{source} has too many pixels for a small picture of it")
        return next(container.decode(stream)).to_image()


class Thumbs:
    """Small pictures for pages: those that are there are given at once, the others are made in the background."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="thumbs")
        self._waiting: dict[Path, Future[bool]] = {}
        self._lock = Lock()

    def get(self, thing: Thing) -> tuple[Path | None, bool]:
        """The small picture of a thing, and whether one is still to come."""
        source = source_of(thing)
        if source is None:
            return None, False
        try:
            target = place_of(self.root, source)
            size = target.stat().st_size
        except FileNotFoundError:
            if not source.exists():
                return None, False
            self._ask(source, target)
            return None, True
        except OSError:
            return None, False
        return (target if size else None), False

    def _ask(self, source: Path, target: Path) -> None:
        with self._lock:
            if target in self._waiting and not self._waiting[target].done():
                return
            self._waiting = {path: future for path, future in self._waiting.items() if not future.done()}
            self._waiting[target] = self._pool.submit(make_thumb, source, target)

    def wait(self, timeout_s: float = 30.0) -> None:
        """Waits until all that was asked for is made."""
        from concurrent.futures import wait

        with self._lock:
            waiting = list(self._waiting.values())
        wait(waiting, timeout_s)

    def close(self) -> None:
        """Makes no more of them."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def forget_old(root: Path, *, days: float = 90.0) -> int:
    """Deletes small pictures that were made long ago; those still wanted are made again. How many it were."""
    import time

    gone = 0
    for path in (root / THUMBS).glob("??/*.jpg"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - days * 86400:
                os.unlink(path)
                gone += 1
    return gone
