"""Stable Diffusion 1.x and 2.x: a U-Net that predicts noise or v."""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from jaxtyping import Float, UInt8
from torch import Tensor

from training.finetune.families.base import FAMILIES, Draws, Family


@FAMILIES.register("StableDiffusionPipeline")
class StableDiffusion(Family):
    """Latents of one picture, text tokens of one encoder."""

    about: ClassVar[str] = "Stable Diffusion 1.x and 2.x"
    component: ClassVar[str] = "unet"

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self._noise = DDPMScheduler.from_config(pipeline.scheduler.config)

    @property
    def multiple(self) -> int:
        """The codec's factor times the U-Net's, and 8, which the pipeline insists on."""
        levels = len(self.pipeline.unet.config.block_out_channels)
        return math.lcm(8, int(self.pipeline.vae_scale_factor) * 2 ** (levels - 1))

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> dict[str, Tensor]:
        """Scaled latents: the mode of the posterior."""
        vae = self.pipeline.vae
        latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode() * vae.config.scaling_factor
        return {"latents": latents[0].float()}

    @torch.no_grad()
    def embed(self, caption: str) -> dict[str, Tensor]:
        """Text tokens."""
        tokens, _ = self.pipeline.encode_prompt(caption, self.pipeline.device, 1, False)
        return {"tokens": tokens[0].float()}

    def loss(
        self,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
        draws: Draws,
        snr_gamma: float | None,
    ) -> Float[Tensor, "batch"]:
        """Squared error of what the U-Net predicts, weighted by min-SNR where asked."""
        latents = encoded["latents"]
        noise = draws.noise
        steps = (draws.uniform * self._noise.config["num_train_timesteps"]).long()
        noisy = self._noise.add_noise(latents, noise, steps)
        predicted = self.network(noisy, steps, encoder_hidden_states=embedded["tokens"]).sample
        kind = self._noise.config["prediction_type"]
        target = self._noise.get_velocity(latents, noise, steps) if kind == "v_prediction" else noise
        each = F.mse_loss(predicted.float(), target.float(), reduction="none").flatten(1).mean(1)
        if snr_gamma is None:
            return each
        snr = compute_snr(self._noise, steps)
        return each * snr.clamp(max=snr_gamma) / (snr + 1 if kind == "v_prediction" else snr)

    def sample(self, prompt: str, size: tuple[int, int], seed: int) -> UInt8[Tensor, "frames height width 3"]:
        """By the pipeline, 20 steps."""
        made = self.pipeline(
            prompt, width=size[0], height=size[1], num_inference_steps=20, output_type="pt",
            generator=torch.Generator().manual_seed(seed),
        ).images  # fmt: skip
        return (made.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().cpu()
