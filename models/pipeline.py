"""`AnimateXPipeline`: a reference picture, a motion and a text in, a video out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.loaders import WanLoraLoaderMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModel, PreTrainedTokenizerBase, UMT5EncoderModel

from models.clip import OpenCLIPTextEncoder, OpenCLIPVisionEncoder, clip_tokenizer
from models.codecs import decode_pieces, reference_latents
from models.conditioning import Conditioning, Picture, encode_image, encode_prompts, predict_velocity, to_pixels
from models.delayed_guidance import GuidanceDelay, GuidanceStart
from models.dit import AnimateXTransformer3DModel
from models.indicators import (
    MotionIndicators,
    Poses,
    encode_explicit,
    encode_implicit,
    encode_reference_pose,
    per_reference,
)
from models.loading import check_folder, resolve_folder
from models.perturbation import Generators, add_random_words, noisy_prompt
from models.sampling import guide, set_flow_timesteps
from models.windows import ClipPlan, ColourLock, blend, plan_clip
from pose.explicit import ExplicitPoseIndicator
from pose.implicit import ImplicitPoseIndicator
from pose.sequence import PoseSequence

OutputType = Literal["np", "pt", "pil", "latent"]
StepCallback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


@dataclass
class AnimateXPipelineOutput(BaseOutput):
    """What a pipeline call gives."""

    frames: Tensor | np.ndarray | list[list[Image.Image]]
    """Video per reference: pt (batch, frames, 3, height, width) and np (batch, frames, height, width, 3) in [0, 1],
    PIL pictures, or latents (batch, channels, latent_frames, rows, columns)."""


class AnimateXPipeline(DiffusionPipeline, WanLoraLoaderMixin):
    """Animates the character of a reference picture (Animate-X++), or its background by text alone (TI2V).

    Works with the mini components (`OpenCLIPTextEncoder`, `OpenCLIPVisionEncoder`) and with those of Wan2.1 I2V
    (UMT5, CLIP ViT-H). The implicit indicator is optional; so is its own image encoder, where the other one's pooled
    embedding serves.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->ipi_image_encoder->ipi->epi->transformer->vae"
    _callback_tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds", "velocity"]  # noqa: RUF012
    _optional_components = ["tokenizer", "image_encoder", "image_processor", "ipi_image_encoder", "ipi"]  # noqa: RUF012

    def __init__(
        self,
        text_encoder: OpenCLIPTextEncoder | UMT5EncoderModel,
        epi: ExplicitPoseIndicator,
        transformer: AnimateXTransformer3DModel,
        vae: AutoencoderKLWan,
        scheduler: FlowMatchEulerDiscreteScheduler | UniPCMultistepScheduler,
        tokenizer: PreTrainedTokenizerBase | None = None,
        image_encoder: OpenCLIPVisionEncoder | CLIPVisionModel | None = None,
        image_processor: CLIPImageProcessor | None = None,
        ipi_image_encoder: OpenCLIPVisionEncoder | None = None,
        ipi: ImplicitPoseIndicator | None = None,
        reference_latents: str = "first",
        height: int = 480,
        width: int = 832,
        num_frames: int = 81,
        fps: float = 15.0,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
    ) -> None:
        """Joins the components; the plain values are saved with them and are the defaults of a call.

        Args:
            reference_latents: "first" as released, "every" as in mini; see `models.codecs.reference_latents`.
            num_frames: The length of clip that the transformer was trained on; longer ones are made in windows.
        """
        super().__init__()
        self.register_modules(
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            image_processor=image_processor,
            ipi_image_encoder=ipi_image_encoder,
            ipi=ipi,
            epi=epi,
            transformer=transformer,
            vae=vae,
            scheduler=scheduler,
        )
        self.register_to_config(
            reference_latents=reference_latents,
            height=height,
            width=width,
            num_frames=num_frames,
            fps=fps,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )
        self.vae_scale_factor_temporal = vae.config["scale_factor_temporal"] if vae is not None else 4
        self.vae_scale_factor_spatial = vae.config["scale_factor_spatial"] if vae is not None else 8
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor_spatial)

    @property
    def guidance_scale(self) -> float:
        """The strength of guidance in the running call."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the running call needs the negative pass."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """The number of denoising steps of the running call."""
        return self._num_timesteps

    @property
    def guidance_began(self) -> list[int | None]:
        """The step at which guidance began in the last call, for each video; None where it never did."""
        return self._delay.began

    @property
    def interrupt(self) -> bool:
        """Set `pipe._interrupt = True` in a callback to skip the remaining steps."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        reference: Picture | Sequence[Picture],
        poses: Poses | None = None,
        prompt: str | Sequence[str] = "",
        negative_prompt: str | Sequence[str] = "",
        reference_pose: Poses | None = None,
        driving_frames: Iterable[Tensor] | None = None,
        driving_poses: Poses | None = None,
        pose_scale: float = 1.0,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Float[Tensor, "batch channels latent_frames rows columns"] | None = None,
        prompt_embeds: Float[Tensor, "batch text_tokens text_dim"] | None = None,
        negative_prompt_embeds: Float[Tensor, "batch text_tokens text_dim"] | None = None,
        max_sequence_length: int = 512,
        window_overlap: int | None = None,
        lock_colours: bool = False,
        prompt_noise: float = 0.0,
        prompt_random_words: int = 0,
        guidance_start: GuidanceStart = 0.0,
        guidance_before: float = 1.0,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> AnimateXPipelineOutput | tuple[Any]:
        """Makes one video for each reference.

        With `poses`, the character does the motion: they should stand on the reference's canvas and fit its body
        (`pose.align`). Without, the picture comes alive after the prompt (TI2V): the explicit and implicit indicators
        and the reference pose are left out, the picture stays. The reference gives looks, not the first frame.

        Guidance pushes toward the prompt and the explicit pose together: the negative pass has the other text and no
        explicit pose, but the same picture, reference pose and implicit motion, as released.

        Args:
            reference: PIL or uint8 RGB (height, width, 3), stretched to `height` x `width`.
            poses: One pose a frame, or such a clip for each reference.
            reference_pose: The skeleton of the reference, one frame.
            driving_frames: Frames of the driving video, uint8 RGB, for the implicit indicator, which is left out
                without them. A tensor (frames, height, width, 3), any iterable of frames, or a list of such tensors,
                one for each reference.
            driving_poses: Keypoints as found in `driving_frames`, before any alignment; `poses` if not given.
            pose_scale: Strength of the explicit pose; 0 leaves it and the reference pose out, but not the implicit one.
            num_frames: Must be 4k + 1. If not given: as many as `poses`, whatever their number, or the model's own.
            window_overlap: Frames that windows share when the clip is longer than the model; 4k + 1.
            lock_colours: Holds the colours of later windows at those of the first.
            guidance_scale: At or below 1 there is only one pass a step.
            prompt_noise: Gaussian noise on the prompt's embeddings, as a multiple of their root mean square.
            prompt_random_words: Words of the vocabulary that are put at random places of the prompt.
            guidance_start: The share of the steps before guidance begins; "auto" waits for the first local minimum of
                the difference that guidance makes. See `models.delayed_guidance`.
            guidance_before: The scale until then. 1 is no guidance; 0 the negative pass alone, which knows no explicit
                pose; less than 0 pushes away from the prompt.
            callback_on_step_end: Called as (pipe, step, timestep, tensors), may return replacements.

        Raises:
            ValueError: something in the request does not fit; the message names it and the fix.
        """
        device = self._execution_device
        height = self.config["height"] if height is None else height
        width = self.config["width"] if width is None else width
        self._check_size(height, width)
        self._check_callback(callback_on_step_end_tensor_inputs)
        self._guidance_scale = self.config["guidance_scale"] if guidance_scale is None else guidance_scale
        self._interrupt = False
        steps = self.config["num_inference_steps"] if num_inference_steps is None else num_inference_steps
        self._delay = GuidanceDelay(guidance_start, guidance_before, steps)
        if guidance_start and not self.do_classifier_free_guidance:
            raise ValueError(
                f"guidance_start {guidance_start}: there is no guidance at guidance_scale {self._guidance_scale:g}; "
                "use one above 1, or leave guidance_start out"
            )
        if prompt_random_words and prompt_embeds is not None:
            raise ValueError("prompt_random_words needs the prompt as text, not as prompt_embeds; use prompt_noise")
        references: list[Any] = list(reference) if isinstance(reference, (list, tuple)) else [reference]
        batch = len(references)
        clips = [] if poses is None else per_reference("poses", poses, batch)
        plan = plan_clip(
            num_frames,
            [len(clip) for clip in clips],
            model_frames=self.config["num_frames"],
            overlap_frames=window_overlap,
            factor=self.vae_scale_factor_temporal,
        )
        sample = self._prepare_latents(latents, (batch, plan.num_latents, height, width), generator, device)

        prompt_embeds, negative_prompt_embeds = self.encode_prompt(
            self._with_words(prompt, batch, prompt_random_words, generator),
            negative_prompt,
            batch,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            max_sequence_length=max_sequence_length,
        )
        # drawn after the latents, which are the same with and without
        prompt_embeds = noisy_prompt(prompt_embeds, prompt_noise, generator)
        pixels = torch.stack([to_pixels(picture, (width, height)) for picture in references]).to(device)
        condition = self._encode_reference(
            pixels, prompt_embeds, reference_pose if clips and pose_scale else None, plan
        )
        found = clips if driving_poses is None else per_reference("driving_poses", driving_poses, batch)
        motion = self._encode_motion(clips, found, driving_frames, plan, batch, (width, height))
        motion = motion.scaled(pose_scale)
        timesteps = set_flow_timesteps(self.scheduler, steps, device)
        self._num_timesteps = len(timesteps)
        self._reset_caches()

        self._rest()
        with self.progress_bar(total=len(timesteps)) as progress_bar:
            for step, timestep in enumerate(timesteps):
                if self.interrupt:
                    continue
                guided = negative_prompt_embeds is not None and self.do_classifier_free_guidance
                with_positive, with_negative = self._delay.needs() if guided else (True, False)
                predictions = []
                for index, window in enumerate(plan.windows):
                    positive = motion.of(replace(condition, text=prompt_embeds), index, window)
                    negative = None
                    if with_negative and negative_prompt_embeds is not None:
                        negative = replace(positive, text=negative_prompt_embeds).drop("explicit")
                    predictions.append(
                        self._predict(
                            window.take(sample), timestep, positive if with_positive else None, negative, index,
                            attention_kwargs,
                        )
                    )  # fmt: skip
                velocity = self._joined(predictions, plan, guided)
                sample = self.scheduler.step(velocity, timestep, sample, return_dict=False)[0]
                if callback_on_step_end is not None:
                    tensors: dict[str, Any] = {
                        "latents": sample,
                        "prompt_embeds": prompt_embeds,
                        "negative_prompt_embeds": negative_prompt_embeds,
                        "velocity": velocity,
                    }
                    chosen = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                    tensors |= callback_on_step_end(self, step, timestep, chosen) or {}
                    sample, prompt_embeds = tensors["latents"], tensors["prompt_embeds"]
                    negative_prompt_embeds = tensors["negative_prompt_embeds"]
                progress_bar.update()
        self._reset_caches()

        frames: Any = sample
        if output_type != "latent":
            lock = ColourLock(plan.frames_per_window) if lock_colours and len(plan.windows) > 1 else None
            video = self._decode(sample, plan.num_frames, lock)
            frames = self.video_processor.postprocess_video(video, output_type=output_type)
        self.maybe_free_model_hooks()
        return AnimateXPipelineOutput(frames=frames) if return_dict else (frames,)

    def encode_prompt(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str],
        batch: int,
        *,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        max_sequence_length: int = 512,
    ) -> tuple[Tensor, Tensor | None]:
        """Embeds the prompts of a batch, and the negative ones where guidance is on.

        Raises:
            ValueError: there are neither one nor `batch` prompts.
        """

        def embed(name: str, texts: str | Sequence[str]) -> Tensor:
            prompts = [texts] * batch if isinstance(texts, str) else list(texts)
            if len(prompts) != batch:
                raise ValueError(f"{name} must be one text or {batch}, one for each reference; got {len(prompts)}")
            embeds = encode_prompts(self.text_encoder, self.tokenizer, prompts, max_length=max_sequence_length)
            return embeds.to(self._execution_device)

        if prompt_embeds is None:
            prompt_embeds = embed("prompt", prompt)
        if self.do_classifier_free_guidance and negative_prompt_embeds is None:
            negative_prompt_embeds = embed("negative_prompt", negative_prompt)
        return prompt_embeds, negative_prompt_embeds

    def _encode_reference(
        self, pixels: Tensor, prompt_embeds: Tensor, pose: Poses | None, plan: ClipPlan
    ) -> Conditioning:
        """Encodes what all windows share: the picture for attention and for the channels, its skeleton, the text."""
        batch, _, height, width = pixels.shape
        image = reference_pose = None
        if self.image_encoder is not None and self.transformer.config["image_dim"] is not None:
            image = encode_image(self.image_encoder, self.image_processor, pixels)
        if pose is not None:
            each = per_reference("reference_pose", pose, batch)
            reference_pose = encode_reference_pose(self.epi, each, size=(width, height), device=pixels.device)
            reference_pose = reference_pose.expand(batch, -1, -1, -1, -1)
        mode = self.config["reference_latents"]
        reference = reference_latents(self.vae, pixels, num_frames=plan.frames_per_window, mode=mode)
        return Conditioning(text=prompt_embeds, image=image, reference=reference, reference_pose=reference_pose)

    def _encode_motion(
        self,
        clips: Sequence[PoseSequence],
        found: Sequence[PoseSequence],
        driving_frames: Iterable[Tensor] | None,
        plan: ClipPlan,
        batch: int,
        size: tuple[int, int],
    ) -> MotionIndicators:
        """Encodes both indicators once, before the first step; without poses there are none."""
        if not clips:
            return MotionIndicators()
        implicit = None
        if self.ipi is not None and driving_frames is not None:
            implicit = encode_implicit(self.ipi, self._motion_encoder, driving_frames, found, plan, batch)
        explicit = encode_explicit(self.epi, clips, plan, size=size, device=self._execution_device)
        return MotionIndicators(explicit=explicit.expand(batch, -1, -1, -1, -1), implicit=implicit)

    def _predict(
        self,
        latents: Tensor,
        timestep: Tensor,
        positive: Conditioning | None,
        negative: Conditioning | None,
        window: int,
        attention_kwargs: dict[str, Any] | None,
    ) -> tuple[Tensor, Tensor]:
        """Predicts the positive and the negative velocity of one window; one that is left out is the other's equal.

        Caches are kept apart by window and by branch.
        """
        times = timestep.expand(latents.shape[0])
        found = []
        for branch, told in (("cond", positive), ("uncond", negative)):
            if told is not None:
                with self._cache_context(f"{branch}-{window}"):
                    found.append(predict_velocity(self.transformer, latents, times, told, attention_kwargs).float())
        return found[0], found[-1]

    def _joined(self, predictions: Sequence[tuple[Tensor, Tensor]], plan: ClipPlan, guided: bool) -> Tensor:
        """Joins the windows with the guidance of this step: all begin it together, or they would not fit."""
        positives, negatives = ([pair[k] for pair in predictions] for k in (0, 1))
        scale: float | Tensor = 1.0
        if guided:
            apart = None
            if self._delay.watches:
                apart = blend(plan.windows, [p - n for p, n in predictions], plan.num_latents)
            scale = self._delay.scale(self._guidance_scale, apart, len(positives[0]))
        if isinstance(scale, Tensor):
            scale = rearrange(scale, "b -> b 1 1 1 1").to(positives[0])
        elif scale in (0, 1):  # one prediction alone, which may be the only one there is
            return blend(plan.windows, positives if scale else negatives, plan.num_latents)
        return blend(plan.windows, [guide(p, n, scale) for p, n in predictions], plan.num_latents)

    def _with_words(
        self, prompt: str | Sequence[str], batch: int, count: int, generator: Generators
    ) -> str | Sequence[str]:
        """The prompts with random words in them, drawn for each of the batch."""
        if not count:
            return prompt
        tokenizer = clip_tokenizer() if isinstance(self.text_encoder, OpenCLIPTextEncoder) else self.tokenizer
        prompts = [prompt] * batch if isinstance(prompt, str) else prompt
        return add_random_words(prompts, tokenizer, count, generator)

    @property
    def sees_driving_frames(self) -> bool:
        """Whether `driving_frames` are of use: there is an implicit indicator, and what it sees pictures with."""
        return self.ipi is not None and isinstance(self._motion_encoder, OpenCLIPVisionEncoder)

    @property
    def _motion_encoder(self) -> Any:
        return self.ipi_image_encoder if self.ipi_image_encoder is not None else self.image_encoder

    @torch.no_grad()
    def stills(
        self, latents: Tensor, velocity: Tensor, step: int, *, count: int = 3
    ) -> Float[Tensor, "count 3 height width"]:
        """Guesses from an unfinished clip what it will show: a few of its moments, each decoded as a picture, 0..1.

        The clip without its noise is latents - sigma velocity, sigma being the noise that is left after `step`; for a
        callback, which has the three of them. Only the first clip of a batch is shown.
        """
        sigma = self.scheduler.sigmas[step + 1].to(latents)
        moments = torch.linspace(0, latents.shape[2] - 1, min(count, latents.shape[2])).round().long().tolist()
        clean = (latents - sigma * velocity)[0, :, moments]
        with self._beside_transformer():
            pieces = list(decode_pieces(self.vae, rearrange(clean, "c n h w -> n c 1 h w")))
        pictures = torch.cat(pieces, dim=2)[:, :, 0]
        return ((pictures.float() + 1) / 2).clamp(0, 1)

    def _rest(self) -> None:
        """With offloading, sends to main memory what is not needed for steps; each part waits for the next one else."""
        for hook in getattr(self, "_all_hooks", ()):
            if hook.model is not self.transformer:
                hook.offload()

    @contextmanager
    def _beside_transformer(self) -> Iterator[None]:
        """With offloading, lets the codec come without sending the transformer away, which is needed again at once."""
        hook = getattr(self.vae, "_hf_hook", None)
        before = getattr(hook, "prev_module_hook", None)
        if hook is None or before is None:
            yield
            return
        hook.prev_module_hook = None
        try:
            yield
        finally:
            hook.prev_module_hook = before

    def _decode(self, latents: Tensor, num_frames: int, lock: ColourLock | None) -> Tensor:
        video: Tensor | None = None
        done = 0
        for piece in decode_pieces(self.vae, latents):
            piece = piece[:, :, : num_frames - done].cpu()
            if video is None:
                video = piece.new_empty(*piece.shape[:2], num_frames, *piece.shape[3:])
            video[:, :, done : done + piece.shape[2]] = lock(piece) if lock is not None else piece
            done += piece.shape[2]
        assert video is not None
        return video

    def _prepare_latents(
        self,
        latents: Tensor | None,
        shape: tuple[int, int, int, int],
        generator: torch.Generator | list[torch.Generator] | None,
        device: torch.device,
    ) -> Tensor:
        batch, frames, height, width = shape
        factor = self.vae_scale_factor_spatial
        full = (batch, self.vae.config["z_dim"], frames, height // factor, width // factor)
        if latents is not None:
            if latents.shape != full:
                raise ValueError(f"latents must have shape {full} for this request, got {tuple(latents.shape)}")
            return latents.to(device, torch.float32)
        if isinstance(generator, list) and len(generator) != batch:
            raise ValueError(f"generator must be one or {batch}, one for each reference; got {len(generator)}")
        return randn_tensor(full, generator=generator, device=device, dtype=torch.float32)

    def _check_size(self, height: int, width: int) -> None:
        _, rows, columns = self.transformer.config["patch_size"]
        for name, size, patch in (("height", height, rows), ("width", width, columns)):
            step = self.vae_scale_factor_spatial * patch
            if size < step or size % step:
                below = max(step, step * (size // step))
                raise ValueError(f"{name} must be a multiple of {step} px, got {size}; try {below} or {below + step}")

    def _check_callback(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._callback_tensor_inputs:
                known = ", ".join(self._callback_tensor_inputs)
                raise ValueError(f"callback_on_step_end_tensor_inputs may name {known}, got {name!r}")

    def _cache_context(self, name: str) -> AbstractContextManager[None]:
        return self.transformer.cache_context(name) if self.transformer.is_cache_enabled else nullcontext()

    def _reset_caches(self) -> None:
        if self.transformer.is_cache_enabled:
            self.transformer._reset_stateful_cache()


def load_pipeline(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    announce: Callable[[str], None] | None = None,
) -> AnimateXPipeline:
    """Loads a pipeline ready to run: "mini" (packaged), a local folder, or a hub id.

    `dtype` is float32 on the CPU and bfloat16 elsewhere if not given; the codec stays in float32 always.
    `announce` is told before a download starts, see `models.loading.resolve_folder`.

    Raises:
        ValueError: the model cannot be found, or a file of its folder is missing or damaged; the message names it.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!s} was asked for, but torch finds no GPU here; use device='cpu'")
    folder = resolve_folder(name_or_path, announce=announce)
    check_folder(folder)
    if dtype is None:
        dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    try:
        pipe: AnimateXPipeline = AnimateXPipeline.from_pretrained(
            folder, dtype={"default": dtype, "vae": torch.float32}, use_safetensors=True, local_files_only=True
        )
    except (OSError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise ValueError(f"model folder {folder} could not be loaded: {error}") from error
    for name, component in pipe.components.items():
        lacking = [key for key, p in getattr(component, "named_parameters", list)() if p.is_meta]
        if lacking:
            raise ValueError(
                f"the weights of {name} in {folder} lack {len(lacking)} tensors, {lacking[0]} among them; "
                "they are not of this config: copy or download the model again"
            )
        if isinstance(component, torch.nn.Module):
            component.eval()
    return pipe.to(device)


# `DiffusionPipeline.from_pretrained(folder)` looks the class up by name in diffusers itself, as nothing else can be
# registered there; the names of the components' modules are found because this module imports them.
diffusers.AnimateXPipeline = AnimateXPipeline
