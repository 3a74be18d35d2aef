"""The animator: pictures from text, and clips from a picture, text and poses."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from models.clip import OpenCLIPVisionEncoder
from models.codecs import decode_latents, encode_latents, num_latent_frames, reference_latents
from models.conditioning import Conditioning, encode_image, encode_prompts, predict_velocity
from models.dit import AnimateXTransformer3DModel
from models.flow import NUM_TRAIN_TIMESTEPS, add_noise, shift_sigmas, velocity_target
from pose.augment import augment_poses
from pose.media import to_uint8
from pose.sequence import PoseSequence
from training.conditions import BENT, BODIES, DropRates, draw_skeletons, drawn_bodies, leave_out, with_poses
from training.finetune.data.buckets import Wanted
from training.finetune.families.base import FAMILIES, Clip, Draws, Family, Prediction
from training.finetune.families.objectives import flow_prediction
from training.precision import in_half

STEPS, GUIDANCE = 20, 2.0
"""Of a sample."""
CANVAS = (128, 128)
"""Of the bodies that EPI realigns to; only their proportions count."""


@FAMILIES.register("AnimateXPipeline")
class Animator(Family):
    """Three tasks, told apart by what the network is told, as in the animator's own training (`training.conditions`).

    text-to-image: text alone; of a picture, or of a clip where `num_frames` asks for one. ti2v: the first frame and
    text, no pose. animation: a frame of the clip, its pose, the driving skeleton bent by EPI, the implicit motion of
    the clip's own frames, and text. Only the transformer is trained; the pose indicators stay as they are.
    """

    about: ClassVar[str] = "the animator: text-to-image, ti2v and animation"
    component = "transformer"
    tasks: ClassVar[tuple[str, ...]] = ("text-to-image", "ti2v", "animation")
    conditioned: ClassVar[frozenset[str]] = frozenset({"ti2v", "animation"})
    unrelated = (
        "a person waving a hand in a town", "a juice box dancing in the hills, rain falls",
        "a bean walking in a room with a window", "a blob with long rabbit ears jumping under a blue sky",
        "a stubby figure running in front of green hills", "an ape with long arms clapping before a plain wall",
        "a lanky figure bowing in a street with red houses", "a round monster standing still, snow falls",
    )  # fmt: skip

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
        """0 = single pictures only; else clips have k*factor+1 frames."""
        return int(self.pipeline.vae.config.scale_factor_temporal)

    def wants(self, task: str) -> Wanted:
        """Single pictures for text alone; else clips as long and as fast as the pipeline's own."""
        text_alone = task == "text-to-image"
        return Wanted(
            frames=1 if text_alone else int(self.pipeline.config["num_frames"]), factor=self.frames_multiple,
            fps=float(self.pipeline.config["fps"]), stills=text_alone, poses=task == "animation",
        )  # fmt: skip

    def num_tokens_cut(self, caption: str) -> int:
        """How many tokens of a caption are more than the text encoder reads."""
        if hasattr(self.pipeline.text_encoder, "num_tokens_cut"):
            return int(self.pipeline.text_encoder.num_tokens_cut([caption])[0])
        return super().num_tokens_cut(caption)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> dict[str, Tensor]:
        """Normalised latents."""
        vae = self.pipeline.vae
        return {"latents": encode_latents(vae, rearrange(pixels.to(vae.device), "f c h w -> 1 c f h w"))[0]}

    @torch.no_grad()
    def encode_pictures(
        self, pictures: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, "n channels 1 rows columns"]:
        """Normalised latents, of all at once, each a clip of one frame."""
        vae = self.pipeline.vae
        return encode_latents(vae, rearrange(pictures.to(vae.device), "n c h w -> n c 1 h w"))

    @torch.no_grad()
    def conditions(self, task: str, clip: Clip) -> dict[str, Tensor]:
        """The reference, as mask and latents and as CLIP tokens; for animation also the poses and what CLIP sees."""
        pipe, shown = self.pipeline, clip.reference if task == "animation" else 0
        pixels = clip.pixels.to(pipe.vae.device)
        still = pixels[shown : shown + 1]
        mode = pipe.config["reference_latents"]
        found = {"reference": reference_latents(pipe.vae, still, num_frames=len(pixels), mode=mode)[0]}
        if pipe.image_encoder is not None:
            found["image"] = encode_image(pipe.image_encoder, pipe.image_processor, still)[0].float()
        if task == "animation":
            assert clip.poses is not None
            found |= {"xy": clip.poses.xy, "confidence": clip.poses.confidence}
            found |= {"reference_xy": clip.poses.xy[shown], "reference_confidence": clip.poses.confidence[shown]}
            seeing = pipe.ipi_image_encoder or pipe.image_encoder
            if pipe.ipi is not None and isinstance(seeing, OpenCLIPVisionEncoder):
                found["motion"] = seeing(pixels).pooled.float()
        return found

    @torch.no_grad()
    def embed(self, caption: str) -> dict[str, Tensor]:
        """Text tokens."""
        pipe = self.pipeline
        return {"tokens": encode_prompts(pipe.text_encoder, pipe.tokenizer, [caption])[0].float()}

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
        with torch.no_grad():
            told = self._told(encoded, embedded["tokens"], draws.seeds)
        velocity = predict_velocity(self.network, add_noise(latents, noise, sigmas), sigmas * 1000, told)
        return F.mse_loss(velocity.float(), velocity_target(latents, noise), reduction="none").flatten(1).mean(1)

    def mix(
        self, clean: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], level: float
    ) -> Float[Tensor, "batch ..."]:
        """On the straight line between them: the level is the sigma."""
        return add_noise(clean, noise, clean.new_full((len(clean),), level))

    def prediction(
        self,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
        noisy: Float[Tensor, "batch ..."],
        level: float,
    ) -> Prediction:
        """From the velocity, with all that a task tells the network."""
        told = self._told(encoded, embedded["tokens"], ())
        timesteps = noisy.new_full((len(noisy),), level * NUM_TRAIN_TIMESTEPS)
        return flow_prediction(noisy, predict_velocity(self.network, noisy, timesteps, told).float(), level)

    def _told(self, encoded: dict[str, Tensor], tokens: Tensor, seeds: Sequence[int]) -> Conditioning:
        """What the network is told; with seeds, skeletons are bent and parts left out, each clip for itself."""
        latents = encoded["latents"]
        if "reference" not in encoded:
            channels = int(self.network.config["in_channels"]) - latents.shape[1]
            return Conditioning(text=tokens, reference=latents.new_zeros(len(latents), channels, *latents.shape[2:]))
        told = Conditioning(text=tokens, reference=encoded["reference"].float(), image=encoded.get("image"))
        rngs = [torch.Generator().manual_seed(seed + 2) for seed in seeds]
        chance = torch.stack([torch.rand(3, generator=rng) for rng in rngs], dim=1) if rngs else None
        if "xy" in encoded:
            told = self._with_poses(told, encoded, rngs)
        return told if chance is None else leave_out(told, chance.to(latents.device), DropRates())

    def _with_poses(
        self, told: Conditioning, encoded: dict[str, Tensor], rngs: Sequence[torch.Generator]
    ) -> Conditioning:
        factor = int(self.pipeline.vae.config.scale_factor_spatial)
        size = (told.reference.shape[-1] * factor, told.reference.shape[-2] * factor)
        fps = float(self.pipeline.config["fps"])

        def clips(xy: Tensor, confidence: Tensor) -> list[PoseSequence]:
            return [
                PoseSequence(xy=one.cpu(), confidence=seen.cpu(), frame_size=size, fps=fps)
                for one, seen in zip(xy, confidence, strict=True)
            ]

        found = clips(encoded["xy"], encoded["confidence"])
        references = clips(encoded["reference_xy"][:, None], encoded["reference_confidence"][:, None])
        driving = found
        if rngs:
            pairs = zip(found, rngs, strict=True)
            driving = [augment_poses(pose, self._bodies, BENT, rng)[0] for pose, rng in pairs]
        # the indicators may have been moved to main memory, where the memory ladder puts what is not trained
        own, device = self.pipeline.epi.device, told.reference.device
        skeletons = draw_skeletons(driving, references, found, size=size, device=own)
        seen = encoded["motion"].to(own) if "motion" in encoded else None
        told = with_poses(told, skeletons, seen, self.pipeline.epi, self.pipeline.ipi)
        parts = ("explicit", "reference_pose", "implicit")
        return replace(told, **{name: part.to(device) for name in parts if (part := getattr(told, name)) is not None})

    @cached_property
    def _bodies(self) -> list[PoseSequence]:
        return drawn_bodies(BODIES, CANVAS)

    @torch.no_grad()
    def sample(
        self, prompt: str, size: tuple[int, int], seed: int, frames: int = 1
    ) -> UInt8[Tensor, "frames height width 3"]:
        """Euler steps with guidance by text."""
        return self._denoised(self._blank(1, size, frames), [prompt], [seed])[0]

    @torch.no_grad()
    def _sample_some(
        self, prompts: Sequence[str], size: tuple[int, int], seeds: Sequence[int], steps: int | None
    ) -> UInt8[Tensor, "n height width 3"]:
        """In bfloat16, as they are trained, where that is fast."""
        with in_half(self.pipeline.vae.device):
            clips = self._denoised(self._blank(len(prompts), size, 1), prompts, seeds, steps or STEPS)
        return clips[:, 0]

    def _blank(self, count: int, size: tuple[int, int], frames: int) -> dict[str, Tensor]:
        """Latents of nothing, for where text alone is told."""
        vae = self.pipeline.vae
        factor, channels = int(vae.config.scale_factor_spatial), int(vae.config.z_dim)
        length = num_latent_frames(frames, self.frames_multiple)
        shape = (count, channels, length, size[1] // factor, size[0] // factor)
        return {"latents": torch.zeros(shape, device=vae.device)}

    @torch.no_grad()
    def sample_task(self, task: str, clip: Clip, prompt: str, seed: int) -> UInt8[Tensor, "frames height width 3"]:
        """The clip made again from its conditions; with text alone, one as long as it."""
        if task not in self.conditioned:
            height, width = clip.pixels.shape[-2:]
            return self.sample(prompt, (width, height), seed, len(clip.pixels))
        told = {**self.encode(clip.pixels), **self.conditions(task, clip)}
        return self._denoised({name: value[None] for name, value in told.items()}, [prompt], [seed])[0]

    def _denoised(
        self, encoded: dict[str, Tensor], prompts: Sequence[str], seeds: Sequence[int], steps: int = STEPS
    ) -> UInt8[Tensor, "n frames height width 3"]:
        vae, scheduler = self.pipeline.vae, type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        device = encoded["latents"].device
        shape = encoded["latents"].shape[1:]
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        latents = torch.stack(noise).to(device)
        texts = {text: self.embed(text)["tokens"] for text in {*prompts, ""}}
        positive: Any = self._told(encoded, torch.stack([texts[prompt] for prompt in prompts]), ())
        negative = replace(positive, text=texts[""].expand_as(positive.text)).drop("explicit")
        scheduler.set_timesteps(steps, device=device)
        for step in scheduler.timesteps:
            with_text, without = (
                predict_velocity(self.network, latents, step.expand(len(latents)), told).float()
                for told in (positive, negative)
            )
            latents = scheduler.step(without + GUIDANCE * (with_text - without), step, latents).prev_sample
        video = decode_latents(vae, latents).float().transpose(1, 2) / 2 + 0.5
        return to_uint8(video.clamp(0, 1)).cpu()
