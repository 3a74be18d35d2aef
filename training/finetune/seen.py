"""Features of the pictures of a run: computed in batches, once, and kept beside what else is made of them."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from training.finetune.cache import Cache
from training.finetune.data import Sample, load_pixels
from training.metrics.features import FeatureSpace
from training.metrics.features.space import BATCH


def middle_picture(sample: Sample) -> Float[Tensor, "1 3 height width"]:
    """A picture, or the middle frame of a clip, in 0..1."""
    pixels = load_pixels(sample)
    return pixels[len(pixels) // 2, None] / 2 + 0.5


def sample_features(samples: Sequence[Sample], space: FeatureSpace, cache: Cache) -> Float[Tensor, "n dim"]:
    """Features of every sample as the model saw it, of a clip its middle frame.

    They are kept by what they are made of: the content of the file, its cut, the space, its version and device. So
    another run, or another process at the same time, that shares the cache finds them there.

    Raises:
        ValueError: a file was changed since.
        CacheError: the cache cannot be written.
    """
    how = f"features {space.name} {space.version} {space.device.type}"
    keys = [f"{how} {sample.piece} {sample.size[0]}x{sample.size[1]}" for sample in samples]
    found = {key: hit["features"] for key in dict.fromkeys(keys) if (hit := cache.find(key)) is not None}
    missing: dict[tuple[int, int], dict[str, Sample]] = defaultdict(dict)
    for key, sample in zip(keys, samples, strict=True):
        if key not in found:
            missing[sample.size][key] = sample
    for alike in missing.values():
        names = list(alike)
        for first in range(0, len(names), BATCH):
            some = names[first : first + BATCH]
            made = dict(zip(some, space(torch.cat([middle_picture(alike[name]) for name in some])), strict=True))
            for name in some:
                found[name] = cache.get(name, partial(dict, features=made[name]))["features"]
    return torch.stack([found[key] for key in keys])
