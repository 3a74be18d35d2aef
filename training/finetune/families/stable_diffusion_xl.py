"""Stable Diffusion XL: two text encoders, and a U-Net that is told sizes."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from training.finetune.families.base import FAMILIES
from training.finetune.families.stable_diffusion import StableDiffusion


@FAMILIES.register("StableDiffusionXLPipeline")
class StableDiffusionXL(StableDiffusion):
    """Tokens of both encoders, the second one's pooled text, and sizes (SDXL, arXiv 2307.01952, sec. 2.2).

    A picture is told to be as large as it is seen, from its upper left corner: so it is when a sample is made.
    """

    about: ClassVar[str] = "Stable Diffusion XL"

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> dict[str, Tensor]:
        """Scaled latents; original size, corner of the crop and target size, each down before across."""
        seen = tuple(pixels.shape[-2:])
        second = self.pipeline.text_encoder_2
        ids = self.pipeline._get_add_time_ids(
            seen, (0, 0), seen, dtype=torch.long, text_encoder_projection_dim=int(second.config.projection_dim)
        )
        return {**super().encode(pixels), "time_ids": ids[0]}

    @torch.no_grad()
    def embed(self, caption: str) -> dict[str, Tensor]:
        """Tokens and pooled text; zeros for an empty caption where the pipeline guides by zeros."""
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            caption, device=self.pipeline.device, do_classifier_free_guidance=False
        )
        told = float(bool(caption) or not self.pipeline.config.force_zeros_for_empty_prompt)
        return {"tokens": tokens[0].float() * told, "pooled": pooled[0].float() * told}

    def predict(
        self,
        noisy: Float[Tensor, "batch channels rows columns"],
        timesteps: Tensor,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The U-Net's output."""
        said: Tensor = self.network(
            noisy, timesteps, encoder_hidden_states=embedded["tokens"],
            added_cond_kwargs={"text_embeds": embedded["pooled"], "time_ids": encoded["time_ids"]},
        ).sample  # fmt: skip
        return said
