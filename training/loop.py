"""The training loop: batches in, events out, and a checkpoint from which it goes on bit for bit.

Every draw of a step comes from a generator that is seeded by (seed, step, process). So nothing random has to be saved:
a run that is resumed at step k makes the same step k as one that never stopped.
"""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, broadcast
from torch import nn

from pose.wording import in_a_line
from training.checkpoint import (
    SaveError,
    load_checkpoint,
    whole_checkpoint,
)
from training.config import TrainingConfig
from training.events import Evaluated, Event, Finished, Note
from training.going import Going, NotFiniteError, OnBatch
from training.memory import free_memory, is_out_of_memory
from training.processes import PATIENCE, device_of, refuse_plugins, several_processes
from training.trained import Trained
from training.watch import Asked, Watch


def train(
    learner: nn.Module,
    config: TrainingConfig,
    run: Path,
    *,
    resume: bool = False,
    trained: Trained | None = None,
    fingerprint: dict[str, Any] | None = None,
    should_stop: Callable[[], str | None] = lambda: None,
    should_save: Callable[[], bool] = lambda: False,
    on_batch: OnBatch | None = None,
    watch: Watch | None = None,
    device: str | None = None,
) -> Iterator[Event]:
    """Trains until `config.steps`, yielding events. Closing the iterator saves and stops.

    Args:
        trained: what of it is trained; by default all parameters that want gradients.
        fingerprint: what must be equal for a resume to make sense; a difference is refused by name.
        should_stop: asked after every step; a reason ends the run with a checkpoint.
        should_save: asked after every step; True saves a checkpoint, and the run goes on.
        on_batch: sees every batch.
        watch: asked after every measurement, and before the first step; see `training.watch`.

    Raises:
        CheckpointError: there is nothing to resume, or it is of another run.
        NotFiniteError: the loss or its gradient is NaN or infinite; the last checkpoint is untouched.
        NoMemoryLeftError: a step does not fit, whatever was tried; what was learned before it is saved.
        SaveError: the disk is full; the last checkpoint is untouched.
        ValueError: the device is not here, or the batch cannot be shared among the processes.
    """
    accelerator = _accelerator(device)
    main = accelerator.is_main_process
    run_notes = _find_checkpoint(run, accelerator) if resume else []
    going = Going(learner, config, run, trained, fingerprint or {}, accelerator, on_batch)
    if resume:
        going.restore()
    else:
        going.begin()
    began = time.monotonic()
    saved = going.done
    reason, complete = "all steps done", True
    last: Event | None = None
    asked, metrics = Asked(), dict[str, float]()
    # a run that stopped before its watcher was asked makes up for it
    measured = going.done if watch is None else going.watched
    yield from (Note(step=going.done, text=text) for text in run_notes)
    try:
        for step in range(going.done, config.steps):
            if going.done % config.evaluate_every == 0 and measured != going.done:
                measured = going.done
                asked, metrics = yield from _measure(going, watch)
                if asked.stop:
                    break
            yield from going.step(step)
            stop = _agree(should_stop(), accelerator)
            if stop:
                reason, complete = stop, False
                break
            if main and (going.done % config.checkpoint_every == 0 or should_save()):
                saved = going.done
                yield going.save()
    except (NotFiniteError, SaveError):
        saved = going.done  # what led here is not worth a checkpoint, which would push out an older one
        raise
    finally:
        # also when the caller closes the iterator or presses Ctrl-C: what was learned is kept, but never half a step
        if saved != going.done and going.whole and main:
            last = going.save()
            saved = going.done
    accelerator.wait_for_everyone()  # none goes on, to a resume perhaps, before the checkpoint is there
    if last is not None:
        yield last
    if complete and not asked.stop:
        asked, metrics = yield from _measure(going, watch)
    if asked.stop:
        reason, complete = asked.stop, asked.complete
    seconds = time.monotonic() - began
    yield Finished(
        step=going.done, complete=complete, reason=reason, seconds=seconds, metrics=metrics if complete else {}
    )


def _measure(going: Going, watch: Watch | None) -> Generator[Event, None, tuple[Asked, dict[str, float]]]:
    """Measures in the main process, or in all where they can do so together alone; all do what the watcher asks for."""
    asked, metrics, why = Asked(), dict[str, float](), ""
    main = going.accelerator.is_main_process
    if main or going.together:
        try:
            with going.averaged():
                metrics = going.learning.evaluate()
                if main and watch is not None:
                    asked = watch(going.done, metrics)
        except (RuntimeError, MemoryError) as error:
            # what was learned is worth more than a measurement; but others would wait for a part of it
            if not is_out_of_memory(error) or (going.several and going.together):
                raise
            why = in_a_line(error)
        if why:
            free_memory()
            yield Note(step=going.done, text=f"out of memory while measuring ({why}); the run goes on without")
    if watch is not None:
        asked = _heard(asked, going.accelerator)
        going.obey(asked)
    if main:
        yield Evaluated(step=going.done, metrics=metrics)
        yield from asked.events
    return asked, metrics


def _heard(asked: Asked, accelerator: Accelerator) -> Asked:
    """What the main process was asked for, in every process."""
    if accelerator.num_processes == 1:
        return asked
    told = [asked.rate_factor, float(asked.stop is not None), float(asked.complete)]
    factor, stop, complete = broadcast(torch.tensor(told, dtype=torch.float64, device=accelerator.device)).tolist()
    reason = (asked.stop or "the main process stopped") if stop else None
    return replace(asked, rate_factor=factor, stop=reason, complete=bool(complete))


def _accelerator(device: str | None) -> Accelerator:
    """Precision is not its business here: it is one a process, and the next run may want another.

    Raises:
        ValueError: the device is not here, or the weights should be sharded.
    """
    refuse_plugins()
    if device is not None and device != "cpu":
        index = torch.device(device).index or 0
        if index >= torch.cuda.device_count():
            raise ValueError(
                f"device {device}: there are {torch.cuda.device_count()} CUDA devices here; use cpu or auto"
            )
        if not several_processes():  # of several accelerate gives each its own
            torch.cuda.set_device(index)
    return Accelerator(
        mixed_precision="no",
        # not left to accelerate: without a GPU each of several processes would take itself for the only one
        cpu=device_of(device).type == "cpu",
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )


def _agree(stop: str | None, accelerator: Accelerator) -> str | None:
    """The main process decides for all, or some would wait for ever for those that stopped."""
    if accelerator.num_processes == 1:
        return stop
    flag = broadcast(torch.tensor([stop is not None], dtype=torch.uint8, device=accelerator.device))
    return (stop or "the main process stopped") if bool(flag) else None


def load_average(learner: nn.Module, checkpoint: Path) -> int:
    """Puts the averaged weights of a checkpoint into the learner; returns the step."""
    tensors, state = load_checkpoint(checkpoint)
    names = dict(learner.named_parameters())
    with torch.no_grad():
        for name, value in tensors["average"].items():
            names[name].copy_(value)
    return int(state["step"])


def _find_checkpoint(run: Path, accelerator: Accelerator) -> list[str]:
    """Lets the main process see to it that `latest` names a whole checkpoint; notes what had to be done."""
    notes = whole_checkpoint(run)[1] if accelerator.is_main_process else []
    accelerator.wait_for_everyone()
    return notes
