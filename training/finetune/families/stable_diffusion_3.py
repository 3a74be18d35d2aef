"""Stable Diffusion 3 and 3.5: a transformer of text and picture tokens, trained by flow matching."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from training.finetune.families.base import FAMILIES
from training.finetune.families.pictures import TextToPicture, codec_factor


@FAMILIES.register("StableDiffusion3Pipeline")
class StableDiffusion3(TextToPicture):
    """Tokens of two CLIP encoders and of T5, which may be absent: its tokens are zeros then, as in the pipeline."""

    about: ClassVar[str] = "Stable Diffusion 3 and 3.5"
    component = "transformer"
    may_lack: ClassVar[tuple[str, ...]] = ("text_encoder_3", "tokenizer_3")

    @property
    def multiple(self) -> int:
        """The codec's factor times the transformer's patch."""
        return codec_factor(self.pipeline.vae) * int(self.pipeline.transformer.config.patch_size)

    @torch.no_grad()
    def embed(self, caption: str) -> dict[str, Tensor]:
        """Tokens of all encoders, as many as the pipeline makes them; the two CLIPs' pooled text."""
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            caption, None, None, device=self.pipeline.text_encoder.device, do_classifier_free_guidance=False
        )
        return {"tokens": tokens[0].float(), "pooled": pooled[0].float()}

    def predict(
        self,
        noisy: Float[Tensor, "batch channels rows columns"],
        timesteps: Tensor,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The transformer's velocity."""
        said: Tensor = self.network(
            noisy, timestep=timesteps, encoder_hidden_states=embedded["tokens"], pooled_projections=embedded["pooled"]
        ).sample
        return said
