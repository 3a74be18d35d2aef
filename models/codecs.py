"""Between pixels and latents: encoding, decoding piece by piece, and the mini codec."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from diffusers.utils.accelerate_utils import apply_forward_hook
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def num_latent_frames(num_frames: int, factor: int = 4) -> int:
    """Counts the latent frames of a clip: frame 0 has one of its own, then one for every `factor` frames.

    Raises:
        ValueError: `num_frames` is not factor * k + 1; the codec would lose the rest without a word.
    """
    if num_frames < 1 or (num_frames - 1) % factor:
        below = factor * (max(num_frames - 1, 0) // factor) + 1
        raise ValueError(
            f"num_frames must be {factor}k + 1 for this codec, got {num_frames}; try {below} or {below + factor}"
        )
    return (num_frames - 1) // factor + 1


def encode_latents(
    vae: AutoencoderKLWan, video: Float[Tensor, "batch 3 frames height width"]
) -> Float[Tensor, "batch channels latent_frames rows columns"]:
    """Encodes video in [-1, 1] to latents of mean 0 and deviation 1: the mode of the posterior, in float32.

    Raises:
        ValueError: the number of frames is not 4k + 1.
    """
    num_latent_frames(video.shape[2], vae.config["scale_factor_temporal"])
    latents = vae.encode(video.to(vae.dtype)).latent_dist.mode().float()
    mean, std = _statistics(vae, latents)
    return (latents - mean) / std


def decode_latents(
    vae: AutoencoderKLWan, latents: Float[Tensor, "batch channels latent_frames rows columns"]
) -> Float[Tensor, "batch 3 frames height width"]:
    """Decodes latents to video in [-1, 1], in float32."""
    video: Tensor = vae.decode(_raw(vae, latents)).sample
    return video.float()


def decode_pieces(
    vae: AutoencoderKLWan, latents: Float[Tensor, "batch channels latent_frames rows columns"]
) -> Iterator[Float[Tensor, "batch 3 _ height width"]]:
    """Decodes one latent frame after the other, so that a long clip needs no more memory than a short one.

    The codec is causal and remembers what it needs of the past: the pieces joined are what `decode_latents` gives, bit
    for bit, and there are no seams. With tiling or slicing switched on, the codec's own way is taken, in one piece.
    """
    if vae.use_tiling or (vae.use_slicing and latents.shape[0] > 1):
        yield decode_latents(vae, latents)
        return
    vae.clear_cache()
    try:
        for index in range(latents.shape[2]):
            yield _decode_next(vae, latents[:, :, index : index + 1], index)
    finally:
        vae.clear_cache()


@apply_forward_hook
def _decode_next(vae: AutoencoderKLWan, latents: Tensor, index: int) -> Tensor:
    # diffusers' `_decode` is this loop over latent frames, but it hands out nothing before the end.
    vae._conv_idx = [0]
    hidden = vae.post_quant_conv(_raw(vae, latents))
    out = vae.decoder(hidden, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=index == 0)
    if vae.config["patch_size"] is not None:
        out = unpatchify(out, patch_size=vae.config["patch_size"])
    return out.clamp(-1, 1).float()


def reference_latents(
    vae: AutoencoderKLWan, reference: Float[Tensor, "batch 3 height width"], *, num_frames: int, mode: str
) -> Float[Tensor, "batch channels latent_frames rows columns"]:
    """Encodes the reference picture in [-1, 1] to what joins the noise on channels: mask, then latents.

    "first" is Wan's and Animate-X++'s: the picture followed by grey frames. "every" is ours: the latent of the picture
    alone in all latent frames. In both the mask is 1 in latent frame 0 and 0 after.

    Raises:
        ValueError: `mode` is unknown, or `num_frames` is not 4k + 1.
    """
    factor = vae.config["scale_factor_temporal"]
    length = num_latent_frames(num_frames, factor)
    first = rearrange(reference, "b c h w -> b c 1 h w")
    if mode == "first":
        latents = encode_latents(vae, F.pad(first, (0, 0, 0, 0, 0, num_frames - 1)))
    elif mode == "every":
        latents = encode_latents(vae, first).expand(-1, -1, length, -1, -1)
    else:
        raise ValueError(f"reference_latents must be 'first' or 'every', got {mode!r}")
    mask = latents.new_zeros(latents.shape[0], factor, *latents.shape[2:])
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def mini_codec(base_dim: int = 16, decoder_base_dim: int = 24) -> AutoencoderKLWan:
    """Builds the untrained mini codec: 8x in space (2x of it by 2x2 pixel patches, as in Wan2.2), 4x in time.

    Training must set `latents_mean` and `latents_std` (`register_to_config`) to those of its own latents.
    """
    return AutoencoderKLWan(
        base_dim=base_dim,
        decoder_base_dim=decoder_base_dim,
        z_dim=16,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        # shortcuts around every stage, as in Wan2.2's codec: without them a short training on a CPU gets nowhere
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        latents_mean=[0.0] * 16,
        latents_std=[1.0] * 16,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    )


def _statistics(vae: AutoencoderKLWan, like: Tensor) -> tuple[Tensor, Tensor]:
    """Reads mean and deviation of raw latents, shaped to broadcast."""
    mean, std = (
        rearrange(torch.tensor(vae.config[name], dtype=like.dtype, device=like.device), "c -> c 1 1 1")
        for name in ("latents_mean", "latents_std")
    )
    return mean, std


def _raw(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    mean, std = _statistics(vae, latents.float())
    return (latents.float() * std + mean).to(vae.dtype)
