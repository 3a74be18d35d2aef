"""The audit of a finished run: makes samples, measures, and says whether the model copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import torch

from training.finetune.audit.canaries import Canary, canary_figures, find_canaries, score
from training.finetune.audit.figure import Figure
from training.finetune.audit.looked import OnProgress, by_caption, look_at
from training.finetune.audit.near import (
    PERCENTILES,
    Sets,
    feature_figures,
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
from training.finetune.audit.pairs import look_for_twins
from training.finetune.audit.report import Audit
from training.finetune.audit.samples import (
    Asked,
    Pictures,
    ask_captions,
    ask_each,
    make_pictures,
    real_picture,
)
from training.finetune.audit.shown import find_pairs, find_risks
from training.finetune.data.leakage import refuse_leakage
from training.finetune.families import LevelError
from training.finetune.opened import OpenedRun, open_run
from training.finetune.seen import at_most, usual_size
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
CANARY_DRAWS: Final = 16
"""Noises at which the loss of a canary is measured."""
T = TypeVar("T")


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
    trained, held_out = opened.trained, at_most(opened.held_out, MOST_HELD_OUT)
    if len(trained) + len(held_out) < LEAST:
        raise TooFewError(
            f"{run} was made of {len(trained)} trained and {len(held_out)} held-out pictures, and an audit needs "
            f"{LEAST} in all (a copy rate 20 held-out ones, membership 100); add pictures, set validation_share, or "
            f"name a folder of others like them with --held-out"
        )
    twins = look_for_twins(opened)
    if not options.allow_leakage:
        refuse_leakage(twins.leaked, fix=" and train again, or report all the same with --allow-leakage")
    canaries, seeds = find_canaries(opened), options.seeds_per_caption
    asked = ask_captions(trained, options.samples, seeds, options.seed)
    main = len(asked)
    # canaries are rare among the captions that are asked evenly, so each is asked for itself
    asked += ask_each([canary.sample.caption for canary in canaries for _ in range(PER_CANARY)], asked[-1].seed + 1)
    size = usual_size(trained)

    def sampled(done: int) -> None:
        on_progress("generating", done, len(asked))

    with opened.measuring():
        made = make_pictures(opened, asked, size, steps=options.steps, on_sample=sampled)
    spaces = [features, *([sscd] if sscd is not None else [])]
    looked = look_at(made, main, trained, held_out, twins.once(trained), spaces, size, on_progress)
    every, *more = looked.sets
    sets, by_sscd = (replace(some, made=some.made[:main]) for some in (every, more[0] if more else every))
    groups = made[:main].split(seeds)
    tiles = replace(looked.tiles, made=looked.tiles.made[:main])
    by_pixels, extracted = pixel_figures(tiles, groups, by_caption(held_out, looked.held_pixels, seeds))
    with opened.measuring():
        by_loss, magnitudes, canaries = _ask_network(opened, canaries, asked, on_progress)
    canaries = _with_nearest(canaries, made, main, size)
    distance, unseen, soft = (torch.cdist(s, every.trained) for s in (every.made, every.held_out, every.blurred))
    return Audit(
        run=str(run), trained=len(trained), held_out=len(held_out), samples=main, steps=options.steps,
        seed=options.seed, space=features.name,
        figures=(
            *feature_figures(sets), *by_pixels, *_sscd_figures(by_sscd if more else None, main), *by_loss,
            *canary_figures(canaries),
        ),
        risks=find_risks(opened, asked, distance.amin(1), unseen.amin(1), extracted, magnitudes, seeds),
        canaries=tuple(sorted(canaries, key=lambda canary: canary.repeats)), twins=twins,
        pairs=find_pairs(asked, made, {features.name: distance, "pixels": looked.tiles.made}, trained, size),
        distances={
            "samples": tuple(distance[:main].amin(1).tolist()), "held-out pictures": tuple(unseen.amin(1).tolist()),
            "held-out pictures, blurred": tuple(soft.amin(1).tolist()),
        },
    )  # fmt: skip


def _sscd_figures(sets: Sets | None, count: int) -> list[Figure]:
    if sets is not None:
        return similarity_figures(sets)
    why = "the weights of SSCD were not given; see --sscd"
    names = ("sscd", *(f"sscd-{percent}" for percent in PERCENTILES), "sscd-above-half")
    return [Figure(name=name, space="sscd", count=count, verdict="not measured", why=why) for name in names]


def _ask_network(
    opened: OpenedRun, canaries: list[Canary], asked: Sequence[Asked], on_progress: OnProgress
) -> tuple[list[Figure], dict[str, float], list[Canary]]:
    """Losses, PIA and magnitudes, by the model as it is and as it was."""
    trained, held_out = at_most(opened.trained, MOST), at_most(opened.held_out, MOST)
    planted = [canary.sample for canary in canaries]
    captions = list(dict.fromkeys(one.caption for one in asked))
    unrelated = opened.family.unrelated
    total, done = 4 * len((*trained, *held_out, *planted)) + len(captions) + len(unrelated), 0

    def told() -> None:
        nonlocal done
        done += 1
        on_progress("asking the network", done, total)

    now, before = _now_and_before(opened, lambda: (losses_of(opened, trained, told), losses_of(opened, held_out, told)))
    figures = loss_figures(*now, before)
    # they are few, and of each one number is wanted
    (mine,), (old,) = _now_and_before(opened, lambda: (losses_of(opened, planted, told, draws=CANARY_DRAWS),))
    canaries = score(canaries, "loss", (old / mine).log().tolist())
    try:
        now, before = _now_and_before(opened, lambda: (pia_of(opened, trained, told), pia_of(opened, held_out, told)))
        figures += attack_figures("membership-pia", *now, before)
        (mine,), (old,) = _now_and_before(opened, lambda: (pia_of(opened, planted, told),))
        canaries = score(canaries, "pia", (old / mine).log().tolist())
        like = {sample.caption: sample for sample in reversed(opened.trained)}
        magnitudes = {}
        for caption in (*captions, *unrelated):
            magnitudes[caption] = magnitude_of(opened, caption, like.get(caption, trained[0]))
            told()
    except LevelError as error:
        names = ("membership-pia", "membership-pia-tpr", "text-magnitude")
        figures += [Figure(name=n, space="loss", count=0, verdict="not measured", why=str(error)) for n in names]
        return figures, {}, canaries
    figures.append(magnitude_figure([magnitudes[c] for c in captions], [magnitudes[c] for c in unrelated]))
    return figures, magnitudes, canaries


def _now_and_before(opened: OpenedRun, measure: Callable[[], T]) -> tuple[T, T]:
    """By the model as the run left it, and without its adapter."""
    now = measure()
    with opened.adapter.disabled():
        return now, measure()


def _with_nearest(canaries: list[Canary], made: Pictures, main: int, size: tuple[int, int]) -> list[Canary]:
    """Compares the samples of each canary's caption with the canary itself, which may be held out."""
    if not canaries:
        return canaries
    distance = tiled_distance(made, torch.stack([real_picture(canary.sample, size) for canary in canaries]))
    values = []
    for k in range(len(canaries)):
        own = torch.zeros(len(made), dtype=torch.bool)
        own[main + k * PER_CANARY : main + (k + 1) * PER_CANARY] = True
        values.append(float((distance[~own, k].median() / distance[own, k].amin().clamp(min=1e-6)).log()))
    return score(canaries, "nearest", values)
