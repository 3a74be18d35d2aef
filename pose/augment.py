"""The explicit pose indicator's augmentation (EPI): makes the driving skeleton disagree with the reference body.

Train-only (Animate-X, arXiv 2410.10306, sec. 3.3). The paper gives the operations and their probability but no ranges
and no code, so the ranges here are ours, borrowed from open relatives; they are written in the fields of `EPIConfig`.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pose.bones import (
    HIPS,
    NECK,
    SHOULDERS,
    Joints,
    body_ratio,
    bone_lengths,
    carry_points,
    fill_missing,
    joints_of,
    to_sequence,
    with_lengths,
)
from pose.sequence import PoseSequence
from pose.skeleton import JOINTS, PARENTS

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]

RESCALED: Final = {
    "torso": HIPS,
    "legs": (9, 10, 12, 13),
    "arms": (3, 4, 6, 7),
    "neck": (0,),
    "shoulders": SHOULDERS,
    "head": (14, 15, 16, 17),
    "global": tuple(joint for joint in range(len(JOINTS)) if joint != NECK),
}
"""What one rescale factor multiplies: the bones above these joints."""

DROPPED: Final = {
    "hand": ((4,), (7,)),
    "forearm": ((3, 4), (6, 7)),
    "leg": ((9, 10), (12, 13)),
    "foot": ((10,), (13,)),
    "head": ((0, 14, 15, 16, 17),),
}
"""The joints that vanish with a part: right, then left."""

ADDED: Final = {
    "right_arm": (2, 3, 4),
    "left_arm": (5, 6, 7),
    "right_leg": (8, 9, 10),
    "left_leg": (11, 12, 13),
    "head": (0, 14, 15, 16, 17),
}
"""The joints of a limb that can be added, parents first."""

_NUM_DRAWS: Final = 48


class EPIConfig(BaseModel):
    """How the driving skeleton is bent during training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    probability: Probability = 0.95
    """Lambda of the paper: the share of clips that are changed at all (0.8 to 1 make sense)."""
    realign_probability: Probability = 0.7
    """How often the proportions are taken from another body of the pool."""
    realign_mode: Literal["partial", "full"] = "partial"
    """partial: go a random part of the way to the other body; full: all the way, as in Animate-X."""
    realign_strength: Probability = 0.8
    """The longest way that `partial` goes: a ~ U(0, this)."""
    ratio_range: Range = (0.5, 2.0)
    """The bounds of a bone's ratio in realignment."""
    rescale_probability: Probability = 0.4
    """For each of torso, legs, arms, neck, shoulders, head and the whole body: how often it is rescaled."""
    rescale_range: Range = (0.7, 1.4)
    """The bounds of a rescale factor, log-uniform."""
    rescale_gap: Range = (0.9, 1.1)
    """Factors inside this gap are pushed to its nearer edge: so small a change teaches nothing."""
    canvas_probability: Probability = 1.0
    """How often the whole figure is scaled, stretched and moved on the canvas."""
    canvas_scale: Range = (0.7, 1.3)
    """The bounds of the figure's scale on the canvas."""
    canvas_aspect: Range = (0.6, 1.4)
    """The bounds of width against height in stretching."""
    canvas_shift: Annotated[float, Field(ge=0, le=1)] = 0.25
    """The longest move in each direction, as a part of the canvas."""
    on_canvas: Probability = 0.8
    """The share of points that must stay on the canvas; the move, then the scale, are reduced for it."""
    drop_probability: Probability = 0.1
    """For each of hand, forearm, leg, foot and head: how often it vanishes."""
    add_probability: Probability = 0.1
    """For each limb that the clip never shows: how often it is made from the other body."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "EPIConfig":
        for name in ("ratio_range", "rescale_range", "rescale_gap", "canvas_scale", "canvas_aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be (low, high), got ({low}, {high}); swap them")
        return self


class EPIRecord(BaseModel):
    """Every choice that one call of `augment_poses` made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    applied: bool
    """False: the clip came back untouched, and nothing below means anything."""
    anchor: int | None = None
    """Index in the pool; None when the pool has no pose of the clip's aspect class."""
    realigned: bool = False
    strength: float | None = None
    """The part of the way to the anchor's body."""
    bone_ratios: dict[str, float] = {}
    """By the joint at the bone's end; after strength and clamp."""
    factors: dict[str, float] = {}
    """Of the rescaled groups."""
    scale: float = 1.0
    aspect: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """px, after what `on_canvas` took back."""
    dropped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def augment_poses(
    driving: PoseSequence, pool: Sequence[PoseSequence], config: EPIConfig, generator: torch.Generator
) -> tuple[PoseSequence, EPIRecord]:
    """Bends one clip's skeleton: realign, add, rescale, drop, move on the canvas; one draw for all its frames.

    Realignment keeps the joint angles and the neck; ratios are normalised by the torso, so the body's size stays.
    The number of random draws is fixed, so switching one step off leaves the others as they were. Joints below the
    visibility threshold come out as missing. Hands, face and feet go along with wrists, nose and ankles.

    Raises:
        ValueError: The pool is empty although the configuration needs a body from it.
    """
    if not pool and (config.realign_probability > 0 or config.add_probability > 0):
        raise ValueError(
            "the EPI pose pool is empty; pass at least one pose, or set realign_probability and add_probability to 0"
        )
    draws = iter(torch.rand(_NUM_DRAWS, generator=generator, device=generator.device, dtype=torch.float64).tolist())
    if next(draws) >= config.probability:
        return driving, EPIRecord(applied=False)

    joints = joints_of(driving)
    anchor_index = _choose_anchor(driving, pool, next(draws), next(draws))
    anchor = None if anchor_index is None else joints_of(pool[anchor_index])
    ratios, strength = _realign_ratios(joints, anchor, config, next(draws), next(draws))
    filled = fill_missing(joints)
    xy, visible = with_lengths(filled, ratios), joints.visible.copy()
    added = _add_limbs(xy, visible, anchor, joints, [next(draws) < config.add_probability for _ in ADDED])
    factors = _rescale_factors(config, [(next(draws), next(draws)) for _ in RESCALED])
    multipliers = np.ones(len(JOINTS))
    for name, factor in factors.items():
        multipliers[list(RESCALED[name])] *= factor
    xy = with_lengths(fill_missing(Joints(xy, visible)), multipliers)
    hands, face, feet = _carry_extras(driving, filled, xy, ratios * multipliers)
    dropped = _drop_parts(visible, hands, face, feet, config, [(next(draws), next(draws)) for _ in DROPPED])

    linear, shift, scale, aspect = _canvas_move(
        xy[visible], driving.frame_size, config, [next(draws) for _ in range(5)]
    )
    parts = [
        None if p is None else np.concatenate([p[..., :2] * linear + shift, p[..., 2:]], -1)
        for p in (hands, face, feet)
    ]
    result = to_sequence(
        driving,
        xy * linear + shift,
        visible,
        frame_size=driving.frame_size,
        hands=parts[0],
        face=parts[1],
        feet=parts[2],
    )
    record = EPIRecord(
        applied=True,
        anchor=anchor_index,
        realigned=strength is not None,
        strength=strength,
        bone_ratios={} if strength is None else dict(zip(JOINTS, ratios.tolist(), strict=True)),
        factors=factors,
        scale=scale,
        aspect=aspect,
        shift=(float(shift[0]), float(shift[1])),
        dropped=dropped,
        added=added,
    )
    return result, record


def _choose_anchor(driving: PoseSequence, pool: Sequence[PoseSequence], first: float, second: float) -> int | None:
    """Draws a body of the clip's aspect class, all alike likely; a square belongs to portrait and to landscape."""
    if not pool:
        return None

    def fits(pose: PoseSequence) -> bool:
        (width, height), (other_width, other_height) = driving.frame_size, pose.frame_size
        return (width - height) * (other_width - other_height) >= 0

    index = int(first * len(pool))
    if not fits(pool[index]):  # a fresh draw among those that fit keeps the odds even without a scan at every call
        fitting = [i for i, pose in enumerate(pool) if fits(pose)]
        return fitting[int(second * len(fitting))] if fitting else None
    return index


def _realign_ratios(
    joints: Joints, anchor: Joints | None, config: EPIConfig, chance: float, way: float
) -> tuple[np.ndarray, float | None]:
    """Gives a ratio for every bone, 1 where the clip is not realigned, and the strength drawn."""
    if anchor is None or chance >= config.realign_probability:
        return np.ones(len(JOINTS)), None
    target, source = bone_lengths(anchor), bone_lengths(joints)
    whole = body_ratio(target, source)
    if not np.isfinite(whole):
        return np.ones(len(JOINTS)), None
    strength = 1.0 if config.realign_mode == "full" else way * config.realign_strength
    with np.errstate(invalid="ignore"):
        ratios = target / source / whole
    finite = np.isfinite(ratios)
    ratios = np.where(finite, ratios, ratios[finite].mean())
    ratios = np.clip(1 + strength * (ratios - 1), *config.ratio_range)
    ratios[NECK] = 1.0
    return ratios, strength


def _add_limbs(
    xy: np.ndarray, visible: np.ndarray, anchor: Joints | None, joints: Joints, chosen: Sequence[bool]
) -> tuple[str, ...]:
    """Gives the clip limbs that it never shows, held as in the anchor's middle frame; changes `xy` and `visible`."""
    if anchor is None or not any(chosen):
        return ()
    size = 1 / body_ratio(bone_lengths(anchor), bone_lengths(joints))
    pose, found = anchor.xy[len(anchor.xy) // 2], anchor.visible[len(anchor.xy) // 2]
    added = []
    for (name, limb), wanted in zip(ADDED.items(), chosen, strict=True):
        if (
            not wanted
            or visible[:, limb].any()
            or not found[[*limb[:1], PARENTS[limb[0]]]].all()
            or not np.isfinite(size)
        ):
            continue
        for joint in limb:
            parent = PARENTS[joint]
            if found[joint] and found[parent]:
                xy[:, joint] = xy[:, parent] + size * (pose[joint] - pose[parent])
                visible[:, joint] = visible[:, parent]
        if visible[:, limb].any():
            added.append(name)
    return tuple(added)


def _rescale_factors(config: EPIConfig, draws: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Draws which groups are rescaled and by how much."""
    low, high = np.log(config.rescale_range)
    inner, outer = config.rescale_gap
    factors = {}
    for name, (chance, size) in zip(RESCALED, draws, strict=True):
        if chance < config.rescale_probability:
            factor = float(np.exp(low + size * (high - low)))
            if inner < factor < outer:
                factor = inner if factor < 1 else outer
            factors[name] = factor
    return factors


def _carry_extras(
    driving: PoseSequence, before: np.ndarray, after: np.ndarray, ratios: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Takes hands, face and feet along with wrist, nose and ankle."""

    def spread(xy: np.ndarray, joints: Sequence[int], each: int) -> np.ndarray:
        return np.repeat(xy[:, list(joints)], each, axis=1)

    def carried(
        points: torch.Tensor | None, roots: Sequence[int], sizes: Sequence[int], each: int
    ) -> np.ndarray | None:
        factor = np.repeat(ratios[list(sizes)], each)[None, :, None]
        return carry_points(points, spread(before, roots, each), spread(after, roots, each), factor)

    return (
        carried(driving.hands, (4, 7), (4, 7), 21),
        carried(driving.face, (0,), (14,), 68),
        carried(driving.feet, (10, 13), (10, 13), 3),
    )


def _drop_parts(
    visible: np.ndarray,
    hands: np.ndarray | None,
    face: np.ndarray | None,
    feet: np.ndarray | None,
    config: EPIConfig,
    draws: Sequence[tuple[float, float]],
) -> tuple[str, ...]:
    """Takes parts away, on the right, the left or both sides; changes the arrays."""
    dropped = []
    for (name, sides), (chance, side) in zip(DROPPED.items(), draws, strict=True):
        if chance >= config.drop_probability:
            continue
        for index, (joints, label) in enumerate(zip(sides, ("right_", "left_"), strict=False)):
            if len(sides) == 2 and (side < 1 / 3, 1 / 3 <= side < 2 / 3)[1 - index]:
                continue
            visible[:, list(joints)] = False
            dropped.append(name if len(sides) == 1 else label + name)
            if name in ("hand", "forearm") and hands is not None:
                hands[:, 21 * index : 21 * (index + 1), 2] = 0
            if name in ("leg", "foot") and feet is not None:
                feet[:, 3 * index : 3 * (index + 1), 2] = 0
            if name == "head" and face is not None:
                face[..., 2] = 0
    return tuple(dropped)


def _canvas_move(
    points: np.ndarray, frame_size: tuple[int, int], config: EPIConfig, draws: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Draws a scale, an aspect and a move; gives back `linear` and `shift` with new = old * linear + shift."""
    if draws[0] >= config.canvas_probability or not len(points):
        return np.ones(2), np.zeros(2), 1.0, 1.0
    canvas = np.array(frame_size, dtype=np.float64)
    low, high = np.log(config.canvas_scale)
    scale = float(np.exp(low + draws[1] * (high - low)))
    low, high = np.log(config.canvas_aspect)
    aspect = float(np.exp(low + draws[2] * (high - low)))
    linear = scale * np.array([aspect**0.5, aspect**-0.5])
    top, bottom = points.min(0), points.max(0)
    middle = (top + bottom) / 2
    # From the whole move down to the figure in the middle of the canvas: the first that keeps enough points wins.
    wish = middle + (np.array(draws[3:5]) * 2 - 1) * config.canvas_shift * canvas
    targets = canvas / 2 + np.linspace(1, 0, 9)[:, None] * (wish - canvas / 2)
    moved = (points - middle) * linear + targets[:, None]
    enough = ((moved >= 0) & (moved < canvas)).all(-1).mean(-1) >= config.on_canvas
    if enough.any():
        target = targets[int(enough.argmax())]
    else:
        target = canvas / 2
        shrink = float((0.99 * canvas / np.maximum((bottom - top) * linear, 1e-6)).min())
        scale, linear = scale * shrink, linear * shrink
    return linear, target - middle * linear, scale, aspect
