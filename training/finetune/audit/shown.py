"""What a report names: the captions at risk, and samples beside what they are nearest to."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from jaxtyping import Float
from torch import Tensor

from pose.media import to_uint8
from training.finetune.audit.near import Extracted
from training.finetune.audit.report import Pair, Risk
from training.finetune.audit.samples import Asked, Pictures, real_picture
from training.finetune.data import Sample
from training.finetune.opened import OpenedRun

PAIRS: Final = 6
"""Pairs that are shown, by features and by pixels."""


def find_risks(
    opened: OpenedRun, asked: Sequence[Asked], to_trained: Tensor, unseen: Tensor, extracted: Extracted,
    magnitudes: dict[str, float], seeds: int,
) -> tuple[Risk, ...]:  # fmt: skip
    """The captions, most at risk first."""
    captions = list(dict.fromkeys(one.caption for one in asked))
    pictures = Counter(sample.caption for sample in opened.trained)
    places: dict[str, list[int]] = {caption: [] for caption in captions}
    for k, one in enumerate(asked):
        places[one.caption].append(k)
    found = {asked[k * seeds].caption for k, made in enumerate(extracted.by_cliques) if made}
    nearest = {caption: float(to_trained[places[caption]].min()) for caption in captions}
    orders = [_order(captions, lambda c: -nearest[c]), _order(captions, lambda c: float(c in found))]
    if magnitudes:
        orders.append(_order(captions, lambda c: magnitudes[c]))
    risks = [
        Risk(
            caption=caption, pictures=pictures[caption], magnitude=magnitudes.get(caption),
            nearest=float((unseen < nearest[caption]).double().mean()) if len(unseen) else None,
            extracted=caption in found, rank=sum(order[caption] for order in orders) / len(orders),
        )
        for caption in captions
    ]  # fmt: skip
    return tuple(sorted(risks, key=lambda risk: -risk.rank))


def _order(captions: Sequence[str], value: Callable[[str], float]) -> dict[str, float]:
    """Places of captions by a value, 1 the largest and 0 the least; equals share theirs."""
    values = {caption: value(caption) for caption in captions}
    return {
        caption: (sum(v < own for v in values.values()) + sum(v <= own for v in values.values()) - 1)
        / (2 * max(1, len(captions) - 1))
        for caption, own in values.items()
    }


def find_pairs(
    asked: Sequence[Asked], made: Pictures, distances: dict[str, Float[Tensor, "n trained"]],
    trained: Sequence[Sample], size: tuple[int, int],
) -> tuple[Pair, ...]:  # fmt: skip
    """The nearest samples by each distance with what they are nearest to, each trained picture once."""
    pairs: list[Pair] = []
    for place, (space, distance) in enumerate(distances.items(), 1):
        shown: set[int] = set()
        values, which = distance.min(1)
        for k in values.argsort().tolist():
            if len(pairs) == place * PAIRS or int(which[k]) in shown:
                continue
            shown.add(int(which[k]))
            sample = trained[int(which[k])]
            pairs.append(
                Pair(
                    caption=asked[k].caption, seed=asked[k].seed, file=str(sample.path), space=space,
                    distance=float(values[k]), made=to_uint8(made[k]).cpu(),
                    trained=to_uint8(real_picture(sample, size)).cpu(),
                )
            )  # fmt: skip
    return tuple(pairs)
