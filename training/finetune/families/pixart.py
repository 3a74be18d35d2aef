"""PixArt-alpha and -Sigma: transformers that read T5's tokens and predict noise."""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from training.finetune.families.base import FAMILIES
from training.finetune.families.pictures import TextToPicture, codec_factor


@FAMILIES.register("PixArtAlphaPipeline")
class PixArtAlpha(TextToPicture):
    """T5's tokens with their mask; for the model of 1024 px also size and shape (arXiv 2310.00426)."""

    about: ClassVar[str] = "PixArt-alpha"
    component = "transformer"
    # without binning the size is the asked one
    asked: ClassVar[dict[str, Any]] = {"use_resolution_binning": False, "clean_caption": False}
    max_tokens: ClassVar[int | None] = 120  # the pipeline's

    @property
    def multiple(self) -> int:
        """The codec's factor times the transformer's patch, and 8, which the pipeline insists on."""
        return math.lcm(8, codec_factor(self.pipeline.vae) * int(self.pipeline.transformer.config.patch_size))

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> dict[str, Tensor]:
        """Scaled latents; height and width, and height over width, as the pipeline tells them."""
        height, width = pixels.shape[-2:]
        return {
            **super().encode(pixels), "resolution": torch.tensor([float(height), float(width)]),
            "aspect_ratio": torch.tensor([height / width]),
        }  # fmt: skip

    @torch.no_grad()
    def embed(self, caption: str) -> dict[str, Tensor]:
        """Tokens, and which of them are none."""
        tokens, mask, _, _ = self.pipeline.encode_prompt(
            caption, False, device=self.pipeline.text_encoder.device, max_sequence_length=self.max_tokens
        )
        return {"tokens": tokens[0].float(), "mask": mask[0]}

    def predict(
        self,
        noisy: Float[Tensor, "batch channels rows columns"],
        timesteps: Tensor,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
    ) -> Float[Tensor, "batch said rows columns"]:
        """The transformer's noise, and its variance where it has learned one."""
        sizes = {name: encoded[name] for name in ("resolution", "aspect_ratio")}
        said: Tensor = self.network(
            noisy, timestep=timesteps, encoder_hidden_states=embedded["tokens"],
            encoder_attention_mask=embedded["mask"],
            added_cond_kwargs=sizes if self.pipeline.transformer.use_additional_conditions else dict.fromkeys(sizes),
        ).sample  # fmt: skip
        return said


@FAMILIES.register("PixArtSigmaPipeline")
class PixArtSigma(PixArtAlpha):
    """As alpha, with longer captions (arXiv 2403.04692)."""

    about: ClassVar[str] = "PixArt-Sigma"
    max_tokens: ClassVar[int | None] = 300
