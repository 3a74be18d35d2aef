"""The mini pose detector: a small fully convolutional network from pixels to one heatmap a joint."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pose.skeleton import NUM_JOINTS


class _Residual(nn.Module):
    """Depthwise-free residual block: two 3x3 convolutions, group-normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, channels), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))


class KeypointNet(nn.Module):
    """An hourglass: 128 px in, heatmaps of 32 cells out, seeing the whole body at 8 cells in between."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(nn.Conv2d(3, w // 2, 3, 2, 1), nn.SiLU(), nn.Conv2d(w // 2, w, 3, 2, 1))
        self.high = nn.Sequential(_Residual(w), _Residual(w))
        self.down1 = nn.Conv2d(w, 2 * w, 3, 2, 1)
        self.middle = _Residual(2 * w)
        self.down2 = nn.Conv2d(2 * w, 3 * w, 3, 2, 1)
        self.low = nn.Sequential(_Residual(3 * w), _Residual(3 * w))
        self.up2 = nn.Conv2d(3 * w, 2 * w, 1)
        self.merge2 = _Residual(2 * w)
        self.up1 = nn.Conv2d(2 * w, w, 1)
        self.merge1 = _Residual(w)
        self.head = nn.Conv2d(w, NUM_JOINTS, 1)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -4.0)  # almost every cell is empty

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch joints rows columns"]:
        """RGB in [0, 1] to logits; their sigmoid is how likely a joint is at a cell of 4 px."""
        high = self.high(self.stem(pixels * 2 - 1))
        middle = self.middle(self.down1(high))
        low = self.low(self.down2(middle))
        middle = self.merge2(middle + F.interpolate(self.up2(low), scale_factor=2.0, mode="nearest"))
        high = self.merge1(high + F.interpolate(self.up1(middle), scale_factor=2.0, mode="nearest"))
        logits: Tensor = self.head(high)
        return logits


class KeypointHeatmaps(nn.Module):
    """What is exported to ONNX: the network and its sigmoid."""

    def __init__(self, net: KeypointNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch joints rows columns"]:
        """RGB in [0, 1] to heatmaps in [0, 1]."""
        return torch.sigmoid(self.net(pixels))
