"""Signed-distance drawing in batched torch: parts are painted over each other on a canvas of frames.

Distances are in px, coverage is anti-aliased over one pixel. Each part is evaluated only in the box that it can
touch in any frame, which is what makes the CPU path fast; on a GPU a whole batch of clips is painted at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Paint:
    """Two colours and the pattern that mixes them, one row a clip; u runs along the part, v across, both in px."""

    base: Float[Tensor, "batch 3"]
    """RGB 0..1."""
    second: Float[Tensor, "batch 3"]
    pattern: Float[Tensor, "batch 7"]
    """(frequency u, frequency v, weight of sin u, of sin v, of their product, offset, sharpness): see `PATTERNS`."""
    outline: Float[Tensor, "batch 1"]
    """Width of the dark line around the part, px; 0 for none."""
    shade: Float[Tensor, "batch 1"]
    """How much darker one side is, 0..0.5."""


PATTERNS: dict[str, tuple[float, float, float, float, float, float, float]] = {
    "solid": (0, 0, 0, 0, 0, 1, 8),
    "striped": (0.75, 0, 1, 0, 0, 0, 6),
    "dotted": (0.8, 0.8, 1, 1, 0, 0.9, 6),
    "checked": (0.6, 0.6, 0, 0, 1, 0, 8),
    "gradient": (0.06, 0, 1, 0, 0, 0, 2),
    "noisy": (1.9, 1.3, 0.7, 0.7, 1.2, 0, 1.5),
}
"""Pattern name -> its seven numbers at a canvas of 128 px.

Mix = sigmoid(sharpness (a sin fu u + b sin fv v + c sin sin + offset))."""


def _box(low: Tensor, high: Tensor, size: Sequence[int]) -> tuple[slice, slice] | None:
    """The rows and columns that the part touches in any clip and frame."""
    height, width = size
    x0, y0 = low.reshape(-1, 2).amin(0).floor().tolist()
    x1, y1 = high.reshape(-1, 2).amax(0).ceil().tolist()
    left, top, right, bottom = max(0, int(x0)), max(0, int(y0)), min(width, int(x1) + 1), min(height, int(y1) + 1)
    return None if left >= right or top >= bottom else (slice(top, bottom), slice(left, right))


def _grid(rows: slice, columns: slice, like: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.arange(rows.start, rows.stop, device=like.device, dtype=like.dtype) + 0.5
    x = torch.arange(columns.start, columns.stop, device=like.device, dtype=like.dtype) + 0.5
    return x[None, None, None, :], y[None, None, :, None]


def _cover(
    canvas: Tensor, rows: slice, columns: slice, distance: Tensor, u: Tensor, v: Tensor, paint: Paint, visible: Tensor
) -> None:
    """Paints where distance < 0. Everything is (batch, frames, rows, columns); the canvas has a channel axis."""

    def per_clip(values: Tensor) -> Tensor:
        return values.reshape(-1, 1, 1, 1)

    coverage = (0.5 - distance).clamp_(0, 1) * visible[..., None, None]
    fu, fv, wu, wv, wp, offset, sharp = (per_clip(k) for k in paint.pattern.unbind(-1))
    if bool((paint.pattern[:, 2:5] != 0).any()):
        su, sv = (fu * u).sin(), (fv * v).sin()
        mix = (sharp * (wu * su + wv * sv + wp * su * sv + offset)).sigmoid()
    else:
        mix = (sharp * offset).sigmoid().expand_as(distance)
    width = per_clip(paint.outline)
    ink = ((distance + width + 0.5).clamp(0, 1) * (width > 0)).mul_(0.85)
    light = 1 - per_clip(paint.shade) * (0.5 + 0.5 * (v / 6).tanh()) - ink
    region = canvas[:, :, :, rows, columns]
    for channel in range(3):
        second, base = per_clip(paint.second[:, channel]), per_clip(paint.base[:, channel])
        colour = (second + (base - second) * mix) * light
        region[:, :, channel].lerp_(colour.expand_as(coverage), coverage)


def paint_limb(
    canvas: Float[Tensor, "batch frames 3 height width"],
    start: Float[Tensor, "batch frames 2"],
    end: Float[Tensor, "batch frames 2"],
    start_radius: Float[Tensor, "batch"],
    end_radius: Float[Tensor, "batch"],
    paint: Paint,
    visible: Float[Tensor, "batch frames"],
) -> None:
    """Paints a capsule that may taper, in place."""
    reach = torch.maximum(start_radius, end_radius)[:, None, None] + 1.5
    box = _box(torch.minimum(start, end) - reach, torch.maximum(start, end) + reach, canvas.shape[-2:])
    if box is None:
        return
    x, y = _grid(*box, start)

    def at(points: Tensor) -> tuple[Tensor, Tensor]:
        return points[..., 0, None, None], points[..., 1, None, None]

    (ax, ay), (bx, by) = at(start), at(end - start)
    length = (bx * bx + by * by).sqrt().clamp(min=1e-3)
    dx, dy = x - ax, y - ay
    along = (dx * bx + dy * by) / length
    across = (dy * bx - dx * by) / length
    part = (along / length).clamp(0, 1)
    ra, rb = start_radius[:, None, None, None], end_radius[:, None, None, None]
    # from the residual, not from (along, across): a ball is a limb of length 0, which has no direction
    distance = ((dx - part * bx).square() + (dy - part * by).square()).sqrt_() - (ra + (rb - ra) * part)
    _cover(canvas, *box, distance, along, across, paint, visible)


def paint_block(
    canvas: Float[Tensor, "batch frames 3 height width"],
    centre: Float[Tensor, "batch frames 2"],
    up: Float[Tensor, "batch frames 2"],
    half_width: Float[Tensor, "batch frames"],
    half_height: Float[Tensor, "batch frames"],
    roundness: Float[Tensor, "batch"],
    taper: Float[Tensor, "batch"],
    paint: Paint,
    visible: Float[Tensor, "batch frames"],
) -> None:
    """Paints a rounded, tapered box, in place: box, ball, bean, cone or cap, after `roundness` 0..1 and `taper` -1..1.

    `up` is a unit vector; a positive taper makes the upper end narrower.
    """
    reach = (half_width.square() + half_height.square()).sqrt()[..., None] * 1.4 + 1.5
    box = _box(centre - reach, centre + reach, canvas.shape[-2:])
    if box is None:
        return
    x, y = _grid(*box, centre)
    ux, uy = up[..., 0, None, None], up[..., 1, None, None]
    dx, dy = x - centre[..., 0, None, None], y - centre[..., 1, None, None]
    along = dx * ux + dy * uy
    across = dy * ux - dx * uy
    hw, hh = half_width[..., None, None], half_height[..., None, None]
    squeeze = 1 - taper[:, None, None, None] * (along / hh).clamp(-1.2, 1.2)
    radius = roundness[:, None, None, None] * torch.minimum(hw, hh)
    qx = (across / squeeze.clamp(min=0.05)).abs() - hw + radius
    qy = along.abs() - hh + radius
    outside = (qx.clamp(min=0).square() + qy.clamp(min=0).square()).sqrt_()
    distance = (outside + torch.maximum(qx, qy).clamp(max=0) - radius) * squeeze.clamp(0.3, 1)
    _cover(canvas, *box, distance, along, across, paint, visible)
