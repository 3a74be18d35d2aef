"""A fine-tuning run in a folder: config, events, checkpoints, samples, the adapter and its card."""

import hashlib
import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.loading import resolve_folder
from training.checkpoint import latest_checkpoint, load_checkpoint, write_text
from training.events import Evaluated, Event, Finished, Note, Sampled
from training.finetune.cache import Cache, CacheError
from training.finetune.config import FinetuneConfig
from training.finetune.data import Sample, split
from training.finetune.data.quarantine import write_quarantine
from training.finetune.families import open_family
from training.finetune.frugal import FrugalLearner, cast_weights, check_trained
from training.finetune.gather import gather
from training.finetune.learner import FinetuneLearner
from training.going import OnBatch
from training.loop import train
from training.methods import Tuner, find_scope
from training.methods.adapter import Adapter, files_hash, save_adapter, weights_hash
from training.methods.sizing import at_share
from training.optimizers import check_optimizer
from training.run_folder import is_main, record, refuse_another_run, saver, stopper
from training.trackers import check_trackers
from training.trained import Tuned

ADAPTER = "adapter.safetensors"
_FREE = (
    "max_train_steps", "checkpointing_steps", "checkpoints_total_limit", "validation_steps", "validation_prompts",
    "report_to", "adapter_dtype", "cache_dir",
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
    check_optimizer(config)
    check_trackers(config.report_to)
    if not resume:
        refuse_another_run(run)

    def events(made: _Made) -> Iterator[Event]:
        yield from made.notes()
        for event in train(
            made.learner, config.loop(made.rate), run, trained=Tuned(made.tuner, config), resume=resume,
            fingerprint=made.fingerprint, device=device, on_batch=on_batch,
            should_stop=stopper(run, began, time_limit_s), should_save=saver(run),
        ):  # fmt: skip
            if is_main() and isinstance(event, Finished) and event.complete:
                made.finish(event)
            yield event
            if is_main() and isinstance(event, Evaluated):
                yield _write_samples(made.learner, event.step, run / "samples" / f"step-{event.step}.png")

    settings = {"finetune": config.model_dump(mode="json")}
    try:
        made = _Made(config, run, device)
        # not before everything that the user may have got wrong has been looked at
        yield from record(run, settings, events(made), resume=resume, report_to=config.report_to)
    except CacheError as error:
        if latest_checkpoint(run) is None:
            raise
        raise CacheError(f"{error}. Then go on with `studio resume {run}`") from error


class _Made:
    """A run's model, data and tuner."""

    def __init__(self, config: FinetuneConfig, run: Path, device: str | None) -> None:
        self.config, self.run = config, run
        self.method = config.tuning()
        self.folder = resolve_folder(config.model)
        self.family = open_family(self.folder)
        network = self.family.network
        self.base = weights_hash(network)
        self.sizes = {name: p.numel() for name, p in network.named_parameters()}
        self.scope = find_scope(network, config.scope)
        if config.trainable_share is not None:
            self.method = at_share(self.method, network, self.scope, config.trainable_share)
        cast_weights(network, config)
        # after what is quickly told to be wrong: it decodes every file
        cache = Cache(config.cache_dir or run / "cache")
        self.found = gather(config, self.family, cache)
        samples, held_out = split(self.found.samples, config.validation_share)
        if config.gradient_checkpointing:
            network.enable_gradient_checkpointing()  # type: ignore[operator]
        self.learner = FrugalLearner(self.family, samples, held_out, config, cache)
        self.family.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        rng = torch.Generator().manual_seed(config.seed)
        losses = self.learner.losses if self.method.needs_losses else None
        self.tuner = self.method.attach(network, self.scope, rng, losses)
        check_trained(self.tuner, config)
        self.rate = config.learning_rate or self.method.learning_rate(self.tuner)
        self.fingerprint = {
            "base": self.base, "pictures": _digest(samples),
            **{k: v for k, v in config.model_dump(mode="json").items() if k not in _FREE},
        }  # fmt: skip

    def notes(self) -> Iterator[Event]:
        """What there is to say before training."""
        left_out = self.found.left_out
        if is_main():
            write_quarantine(self.run, left_out)
        for text in (*self.found.notes, *(f"left out: {bad.file}: {bad.why}" for bad in left_out)):
            yield Note(step=0, text=text)
        count, total = self.tuner.count, sum(self.sizes.values())
        text = f"{self.config.method} trains {count:,} of {total:,} numbers ({count / total:.2%}) at {self.rate:.2g}"
        yield Note(step=0, text=text, counts={"trainable_parameters": count, "total_parameters": total})

    def finish(self, event: Finished) -> None:
        """Writes the adapter and its card."""
        config = self.config
        notes = {"base": config.model, "trigger": config.trigger, "metrics": json.dumps(event.metrics)}
        learned = _average(self.tuner, self.run)
        adapter = Adapter(
            method=config.method, config=self.method, scope=self.scope, base=self.base, delta=learned, notes=notes,
            files=files_hash(self.folder / self.family.component),
        )  # fmt: skip
        save_adapter(self.run / ADAPTER, adapter, self.sizes, dtype=config.adapter_dtype)
        write_text(self.run / "README.md", _card(self.tuner, config, self.run, event))


def read_finetune(run: Path) -> FinetuneConfig | None:
    """The config of a run folder; None where another kind of run is in it."""
    values = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    return FinetuneConfig.model_validate(values["finetune"]) if "finetune" in values else None


def _digest(samples: list[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.piece} {sample.size} {'|'.join(sample.captions)}\n".encode())
        if sample.keypoints is not None:
            digest.update(sample.keypoints.read_bytes())
    return digest.hexdigest()


def _write_samples(learner: FinetuneLearner, step: int, path: Path) -> Event:
    path.parent.mkdir(exist_ok=True)
    rows = [np.concatenate(list(sample.numpy()), axis=1) for _, sample in learner.samples]
    staged = path.with_name(f".{path.name}.tmp")
    Image.fromarray(np.concatenate(rows, axis=1)).save(staged, format="PNG")
    staged.replace(path)
    return Sampled(step=step, path=str(path), prompts=tuple(prompt for prompt, _ in learner.samples))


@torch.no_grad()
def _average(tuner: Tuner, run: Path) -> dict[str, torch.Tensor]:
    """What the averaged numbers of the last checkpoint are to the base model."""
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    average = load_checkpoint(checkpoint)[0]["average"]
    for name, parameter in tuner.named().items():
        parameter.copy_(average[name])
    tuner.refresh()
    return tuner.delta()


def _card(tuner: Tuner, config: FinetuneConfig, run: Path, event: Finished) -> str:
    metrics = "".join(f"- {name}: {value:.4g}\n" for name, value in event.metrics.items())
    size = (run / ADAPTER).stat().st_size
    return (
        f"# {run.name}\n\nAn adapter for {config.model}, trained by animatex-studio.\n\n"
        f"- method: {config.method} {json.dumps(config.method_options)}\n"
        f"- scope: {' '.join(config.scope) or 'everything'}\n"
        f"- numbers trained: {tuner.count:,}, {size:,} bytes\n- steps: {event.step}, {event.seconds:.0f} s\n{metrics}\n"
        f"Use it with `studio animate --adapter {ADAPTER}`, or in any pipeline with `studio.load_adapter`.\n"
    )
