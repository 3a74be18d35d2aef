"""The inner loop of a search: trains one candidate, and measures it at its checkpoints."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch

from training.checkpoint import latest_checkpoint, load_checkpoint
from training.events import Saved, Step
from training.finetune.config import FinetuneConfig
from training.finetune.data import Sample, digest
from training.finetune.data.leakage import find_leakage, refuse_leakage
from training.finetune.latent_space import LatentSpace
from training.finetune.of_checkpoint import put_average
from training.finetune.searching.judge import FINAL_SEED, FIRST_SEED, LEAST_HELD_OUT, WAY, Judge, Judged
from training.finetune.searching.settings import SearchSettings
from training.finetune.searching.setup import STOP_STEP, Setup
from training.finetune.searching.sites import find_sites
from training.finetune.seen import usual_size
from training.finetune.strip import write_strip
from training.finetune.workbench import Workbench
from training.loop import train
from training.methods import Tuner
from training.methods.adapter import apply_adapter, load_adapter
from training.methods.quantized import QUANTIZED
from training.metrics.features import FeatureSpace
from training.search.space import Candidate, Space, Value
from training.search.trial import Point
from training.trained import Tuned

_FREE = {
    "model", "data", "cache_dir", "report_to", "validation_prompts", "validation_steps", "checkpointing_steps",
    "checkpoints_total_limit", "adapter_dtype", "license", "scope", "learning_rate",
}  # fmt: skip
"""Settings of a run that its results do not depend on, that hashes stand for, or that candidates set."""
POINTS, RUN = "points.jsonl", "run"
"""In a trial's folder: what was measured, and the checkpoint from which it goes on; that is gone when it is done."""


class InnerTraining:
    """Trains candidates on one model and one set of pictures, which stay in memory between them.

    Every candidate sees the same batches, noise and samples. Of the held-out pictures one half judges the search; the
    other half is for the final choice, so that no luck of the search is taken for merit.
    """

    def __init__(
        self, config: FinetuneConfig, settings: SearchSettings, features: FeatureSpace | None, *, cache: Path,
        device: str | None,
    ) -> None:  # fmt: skip
        """Opens the model and the data.

        Args:
            features: where pictures are compared; None for the model's own latents.

        Raises:
            ValueError: the model, a site or the data are wrong, or too few pictures are held out.
            LeakageError: held-out pictures look like trained ones.
        """
        if config.weights_dtype in QUANTIZED or config.split_weights:
            setting = "split_weights" if config.split_weights else f"weights_dtype {config.weights_dtype}"
            raise ValueError(
                f"{setting}: a search trains one model again and again, and its weights would not come back; "
                'use weights_dtype = "bf16"'
            )
        self.config, self.settings = config, settings
        self.on_step: Callable[[int, int], None] = lambda done, total: None
        self.steps = settings.steps(config.max_train_steps)
        self.bench = Workbench(config)
        self.bench.plan(config)  # a wrong method is told before the data is read
        sites = find_sites(self.bench.network, settings.sites, settings.always, method=config.method)
        _check_options(config, settings.options)
        self.bench.load(cache, device)
        self.setup = Setup(config=config, settings=settings, sites=sites, trained=len(self.bench.samples))
        self._device = device
        self.bench.refuse_conditions("search")
        self.search_side, self.final_side = _halves(self.bench)
        refuse_leakage(find_leakage(self.bench.samples, self.bench.held_out), who="search")
        self._features = features or LatentSpace(self.bench.family, usual_size(self.bench.samples))
        self._judge = self._judge_by(self.search_side, settings.samples, FIRST_SEED)
        rate = config.learning_rate or self._usual_rate()
        self.space = Space(sites=tuple(sites.bits), numbers=settings.numbers(rate, config.max_train_steps))

    def _judge_by(self, held_out: list[Sample], samples: int, first_seed: int, *, last: bool = False) -> Judge:
        return Judge(
            self.bench, self._features, held_out, samples=samples, steps=self.settings.num_inference_steps,
            quantile=self.settings.copying_quantile, first_seed=first_seed,
            last=last,
        )  # fmt: skip

    def finally_judged(self, adapter: Path | None) -> Judged:
        """Measures an adapter (None is the base) on held-out pictures and seeds that no search has seen.

        Raises:
            ValueError: it is of another model.
        """
        folder = self.bench.folder / self.bench.family.component
        tuner = None if adapter is None else apply_adapter(self.bench.network, load_adapter(adapter), folder=folder)
        try:
            return self._final_judge()
        finally:
            if tuner is not None:
                tuner.unload()

    @property
    def measuring_share(self) -> float:
        """What measuring a run takes, as a share of training it: passes of samples, forward and backward being three.

        In time it is less where large batches are faster than small ones.
        """
        trained = 3 * self.config.max_train_steps * self.config.train_batch_size
        return len(self.steps) * self._judge.passes / trained

    @cached_property
    def _final_judge(self) -> Judge:
        return self._judge_by(self.final_side, self.settings.final_samples, FINAL_SEED, last=True)

    def _usual_rate(self) -> float:
        """The method's own rate, where everything is on."""
        everything = Candidate(mask=(True,) * len(self.setup.sites.bits))
        method, scope = self.bench.plan(self.setup.run_of(everything))
        self.bench.attach(self.config, method, scope).unload()
        return self.bench.usual_rate

    @property
    def features(self) -> str:
        """The space in which pictures are compared."""
        return self._features.name

    def fingerprint(self) -> dict[str, str]:
        """All that results depend on beside the candidates, by name."""
        runs = self.config.model_dump(mode="json", exclude=_FREE)
        search = self.settings.model_dump(mode="json", exclude={"final_samples", "limit", "early_stop", "reference"})
        return {
            "base": self.bench.base, "pictures": digest(self.bench.samples), "held-out": digest(self.bench.held_out),
            "judge": WAY,
            **{f"run.{name}": json.dumps(value) for name, value in runs.items()},
            **{f"search.{name}": json.dumps(value) for name, value in search.items()},
        }  # fmt: skip

    def trained_numbers(self, candidate: Candidate) -> int:
        """How many numbers a candidate trains."""
        if not self.setup.trains(candidate):
            return 0
        config = self.setup.run_of(candidate)
        method, scope = self.bench.plan(config)
        tuner = self.bench.attach(config, method, scope)
        count = tuner.count
        tuner.unload()
        return count

    def __call__(self, candidate: Candidate, folder: Path) -> Iterator[Point]:
        """Trains and yields the checkpoints, measured; those that were measured before come first, from the disk.

        Raises:
            ValueError: the method cannot be put where the mask says.
            NotFiniteError: the training went wrong.
        """
        folder.mkdir(parents=True, exist_ok=True)
        done = read_points(folder)
        yield from done.values()
        if not self.setup.trains(candidate):
            if 0 not in done:
                yield self._measure(folder, 0, None, 0.0)
            return
        wanted = [step for step in self.steps if step <= int(candidate.values.get(STOP_STEP, self.steps[-1]))]
        if all(step in done for step in wanted):
            return
        config = self.setup.run_of(candidate)
        method, scope = self.bench.plan(config)
        tuner = self.bench.attach(config, method, scope)

        def measured(step: int, seconds: float) -> Point:
            path = folder / f"step-{step}.safetensors"
            with _averaged(tuner, folder / RUN):
                notes = {"candidate": candidate.key, "step": str(step)}
                self.bench.write_adapter(path, tuner, config, method, scope, notes)
                return self._measure(folder, step, path, seconds, trained=tuner.count)

        try:
            yield from self._run(folder / RUN, config, tuner, [step for step in wanted if step not in done], measured)
        finally:
            tuner.unload()

    def clean(self, folder: Path) -> None:
        """Removes from a trial's folder what only going on with it needs: as large as a model and its optimizer."""
        shutil.rmtree(folder / RUN, ignore_errors=True)

    def _run(
        self,
        run: Path,
        config: FinetuneConfig,
        tuner: Tuner,
        wanted: list[int],
        measured: Callable[[int, float], Point],
    ) -> Iterator[Point]:
        made, began, rate = 0, time.monotonic(), config.learning_rate
        assert rate is not None
        resume = latest_checkpoint(run) is not None
        loop = config.loop(rate).model_copy(
            update={"checkpoint_every": 10**9, "evaluate_every": 10**9, "keep_checkpoints": 1}
        )

        def at_a_checkpoint() -> bool:
            return made in wanted

        def enough() -> str | None:
            return "measured" if made >= wanted[-1] else None

        if resume:
            last = latest_checkpoint(run)
            assert last is not None
            tensors, state = load_checkpoint(last)
            if (step := int(state["step"])) in wanted:  # killed between its checkpoint and its measurement
                tuner.load_state(tensors["model"], step)
                yield measured(step, 0.0)
        events = train(
            self.bench.learner, loop, run, trained=Tuned(tuner, config), resume=resume, device=self._device,
            fingerprint={"base": self.bench.base}, should_save=at_a_checkpoint, should_stop=enough,
        )  # fmt: skip
        for event in events:
            if isinstance(event, Step):
                made = event.step
                self.on_step(made, self.steps[-1])
            elif isinstance(event, Saved) and event.step in wanted:
                yield measured(event.step, time.monotonic() - began)
                began = time.monotonic()

    def _measure(self, folder: Path, step: int, path: Path | None, seconds: float, *, trained: int = 0) -> Point:
        """Measures the model as it is, and keeps the point in the trial's folder."""
        began = time.monotonic()
        judged = self._judge()
        write_strip(judged.shown, samples_of(folder, step))
        point = Point(
            step=step, quality=judged.quality, copying=judged.copying,
            metrics={**judged.metrics, "trained-numbers": float(trained)},
            path=None if path is None else str(path.absolute()),
            train_seconds=seconds, judge_seconds=time.monotonic() - began,
        )  # fmt: skip
        _append(folder / POINTS, point)
        return point


def samples_of(folder: Path, step: int) -> Path:
    """The file that shows what a trial made at a step."""
    return folder / "samples" / f"step-{step}.png"


def _check_options(config: FinetuneConfig, options: Mapping[str, tuple[Value, ...]]) -> None:
    """Makes sure that every option to choose from is one of the method's.

    Raises:
        ValueError: it is not.
    """
    for name, values in options.items():
        for value in values:
            told = {**config.model_dump(), "method_options": {**config.method_options, name: value}}
            FinetuneConfig.model_validate(told).tuning()


def _halves(bench: Workbench) -> tuple[list[Sample], list[Sample]]:
    """The held-out pictures for the search, and those for the final choice.

    Raises:
        ValueError: there are too few.
    """
    sides = (bench.held_out[::2], bench.held_out[1::2])
    least = min(map(len, sides))
    if least < LEAST_HELD_OUT:
        raise ValueError(
            f"{len(bench.samples)} pictures are trained and {len(bench.held_out)} held out: a search needs "
            f"{2 * LEAST_HELD_OUT} held-out ones at least, half to judge candidates and half for the final choice; "
            "raise validation_share or add pictures"
        )
    return sides


class _averaged:  # noqa: N801  (a context manager, used as a function)
    """The averaged numbers of the last checkpoint in place of the trained ones, for a while."""

    def __init__(self, tuner: Tuner, run: Path) -> None:
        self._tuner, self._run = tuner, run

    @torch.no_grad()
    def __enter__(self) -> None:
        self._kept = {name: p.detach().clone() for name, p in self._tuner.named().items()}
        last = latest_checkpoint(self._run)
        assert last is not None
        put_average(self._tuner, load_checkpoint(last)[0]["average"])

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for name, p in self._tuner.named().items():
            p.copy_(self._kept[name])
        self._tuner.refresh()


def _append(path: Path, point: Point) -> None:
    """Adds a point to a trial's file, with the adapter's name alone; it is on the disk afterwards."""
    told = {**asdict(point), "path": None if point.path is None else Path(point.path).name}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_points(folder: Path) -> dict[int, Point]:
    """The points of a trial's folder by their steps; a line that a killed process left unfinished counts nothing."""
    path = folder / POINTS
    if not path.is_file():
        return {}
    whole = path.read_bytes()
    lines = whole[: whole.rfind(b"\n") + 1]
    if len(lines) < len(whole):
        os.truncate(path, len(lines))
    told = [json.loads(line) for line in lines.decode().splitlines()]
    here = folder.absolute()
    points = [Point(**{**each, "path": each["path"] and str(here / each["path"])}) for each in told]
    return {point.step: point for point in points}
