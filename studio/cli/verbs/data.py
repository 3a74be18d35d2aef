"""`studio data check`, `studio data preview` and `studio data unpack`."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import DONE, WRONG_REQUEST, RequestError
from studio.progress import Progress
from studio.requests import Positional, Request, Unit, make_request

if TYPE_CHECKING:
    from training.finetune.check import Checked
    from training.finetune.config import FinetuneConfig
    from training.finetune.data.problems import Problem
    from training.finetune.families import Family


class DataRequest(Request):
    """What both verbs are asked."""

    data: Annotated[Path, Positional()]
    """A folder of pictures and videos, or the TOML file of a fine-tuning run."""
    pretrained_model_name_or_path: Annotated[str, Field(min_length=1)] | None = None
    """The model that is to be trained, which says what sizes and lengths it takes. By default mini."""
    resolution: Annotated[int, Field(ge=32, le=4096, multiple_of=16), Unit("px")] | None = None
    """As in training. By default 128."""
    set: tuple[str, ...] = ()
    """Changes a setting of the run, NAME=VALUE, such as task=ti2v; repeat it for several."""


class CheckRequest(DataRequest):
    """Decodes every file before anything is trained: what is wrong, where, and the fix.

    Exit code 0 when all is fine, 2 when there are errors or warnings; notes say what is done with a file.
    """

    quarantine: bool = False
    """Moves the files that a run would leave out, with their captions, to the folder _quarantine in the data folder."""
    restore: bool = False
    """Puts back what was moved there."""


class PreviewRequest(DataRequest):
    """Draws what the model will see: cut, mirrored, with captions; of clips a strip. Tells how full the buckets are."""

    count: Annotated[int, Field(ge=1, le=400)] = 24
    """How many samples are drawn: the first ones that a run would see."""
    output: Path | None = None
    """The PNG to write; by default NAME-preview.png here."""


class UnpackRequest(Request):
    """Unpacks a zip of pictures, videos and captions into a data folder; files that cannot be read are set apart."""

    archive: Annotated[Path, Positional()]
    """The zip file."""
    into: Path
    """The folder that gets a folder for it. The same zip is unpacked once."""
    name: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """What the data set is called; by default as the zip file."""
    max_mb: Annotated[int, Field(ge=1, le=100_000), Unit("MB")] | None = None
    """The largest zip file. By default that of the settings."""


def run_unpack(request: UnpackRequest, console: Console) -> Result:
    """Unpacks, and says what was left out."""
    from studio.uploads import keep_data_set, limits_of_settings

    if not request.archive.is_file():
        raise RequestError(f"ARCHIVE {request.archive}: no such file")
    limits = limits_of_settings()
    if request.max_mb is not None:
        limits = limits.model_copy(update={"zip_mb": request.max_mb})

    def told(share: float) -> None:
        console.progress(Progress(stage="unpacking", done=round(share * 100), total=100, unit="%"))

    with request.archive.open("rb") as file:
        kept = keep_data_set(request.name or request.archive.name, file, request.into, limits=limits, tell=told)
    for what, rows in (("left out", kept.left_out), ("in quarantine", kept.quarantined)):
        for row in rows:
            console.note(f"{what}: {row.name}: {row.why}")
    console.say(f"{kept.folder}: {kept.pictures} pictures and {kept.videos} videos")
    return kept.model_dump(mode="json")


def run_check(request: CheckRequest, console: Console) -> Result:
    """Checks, and moves files where asked."""
    config = _config(request)
    if request.restore:
        if request.quarantine:
            raise RequestError("--restore puts back what --quarantine moves away; give one of the two")
        return _restore(config, console)
    from training.finetune.cache import Cache
    from training.finetune.check import check_data

    family = _family(config)
    with tempfile.TemporaryDirectory() as place:  # what is found of videos and poses, where the run has no cache yet
        checked = check_data(config, family, Cache(config.cache_dir or Path(place)), on_file=_counter(console))
    for text in checked.notes:
        console.note(text)
    _say_problems(checked.problems, console)
    moved = _quarantine(config, checked, console) if request.quarantine else []
    _sum_up(checked, console)
    return {
        "files": checked.files, "ok": checked.ok, "problems": [problem.as_dict() for problem in checked.problems],
        "notes": list(checked.notes), "samples": len(checked.found.samples) if checked.found else 0,
        "quarantined": [str(path) for path in moved], "exit_code": DONE if checked.ok else WRONG_REQUEST,
    }  # fmt: skip


def run_preview(request: PreviewRequest, console: Console) -> Result:
    """Draws the sheet."""
    from studio.files import check_output, moved_in
    from studio.preview import data_sheet
    from studio.sheet import write_png
    from training.finetune.cache import Cache
    from training.finetune.gather import gather

    config = _config(request)
    output = request.output or Path(f"{request.data.absolute().stem}-preview.png")
    check_output(output, suffixes=(".png",))
    family = _family(config)
    with tempfile.TemporaryDirectory() as place:
        cache = Cache(config.cache_dir or Path(place))
        found = gather(config, family, cache, on_file=_counter(console))
        sheet, drawn = data_sheet(config, family, found.samples, cache, request.count)
    with moved_in(output) as beside:
        write_png(beside, sheet)
    for text in found.notes:
        console.note(text)
    _tell_left_out(found.left_out, console)
    counts = Counter((sample.task, sample.bucket) for sample in found.samples)
    rows = []
    for (task, (width, height, frames)), count in sorted(counts.items()):
        length = f" x {frames} frames" if frames > 1 else ""
        console.say(f"{task}: {width}x{height}{length}: {count} samples")
        rows.append({"task": task, "width": width, "height": height, "frames": frames, "samples": count})
    console.say(f"{output}: the first {drawn} samples")
    return {"output": str(output), "buckets": rows, "samples": len(found.samples), "drawn": drawn,
            "problems": [problem.as_dict() for problem in found.problems], "notes": list(found.notes)}  # fmt: skip


def _config(request: DataRequest) -> "FinetuneConfig":
    from studio.cli.verbs.train import read_settings
    from training.finetune.config import FinetuneConfig, read_config, set_value

    path = request.data
    if not path.exists():
        raise RequestError(f"DATA {path}: no such file or folder")
    if path.is_file() and path.suffix.lower() != ".toml":
        raise RequestError(f"DATA {path}: is a file; name the folder that it is in, or a .toml file")
    values: dict[str, Any] = {"data": [{"folder": str(path)}]} if path.is_dir() else read_config(path)
    if request.pretrained_model_name_or_path is not None:
        values["model"] = request.pretrained_model_name_or_path
    if request.resolution is not None:
        values["resolution"] = request.resolution
    for name, value in read_settings(request.set).items():
        set_value(values, name, value)
    return make_request(FinetuneConfig, values)


def _family(config: "FinetuneConfig") -> "Family":
    from models.loading import resolve_folder
    from training.finetune.families import open_family

    return open_family(resolve_folder(config.model), config.component)


def _counter(console: Console) -> Any:
    def told(done: int, total: int) -> None:
        console.progress(Progress(stage="looking at files", done=done, total=total, unit="files"))

    return told


def _quarantine(config: "FinetuneConfig", checked: "Checked", console: Console) -> list[Path]:
    from training.finetune.data.problems import errors_in
    from training.finetune.data.quarantine import move_away

    moved = []
    for folder in dict.fromkeys(data.folder for data in config.data):
        own = move_away(folder, errors_in(checked.problems, folder))
        if own:
            console.say(f"{len(own)} files moved to {folder / '_quarantine'}; --restore puts them back")
        moved += own
    return moved


def _restore(config: "FinetuneConfig", console: Console) -> Result:
    from training.finetune.data.quarantine import restore

    back: list[str] = []
    kept: list[str] = []
    for folder in dict.fromkeys(data.folder for data in config.data):
        done = restore(folder)
        back += map(str, done.files)
        for path, why in done.kept:
            kept.append(str(path))
            console.note(f"{path} stays: {why}")
        console.say(f"{folder}: {len(done.files)} files are back")
    return {"restored": back, "kept": kept, "exit_code": WRONG_REQUEST if kept else DONE}


def _say_problems(problems: "Sequence[Problem]", console: Console) -> None:
    """Says each error and warning; notes of one kind together, since a data set is often all of one format."""
    for problem in problems:
        if problem.severity != "note":
            console.say(f"{problem.severity}: {problem.file}: {problem.why}\n{'':9}fix: {problem.fix}")
    notes: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.severity == "note":
            notes.setdefault(f"{problem.kind} {problem.why}", []).append(problem)
    for first, *others in notes.values():
        more = f" (and {len(others)} more like it)" if others else ""
        console.say(f"note: {first.file}{more}: {first.why}\n{'':9}fix: {first.fix}")


def _tell_left_out(problems: "tuple[Problem, ...]", console: Console) -> None:
    for problem in problems:
        console.note(f"left out: {problem.file}: {problem.why}")


def _sum_up(checked: "Checked", console: Console) -> None:
    counts = Counter(problem.severity for problem in checked.problems)
    said = ", ".join(f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in ("error", "warning", "note"))
    console.say(f"{checked.files} files: {said}" + ("" if checked.ok else "; see the fixes above"))


VERBS = (
    Verb("data check", CheckRequest, run_check),
    Verb("data preview", PreviewRequest, run_preview),
    Verb("data unpack", UnpackRequest, run_unpack),
)
