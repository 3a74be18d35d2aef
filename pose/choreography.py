"""Motions as joint angles over time, and the forward kinematics that puts them on a body of any proportions.

An angle is the same motion on every body, so this is what "the same dance on another character" means in the drawn
world.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from pose.registry import Registry

CHANNELS: Final = (
    "shift", "jump", "turn", "lean", "tilt",
    "right_shoulder", "right_elbow", "left_shoulder", "left_elbow",
    "right_hip", "right_knee", "left_hip", "left_knee",
)  # fmt: skip
"""What moves. `shift` and `jump` are in leg lengths, the rest radians. A limb at 0 hangs straight down and grows
outward on both sides; elbow and knee are relative to the limb above. `turn` narrows the body (yaw seen from the
front)."""

_INDEX: Final = {name: k for k, name in enumerate(CHANNELS)}

Move = Callable[[Tensor, float], Mapping[str, Tensor | float]]
"""(time in cycles, amplitude about 1) -> the channels that are not at rest."""

MOVES: Final[Registry[Move]] = Registry("motion")


@dataclass(frozen=True, kw_only=True)
class Proportions:
    """Lengths of a batch of bodies, in any one unit: each (batch,)."""

    torso: Tensor
    neck: Tensor
    head: Tensor
    """Radius of the head."""
    shoulders: Tensor
    """Half the shoulder width."""
    hips: Tensor
    upper_arm: Tensor
    forearm: Tensor
    thigh: Tensor
    shin: Tensor


HUMAN: Final = {
    "torso": 0.30, "neck": 0.035, "head": 0.075, "shoulders": 0.115, "hips": 0.07,
    "upper_arm": 0.165, "forearm": 0.15, "thigh": 0.24, "shin": 0.23,
}  # fmt: skip
"""Proportions of a grown person, in body heights."""


def proportions(values: Mapping[str, float | Tensor]) -> Proportions:
    """Makes `Proportions` from numbers (a batch of one) or tensors (batch,)."""
    return Proportions(**{k: torch.as_tensor(v, dtype=torch.float32).reshape(-1) for k, v in values.items()})


def rest(num_frames: int) -> Float[Tensor, "frames channels"]:
    """Stands still, arms a little away from the body: the stance of a reference picture."""
    angles = torch.zeros(num_frames, len(CHANNELS))
    for name, value in {"right_shoulder": 0.35, "left_shoulder": 0.35, "right_hip": 0.1, "left_hip": 0.1}.items():
        angles[:, _INDEX[name]] = value
    return angles


def choreograph(
    name: str, time_s: Float[Tensor, "frames"], *, tempo: float = 1.0, amplitude: float = 1.0, phase: float = 0.0
) -> Float[Tensor, "frames channels"]:
    """Performs a named motion at the given times. `tempo` is in cycles a second, `phase` in cycles."""
    angles = rest(len(time_s))
    for channel, value in MOVES[name](time_s * tempo + phase, amplitude).items():
        angles[:, _INDEX[channel]] = torch.as_tensor(value, dtype=torch.float32).expand(len(time_s))
    return angles


def joint_positions(
    angles: Float[Tensor, "batch frames channels"], body: Proportions
) -> Float[Tensor, "batch frames joints 2"]:
    """Puts the angles on the bodies: 18 OpenPose joints, y down, ground at y = 0, standing around x = 0.

    The lowest ankle stands on the ground at every frame, plus `jump`.
    """
    a = {name: angles[..., k] for name, k in _INDEX.items()}
    p = {name: getattr(body, name)[:, None] for name in HUMAN}
    narrow = a["turn"].cos().abs().clamp(min=0.3)  # never edge-on: a frontal puppet has no profile view

    def along(angle: Tensor, length: Tensor, side: int) -> Tensor:
        """A limb vector: `side` -1 is the body's right (picture left)."""
        return torch.stack([side * angle.sin() * length * narrow, angle.cos() * length], dim=-1)

    up = torch.stack([a["lean"].sin(), -a["lean"].cos()], dim=-1)
    across = torch.stack([a["lean"].cos() * narrow, a["lean"].sin() * narrow], dim=-1)
    root = torch.zeros_like(up)
    neck = root + up * p["torso"][..., None]
    head = a["lean"] + a["tilt"]
    head_up = torch.stack([head.sin(), -head.cos()], dim=-1)
    head_across = torch.stack([head.cos() * narrow, head.sin() * narrow], dim=-1)
    r = p["head"][..., None]
    nose = neck + head_up * (p["neck"] + p["head"])[..., None]
    joints: list[Tensor] = [nose, neck]
    for side, s in (("right", -1), ("left", 1)):
        shoulder = neck + s * across * p["shoulders"][..., None]
        upper = a[f"{side}_shoulder"] - s * a["lean"]
        elbow = shoulder + along(upper, p["upper_arm"], s)
        wrist = elbow + along(upper + a[f"{side}_elbow"], p["forearm"], s)
        joints += [shoulder, elbow, wrist]
    for side, s in (("right", -1), ("left", 1)):
        hip = root + s * across * p["hips"][..., None]
        knee = hip + along(a[f"{side}_hip"], p["thigh"], s)
        ankle = knee + along(a[f"{side}_hip"] + a[f"{side}_knee"], p["shin"], s)
        joints += [hip, knee, ankle]
    for s in (-1, 1):
        joints.append(nose + head_up * 0.28 * r + s * head_across * 0.38 * r)
    for s in (-1, 1):
        joints.append(nose + head_up * 0.12 * r + s * head_across * 0.95 * r)
    xy = torch.stack(joints, dim=-2)
    leg = p["thigh"] + p["shin"]
    lowest = torch.maximum(xy[..., 10, 1], xy[..., 13, 1])
    offset = torch.stack([a["shift"] * leg, -lowest - a["jump"] * leg], dim=-1)
    return xy + offset[..., None, :]


def _wave(t: Tensor, shift: float = 0.0) -> Tensor:
    return (2 * math.pi * (t + shift)).sin()


def _pulse(t: Tensor, shift: float = 0.0) -> Tensor:
    """0..1 and back, smooth."""
    return 0.5 - 0.5 * (2 * math.pi * (t + shift)).cos()


@MOVES.register("walk")
def _walk(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    s = _wave(t)
    return {
        "right_hip": 0.5 * k * s, "left_hip": 0.5 * k * s,
        "right_knee": -0.7 * k * _pulse(t, 0.25), "left_knee": -0.7 * k * _pulse(t, 0.75),
        "right_shoulder": 0.15 - 0.5 * k * s, "left_shoulder": 0.15 - 0.5 * k * s,
        "right_elbow": 0.25, "left_elbow": 0.25, "lean": 0.04 * k * _wave(2 * t),
    }  # fmt: skip


@MOVES.register("run")
def _run(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    s = _wave(t)
    return {
        "right_hip": 0.75 * k * s, "left_hip": 0.75 * k * s,
        "right_knee": -1.3 * k * _pulse(t, 0.3), "left_knee": -1.3 * k * _pulse(t, 0.8),
        "right_shoulder": 0.3 - 0.7 * k * s, "left_shoulder": 0.3 - 0.7 * k * s,
        "right_elbow": 1.3, "left_elbow": 1.3, "lean": 0.15, "jump": 0.1 * k * _pulse(2 * t),
    }  # fmt: skip


@MOVES.register("wave")
def _wave_hand(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    return {
        "left_shoulder": 2.1 + 0.15 * k * _wave(t),
        "left_elbow": 0.6 + 0.7 * k * _wave(t),
        "tilt": 0.1 * _wave(t / 2),
    }


@MOVES.register("wave_both")
def _wave_both(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    return {
        "left_shoulder": 2.2 + 0.4 * k * _wave(t), "right_shoulder": 2.2 - 0.4 * k * _wave(t),
        "left_elbow": 0.4 + 0.3 * k * _wave(t), "right_elbow": 0.4 - 0.3 * k * _wave(t), "lean": 0.12 * k * _wave(t),
    }  # fmt: skip


@MOVES.register("jump")
def _jump(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    air, crouch = _wave(t).clamp(min=0), (-_wave(t)).clamp(min=0)
    return {
        "jump": 0.45 * k * air, "right_hip": 0.1 + 0.8 * k * crouch, "left_hip": 0.1 + 0.8 * k * crouch,
        "right_knee": -1.4 * k * crouch, "left_knee": -1.4 * k * crouch,
        "right_shoulder": 0.4 + 1.9 * k * air, "left_shoulder": 0.4 + 1.9 * k * air,
    }  # fmt: skip


@MOVES.register("jumping_jack")
def _jumping_jack(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    p = _pulse(t)
    return {
        "right_shoulder": 0.25 + 2.5 * k * p, "left_shoulder": 0.25 + 2.5 * k * p,
        "right_hip": 0.08 + 0.5 * k * p, "left_hip": 0.08 + 0.5 * k * p, "jump": 0.12 * k * _pulse(2 * t),
    }  # fmt: skip


@MOVES.register("squat")
def _squat(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    p = _pulse(t)
    return {
        "right_hip": 0.12 + 1.0 * k * p, "left_hip": 0.12 + 1.0 * k * p,
        "right_knee": -1.7 * k * p, "left_knee": -1.7 * k * p,
        "right_shoulder": 0.35 + 1.1 * k * p, "left_shoulder": 0.35 + 1.1 * k * p,
    }  # fmt: skip


@MOVES.register("kick")
def _kick(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    a, b = _wave(t).clamp(min=0), (-_wave(t)).clamp(min=0)
    return {
        "right_hip": 0.1 + 1.2 * k * a, "left_hip": 0.1 + 1.2 * k * b,
        "right_knee": -0.5 * k * (1 - a) * a * 4, "left_knee": -0.5 * k * (1 - b) * b * 4,
        "right_shoulder": 0.5 + 0.8 * k * b, "left_shoulder": 0.5 + 0.8 * k * a, "lean": 0.18 * k * (a - b),
    }  # fmt: skip


@MOVES.register("clap")
def _clap(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    p = _pulse(t)
    return {
        "right_shoulder": 0.5 + 0.5 * k * p, "left_shoulder": 0.5 + 0.5 * k * p,
        "right_elbow": -2.2 + 1.1 * k * p, "left_elbow": -2.2 + 1.1 * k * p, "tilt": 0.08 * _wave(t / 2),
    }  # fmt: skip


@MOVES.register("cheer")
def _cheer(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    p = _pulse(t)
    return {
        "right_shoulder": 1.7 + 1.1 * k * p, "left_shoulder": 1.7 + 1.1 * k * p,
        "right_elbow": 0.9 - 0.8 * k * p, "left_elbow": 0.9 - 0.8 * k * p, "jump": 0.15 * k * p,
    }  # fmt: skip


@MOVES.register("sway")
def _sway(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    s = _wave(t)
    return {
        "lean": 0.25 * k * s, "shift": 0.12 * k * s, "tilt": 0.2 * k * s,
        "right_shoulder": 0.6 + 0.5 * k * s, "left_shoulder": 0.6 - 0.5 * k * s,
        "right_elbow": 0.5, "left_elbow": 0.5,
    }  # fmt: skip


@MOVES.register("twist")
def _twist(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    s = _wave(t)
    return {
        "turn": 0.9 * k * s, "right_shoulder": 1.3 + 0.3 * s, "left_shoulder": 1.3 - 0.3 * s,
        "right_elbow": 0.8 * s, "left_elbow": -0.8 * s, "right_hip": 0.25, "left_hip": 0.25,
    }  # fmt: skip


@MOVES.register("turn")
def _turn(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    return {
        "turn": 1.25 * k * _wave(t / 2),
        "right_shoulder": 0.4 + 0.3 * _pulse(t),
        "left_shoulder": 0.4 + 0.3 * _pulse(t),
    }


@MOVES.register("march")
def _march(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    a, b = _wave(t).clamp(min=0), (-_wave(t)).clamp(min=0)
    return {
        "right_hip": 0.08 + 0.9 * k * a, "right_knee": -1.5 * k * a,
        "left_hip": 0.08 + 0.9 * k * b, "left_knee": -1.5 * k * b,
        "right_shoulder": 0.3 + 0.7 * k * b, "right_elbow": 0.9 * b,
        "left_shoulder": 0.3 + 0.7 * k * a, "left_elbow": 0.9 * a,
    }  # fmt: skip


@MOVES.register("bow")
def _bow(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    p = _pulse(t)
    return {"lean": 0.7 * k * p, "tilt": 0.5 * k * p, "right_shoulder": 0.3 + 0.5 * p, "left_shoulder": 0.3 + 0.5 * p}


@MOVES.register("point")
def _point(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    a, b = _pulse(t), _pulse(t, 0.5)
    return {
        "right_shoulder": 0.35 + 1.6 * k * a, "left_shoulder": 0.35 + 1.6 * k * b,
        "right_hip": 0.1 + 0.25 * a, "left_hip": 0.1 + 0.25 * b, "lean": 0.15 * k * (b - a),
    }  # fmt: skip


@MOVES.register("disco")
def _disco(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    p, s = _pulse(t), _wave(t)
    return {
        "left_shoulder": 0.7 + 1.9 * k * p, "left_elbow": 0.15, "right_shoulder": 0.9, "right_elbow": -1.9,
        "lean": 0.15 * s, "tilt": 0.15 * s,
        "right_hip": 0.2 + 0.15 * s, "left_hip": 0.2 - 0.15 * s, "left_knee": -0.4 * p,
    }  # fmt: skip


@MOVES.register("robot")
def _robot(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    s = (4 * _wave(t)).tanh()
    return {
        "right_shoulder": 1.5, "right_elbow": 1.5 * k * s, "left_shoulder": 1.5, "left_elbow": -1.5 * k * s,
        "tilt": 0.2 * s, "right_hip": 0.15, "left_hip": 0.15,
    }  # fmt: skip


@MOVES.register("swim")
def _swim(t: Tensor, k: float) -> Mapping[str, Tensor | float]:
    return {
        "right_shoulder": 1.6 + 1.3 * k * _wave(t), "left_shoulder": 1.6 + 1.3 * k * _wave(t, 0.5),
        "right_elbow": 0.3, "left_elbow": 0.3, "lean": 0.2 * k * _wave(t, 0.25), "right_hip": 0.2, "left_hip": 0.2,
    }  # fmt: skip


def improvise(time_s: Float[Tensor, "frames"], generator: torch.Generator) -> Float[Tensor, "frames channels"]:
    """Dances: every joint follows its own random sum of two sines, within human ranges."""
    low = {
        "shift": -0.2,
        "jump": 0.0,
        "turn": -0.7,
        "lean": -0.25,
        "tilt": -0.35,
        "shoulder": 0.0,
        "elbow": -1.6,
        "hip": -0.1,
        "knee": -1.2,
    }
    high = {
        "shift": 0.2,
        "jump": 0.15,
        "turn": 0.7,
        "lean": 0.25,
        "tilt": 0.35,
        "shoulder": 2.8,
        "elbow": 1.8,
        "hip": 0.8,
        "knee": 0.2,
    }
    draw = torch.rand(len(CHANNELS), 6, generator=generator)
    angles = torch.zeros(len(time_s), len(CHANNELS))
    for k, name in enumerate(CHANNELS):
        kind = name.rsplit("_", 1)[-1]
        d = draw[k]
        path = 0.65 * _wave(time_s * (0.4 + 0.8 * d[0]), float(d[1])) + 0.35 * _wave(
            time_s * (0.8 + 1.4 * d[2]), float(d[3])
        )
        # a random centre and reach inside the range, so that some joints rest while others work
        reach = (0.25 + 0.75 * d[4]) * 0.5
        centre = reach + (1 - 2 * reach) * d[5]
        angles[:, k] = low[kind] + (high[kind] - low[kind]) * (centre + reach * path).clamp(0, 1)
    return angles
