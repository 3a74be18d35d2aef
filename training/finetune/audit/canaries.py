"""Pictures that were planted at known repeats, so that an audit shows what it can detect."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from training.finetune.audit.figure import Figure, attempt
from training.finetune.data import Sample
from training.finetune.data.plant import MANIFEST
from training.finetune.opened import OpenedRun
from training.metrics.memorization import TooFewError, correlation_interval, rank_correlation

LEAST: Final = 4
"""Canaries without which ranks say nothing."""
SPACES: Final = {"nearest": "pixels", "loss": "loss", "pia": "loss"}
"""The scores, and what they are measured in; of each, more is more memorized."""


@dataclass(frozen=True, kw_only=True)
class Canary:
    """One planted picture, and what the audit says of it."""

    sample: Sample
    repeats: int
    """How often it came in a pass; 0 where it was held out."""
    scores: dict[str, float] = field(default_factory=dict)
    """As logarithms of how many times less a number is, since pictures differ in the numbers themselves. nearest: the
    tiled distance of the nearest sample of its caption, beside samples of other captions. loss and pia: its loss at
    fixed noise and its PIA distance, beside those before the run."""


def find_canaries(opened: OpenedRun) -> list[Canary]:
    """The planted pictures of a run, by the manifests in its data folders and the content of its files.

    Raises:
        ValueError: a manifest cannot be read.
    """
    planted: set[str] = set()
    for data in opened.config.data:
        path = data.folder / MANIFEST
        if path.is_file():
            planted |= _digests(path)
    return [
        Canary(sample=sample, repeats=opened.repeats[sample.piece])
        for sample in (*opened.trained, *opened.held_out)
        if sample.digest in planted
    ]


def _digests(path: Path) -> set[str]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["canaries"]
        return {str(row["sha256"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as a list of canaries ({error}); plant them again") from error


def score(canaries: Sequence[Canary], name: str, values: Sequence[float]) -> list[Canary]:
    """The canaries with one score more."""
    return [
        replace(canary, scores={**canary.scores, name: value}) for canary, value in zip(canaries, values, strict=True)
    ]


def canary_figures(canaries: Sequence[Canary]) -> list[Figure]:
    """How well each score ranks the canaries by their repeats; none without canaries."""
    figures = []
    for score, space in SPACES.items():
        known = [(canary.repeats, canary.scores[score]) for canary in canaries if score in canary.scores]
        if known:
            make = partial(_ranked, f"canaries-{score}", space, known)
            figures.append(attempt(f"canaries-{score}", space, len(known), make))
    return figures


def _ranked(name: str, space: str, known: Sequence[tuple[int, float]]) -> Figure:
    repeats, values = zip(*known, strict=True)
    if len(known) < LEAST or len(set(repeats)) < 2:
        raise TooFewError(
            f"canaries rank where there are {LEAST} of two repeat counts at least; there are {len(known)} of "
            f"{len(set(repeats))}: plant more with `studio data plant`"
        )
    value = rank_correlation(repeats, values)
    low, high = correlation_interval(value, len(known))
    return Figure(
        name=name,
        space=space,
        count=len(known),
        value=value,
        low=low,
        high=high,
        background=0.0,
        verdict="copying" if low > 0 else "no copying",
    )
