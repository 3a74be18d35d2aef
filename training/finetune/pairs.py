"""A picture of samples above the trained pictures that they are nearest to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_TILE, _LINE, _GAP = 128, 14, 6
_PAPER, _INK, _ALARM = (255, 255, 255), (20, 20, 20), (200, 30, 30)
_CHARACTERS: Final = 21
"""Of a name under a tile."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A sample and the trained picture that is nearest to it."""

    sample: UInt8[Tensor, "height width 3"]
    nearest: UInt8[Tensor, "other_height other_width 3"]
    name: str
    """The trained picture's file."""
    distance: float
    copied: bool
    """It counts as a copy."""


def draw_pairs(path: Path, pairs: Sequence[Pair], title: str) -> None:
    """Writes the picture beside its place and moves it in; copies have a red frame."""
    font = ImageFont.load_default(11)
    left, column = _GAP, _TILE + _GAP
    top = _GAP + _LINE + _GAP
    width = max(left + column * len(pairs), round(font.getlength(title)) + 2 * _GAP)
    sheet = Image.new("RGB", (width, top + 2 * column + 2 * _LINE), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((left, _GAP), title, _INK, font)
    for k, pair in enumerate(pairs):
        x = left + k * column
        for row, picture in enumerate((pair.sample, pair.nearest)):
            tile = _fitted(picture)
            y = top + row * column
            sheet.paste(tile, (x + (_TILE - tile.width) // 2, y + (_TILE - tile.height) // 2))
            if pair.copied:
                pen.rectangle((x - 2, y - 2, x + _TILE + 1, y + _TILE + 1), outline=_ALARM, width=2)
        under = top + 2 * column
        pen.text((x, under - 2), f"distance {pair.distance:.3f}", _ALARM if pair.copied else _INK, font)
        pen.text((x, under + _LINE - 2), pair.name[-_CHARACTERS:], _INK, font)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.tmp")
    sheet.save(staged, format="PNG")
    staged.replace(path)


def _fitted(picture: UInt8[Tensor, "height width 3"]) -> Image.Image:
    image = Image.fromarray(picture.numpy())
    scale = _TILE / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
