"""mini-codec: an `AutoencoderKLWan` of 3 M parameters, trained on crops of the drawn world."""

import math
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResidualBlock, unpatchify
from einops import rearrange, repeat
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from models.codecs import mini_codec
from training.config import FrameCount
from training.data.world import Kind, clip_spec, draw_clips
from training.recipes.base import RECIPES, ContinuingRecipe
from training.tasks import Task

EVALUATED_CLIPS = 12
"""Held-out clips that an evaluation measures."""
CROPS_A_CLIP = 2
"""Crops that are cut out of each drawn clip."""
MEASURED_CLIPS = 64
"""Training clips that the mean and deviation of the latents are taken from."""

Crops = Float[Tensor, "batch 3 frames height width"]


@RECIPES.register("mini-codec")
class CodecRecipe(ContinuingRecipe):
    """Video in, latents 8x smaller in space and 4x in time, and back."""

    about: ClassVar[str] = "the video codec: 128x128 pixels to 16x16x16 latents and back"

    steps: int = Field(default=2400, ge=1)
    """Optimizer steps in all."""
    batch_size: int = Field(default=8, ge=1)
    """Crops a step, over all processes."""
    learning_rate: float = Field(default=5e-3, gt=0)
    """Peak learning rate of Muon and AdamW alike."""
    crop: int = Field(default=48, ge=32, le=128, multiple_of=16)
    """Side of a training crop. [px]"""
    num_frames: FrameCount = Field(default=17, ge=1)
    """Frames of a training crop, 4k + 1; with fewer than 9 the path of later latent frames would not be trained, and
    with 9 the frames after them fall behind."""
    image_share: float = Field(default=0.4, ge=0, le=1)
    """The first part of the training, on single frames: what is learned there is cheap, and video starts from it."""
    image_factor: int = Field(default=4, ge=1)
    """How many times more crops a step of that part has, for about the same time."""
    kl_weight: float = Field(default=2e-5, ge=0)
    """Weight of the mean Kullback-Leibler term, which keeps latents near N(0, 1)."""

    def build(self, mini: Path) -> nn.Module:
        """Makes an untrained codec."""
        torch.manual_seed(self.seed)
        learner = CodecLearner(self)
        if self.goes_on_from:
            trained = AutoencoderKLWan.from_pretrained(self.goes_on_from / "vae", torch_dtype=torch.float32)
            learner.vae.load_state_dict(trained.state_dict())
        return learner

    def export(self, learner: nn.Module, folder: Path) -> None:
        """Writes `vae/`, with the mean and deviation of its latents measured on training clips."""
        assert isinstance(learner, CodecLearner)
        mean, std = learner.latent_statistics()
        learner.vae.register_to_config(latents_mean=mean, latents_std=std)
        learner.vae.half().save_pretrained(folder / "vae")  # it runs in float32, see `models.pipeline.load_pipeline`


class CodecLearner(nn.Module):
    """The codec with its data and loss."""

    tasks = (Task(name="reconstruct"),)

    def __init__(self, config: CodecRecipe) -> None:
        super().__init__()
        self.config = config
        self.vae: AutoencoderKLWan = mini_codec()
        start_as_images(self.vae)

    def batch(self, task: Task, first: int, count: int, generator: torch.Generator) -> Crops:
        """Draws clips and cuts a few crops out of each, in [-1, 1]."""
        images = first < self.config.image_share * self.config.steps * self.config.batch_size
        num_frames = 1 if images else self.config.num_frames
        count = count * self.config.image_factor if images else count
        number = first * self.config.image_factor // CROPS_A_CLIP
        # half of the stream has a moving background: that is what a codec loses first
        specs = [
            clip_spec("train", number + k, _kind(k), num_frames=num_frames)
            for k in range(math.ceil(count / CROPS_A_CLIP))
        ]
        device = next(self.parameters()).device
        drawn = draw_clips(specs, num_frames=num_frames, device=device).video
        video = repeat(drawn, "b f c h w -> (b n) c f h w", n=CROPS_A_CLIP)
        crops = [_busy_crop(clip, self.config.crop, generator) for clip in video[:count]]
        return torch.stack(crops) * 2 - 1

    def forward(self, batch: Crops, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        """L1 + MSE of the decoded sample, and the KL term."""
        posterior = self.vae.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        decoded = _decode(self.vae, posterior.mean + posterior.std * noise)
        difference = decoded - batch
        l1, mse = difference.abs().mean(), difference.square().mean()
        kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return {"loss": l1 + 2 * mse + self.config.kl_weight * kl, "l1": l1, "mse": mse, "kl": kl}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """PSNR on held-out whole clips of 17 frames, in dB."""
        device = next(self.parameters()).device
        errors = []
        for k in range(EVALUATED_CLIPS):
            clip = draw_clips([clip_spec("val", k, _kind(k))], device=device)
            video = rearrange(clip.video, "b f c h w -> b c f h w")
            decoded = self.vae.decode(self.vae.encode(video * 2 - 1).latent_dist.mean).sample / 2 + 0.5
            errors.append(F.mse_loss(decoded.clamp(0, 1), video))
        mse = torch.stack(errors)
        return {"psnr_db": float((-10 * mse.log10()).mean()), "psnr_worst_db": float((-10 * mse.log10()).min())}

    @torch.no_grad()
    def latent_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each latent channel over training clips."""
        device = next(self.parameters()).device
        latents = []
        for k in range(MEASURED_CLIPS):
            clip = draw_clips([clip_spec("train", (1 << 29) + k, _kind(k))], device=device)
            latents.append(self.vae.encode(rearrange(clip.video, "b f c h w -> b c f h w") * 2 - 1).latent_dist.mean)
        all_latents = rearrange(torch.cat(latents).float(), "b c f h w -> c (b f h w)")
        return all_latents.mean(1).tolist(), all_latents.std(1).tolist()


def _busy_crop(clip: Float[Tensor, "3 frames height width"], side: int, generator: torch.Generator) -> Tensor:
    """Cuts the square that moves most out of four random ones: most of a picture stands still, and is learned first."""
    height, width = clip.shape[-2:]
    tops = torch.randint(0, height - side + 1, (4,), generator=generator).tolist()
    lefts = torch.randint(0, width - side + 1, (4,), generator=generator).tolist()
    crops = [clip[..., y : y + side, x : x + side] for y, x in zip(tops, lefts, strict=True)]
    return max(crops, key=lambda crop: float(crop.diff(dim=1).abs().sum()))


def start_as_images(vae: AutoencoderKLWan) -> None:
    """Starts the causal convolutions as if each frame stood alone, and the posterior nearly certain.

    A filter's taps on past frames are zero, so that what single frames teach holds for video from the first step; in
    the middle of the time strides the frames that become one are averaged. The released Wan codec also went from
    images to video (arXiv 2503.20314, sec. 4.1).
    """
    with torch.no_grad():
        for name, module in vae.named_modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size[0] == 3:
                if name.endswith("time_conv"):
                    _start_time_conv(module)
                else:
                    module.weight[:, :, :-1] = 0
            if isinstance(module, WanResidualBlock):
                module.conv2.weight.zero_()  # each block starts as its shortcut: the whole codec is nearly linear
        z_dim = vae.config["z_dim"]
        vae.quant_conv.weight[z_dim:] = 0
        vae.quant_conv.bias[z_dim:] = -6


def _start_time_conv(conv: nn.Conv3d) -> None:
    """Averages over time where the stride is 2, repeats each frame where the channels are doubled."""
    assert conv.bias is not None
    conv.weight.zero_()
    conv.bias.zero_()
    eye = torch.eye(conv.in_channels)[:, :, None, None]
    if conv.stride[0] == 2:
        conv.weight.copy_(eye[:, :, None].expand_as(conv.weight) / 3)
    else:
        conv.weight[:, :, -1] = eye.repeat(conv.out_channels // conv.in_channels, 1, 1, 1)


def _decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Decodes without the clamp at the end of `vae.decode`, which would cut the gradient of what is too bright."""
    vae.clear_cache()
    hidden = vae.post_quant_conv(latents)
    frames = []
    for index in range(latents.shape[2]):
        vae._conv_idx = [0]
        piece = hidden[:, :, index : index + 1]
        frames.append(vae.decoder(piece, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=index == 0))
    vae.clear_cache()
    return unpatchify(torch.cat(frames, dim=2), patch_size=vae.config["patch_size"]).float()


def _kind(k: int) -> Kind:
    return "animation" if k % 2 else "background"
