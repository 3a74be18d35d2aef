"""What a fine-tuning run is asked: the TOML file and the flags of `studio train`."""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from training.config import ScheduleOptions, TrainingConfig
from training.methods import METHODS, MethodConfig
from training.methods.quantized import QUANTIZED
from training.optimizers import OptimizerOptions
from training.precision import usual_precision
from training.trackers import TrackerName


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataSet(_Section):
    """One folder of pictures and videos."""

    folder: Path
    """Pictures and videos, anywhere below it, with captions in .txt files of the same name, metadata.jsonl or
    metadata.csv."""
    repeats: int = Field(default=1, ge=1)
    """How often a file comes in each pass, beside the other sets."""
    weight: float | None = Field(default=None, ge=0)
    """Share of the draws, relative to the other sets' weights, however many files there are; 0 leaves the set out.
    Where one set has a weight, those without one have 1."""
    caption: str = ""
    """For files that have none; by default the folder's name."""


class GuardOptions(_Section):
    """Looks for copies of the trained pictures at every validation."""

    action: Literal["warn", "lower-rate", "stop"] = "warn"
    """What is done when there are some: warn only shows them, lower-rate goes on more slowly, stop ends the run with
    the adapter as it was before."""
    limit: float | None = Field(default=None, gt=0, lt=1)
    """The share of copies that is surely too high, by its 95 % interval; by default any above what there is without
    copying."""
    samples: int = Field(default=64, ge=16, le=100_000)
    """Pictures that are made of the trained captions; the same seeds every time."""
    num_inference_steps: int = Field(default=10, ge=1, le=1000)
    """Denoising steps of such a picture."""
    features: str = Field(default="latents", min_length=1)
    """Where pictures are compared: latents, the model's own, or a space of `studio evaluate quality --features`."""
    quantile: float = Field(default=0.05, gt=0, lt=0.5)
    """A picture counts as a copy when it is nearer to a trained one than this share of the held-out ones."""
    rate_factor: float = Field(default=0.5, gt=0, lt=1)
    """Of lower-rate: what the learning rate is multiplied by."""

    @model_validator(mode="after")
    def _above_luck(self) -> "GuardOptions":
        if self.limit is not None and self.limit < self.quantile:
            raise ValueError(
                f"limit {self.limit} is below the quantile {self.quantile}, which is reached without any copying; "
                "raise it, or leave it out"
            )
        return self


class FinetuneConfig(_Section, ScheduleOptions, OptimizerOptions):
    """A fine-tuning run."""

    model: str = Field(default="mini", min_length=1)
    """mini, a folder in diffusers layout, or a hub id."""
    component: str | None = None
    """The network that is trained, where a pipeline has two: transformer_2 is the one for low noise of Wan 2.2 A14B. By
    default the first."""
    method: str = "sara"
    """How it is trained, see `studio methods`."""
    method_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the method."""
    trainable_share: float | None = Field(default=None, gt=0, le=1)
    """Sets the method's size (its fraction, its rank) so that it trains nearest to this share of the network."""
    scope: tuple[str, ...] = ()
    """Where it is trained: attention, feed-forward, norms, convolutions, paths with *; after "!" where it is not."""
    data: tuple[DataSet, ...] = Field(min_length=1)
    """The pictures and videos."""
    task: str | dict[str, Annotated[float, Field(ge=0)]] | None = None
    """What is trained: text-to-image, ti2v (a clip from its first frame and text) or animation (a clip from one of its
    frames, poses and text) of the animator; or a table of weights, {ti2v = 1, animation = 3}. By default the model's
    first."""
    num_frames: int | None = Field(default=None, ge=1, le=1001)
    """Frames of a clip; shorter videos give shorter clips. By default the model's."""
    fps: float | None = Field(default=None, gt=0, le=240)
    """Rate at which videos are read; they keep their speed. By default the model's. [frames/s]"""
    clip_windows: int = Field(default=4, ge=1)
    """At most so many clips are taken of a long video, evenly spread over it."""
    resolution: int = Field(default=128, ge=32, le=4096, multiple_of=16)
    """Pictures are scaled to the area of a square of this side, in their own shape. [px]"""
    crop: Literal["center", "random"] = "center"
    """Where what stands over the bucket's shape is cut off: the middle stays, or one of five places, drawn anew every
    time."""
    flip: bool = False
    """Everything also comes mirrored, with the same caption."""
    trigger: str = ""
    """A word that is put before every caption."""
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    """How often the caption is left out, which guidance needs."""
    validation_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pictures that is kept out of training and measured."""
    max_train_steps: int = Field(default=500, ge=1)
    """Optimizer steps in all."""
    fitted_to: int | None = Field(default=None, ge=1)
    """Steps that halves and rounds of a method are of; by default max_train_steps as the run begins, also when it is
    made longer."""
    train_batch_size: int = Field(default=4, ge=1)
    """Pictures a step, over all processes and accumulation steps."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Parts in which a batch goes through the network: less memory, the same step."""
    gradient_checkpointing: bool = False
    """Computes activations twice instead of keeping them: less memory, a third more time."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate; by default the method's."""
    lr_warmup_steps: int = Field(default=0, ge=0)
    """Steps in which the rate rises from 0."""
    lr_final_rate: float = Field(default=0.05, ge=0, le=1)
    """Where a falling rate ends, as a share of the peak."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay of the trained numbers."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an average of the trained numbers, which is then what is saved; 0 saves the last ones."""
    snr_gamma: float | None = Field(default=None, gt=0)
    """Min-SNR weighting (arXiv 2303.09556), 5 as a rule; only for models that predict noise or v."""
    mixed_precision: Literal["bf16", "fp16", "fp32"] = usual_precision()
    """Autocast type: by default bf16, but fp32 on a CPU without instructions for it; with fp16 the loss is scaled, and
    a step whose gradient is infinite is skipped."""
    weights_dtype: Literal["fp32", "bf16", "fp16", "int8", "nf4"] = "fp32"
    """Type of the frozen weights: half the memory with bf16, a quarter with int8 and an eighth with nf4, which quantize
    the linear layers; the trained numbers are float32 all the same."""
    split_weights: bool = False
    """The frozen weights are split over the processes of `accelerate launch`, for a model that does not fit one GPU."""
    seed: int = Field(default=0, ge=0)
    """Every draw of the run follows from it."""
    checkpointing_steps: int = Field(default=250, ge=1)
    """Steps between checkpoints."""
    checkpoints_total_limit: int = Field(default=2, ge=1)
    """How many checkpoints stay."""
    validation_steps: int = Field(default=250, ge=1)
    """Steps between measurements and samples."""
    validation_prompts: tuple[str, ...] = ()
    """What samples show; by default the first captions."""
    adapter_dtype: Literal["bf16", "fp32"] = Field(
        default="bf16", validation_alias=AliasChoices("adapter_dtype", "save_precision")
    )
    """Values in the adapter file; `save_precision` is the same."""
    license: str = Field(default="", max_length=200)
    """Of the adapter, as the hub names them, such as cc-by-4.0; by default what the model's card says."""
    report_to: tuple[TrackerName, ...] = ()
    """Programs that show the run: tensorboard, wandb, trackio; none goes to the network by itself."""
    guard: GuardOptions | None = None
    """Looks for copies of the trained pictures while training, see docs/guard.md; off by default."""
    cache_dir: Path | None = None
    """Where encoded files and captions are kept, to be shared by several runs; by default in the run's folder."""

    @model_validator(mode="after")
    def _can_be_split(self) -> "FinetuneConfig":
        if self.split_weights and self.weights_dtype in QUANTIZED:
            raise ValueError(
                f'split_weights: weights of the type {self.weights_dtype} stay whole; use weights_dtype = "bf16", or '
                "one of the two"
            )
        copied = self.weights_dtype == "fp32" != self.mixed_precision and not self.gradient_checkpointing
        if self.split_weights and copied:
            raise ValueError(
                f"split_weights: of fp32 weights every process would keep a copy in {self.mixed_precision} for the "
                f'backward pass; use weights_dtype = "{self.mixed_precision}", or gradient_checkpointing'
            )
        if self.split_weights and self.guard is not None:
            raise ValueError("split_weights: the guard makes its pictures in one process; leave one of the two out")
        return self

    @property
    def weights(self) -> tuple[float, ...] | None:
        """The weight of every data set; None where none has one."""
        if all(data.weight is None for data in self.data):
            return None
        return tuple(1.0 if data.weight is None else data.weight for data in self.data)

    def tasks(self, known: tuple[str, ...]) -> dict[str, float]:
        """The tasks with their weights, for a model that knows some.

        Raises:
            ValueError: it does not know one of them, or all weights are 0.
        """
        asked = self.task or known[0]
        table = {asked: 1.0} if isinstance(asked, str) else asked
        for name in table:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"task {name}: {self.model} is not trained on that{hint}; it knows {', '.join(known)}")
        wanted = {name: weight for name, weight in table.items() if weight}
        if not wanted:
            raise ValueError(f"task {table}: every weight is 0, so nothing would be trained; give one more")
        return wanted

    def tuning(self) -> MethodConfig:
        """The method with its options.

        Raises:
            ValueError: there is no such method or option.
        """
        return METHODS[self.method].model_validate({**self.method_options, **self.fitted_options()})

    def fitted_options(self) -> dict[str, int]:
        """What the papers do halfway or in rounds, fitted to the length of this run where it is not set."""
        options, fields = self.method_options, METHODS[self.method].model_fields
        fitted, steps = {}, self.fitted_to or self.max_train_steps

        def open_option(name: str) -> bool:
            return name in fields and fields[name].default is None and options.get(name) is None

        for name in ("reselect_step", "select_step"):
            if open_option(name) and steps > 1:
                fitted[name] = steps // 2
        if open_option("round_steps"):
            rounds = options.get("rounds", fields["rounds"].default)
            if isinstance(rounds, int) and rounds > 0:
                fitted["round_steps"] = max(1, steps // rounds)
        return fitted

    def loop(self, learning_rate: float) -> TrainingConfig:
        """What the training loop is told."""
        return TrainingConfig(
            steps=self.max_train_steps, batch_size=self.train_batch_size, learning_rate=learning_rate,
            gradient_accumulation_steps=self.gradient_accumulation_steps, warmup_steps=self.lr_warmup_steps,
            weight_decay=self.weight_decay, max_grad_norm=self.max_grad_norm, ema_decay=self.ema_decay,
            precision=self.mixed_precision, seed=self.seed, checkpoint_every=self.checkpointing_steps,
            keep_checkpoints=self.checkpoints_total_limit, evaluate_every=self.validation_steps,
            final_rate=self.lr_final_rate, **{name: getattr(self, name) for name in ScheduleOptions.model_fields},
        )  # fmt: skip


def read_config(path: Path) -> dict[str, Any]:
    """Reads a TOML file; folders in it are relative to it, and absolute afterwards: a run goes on from anywhere.

    Raises:
        ValueError: it cannot be read as TOML.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} cannot be read as TOML: {error}") from error
    if "finetune" in values:  # the config of a run's folder, whose folders are as they were given
        return dict(values["finetune"])
    sets = values.get("data")
    for data in sets if isinstance(sets, list) else ():
        if isinstance(data, dict) and isinstance(data.get("folder"), str):
            data["folder"] = str((path.parent / data["folder"]).absolute())
    if isinstance(values.get("cache_dir"), str):
        values["cache_dir"] = str((path.parent / values["cache_dir"]).absolute())
    return named_from_anywhere(values, path.parent)


def named_from_anywhere(values: dict[str, Any], place: Path) -> dict[str, Any]:
    """Makes a model's folder absolute that is named from a place; a hub id, and mini, stand for none."""
    model = values.get("model")
    if isinstance(model, str) and model != "mini" and (place / model).is_dir():
        values["model"] = str((place / model).absolute())
    return values


def set_value(values: dict[str, Any], name: str, value: Any) -> None:
    """Sets a.b = value in nested tables.

    Raises:
        ValueError: a part of the name is no table.
    """
    *tables, last = name.split(".")
    here: Any = values
    for table in tables:
        here = here.setdefault(table, {})
        if not isinstance(here, dict):
            raise ValueError(f"{name}: {table} is not a table")
    here[last] = value
