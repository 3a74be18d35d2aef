"""What a run's model is asked to make, and the pictures that it makes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from training.finetune.data import Sample
from training.finetune.opened import OpenedRun
from training.finetune.seen import evenly, middle_picture

Pictures = Float[Tensor, "n 3 height width"]
"""RGB in 0..1."""

FIRST_SEED: Final = 1_000_000
"""Of the samples of an audit with seed 0; those of another one begin as much later."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One sample."""

    caption: str
    """Without the trigger word."""
    seed: int


def ask_captions(trained: Sequence[Sample], count: int, group: int, seed: int) -> list[Asked]:
    """`group` seeds in a row of one caption after the other, captions as often as trained pictures have them."""
    groups = max(1, count // group)
    captions = [sample.caption for sample in evenly(trained, groups) for _ in range(group)]
    return ask_each(captions, seed * FIRST_SEED + FIRST_SEED)


def ask_each(captions: Sequence[str], first: int) -> list[Asked]:
    """A sample of each caption, of seeds that follow one another."""
    return [Asked(caption=caption, seed=first + k) for k, caption in enumerate(captions)]


def make_pictures(
    opened: OpenedRun, asked: Sequence[Asked], size: tuple[int, int], *, steps: int | None,
    on_sample: Callable[[int], None],
) -> Pictures:  # fmt: skip
    """The samples, (width, height) px."""
    prompts = [opened.told(one.caption) for one in asked]
    made = opened.family.sample_many(prompts, size, [one.seed for one in asked], steps=steps, on_sample=on_sample)
    return rearrange(made, "n h w c -> n c h w").float() / 255


def real_picture(sample: Sample, size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
    """A picture, or the middle frame of a clip, scaled to (width, height) where its bucket is another one."""
    picture = middle_picture(sample)
    if sample.size != size:
        picture = F.interpolate(picture, size=size[::-1], mode="bilinear", antialias=True)
    return picture[0]


def softened(pictures: Pictures, like: Pictures) -> Pictures:
    """The pictures, blurred until their edges are as weak as those of others; as they are where those are sharper."""
    from torchvision.transforms.functional import gaussian_blur

    wanted = _steps(like)
    best = pictures
    for sigma in (0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0):
        if _steps(best) <= wanted:
            break
        best = gaussian_blur(pictures, kernel_size=[2 * round(3 * sigma) + 1] * 2, sigma=[sigma] * 2)
    return best


def _steps(pictures: Pictures) -> float:
    return float(pictures.diff(dim=-1).abs().mean() + pictures.diff(dim=-2).abs().mean())
