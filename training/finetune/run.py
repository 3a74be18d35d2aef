"""A fine-tuning run in a folder: config, events, checkpoints, samples, the adapter and its card."""

import json
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.loading import license_of
from training.checkpoint import latest_checkpoint, load_checkpoint
from training.disk import write_text
from training.events import Evaluated, Event, Finished, Guarded, Note, Sampled
from training.finetune.cache import CacheError
from training.finetune.config import FinetuneConfig
from training.finetune.data import digest
from training.finetune.data.quarantine import write_quarantine
from training.finetune.families import Family
from training.finetune.guard import Guard
from training.finetune.learner import FinetuneLearner, encoders_hash
from training.finetune.of_checkpoint import put_average
from training.finetune.strip import write_strip
from training.finetune.workbench import Workbench
from training.going import OnBatch
from training.loop import train
from training.methods import Tuner
from training.optimizers import check_optimizer
from training.processes import refuse_plugins
from training.run_folder import held, is_main, record, refuse_another_run, saver, stopper
from training.trackers import check_trackers
from training.trained import Tuned

ADAPTER = "adapter.safetensors"
_FREE = (
    "max_train_steps", "checkpointing_steps", "checkpoints_total_limit", "validation_steps", "validation_prompts",
    "report_to", "adapter_dtype", "cache_dir", "guard", "license", "fitted_to",
)  # fmt: skip
"""What may differ in a resumed run."""


def finetune(
    config: FinetuneConfig,
    run: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    time_limit_s: float | None = None,
    on_batch: OnBatch | None = None,
) -> Iterator[Event]:
    """Fine-tunes, yielding events; a finished run leaves `adapter.safetensors` and a card in its folder.

    Raises:
        ValueError: model, method, scope or data are wrong, or the folder holds another run.
    """
    began = time.monotonic()
    refuse_plugins()
    check_optimizer(config)
    check_trackers(config.report_to)
    with held(run):
        if not resume:
            refuse_another_run(run)
        config = _of_one_length(config, run, resume=resume)
        yield from _tuned(config, run, resume, device, stopper(run, began, time_limit_s), on_batch)


def _of_one_length(config: FinetuneConfig, run: Path, *, resume: bool) -> FinetuneConfig:
    """The config with the length that a method's halves and rounds are of: a run that is made longer keeps them.

    From the longer length nobody can tell where they were, and SaRA would choose anew a second time.
    """
    begun = read_finetune(run) if resume and (run / "config.toml").is_file() else None
    first = begun or config
    steps = config.fitted_to or first.fitted_to or first.max_train_steps
    # only where it says something: another run is made of this config as well
    return config.model_copy(update={"fitted_to": None if steps == config.max_train_steps else steps})


def _tuned(
    config: FinetuneConfig, run: Path, resume: bool, device: str | None, should_stop: Callable[[], str | None],
    on_batch: OnBatch | None,
) -> Iterator[Event]:  # fmt: skip
    def events(made: _Made) -> Iterator[Event]:
        yield from made.notes()
        for event in train(
            made.learner, config.loop(made.rate), run, trained=Tuned(made.tuner, config), resume=resume,
            fingerprint=made.fingerprint, device=device, on_batch=on_batch,
            should_stop=should_stop, should_save=saver(run), watch=made.guard,
        ):  # fmt: skip
            if is_main() and isinstance(event, Finished) and event.complete:
                made.finish(event)
            yield event
            if is_main() and isinstance(event, Evaluated) and made.learner.samples:
                yield _write_samples(made.learner, event.step, run / "samples" / f"step-{event.step}.png")

    settings = {"finetune": config.model_dump(mode="json")}
    try:
        made = _Made(config, run, device, resume=resume)
        # not before everything that the user may have got wrong has been looked at
        yield from record(run, settings, events(made), resume=resume, report_to=config.report_to)
    except CacheError as error:
        if latest_checkpoint(run) is None:
            raise
        raise CacheError(f"{error}. Then go on with `studio resume {run}`") from error


class _Made:
    """A run's model, data, guard and tuner."""

    def __init__(self, config: FinetuneConfig, run: Path, device: str | None, *, resume: bool) -> None:
        self.config, self.run = config, run
        self.bench = bench = Workbench(config)
        self.method, self.scope = bench.plan(config)
        # after what is quickly told to be wrong: it decodes every file
        bench.load(run / "cache", device)
        self.learner = bench.learner
        self.guard = None if config.guard is None else Guard(config.guard, bench, run, self._write, resume=resume)
        self.tuner = bench.attach(config, self.method, self.scope)
        self.rate = config.learning_rate or bench.usual_rate
        self.fingerprint = {
            "base": bench.base, "pictures": digest(bench.samples),
            "encoders": encoders_hash(bench.family), **_scheduler(bench.family),
            **{k: v for k, v in config.model_dump(mode="json").items() if k not in _FREE},
            # a default of another version makes another run
            **{f"method_options.{k}": v for k, v in self.method.model_dump(mode="json").items()},
        }  # fmt: skip

    def notes(self) -> Iterator[Event]:
        """What there is to say before training."""
        found = self.bench.found
        if is_main():
            write_quarantine(self.run, found.left_out)
        for text in (*found.notes, *(f"left out: {bad.file}: {bad.why}" for bad in found.left_out)):
            yield Note(step=0, text=text)
        if self.bench.offloaded:
            yield Note(step=0, text=f"encoders do not fit on {self.bench.device} beside it, and wait in main memory")
        count, total = self.tuner.count, sum(self.bench.sizes.values())
        text = f"{self.config.method} trains {count:,} of {total:,} numbers ({count / total:.2%}) at {self.rate:.2g}"
        if self.tuner.note:
            text += f"; {self.tuner.note}"
        yield Note(step=0, text=text, counts={"trainable_parameters": count, "total_parameters": total})

    def finish(self, event: Finished) -> None:
        """Writes the adapter and its card: of the last step, or of the last one before the guard found copies."""
        guard = self.guard
        seen = None if guard is None else guard.last
        if guard is not None and guard.stopped:
            kept = guard.kept()
            assert kept is not None
            staged = self.run / f".{ADAPTER}.tmp"
            shutil.copyfile(kept.adapter, staged)
            staged.replace(self.run / ADAPTER)
            seen, event = kept.seen, replace(event, step=kept.seen.step, metrics=kept.metrics)
        else:
            last = latest_checkpoint(self.run)
            assert last is not None
            put_average(self.tuner, load_checkpoint(last)[0]["average"])
            notes = {"metrics": json.dumps(event.metrics)}
            self._write(self.run / ADAPTER, notes if seen is None else {**notes, "guard": json.dumps(seen.as_dict())})
        write_text(self.run / "README.md", _card(self.tuner, self.config, self.bench.folder, self.run, event, seen))

    def _write(self, path: Path, notes: dict[str, str]) -> None:
        self.bench.write_adapter(path, self.tuner, self.config, self.method, self.scope, notes)


def read_finetune(run: Path) -> FinetuneConfig | None:
    """The config of a run folder; None where another kind of run is in it."""
    values = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    return FinetuneConfig.model_validate(values["finetune"]) if "finetune" in values else None


def _scheduler(family: Family) -> dict[str, Any]:
    """What the noise and the objective follow from, as a checkpoint has it."""
    told = {f"scheduler.{k}": v for k, v in family.pipeline.scheduler.config.items() if not k.startswith("_")}
    return dict(json.loads(json.dumps(told, default=str)))


def _write_samples(learner: FinetuneLearner, step: int, path: Path) -> Event:
    write_strip([frame for _, sample in learner.samples for frame in sample], path)
    return Sampled(step=step, path=str(path), prompts=tuple(prompt for prompt, _ in learner.samples))


def _card(
    tuner: Tuner, config: FinetuneConfig, folder: Path, run: Path, event: Finished, seen: Guarded | None
) -> str:  # fmt: skip
    metrics = "".join(f"- {name}: {value:.4g}\n" for name, value in event.metrics.items())
    guarded = "" if seen is None else f"- guard, step {seen.step}: {seen.worded()}\n"
    size, licensed = (run / ADAPTER).stat().st_size, config.license or license_of(folder)
    return (
        f"# {run.name}\n\nAn adapter for {config.model}, trained by animatex-studio.\n\n"
        f"- method: {config.method} {json.dumps(config.method_options)}\n"
        f"- scope: {' '.join(config.scope) or 'everything'}\n"
        f"- licence: {licensed or 'not told; see that of the model'}\n"
        f"- numbers trained: {tuner.count:,}, {size:,} bytes\n- steps: {event.step}, {event.seconds:.0f} s; "
        f"{event.reason}\n{metrics}{guarded}\n"
        f"Use it with `studio animate --adapter {ADAPTER}`, or in any pipeline with `studio.load_adapter`.\n"
    )
