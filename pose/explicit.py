"""The explicit pose indicator: convolutions that turn drawn skeletons into tokens and reference features."""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def _widths(channels: int | Sequence[int], num_layers: int) -> list[int]:
    """Spells out one width a layer."""
    widths = [channels] * num_layers if isinstance(channels, int) else list(channels)
    if len(widths) != num_layers:
        raise ValueError(f"give one number of channels a stride: got {len(widths)} channels and {num_layers} strides")
    return widths


class ExplicitPoseIndicator(ModelMixin, ConfigMixin):
    """Encodes the skeleton pictures of a clip, and that of the reference, in pixel space (Animate-X++, EPI).

    The clip goes through 3x3x3 convolutions and a patch embedding to one feature a token of the transformer, which is
    added to it. The reference pose goes through 3x3 convolutions to a map that is added to all channels of the
    reference latents, mask included. Both take RGB in [0, 1], not [-1, 1]. Defaults are the released sizes.

    A black picture still gives features (the biases): to leave the pose out, leave its tokens out.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        hidden_channels: int | Sequence[int] = 16,
        strides: Sequence[Sequence[int]] = ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
        patch_size: Sequence[int] = (1, 2, 2),
        dim: int = 5120,
        reference_hidden_channels: int | Sequence[int] = 16,
        reference_strides: Sequence[int] = (1, 1, 1, 2, 2, 2),
        reference_channels: int = 20,
        zero_init_pose: bool = False,
    ) -> None:
        """Builds both encoders.

        Args:
            hidden_channels: Width of each 3x3x3 convolution, or one for all.
            strides: (time, height, width) of each 3x3x3 convolution.
            patch_size: Kernel and stride of the last convolution; the patch of the transformer.
            dim: Width of the transformer.
            reference_channels: Channels of the mask and reference latents together.
            zero_init_pose: Starts the last convolution of both encoders at zero, so that a new indicator leaves the
                base model as it is (ours; the released encoders start at random).
        """
        super().__init__()
        layers: list[nn.Module] = []
        width_in = in_channels
        for width, (t, h, w) in zip(_widths(hidden_channels, len(strides)), strides, strict=True):
            layers += [nn.Conv3d(width_in, width, 3, stride=(t, h, w), padding=1), nn.SiLU()]
            width_in = width
        p_t, p_h, p_w = patch_size
        to_tokens = nn.Conv3d(width_in, dim, (p_t, p_h, p_w), stride=(p_t, p_h, p_w))
        self.pose_encoder = nn.Sequential(*layers, to_tokens)

        layers, width_in = [], in_channels
        *steps, last_step = reference_strides
        for width, step in zip(_widths(reference_hidden_channels, len(steps)), steps, strict=True):
            layers += [nn.Conv2d(width_in, width, 3, stride=step, padding=1), nn.SiLU()]
            width_in = width
        to_reference = nn.Conv2d(width_in, reference_channels, 3, stride=last_step, padding=1)
        self.reference_encoder = nn.Sequential(*layers, to_reference)
        if zero_init_pose:
            for parameter in (*to_tokens.parameters(), *to_reference.parameters()):
                nn.init.zeros_(parameter)
        self._frames_per_latent = 1
        for stride in (*strides, patch_size):
            self._frames_per_latent *= stride[0]

    @apply_forward_hook
    def encode_pose_map(
        self, pose: Float[Tensor, "batch 3 frames height width"]
    ) -> Float[Tensor, "batch dim latent_frames rows columns"]:
        """Encodes the skeleton pictures (RGB in [0, 1]) of a whole clip of 4k + 1 frames.

        Copies of frame 0 go in front, so that latent frame 0 sees frame 0 alone and latent frame k sees frames 4k-3 to
        4k, as in the video codec. The convolutions look both ways in time: encode the whole clip once and slice the
        result for windows, since a window by itself differs at its edges.

        Raises:
            ValueError: the number of frames is not 4k + 1 (4 = frames a latent frame).
        """
        step = self._frames_per_latent
        frames = pose.shape[2]
        if (frames - 1) % step:
            raise ValueError(f"frames must be {step}k + 1, got {frames}; try {step * (frames // step) + 1}")
        pose = torch.cat([pose[:, :, :1].expand(-1, -1, step - 1, -1, -1), pose], dim=2)
        return self.pose_encoder(pose.to(self.dtype))

    @apply_forward_hook
    def encode_pose(self, pose: Float[Tensor, "batch 3 frames height width"]) -> Float[Tensor, "batch tokens dim"]:
        """Encodes the skeleton pictures (RGB in [0, 1]) of a whole clip to the transformer's tokens."""
        return rearrange(self.encode_pose_map(pose), "b d f h w -> b (f h w) d")

    @apply_forward_hook
    def encode_reference_pose(
        self, pose: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels 1 rows columns"]:
        """Encodes the skeleton picture (RGB in [0, 1]) of the reference; add the result to every latent frame."""
        return rearrange(self.reference_encoder(pose.to(self.dtype)), "b c h w -> b c 1 h w")

    def forward(self, pose: Float[Tensor, "batch 3 frames height width"]) -> Float[Tensor, "batch tokens dim"]:
        """Encodes a clip; the same as `encode_pose`."""
        return self.encode_pose(pose)
