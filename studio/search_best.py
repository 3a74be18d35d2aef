"""From a point of a study to the run that it stands for, on the same pictures or on others. Loads torch."""

import tomllib
from pathlib import Path
from typing import Any

from studio.errors import RequestError
from studio.search_report import by_name
from studio.studies import Place
from studio.study_view import open_place
from training.toml import dump_toml


def settings_of_point(place: Place, name: str, *, data: str = "", pictures: int | None = None) -> dict[str, Any]:
    """The settings of a run, as `studio train` takes them.

    Args:
        data: a folder of other pictures; by default those of the search.
        pictures: how many are trained; copies come later in proportion to them, so the steps are scaled.

    Raises:
        RequestError: there is no such point or folder, it trains nothing, or the study's setup is damaged.
    """
    from training.finetune.searching.setup import read_setup

    study = open_place(place)
    found = by_name(study, name)
    try:
        setup = read_setup(study.folder)
        config = setup.run_at(found.candidate, found.point.step, pictures=pictures)
    except ValueError as error:
        raise RequestError(f"point {name}: {error}") from None
    told: dict[str, Any] = config.model_dump(mode="json")
    if data:
        folder = Path(data).expanduser().absolute()
        if not folder.is_dir():
            raise RequestError(f"new pictures {data}: no such folder; name the one with the pictures")
        told["data"] = [{"folder": str(folder)}]
        told["cache_dir"] = None  # the search's cache is of its own pictures
    return {key: value for key, value in told.items() if value is not None}


def write_best(place: Place, name: str, file: Path, *, data: str = "", pictures: int | None = None) -> Path:
    """Writes them as a TOML file.

    Raises:
        RequestError: as `settings_of_point`.
    """
    text = dump_toml(settings_of_point(place, name, data=data, pictures=pictures))
    tomllib.loads(text)
    file.write_text(text, encoding="utf-8")
    return file
