"""A model with its data, on which methods are put and from which they are taken again."""

from pathlib import Path

import torch

from models.loading import license_of, resolve_folder
from training.finetune.cache import Cache
from training.finetune.config import FinetuneConfig
from training.finetune.data import split
from training.finetune.families import open_family
from training.finetune.frugal import FrugalLearner, cast_idle, cast_weights, check_trained, shrink_under
from training.finetune.gather import gather
from training.memory import NoMemoryLeftError, free_memory, is_out_of_memory, no_room_to_choose
from training.methods import MethodConfig, Scope, Tuner, find_scope
from training.methods.adapter import Adapter, files_hash, save_adapter, weights_hash
from training.methods.quantized import QUANTIZED, check_beside, check_quantizable
from training.methods.sizing import at_share
from training.processes import device_of


class Workbench:
    """The model of a config, and with `load` its data as well.

    Raises:
        ValueError: the model cannot be opened, or cannot be trained in half precision like this.
    """

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config
        self.folder = resolve_folder(config.model)
        self.family = open_family(self.folder, config.component)
        self.network = self.family.network
        self.base = weights_hash(self.network)
        self.sizes = {name: p.numel() for name, p in self.network.named_parameters()}
        self.usual_rate = 0.0
        """The method's own learning rate, for what was attached last."""
        self.device = torch.device("cpu")
        """Where the network is trained, once it is attached."""
        self.offloaded = False
        """Encoders did not fit there, and wait in main memory."""

    def plan(self, config: FinetuneConfig) -> tuple[MethodConfig, Scope]:
        """The method of a config in its size, and where it is put.

        Raises:
            ValueError: there is no such method, option or place.
        """
        method, scope = config.tuning(), find_scope(self.network, config.scope)
        if config.weights_dtype in QUANTIZED:
            check_quantizable(config.method, method, config.weights_dtype)
        if config.split_weights:
            check_beside(config.method, method, "split_weights")
        if config.trainable_share is not None:
            method = at_share(method, self.network, scope, config.trainable_share)
        return method, scope

    def load(self, cache: Path, device: str | None) -> None:
        """Finds and decodes the data; what is quickly told to be wrong should be told before.

        Raises:
            ValueError: there is nothing to train on.
        """
        config = self.config
        cast_weights(self.network, config)
        cast_idle(self.family, config)
        self.cache = Cache(config.cache_dir or cache)
        self.found = gather(config, self.family, self.cache)
        self.samples, self.held_out = split(self.found.samples, config.validation_share)
        if config.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()  # type: ignore[operator]
        self.learner = FrugalLearner(self.family, self.samples, self.held_out, config, self.cache)
        self.device = device_of(device)
        # what is to be quantized or split goes there when it is small
        self._place(network=config.weights_dtype not in QUANTIZED and not config.split_weights)

    def _place(self, *, network: bool) -> None:
        """Moves what training needs to the device; encoders that do not fit wait in main memory."""
        stay = [*self.family.idle, *([] if network else [self.network])]
        try:
            self.family.to(self.device, stay=[*stay, *(self.family.encoders if self.offloaded else [])])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.offloaded:
                raise
        else:
            return
        self.offloaded = self.learner.offloaded = True
        for encoder in self.family.encoders:
            encoder.to("cpu")
        free_memory()
        self._place(network=network)

    def refuse_conditions(self, who: str) -> None:
        """Stops who looks at what a model makes of text alone, where it is trained to see more.

        Raises:
            ValueError: it is.
        """
        seeing = [task.name for task in self.learner.tasks if task.name in self.family.conditioned]
        if seeing:
            raise ValueError(
                f"{who}: {' and '.join(seeing)} sees more than text, and measured is what a model makes of text "
                "alone; train text-to-image, or do without"
            )

    def attach(self, config: FinetuneConfig, method: MethodConfig, scope: Scope) -> Tuner:
        """Puts a method on the network.

        Raises:
            ValueError: it finds nothing to train in the scope.
            NoMemoryLeftError: gradients by which it chooses do not fit.
        """
        rng = torch.Generator().manual_seed(config.seed)
        try:
            tuner = method.attach(self.network, scope, rng, self.learner.losses if method.needs_losses else None)
        except (RuntimeError, MemoryError) as error:
            if method.needs_losses and is_out_of_memory(error):
                raise NoMemoryLeftError(no_room_to_choose(error)) from error
            raise
        self.usual_rate = method.learning_rate(tuner)
        tuner = shrink_under(tuner, config, self.device)
        self._place(network=True)
        check_trained(tuner, config)
        return tuner

    def write_adapter(
        self, path: Path, tuner: Tuner, config: FinetuneConfig, method: MethodConfig, scope: Scope,
        notes: dict[str, str],
    ) -> None:  # fmt: skip
        """Writes what a tuner learned."""
        licensed = config.license or license_of(self.folder)
        told = {"base": config.model, "trigger": config.trigger} | ({"license": licensed} if licensed else {})
        adapter = Adapter(
            method=config.method, config=method, scope=scope, base=self.base, delta=tuner.delta(),
            notes={**told, **notes},
            files=files_hash(self.folder / self.family.component),
        )  # fmt: skip
        save_adapter(path, adapter, self.sizes, dtype=config.adapter_dtype)
