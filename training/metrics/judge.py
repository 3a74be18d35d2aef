"""What looks at a generated video: mini-CLIP for its content, the mini pose detector for its joints."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from models.clip import OpenCLIPTextEncoder, OpenCLIPVisionEncoder
from pose.detect import PoseDetector, detect_all
from pose.media import to_uint8
from training.data.backgrounds import DYNAMICS
from training.data.captions import DYNAMIC_WORDS
from training.precision import in_half


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What measures a video: mini-CLIP, and a pose detector for PCK."""

    image: OpenCLIPVisionEncoder
    text: OpenCLIPTextEncoder
    detector: PoseDetector

    @torch.no_grad()
    def features(self, video: Float[Tensor, "batch frames 3 height width"]) -> Float[Tensor, "batch frames dim"]:
        """Pooled mini-CLIP features of every frame, of unit length."""
        batch, frames = video.shape[:2]
        seen = video[:, :1] if _still(video) else video
        device = next(self.image.parameters()).device
        with in_half(device):
            pooled = self.image(rearrange(seen, "b f c h w -> (b f) c h w").to(device) * 2 - 1).pooled.float().cpu()
        found = rearrange(F.normalize(pooled, dim=-1), "(b f) d -> b f d", b=batch)
        return found.expand(-1, frames, -1)

    def keypoints(self, video: Float[Tensor, "frames 3 height width"]) -> tuple[Tensor, Tensor]:
        """Joints (frames, 18, 2) in px and confidences (frames, 18); nobody found gives zeros."""
        seen = video[:1] if _still(video[None]) else video
        found = detect_all(self.detector, list(to_uint8(seen)))
        best = [max(people, key=lambda p: p.score) if people else None for people in found]
        xy = torch.stack([torch.zeros(18, 2) if p is None else torch.as_tensor(p.xy).float() for p in best])
        confidence = torch.stack(
            [torch.zeros(18) if p is None else torch.as_tensor(p.confidence).float() for p in best]
        )
        return xy.expand(len(video), -1, -1), confidence.expand(len(video), -1)

    @torch.no_grad()
    def dynamic(self, features: Float[Tensor, "batch frames dim"]) -> Float[Tensor, "batch"]:
        """Which of the dynamics a clip shows, as an index into `DYNAMICS`: the nearest caption by mini-CLIP."""
        names = list(DYNAMICS)
        words = torch.stack(
            [F.normalize(self.text.pooled(list(DYNAMIC_WORDS[n])).float().cpu(), dim=-1).mean(0) for n in names]
        )
        return (features.mean(1) @ words.T).argmax(1)


def _still(video: Float[Tensor, "batch frames 3 height width"]) -> bool:
    """Tells whether nothing moves, as when the reference is repeated: one frame is enough to look at."""
    return bool((video == video[:, :1]).all())


def open_judge(mini: Path, detector: PoseDetector, *, device: torch.device | str = "cpu") -> Judge:
    """Opens the judge with the CLIP of a mini folder."""
    text = OpenCLIPTextEncoder.from_pretrained(mini / "text_encoder", torch_dtype=torch.float32)
    image = OpenCLIPVisionEncoder.from_pretrained(mini / "image_encoder", torch_dtype=torch.float32)
    return Judge(image=image.to(device).eval(), text=text.to(device).eval(), detector=detector)
