"""open_clip models of our own size, split into a text encoder and an image encoder that diffusers can load."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from einops import rearrange
from jaxtyping import Float, Int
from open_clip import CLIP, SimpleTokenizer
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import LayerNorm, TextTransformer, VisionTransformer
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

CLIP_MEAN: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
"""Mean of RGB in [0, 1] of OpenAI's and LAION's CLIP; the mini CLIP uses 0.5."""
CLIP_STD: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of RGB in [0, 1] of OpenAI's and LAION's CLIP; the mini CLIP uses 0.5."""


class OpenCLIPConfig(BaseModel):
    """Sizes of an open_clip model; the defaults are the mini CLIP."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    embed_dim: int = Field(default=128, ge=1)
    """Width of the space that text and image share."""
    text_width: int = Field(default=64, ge=1)
    """Width of a text token."""
    text_heads: int = Field(default=4, ge=1)
    """Attention heads of the text tower."""
    text_layers: int = Field(default=4, ge=1)
    """Blocks of the text tower."""
    context_length: int = Field(default=64, ge=3)
    """Longest prompt in tokens, start and end included; longer ones are cut."""
    vocab_size: int = Field(default=49408, ge=49408)
    """Rows of the token table; open_clip's tokenizer needs 49,408."""
    vision_width: int = Field(default=192, ge=1)
    """Width of an image token."""
    vision_head_width: int = Field(default=64, ge=1)
    """Width of one attention head of the image tower."""
    vision_layers: int = Field(default=6, ge=2)
    """Blocks of the image tower."""
    patch_size: int = Field(default=16, ge=1)
    """Side of a patch. [px]"""
    image_size: int = Field(default=128, ge=1)
    """Side of the square picture that the image tower sees. [px]"""
    mlp_ratio: float = Field(default=4.0, gt=0)
    """Width of the feed-forward layers, as a multiple of the token width, in both towers."""

    @model_validator(mode="after")
    def _divides(self) -> "OpenCLIPConfig":
        for name, whole, part in (
            ("text_width / text_heads", self.text_width, self.text_heads),
            ("vision_width / vision_head_width", self.vision_width, self.vision_head_width),
            ("image_size / patch_size", self.image_size, self.patch_size),
        ):
            if whole % part:
                raise ValueError(f"{name} must be a whole number, got {whole} / {part}")
        return self


@cache
def clip_tokenizer() -> SimpleTokenizer:
    """open_clip's own tokenizer, with OpenAI's vocabulary."""
    return SimpleTokenizer()


def tokenize(prompts: Sequence[str], context_length: int) -> Int[Tensor, "batch tokens"]:
    """Turns prompts into token ids with open_clip's own tokenizer; what is too long is cut, the rest is 0."""
    return clip_tokenizer()(list(prompts), context_length=context_length)


class OpenCLIPTextEncoder(ModelMixin, ConfigMixin):
    """The text tower of an open_clip model: prompt tokens for cross-attention, pooled embedding for retrieval."""

    @register_to_config
    def __init__(
        self,
        embed_dim: int = 128,
        width: int = 64,
        heads: int = 4,
        layers: int = 4,
        context_length: int = 64,
        vocab_size: int = 49408,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.context_length = context_length
        self.tower = TextTransformer(
            context_length=context_length,
            vocab_size=vocab_size,
            width=width,
            heads=heads,
            layers=layers,
            mlp_ratio=mlp_ratio,
            output_dim=embed_dim,
            norm_layer=LayerNorm,
            output_tokens=True,
        )

    def forward(
        self, input_ids: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch embed"], Float[Tensor, "batch tokens dim"]]:
        """Embeds token ids: the pooled, projected embedding and the tokens after the last LayerNorm."""
        pooled, tokens = self.tower(input_ids)
        # Tokens after the end-of-text token see the whole prompt but mean nothing: they are silenced, as Wan does.
        end = input_ids.argmax(dim=-1, keepdim=True)
        keep = torch.arange(input_ids.shape[1], device=input_ids.device) <= end
        return pooled, tokens * rearrange(keep, "b n -> b n 1").to(tokens.dtype)

    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "batch tokens dim"]:
        """Embeds prompts for cross-attention: always `context_length` tokens, zeros after the end of the text."""
        tokens = self.forward(self._ids(prompts))[1]
        return tokens

    def pooled(self, prompts: Sequence[str]) -> Float[Tensor, "batch embed"]:
        """Embeds each prompt as one vector in the space shared with images, not normalised."""
        pooled = self.forward(self._ids(prompts))[0]
        return pooled

    def num_tokens_cut(self, prompts: Sequence[str]) -> list[int]:
        """Counts how many tokens of each prompt do not fit in the context and are cut by `encode`."""
        room = self.context_length - 2
        return [max(0, len(clip_tokenizer().encode(prompt)) - room) for prompt in prompts]

    def _ids(self, prompts: Sequence[str]) -> Tensor:
        if isinstance(prompts, str):
            raise ValueError(f"prompts must be a list of texts, got one text {prompts[:40]!r}; wrap it in a list")
        return tokenize(prompts, self.context_length).to(self.device)


@dataclass(frozen=True, kw_only=True)
class VisionFeatures:
    """What an image encoder saw."""

    tokens: Float[Tensor, "batch patches dim"]
    """Class token and patches before the last block, as in Wan: the last block trains the class token alone."""
    pooled: Float[Tensor, "batch embed"]
    """The projected class token, not normalised."""


class OpenCLIPVisionEncoder(ModelMixin, ConfigMixin):
    """The image tower of an open_clip model: image tokens for cross-attention, pooled embedding for IPI."""

    @register_to_config
    def __init__(
        self,
        embed_dim: int = 128,
        width: int = 192,
        head_width: int = 64,
        layers: int = 6,
        patch_size: int = 16,
        image_size: int = 128,
        mlp_ratio: float = 4.0,
        pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.pixel_mean, self.pixel_std = pixel_mean, pixel_std
        self.penultimate = layers - 2
        self.tower = VisionTransformer(
            image_size=image_size,
            patch_size=patch_size,
            width=width,
            layers=layers,
            heads=width // head_width,
            mlp_ratio=mlp_ratio,
            output_dim=embed_dim,
            norm_layer=LayerNorm,
        )

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> VisionFeatures:
        """Embeds pictures in [-1, 1] of any size; they are stretched to the model's square (as Animate-X does)."""
        out = self.tower.forward_intermediates(
            self._normalise(pixels), indices=[self.penultimate], output_fmt="NLC", output_extra_tokens=True
        )
        prefix, patches = out["image_intermediates_prefix"][0], out["image_intermediates"][0]
        return VisionFeatures(tokens=torch.cat([prefix, patches], dim=1), pooled=out["image_features"])

    def _normalise(self, pixels: Tensor) -> Tensor:
        size = self.image_size
        if pixels.shape[-2:] != (size, size):
            pixels = F.interpolate(pixels.float(), size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)
        mean, std = (
            rearrange(torch.tensor(c, device=pixels.device), "c -> c 1 1") for c in (self.pixel_mean, self.pixel_std)
        )
        return (((pixels + 1) / 2 - mean) / std).to(self.dtype)


def build_open_clip(config: OpenCLIPConfig) -> CLIP:
    """Builds an untrained open_clip model to train with open_clip's own losses; see `split_open_clip`.

    Its initial weights come from torch's global generator, as open_clip has no other way: seed that first.
    """
    return CLIP(
        embed_dim=config.embed_dim,
        vision_cfg=CLIPVisionCfg(
            layers=config.vision_layers,
            width=config.vision_width,
            head_width=config.vision_head_width,
            mlp_ratio=config.mlp_ratio,
            patch_size=config.patch_size,
            image_size=config.image_size,
        ),
        text_cfg=CLIPTextCfg(
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
            mlp_ratio=config.mlp_ratio,
        ),
    )


def split_open_clip(model: CLIP, config: OpenCLIPConfig) -> tuple[OpenCLIPTextEncoder, OpenCLIPVisionEncoder]:
    """Copies an open_clip model into the two components of a pipeline."""
    text = OpenCLIPTextEncoder(
        embed_dim=config.embed_dim,
        width=config.text_width,
        heads=config.text_heads,
        layers=config.text_layers,
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        mlp_ratio=config.mlp_ratio,
    )
    vision = OpenCLIPVisionEncoder(
        embed_dim=config.embed_dim,
        width=config.vision_width,
        head_width=config.vision_head_width,
        layers=config.vision_layers,
        patch_size=config.patch_size,
        image_size=config.image_size,
        mlp_ratio=config.mlp_ratio,
    )
    state = model.state_dict()
    text.tower.load_state_dict({key: state[key] for key in text.tower.state_dict()})
    vision.tower.load_state_dict(model.visual.state_dict())
    return text.eval(), vision.eval()


def join_open_clip(model: CLIP, text: OpenCLIPTextEncoder, vision: OpenCLIPVisionEncoder) -> None:
    """Copies both components back into an open_clip model of their sizes, to train on; the inverse of the split.

    The temperature is not part of either, so it stays as the model has it.
    """
    model.load_state_dict(text.tower.state_dict(), strict=False)
    model.visual.load_state_dict(vision.tower.state_dict())
