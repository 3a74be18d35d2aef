"""The implicit pose indicator: motion tokens distilled from CLIP features of the driving frames and their keypoints."""

from typing import Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pose.sequence import PoseSequence


def keypoint_features(sequence: PoseSequence) -> Float[Tensor, "frames coords"]:
    """Lists the joints of each frame as the indicator wants them: 18 x, then 18 y, in [0, 1] of the frame; missing -1.

    A joint outside the frame keeps its place: it may be below 0 or above 1.
    """
    size = torch.tensor(sequence.frame_size, dtype=sequence.xy.dtype, device=sequence.xy.device)
    xy = torch.where(sequence.visible[..., None], sequence.xy / size, -1.0)
    return rearrange(xy, "frames joints xy -> frames (xy joints)")


def _position_table(length: int, dim: int) -> Float[Tensor, "1 length dim"]:
    """Tabulates sines (even channels) and cosines (odd channels) of positions (arXiv 1706.03762, sec. 3.5)."""
    channel = torch.arange(dim, dtype=torch.float64)
    rate = 10000 ** (-2 * (channel // 2) / dim)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())[None].float()


class KeypointEncoder(nn.Module):
    """Turns the keypoints of a clip into one token a frame, each of which knows its neighbours in time."""

    position_table: Tensor

    def __init__(
        self,
        *,
        keypoint_dim: int,
        lift_dim: int,
        dim: int,
        out_dim: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
        max_frames: int,
        dropout: float,
    ) -> None:
        super().__init__()
        # No activation between the two, as released: one could merge them, and no checkpoint would fit any more.
        self.lift = nn.Sequential(nn.Linear(keypoint_dim, lift_dim), nn.Linear(lift_dim, dim))
        self.register_buffer("position_table", _position_table(max_frames, dim))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, num_heads, ffn_dim, dropout, batch_first=True) for _ in range(num_layers)
        )
        last = nn.Linear(dim, out_dim)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), last)
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, keypoints: Float[Tensor, "batch frames coords"]) -> Float[Tensor, "batch frames dim"]:
        """Encodes the keypoints of whole clips.

        Raises:
            ValueError: there are more frames than positions.
        """
        frames, limit = keypoints.shape[1], self.position_table.shape[1]
        if frames > limit:
            raise ValueError(f"the implicit indicator takes at most {limit} frames (max_frames), got {frames}")
        states = self.lift(keypoints)
        states = states + self.position_table[:, :frames].type_as(states)
        for layer in self.layers:
            states = layer(states)
        return self.head(states)


class ResamplerLayer(nn.Module):
    """Lets the query of a frame attend to the frame's image token and to itself, then a feed-forward."""

    def __init__(self, *, dim: int, num_heads: int, head_dim: int, ffn_mult: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_dim
        self.norm_image = nn.LayerNorm(dim)
        self.norm_query = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.ffn = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, ffn_mult * dim, bias=False),
            nn.GELU(),
            nn.Linear(ffn_mult * dim, dim, bias=False),
        )

    def forward(self, image: Float[Tensor, "n tokens dim"], query: Float[Tensor, "n queries dim"]) -> Tensor:
        """Maps `query` to the same shape."""
        image, normed = self.norm_image(image), self.norm_query(query)
        key, value = self.to_kv(torch.cat([image, normed], dim=1)).chunk(2, dim=-1)
        q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=self.num_heads) for x in (self.to_q(normed), key, value))
        attended = rearrange(F.scaled_dot_product_attention(q, k, v), "n h t d -> n t (h d)")
        query = query + self.to_out(attended)
        return query + self.ffn(query)


class ImplicitPoseIndicator(ModelMixin, ConfigMixin):
    """Asks the CLIP features of the driving frames for motion, with the keypoints as the question (Animate-X, IPI).

    Per frame: a learned query plus the keypoint token attends to [CLIP feature, query] in a small resampler
    (arXiv 2410.10306, sec. 3.2). Frames are then mapped to latent frames and projected to the transformer's width by a
    zero-initialised layer, so that a new indicator adds nothing, and the keypoint head, itself zero-initialised,
    learns only after that layer has moved. Defaults are the sizes of released Animate-X++.
    """

    @register_to_config
    def __init__(
        self,
        clip_dim: int = 1024,
        keypoint_dim: int = 36,
        keypoint_lift_dim: int = 512,
        dim: int = 1024,
        out_dim: int = 5120,
        keypoint_layers: int = 3,
        keypoint_heads: int = 8,
        keypoint_ffn_dim: int = 1024,
        max_frames: int = 330,
        dropout: float = 0.1,
        resampler_layers: int = 8,
        resampler_heads: int = 16,
        resampler_head_dim: int = 64,
        resampler_ffn_mult: int = 4,
        time_map: Literal["conv", "mean"] = "conv",
        num_frames: int = 81,
        num_latent_frames: int = 21,
    ) -> None:
        """Builds the indicator.

        Args:
            clip_dim: Width of the pooled CLIP features.
            max_frames: Length of the table of positions.
            time_map: "conv" mixes exactly `num_frames` frames to `num_latent_frames` by a learned convolution, as
                released; "mean" takes frame 0 alone and then means of four, for any 4k + 1 frames (ours).
        """
        super().__init__()
        self.keypoint_encoder = KeypointEncoder(
            keypoint_dim=keypoint_dim,
            lift_dim=keypoint_lift_dim,
            dim=dim,
            out_dim=dim,
            num_layers=keypoint_layers,
            num_heads=keypoint_heads,
            ffn_dim=keypoint_ffn_dim,
            max_frames=max_frames,
            dropout=dropout,
        )
        self.query = nn.Parameter(torch.randn(1, 1, dim) / dim**0.5)
        self.image_in = nn.Linear(clip_dim, dim)
        self.layers = nn.ModuleList(
            ResamplerLayer(dim=dim, num_heads=resampler_heads, head_dim=resampler_head_dim, ffn_mult=resampler_ffn_mult)
            for _ in range(resampler_layers)
        )
        self.out = nn.Linear(dim, dim)
        self.norm_out = nn.LayerNorm(dim)
        # Frames are the channels of this convolution; its kernel slides over the features (sic).
        self.frame_map = nn.Conv1d(num_frames, num_latent_frames, 3, padding=1) if time_map == "conv" else None
        self.to_motion = nn.Linear(dim, out_dim)
        nn.init.zeros_(self.to_motion.weight)
        nn.init.zeros_(self.to_motion.bias)

    def encode_keypoints(self, keypoints: Float[Tensor, "batch frames coords"]) -> Float[Tensor, "batch frames dim"]:
        """Encodes keypoints (see `keypoint_features`) to what is added to the learned query."""
        return self.keypoint_encoder(keypoints.to(self.dtype))

    def forward(
        self,
        clip_features: Float[Tensor, "batch frames clip_dim"],
        keypoints: Float[Tensor, "batch frames coords"],
    ) -> Float[Tensor, "batch latent_frames dim"]:
        """Gives one motion token a latent frame from pooled CLIP features and keypoints of the driving frames.

        Raises:
            ValueError: the number of frames is not one that the time map takes.
        """
        batch, frames = clip_features.shape[:2]
        self._check_frames(frames)
        query = self.query + rearrange(self.encode_keypoints(keypoints), "b f d -> (b f) 1 d")
        image = self.image_in(rearrange(clip_features.to(self.dtype), "b f d -> (b f) 1 d"))
        for layer in self.layers:
            query = layer(image, query)
        tokens = rearrange(self.norm_out(self.out(query)), "(b f) 1 d -> b f d", b=batch)
        return self.to_motion(self._to_latent_frames(tokens))

    def _check_frames(self, frames: int) -> None:
        if self.config.time_map == "conv" and frames != self.config.num_frames:
            raise ValueError(
                f"this implicit indicator takes exactly {self.config.num_frames} frames, got {frames}; resample or "
                "window the driving clip, or leave the implicit indicator out"
            )
        if self.config.time_map == "mean" and (frames - 1) % 4:
            raise ValueError(f"frames must be 4k + 1, got {frames}; try {4 * (frames // 4) + 1}")

    def _to_latent_frames(self, tokens: Float[Tensor, "batch frames dim"]) -> Float[Tensor, "batch latent_frames dim"]:
        """Goes from frames to latent frames: latent 0 is frame 0, latent k is frames 4k-3 to 4k."""
        if self.frame_map is not None:
            return self.frame_map(tokens)
        if tokens.shape[1] == 1:
            return tokens
        means = rearrange(tokens[:, 1:], "b (k four) d -> b k four d", four=4).mean(dim=2)
        return torch.cat([tokens[:, :1], means], dim=1)
