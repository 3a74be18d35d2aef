"""Features of the pictures of a run: computed in batches, once, and kept beside what else is made of them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from training.finetune.cache import Cache
from training.finetune.data import Sample, View, load_pixels
from training.metrics.features import FeatureSpace
from training.metrics.features.space import BATCH
from training.metrics.softness import blurred, mean_step, softening

Size = tuple[int, int]
"""(width, height). [px]"""
Picture = Float[Tensor, "1 3 height width"]
"""RGB in 0..1."""
T = TypeVar("T")
_MEASURED: Final = 32
"""Pictures whose softness stands for that of all."""


def evenly(items: Sequence[T], wanted: int) -> list[T]:
    """`wanted` of them, evenly spread over all of a list in order; some come twice where there are fewer."""
    return [items[k * len(items) // wanted] for k in range(wanted)]


def at_most(items: Sequence[T], most: int) -> list[T]:
    """All of them, or so many that are evenly spread over all."""
    return evenly(items, min(most, len(items)))


def usual_size(samples: Sequence[Sample]) -> Size:
    """The shape that most have: one canvas, on which all are compared."""
    return Counter(sample.size for sample in samples).most_common(1)[0][0]


def plain_views(samples: Sequence[Sample], *, mirrors: bool = False) -> list[View]:
    """Each as it is, and also mirrored where `mirrors` are trained on."""
    return [View(sample=s, caption=s.caption, mirrored=m) for s in samples for m in ((False, True)[: 1 + mirrors])]


def middle_picture(sample: Sample, *, mirrored: bool = False) -> Picture:
    """A picture, or the middle frame of a clip."""
    pixels = load_pixels(sample, mirrored=mirrored)
    return pixels[len(pixels) // 2, None] / 2 + 0.5


def on_canvas(picture: Picture, size: Size) -> Float[Tensor, "1 3 rows columns"]:
    """A picture stretched to a size, where it has another one."""
    width, height = size
    if picture.shape[-2:] == (height, width):
        return picture
    return F.interpolate(picture, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)


def sample_features(samples: Sequence[Sample], space: FeatureSpace, cache: Cache) -> Float[Tensor, "n dim"]:
    """Features of every sample as the model saw it, of a clip its middle frame.

    They are kept by what they are made of: the content of the file, its cut, the space, its version and device. So
    another run, or another process at the same time, that shares the cache finds them there.

    Raises:
        ValueError: a file was changed since.
        CacheError: the cache cannot be written.
    """
    keys = [f"{_how(space)} {sample.piece} {_worded(sample.size)}" for sample in samples]
    return _kept(keys, [s.size for s in samples], lambda k: middle_picture(samples[k]), space, cache)


def view_features(
    views: Sequence[View], space: FeatureSpace, cache: Cache, size: Size
) -> Float[Tensor, "n dim"]:  # fmt: skip
    """Features of views, all of them on one canvas; kept as those of samples are.

    Raises:
        ValueError: a file was changed since.
        CacheError: the cache cannot be written.
    """
    keys = [f"{_how(space)} on {_worded(size)} {view.key}" for view in views]
    return _kept(keys, [size] * len(views), lambda k: _shown(views[k], size), space, cache)


def features_as_soft(
    views: Sequence[View], like: Float[Tensor, "m 3 height width"], space: FeatureSpace, cache: Cache, size: Size
) -> Float[Tensor, "n dim"]:  # fmt: skip
    """Features of views that are made as soft as other pictures, which by their softness alone are near to all.

    Raises:
        ValueError: a file was changed since.
        CacheError: the cache cannot be written.
    """
    sharp = torch.cat([_shown(view, size) for view in at_most(views, _MEASURED)])
    sigma = softening(sharp, mean_step(like))
    if not sigma:
        return view_features(views, space, cache, size)
    parts = [views[k : k + BATCH] for k in range(0, len(views), BATCH)]
    return torch.cat([space(blurred(torch.cat([_shown(view, size) for view in part]), sigma)) for part in parts])


def _shown(view: View, size: Size) -> Picture:
    return on_canvas(middle_picture(view.sample, mirrored=view.mirrored), size)


def _how(space: FeatureSpace) -> str:
    return f"features {space.name} {space.version} {space.device.type}"


def _worded(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _kept(
    keys: Sequence[str], sizes: Sequence[Size], picture: Callable[[int], Picture], space: FeatureSpace, cache: Cache
) -> Float[Tensor, "n dim"]:  # fmt: skip
    """What the cache has by these keys, and what it lacks, made of pictures in batches of one size."""
    found = {key: hit["features"] for key in dict.fromkeys(keys) if (hit := cache.find(key)) is not None}
    missing: dict[Size, dict[str, int]] = defaultdict(dict)
    for k, key in enumerate(keys):
        if key not in found:
            missing[sizes[k]][key] = k
    for alike in missing.values():
        names = list(alike)
        for first in range(0, len(names), BATCH):
            some = names[first : first + BATCH]
            made = dict(zip(some, space(torch.cat([picture(alike[name]) for name in some])), strict=True))
            for name in some:
                found[name] = cache.get(name, partial(dict, features=made[name]))["features"]
    return torch.stack([found[key] for key in keys])
