"""mini-clip: an open_clip model of 6 M parameters that knows the words and pictures of the drawn world."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from models.clip import (
    OpenCLIPConfig,
    OpenCLIPTextEncoder,
    OpenCLIPVisionEncoder,
    build_open_clip,
    join_open_clip,
    split_open_clip,
    tokenize,
)
from models.codecs import decode_latents, encode_latents
from training.data.world import Split, clip_spec, draw_clips
from training.recipes.base import RECIPES, ContinuingRecipe
from training.tasks import Task

CODED_FRAMES = 5
"""Frames of a clip that goes through the codec: the last of them is not coded as a picture of its own."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pictures with their captions."""

    pixels: Float[Tensor, "batch 3 height width"]
    """-1..1; in training some are degraded."""
    ids: Int[Tensor, "batch tokens"]
    others: Float[Tensor, "others 3 height width"]
    """The same characters in other poses, of no use to the captions; degraded as well."""
    clean: Float[Tensor, "all 3 height width"]
    """`pixels` and `others` before they were degraded."""


@RECIPES.register("mini-clip")
class ClipRecipe(ContinuingRecipe):
    """Contrastive learning of single frames with captions (CLIP, arXiv 2103.00020) and of frames with themselves.

    The second is what SLIP (arXiv 2112.12750) adds: a degraded picture must be nearest to its own clean one, among
    pictures that differ in nothing but the pose too. Captions do not speak of a frame's pose, so without it the
    features forget the pose, and mind blur.
    """

    needs: ClassVar[tuple[str, ...]] = ("vae",)
    about: ClassVar[str] = "the CLIP model: prompts and reference pictures to tokens"

    steps: int = Field(default=1500, ge=1)
    """Optimizer steps in all."""
    batch_size: int = Field(default=64, ge=2)
    """Pairs a step, over all processes."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of Muon and AdamW alike."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled decay, on matrices only."""
    degraded: float = Field(default=0.8, ge=0, le=1)
    """Share of the pictures that are blurred, dimmed and noised, as video files and codecs leave them."""
    codec_share: float = Field(default=0.15, ge=0, le=1)
    """Share of the pictures that went through the codec instead, as part of a clip; so look generated ones."""
    view_weight: float = Field(default=1.0, ge=0)
    """Weight of finding a degraded picture's clean one."""
    view_temperature: float = Field(default=0.1, gt=0)
    """Temperature of that search, as SLIP has it."""

    def build(self, mini: Path) -> nn.Module:
        """Makes an untrained CLIP model."""
        torch.manual_seed(self.seed)
        codec = AutoencoderKLWan.from_pretrained(mini / "vae", torch_dtype=torch.float32)
        learner = ClipLearner(self, codec)
        if self.goes_on_from:
            text = OpenCLIPTextEncoder.from_pretrained(self.goes_on_from / "text_encoder", torch_dtype=torch.float32)
            image = OpenCLIPVisionEncoder.from_pretrained(
                self.goes_on_from / "image_encoder", torch_dtype=torch.float32
            )
            join_open_clip(learner.model, text, image)
        return learner

    def export(self, learner: nn.Module, folder: Path) -> None:
        """Writes `text_encoder/` and `image_encoder/`."""
        assert isinstance(learner, ClipLearner)
        text, vision = split_open_clip(learner.model, learner.sizes)
        # half precision on disk: the token table alone is half of the model
        text.to(torch.float16).save_pretrained(folder / "text_encoder")
        vision.to(torch.float16).save_pretrained(folder / "image_encoder")


class ClipLearner(nn.Module):
    """The two towers with their data and loss."""

    tasks = (Task(name="contrast"),)

    def __init__(self, config: ClipRecipe, codec: AutoencoderKLWan) -> None:
        super().__init__()
        # in a list, so that it is no part of what is trained
        self._codec = [codec.eval().requires_grad_(False)]
        self.config = config
        self.sizes = OpenCLIPConfig()
        self.model = build_open_clip(self.sizes)

    def batch(self, task: Task, first: int, count: int, generator: torch.Generator) -> Pairs:
        """Draws one frame of each clip; every third shows a background in motion."""
        coded = round(self.config.codec_share * count)
        pairs, video = self._pairs("train", first, count, coded=coded)
        worse = degrade(pairs.clean, self.config.degraded, generator)
        if coded:
            worse[:coded] = self._through_codec(video)
        return replace(pairs, pixels=worse[:count], others=worse[count:])

    def _pairs(
        self, split: Split, first: int, count: int, *, coded: int = 0
    ) -> tuple[Pairs, Float[Tensor, "coded frames 3 height width"]]:
        """One frame of each clip, the last of those that go through the codec, which come first; and these clips."""
        device = next(self.parameters()).device
        specs = [clip_spec(split, first + k, "background" if k % 3 == 0 else "animation") for k in range(count)]
        parts = [
            draw_clips(part, num_frames=frames, device=device)
            for part, frames in ((specs[:coded], CODED_FRAMES), (specs[coded:], 1))
            if part
        ]
        ids = tokenize([spec.caption for spec in specs], self.sizes.context_length).to(device)
        # a background's character stands as in its reference: no other pose
        moves = torch.tensor([spec.action != "stand" for spec in specs])
        pixels = torch.cat([part.video[:, -1] for part in parts]) * 2 - 1
        others = torch.cat([part.reference for part in parts])[moves] * 2 - 1
        pairs = Pairs(pixels=pixels, ids=ids, others=others, clean=torch.cat([pixels, others]))
        return pairs, parts[0].video[:coded] * 2 - 1

    @torch.no_grad()
    def _through_codec(self, video: Float[Tensor, "coded frames 3 height width"]) -> Tensor:
        (codec,) = self._codec
        codec.to(video.device)
        clips = rearrange(video, "b f c h w -> b c f h w")
        with torch.autocast(video.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16"):
            decoded = decode_latents(codec, encode_latents(codec, clips))
        return decoded[:, :, -1].clamp(-1, 1)

    def forward(self, batch: Pairs, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        """The symmetric cross-entropy of pictures and captions, and that of degraded and clean pictures."""
        image, text, scale = self.model(batch.pixels, batch.ids)
        logits = scale.float().clamp(max=100) * image.float() @ text.float().T
        truth = torch.arange(len(logits), device=logits.device)
        contrast = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
        top1 = (logits.argmax(1) == truth).float().mean()
        views = torch.cat([image, self.model.encode_image(batch.others, normalize=True)]).float()
        with torch.no_grad():
            clean = self.model.encode_image(batch.clean, normalize=True).float()
        near = views @ clean.T
        own = torch.arange(len(near), device=near.device)
        view = F.cross_entropy(near / self.config.view_temperature, own)
        return {
            "loss": contrast + self.config.view_weight * view,
            "contrast": contrast,
            "view": view,
            "top1": top1,
            "view_top1": (near.argmax(1) == own).float().mean(),
            "moved": (1 - near.diagonal()).mean(),
        }

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Held-out image-to-caption retrieval among 200 captions; chance is 0.005."""
        pairs, _ = self._pairs("val", 0, 200)
        image, text, _ = self.model(pairs.pixels, pairs.ids)
        order = (image @ text.T).argsort(dim=1, descending=True)
        truth = torch.arange(len(order), device=order.device)[:, None]
        found = order == truth
        return {
            "retrieval_top1": float(found[:, :1].any(1).float().mean()),
            "retrieval_top5": float(found[:, :5].any(1).float().mean()),
        }


def degrade(
    pixels: Float[Tensor, "batch 3 height width"], share: float, generator: torch.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Blurs, dims and noises a share of the pictures in [-1, 1], each by its own random amount.

    Real files are never as clean as drawn pictures.
    """
    batch = len(pixels)
    chance = torch.rand(5, batch, generator=generator).to(pixels)
    hit, blur, coarse, light, grain = (rearrange(c, "b -> b 1 1 1") for c in chance)
    soft = [F.interpolate(F.avg_pool2d(pixels, k), scale_factor=float(k), mode="bilinear") for k in (2, 4)]
    blurred = torch.where(coarse < 0.7, soft[0], soft[1])
    worse = torch.lerp(pixels, blurred, blur) * (0.85 + 0.3 * light)
    worse = worse + 0.1 * grain.square() * torch.randn(pixels.shape, generator=generator).to(pixels)
    return torch.where(hit < share, worse.clamp(-1, 1), pixels)
