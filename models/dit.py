"""`AnimateXTransformer3DModel`: Wan's video transformer that also takes explicit pose and implicit motion tokens."""

import math
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.loaders import FromOriginalModelMixin, PeftAdapterMixin
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionMixin, FeedForward
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import (
    WanAttention,
    WanRotaryPosEmbed,
    WanTimeTextImageEmbedding,
    WanTransformer3DModel,
)
from diffusers.utils import apply_lora_scale
from einops import rearrange
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns neighbouring pairs of channels by the angles of their position (RoPE, arXiv 2104.09864, eq. 34)."""
    even, odd = states.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    turned = torch.empty_like(states)
    turned[..., 0::2] = even * cos - odd * sin
    turned[..., 1::2] = even * sin + odd * cos
    return turned


def _normalize(norm: nn.RMSNorm, states: Tensor) -> Tensor:
    """Applies `norm` in the dtype of `states`; a wider weight, as under autocast, would miss torch's fast path."""
    if norm.weight.dtype == states.dtype:
        return norm(states)
    return F.rms_norm(states, norm.normalized_shape, norm.weight.type_as(states), norm.eps)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, backend: Any, parallel: Any) -> Tensor:
    """Attends over (batch, tokens, heads, dim) through diffusers' dispatch, and joins the heads again.

    Training in bf16 on the CPU takes three plain products instead, unless a backend was chosen: torch's fused kernel is
    two to four times slower there, forward and backward together (2 cores, 320 x 320 tokens, 6 heads of 48: 34 ms
    against 16).
    """
    training_on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad
    if training_on_cpu and backend is None and parallel is None and mask is None:
        query, key, value = (states.transpose(1, 2) for states in (query, key, value))
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        attended = (scores.softmax(dim=-1).type_as(value) @ value).transpose(1, 2)
    else:
        attended = dispatch_attention_fn(query, key, value, attn_mask=mask, backend=backend, parallel_config=parallel)
    return attended.flatten(2, 3).type_as(query)


class AnimateXAttnProcessor:
    """Wan's attention, with text and image tokens apart, and keys and values of a text made once for all it is told to.

    diffusers' own processor takes the last 512 tokens for text, so that any other length is mis-split without a word.
    Without image tokens the image branch is skipped: the model then works as text-to-video.
    """

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
        image: Tensor | None = None,
        text_of: Tensor | None = None,
    ) -> Tensor:
        """Attends to the tokens themselves, or to the text and (through keys of their own) the image tokens."""
        is_self_attention = encoder_hidden_states is None
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attn.fused_projections and is_self_attention:
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        elif attn.fused_projections:
            query = attn.to_q(hidden_states)
            key, value = attn.to_kv(source).chunk(2, dim=-1)
        else:
            query, key, value = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        query = _normalize(attn.norm_q, query).unflatten(2, (attn.heads, -1))
        key = _normalize(attn.norm_k, key).unflatten(2, (attn.heads, -1))
        value = value.unflatten(2, (attn.heads, -1))
        if text_of is not None:
            key, value = key.index_select(0, text_of), value.index_select(0, text_of)
        if rotary_emb is not None:
            query, key = _rotate(query, *rotary_emb), _rotate(key, *rotary_emb)

        # Only self-attention is split over devices; text and image tokens are whole on each of them.
        parallel = self._parallel_config if is_self_attention else None
        backend = self._attention_backend
        attended = _attend(query, key, value, attention_mask, backend, parallel)
        if image is not None:
            if attn.fused_projections:
                key, value = attn.to_added_kv(image).chunk(2, dim=-1)
            else:
                key, value = attn.add_k_proj(image), attn.add_v_proj(image)
            key = _normalize(attn.norm_added_k, key).unflatten(2, (attn.heads, -1))
            value = value.unflatten(2, (attn.heads, -1))
            attended = attended + _attend(query, key, value, None, backend, None)
        return attn.to_out[1](attn.to_out[0](attended))


def _chunks(modulation: Tensor, num: int) -> list[Tensor]:
    """Splits (..., num, dim) into `num` tensors that broadcast over the tokens; one set a sample, or one a token."""
    parts = modulation.chunk(num, dim=-2)
    return [part.squeeze(-2) for part in parts] if modulation.ndim == 4 else list(parts)


class AnimateXTransformerBlock(nn.Module):
    """Wan's block (self-attention, cross-attention, feed-forward) that adds the motion tokens before anything else.

    The add stands inside the block, so that block caching, offloading, compiling and token sharding see it as part of
    the block; added between the blocks it would enter the cached residual twice.
    """

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        num_heads: int,
        *,
        cross_attn_norm: bool = True,
        eps: float = 1e-6,
        added_kv_proj_dim: int | None = None,
    ) -> None:
        super().__init__()
        head_dim = dim // num_heads
        self.norm1 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.attn1 = WanAttention(dim, num_heads, head_dim, eps=eps, processor=AnimateXAttnProcessor())
        self.norm2 = FP32LayerNorm(dim, eps, elementwise_affine=True) if cross_attn_norm else nn.Identity()
        self.attn2 = WanAttention(
            dim,
            num_heads,
            head_dim,
            eps=eps,
            added_kv_proj_dim=added_kv_proj_dim,
            cross_attention_dim_head=head_dim,
            processor=AnimateXAttnProcessor(),
        )
        self.norm3 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = FeedForward(dim, inner_dim=ffn_dim, activation_fn="gelu-approximate")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        rotary_emb: tuple[Tensor, Tensor],
        image: Tensor | None = None,
        motion: Tensor | None = None,
        text_of: Tensor | None = None,
    ) -> Tensor:
        """Maps (batch, tokens, dim) to the same shape; `motion` is (batch, tokens, dim) or None.

        `encoder_hidden_states` is the text, `image` the image tokens; `text_of` is that of the model's forward pass.
        """
        if motion is not None:
            hidden_states = hidden_states + motion
        shift_msa, scale_msa, gate_msa, shift_ffn, scale_ffn, gate_ffn = _chunks(
            self.scale_shift_table + temb.float(), 6
        )
        normed = (self.norm1(hidden_states.float()) * (1 + scale_msa) + shift_msa).type_as(hidden_states)
        attended = self.attn1(normed, None, None, rotary_emb)
        hidden_states = (hidden_states.float() + attended * gate_msa).type_as(hidden_states)

        normed = self.norm2(hidden_states.float()).type_as(hidden_states)
        hidden_states = hidden_states + self.attn2(
            normed, encoder_hidden_states, None, None, image=image, text_of=text_of
        )

        normed = (self.norm3(hidden_states.float()) * (1 + scale_ffn) + shift_ffn).type_as(hidden_states)
        return (hidden_states.float() + self.ffn(normed).float() * gate_ffn).type_as(hidden_states)


# FirstBlockCache, MagCache and TaylorSeer look a block up by its exact class and refuse one they do not know.
TransformerBlockRegistry.register(
    model_class=AnimateXTransformerBlock, metadata=TransformerBlockMetadata(return_hidden_states_index=0)
)


class MotionBroadcast(nn.Module):
    """Repeats the motion token of each latent frame over the rows and columns of that frame.

    A module of its own without weights: context parallelism splits the output of modules, so that the motion is
    sharded exactly as the tokens that it is added to.
    """

    def forward(self, motion_tokens: Tensor, tokens_per_frame: int) -> Tensor:
        """Maps (batch, frames, dim) to (batch, frames * tokens_per_frame, dim)."""
        return motion_tokens.repeat_interleave(tokens_per_frame, dim=1)


class AnimateXTransformer3DModel(
    ModelMixin, ConfigMixin, PeftAdapterMixin, FromOriginalModelMixin, CacheMixin, AttentionMixin
):
    """The denoiser of Animate-X++: predicts the velocity of video latents from text, a reference image and a pose.

    Wan2.1's transformer (arXiv 2503.20314) with two more inputs, neither of which brings weights of its own: explicit
    pose tokens, added once after the patch embedding, and implicit motion tokens, one a latent frame, added before each
    of the blocks `motion_inject_start` to `motion_inject_end` inclusive (released Animate-X++: 2 to N/2). State-dict
    keys are those of diffusers' `WanTransformer3DModel`, and without the two inputs so is the output, bit for bit.
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ["patch_embedding", "condition_embedder", "norm"]  # noqa: RUF012
    _no_split_modules = ["AnimateXTransformerBlock"]  # noqa: RUF012
    _keep_in_fp32_modules = ["rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = ["norm_added_q"]  # noqa: RUF012
    _repeated_blocks = ["AnimateXTransformerBlock"]  # noqa: RUF012
    _cp_plan = {  # noqa: RUF012
        "rope": {
            0: ContextParallelInput(split_dim=1, expected_dims=4, split_output=True),
            1: ContextParallelInput(split_dim=1, expected_dims=4, split_output=True),
        },
        "motion_broadcast": {0: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True)},
        "blocks.0": {"hidden_states": ContextParallelInput(split_dim=1, expected_dims=3, split_output=False)},
        "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
        "": {"timestep": ContextParallelInput(split_dim=1, expected_dims=2, split_output=False)},
    }

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] | list[int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 36,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        motion_inject_start: int = 2,
        motion_inject_end: int | None = None,
    ) -> None:
        super().__init__()
        dim = num_attention_heads * attention_head_dim
        p_t, p_h, p_w = patch_size
        self.rope = WanRotaryPosEmbed(attention_head_dim, (p_t, p_h, p_w), rope_max_seq_len)
        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=(p_t, p_h, p_w), stride=(p_t, p_h, p_w))
        self.condition_embedder = WanTimeTextImageEmbedding(
            dim=dim,
            time_freq_dim=freq_dim,
            time_proj_dim=dim * 6,
            text_embed_dim=text_dim,
            image_embed_dim=image_dim,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        self.motion_broadcast = MotionBroadcast()
        self.blocks = nn.ModuleList(
            AnimateXTransformerBlock(
                dim,
                ffn_dim,
                num_attention_heads,
                cross_attn_norm=cross_attn_norm,
                eps=eps,
                added_kv_proj_dim=added_kv_proj_dim,
            )
            for _ in range(num_layers)
        )
        self.norm_out = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, out_channels * math.prod(patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.gradient_checkpointing = False
        end = num_layers // 2 if motion_inject_end is None else motion_inject_end
        self._motion_blocks = range(motion_inject_start, end + 1)

    @classmethod
    def from_wan(
        cls, base: WanTransformer3DModel, *, motion_inject_start: int = 2, motion_inject_end: int | None = None
    ) -> "AnimateXTransformer3DModel":
        """Makes the animator of a Wan transformer. The weights are shared, not copied: drop `base` afterwards.

        `from_pretrained` on a Wan folder works too, and is the way from disk.
        """
        config = {name: value for name, value in base.config.items() if not name.startswith("_")}
        with init_empty_weights():
            model = cls(**config, motion_inject_start=motion_inject_start, motion_inject_end=motion_inject_end)
        model.load_state_dict(base.state_dict(), strict=True, assign=True)
        model.rope = base.rope  # its buffers are in no state dict, and have moved with the base
        for ours, theirs in zip(model.parameters(), base.parameters(), strict=True):
            ours.requires_grad_(theirs.requires_grad)  # `assign` keeps the flag of the empty module
        return model.train(base.training)

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Float[Tensor, "batch channels frames height width"],
        timestep: Num[Tensor, "batch ..."],
        encoder_hidden_states: Float[Tensor, "texts text_tokens text_dim"],
        encoder_hidden_states_image: Float[Tensor, "image_batch image_tokens image_dim"] | None = None,
        pose_tokens: Float[Tensor, "batch tokens dim"] | None = None,
        motion_tokens: Float[Tensor, "batch latent_frames dim"] | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
        text_of: Int[Tensor, "batch"] | None = None,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predicts the velocity at `timestep` (0..1000, one a sample or one a token).

        Args:
            hidden_states: Noisy latents, mask and reference latents, joined on channels.
            encoder_hidden_states: Text of any number of tokens, one for each of the batch.
            encoder_hidden_states_image: Image tokens; None leaves the image attention out.
            pose_tokens: Explicit pose, one a token of the patch grid (frames, rows, columns).
            motion_tokens: Implicit motion, one a latent frame.
            attention_kwargs: `scale` sets the strength of loaded LoRA layers.
            text_of: Which text each of the batch is told, where several are told the same: its keys and values are then
                made once.

        Raises:
            ValueError: an input does not fit the latents or the model.
        """
        frames, rows, columns = self._grid(hidden_states)
        self._check(frames, rows, columns, encoder_hidden_states_image, pose_tokens, motion_tokens)
        told = len(encoder_hidden_states if text_of is None else text_of)
        if told != len(hidden_states):
            raise ValueError(f"{len(hidden_states)} samples need a text each, or text_of for each; got {told}")
        rotary_emb = self.rope(hidden_states)
        tokens = rearrange(self.patch_embedding(hidden_states), "b d f h w -> b (f h w) d").contiguous()
        if pose_tokens is not None:
            tokens = tokens + pose_tokens.type_as(tokens)
        motion = None
        if motion_tokens is not None:
            motion = self.motion_broadcast(motion_tokens.type_as(tokens), rows * columns)

        per_token = timestep.shape[1] if timestep.ndim == 2 else None  # Wan2.2 TI2V gives each token its own time
        temb, modulation, context, image = self.condition_embedder(
            timestep.flatten(),
            encoder_hidden_states,
            encoder_hidden_states_image,
            timestep_seq_len=per_token,
        )
        modulation = modulation.unflatten(-1, (6, -1))
        if image is not None and text_of is None:
            # views of one tensor, as Wan has them: some kernels' last bit goes by the layout
            image, context = torch.cat([image, context], dim=1).split([image.shape[1], context.shape[1]], dim=1)
        checkpointing = torch.is_grad_enabled() and self.gradient_checkpointing
        for index, block in enumerate(self.blocks):
            inject = motion if index in self._motion_blocks else None
            inputs = (tokens, context, modulation, rotary_emb, image, inject, text_of)
            tokens = self._gradient_checkpointing_func(block, *inputs) if checkpointing else block(*inputs)

        shift, scale = (
            part.to(tokens.device)  # the last block may live on another device than the first
            for part in _chunks(self.scale_shift_table.to(temb.device) + temb.unsqueeze(-2), 2)
        )
        tokens = (self.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        p_t, p_h, p_w = self.config.patch_size
        sample = rearrange(
            self.proj_out(tokens),
            "b (f h w) (pt ph pw c) -> b c (f pt) (h ph) (w pw)",
            f=frames, h=rows, w=columns, pt=p_t, ph=p_h, pw=p_w,
        )  # fmt: skip
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def _grid(self, hidden_states: Tensor) -> tuple[int, int, int]:
        """Counts the patches along frames, rows and columns."""
        for name, size, patch in zip(
            ("frames", "height", "width"), hidden_states.shape[2:], self.config.patch_size, strict=True
        ):
            if size % patch:
                raise ValueError(f"latent {name} must be a multiple of {patch}, got {size}")
            if size // patch > self.config.rope_max_seq_len:
                limit = self.config.rope_max_seq_len
                raise ValueError(f"latent {name} may be at most {limit * patch} (rope_max_seq_len), got {size}")
        frames, rows, columns = (
            size // patch for size, patch in zip(hidden_states.shape[2:], self.config.patch_size, strict=True)
        )
        return frames, rows, columns

    def _check(
        self,
        frames: int,
        rows: int,
        columns: int,
        image: Tensor | None,
        pose_tokens: Tensor | None,
        motion_tokens: Tensor | None,
    ) -> None:
        """Raises ValueError if a condition does not fit the latents or the model."""
        dim = self.config.num_attention_heads * self.config.attention_head_dim
        if image is not None and self.config.image_dim is None:
            raise ValueError("this transformer has no image attention (image_dim is None); leave the image tokens out")
        if pose_tokens is not None and pose_tokens.shape[1:] != (frames * rows * columns, dim):
            raise ValueError(
                f"pose_tokens must be (batch, {frames * rows * columns}, {dim}) for {frames} x {rows} x {columns} "
                f"patches, got {tuple(pose_tokens.shape)}"
            )
        if motion_tokens is not None and motion_tokens.shape[1:] != (frames, dim):
            raise ValueError(
                f"motion_tokens must be (batch, {frames}, {dim}), one a latent frame, got {tuple(motion_tokens.shape)}"
            )
