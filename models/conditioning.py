"""What the denoiser is told besides the noisy latents, and how text, pictures and poses become that."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.pipelines.wan.pipeline_wan_i2v import prompt_clean
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, CLIPImageProcessor, CLIPVisionModel, PreTrainedTokenizerBase, UMT5EncoderModel

from models.clip import OpenCLIPTextEncoder, OpenCLIPVisionEncoder
from models.dit import AnimateXTransformer3DModel
from pose.draw import draw_poses
from pose.explicit import ExplicitPoseIndicator
from pose.sequence import PoseSequence

Part = Literal["text", "image", "reference", "reference_pose", "explicit", "implicit"]
"""A part of a `Conditioning`, by its field name."""

Picture = Image.Image | UInt8[Tensor, "height width 3"] | UInt8[np.ndarray, "height width 3"]
"""A picture as it comes from a caller: PIL, or RGB 0..255."""


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Everything that the denoiser is told besides the noisy latents; None means that a part is left out."""

    text: Float[Tensor, "batch text_tokens text_dim"]
    """Prompt tokens."""
    reference: Float[Tensor, "batch reference_channels latent_frames rows columns"]
    """Mask and reference latents, see `models.codecs.reference_latents`."""
    image: Float[Tensor, "batch image_tokens image_dim"] | None = None
    """CLIP tokens of the reference."""
    reference_pose: Float[Tensor, "batch reference_channels 1 rows columns"] | None = None
    """Feature of the reference's skeleton, added to all channels of `reference`, mask included, as released."""
    explicit: Float[Tensor, "batch tokens dim"] | None = None
    """Explicit pose tokens (EPI), one a latent patch."""
    implicit: Float[Tensor, "batch latent_frames dim"] | None = None
    """Implicit motion tokens (IPI), one a latent frame."""

    def drop(self, *parts: Part, where: Bool[Tensor, "batch"] | None = None) -> "Conditioning":
        """Leaves parts out: for guidance everywhere, for training in those samples of the batch that `where` marks.

        What is dropped is the embedding: a black pose picture would still leave the encoder's biases. Parts that
        cannot be absent (`text`, `reference`) become zeros.

        Raises:
            ValueError: a part is unknown.
        """
        fields = self.__dataclass_fields__
        changed: dict[str, Any] = {}
        for part in parts:
            if part not in fields:
                raise ValueError(f"a conditioning has the parts {', '.join(fields)}, got {part!r}")
            value: Tensor | None = getattr(self, part)
            if value is None:
                continue
            if where is not None:
                mask = rearrange(where, "batch -> batch" + " 1" * (value.ndim - 1)).to(value.device)
                changed[part] = value.masked_fill(mask, 0)
            else:
                changed[part] = torch.zeros_like(value) if part in ("text", "reference") else None
        return replace(self, **changed)

    @cached_property
    def distinct_texts(
        self,
    ) -> tuple[Float[Tensor, "texts text_tokens text_dim"], Int[Tensor, "batch"] | None]:
        """The texts, each once, and which of them each sample is told; found once for all steps of a sampler."""
        return distinct_texts(self.text)

    def model_input(
        self, latents: Float[Tensor, "batch channels latent_frames rows columns"]
    ) -> Float[Tensor, "batch all_channels latent_frames rows columns"]:
        """Joins noisy latents, mask and reference latents on channels, as Wan's I2V transformer takes them."""
        reference = self.reference if self.reference_pose is None else self.reference + self.reference_pose
        return torch.cat([latents, reference.to(latents)], dim=1)


def distinct_texts(
    text: Float[Tensor, "batch text_tokens text_dim"],
) -> tuple[Float[Tensor, "texts text_tokens text_dim"], Int[Tensor, "batch"] | None]:
    """The texts of a batch, each once, and which of them each sample is told; None where all differ.

    Of a small picture the keys and values of its text are a third of all products, and captions repeat: those of a
    subject, of a class, the empty one.
    """
    if len(text) == 1 or text.requires_grad:  # gradients do not go through torch's choice
        return text, None
    texts, text_of = torch.unique(text, dim=0, return_inverse=True)
    return (texts, text_of) if len(texts) < len(text) else (text, None)


def predict_velocity(
    transformer: AnimateXTransformer3DModel,
    latents: Float[Tensor, "batch channels latent_frames rows columns"],
    timesteps: Float[Tensor, "batch"],
    conditioning: Conditioning,
    attention_kwargs: dict[str, Any] | None = None,
) -> Float[Tensor, "batch channels latent_frames rows columns"]:
    """Runs the transformer once, for training and sampling alike; timesteps are 0..1000 (1000 sigma)."""
    dtype: torch.dtype = transformer.dtype

    def cast(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.to(dtype)

    texts, text_of = conditioning.distinct_texts
    velocity: Tensor = transformer(
        hidden_states=conditioning.model_input(latents).to(dtype),
        timestep=timesteps,
        encoder_hidden_states=texts.to(dtype),
        encoder_hidden_states_image=cast(conditioning.image),
        pose_tokens=cast(conditioning.explicit),
        motion_tokens=cast(conditioning.implicit),
        attention_kwargs=attention_kwargs,
        text_of=text_of,
        return_dict=False,
    )[0]
    return velocity


def to_pixels(picture: Picture, size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
    """Turns a picture into RGB in [-1, 1], stretched to `size` (width, height) as Animate-X does.

    To keep its proportions, crop or pad the picture and its pose together before.

    Raises:
        ValueError: it is not a PIL picture nor uint8 (height, width, 3).
    """
    if isinstance(picture, Image.Image):
        picture = np.array(picture.convert("RGB"))
    rgb = torch.as_tensor(picture)
    if rgb.dtype != torch.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(
            "a picture must be a PIL image or uint8 RGB of shape (height, width, 3), "
            f"got {rgb.dtype} of shape {tuple(rgb.shape)}"
        )
    pixels = rearrange(rgb, "h w c -> 1 c h w").float() / 127.5 - 1
    if pixels.shape[-2:] != (size[1], size[0]):
        pixels = F.interpolate(pixels, size=(size[1], size[0]), mode="bicubic", antialias=True).clamp(-1, 1)
    return pixels[0]


def encode_prompts(
    encoder: OpenCLIPTextEncoder | UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerBase | None,
    prompts: Sequence[str],
    *,
    max_length: int = 512,
) -> Float[Tensor, "batch text_tokens text_dim"]:
    """Embeds prompts with our OpenCLIP text tower, or with Wan's UMT5 and its tokenizer; padding is zeros.

    Raises:
        ValueError: the encoder needs a tokenizer and there is none.
    """
    if isinstance(encoder, OpenCLIPTextEncoder):
        return encoder.encode(prompts)
    if tokenizer is None:
        raise ValueError(f"text_encoder {type(encoder).__name__} needs a tokenizer; add it to the pipeline")
    inputs = tokenizer(
        [prompt_clean(prompt) for prompt in prompts],
        padding="max_length",
        max_length=max_length,
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    ).to(encoder.device)
    tokens: Tensor = encoder(inputs.input_ids, inputs.attention_mask).last_hidden_state
    return tokens * rearrange(inputs.attention_mask, "b n -> b n 1").to(tokens)


def encode_image(
    encoder: OpenCLIPVisionEncoder | CLIPVisionModel,
    processor: CLIPImageProcessor | None,
    pixels: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch image_tokens image_dim"]:
    """Embeds reference pictures in [-1, 1] as tokens before the last block of a CLIP image tower, as Wan does.

    Raises:
        ValueError: the encoder needs an image processor and there is none.
    """
    if isinstance(encoder, OpenCLIPVisionEncoder):
        return encoder(pixels).tokens
    if processor is None:
        raise ValueError(f"image_encoder {type(encoder).__name__} needs an image_processor; add it to the pipeline")
    pictures = list(((pixels + 1) / 2).clamp(0, 1).float().cpu())
    inputs: BatchFeature = processor(images=pictures, do_rescale=False, return_tensors="pt")
    outputs = encoder(inputs["pixel_values"].to(encoder.device, encoder.dtype), output_hidden_states=True)
    tokens: Tensor = outputs.hidden_states[-2]
    return tokens


def encode_frames(
    encoder: OpenCLIPVisionEncoder, frames: Iterable[UInt8[Tensor, "height width 3"]], *, batch: int = 16
) -> Float[Tensor, "frames embed"]:
    """Embeds each driving frame as one pooled CLIP vector for the implicit indicator, a few frames at a time."""
    features = []
    rest = iter(frames)
    while some := list(islice(rest, batch)):
        height, width = some[0].shape[:2]
        pixels = torch.stack([to_pixels(frame, (width, height)) for frame in some])
        features.append(encoder(pixels.to(encoder.device)).pooled)
    if not features:
        raise ValueError("driving_frames is empty; pass the frames of the driving video, or None")
    return torch.cat(features)


def pose_pixels(poses: PoseSequence, size: tuple[int, int]) -> Float[Tensor, "1 3 frames height width"]:
    """Draws skeletons on a canvas of `size` (width, height), RGB in [0, 1] as the explicit indicator takes them."""
    return rearrange(draw_poses(poses, size=size), "f h w c -> 1 c f h w").float() / 255


def encode_pose_clip(
    epi: ExplicitPoseIndicator, poses: PoseSequence, *, size: tuple[int, int], device: torch.device, piece: int = 16
) -> Float[Tensor, "1 dim latent_frames rows columns"]:
    """Encodes the explicit pose of a whole clip of any length, drawing and convolving `piece` latent frames at a time.

    Each piece sees enough frames before and after it that the result is that of one pass over the whole clip, which a
    window by itself would not give at its edges (the convolutions look both ways in time).
    """
    maps = [
        epi.encode_pose_map(pose_pixels(poses[first_frame : last_frame + 1], size).to(device))[:, :, skip : skip + take]
        for first_frame, last_frame, skip, take in _pose_pieces(len(poses), *_time_reach(epi), piece=piece)
    ]
    return torch.cat(maps, dim=2)


def _time_reach(epi: ExplicitPoseIndicator) -> tuple[int, int]:
    """Counts frames a latent frame, and how many frames a feature sees beyond its own group on either side."""
    step, reach = 1, 0
    for stride in epi.config["strides"]:
        reach += step
        step *= stride[0]
    return step * epi.config["patch_size"][0], reach


def _pose_pieces(num_frames: int, step: int, reach: int, *, piece: int) -> Iterator[tuple[int, int, int, int]]:
    """Lists (first frame, last frame, latent frames to skip, latent frames to keep) of each piece."""
    # A piece's own first latent frame holds copies of one frame; those must stay out of reach of what is kept.
    context = -(-(reach + step - 1) // step)
    length = (num_frames - 1) // step + 1
    for start in range(0, length, piece):
        stop = min(start + piece, length)
        first = max(0, start - context)
        last = min(length - 1, stop - 1 + context)
        yield step * first, step * last, start - first, stop - start
