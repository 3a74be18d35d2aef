"""What the form of a search decides: from a base run and settings to TOML and a command; without streamlit."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from studio.cli.verbs.search import SearchRequest, SearchShowRequest
from studio.cli.words import words_for
from studio.errors import RequestError
from studio.requests import make_request
from studio.studies import Place
from training.finetune.searching.settings import SearchSettings, split_settings
from training.toml import dump_toml

MOST_BYTES: Final = 1_000_000
"""Of a TOML file."""
SITES: Final = {
    "blocks": "every transformer block",
    "layers": "every attention and feed-forward layer",
    "matrices": "q, k, v, output and feed-forward",
    "kinds": "each kind of layer in each half",
    "sd-13": "MemControl's 13 bits, for Stable Diffusion",
    "sd-16": "MemControl's 16 bits, for Stable Diffusion",
}
"""What a bit of the mask may stand for."""
STRATEGIES: Final = {
    "memcontrol-2": "a mask of every capacity first, then multivariate TPE that sees every checkpoint",
    "random": "even draws",
    "nsga2": "the paper's search, population 50",
    "nsga2-10": "the paper's search, population 10",
    "tpe": "one number at a time",
    "tpe-multivariate": "all numbers together",
    "gp": "a Gaussian process",
}
"""What proposes candidates. The registry of them takes torch and optuna along; a test holds both together."""

TEMPLATE: Final = """\
model = "mini"
method = "full"
max_train_steps = 600
validation_share = 0.4   # 40 pictures must be held out at least

[[data]]
folder = "/where/your/pictures/are"
"""


def read_base(text: str, folder: Path, *, allow: Callable[[str], Path] = Path) -> dict[str, Any]:
    """Reads a TOML file of a run, with a table [search] or without; folders in it become absolute.

    Args:
        folder: where relative folders in it begin.
        allow: checks a data folder's path and gives it; raises RequestError where it may not be read.

    Raises:
        RequestError: it is no TOML, or has no data.
    """
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise RequestError(f"the TOML has more than {MOST_BYTES:,} bytes; give the settings of one run")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"this is no TOML: {error}; correct that line") from None
    if isinstance(values.get("finetune"), dict):  # the config of a run's folder
        values = {**values["finetune"], **({"search": values["search"]} if "search" in values else {})}
    sets = values.get("data")
    if not isinstance(sets, list) or not sets:
        raise RequestError('the TOML names no data; add [[data]] with folder = "..."')
    for one in sets:
        if isinstance(one, dict) and isinstance(one.get("folder"), str):
            one["folder"] = str(allow(str((folder / Path(one["folder"]).expanduser()).absolute())))
            if not Path(one["folder"]).is_dir():
                raise RequestError(f"data folder {one['folder']}: no such folder; name the one with the pictures")
    if isinstance(values.get("cache_dir"), str):
        values["cache_dir"] = str((folder / values["cache_dir"]).absolute())
    return values


def settings_in(base: Mapping[str, Any]) -> dict[str, Any]:
    """The table [search] of a base, checked; empty where it has none.

    Raises:
        RequestError: a setting in it is wrong.
    """
    try:
        table = split_settings(dict(base))[1]
    except ValueError as error:
        raise RequestError(str(error)) from None
    make_request(SearchSettings, table)
    return table


def check_run(base: Mapping[str, Any]) -> None:
    """Checks the settings of the runs as `studio search` does, so that a wrong one is told at once. Loads torch.

    Raises:
        RequestError: says what is wrong, and the fix.
    """
    from studio.cli.verbs.train import check_method
    from training.finetune.config import FinetuneConfig

    config = make_request(FinetuneConfig, split_settings(dict(base))[0])
    check_method(config.method, config.method_options)


def search_toml(base: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The TOML file of a search: the runs' settings and those of the search that are not as they are by default.

    Raises:
        RequestError: a setting is wrong, or a text in it cannot be written as TOML.
    """
    runs = split_settings(dict(base))[0]
    checked = make_request(SearchSettings, {name: value for name, value in settings.items() if value is not None})
    told = checked.model_dump(mode="json")
    table = {
        name: value
        for name, value in told.items()
        if getattr(checked, name) != SearchSettings.model_fields[name].get_default(call_default_factory=True)
    }
    text = dump_toml({**runs, "search": table})
    try:
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeEncodeError) as error:
        raise RequestError(f"the settings have letters that no file can keep ({error}); write them anew") from None
    return text


def search_words(file: Path, values: Mapping[str, Any]) -> list[str]:
    """The command that starts or goes on with a search.

    Raises:
        RequestError: a value is wrong.
    """
    return words_for("search", SearchRequest, {**values, "config": file})


def best_words(place: Place, point: str, file: Path, pictures: int | None = None) -> list[str]:
    """The command that writes the run of a point as a TOML file.

    Raises:
        RequestError: a value is wrong.
    """
    return words_for("search show", SearchShowRequest, {
        "study": place.folder, "storage": place.storage, "name": place.name, "point": point, "write": file,
        "pictures": pictures,
    })  # fmt: skip


def read_options(text: str) -> dict[str, list[float | int | str]]:
    """Reads options of the method to choose from, as TOML: a name and a list of values on each line.

    Raises:
        RequestError: a line is none of that.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"options: {error}; write NAME = [VALUE, VALUE] on each line") from None
    for name, values in found.items():
        if not isinstance(values, list) or not values:
            raise RequestError(f"options {name}: must be a list of values, such as {name} = [0.01, 0.05]")
    return found


def read_steps(text: str) -> tuple[int, ...]:
    """Reads rising steps with commas between; nothing where there are none.

    Raises:
        RequestError: one is no whole number above 0.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise RequestError(f"checkpoints {text[:60]!r}: must be whole steps with commas between, such as 75, 150, 300")
    return tuple(map(int, words))


def more_toml(setup: Mapping[str, Any]) -> str:
    """The TOML file of a study that is there, from its setup.json: to go on with it from anywhere.

    Raises:
        RequestError: the folder has no setup.json.
    """
    if not setup:
        raise RequestError("the study's setup.json is missing or damaged; go on with the command that began it")
    return dump_toml({**setup["config"], "search": setup.get("search", {})})


def looks_of(settings: Mapping[str, Any], steps: int) -> int:
    """How often a run of so many steps is measured."""
    try:
        return len(SearchSettings.model_validate(dict(settings)).steps(steps))
    except ValueError:
        return 4


def duration(seconds: float) -> str:
    """A span of time in words: 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if unit == 'min' else 1}f} {unit}"
    return f"{max(1, round(seconds))} s"


def free_name(stem: str, taken: Sequence[str]) -> str:
    """A name that is still free: the stem, or with a number behind."""
    number = next(n for n in range(1, len(taken) + 2) if (stem if n == 1 else f"{stem}-{n}") not in taken)
    return stem if number == 1 else f"{stem}-{number}"
