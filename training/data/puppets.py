"""Puppets: characters of any proportions, drawn over any motion, with their 18 joints known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from pose.choreography import Proportions
from training.data.drawing import PATTERNS, Paint, paint_block, paint_limb

COLOURS: Final = {
    "red": (0.86, 0.16, 0.16), "orange": (0.95, 0.52, 0.12), "yellow": (0.95, 0.85, 0.22), "green": (0.22, 0.65, 0.27),
    "teal": (0.12, 0.62, 0.62), "blue": (0.18, 0.36, 0.85), "purple": (0.52, 0.24, 0.72), "pink": (0.96, 0.55, 0.72),
    "brown": (0.5, 0.32, 0.18), "white": (0.95, 0.95, 0.95), "grey": (0.55, 0.56, 0.58), "black": (0.13, 0.13, 0.15),
}  # fmt: skip

PLANS: Final = {
    # torso, neck, head, shoulders, hips, upper_arm, forearm, thigh, shin, arm, leg, torso width, roundness, taper, rise
    "human": (0.30, 0.035, 0.078, 0.115, 0.07, 0.165, 0.15, 0.24, 0.23, 0.030, 0.042, 1.0, 0.5, -0.12, 0.0),
    "lanky": (0.27, 0.05, 0.06, 0.08, 0.05, 0.21, 0.2, 0.31, 0.3, 0.02, 0.026, 1.0, 0.6, 0.0, 0.0),
    "stubby": (0.34, 0.02, 0.12, 0.14, 0.1, 0.11, 0.09, 0.11, 0.1, 0.045, 0.06, 1.05, 0.8, 0.1, 0.0),
    "big-headed": (0.22, 0.02, 0.19, 0.09, 0.06, 0.12, 0.11, 0.14, 0.13, 0.03, 0.04, 1.0, 0.7, 0.1, 0.0),
    "neckless": (0.32, 0.0, 0.1, 0.15, 0.08, 0.17, 0.16, 0.18, 0.17, 0.05, 0.055, 1.0, 0.8, -0.25, 0.0),
    "boxy": (0.26, 0.0, 0.09, 0.15, 0.09, 0.15, 0.13, 0.13, 0.12, 0.018, 0.02, 1.0, 0.08, 0.0, 0.24),
    "blobby": (0.24, 0.0, 0.1, 0.17, 0.1, 0.12, 0.11, 0.12, 0.1, 0.025, 0.03, 1.05, 1.0, 0.12, 0.22),
    "long-armed": (0.27, 0.02, 0.08, 0.13, 0.07, 0.25, 0.24, 0.15, 0.14, 0.035, 0.04, 1.0, 0.7, -0.2, 0.0),
    "bean-shaped": (0.4, 0.0, 0.09, 0.1, 0.07, 0.1, 0.09, 0.1, 0.09, 0.02, 0.024, 1.15, 1.0, 0.0, 0.2),
}
"""Body plan -> its proportions in body heights. `rise` is how far the torso goes on above the neck, where there is no
separate head and the face sits on the torso, as on a juice box."""

EARS: Final = ("none", "round", "long", "pointed")
HATS: Final = ("none", "top hat", "pointed hat")


@dataclass(frozen=True, kw_only=True)
class Puppet:
    """One character, in numbers; lengths in body heights, flags 0 or 1."""

    plan: str
    colour: str
    second: str
    limb_colour: str
    pattern: str
    ears: str
    hat: str
    torso: float
    neck: float
    head: float
    shoulders: float
    hips: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    arm_radius: float
    leg_radius: float
    torso_width: float
    torso_roundness: float
    torso_taper: float
    torso_rise: float
    head_width: float
    head_roundness: float
    hand: float
    foot: float
    eye: float
    mouth: float
    outline: float
    shade: float
    tint: float
    pattern_scale: float
    tail: float
    antennae: float
    has_arms: float
    has_legs: float
    arms_behind: float
    height: float
    """Of the standing character, in canvas heights."""
    x: float
    """Where it stands, in canvas widths."""
    y: float


def draw_puppet(generator: torch.Generator, *, plan: str, pattern: str) -> Puppet:
    """Draws a character at random on the given body plan with the given pattern."""
    numbers = iter(torch.rand(80, generator=generator).tolist())

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(numbers)

    def chance(p: float) -> float:
        return float(next(numbers) < p)

    def choose(names: Sequence[str]) -> str:
        return names[int(next(numbers) * len(names))]

    base = PLANS[plan]
    t, n, h, s, p, ua, fa, th, sh, arm, leg, width, roundness, taper, rise = base
    stretch = [math.exp(between(-0.18, 0.18)) for _ in range(9)]
    colours = list(COLOURS)
    colour = choose(colours)
    others = [c for c in colours if c != colour]
    no_limbs = next(numbers)
    return Puppet(
        plan=plan,
        colour=colour,
        second=choose(others),
        limb_colour=colour if chance(0.5) else choose(others),
        pattern=pattern,
        ears=EARS[int(next(numbers) * 4)] if chance(0.6) else "none",
        hat=HATS[1 + int(next(numbers) * 2)] if chance(0.25) else "none",
        torso=t * stretch[0],
        neck=n * stretch[1],
        head=h * stretch[2],
        shoulders=s * stretch[3],
        hips=p * stretch[4],
        upper_arm=ua * stretch[5],
        forearm=fa * stretch[5] * math.exp(between(-0.1, 0.1)),
        thigh=th * stretch[6],
        shin=sh * stretch[6] * math.exp(between(-0.1, 0.1)),
        arm_radius=max(0.02, arm * stretch[7]),
        leg_radius=max(0.022, leg * stretch[8]),
        torso_width=width * between(0.85, 1.15),
        torso_roundness=min(1.0, max(0.05, roundness * between(0.7, 1.3))),
        torso_taper=taper + between(-0.12, 0.12),
        torso_rise=rise * between(0.9, 1.1),
        head_width=between(0.8, 1.2),
        head_roundness=between(0.35, 1.0),
        hand=between(1.0, 1.7),
        foot=between(0.8, 1.8),
        eye=between(0.14, 0.26),
        mouth=between(0.2, 0.5),
        outline=between(0.8, 1.6) if chance(0.6) else 0.0,
        shade=between(0.0, 0.35),
        tint=between(-0.07, 0.07),
        pattern_scale=between(0.75, 1.35),
        tail=between(0.12, 0.3) if chance(0.3) else 0.0,
        antennae=chance(0.15),
        has_arms=float(no_limbs >= 0.04),
        has_legs=float(no_limbs < 0.04 or no_limbs >= 0.08),
        arms_behind=chance(0.25),
        height=between(0.62, 0.82),
        x=between(0.42, 0.58),
        y=between(0.88, 0.96),
    )


class Puppets:
    """A batch of characters as tensors: `puppets.torso` is (batch,)."""

    def __init__(self, puppets: Sequence[Puppet], device: torch.device | str = "cpu") -> None:
        self.puppets = tuple(puppets)
        self.device = torch.device(device)
        self._values = {
            f.name: torch.tensor([getattr(p, f.name) for p in puppets], device=device)
            for f in fields(Puppet)
            if f.type is float
        }

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def body(self) -> Proportions:
        """The lengths that the kinematics need."""
        return Proportions(**{f.name: self._values[f.name] for f in fields(Proportions)})

    def exists(self) -> Float[Tensor, "batch joints"]:
        """1 for the joints that the character has."""
        mask = torch.ones(len(self.puppets), 18, device=self.device)
        for joints, flag in (((3, 4, 6, 7), self.has_arms), ((9, 10, 12, 13), self.has_legs)):
            for j in joints:
                mask[:, j] = flag
        return mask

    def place(
        self, xy: Float[Tensor, "batch frames joints 2"], size: tuple[int, int]
    ) -> Float[Tensor, "batch frames joints 2"]:
        """From body heights around the feet to px of the canvas (width, height)."""
        width, height = size
        feet = torch.stack([self.x * width, self.y * height], dim=-1)
        return xy * self.unit(size)[:, None, None, None] + feet[:, None, None, :]

    def unit(self, size: tuple[int, int]) -> Float[Tensor, "batch"]:
        """px in a body height."""
        leg = self.thigh + self.shin
        top = torch.maximum(self.neck + 2 * self.head, self.torso_rise)
        return self.height * size[1] / (leg + self.torso + top)

    def paint(self, part: str, size: tuple[int, int]) -> Paint:
        """The look of a part: `body`, `limb`, `head`, `dark` or `light`."""

        def rgb(names: Sequence[str]) -> Tensor:
            colours = torch.tensor([COLOURS[name] for name in names], device=self.device)
            return (colours + self.tint[:, None]).clamp(0, 1)

        scale = 128 / size[1]
        batch = len(self.puppets)
        solid = torch.tensor([PATTERNS["solid"]], device=self.device).expand(batch, 7)
        if part == "dark":
            ink = torch.full((batch, 3), 0.06, device=self.device)
            return Paint(
                base=ink, second=ink, pattern=solid, outline=self.outline[:, None] * 0, shade=self.shade[:, None] * 0
            )
        if part == "light":
            white = torch.full((batch, 3), 0.97, device=self.device)
            return Paint(
                base=white,
                second=white,
                pattern=solid,
                outline=self.outline[:, None] * 0,
                shade=self.shade[:, None] * 0,
            )
        pattern = solid
        if part == "body":
            pattern = torch.tensor([PATTERNS[p.pattern] for p in self.puppets], device=self.device)
            pattern = torch.cat([pattern[:, :2] * scale / self.pattern_scale[:, None], pattern[:, 2:]], dim=1)
        base = {"body": "colour", "head": "colour", "limb": "limb_colour"}[part]
        return Paint(
            base=rgb([getattr(p, base) for p in self.puppets]),
            second=rgb([p.second for p in self.puppets]),
            pattern=pattern,
            outline=self.outline[:, None] / scale,
            shade=self.shade[:, None],
        )


def paint_puppets(
    canvas: Float[Tensor, "batch frames 3 height width"],
    puppets: Puppets,
    xy: Float[Tensor, "batch frames joints 2"],
) -> None:
    """Paints the characters over the canvas, in place; `xy` is in px."""
    size = (canvas.shape[-1], canvas.shape[-2])
    unit = puppets.unit(size)
    frames = xy.shape[1]
    always = torch.ones(xy.shape[:2], device=xy.device)
    body, limb, head, dark, light = (puppets.paint(part, size) for part in ("body", "limb", "head", "dark", "light"))

    def flag(values: Tensor) -> Tensor:
        return values[:, None].expand(-1, frames)

    def per_frame(values: Tensor) -> Tensor:
        return values[:, None].expand(-1, frames)

    root = (xy[:, :, 8] + xy[:, :, 11]) / 2
    neck, nose = xy[:, :, 1], xy[:, :, 0]
    spine = neck - root
    up = spine / spine.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    side = torch.stack([-up[..., 1], up[..., 0]], dim=-1)
    head_axis = nose - neck
    head_up = torch.where(
        head_axis.norm(dim=-1, keepdim=True) > 1e-3,
        head_axis / head_axis.norm(dim=-1, keepdim=True).clamp(min=1e-3),
        up,
    )
    head_side = torch.stack([-head_up[..., 1], head_up[..., 0]], dim=-1)
    narrow = ((xy[:, :, 5] - xy[:, :, 2]).norm(dim=-1) / (2 * puppets.shoulders * unit)[:, None].clamp(min=1e-3)).clamp(
        0.3, 1
    )

    def arms(visible: Tensor) -> None:
        if not bool(visible.any()):
            return
        r = puppets.arm_radius * unit
        for shoulder, elbow, wrist in ((2, 3, 4), (5, 6, 7)):
            paint_limb(canvas, xy[:, :, shoulder], xy[:, :, elbow], r * 1.15, r, limb, visible)
            paint_limb(canvas, xy[:, :, elbow], xy[:, :, wrist], r, r * 0.85, limb, visible)
            paint_limb(canvas, xy[:, :, wrist], xy[:, :, wrist], r * puppets.hand, r * puppets.hand, head, visible)

    if bool((puppets.tail > 0).any()):
        tip = root + side * (puppets.tail * unit)[:, None, None] - up * (0.3 * puppets.tail * unit)[:, None, None]
        paint_limb(canvas, root, tip, 0.035 * unit, 0.015 * unit, limb, flag(puppets.tail > 0).float())
    arms(flag(puppets.has_arms * puppets.arms_behind))
    legs = flag(puppets.has_legs)
    if bool(legs.any()):
        r = puppets.leg_radius * unit
        for k, (hip, knee, ankle) in enumerate(((8, 9, 10), (11, 12, 13))):
            paint_limb(canvas, xy[:, :, hip], xy[:, :, knee], r * 1.1, r, limb, legs)
            paint_limb(canvas, xy[:, :, knee], xy[:, :, ankle], r, r * 0.85, limb, legs)
            toe = (
                xy[:, :, ankle]
                + torch.tensor([-1.0 if k == 0 else 1.0, 0.15], device=xy.device) * (r * puppets.foot)[:, None, None]
            )
            paint_limb(canvas, xy[:, :, ankle], toe, r * 0.95, r * 0.9, dark if k < 0 else head, legs)
    # the torso runs from below the hips to the neck, or on above it where the face sits on the torso
    rise = (puppets.torso_rise * unit)[:, None]
    half = (spine.norm(dim=-1) + rise + 0.03 * unit[:, None]) / 2
    centre = root + up * (half - 0.03 * unit[:, None])[..., None]
    width = (puppets.torso_width * torch.maximum(puppets.shoulders, puppets.hips * 1.1) * unit)[:, None] * narrow
    paint_block(canvas, centre, up, width, half, puppets.torso_roundness, puppets.torso_taper, body, always)
    has_head = flag((puppets.torso_rise == 0).float())
    radius = (puppets.head * unit)[:, None].expand(-1, frames)
    if bool(has_head.any()):
        r = puppets.arm_radius * unit
        paint_limb(canvas, neck, nose, r * 1.1, r * 1.1, head, has_head)
    crown = nose + head_up * torch.where(has_head > 0, radius * 0.95, (rise - (nose - neck).norm(dim=-1)))[..., None]
    _paint_ears(canvas, puppets, crown, head_up, head_side, radius, narrow, head)
    if bool(has_head.any()):
        paint_block(
            canvas, nose, head_up, radius * per_frame(puppets.head_width) * (0.4 + 0.6 * narrow), radius,
            puppets.head_roundness, torch.zeros_like(unit), head, has_head,
        )  # fmt: skip
    # the face
    eye = puppets.eye * puppets.head * unit
    for joint in (14, 15):
        paint_limb(canvas, xy[:, :, joint], xy[:, :, joint], eye * 1.25, eye * 1.25, light, always)
        paint_limb(canvas, xy[:, :, joint], xy[:, :, joint], eye * 0.7, eye * 0.7, dark, always)
    mouth = nose - head_up * (0.42 * radius)[..., None]
    reach = head_side * (puppets.mouth[:, None] * radius * narrow)[..., None]
    line = (0.09 * puppets.head * unit).clamp(min=0.6)
    paint_limb(canvas, mouth - reach, mouth + reach, line, line, dark, always)
    if any(p.hat != "none" for p in puppets.puppets):
        tapers = torch.tensor([0.9 if p.hat == "pointed hat" else 0.0 for p in puppets.puppets], device=xy.device)
        worn = flag(torch.tensor([float(p.hat != "none") for p in puppets.puppets], device=xy.device))
        tall = radius * 0.75
        paint_block(
            canvas,
            crown + head_up * tall[..., None],
            head_up,
            radius * 0.7,
            tall,
            torch.full_like(unit, 0.1),
            tapers,
            limb,
            worn,
        )
    arms(flag(puppets.has_arms * (1 - puppets.arms_behind)))


def _paint_ears(
    canvas: Tensor,
    puppets: Puppets,
    crown: Tensor,
    up: Tensor,
    side: Tensor,
    radius: Tensor,
    narrow: Tensor,
    paint: Paint,
) -> None:
    """Ears of each kind, and antennae, behind the head."""
    unit = puppets.unit((canvas.shape[-1], canvas.shape[-2]))
    shapes = {"round": (0.38, 0.38, 1.0, 0.0), "long": (0.22, 0.85, 1.0, 0.2), "pointed": (0.32, 0.5, 0.05, 0.85)}
    for kind, (wide, tall, roundness, taper) in shapes.items():
        worn = torch.tensor([float(p.ears == kind) for p in puppets.puppets], device=canvas.device)[:, None].expand_as(
            radius
        )
        if not bool(worn.any()):
            continue
        for s in (-1, 1):
            at = crown + s * side * (0.6 * radius * narrow)[..., None] + up * (radius * (tall * 0.6 - 0.25))[..., None]
            paint_block(
                canvas, at, up, radius * wide * narrow, radius * tall,
                torch.full_like(unit, roundness), torch.full_like(unit, taper), paint, worn,
            )  # fmt: skip
    antennae = puppets.antennae[:, None].expand_as(radius)
    if bool(antennae.any()):
        thin = torch.full_like(unit, 0.012) * unit
        for s in (-1, 1):
            tip = crown + (up * 0.9 + s * side * 0.5) * radius[..., None]
            paint_limb(canvas, crown + s * side * (0.25 * radius)[..., None], tip, thin, thin, paint, antennae)
            paint_limb(canvas, tip, tip, thin * 2.5, thin * 2.5, paint, antennae)
