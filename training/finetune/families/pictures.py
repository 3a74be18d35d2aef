"""What kinds share that make one picture from a caption: the codec's latents, and samples by the pipeline."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pose.media import to_uint8
from training.finetune.families.denoising import Denoising

SAMPLE_STEPS = 20
"""Of a sample."""


class TextToPicture(Denoising):
    """Latents of one picture by an AutoencoderKL; a pipeline that takes a prompt and a size."""

    asked: ClassVar[dict[str, Any]] = {}
    """What else the pipeline is told when it makes a sample."""

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> dict[str, Tensor]:
        """Scaled latents.

        Raises:
            ValueError: it is a clip.
        """
        return {"latents": one_picture_latents(self.pipeline.vae, pixels)}

    def encode_pictures(self, pictures: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n channels rows columns"]:
        """Scaled latents, of all at once."""
        return picture_latents(self.pipeline.vae, pictures)

    def sample(
        self, prompt: str, size: tuple[int, int], seed: int, frames: int = 1
    ) -> UInt8[Tensor, "frames height width 3"]:
        """By the pipeline, one frame."""
        return self._sample_some([prompt], size, [seed], None)

    def _sample_some(
        self, prompts: Sequence[str], size: tuple[int, int], seeds: Sequence[int], steps: int | None
    ) -> UInt8[Tensor, "n height width 3"]:
        """By the pipeline, each with a generator of its own."""
        made = self.pipeline(
            list(prompts), width=size[0], height=size[1], num_inference_steps=steps or SAMPLE_STEPS, output_type="pt",
            generator=[torch.Generator().manual_seed(seed) for seed in seeds], **self.asked,
        ).images  # fmt: skip
        return to_uint8(made).cpu()


def one_picture_latents(
    vae: Any, pixels: Float[Tensor, "frames 3 height width"]
) -> Float[Tensor, "channels rows columns"]:
    """Encodes one picture in -1..1, as `picture_latents` does.

    Raises:
        ValueError: there are several frames.
    """
    if len(pixels) != 1:
        raise ValueError(f"this model makes pictures, but a clip of {len(pixels)} frames was given; leave videos out")
    return picture_latents(vae, pixels)[0]


@torch.no_grad()
def picture_latents(
    vae: Any, pictures: Float[Tensor, "n 3 height width"]
) -> Float[Tensor, "n channels rows columns"]:  # fmt: skip
    """Encodes pictures in -1..1: the mode of the posterior, moved and scaled as the codec's config says."""
    latents = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist.mode().float()
    config = vae.config
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:  # SDXL codecs of some
        mean, std = (latents.new_tensor(config[name]).reshape(-1, 1, 1) for name in ("latents_mean", "latents_std"))
        return (latents - mean) * config["scaling_factor"] / std
    return (latents - (config.get("shift_factor") or 0.0)) * config["scaling_factor"]


def codec_factor(vae: Any) -> int:
    """How many pixels a latent stands for, along a side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))
