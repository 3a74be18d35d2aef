"""DiT: a transformer that knows classes instead of captions, and pictures of one size."""

import difflib
from typing import Any, ClassVar

import torch
from diffusers.models.embeddings import LabelEmbedding
from jaxtyping import Float, UInt8
from torch import Tensor

from pose.media import to_uint8
from training.finetune.families.base import FAMILIES
from training.finetune.families.denoising import Denoising
from training.finetune.families.pictures import SAMPLE_STEPS, codec_factor, one_picture_latents

GUIDANCE, SHOWN = 4.0, 20
"""Of a sample; and how many of its classes a message names."""


@FAMILIES.register("DiTPipeline")
class DiT(Denoising):
    """A caption is a class: its name, as the pipeline's `labels` has it, or its number (arXiv 2212.09748)."""

    about: ClassVar[str] = "DiT, by classes"
    component = "transformer"

    def __init__(self, pipeline: Any, component: str | None = None) -> None:
        super().__init__(pipeline, component)
        for module in pipeline.transformer.modules():
            if isinstance(module, LabelEmbedding):
                module.dropout_prob = 0.0  # it would drop classes by itself, not by the run's seed and share
        self.unrelated = tuple(str(k * self.classes // 8) for k in range(8))

    @property
    def classes(self) -> int:
        """How many there are; this number itself stands for none of them."""
        return int(self.pipeline.transformer.config.num_embeds_ada_norm)

    @property
    def multiple(self) -> int:
        """The side of the only size that it knows."""
        return int(self.pipeline.transformer.config.sample_size) * codec_factor(self.pipeline.vae)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> dict[str, Tensor]:
        """Scaled latents.

        Raises:
            ValueError: the picture is not a square of the model's side.
        """
        side, (height, width) = self.multiple, pixels.shape[-2:]
        if (height, width) != (side, side):
            raise ValueError(
                f"this DiT knows pictures of {side}x{side} px only, got {width}x{height}; set resolution to {side}"
            )
        return {"latents": one_picture_latents(self.pipeline.vae, pixels)}

    def embed(self, caption: str) -> dict[str, Tensor]:
        """The class's number.

        Raises:
            ValueError: the caption is no class.
        """
        return {"label": torch.tensor(self._label(caption))}

    def _label(self, caption: str) -> int:
        if not caption:
            return self.classes
        labels: dict[str, int] = self.pipeline.labels
        by_name = {name.casefold(): number for name, number in labels.items()}
        found = by_name.get(caption.strip().casefold())
        if found is None and caption.strip().isdecimal() and int(caption) < self.classes:
            found = int(caption)
        if found is None:
            near = difflib.get_close_matches(caption.strip().casefold(), by_name, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"caption {caption!r} is no class of this model{hint}; known are {self._known(labels)}")
        return found

    def _known(self, labels: dict[str, int]) -> str:
        names = [*labels][:SHOWN]
        more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
        return f"{', '.join(names)}{more}{', ' if names else ''}and the numbers 0 to {self.classes - 1}"

    def predict(
        self,
        noisy: Float[Tensor, "batch channels rows columns"],
        timesteps: Tensor,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
    ) -> Float[Tensor, "batch said rows columns"]:
        """The transformer's noise, and its variance where it has learned one."""
        said: Tensor = self.network(noisy, timestep=timesteps, class_labels=embedded["label"]).sample
        return said

    def sample(
        self, prompt: str, size: tuple[int, int], seed: int, frames: int = 1
    ) -> UInt8[Tensor, "frames height width 3"]:
        """By the pipeline, one frame of the only size."""
        made = self.pipeline(
            class_labels=[self._label(prompt)], num_inference_steps=SAMPLE_STEPS, output_type="pt",
            # the pipeline guides away from class 1000, whatever the model's number for none is
            guidance_scale=GUIDANCE if self.classes == 1000 else 1.0,
            generator=torch.Generator().manual_seed(seed),
        ).images  # fmt: skip
        return to_uint8(made).cpu()
