"""mini-animator: the Animate-X++ transformer with both pose indicators, trained on two tasks at once.

Animation: reference + pose (+ text) -> the character does the motion. Background (TI2V): first frame + text -> the
background moves, no pose at all. Each task moves its own share of the parameters (`training.tasks`).
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from pydantic import Field
from torch import Tensor, nn

from models.clip import OpenCLIPTextEncoder, OpenCLIPVisionEncoder
from models.conditioning import Conditioning, predict_velocity
from models.flow import add_noise, sample_sigmas, velocity_target
from models.pipeline import AnimateXPipeline
from models.presets import mini_epi, mini_ipi, mini_transformer
from models.sampling import euler
from pose.augment import EPIConfig, augment_poses
from pose.sequence import PoseSequence
from training.conditions import (
    BENT,
    BODIES,
    DropRates,
    Skeletons,
    draw_skeletons,
    drawn_bodies,
    leave_out,
    with_poses,
)
from training.config import FrameCount
from training.data.latents import Encoders, LatentClips, encode_specs
from training.data.world import Kind, Split, clip_spec
from training.precision import in_half
from training.recipes.base import RECIPES, ContinuingRecipe
from training.tasks import Pattern, Task

SIZE = (128, 128)
EVALUATED_CLIPS = 32
"""Held-out animations that an evaluation measures; of backgrounds it takes half as many."""


@RECIPES.register("mini-animator")
class AnimatorRecipe(ContinuingRecipe):
    """Multi-task partial parameter training of the mini Animate-X++."""

    about: ClassVar[str] = "the animator: reference, pose and text to video"
    needs: ClassVar[tuple[str, ...]] = ("vae", "text_encoder", "image_encoder")

    steps: int = Field(default=6000, ge=1)
    """Optimizer steps in all."""
    batch_size: int = Field(default=8, ge=1)
    """Whole clips a step, over all processes; short clips come `short_factor` times as many."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of Muon and AdamW alike."""
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    """Decay of the averaged weights, which are the ones that are evaluated and exported."""
    num_frames: FrameCount = Field(default=17, ge=5)
    """Frames of a whole clip, 4k + 1."""
    short_frames: FrameCount = Field(default=1, ge=1)
    """Frames of a short clip, 4k + 1: what a pose does to a picture can be learned from single frames."""
    short_share: float = Field(default=0.6, ge=0, le=1)
    """The first part of the training, in which animation has short clips."""
    short_factor: int = Field(default=5, ge=1)
    """How many times more clips a step of that part has, for about the same time."""
    background_weight: float = Field(default=0.25, ge=0, lt=1)
    """Share of the TI2V task; 0 trains animation alone."""
    background_trainable: Pattern = r"transformer\..*"
    """What a TI2V step may move: by default everything but the pose indicators."""
    pose_dropout: float = Field(default=DropRates.pose, ge=0, le=1)
    """How often the explicit pose and the reference pose are left out, each clip for itself."""
    implicit_dropout: float = Field(default=DropRates.implicit, ge=0, le=1)
    """How often the implicit motion is left out: keypoint files and bundled motions have no frames to take it from."""
    text_dropout: float = Field(default=0.1, ge=0, le=1)
    """How often the prompt is empty."""
    image_dropout: float = Field(default=DropRates.image, ge=0, le=1)
    """How often the reference is left out, latents and CLIP tokens together."""
    epi: EPIConfig = BENT
    """How the driving skeleton is bent; milder than the paper's, since this model sees far fewer clips."""
    pool_size: int = Field(default=BODIES, ge=1)
    """Bodies in the pool that EPI realigns to."""
    shift: float = Field(default=3.0, gt=0)
    """Shift of the noise levels towards pure noise, in training and sampling."""
    shard_clips: int = Field(default=384, ge=2)
    """Clips drawn and encoded at a time."""
    shard_uses: float = Field(default=8.0, gt=0)
    """How often a clip is used, on average, with new noise and a newly bent skeleton each time."""

    def build(self, mini: Path) -> nn.Module:
        """Makes an untrained animator on the trained codec and CLIP."""
        torch.manual_seed(self.seed)
        encoders = Encoders(
            vae=AutoencoderKLWan.from_pretrained(mini / "vae", torch_dtype=torch.float32),
            text=OpenCLIPTextEncoder.from_pretrained(mini / "text_encoder", torch_dtype=torch.float32),
            image=OpenCLIPVisionEncoder.from_pretrained(mini / "image_encoder", torch_dtype=torch.float32),
        )
        learner = AnimatorLearner(self, encoders)
        if self.goes_on_from:
            trained = AnimateXPipeline.from_pretrained(self.start_from, dtype=torch.float32)
            for name in ("transformer", "epi", "ipi"):
                getattr(learner, name).load_state_dict(getattr(trained, name).state_dict())
        return learner

    def export(self, learner: nn.Module, folder: Path) -> None:
        """Writes the whole pipeline: animator, indicators, codec, CLIP and scheduler, in half precision."""
        assert isinstance(learner, AnimatorLearner)
        pipeline = learner.pipeline()
        for name in ("transformer", "epi", "ipi", "text_encoder", "image_encoder", "vae"):
            getattr(pipeline, name).half()
        pipeline.save_pretrained(folder)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """One batch, ready for the network."""

    clips: LatentClips
    skeletons: Skeletons | None


class AnimatorLearner(nn.Module):
    """The animator with its data and loss."""

    def __init__(self, config: AnimatorRecipe, encoders: Encoders) -> None:
        super().__init__()
        self.config = config
        animation = Task(name="animation", weight=1 - config.background_weight)
        background = Task(
            name="background", weight=max(config.background_weight, 1e-9), trainable=config.background_trainable
        )
        self.tasks = (animation, background) if config.background_weight else (animation,)
        self.transformer = mini_transformer()
        dim = self.transformer.config["num_attention_heads"] * self.transformer.config["attention_head_dim"]
        self.epi, self.ipi = mini_epi(dim), mini_ipi(dim)
        self.vae, self.text_encoder, self.image_encoder = (
            part.eval().requires_grad_(False) for part in (encoders.vae, encoders.text, encoders.image)
        )
        self._shards: dict[tuple[Kind, int, int], LatentClips] = {}
        self._pool: list[PoseSequence] = []

    def train(self, mode: bool = True) -> "AnimatorLearner":
        """The frozen encoders stay in evaluation mode."""
        super().train(mode)
        for part in (self.vae, self.text_encoder, self.image_encoder):
            part.eval()
        return self

    def pipeline(self) -> AnimateXPipeline:
        """The pipeline around the current weights."""
        return AnimateXPipeline(
            text_encoder=self.text_encoder,
            image_encoder=self.image_encoder,
            ipi=self.ipi,
            epi=self.epi,
            transformer=self.transformer,
            vae=self.vae,
            scheduler=euler(shift=self.config.shift),
            reference_latents="every",
            height=SIZE[1],
            width=SIZE[0],
            num_frames=self.config.num_frames,
            fps=12.0,
            num_inference_steps=20,
            guidance_scale=1.5,
        )

    def batch(self, task: Task, first: int, count: int, generator: torch.Generator) -> Samples:
        """Takes clips of the current shard at random and draws their skeletons, bent for the animation task."""
        config = self.config
        # a background in a single frame is the reference itself: nothing to learn
        short = task.name == "animation" and first < config.short_share * config.steps * config.batch_size
        share, count = count, count * config.short_factor if short else count
        step = first // config.batch_size
        clips_a_step = config.batch_size * (config.short_factor if short else 1)
        steps_a_shard = max(1, round(config.shard_clips * config.shard_uses / clips_a_step))
        kind: Kind = "background" if task.name == "background" else "animation"
        # each process draws and encodes its own part of a shard, the same one that its batches are taken from
        processes = config.batch_size // share
        number = step // steps_a_shard * processes + first % config.batch_size // share
        num_frames = config.short_frames if short else config.num_frames
        shard = self._shard(kind, number, num_frames, config.shard_clips / processes)
        clips = shard.take(torch.randint(len(shard), (count,), generator=generator))
        if kind == "background":
            return Samples(clips=clips, skeletons=None)
        return self._with_poses(clips, generator)

    def _with_poses(self, clips: LatentClips, generator: torch.Generator | None) -> Samples:
        """Draws the skeletons; bends them where there is a generator."""
        poses = [clips.poses(k, SIZE) for k in range(len(clips))]
        if generator is not None:
            poses = [augment_poses(pose, self._bodies(), self.config.epi, generator)[0] for pose in poses]
        skeletons = draw_skeletons(
            poses,
            [clips.reference_pose(k, SIZE) for k in range(len(clips))],
            [clips.driving(k, SIZE) for k in range(len(clips))],
            size=SIZE,
            device=clips.latents.device,
        )
        return Samples(clips=clips, skeletons=skeletons)

    def _bodies(self) -> list[PoseSequence]:
        """The pool of other bodies, from a part of the training numbers that no shard reaches."""
        if not self._pool:
            self._pool = drawn_bodies(self.config.pool_size, SIZE)
        return self._pool

    def _shard(self, kind: Kind, number: int, num_frames: int, clips: float) -> LatentClips:
        key = (kind, number, num_frames)
        if key not in self._shards:
            share = self.config.background_weight if kind == "background" else 1 - self.config.background_weight
            count = max(2, math.ceil(clips * share))
            # the reference of a short clip may be any frame of the whole one, or there would be nothing to learn
            whole = self.config.num_frames
            specs = [clip_spec("train", number * count + k, kind, num_frames=whole) for k in range(count)]
            for old in [k for k in self._shards if k[0] == kind]:
                del self._shards[old]
            self._shards[key] = encode_specs(specs, self._encoders(), num_frames=num_frames)
        return self._shards[key]

    def _encoders(self) -> Encoders:
        return Encoders(vae=self.vae, text=self.text_encoder, image=self.image_encoder)

    def conditioning(self, samples: Samples, generator: torch.Generator | None) -> Conditioning:
        """What the network is told; with a generator, parts are left out at random, each clip for itself."""
        clips, config = samples.clips, self.config
        latent_frames = clips.latents.shape[2]
        tiled = clips.reference.float().expand(-1, -1, latent_frames, -1, -1)
        mask = torch.zeros(len(clips), 4, *clips.latents.shape[2:], device=tiled.device)
        mask[:, :, 0] = 1
        told = Conditioning(
            text=clips.text.float(),
            reference=torch.cat([mask, tiled], dim=1),
            image=clips.image.float(),
        )
        if samples.skeletons is not None:
            told = with_poses(told, samples.skeletons, clips.motion, self.epi, self.ipi)
        if generator is None:
            return told
        chance = torch.rand(4, len(clips), generator=generator).to(tiled.device)
        rates = DropRates(pose=config.pose_dropout, implicit=config.implicit_dropout, image=config.image_dropout)
        told = leave_out(told, chance[:3], rates)
        empty = self.text_encoder.encode([""]).to(told.text)
        text = torch.where((chance[3] < config.text_dropout)[:, None, None], empty, told.text)
        return replace(told, text=text)

    def forward(self, batch: Samples, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the velocity at random noise levels."""
        clean = batch.clips.latents.float()
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        sigmas = sample_sigmas(len(clean), shift=self.config.shift, generator=generator, density="logit_normal").to(
            clean
        )
        told = self.conditioning(batch, generator)
        velocity = predict_velocity(self.transformer, add_noise(clean, noise, sigmas), sigmas * 1000, told)
        return {"loss": F.mse_loss(velocity.float(), velocity_target(clean, noise))}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss on held-out clips at fixed noise, with the pose and without it, and of the background task."""
        generator = torch.Generator().manual_seed(1)
        animation = self._with_poses(self._held_out("animation", EVALUATED_CLIPS), None)
        background = Samples(clips=self._held_out("background", EVALUATED_CLIPS // 2), skeletons=None)
        metrics = {}
        for name, samples, dropped in (
            ("val_animation", animation, ()),
            ("val_without_pose", animation, ("explicit", "reference_pose", "implicit")),
            ("val_background", background, ()),
        ):
            clean = samples.clips.latents.float()
            noise = torch.randn(clean.shape, generator=generator.manual_seed(1)).to(clean)
            sigmas = torch.linspace(0.5, 0.98, len(clean), device=clean.device)
            told = self.conditioning(samples, None).drop(*dropped)
            with in_half(clean.device):
                velocity = predict_velocity(self.transformer, add_noise(clean, noise, sigmas), sigmas * 1000, told)
            metrics[name] = float(F.mse_loss(velocity.float(), velocity_target(clean, noise)))
        return metrics

    def _held_out(self, kind: Kind, count: int, split: Split = "val") -> LatentClips:
        specs = [clip_spec(split, k, kind) for k in range(count)]
        return encode_specs(specs, self._encoders(), num_frames=self.config.num_frames)
