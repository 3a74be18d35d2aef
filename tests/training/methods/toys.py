"""Small networks with every kind of tensor that a method may meet."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class ToyAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.to_q = nn.Linear(width, width)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x):
        return self.to_out(torch.tanh(self.to_q(x)))


class BlockLayer(nn.Module):
    """Attention-like and feed-forward parts, named as diffusers names them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = ToyAttention(width)
        self.ff = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.table = nn.Parameter(torch.randn(width) * 0.1)

    def forward(self, x):
        x = x + self.attn(self.norm(x))
        return x + self.ff(x) + self.table


class LinearNet(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.blocks = nn.ModuleList([BlockLayer(width) for _ in range(2)])
        self.head = nn.Linear(width, 4)
        self.checkpointing = False

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)
        return self.head(x)

    def data(self, seed, count=4):
        g = torch.Generator().manual_seed(seed)
        return torch.randint(10, (count, 7), generator=g), torch.randn(count, 7, 4, generator=g)


class ConvNet(nn.Module):
    """Convolutions of one kind: strided, grouped, dilated, pointwise."""

    def __init__(self, dims):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.dims = dims
        self.stem = conv(3, 12, 3, padding=1)
        self.norm = nn.GroupNorm(3, 12)
        self.down = conv(12, 16, 3, stride=2, padding=1)
        self.grouped = conv(16, 16, 3, padding=2, dilation=2, groups=4, bias=False)
        self.head = conv(16, 2, 1)
        self.checkpointing = False

    def _middle(self, x):
        return self.grouped(F.silu(self.down(self.norm(x))))

    def forward(self, x):
        x = self.stem(x)
        x = checkpoint(self._middle, x, use_reentrant=False) if self.checkpointing else self._middle(x)
        return self.head(F.silu(x))

    def data(self, seed, count=4):
        g = torch.Generator().manual_seed(seed)
        size, half = (6,) * self.dims, (3,) * self.dims
        return torch.randn(count, 3, *size, generator=g), torch.randn(count, 2, *half, generator=g)


def make(kind):
    torch.manual_seed(0)
    return LinearNet() if kind == "linear" else ConvNet(int(kind[-1]))


KINDS = ("linear", "conv2", "conv3")
