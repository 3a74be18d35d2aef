"""The animator's conditions in training: what the recipe and fine-tuning share.

Skeletons are drawn on the canvas and encoded by the indicators; then parts are left out at random, each clip for
itself (condition dropout, as in Animate-X and UniAnimate-DiT; the rates are ours).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from models.conditioning import Conditioning
from pose.augment import EPIConfig
from pose.draw import draw_poses
from pose.explicit import ExplicitPoseIndicator
from pose.implicit import ImplicitPoseIndicator, keypoint_features
from pose.sequence import PoseSequence
from training.data.world import clip_spec, joints_of_specs

BENT: Final = EPIConfig(probability=0.5, canvas_probability=0.3)
"""How the driving skeleton is bent; milder than the paper's, since small models see far fewer clips."""
BODIES: Final = 256
"""Bodies in the pool that EPI realigns to."""


@dataclass(frozen=True, kw_only=True)
class DropRates:
    """How often parts of the conditions are left out."""

    pose: float = 0.1
    """The explicit pose and the reference pose, together."""
    implicit: float = 0.5
    """The implicit motion: keypoint files and bundled motions have no frames to take it from."""
    image: float = 0.03
    """The reference, latents and CLIP tokens together."""


@dataclass(frozen=True, kw_only=True)
class Skeletons:
    """The poses of a batch as the indicators take them."""

    pose: Float[Tensor, "batch 3 frames height width"]
    """The driving skeleton, drawn."""
    reference_pose: Float[Tensor, "batch 3 height width"]
    """The skeleton in the reference, drawn."""
    keypoints: Float[Tensor, "batch frames coords"]
    """The keypoints that go with the implicit motion."""


def drawn_bodies(count: int, size: tuple[int, int]) -> list[PoseSequence]:
    """A pool of bodies for EPI, from a part of the drawn world's training numbers that no shard reaches."""
    return joints_of_specs([clip_spec("train", (1 << 29) + k) for k in range(count)], size)


def draw_skeletons(
    driving: Sequence[PoseSequence],
    references: Sequence[PoseSequence],
    found: Sequence[PoseSequence],
    *,
    size: tuple[int, int],
    device: torch.device,
) -> Skeletons:
    """Draws what drives and what is in the references; `found` is what the implicit motion's frames show."""
    poses = torch.stack([draw_poses(clip, size=size) for clip in driving])
    still = torch.stack([draw_poses(pose, size=size)[0] for pose in references])
    return Skeletons(
        pose=rearrange(poses, "b f h w c -> b c f h w").to(device) / 255,
        reference_pose=rearrange(still, "b h w c -> b c h w").to(device) / 255,
        keypoints=torch.stack([keypoint_features(clip) for clip in found]).to(device),
    )


def with_poses(
    told: Conditioning,
    skeletons: Skeletons,
    motion: Float[Tensor, "batch frames embed"] | None,
    epi: ExplicitPoseIndicator,
    ipi: ImplicitPoseIndicator | None,
) -> Conditioning:
    """Adds the explicit pose, the reference pose and, where there is an indicator for it, the implicit motion."""
    return replace(
        told,
        reference_pose=epi.encode_reference_pose(skeletons.reference_pose),
        explicit=epi.encode_pose(skeletons.pose),
        implicit=ipi(motion.float(), skeletons.keypoints) if ipi is not None and motion is not None else None,
    )


def leave_out(told: Conditioning, chance: Float[Tensor, "3 batch"], rates: DropRates) -> Conditioning:
    """Leaves parts out of some clips; `chance` is uniform in 0..1, for pose, implicit motion and reference."""
    told = told.drop("explicit", "reference_pose", where=chance[0] < rates.pose)
    told = told.drop("implicit", where=chance[1] < rates.implicit)
    return told.drop("reference", "image", where=chance[2] < rates.image)
