"""The audit of a finished run: makes samples, measures, and says whether the model copies."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from pose.media import to_uint8
from training.finetune.audit.canaries import Canary, canary_figures, find_canaries, score
from training.finetune.audit.figure import Figure
from training.finetune.audit.near import (
    Extracted,
    Sets,
    Tiles,
    feature_figures,
    nearest_of,
    pixel_figures,
    similarity_figures,
)
from training.finetune.audit.network import (
    attack_figures,
    loss_figures,
    losses_of,
    magnitude_figure,
    magnitude_of,
    pia_of,
)
from training.finetune.audit.pairs import look_for_twins, refuse_leakage
from training.finetune.audit.report import Audit, Pair, Risk
from training.finetune.audit.samples import (
    Asked,
    Pictures,
    ask_captions,
    ask_each,
    make_pictures,
    real_picture,
    softened,
    spread,
)
from training.finetune.data import Sample
from training.finetune.opened import OpenedRun, open_run
from training.metrics.features import FeatureSpace
from training.metrics.memorization import TooFewError, tiled_distance

LEAST: Final = 20
"""Pictures, trained and held-out together, without which nothing can be said."""
MOST: Final = 256
"""Pictures of either side whose losses are measured."""
MOST_HELD_OUT: Final = 1024
"""Held-out pictures that samples are compared with."""
PER_CANARY: Final = 8
"""Samples of a canary's caption."""
PAIRS: Final = 12
"""Pairs that are shown."""
_AT_ONCE: Final = 32

OnProgress = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and of how much."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How an audit is made."""

    samples: int = 256
    seeds_per_caption: int = 4
    """Samples of a caption in a row, for extraction."""
    steps: int | None = None
    """Denoising steps; by default those of the family's samples."""
    seed: int = 0
    held_out: Path | None = None
    """A folder of pictures like the trained ones that were not trained, beside those that the run kept out."""
    allow_leakage: bool = False
    """Reports also where held-out pictures were trained on."""


def audit_run(
    run: Path, features: FeatureSpace, options: AuditOptions, *, sscd: FeatureSpace | None = None,
    device: torch.device | str = "cpu", on_progress: OnProgress = lambda stage, done, total: None,
) -> Audit:  # fmt: skip
    """Audits a finished fine-tuning run.

    Raises:
        ValueError: there is no finished run, or its model or pictures are not there any more.
        TooFewError: there are too few pictures for any figure.
        LeakageError: held-out pictures were trained on, and that is not allowed.
    """
    opened = open_run(run, device, held_out=options.held_out)
    trained, held_out = opened.trained, spread(opened.held_out, MOST_HELD_OUT)
    if len(trained) + len(held_out) < LEAST:
        raise TooFewError(
            f"{run} was made of {len(trained)} trained and {len(held_out)} held-out pictures, and an audit needs "
            f"{LEAST} in all (a copy rate 20 held-out ones, membership 100); add pictures, set validation_share, or "
            f"name a folder of others like them with --held-out"
        )
    twins = look_for_twins(opened)
    if not options.allow_leakage:
        refuse_leakage(twins)
    canaries = find_canaries(opened)
    asked = ask_captions(trained, options.samples, options.seeds_per_caption, options.seed)
    main = len(asked)
    # canaries are rare among the captions that are asked evenly, so each is asked for itself
    asked += ask_each([canary.sample.caption for canary in canaries for _ in range(PER_CANARY)], asked[-1].seed + 1)
    size = Counter(sample.size for sample in trained).most_common(1)[0][0]

    def sampled(done: int) -> None:
        on_progress("generating", done, len(asked))

    made = make_pictures(opened, asked, size, steps=options.steps, on_sample=sampled)
    spaces = [features, *([sscd] if sscd is not None else [])]
    looked = _look(made, main, trained, held_out, twins.once(trained), spaces, size, on_progress)
    every, *more = looked.sets
    sets, by_sscd = (replace(some, made=some.made[:main]) for some in (every, more[0] if more else every))
    groups = made[:main].split(options.seeds_per_caption)
    by_pixels, extracted = pixel_figures(looked.tiles, groups, _by_caption(held_out, looked.held_pixels, options))
    by_loss, magnitudes, canaries = _ask_network(opened, canaries, asked, on_progress)
    canaries = _with_nearest(canaries, every.made[main:], features, size)
    to_trained, which = nearest_of(every.made, every.trained)
    unseen, soft = (nearest_of(side, every.trained)[0] for side in (every.held_out, every.blurred))
    return Audit(
        run=str(run), trained=len(trained), held_out=len(held_out), samples=main, steps=options.steps,
        seed=options.seed, space=features.name,
        figures=(
            *feature_figures(sets), *by_pixels, *_sscd_figures(by_sscd if more else None, main), *by_loss,
            *canary_figures(canaries),
        ),
        risks=_risks(opened, asked, to_trained, unseen, extracted, magnitudes, options),
        canaries=tuple(sorted(canaries, key=lambda canary: canary.repeats)), twins=twins,
        pairs=_pairs(asked, made, to_trained, which, trained, size),
        distances={
            "samples": tuple(to_trained[:main].tolist()), "held-out pictures": tuple(unseen.tolist()),
            "held-out pictures, blurred": tuple(soft.tolist()),
        },
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Looked:
    """Features and distances of all pictures."""

    sets: tuple[Sets, ...]
    """In every space; samples of canaries come last among the samples."""
    held_pixels: Pictures
    tiles: Tiles


def _look(
    made: Pictures, main: int, trained: Sequence[Sample], held_out: Sequence[Sample], once: tuple[int, ...],
    spaces: Sequence[FeatureSpace], size: tuple[int, int], on_progress: OnProgress,
) -> _Looked:  # fmt: skip
    """Looks at every picture once; of trained ones a few are in memory at a time."""
    width, height = size
    held = torch.stack([real_picture(s, size) for s in held_out]) if held_out else torch.zeros(0, 3, height, width)
    soft = softened(held, made[:main]) if held_out else held
    known: list[list[Tensor]] = [[] for _ in spaces]
    made_tiles, held_tiles = [], []
    for first in range(0, len(trained), _AT_ONCE):
        part = torch.stack([real_picture(sample, size) for sample in trained[first : first + _AT_ONCE]])
        for space, found in zip(spaces, known, strict=True):
            found.append(space(part))
        made_tiles.append(tiled_distance(made[:main], part))
        held_tiles.append(tiled_distance(held, part))
        on_progress("comparing", min(first + _AT_ONCE, len(trained)), len(trained))

    def sets(space: FeatureSpace, found: Tensor) -> Sets:
        of_made, of_held, of_soft = (
            space(side) if len(side) else found.new_zeros(0, found.shape[1]) for side in (made, held, soft)
        )
        return Sets(
            space=space.name, made=of_made, trained=found, once=once, held_out=of_held, blurred=of_soft
        )  # fmt: skip

    return _Looked(
        sets=tuple(sets(space, torch.cat(found)) for space, found in zip(spaces, known, strict=True)),
        held_pixels=held, tiles=Tiles(made=torch.cat(made_tiles, 1), held_out=torch.cat(held_tiles, 1)),
    )  # fmt: skip


def _by_caption(held_out: Sequence[Sample], pixels: Pictures, options: AuditOptions) -> list[Tensor]:
    """Held-out pictures in groups of one caption, in the order in which their tiled distances stand."""
    size, groups = options.seeds_per_caption, []
    first = 0
    while first < len(held_out):
        last = first + 1
        while last < min(first + size, len(held_out)) and held_out[last].caption == held_out[first].caption:
            last += 1
        groups.append(pixels[first:last])
        first = last
    return groups


def _sscd_figures(sets: Sets | None, count: int) -> list[Figure]:
    if sets is not None:
        return similarity_figures(sets)
    why = "the weights of SSCD were not given; see --sscd"
    names = ("sscd", "sscd-above-half")
    return [Figure(name=name, space="sscd", count=count, verdict="not measured", why=why) for name in names]


def _ask_network(
    opened: OpenedRun, canaries: list[Canary], asked: Sequence[Asked], on_progress: OnProgress
) -> tuple[list[Figure], dict[str, float], list[Canary]]:
    """Losses, PIA and magnitudes, by the model as it is and as it was."""
    trained, held_out = spread(opened.trained, MOST), spread(opened.held_out, MOST)
    planted = [canary.sample for canary in canaries]
    captions = list(dict.fromkeys(one.caption for one in asked))
    unrelated = list(opened.family.unrelated)
    sides = (trained, held_out, planted)
    total, done = 4 * sum(map(len, sides)) + len(captions) + len(unrelated), 0

    def told() -> None:
        nonlocal done
        done += 1
        on_progress("asking the network", done, total)

    now = [losses_of(opened, side, told) if side else torch.zeros(0) for side in sides]
    with opened.tuner.disabled():
        before = [losses_of(opened, side, told) if side else torch.zeros(0) for side in sides]
    figures = loss_figures(now[0], now[1], (before[0], before[1]))
    canaries = score(canaries, "loss", (before[2] - now[2]).tolist())
    try:
        now = [pia_of(opened, side, told) for side in sides]
        with opened.tuner.disabled():
            before = [pia_of(opened, side, told) for side in sides]
        figures += attack_figures("membership-pia", now[0], now[1], (before[0], before[1]))
        canaries = score(canaries, "pia", (before[2] - now[2]).tolist())
        like = {sample.caption: sample for sample in reversed(opened.trained)}
        magnitudes = {}
        for caption in captions:
            magnitudes[caption] = magnitude_of(opened, caption, like.get(caption, trained[0]))
            told()
        others = []
        for prompt in unrelated:
            others.append(magnitude_of(opened, prompt, trained[0]))
            told()
    except ValueError as error:  # the family cannot be asked at a level
        names = ("membership-pia", "membership-pia-tpr", "text-magnitude")
        figures += [Figure(name=n, space="loss", count=0, verdict="not measured", why=str(error)) for n in names]
        return figures, {}, canaries
    return [*figures, magnitude_figure(list(magnitudes.values()), others)], magnitudes, canaries


def _with_nearest(
    canaries: list[Canary], made: Float[Tensor, "n dim"], features: FeatureSpace, size: tuple[int, int]
) -> list[Canary]:
    """Compares the samples of each canary's caption with the canary itself, which may be held out."""
    if not canaries:
        return canaries
    pictures = features(torch.stack([real_picture(canary.sample, size) for canary in canaries]))
    distance = torch.stack(
        [(own - picture).norm(dim=1).amin() for own, picture in zip(made.split(PER_CANARY), pictures, strict=True)]
    )
    return score(canaries, "nearest", (-distance).tolist())


def _risks(
    opened: OpenedRun, asked: Sequence[Asked], to_trained: Tensor, unseen: Tensor, extracted: Extracted,
    magnitudes: dict[str, float], options: AuditOptions,
) -> tuple[Risk, ...]:  # fmt: skip
    """The captions, most at risk first."""
    captions = list(dict.fromkeys(one.caption for one in asked))
    pictures = Counter(sample.caption for sample in opened.trained)
    places: dict[str, list[int]] = {caption: [] for caption in captions}
    for k, one in enumerate(asked):
        places[one.caption].append(k)
    found = {asked[k * options.seeds_per_caption].caption for k, made in enumerate(extracted.by_cliques) if made}
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


def _pairs(
    asked: Sequence[Asked], made: Pictures, distance: Tensor, which: Tensor, trained: Sequence[Sample],
    size: tuple[int, int],
) -> tuple[Pair, ...]:  # fmt: skip
    """The nearest samples with what they are nearest to; of one trained picture the nearest one only."""
    pairs: list[Pair] = []
    shown: set[int] = set()
    for k in distance.argsort().tolist():
        if int(which[k]) in shown or len(pairs) == PAIRS:
            continue
        shown.add(int(which[k]))
        sample = trained[int(which[k])]
        pairs.append(
            Pair(
                caption=asked[k].caption, seed=asked[k].seed, file=str(sample.path), distance=float(distance[k]),
                made=to_uint8(made[k]).cpu(), trained=to_uint8(real_picture(sample, size)).cpu(),
            )
        )  # fmt: skip
    return tuple(pairs)
