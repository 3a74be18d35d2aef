"""The guard: looks for copies of the trained pictures while training, and says what should come of them."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from models.loading import resolve_folder
from pose.media import to_uint8
from training.disk import write_text
from training.events import Guarded, Note
from training.finetune.config import FinetuneConfig, GuardOptions
from training.finetune.data import Sample
from training.finetune.data.leakage import find_leakage, refuse_leakage
from training.finetune.latent_space import LATENTS, LatentSpace
from training.finetune.pairs import Pair, draw_pairs
from training.finetune.seen import (
    at_most,
    evenly,
    features_as_soft,
    middle_picture,
    on_canvas,
    plain_views,
    usual_size,
    view_features,
)
from training.finetune.workbench import Workbench
from training.metrics.features import FeatureSpace, open_features
from training.metrics.memorization import Rate, copy_rate, worst_pairs
from training.watch import Asked

FIRST_SEED: Final = 3_000_000
"""Of the samples; no others begin there."""
_KEPT, _ADAPTER = "guard", "adapter.safetensors"
_PAIRS: Final = 8
"""Pairs in a picture."""
_HELD_OUT: Final = 256
"""Held-out pictures that are compared; more only take longer."""
_MEASURED: Final = 32
"""Trained and held-out pictures whose losses are compared."""

Keep = Callable[[Path, dict[str, str]], None]
"""Writes an adapter of the weights as they are, with notes."""


class GuardError(ValueError):
    """What a guard needs is not there."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The model as it was when the guard last found it within its limit."""

    adapter: Path
    seen: Guarded
    metrics: dict[str, float]


class Guard:
    """Measures the network as it is, with the same captions, seeds and noise every time.

    Nothing is remembered from one measurement to the next but what lies in the run's folder, so that a resumed run is
    asked for the same.
    """

    def __init__(self, options: GuardOptions, bench: Workbench, run: Path, keep: Keep, *, resume: bool) -> None:
        """Looks at the data and encodes it.

        Args:
            keep: called while the model is within the limit, where the run may be stopped later.

        Raises:
            GuardError: there are too few pictures.
            LeakageError: some are on both sides of the split.
            ValueError: there is no such feature space.
        """
        self._options, self._bench, self._run, self._keep = options, bench, run, keep
        self.last: Guarded | None = None
        """What was seen last."""
        if not resume:
            shutil.rmtree(run / _KEPT, ignore_errors=True)
        bench.refuse_conditions("guard")
        trained = list({sample.piece: sample for sample in bench.samples}.values())
        held_out = list({sample.piece: sample for sample in bench.held_out}.values())
        _check_counts(len(trained), len(held_out), options.quantile)
        refuse_leakage(find_leakage(trained, held_out), who="guard")
        self._size = usual_size(trained)
        self._views = plain_views(trained, mirrors=bench.config.flip)
        self._space = self._open(options.features)
        self._of_trained = view_features(self._views, self._space, bench.cache, self._size)
        self._unseen = plain_views(at_most(held_out, _HELD_OUT))
        self._asked = evenly(trained, options.samples)
        some = min(len(trained), len(held_out), _MEASURED)
        self._measured = [evenly(side, some) for side in (trained, held_out)]

    def __call__(self, step: int, metrics: dict[str, float]) -> Asked:
        """Measures, draws the nearest pairs, and asks for the action where there are too many copies."""
        with self._bench.learner.measuring():
            made = self._make()
            shown = torch.cat([on_canvas(picture[None], self._size) for picture in made])
            found = self._space(shown)
            unseen = features_as_soft(self._unseen, shown, self._space, self._bench.cache, self._size)
            gap = self._loss_gap()
        rate = copy_rate(found, self._of_trained, unseen, quantile=self._options.quantile)
        exceeded = rate.low > self._options.limit if self._options.limit is not None else rate.above_background
        path = self._run / "samples" / f"guard-step-{step}.png"
        event = Guarded(
            step=step, features=self._space.name, samples=len(made), copy_rate=rate.value, low=rate.low,
            high=rate.high, background=rate.background, background_high=rate.background_high, loss_gap=gap,
            action=self._options.action if exceeded and step else "none", path=str(path),
        )  # fmt: skip
        draw_pairs(path, self._pairs(made, found, rate), f"step {step}: {event.worded()}")
        self.last = event
        if not exceeded:
            if step and self._options.action == "stop":
                self._write_kept(event, metrics)
            return Asked(events=(event,))
        return self._act(event)

    @property
    def stopped(self) -> bool:
        """Whether the last look ended the run."""
        return self.last is not None and self.last.action == "stop"

    def kept(self) -> Kept | None:
        """The model as it was before there were copies; None where no look at it found none."""
        path = self._run / _KEPT / "kept.json"
        if not path.is_file():
            return None
        told = json.loads(path.read_text(encoding="utf-8"))
        return Kept(adapter=self._run / _KEPT / _ADAPTER, seen=Guarded(**told["seen"]), metrics=told["metrics"])

    def _write_kept(self, event: Guarded, metrics: dict[str, float]) -> None:
        folder = self._run / _KEPT
        folder.mkdir(parents=True, exist_ok=True)
        self._keep(folder / _ADAPTER, {"metrics": json.dumps(metrics), "guard": json.dumps(event.as_dict())})
        write_text(folder / "kept.json", json.dumps({"seen": asdict(event), "metrics": metrics}))

    def _act(self, event: Guarded) -> Asked:
        def said(text: str) -> tuple[Guarded, Note]:
            return event, Note(step=event.step, text=f"guard: step {event.step}: {text}; the pairs are in {event.path}")

        if event.action == "none":
            return Asked(
                events=said(
                    f"before any training {event.copy_rate:.0%} of the samples are as near to trained pictures as "
                    f"{event.background:.0%} of the held-out ones: the model may know them, or {event.features} does "
                    "not tell its samples apart; set guard.limit above that, or other guard.features"
                )
            )
        copies = f"{event.copy_rate:.0%} of the samples are copies of trained pictures"
        if event.action == "warn":
            return Asked(events=said(copies))
        if event.action == "lower-rate":
            factor = self._options.rate_factor
            return Asked(events=said(f"{copies}; the learning rate is multiplied by {factor:g}"), rate_factor=factor)
        kept = self.kept()
        if kept is None:
            stop = (
                f"the guard found copies at step {event.step}, its first look; begin anew in another folder with "
                f"validation_steps below {event.step}, fewer trained numbers or a lower learning_rate"
            )
            return Asked(events=said(copies), stop=stop)
        stop = f"the guard found copies at step {event.step}; the adapter is that of step {kept.seen.step}"
        return Asked(events=said(copies), stop=stop, complete=True)

    def _open(self, name: str) -> FeatureSpace:
        if name == LATENTS:
            return LatentSpace(self._bench.family, self._size)
        return open_features(name, resolve_folder("mini"), device=self._bench.device)

    def _make(self) -> list[Float[Tensor, "3 height width"]]:
        """A sample of each caption, in the shape of its picture."""
        config, made = self._bench.config, dict[int, Tensor]()
        for size in sorted({sample.size for sample in self._asked}):
            own = [k for k, sample in enumerate(self._asked) if sample.size == size]
            pictures = self._bench.family.sample_many(
                [_told(config, self._asked[k]) for k in own], size, [FIRST_SEED + k for k in own],
                steps=self._options.num_inference_steps,
            )  # fmt: skip
            made |= {k: p.permute(2, 0, 1).float() / 255 for k, p in zip(own, pictures, strict=True)}
        return [made[k] for k in range(len(self._asked))]

    def _loss_gap(self) -> float:
        """Grows with memorizing; pictures that are harder than others move all of the curve."""
        learner = self._bench.learner
        seen, unseen = (float(learner.losses_at_fixed_noise(side, learner.tasks[0]).mean()) for side in self._measured)
        return unseen - seen

    def _pairs(self, made: Sequence[Tensor], found: Float[Tensor, "n dim"], rate: Rate) -> list[Pair]:
        copies = round(rate.value * rate.count)  # the nearest ones, by definition
        pairs = []
        for rank, (k, j) in enumerate(worst_pairs(found, self._of_trained, _PAIRS).tolist()):
            view = self._views[j]
            nearest = middle_picture(view.sample, mirrored=view.mirrored)
            pairs.append(
                Pair(
                    sample=to_uint8(made[k][None])[0], nearest=to_uint8(nearest)[0],
                    name=view.sample.path.name, copied=rank < copies,
                    distance=float((found[k] - self._of_trained[j]).norm()),
                )
            )  # fmt: skip
        return pairs


def _told(config: FinetuneConfig, sample: Sample) -> str:
    return f"{config.trigger} {sample.caption}".strip()


def _check_counts(trained: int, held_out: int, quantile: float) -> None:
    need, total = math.ceil(1 / quantile), trained + held_out
    if held_out >= need:
        return
    if total > need:
        fix = f"set validation_share = {math.ceil(1000 * need / total) / 1000:g}"
    else:
        fix = f"add {need + 1 - total} pictures or more, or leave [guard] out"
    raise GuardError(
        f"guard: a copy rate at the {quantile:.0%} quantile needs {need} held-out pictures, and {held_out} of {total} "
        f"are; {fix}"
    )
