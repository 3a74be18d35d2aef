"""What the fine-tuning form decides: from values to settings, TOML and a command, and back; without streamlit.

`training.finetune.config` brings torch with it, so the config's classes are handed in or imported where they are used.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from studio.errors import RequestError
from training.toml import dump_toml

if TYPE_CHECKING:
    from training.finetune.config import FinetuneConfig

LEARNED: Final = ("task", "component", "trigger", "caption_dropout", "validation_share")
SEEN: Final = ("resolution", "crop", "flip", "num_frames", "fps", "clip_windows", "cache_dir")
BUDGET: Final = ("max_train_steps", "train_batch_size", "learning_rate")
MEMORY: Final = ("gradient_accumulation_steps", "mixed_precision", "weights_dtype", "gradient_checkpointing")
RATE: Final = (
    "lr_scheduler", "lr_warmup_steps", "lr_final_rate", "lr_num_cycles", "lr_power", "lr_power_a", "lr_power_b",
    "lr_decay_steps", "lr_decay", "fitted_to",
)  # fmt: skip
OPTIMIZER: Final = (
    "optimizer", "weight_decay", "max_grad_norm", "ema_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "adam_kernel", "snr_gamma", "seed",
)  # fmt: skip
KEPT: Final = (
    "validation_steps", "validation_prompts", "checkpointing_steps", "checkpoints_total_limit", "adapter_dtype",
    "license",
)  # fmt: skip
OWN: Final = ("model", "method", "method_options", "trainable_share", "scope", "data", "guard", "report_to")
"""Fields that the page draws in its own way; all others stand in the groups above."""
FOR_SEVERAL: Final = ("split_weights",)
"""Fields that say nothing to a single process, which is what the page starts."""
GROUPS: Final = (LEARNED, SEEN, BUDGET, MEMORY, RATE, OPTIMIZER, KEPT)

_NAME: Final = re.compile(r"[\w][\w .-]{0,79}")


def changed(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not the fields' defaults, in the order of the fields; nothing chosen is a default too."""
    kept: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value = values.get(name)
        if value is None or value == info.get_default(call_default_factory=True):
            continue
        kept[name] = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return kept


def settings_of(
    values: Mapping[str, Any],
    *,
    sets: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    guard: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The settings of a run: what its TOML file says.

    Args:
        values: of the fields of the config, `method` among them.
        sets: of each data set's fields.
        options: of the method's fields.
        guard: of the guard's fields; None leaves it off.
    """
    from training.finetune.config import DataSet, FinetuneConfig, GuardOptions
    from training.methods import METHODS

    method = str(values.get("method") or FinetuneConfig.model_fields["method"].default)
    settings: dict[str, Any] = {"model": values.get("model") or "mini", "method": method}
    settings |= changed(FinetuneConfig, {name: value for name, value in values.items() if name not in settings})
    if method in METHODS and (told := changed(METHODS[method], options)):
        settings["method_options"] = told
    if guard is not None:
        settings["guard"] = {"action": "warn", **changed(GuardOptions, guard)}
    settings["data"] = [changed(DataSet, one) for one in sets if str(one.get("folder") or "").strip()]
    return settings


def check_settings(settings: Mapping[str, Any]) -> "FinetuneConfig":
    """Checks settings as `studio train` does.

    Raises:
        RequestError: says what is wrong, and the fix.
    """
    from studio.cli.verbs.train import finetune_config

    if not settings.get("data"):
        raise RequestError("there is no data yet; give a folder of pictures, or upload a zip")
    for one in settings["data"]:
        folder = Path(str(one.get("folder", "")))
        if not folder.is_dir():
            raise RequestError(
                f"data folder {folder}: {'is a file; name its folder' if folder.is_file() else 'no such folder'}"
            )
    return finetune_config(None, {}, settings)


def toml_of(settings: Mapping[str, Any]) -> str:
    """The TOML file that says the same; folders in it are absolute, so it may lie anywhere.

    Raises:
        RequestError: a text in it cannot be written as TOML.
    """
    whole = {**settings, "data": [{**one, "folder": str(Path(one["folder"]).absolute())} for one in settings["data"]]}
    text = dump_toml(whole)
    try:
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeEncodeError) as error:
        raise RequestError(f"a text in the form has letters that no file can keep ({error}); write it anew") from error
    return text


def train_words(file: Path, run: Path, extra: Mapping[str, Any]) -> list[str]:
    """The command that starts a run from its TOML file.

    Args:
        extra: other flags by their fields' names; nothing chosen is left out.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in extra.items() if value not in (None, "", "auto")]
    return ["train", str(file), f"--output-dir={run}", *flags]


def suggest_name(method: str, folder: str, taken: Iterable[str]) -> str:
    """A name for a run that is still free, such as sara-red-things-2."""
    data = re.sub(r"[^\w]+", "-", Path(folder).name.lower()).strip("-_")[:40] if folder.strip() else ""
    stem = f"{method}-{data}" if data else method
    names = set(taken)
    number = next(n for n in range(1, len(names) + 2) if (stem if n == 1 else f"{stem}-{n}") not in names)
    return stem if number == 1 else f"{stem}-{number}"


def run_folder(root: Path, name: str) -> Path:
    """The folder of a run to come.

    Raises:
        RequestError: the name is no file name, or taken.
    """
    name = name.strip()
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise RequestError(f"the name {name[:80]!r} cannot be a folder's; use letters, digits, - and _, 80 at most")
    if name in RESERVED:
        raise RequestError(f"the name {name!r} is the studio's own; choose another")
    run = root / name
    if run.exists():
        raise RequestError(f"{run} is there already; choose another name")
    return run


RESERVED: Final = {"jobs", "uploads", "cache", "app"}
"""Folders that the studio itself has beside the runs."""


def widget_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the form for the settings of an earlier run: field names, dotted for nested ones.

    `data.1.folder` is the second data set's, `sara.fraction` an option of the method, `guard.action` the guard's, and
    `guard.on` says whether there is one. Tables of tasks have no widget and are left out.
    """
    method = str(settings.get("method", "sara"))
    found: dict[str, Any] = {"guard.on": settings.get("guard") is not None}
    for name, value in settings.items():
        match name:
            case "method_options":
                found |= {f"{method}.{option}": given for option, given in value.items()}
            case "guard":
                found |= {f"guard.{option}": given for option, given in (value or {}).items()}
            case "data":
                found["sets"] = len(value)
                for number, one in enumerate(value):
                    found |= {f"data.{number}.{option}": given for option, given in one.items()}
            case "task" if not isinstance(value, str):
                continue
            case _:
                found[name] = value
    return {name: value for name, value in found.items() if value is not None}
