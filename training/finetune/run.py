"""A fine-tuning run in a folder: config, events, checkpoints, samples, the adapter and its card."""

import hashlib
import json
import os
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.loading import resolve_folder
from training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint, write_text
from training.events import Evaluated, Event, Finished, Note
from training.finetune.cache import Cache
from training.finetune.config import FinetuneConfig
from training.finetune.data import Sample, split
from training.finetune.data.quarantine import write_quarantine
from training.finetune.families import open_family
from training.finetune.gather import gather
from training.finetune.learner import FinetuneLearner
from training.loop import train
from training.methods import Tuner, find_scope
from training.methods.adapter import Adapter, files_hash, save_adapter, weights_hash
from training.methods.sizing import at_share
from training.run_folder import stopper
from training.toml import dump_toml
from training.trained import Tuned

ADAPTER = "adapter.safetensors"
_FREE = ("max_train_steps", "checkpointing_steps", "checkpoints_total_limit", "validation_steps", "validation_prompts",
         "cache_dir")  # fmt: skip
"""What may differ in a resumed run."""


def finetune(
    config: FinetuneConfig,
    run: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    time_limit_s: float | None = None,
) -> Iterator[Event]:
    """Fine-tunes, yielding events; a finished run leaves `adapter.safetensors` and a card in its folder.

    Raises:
        ValueError: model, method, scope or data are wrong, or the folder holds another run.
    """
    began = time.monotonic()
    method = config.tuning()
    folder = resolve_folder(config.model)
    if not resume and latest_checkpoint(run) is not None:
        raise CheckpointError(
            f"{run} holds a run already; resume it with `studio resume {run}`, or name another folder"
        )
    family = open_family(folder)
    cache = Cache(config.cache_dir or run / "cache")
    network = family.network
    base = weights_hash(network)
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    scope = find_scope(network, config.scope)
    if config.trainable_share is not None:
        method = at_share(method, network, scope, config.trainable_share)
    found = gather(config, family, cache)
    samples, held_out = split(found.samples, config.validation_share)
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()  # type: ignore[operator]
    learner = FinetuneLearner(family, samples, held_out, config, cache)
    family.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    rng = torch.Generator().manual_seed(config.seed)
    tuner = method.attach(network, scope, rng, learner.losses if method.needs_losses else None)
    rate = config.learning_rate or method.learning_rate(tuner)
    # not before everything that the user may have got wrong has been looked at
    main = os.environ.get("RANK", "0") == "0"  # `accelerate launch` starts several of us; one writes
    run.mkdir(parents=True, exist_ok=True)
    if main:
        (run / "stop").unlink(missing_ok=True)
        if not resume:
            write_text(run / "config.toml", dump_toml({"finetune": config.model_dump(mode="json")}))
    fingerprint = {
        "base": base, "pictures": _digest(samples),
        **{k: v for k, v in config.model_dump(mode="json").items() if k not in _FREE},
    }  # fmt: skip
    with (run / "events.jsonl" if main else Path(os.devnull)).open("a", encoding="utf-8") as log:

        def told(event: Event) -> Event:
            log.write(json.dumps(event.as_dict()) + "\n")
            log.flush()
            return event

        if main:
            write_quarantine(run, found.left_out)
        for text in (*found.notes, *(f"left out: {bad.file}: {bad.why}" for bad in found.left_out)):
            yield told(Note(step=0, text=text))
        share = tuner.count / sum(sizes.values())
        text = f"{config.method} trains {tuner.count:,} of {sum(sizes.values()):,} numbers ({share:.2%}) at {rate:.2g}"
        counts = {"trainable_parameters": tuner.count, "total_parameters": sum(sizes.values())}
        yield told(Note(step=0, text=text, counts=counts))
        for event in train(
            learner, config.loop(rate), run, trained=Tuned(tuner), resume=resume, fingerprint=fingerprint,
            device=device, should_stop=stopper(run, began, time_limit_s),
        ):  # fmt: skip
            if main and isinstance(event, Evaluated):
                _write_samples(learner, run / "samples" / f"step-{event.step}.png")
            if main and isinstance(event, Finished) and event.complete:
                notes = {"base": config.model, "trigger": config.trigger, "metrics": json.dumps(event.metrics)}
                learned = _average(tuner, run)
                adapter = Adapter(
                    method=config.method, config=method, scope=scope, base=base, delta=learned, notes=notes,
                    files=files_hash(folder / family.component),
                )  # fmt: skip
                save_adapter(run / ADAPTER, adapter, sizes, dtype=config.adapter_dtype)
                write_text(run / "README.md", _card(tuner, config, run, event))
            yield told(event)


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


def _write_samples(learner: FinetuneLearner, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [np.concatenate(list(sample.numpy()), axis=1) for _, sample in learner.samples]
    staged = path.with_name(f".{path.name}.tmp")
    Image.fromarray(np.concatenate(rows, axis=1)).save(staged, format="PNG")
    staged.replace(path)


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
        f"Use it with `studio animate --adapter {ADAPTER}`, or `apply_adapter` of `training.methods.adapter`.\n"
    )
