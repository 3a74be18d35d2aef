"""A finished fine-tuning run, opened to be measured: its model with the adapter, and the pictures it was made of."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from models.loading import resolve_folder
from training.finetune.cache import Cache
from training.finetune.config import DataSet, FinetuneConfig
from training.finetune.data import Sample, split
from training.finetune.families import Family, open_family
from training.finetune.frugal import cast_idle, cast_under, cast_weights, trained_in_half
from training.finetune.gather import gather
from training.finetune.learner import FinetuneLearner
from training.finetune.run import ADAPTER, read_finetune
from training.methods import Tuner
from training.methods.adapter import AdapterError, check_base, load_adapter
from training.methods.changes import changes_of
from training.methods.stack import Attached, stack_of


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A model as a run left it, and the run's pictures, each once."""

    config: FinetuneConfig
    family: Family
    """With the adapter in its network."""
    adapter: Tuner | Attached
    """`disabled()` gives the model as it was before."""
    base: str
    """The hash of the network's weights before."""
    cache: Cache
    trained: list[Sample]
    held_out: list[Sample]
    repeats: Counter[str]
    """How often each trained piece came in a pass, copies of its file counted."""

    @cached_property
    def learner(self) -> FinetuneLearner:
        """The network with its data, to measure losses."""
        return FinetuneLearner(self.family, self.trained, self.held_out, self.config, self.cache)

    def measuring(self) -> torch.autocast:
        """What the network is asked under: autocast, where its weights are half."""
        device = next(self.family.network.parameters()).device
        return cast_under(self.config, device, enabled=trained_in_half(self.config))

    def told(self, caption: str) -> str:
        """A caption as the model was told it, with the trigger word."""
        return f"{self.config.trigger} {caption}".strip()


def open_run(run: Path, device: torch.device | str = "cpu", *, held_out: Path | None = None) -> OpenedRun:
    """Opens a run that made pictures of text alone; a model that was trained in half precision is in half.

    Args:
        held_out: a folder of more pictures that were not trained.

    Raises:
        ValueError: the folder has no finished fine-tuning run, it saw more than text, or its model or pictures are not
            there any more.
    """
    config = read_finetune(run) if (run / "config.toml").is_file() else None
    if config is None or not (run / ADAPTER).is_file():
        raise ValueError(f"{run} holds no finished fine-tuning run ({ADAPTER} is not there); `studio resume {run}`")
    family = open_family(resolve_folder(config.model), config.component)
    seeing = [task for task in config.tasks(family.tasks) if task in family.conditioned]
    if seeing:
        raise ValueError(
            f"{run} was trained on {' and '.join(seeing)}, which sees more than text, and measured is what a model "
            "makes of text alone; look at its samples and its loss on fixed noise"
        )
    cache = Cache(config.cache_dir or run / "cache")
    trained, unseen = split(gather(config, family, cache).samples, config.validation_share)
    if held_out is not None:
        others = config.model_copy(update={"data": (DataSet(folder=held_out),)})
        unseen += gather(others, family, cache).samples
        _refuse_trained(trained, unseen)
    adapter = load_adapter(run / ADAPTER)
    try:
        check_base(family.network, adapter)
        half = trained_in_half(config)
        if half:
            cast_weights(family.network, config)
            cast_idle(family, config)
        family.to(torch.device(device))  # first, or what stands beside the weights would stay behind
        put_on: Tuner | Attached
        if half:  # where changed weights would be rounded
            put_on = adapter.config.restore(family.network, adapter.scope, adapter.delta)
        else:  # no layer of PEFT stands in the way of many samples
            put_on = stack_of(family.network).add(changes_of(family.network, adapter), 1.0)
    except AdapterError as error:
        raise ValueError(f"{run / ADAPTER}: {error}") from error
    return OpenedRun(
        config=config, family=family, adapter=put_on, base=adapter.base, cache=cache, trained=_once(trained),
        held_out=_once(unseen), repeats=Counter(sample.piece for sample in trained),
    )  # fmt: skip


def _refuse_trained(trained: list[Sample], unseen: list[Sample]) -> None:
    pieces = {sample.piece: sample for sample in trained}
    pairs = [(sample, pieces[sample.piece]) for sample in unseen if sample.piece in pieces]
    if pairs:
        named = "; ".join(f"{one.path} is {other.path}" for one, other in pairs[:5])
        raise ValueError(f"{len(pairs)} of the held-out pictures were trained: {named}; remove them from that folder")


def _once(samples: list[Sample]) -> list[Sample]:
    """Neither repeats nor several tasks make a picture count twice."""
    return list({sample.piece: sample for sample in samples}.values())
