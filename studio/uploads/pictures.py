"""Pictures from outside: known by their content, sized by their header, written again as PNG of ours."""

import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from studio.uploads.limits import Limits, limits_of_settings
from studio.uploads.spool import Source, placed, refusal, spooled

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""The only decoders that foreign bytes reach; others of Pillow start programs or are seldom used."""
MIN_SIDE: Final = 8
_DAMAGED: Final = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError,
                   struct.error, MemoryError, Warning)  # fmt: skip
_OTHERS: Final = {
    b"%PDF": ("is a PDF", "export the page as PNG"),
    b"8BPS": ("is a Photoshop file", "export it as PNG"),
    b"<svg": ("is an SVG drawing, which has no pixels", "export it as PNG"),
    b"<?xm": ("is an XML file, such as an SVG drawing", "export it as PNG"),
    b"PK\x03\x04": ("is a zip file", "unpack it and choose a picture"),
}


class PictureError(ValueError):
    """What is wrong with a picture; `fix` says what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


def keep_picture(name: str, source: Source, folder: Path, *, limits: Limits | None = None) -> Path:
    """Keeps a picture as `picture-DIGEST.png` in `folder`: upright, RGB or RGBA, 8 bit, without metadata.

    Of an animated picture, the first frame. The same upload gives the same file, and is not converted twice.

    Raises:
        RequestError: empty, too large, no picture, damaged.
    """
    limits = limits or limits_of_settings()
    with spooled("picture", name, source, folder, limit_mb=limits.picture_mb) as upload:
        kept = folder / f"picture-{upload.digest}.png"
        if kept.is_file():
            return kept
        try:
            picture = decode_picture(upload.path, limits.picture_megapixels)
        except PictureError as error:
            raise refusal("picture", name, str(error), error.fix) from None
        with placed(kept) as beside:
            picture.save(beside, "PNG", compress_level=3)
    return kept


def decode_picture(path: Path, megapixels: int) -> Image.Image:
    """Decodes a whole picture: upright, as RGB, or RGBA where it has transparency, with nothing beside the pixels.

    Raises:
        PictureError: no picture, too small, too large, damaged.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_size(image.width, image.height, megapixels)
            image.load()
            upright: Image.Image = image
            with suppress(*_DAMAGED):  # what is broken in the metadata does not concern the pixels
                upright = ImageOps.exif_transpose(image)
            plain = _eight_bit(upright)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(*_what_else(path)) from None
    except Image.DecompressionBombError:
        raise PictureError(f"is larger than {megapixels} megapixels", "make it smaller") from None
    except Image.DecompressionBombWarning:
        raise PictureError(f"is larger than {megapixels} megapixels", "make it smaller") from None
    except _DAMAGED as error:
        problem = f"is damaged or cut off ({str(error)[:80] or type(error).__name__})"
        raise PictureError(problem, "save it again as PNG or JPEG") from None
    plain.info = {}  # Pillow would write profiles and comments again
    return plain


def _check_size(width: int, height: int, megapixels: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"is {width}x{height} px, and each side must be at least {MIN_SIDE}", "use a larger one")
    if width * height > megapixels * 1_000_000:
        size = f"is {width}x{height} px, {width * height / 1e6:.0f} megapixels, and the most is {megapixels}"
        raise PictureError(size, "make it smaller: 2048 px on the long side are plenty")


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise PictureError("holds float pixels, whose range is not written in the file", "save it as 8-bit PNG")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        grey = np.asarray(image).astype(np.int64)
        grey = grey // 257 if image.mode.startswith("I;16") or grey.max() > 255 else grey
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    mode = "RGBA" if transparent else "RGB"
    return image.copy() if image.mode == mode else image.convert(mode)


def _what_else(path: Path) -> tuple[str, str]:
    """Guesses what a file is that is no picture of ours."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"heim", b"heis"):
            return "is a HEIC photo", "export it as JPEG (iPhone: Settings, Camera, Formats, Most Compatible)"
        if head[8:12] in (b"avif", b"avis"):
            return "is an AVIF picture", "save it as PNG or JPEG"
        return "is a video", "choose a picture, or give it where a video is asked for"
    for start, words in _OTHERS.items():
        if head.lstrip()[: len(start)].lower() == start.lower():
            return words
    return "is not a picture", "use PNG, JPEG, WebP, GIF, BMP or TIFF"
