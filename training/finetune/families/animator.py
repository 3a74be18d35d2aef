"""The animator: pictures as clips of one frame, with text alone."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from models.codecs import decode_latents, encode_latents, num_latent_frames
from models.conditioning import Conditioning, predict_velocity
from models.dit import AnimateXTransformer3DModel
from models.flow import add_noise, shift_sigmas, velocity_target
from pose.media import to_uint8
from training.finetune.families.base import FAMILIES, Draws, Family

STEPS, GUIDANCE = 20, 2.0
"""Of a sample."""


@FAMILIES.register("AnimateXPipeline")
class Animator(Family):
    """Text to one frame; reference and pose are left out, as a part of the animator's own training leaves them out."""

    about: ClassVar[str] = "the animator: pictures as clips of one frame"
    component: ClassVar[str] = "transformer"

    @property
    def network(self) -> AnimateXTransformer3DModel:
        """The transformer."""
        transformer: AnimateXTransformer3DModel = self.pipeline.transformer
        return transformer

    @property
    def multiple(self) -> int:
        """The codec's factor times the transformer's patch."""
        return int(self.pipeline.vae.config.scale_factor_spatial) * int(self.network.config["patch_size"][1])

    @property
    def frames_multiple(self) -> int:
        """The codec's factor in time."""
        return int(self.pipeline.vae.config.scale_factor_temporal)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> dict[str, Tensor]:
        """Normalised latents, and their mask and reference, which say that nothing is given."""
        vae = self.pipeline.vae
        return {"latents": encode_latents(vae, pixels.to(vae.device).permute(1, 0, 2, 3)[None])[0]}

    @torch.no_grad()
    def embed(self, caption: str) -> dict[str, Tensor]:
        """Text tokens."""
        return {"tokens": self.pipeline.text_encoder.encode([caption])[0].float()}

    def _told(self, latents: Tensor, tokens: Tensor) -> Conditioning:
        channels = int(self.network.config["in_channels"]) - latents.shape[1]
        return Conditioning(text=tokens, reference=latents.new_zeros(len(latents), channels, *latents.shape[2:]))

    def loss(
        self,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
        draws: Draws,
        snr_gamma: float | None,
    ) -> Float[Tensor, "batch"]:
        """Squared error of the velocity.

        Raises:
            ValueError: min-SNR is asked for, which flow matching has no use for.
        """
        if snr_gamma is not None:
            raise ValueError("snr_gamma is for models that predict noise or v; this one is trained by flow matching")
        latents = encoded["latents"]
        noise = draws.noise
        # as the animator itself was trained, see `training.recipes.animator`
        sigmas = shift_sigmas(draws.normal.sigmoid(), float(self.pipeline.scheduler.config.get("shift", 1.0)))
        told = self._told(latents, embedded["tokens"])
        velocity = predict_velocity(self.network, add_noise(latents, noise, sigmas), sigmas * 1000, told)
        return F.mse_loss(velocity.float(), velocity_target(latents, noise), reduction="none").flatten(1).mean(1)

    @torch.no_grad()
    def sample(
        self, prompt: str, size: tuple[int, int], seed: int, frames: int = 1
    ) -> UInt8[Tensor, "frames height width 3"]:
        """Euler steps with guidance by text."""
        vae, scheduler = self.pipeline.vae, type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        factor, channels = int(vae.config.scale_factor_spatial), int(vae.config.z_dim)
        shape = (1, channels, num_latent_frames(frames, self.frames_multiple), size[1] // factor, size[0] // factor)
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(vae.device)
        tokens = torch.stack([self.embed(text)["tokens"] for text in (prompt, "")])
        scheduler.set_timesteps(STEPS, device=latents.device)
        for step in scheduler.timesteps:
            both = latents.expand(2, -1, -1, -1, -1)
            told: Any = self._told(both, tokens)
            with_text, without = predict_velocity(self.network, both, step.expand(2), told).float().chunk(2)
            latents = scheduler.step(without + GUIDANCE * (with_text - without), step, latents).prev_sample
        video = decode_latents(vae, latents)[0].permute(1, 0, 2, 3) / 2 + 0.5
        return to_uint8(video.clamp(0, 1)).cpu()
