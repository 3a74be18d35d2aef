"""The drawn world: every clip is a number, and everything about it follows from that number.

Splits never share a number, and some combinations are held back: the body plan x pattern and place x dynamic pairs of
`held_out` are never trained on. Half of the pairs in val and test are those, the other half is drawn from all pairs,
so that every plan, pattern, place and dynamic is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pose.choreography import MOVES, choreograph, improvise, joint_positions, rest
from pose.sequence import PoseSequence
from training.data.backgrounds import DYNAMICS, PLACES, Scene, background
from training.data.captions import caption
from training.data.drawing import PATTERNS
from training.data.puppets import COLOURS, PLANS, Puppet, Puppets, draw_puppet, paint_puppets

Split = Literal["train", "val", "test"]
Kind = Literal["animation", "background"]
FPS: Final = 12.0
_SPLITS: Final = {"train": range(2**30), "val": range(2**30, 2**30 + 2**29), "test": range(2**30 + 2**29, 2**31)}
"""Where the numbers of each split lie. They must fit in 31 bits: torch's CPU generator looks at 32 bits of a seed only,
so that seeds 2^32 apart would draw the same clip."""


def held_out(first: int, second: int) -> bool:
    """Tells whether a pair of kinds is kept from training: one in nine."""
    return (first * 4 + second * 7) % 9 == 0


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """One clip of the world before it is drawn."""

    index: int
    puppet: Puppet
    scene: Scene
    action: str
    """A name of `MOVES`, "dance" for an improvised one, or "stand"."""
    tempo: float
    amplitude: float
    phase: float
    seed: int
    caption: str
    reference_frame: int | None
    """The frame that the reference shows; None for the rest stance."""

    def places(
        self, num_frames: int, size: tuple[int, int], device: torch.device | str = "cpu"
    ) -> Float[Tensor, "frames_and_reference 3 height width"]:
        """Draws the place without the character: every frame, then the reference. `size` is (width, height) px."""
        time_s = torch.arange(num_frames + 1, device=device) / FPS
        time_s[-1] = (self.reference_frame or 0) / FPS
        return background(self.scene, time_s + 3 * self.phase, size)


@dataclass(frozen=True, kw_only=True)
class Clips:
    """A batch of drawn clips with everything that is known about them."""

    video: Float[Tensor, "batch frames 3 height width"]
    """0..1."""
    xy: Float[Tensor, "batch frames joints 2"]
    """px."""
    confidence: Float[Tensor, "batch frames joints"]
    """1 where the character has the joint and it is on the canvas."""
    reference: Float[Tensor, "batch 3 height width"]
    reference_xy: Float[Tensor, "batch joints 2"]
    reference_confidence: Float[Tensor, "batch joints"]
    specs: tuple[ClipSpec, ...]

    def poses(self, clip: int) -> PoseSequence:
        """The driving poses of one clip."""
        return _sequence(self.xy[clip], self.confidence[clip], self.video)

    def reference_pose(self, clip: int) -> PoseSequence:
        """The pose in the reference picture of one clip."""
        return _sequence(self.reference_xy[clip, None], self.reference_confidence[clip, None], self.video)


def _sequence(xy: Tensor, confidence: Tensor, video: Tensor) -> PoseSequence:
    seen = confidence > 0
    xy = torch.where(seen[..., None], xy, -1.0).cpu()
    return PoseSequence(xy=xy, confidence=confidence.cpu(), frame_size=(video.shape[-1], video.shape[-2]), fps=FPS)


def clip_spec(split: Split, index: int, kind: Kind = "animation", *, num_frames: int = 17) -> ClipSpec:
    """Decides everything about clip `index` of a split.

    Raises:
        ValueError: the split has no such number.
    """
    numbers_of_split = _SPLITS[split]
    if not 0 <= index < len(numbers_of_split):
        raise ValueError(f"clip {index} of {split}: it has the numbers 0 to {len(numbers_of_split) - 1}")
    seed = numbers_of_split[index] * 2 + (kind == "background")
    generator = torch.Generator().manual_seed(seed * 0x9E3779B1 % (1 << 62))
    numbers = iter(torch.rand(32, generator=generator).tolist())
    plan, pattern = _pair(list(PLANS), list(PATTERNS), split, generator)
    place, dynamic = _pair(
        list(PLACES), list(DYNAMICS), split, generator, never="still" if kind == "background" else None
    )
    if kind == "animation" and next(numbers) < 0.7:
        dynamic = "still"
    colours = list(COLOURS)
    sky, ground, accent = (COLOURS[colours[int(next(numbers) * len(colours))]] for _ in range(3))
    soften = 0.25 + 0.3 * next(numbers)  # backgrounds are paler than characters, so that both can be told apart
    scene = Scene(
        place=place,
        dynamic=dynamic,
        sky=_pale(sky, soften),
        ground=_pale(ground, soften),
        accent=_pale(accent, soften),
        horizon=0.68 + 0.2 * next(numbers),
        seed=next(numbers),
        speed=0.7 + 0.6 * next(numbers),
        strength=0.8 + 0.4 * next(numbers),
    )
    moves = list(MOVES)
    action = "dance" if next(numbers) < 0.35 else moves[int(next(numbers) * len(moves))]
    if kind == "background":
        action = "stand"
    puppet = draw_puppet(generator, plan=plan, pattern=pattern)
    reference_frame = 0 if kind == "background" else None
    if kind == "animation" and split == "train" and next(numbers) < 0.5:
        reference_frame = int(next(numbers) * num_frames)
    return ClipSpec(
        index=index,
        puppet=puppet,
        scene=scene,
        action=action,
        tempo=0.6 + 0.9 * next(numbers),
        amplitude=0.7 + 0.5 * next(numbers),
        phase=next(numbers),
        seed=int(next(numbers) * 2**31),
        caption=caption(puppet, scene, action, generator),
        reference_frame=reference_frame,
    )


def _pale(colour: tuple[float, float, float], amount: float) -> tuple[float, float, float]:
    r, g, b = (c + (0.8 - c) * amount for c in colour)
    return (r, g, b)


def _pair(
    first: Sequence[str], second: Sequence[str], split: Split, generator: torch.Generator, *, never: str | None = None
) -> tuple[str, str]:
    """Draws a pair of kinds: for train never one that is held out, else half of the time only those."""
    allowed = [name for name in second if name != never]
    only_held_out = split != "train" and float(torch.rand((), generator=generator)) < 0.5
    while True:
        a, b = (names[int(torch.randint(len(names), (), generator=generator))] for names in (first, allowed))
        held = held_out(first.index(a), second.index(b))
        if held if only_held_out else not held or split != "train":
            return a, b


def motion_angles(spec: ClipSpec, num_frames: int) -> Float[Tensor, "frames channels"]:
    """The joint angles of the clip's motion."""
    time_s = torch.arange(num_frames) / FPS
    if spec.action == "stand":
        return rest(num_frames)
    if spec.action == "dance":
        return improvise(time_s * spec.tempo + spec.phase, torch.Generator().manual_seed(spec.seed))
    return choreograph(spec.action, time_s, tempo=spec.tempo, amplitude=spec.amplitude, phase=spec.phase)


def draw_clips(
    specs: Sequence[ClipSpec],
    *,
    num_frames: int = 17,
    size: tuple[int, int] = (128, 128),
    device: torch.device | str = "cpu",
    bodies: Sequence[Puppet] | None = None,
) -> Clips:
    """Draws the clips. `bodies` puts other characters into the same motions and places.

    On the CPU one clip at a time, so that each part is painted only where it is; on a GPU all at once.
    """
    bodies = bodies or [spec.puppet for spec in specs]
    if torch.device(device).type == "cpu" and len(specs) > 1:
        parts = [
            draw_clips([s], num_frames=num_frames, size=size, device=device, bodies=[b])
            for s, b in zip(specs, bodies, strict=True)
        ]
        return Clips(
            specs=tuple(specs),
            **{
                name: torch.cat([getattr(p, name) for p in parts])
                for name in ("video", "xy", "confidence", "reference", "reference_xy", "reference_confidence")
            },
        )
    width, height = size
    angles = torch.stack([motion_angles(spec, num_frames) for spec in specs])
    stance = torch.stack(
        [rest(1)[0] if s.reference_frame is None else motion_angles(s, s.reference_frame + 1)[-1] for s in specs]
    )
    # the reference is drawn as one more frame at the end: same character, same place, its own time
    angles = torch.cat([angles, stance[:, None]], dim=1).to(device)
    puppets = Puppets(bodies, device)
    xy = puppets.place(joint_positions(angles, puppets.body), size)
    canvas = torch.stack([spec.places(num_frames, size, device) for spec in specs]).contiguous()
    paint_puppets(canvas, puppets, xy)
    canvas.clamp_(0, 1)  # an outline on a dark part goes below 0
    limits = torch.tensor([width, height], device=device)
    inside = ((xy >= 0) & (xy < limits)).all(-1)
    confidence = puppets.exists()[:, None] * inside
    return Clips(
        video=canvas[:, :-1],
        xy=xy[:, :-1],
        confidence=confidence[:, :-1],
        reference=canvas[:, -1],
        reference_xy=xy[:, -1],
        reference_confidence=confidence[:, -1],
        specs=tuple(specs),
    )


def joints_of_specs(specs: Sequence[ClipSpec], size: tuple[int, int] = (128, 128)) -> list[PoseSequence]:
    """The skeletons of clips in their rest stance, without drawing anything."""
    puppets = Puppets([spec.puppet for spec in specs])
    stance = rest(1)[None].expand(len(specs), -1, -1)
    xy = puppets.place(joint_positions(stance, puppets.body), size)
    exists = puppets.exists()
    return [
        PoseSequence(
            xy=torch.where(exists[k, None, :, None] > 0, xy[k], -1.0),
            confidence=exists[k, None],
            frame_size=size,
            fps=FPS,
        )
        for k in range(len(specs))
    ]
