"""Puts a picture and its poses on the model's canvas without stretching them."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import cv2
import torch
from jaxtyping import UInt8
from torch import Tensor

from pose.sequence import PoseSequence

Fit = Literal["cover", "contain"]
_STEP_PX = 16
"""The codec halves a side three times and the transformer takes 2x2 patches."""


@dataclass(frozen=True)
class Placement:
    """A uniform scale and a shift, from the px of a source to the px of a canvas."""

    source: tuple[int, int]
    """(width, height) in px."""
    canvas: tuple[int, int]
    """(width, height) in px."""
    scale: float
    shift: tuple[float, float]

    @classmethod
    def of(cls, source: tuple[int, int], canvas: tuple[int, int], fit: Fit) -> Self:
        """Centres a source on a canvas; cover fills the canvas and crops, contain shows all and leaves borders."""
        ratios = canvas[0] / source[0], canvas[1] / source[1]
        scale = max(ratios) if fit == "cover" else min(ratios)
        shift = (canvas[0] - scale * source[0]) / 2, (canvas[1] - scale * source[1]) / 2
        return cls(source, canvas, scale, shift)

    def picture(self, image: UInt8[Tensor, "height width 3"]) -> UInt8[Tensor, "canvas_height canvas_width 3"]:
        """Places a picture; borders repeat its edge pixels, so that no hard line appears for the model to animate."""
        width, height = self.canvas
        source = image.cpu().numpy()
        if self.scale < 1:  # warpAffine does not average pixels away, so shrink with an area filter first
            small = max(1, round(self.source[0] * self.scale)), max(1, round(self.source[1] * self.scale))
            source, scale = cv2.resize(source, small, interpolation=cv2.INTER_AREA), 1.0
            shift = (width - small[0]) / 2, (height - small[1]) / 2
        else:
            scale, shift = self.scale, self.shift
        # A pixel's centre is at +0.5, which is where `shift` counts from and where OpenCV does not.
        half = 0.5 * scale - 0.5
        matrix = torch.tensor([[scale, 0, shift[0] + half], [0, scale, shift[1] + half]], dtype=torch.float64).numpy()
        placed = cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return torch.from_numpy(placed)

    def pose(self, sequence: PoseSequence) -> PoseSequence:
        """Places the keypoints of the same source; missing joints stay missing."""
        shift = torch.tensor(self.shift, dtype=sequence.xy.dtype)
        own = torch.tensor(self.source, dtype=sequence.xy.dtype) / torch.tensor(sequence.frame_size)
        found = (sequence.confidence > 0)[..., None]

        def move(points: Tensor | None) -> Tensor | None:
            if points is None:
                return None
            xy = torch.where(points[..., 2:] > 0, points[..., :2] * own * self.scale + shift, points[..., :2])
            return torch.cat([xy, points[..., 2:]], dim=-1)

        return replace(
            sequence,
            xy=torch.where(found, sequence.xy * own * self.scale + shift, sequence.xy),
            frame_size=self.canvas,
            hands=move(sequence.hands),
            face=move(sequence.face),
            feet=move(sequence.feet),
        )


def choose_canvas(
    source: tuple[int, int], *, width: int | None, height: int | None, short_side: int, most_stretched: float = 3.0
) -> tuple[int, int]:
    """Chooses (width, height): what was asked, else the model's short side in the shape of the source.

    Sides are multiples of 16. A picture longer than `most_stretched` to 1 gets a canvas of that shape.
    """
    aspect = min(max(source[0] / source[1], 1 / most_stretched), most_stretched)
    if width is not None and height is not None:
        return width, height
    if width is not None:
        return width, _rounded(width / aspect)
    if height is not None:
        return _rounded(height * aspect), height
    if aspect >= 1:
        return _rounded(short_side * aspect), _rounded(short_side)
    return _rounded(short_side), _rounded(short_side / aspect)


def _rounded(side: float) -> int:
    return max(2, round(side / _STEP_PX)) * _STEP_PX
