"""Contact sheets: reference, pose and result side by side, so that a result can be judged at a glance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw
from torch import Tensor

_MARGIN_PX: Final = 4
_LABEL_PX: Final = 16
_SMALLEST_CELL_PX: Final = 96


def contact_sheet(
    rows: Sequence[tuple[str, UInt8[Tensor, "frames height width 3"]]], *, fps: float | None = None, columns: int = 8
) -> UInt8[ndarray, "height width 3"]:
    """Lays out `columns` evenly spaced frames of each named row; a row of one frame is a still and stands once.

    With `fps` a frame tells its time.
    """
    length = max(len(frames) for _, frames in rows)
    picks = torch.linspace(0, length - 1, min(columns, length)).round().long().tolist()
    height, width = rows[0][1].shape[1:3]
    grow = max(1, -(-_SMALLEST_CELL_PX // min(height, width)))
    cell_height, cell_width = height * grow, width * grow
    sheet = Image.new(
        "RGB",
        (len(picks) * (cell_width + _MARGIN_PX) + _MARGIN_PX,
         len(rows) * (cell_height + _LABEL_PX + _MARGIN_PX) + _MARGIN_PX),
        (24, 24, 28),
    )  # fmt: skip
    pen = ImageDraw.Draw(sheet)
    for row, (name, frames) in enumerate(rows):
        top = row * (cell_height + _LABEL_PX + _MARGIN_PX) + _MARGIN_PX
        for column, pick in enumerate(picks if len(frames) > 1 else [0]):
            left = column * (cell_width + _MARGIN_PX) + _MARGIN_PX
            if not column:
                pen.text((left + 1, top + 1), name, fill=(200, 200, 205))
            elif fps is not None:  # on the right, so that a long name may run into the second cell
                pen.text((left + cell_width - 1, top + 1), f"{pick / fps:.2f} s", fill=(200, 200, 205), anchor="ra")
            picture = Image.fromarray(frames[min(pick, len(frames) - 1)].cpu().numpy())
            sheet.paste(picture.resize((cell_width, cell_height), Image.Resampling.NEAREST), (left, top + _LABEL_PX))
    return np.asarray(sheet)


def write_png(path: Path, picture: UInt8[ndarray, "height width 3"]) -> None:
    """Writes a picture as PNG."""
    Image.fromarray(picture).save(path, format="PNG")
