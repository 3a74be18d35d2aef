"""The pose indicators of a request: explicit pose, reference pose and implicit motion of every clip in a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from models.clip import OpenCLIPVisionEncoder
from models.conditioning import Conditioning, encode_frames, encode_pose_clip, pose_pixels
from models.windows import ClipPlan, Window
from pose.explicit import ExplicitPoseIndicator
from pose.implicit import ImplicitPoseIndicator, keypoint_features
from pose.sequence import PoseSequence

Poses = PoseSequence | Sequence[PoseSequence]
"""One clip for all references, or one for each."""


@dataclass(frozen=True, kw_only=True)
class MotionIndicators:
    """The indicators of a whole clip, computed once, from which each window takes its part."""

    explicit: Float[Tensor, "batch dim latent_frames rows columns"] | None = None
    implicit: tuple[Float[Tensor, "batch _ dim"], ...] | None = None

    def scaled(self, scale: float) -> "MotionIndicators":
        """Weakens or strengthens the explicit pose; at 0 it is left out."""
        if self.explicit is None or scale == 1:
            return self
        return replace(self, explicit=self.explicit * scale if scale else None)

    def of(self, condition: Conditioning, index: int, window: Window) -> Conditioning:
        """Adds the part of one window to what all windows share."""
        explicit = None
        if self.explicit is not None:
            explicit = rearrange(window.take(self.explicit), "b d f h w -> b (f h w) d")
        return replace(condition, explicit=explicit, implicit=self.implicit[index] if self.implicit else None)


def per_reference(name: str, poses: Poses, batch: int) -> list[PoseSequence]:
    """Lists the clips of a batch: one, or one for each reference.

    Raises:
        ValueError: it is another number.
    """
    clips = [poses] if isinstance(poses, PoseSequence) else list(poses)
    if len(clips) not in (1, batch):
        raise ValueError(f"{name} must be one or {batch}, one for each reference; got {len(clips)}")
    return clips


def hold(rows: Float[Tensor, "frames ..."], plan: ClipPlan, name: str) -> Float[Tensor, "made_frames ..."]:
    """Takes as many frames as the clip needs, and holds the last where it was rounded up to 4k + 1.

    Raises:
        ValueError: there are fewer frames than the clip has.
    """
    if rows.shape[0] < plan.num_frames:
        raise ValueError(
            f"{name} has {rows.shape[0]} frames but the clip has {plan.num_frames}; give one for each pose"
        )
    return rows[torch.arange(plan.num_made).clamp(max=plan.num_frames - 1)]


def encode_explicit(
    epi: ExplicitPoseIndicator,
    clips: Sequence[PoseSequence],
    plan: ClipPlan,
    *,
    size: tuple[int, int],
    device: torch.device,
) -> Float[Tensor, "clips dim latent_frames rows columns"]:
    """Encodes the explicit pose of whole clips on a canvas of `size` (width, height)."""
    index = torch.arange(plan.num_made).clamp(max=plan.num_frames - 1)
    return torch.cat([encode_pose_clip(epi, clip[index], size=size, device=device) for clip in clips])


def encode_reference_pose(
    epi: ExplicitPoseIndicator, poses: Sequence[PoseSequence], *, size: tuple[int, int], device: torch.device
) -> Float[Tensor, "clips channels 1 rows columns"]:
    """Encodes the skeletons of references (their first frames) on a canvas of `size` (width, height)."""
    pictures = torch.cat([pose_pixels(pose.frame(0), size)[:, :, 0] for pose in poses])
    return epi.encode_reference_pose(pictures.to(device)).float()


def encode_implicit(
    ipi: ImplicitPoseIndicator,
    encoder: object,
    frames: Iterable[Tensor],
    poses: Sequence[PoseSequence],
    plan: ClipPlan,
    batch: int,
) -> tuple[Float[Tensor, "batch _ dim"], ...]:
    """Encodes the implicit motion of driving videos, window by window.

    The indicator has a longest clip (its table of positions), and the released one takes a fixed number of frames: so
    it sees each window by itself, as in training.

    Raises:
        ValueError: `encoder` has no pooled embedding, or there are fewer frames than poses.
    """
    if not isinstance(encoder, OpenCLIPVisionEncoder):
        raise ValueError(
            "the implicit indicator needs an OpenCLIPVisionEncoder as ipi_image_encoder (or image_encoder), "
            f"got {type(encoder).__name__}; add one, or leave driving_frames out"
        )
    videos = [frames]
    if isinstance(frames, (list, tuple)) and frames and frames[0].ndim == 4:
        videos = list(frames)
    if len(videos) not in (1, batch):
        raise ValueError(f"driving_frames must be one video or {batch}, one for each reference; got {len(videos)}")
    features = torch.stack([hold(encode_frames(encoder, video), plan, "driving_frames") for video in videos])
    keypoints = torch.stack([hold(keypoint_features(pose), plan, "driving_poses") for pose in poses])
    features, keypoints = features.expand(batch, -1, -1), keypoints.expand(batch, -1, -1).to(features)
    spans = [plan.frames_of(window) for window in plan.windows]
    return tuple(_tokens(ipi, features[:, span], keypoints[:, span]) for span in spans)


def _tokens(
    ipi: ImplicitPoseIndicator, features: Float[Tensor, "batch frames dim"], keypoints: Float[Tensor, "batch frames _"]
) -> Float[Tensor, "batch latent_frames dim"]:
    """The tokens of a window; one that knows a single length holds the last frame of a shorter clip."""
    frames, wanted = features.shape[1], ipi.config.num_frames
    if ipi.config.time_map != "conv" or frames >= wanted:
        found: Tensor = ipi(features, keypoints)
        return found
    longer = [torch.cat([part, part[:, -1:].expand(-1, wanted - frames, -1)], dim=1) for part in (features, keypoints)]
    return ipi(*longer)[:, : (frames - 1) // 4 + 1]
