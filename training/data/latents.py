"""Shards of encoded clips: drawing and encoding cost as much as a training step, so each clip serves several times.

A shard follows from its number alone, so a resumed run makes the same shard again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from diffusers import AutoencoderKLWan
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from models.clip import OpenCLIPTextEncoder, OpenCLIPVisionEncoder
from models.codecs import encode_latents
from pose.sequence import PoseSequence
from training.data.world import FPS, Clips, ClipSpec, draw_clips
from training.precision import multiplies_bf16


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """The frozen parts that turn clips into what the animator sees."""

    vae: AutoencoderKLWan
    text: OpenCLIPTextEncoder
    image: OpenCLIPVisionEncoder


@dataclass(frozen=True, kw_only=True)
class LatentClips:
    """Encoded clips with their poses, in the order of the specs they were drawn from."""

    latents: Float[Tensor, "batch channels latent_frames rows columns"]
    reference: Float[Tensor, "batch channels 1 rows columns"]
    text: Float[Tensor, "batch text_tokens text_dim"]
    image: Float[Tensor, "batch image_tokens image_dim"]
    motion: Float[Tensor, "batch frames embed"]
    """Pooled CLIP features of the driving frames: the same motion on another body."""
    xy: Float[Tensor, "batch frames joints 2"]
    confidence: Float[Tensor, "batch frames joints"]
    motion_xy: Float[Tensor, "batch frames joints 2"]
    """Keypoints of the other body."""
    motion_confidence: Float[Tensor, "batch frames joints"]
    reference_xy: Float[Tensor, "batch joints 2"]
    reference_confidence: Float[Tensor, "batch joints"]

    def __len__(self) -> int:
        return self.latents.shape[0]

    def take(self, index: Tensor) -> Self:
        """Takes some of the clips."""
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Joins batches of clips."""
        return cls(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def poses(self, clip: int, size: tuple[int, int]) -> PoseSequence:
        """The skeleton of one clip, as a detector would give it."""
        return _sequence(self.xy[clip], self.confidence[clip], size)

    def driving(self, clip: int, size: tuple[int, int]) -> PoseSequence:
        """The skeleton of the other body."""
        return _sequence(self.motion_xy[clip], self.motion_confidence[clip], size)

    def reference_pose(self, clip: int, size: tuple[int, int]) -> PoseSequence:
        """The skeleton in the reference picture of one clip."""
        return _sequence(self.reference_xy[clip, None], self.reference_confidence[clip, None], size)


def _sequence(xy: Tensor, confidence: Tensor, size: tuple[int, int]) -> PoseSequence:
    xy, confidence = xy.float().cpu(), confidence.float().cpu()
    return PoseSequence(
        xy=torch.where(confidence[..., None] > 0, xy, -1.0), confidence=confidence, frame_size=size, fps=FPS
    )


@torch.no_grad()
def encode_specs(
    specs: Sequence[ClipSpec], encoders: Encoders, *, num_frames: int, piece: int = 8, autocast: bool = True
) -> LatentClips:
    """Draws and encodes clips, a few at a time. The other body of a clip is that of the next spec."""
    device = encoders.vae.device
    parts = []
    for first in range(0, len(specs), piece):
        some = list(specs[first : first + piece])
        others = [specs[(first + k + 1) % len(specs)].puppet for k in range(len(some))]
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast and multiplies_bf16(device)):
            clips = draw_clips(some, num_frames=num_frames, device=device)
            twins = draw_clips(some, num_frames=num_frames, device=device, bodies=others)
            parts.append(_encode(clips, twins, encoders))
    return LatentClips.join(parts)


def _encode(clips: Clips, twins: Clips, encoders: Encoders) -> LatentClips:
    batch = len(clips.specs)
    video = rearrange(clips.video, "b f c h w -> b c f h w") * 2 - 1
    reference = clips.reference * 2 - 1
    driving = encoders.image(rearrange(twins.video, "b f c h w -> (b f) c h w") * 2 - 1).pooled
    return LatentClips(
        latents=encode_latents(encoders.vae, video).half(),
        reference=encode_latents(encoders.vae, reference[:, :, None]).half(),
        text=encoders.text.encode([spec.caption for spec in clips.specs]).half(),
        image=encoders.image(reference).tokens.half(),
        motion=rearrange(driving, "(b f) d -> b f d", b=batch).half(),
        xy=clips.xy,
        confidence=clips.confidence,
        motion_xy=twins.xy,
        motion_confidence=twins.confidence,
        reference_xy=clips.reference_xy,
        reference_confidence=clips.reference_confidence,
    )
