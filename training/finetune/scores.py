"""How well a fine-tuned model makes what it was shown, and what that did to the rest of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from pose.media import to_uint8
from training.finetune.families import Family
from training.finetune.frugal import trained_in_half
from training.finetune.learner import encoders_hash
from training.finetune.measures import ENOUGH, Refused, Score, Shown, measure
from training.finetune.opened import OpenedRun, open_run
from training.finetune.seen import middle_picture, sample_features
from training.methods.adapter import weights_hash
from training.metrics.features import FeatureSpace

FIRST_SEED: Final = 1000
"""Of the samples that are scored; those that a run makes on the way begin at 0."""


Pictures = UInt8[Tensor, "n height width 3"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of a run, and pictures to look at."""

    scores: tuple[Score, ...]
    """Of all spaces, in their order."""
    refused: tuple[Refused, ...]
    """Scores for which there are too few pictures."""
    real: tuple[tuple[str, UInt8[Tensor, "height width 3"]], ...]
    """Real pictures with their captions."""
    samples: tuple[tuple[str, UInt8[Tensor, "height width 3"]], ...]
    """What the model makes of the captions."""
    unrelated: tuple[tuple[str, UInt8[Tensor, "height width 3"], UInt8[Tensor, "height width 3"]], ...]
    """What it made of other prompts before, and what it makes now."""


def score_run(
    run: Path, features: Sequence[FeatureSpace], *, samples: int = 32, drift_prompts: Sequence[str] = (),
    steps: int | None = None, device: torch.device | str = "cpu",
    on_sample: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:  # fmt: skip
    """Scores a finished fine-tuning run by pictures that it makes of its own captions and of unrelated prompts.

    Args:
        samples: pictures of the run's captions, shared among them, and a fourth as many of unrelated prompts.
        drift_prompts: the unrelated prompts; by default the family's.
        steps: denoising steps of every picture, where the model has a choice; by default its own.
        on_sample: told after some generated pictures (how many, of how many).

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
    with opened.measuring():
        made = _make(family, [opened.told(caption) for caption in asked], size, steps, lambda k: on_sample(k, total))
        now = _make(family, others, size, steps, lambda k: on_sample(samples + k, total))
    before = _made_before(opened, others, size, steps, lambda k: on_sample(samples + len(others) + k, total))
    scores: list[Score] = []
    refused: list[Refused] = []
    for space in features:
        vectors = sample_features([*trained, *held_out], space, opened.cache).split([len(trained), len(held_out)])
        seen, unseen = (
            Shown(vectors=part, captions=tuple(p.caption for p in some))
            for part, some in zip(vectors, (trained, held_out), strict=True)
        )
        shown = Shown(vectors=space(_floats(made)), captions=tuple(asked))
        told, not_told = measure(space, made=shown, trained=seen, held_out=unseen)
        drift = float((1 - (space(_floats(now)) * space(_floats(before))).sum(-1)).mean())
        scores += [*told, Score(name="drift", features=space.name, samples=len(others), value=drift)]
        refused += not_told
    return Scored(
        scores=tuple(scores), refused=tuple(refused),
        real=tuple((p.caption, to_uint8(middle_picture(p))[0]) for p in real[:16]),
        samples=tuple(zip(asked, made, strict=True)),
        unrelated=tuple(zip(others, before, now, strict=True)),
    )  # fmt: skip


def _made_before(
    opened: OpenedRun, prompts: Sequence[str], size: tuple[int, int], steps: int | None, told: Callable[[int], None]
) -> Pictures:
    """What the model made before the run: the same for all runs of a comparison, so it is kept in their cache."""
    family, config = opened.family, opened.config
    kind = {
        "weights": [opened.base, encoders_hash(family), *map(weights_hash, family.idle)],
        "scheduler": {name: str(value) for name, value in family.pipeline.scheduler.config.items()},
        "precision": config.mixed_precision if trained_in_half(config) else "fp32", "dtype": config.weights_dtype,
        "device": next(family.network.parameters()).device.type,
        "size": size, "steps": steps, "seed": FIRST_SEED, "prompts": prompts,
    }  # fmt: skip
    key = f"made before {json.dumps(kind)}"

    def make() -> dict[str, Tensor]:
        with opened.adapter.disabled(), opened.measuring():
            return {"made": _make(opened.family, prompts, size, steps, told)}

    kept = opened.cache.find(key)
    if kept is None:
        kept = opened.cache.get(key, make)
    else:
        told(len(prompts))
    return kept["made"]


def _make(
    family: Family, prompts: Sequence[str], size: tuple[int, int], steps: int | None, told: Callable[[int], None]
) -> Pictures:
    """A picture of each prompt, of a clip its middle frame."""
    seeds = range(FIRST_SEED, FIRST_SEED + len(prompts))
    return family.sample_many(prompts, size, seeds, steps=steps, on_sample=told)


def _floats(pictures: Pictures) -> Float[Tensor, "n 3 height width"]:
    """In 0..1."""
    return rearrange(pictures.float() / 255, "n h w c -> n c h w")
