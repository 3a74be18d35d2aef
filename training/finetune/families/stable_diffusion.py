"""Stable Diffusion 1.x and 2.x: a U-Net that predicts noise or v."""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from training.finetune.families.base import FAMILIES
from training.finetune.families.pictures import TextToPicture, codec_factor


@FAMILIES.register("StableDiffusionPipeline")
class StableDiffusion(TextToPicture):
    """Latents of one picture, text tokens of one encoder."""

    about: ClassVar[str] = "Stable Diffusion 1.x and 2.x"
    component = "unet"

    def __init__(self, pipeline: Any, component: str | None = None) -> None:
        """Takes the pipeline.

        Raises:
            ValueError: it is distilled, and the usual loss would undo that.
        """
        if pipeline.unet.config.time_cond_proj_dim is not None:
            raise ValueError(
                "this U-Net is told the guidance (time_cond_proj_dim): it is distilled for few steps, which training "
                "with noise would undo; fine-tune the model it was made from"
            )
        super().__init__(pipeline, component)

    @property
    def multiple(self) -> int:
        """The codec's factor times the U-Net's, and 8, which the pipeline insists on."""
        levels = len(self.pipeline.unet.config.block_out_channels)
        return math.lcm(8, codec_factor(self.pipeline.vae) * 2 ** (levels - 1))

    @torch.no_grad()
    def embed(self, caption: str) -> dict[str, Tensor]:
        """Text tokens."""
        tokens, _ = self.pipeline.encode_prompt(caption, self.pipeline.text_encoder.device, 1, False)
        return {"tokens": tokens[0].float()}

    def predict(
        self,
        noisy: Float[Tensor, "batch channels rows columns"],
        timesteps: Tensor,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The U-Net's output."""
        said: Tensor = self.network(noisy, timesteps, encoder_hidden_states=embedded["tokens"]).sample
        return said
