"""How well a fine-tuned model makes what it was shown, and what that did to the rest of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from pose.media import to_uint8
from training.finetune.data import Sample, load_pixels
from training.finetune.families import Family
from training.finetune.opened import open_run
from training.metrics.features import FeatureSpace
from training.metrics.quality import kernel_distance

ENOUGH: Final = 50
"""Held-out pictures that samples can be compared to alone; with fewer, all real pictures stand for them."""
FIRST_SEED: Final = 1000
"""Of the samples that are scored; those that a run makes on the way begin at 0."""


MEANINGS: Final = {
    "kd": f"kernel distance of the samples to the real pictures, held-out ones if there are {ENOUGH}; less is better",
    "kd-real": "kernel distance of the trained pictures to the held-out ones: what no model gets below",
    "identity": "mean cosine of a sample to the real pictures of its caption",
    "retrieval": "share of the samples whose nearest real picture has their caption",
    "drift": "1 - cosine of what the model makes of unrelated prompts to what it made of them before; less is better",
    "nearest": "mean cosine of a sample to the nearest trained picture",
    "nearest-held-out": "the same of held-out pictures: what it is without any copying",
}
"""The scores by name."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number, with all that its value depends on."""

    name: str
    """One of `MEANINGS`."""
    features: str
    """The space that it was measured in."""
    samples: int
    """How many pictures were generated for it."""
    value: float


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of a run, and pictures to look at."""

    scores: tuple[Score, ...]
    real: tuple[tuple[str, UInt8[Tensor, "height width 3"]], ...]
    """Real pictures with their captions."""
    samples: tuple[tuple[str, UInt8[Tensor, "height width 3"]], ...]
    """What the model makes of the captions."""
    unrelated: tuple[tuple[str, UInt8[Tensor, "height width 3"], UInt8[Tensor, "height width 3"]], ...]
    """What it made of other prompts before, and what it makes now."""


def score_run(
    run: Path, features: FeatureSpace, *, samples: int = 32, drift_prompts: Sequence[str] = (),
    device: torch.device | str = "cpu", on_sample: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:  # fmt: skip
    """Scores a finished fine-tuning run by pictures that it makes of its own captions and of unrelated prompts.

    Args:
        samples: pictures of the run's captions, shared among them, and a fourth as many of unrelated prompts.
        drift_prompts: the unrelated prompts; by default the family's.
        on_sample: told after every generated picture (how many, of how many).

    Raises:
        ValueError: the folder has no finished fine-tuning run, or its model or pictures are not there any more.
    """
    opened = open_run(run, device)
    family, trained, held_out = opened.family, opened.trained, opened.held_out
    real = held_out if len(held_out) >= ENOUGH else [*trained, *held_out]
    captions = list(dict.fromkeys(p.caption for p in real))
    asked = [captions[k % len(captions)] for k in range(samples)]
    prompts = tuple(drift_prompts) or family.unrelated
    others = [prompts[k % len(prompts)] for k in range(max(2, samples // 4))]
    size, total = real[0].size, samples + 2 * len(others)
    made = _make(family, [opened.told(caption) for caption in asked], size, lambda k: on_sample(k, total))
    now = _make(family, others, size, lambda k: on_sample(samples + k, total))
    with opened.tuner.disabled():
        before = _make(family, others, size, lambda k: on_sample(samples + len(others) + k, total))
    seen = {p.piece: features(_pixels(p))[0] for p in (*trained, *held_out)}
    scores = compare_features(
        made=features(made), asked=asked,
        real=torch.stack([seen[p.piece] for p in real]), captions=[p.caption for p in real],
        trained=torch.stack([seen[p.piece] for p in trained]),
        held_out=torch.stack([seen[p.piece] for p in held_out]) if len(held_out) > 1 else None,
    )  # fmt: skip
    scores["drift"] = float((1 - (features(now) * features(before)).sum(-1)).mean())
    return Scored(
        scores=tuple(
            Score(name=name, features=features.name, samples=len(others) if name == "drift" else samples, value=value)
            for name, value in scores.items()
        ),
        real=tuple((p.caption, to_uint8(_pixels(p))[0]) for p in real[:16]),
        samples=tuple(zip(asked, to_uint8(made), strict=True)),
        unrelated=tuple(zip(others, to_uint8(before), to_uint8(now), strict=True)),
    )


def compare_features(
    *, made: Float[Tensor, "n dim"], asked: Sequence[str], real: Float[Tensor, "m dim"], captions: Sequence[str],
    trained: Float[Tensor, "k dim"], held_out: Float[Tensor, "h dim"] | None,
) -> dict[str, float]:  # fmt: skip
    """Scores of generated pictures by their features of unit length, by the names of `MEANINGS`.

    Args:
        asked: the captions that the generated pictures were made of.
        captions: those of the real ones.
        trained, held_out: the real ones by whether they were trained on.
    """
    alike = made @ real.T
    same = torch.tensor([[a == c for c in captions] for a in asked])
    scores = {
        "kd": kernel_distance(made, real),
        "identity": float(((alike * same).sum(1) / same.sum(1)).mean()),
        "nearest": float((made @ trained.T).amax(1).mean()),
    }
    if len(set(captions)) > 1:
        nearest = alike.argmax(1).tolist()
        scores["retrieval"] = sum(captions[k] == a for k, a in zip(nearest, asked, strict=True)) / len(asked)
    if held_out is not None and len(trained) > 1:
        scores["kd-real"] = kernel_distance(trained, held_out)
        scores["nearest-held-out"] = float((held_out @ trained.T).amax(1).mean())
    return scores


def _make(
    family: Family, prompts: Sequence[str], size: tuple[int, int], told: Callable[[int], None]
) -> Float[Tensor, "n 3 height width"]:
    """A picture of each prompt, of a clip its middle frame, in 0..1."""
    pictures = []
    for k, prompt in enumerate(prompts):
        frames = family.sample(prompt, size, seed=FIRST_SEED + k)
        pictures.append(frames[len(frames) // 2].float() / 255)
        told(k + 1)
    return rearrange(torch.stack(pictures), "n h w c -> n c h w")


def _pixels(sample: Sample) -> Float[Tensor, "1 3 height width"]:
    """A picture, or the middle frame of a clip."""
    pixels = load_pixels(sample)
    return pixels[len(pixels) // 2, None] / 2 + 0.5
