"""Wan 2.1 and 2.2: video transformers trained by flow matching; a picture is a clip of one frame."""

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from models.codecs import encode_latents, reference_latents
from pose.media import to_uint8
from training.finetune.data.buckets import Wanted
from training.finetune.families.base import FAMILIES, Clip, Draws, Prediction
from training.finetune.families.denoising import Denoising
from training.finetune.families.objectives import Objective, objective_of
from training.finetune.families.pictures import SAMPLE_STEPS

GREY = (128, 128, 128)
FPS, FPS_IN_PLACE = 16.0, 24.0
"""Of the videos that Wan 2.1 and 2.2 A14B learned from, and of those of 2.2 5B."""


@FAMILIES.register("WanPipeline")
class Wan(Denoising):
    """Text to video. Wan 2.2 A14B has two transformers; each is trained at the noise levels that are its."""

    about: ClassVar[str] = "Wan, text to video"
    component = "transformer"
    others: ClassVar[tuple[str, ...]] = ("transformer_2",)
    tasks: ClassVar[tuple[str, ...]] = ("text-to-video",)
    max_tokens: ClassVar[int | None] = 512  # the pipeline's; the transformer with an image encoder counts on it

    def _objective(self) -> Objective:
        boundary = self.pipeline.config.boundary_ratio or 0.0
        levels = (boundary, 1.0) if self.component == "transformer" else (0.0, boundary)
        return objective_of(self.pipeline.scheduler, levels=levels)

    @property
    def _shape(self) -> Any:
        network: Any = self.network
        return network.config

    @property
    def multiple(self) -> int:
        """The codec's factor times the transformer's patch, and 16, which the pipeline insists on."""
        factor = int(self.pipeline.vae.config.scale_factor_spatial)
        return math.lcm(16, *(factor * int(side) for side in self._shape.patch_size[1:]))

    @property
    def frames_multiple(self) -> int:
        """The codec's factor in time."""
        return int(self.pipeline.vae.config.scale_factor_temporal)

    @property
    def _in_place(self) -> bool:
        """Whether it is Wan 2.2 5B, which has a timestep for every token."""
        return bool(self.pipeline.config.expand_timesteps)

    def wants(self, task: str) -> Wanted:
        """Clips of four times the factor and one frames, at the model's rate; pictures as well."""
        return replace(super().wants(task), fps=FPS_IN_PLACE if self._in_place else FPS)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> dict[str, Tensor]:
        """Latents of mean 0 and deviation 1.

        Raises:
            ValueError: the number of frames is not 4k + 1.
        """
        return {"latents": encode_latents(self.pipeline.vae, self._clip(pixels))[0]}

    def _clip(self, pixels: Float[Tensor, "frames 3 height width"]) -> Float[Tensor, "1 3 frames height width"]:
        return pixels.to(self.pipeline.vae.device).permute(1, 0, 2, 3)[None]

    @torch.no_grad()
    def embed(self, caption: str) -> dict[str, Tensor]:
        """T5's tokens, zeros where there are none."""
        tokens, _ = self.pipeline.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=self.max_tokens, device=self.pipeline.device
        )
        return {"tokens": tokens[0].float()}

    def predict(
        self,
        noisy: Float[Tensor, "batch channels latent_frames rows columns"],
        timesteps: Tensor,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
    ) -> Float[Tensor, "batch channels latent_frames rows columns"]:
        """The transformer's velocity."""
        said: Tensor = self.network(noisy, timestep=timesteps, encoder_hidden_states=embedded["tokens"]).sample
        return said

    def sample(
        self, prompt: str, size: tuple[int, int], seed: int, frames: int = 1
    ) -> UInt8[Tensor, "frames height width 3"]:
        """By the pipeline."""
        return self._sample(seed, prompt=prompt, width=size[0], height=size[1], num_frames=frames)

    def _sample(self, seed: int, **asked: Any) -> UInt8[Tensor, "frames height width 3"]:
        made = self.pipeline(
            num_inference_steps=SAMPLE_STEPS, output_type="pt", generator=torch.Generator().manual_seed(seed), **asked
        ).frames
        return to_uint8(made[0]).cpu()


@FAMILIES.register("WanImageToVideoPipeline")
class WanImageToVideo(Wan):
    """How a first frame goes on: clips only.

    Wan 2.1 and 2.2 A14B are told it beside the noise, with a mask, and by an image encoder where there is one; in
    Wan 2.2 5B (`expand_timesteps`) the first latent frame is left clean, at timestep 0, and is not in the loss.
    """

    about: ClassVar[str] = "Wan, image to video"
    tasks: ClassVar[tuple[str, ...]] = ("ti2v",)
    conditioned: ClassVar[frozenset[str]] = frozenset({"ti2v"})

    def wants(self, task: str) -> Wanted:
        """No pictures: a clip of one frame is nothing but its first frame."""
        return replace(super().wants(task), stills=False)

    @torch.no_grad()
    def conditions(self, task: str, clip: Clip) -> dict[str, Tensor]:
        """Mask and latents of the first frame, as the pipeline joins them; the image encoder's tokens."""
        if self._in_place:
            return {}
        vae = self.pipeline.vae
        first = clip.pixels[:1].to(vae.device)
        found = {"reference": reference_latents(vae, first, num_frames=len(clip.pixels), mode="first")[0]}
        if self._shape.image_dim is not None:
            found["image"] = self.pipeline.encode_image(_shown(first[0]), self.pipeline.device)[0].float()
        return found

    def predict(
        self,
        noisy: Float[Tensor, "batch channels latent_frames rows columns"],
        timesteps: Tensor,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
    ) -> Float[Tensor, "batch channels latent_frames rows columns"]:
        """The transformer's velocity."""
        image = encoded.get("image")
        if not self._in_place:
            noisy = torch.cat([noisy, self.in_dtype(encoded["reference"])], dim=1)
        said: Tensor = self.network(
            noisy, timestep=timesteps, encoder_hidden_states=embedded["tokens"],
            encoder_hidden_states_image=None if image is None else self.in_dtype(image),
        ).sample  # fmt: skip
        return said

    def loss(
        self,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
        draws: Draws,
        snr_gamma: float | None,
    ) -> Float[Tensor, "batch"]:
        """Squared error of the velocity, in Wan 2.2 5B of all latent frames but the first."""
        if not self._in_place:
            return super().loss(encoded, embedded, draws, snr_gamma)
        question = self.objective.ask(encoded["latents"], draws, snr_gamma)
        given = torch.zeros_like(question.noisy[:, :1])
        given[:, :, 0] = 1
        noisy = torch.where(given > 0, encoded["latents"], question.noisy)
        _, rows, columns = self._shape.patch_size
        tokens = (1 - given[:, 0, :, ::rows, ::columns]).flatten(1) * question.timesteps[:, None]
        predicted = self.answer(noisy, tokens, encoded, embedded)
        return replace(question, target=question.target[:, :, 1:]).loss(predicted[:, :, 1:])

    def prediction(
        self,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
        noisy: Float[Tensor, "batch channels latent_frames rows columns"],
        level: float,
    ) -> Prediction:
        """As Wan's, but for Wan 2.2 5B, whose first latent frame has a level of its own."""
        if self._in_place:
            raise self._no_levels()
        return super().prediction(encoded, embedded, noisy, level)

    def sample(
        self, prompt: str, size: tuple[int, int], seed: int, frames: int = 1
    ) -> UInt8[Tensor, "frames height width 3"]:
        """By the pipeline, from a grey picture: a prompt names no other."""
        return self._sample(
            seed, image=Image.new("RGB", size, GREY), prompt=prompt, width=size[0], height=size[1],
            num_frames=max(frames, self.frames_multiple + 1),
        )  # fmt: skip

    def sample_task(self, task: str, clip: Clip, prompt: str, seed: int) -> UInt8[Tensor, "frames height width 3"]:
        """By the pipeline, from the clip's first frame."""
        frames, _, height, width = clip.pixels.shape
        return self._sample(
            seed, image=_shown(clip.pixels[0]), prompt=prompt, width=width, height=height, num_frames=frames
        )


def _shown(frame: Float[Tensor, "3 height width"]) -> Image.Image:
    return Image.fromarray(to_uint8(frame / 2 + 0.5).cpu().numpy())
