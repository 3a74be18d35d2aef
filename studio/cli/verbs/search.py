"""`studio search` and `studio search show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError, did_you_mean
from studio.progress import Progress
from studio.requests import Device, Positional, Request, make_request

if TYPE_CHECKING:
    from training.finetune.config import FinetuneConfig
    from training.finetune.searching.inner import InnerTraining
    from training.finetune.searching.settings import SearchSettings
    from training.search.entries import Budget, Header
    from training.search.space import Candidate
    from training.search.study import Study


_DEAR = 0.35
"""Of training: above it, measuring is worth a word."""


class SearchRequest(Request):
    """Searches which parameters to train, so that a model learns its pictures without copying them (MemControl).

    CONFIG is a TOML file as for `studio train`, with a table [search]; see docs/search.md. The same command goes on
    where a search stopped, and any number of them work on one study.
    """

    config: Annotated[Path, Positional()]
    """The settings of the runs, and [search]."""
    strategy: Annotated[str, Field(min_length=1)] = "memcontrol-2"
    """What proposes candidates: memcontrol-2, random, nsga2 (the paper's), nsga2-10, tpe, tpe-multivariate or gp."""
    trials: Annotated[int, Field(ge=1)] | None = None
    """Runs in all, the two anchors (nothing and everything trained) included. By default 12."""
    budget_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps in all, instead of --trials."""
    storage: str | None = None
    """Where the ledger is kept: sqlite:///FILE or postgresql://HOST/DATABASE for several machines. By default a file
    in the study's folder."""
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The study's name in a database; by default that of its folder."""
    seed_configs: Path | None = None
    """Candidates to begin with: a JSON file, or the folder of another study, whose front is taken."""
    set: tuple[str, ...] = ()
    """Changes a setting, NAME=VALUE, such as max_train_steps=400 or search.samples=128; repeat it for several."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the strategy; that of the runs is a setting of theirs."""
    output_dir: Path = Path("runs/search")
    """The study's folder."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


class SearchShowRequest(Request):
    """Shows a study, also while it runs: its front, what it cost, and the run that it recommends."""

    study: Annotated[Path, Positional()]
    """The study's folder."""
    storage: str | None = None
    """Where its ledger is kept, as it was given to `studio search`."""
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The study's name, where the database holds several."""
    limit: Annotated[float, Field(gt=0, le=1)] | None = None
    """The highest copy rate that is acceptable; by default the study's, else the knee of the front is recommended."""
    point: Annotated[str, Field(pattern=r"^\d+:\d+$")] | None = None
    """Takes this point instead, TRIAL:STEP."""
    write: Path | None = None
    """Writes the recommended run as a TOML file for `studio train`."""
    pictures: Annotated[int, Field(ge=1)] | None = None
    """With --write: pictures of the new data; copies come later in proportion to them, so the steps are scaled."""


DEFAULT_TRIALS = 12


def run_search(request: SearchRequest, console: Console) -> Result:
    """Searches, then judges the front on pictures that the search did not see."""
    from studio.search_report import read_finals, write_report
    from studio.weights import choose_device, mini_folder
    from training.finetune.searching.inner import InnerTraining
    from training.finetune.searching.setup import write_setup
    from training.metrics.features import open_features
    from training.search.bilevel import Ended, bilevel
    from training.search.study import open_study

    config, settings = _settings(request)
    _check_strategy(request.strategy)
    if request.output_dir.is_file():
        raise RequestError(f"--output-dir {request.output_dir}: is a file; name a folder")
    device = choose_device(request.device)
    named = settings.features
    features = None if named is None else open_features(named, mini_folder(), device=device)
    inner = InnerTraining(config, settings, features, cache=request.output_dir / "cache", device=str(device))
    header = _header(request, settings, inner)
    console.say(
        f"{request.strategy} over {len(header.space.sites)} sites ({settings.sites}) and "
        f"{', '.join(header.space.numbers)}; {len(inner.bench.samples)} pictures are trained, "
        f"{len(inner.search_side)} judge the search and {len(inner.final_side)} the final choice"
    )
    share = inner.measuring_share
    less = "; fewer search.samples or search.checkpoints, or longer runs, make it less" if share > _DEAR else ""
    console.say(f"measuring a run takes about {share:.0%} of what training it does{less}")
    seeds = _seeds(request.seed_configs, inner)
    teller = _Teller(console, header.budget)
    inner.on_step = teller.on_step
    try:
        events = bilevel(
            request.output_dir, header, inner, storage=request.storage, seeds=seeds, on_end=inner.clean
        )  # fmt: skip
        for number, entry in enumerate(events):
            if number == 0:  # not before the study that may be there has been found to be the same
                write_setup(request.output_dir, inner.setup)
            if isinstance(entry, Ended):
                console.say(f"{entry.reason}" + (f"; {entry.running} still run elsewhere" if entry.running else ""))
            else:
                teller.take(entry)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; nothing is lost: the same command goes on with the study in {request.output_dir}"
        ) from None
    study = open_study(request.output_dir, request.storage, name=header.name)
    _judge_front(study, inner, console)
    write_report(study, read_finals(study.folder))
    return _result(study, console)


def run_show(request: SearchShowRequest, console: Console) -> Result:
    """Shows a study."""
    from studio.search_report import read_finals, write_report
    from training.search.study import open_study

    study = open_study(request.study, request.storage, name=request.name)
    write_report(study, read_finals(study.folder))
    result = dict(_result(study, console, request.limit, request.point))
    if request.write is not None:
        result["config"] = str(_write_config(study, request, result))
        console.say(f"{request.write}: `studio train {request.write}` trains it")
    return result


def _settings(request: SearchRequest) -> "tuple[FinetuneConfig, SearchSettings]":
    """The settings of the runs and of the search, with `--set` in them.

    Raises:
        RequestError: one is unknown or wrong.
    """
    from studio.cli.verbs.train import check_method, read_settings
    from training.finetune.config import FinetuneConfig, named_from_anywhere, read_config, set_value
    from training.finetune.searching.settings import SearchSettings, split_settings

    if not request.config.is_file():
        raise RequestError(f"CONFIG {request.config}: no such file")
    values = named_from_anywhere(read_config(request.config), Path.cwd())
    for name, value in read_settings(request.set).items():
        set_value(values, name, value)
    runs, table = split_settings(values)
    # a checkpoint then is what a run of that length would have been
    runs.setdefault("lr_scheduler", "constant_with_warmup")
    config = make_request(FinetuneConfig, runs)
    check_method(config.method, config.method_options)
    return config, make_request(SearchSettings, table)


def _check_strategy(name: str) -> None:
    from training.search.strategies import STRATEGIES

    if name not in STRATEGIES:
        hint = did_you_mean(name, STRATEGIES)
        raise RequestError(f"--strategy {name}: no such strategy{hint}; known are {', '.join(STRATEGIES)}")


def _header(request: SearchRequest, settings: "SearchSettings", inner: "InnerTraining") -> "Header":
    from studio.versions import our_version
    from training.search.entries import Budget, Header

    if request.trials is not None and request.budget_steps is not None:
        raise RequestError("--trials and --budget-steps say the same thing; give one of them")
    each = inner.steps[-1]
    if request.budget_steps is not None:
        budget = Budget(steps=request.budget_steps, steps_each=each)
    else:
        budget = Budget(trials=request.trials or DEFAULT_TRIALS)
    told = f"({inner.features}, N={settings.samples})"
    name = request.name or request.output_dir.absolute().name
    return Header(
        name=name, space=inner.space, budget=budget, strategy=request.strategy,
        seed=request.seed, limit=settings.limit, early_stop=settings.early_stop, reference=settings.reference,
        objectives=(f"kd{told}", f"copy-rate{told}"), fingerprint={**inner.fingerprint(), "version": our_version()},
    )  # fmt: skip


def _seeds(path: Path | None, inner: "InnerTraining") -> "list[Candidate]":
    """Candidates from a file, or of the front of another study by the names of its sites."""
    from studio.search_report import front_in
    from training.finetune.searching.setup import STOP_STEP, read_setup
    from training.search.seeds import read_candidates, seeds_of

    if path is None:
        return []
    if not path.is_dir():
        return read_candidates(path, inner.space)
    front = front_in(path)
    if not front:
        raise RequestError(f"--seed-configs {path}: that study has measured nothing yet")
    if not {site for row in front for site in row.sites} & set(inner.space.sites):
        raise RequestError(f"--seed-configs {path}: its front trains none of this network's sites")
    # copies come later in proportion to the pictures
    more = inner.setup.trained / read_setup(path).trained
    return seeds_of([(row.sites, {**row.values, STOP_STEP: row.step * more}) for row in front], inner.space)


class _Teller:
    """Says what happens in a search."""

    def __init__(self, console: Console, budget: "Budget") -> None:
        self._console, self._budget = console, budget
        self._number = 0

    def on_step(self, done: int, total: int) -> None:
        self._console.progress(Progress(stage=f"trial {self._number}", done=done, total=total))

    def take(self, entry: object) -> None:
        from training.search.entries import Asked, Finished, Measured, Taken

        match entry:
            case Asked(why="repeat"):
                self._console.say(f"proposed again: trial {entry.trial}, answered from the ledger")
            case Asked():
                self._number = entry.trial
                on, values = sum(entry.candidate.mask), entry.candidate.values
                worded = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
                self._console.say(f"trial {entry.trial} ({entry.why}): {on} of {len(entry.candidate.mask)}, {worded}")
            case Taken():
                self._number = entry.trial
                self._console.say(f"trial {entry.trial}: goes on, its worker is gone")
            case Measured():
                point = entry.point
                self._console.say(
                    f"  step {point.step:>6}   kernel distance {point.quality:8.4f}   copy rate {point.copying:.3f}"
                )
            case Finished():
                if entry.outcome != "complete":
                    self._console.note(f"trial {entry.trial} {entry.outcome}: {entry.reason}")


def _judge_front(study: "Study", inner: "InnerTraining", console: Console) -> None:
    """Measures every point of the front anew, on other held-out pictures and seeds; what was measured before stays.

    Other workers may still train, or judge as well, so ledger and figures are read again before every point.
    """
    from studio.search_report import add_final, name_of, read_finals

    done = 0
    while True:
        study.refresh()
        known = read_finals(study.folder)
        left = [result for result in study.front() if name_of(result) not in known]
        here = [result for result in left if result.adapter is None or result.adapter.is_file()]
        if not here:
            break
        found = inner.finally_judged(here[0].adapter)
        add_final(
            study, name_of(here[0]), {"quality": found.quality, "copying": found.copying, **found.metrics}
        )  # fmt: skip
        done += 1
        console.progress(Progress(stage="final choice", done=done, total=done + len(here) - 1, unit="points"))
    if left:
        folders = ", ".join(sorted({result.trial.folder for result in left}))
        console.note(
            f"{len(left)} points of the front have no adapter in {study.folder} ({folders}); where they were trained, "
            "the same command makes their final figures"
        )


def _result(study: "Study", console: Console, limit: float | None = None, point: str | None = None) -> Result:
    from studio.search_report import choose, name_of, read_finals, rows_of

    finals = read_finals(study.folder)
    rows = rows_of(study, finals)
    spent, volume = study.spent(), study.hypervolume()
    console.say(f"{'point':>9} {'sites':>6} {'trained':>11} {'rate':>8}   {'kd':>8} {'copies':>7}   final")
    for row in rows:
        final = "" if row.final is None else f"{row.final['quality']:8.4f} {row.final['copying']:7.3f}"
        console.say(
            f"{row.name:>9} {row.sites_on:>6} {row.trained:>11,} {row.rate:>8}   "
            f"{row.quality:8.4f} {row.copying:7.3f}   {final}"
        )
    chosen = choose(study, finals, limit=limit, name=point)
    limit = study.header.limit if limit is None else limit
    if chosen is None:
        console.say("nothing is measured yet" if limit is None else f"no point copies at most {limit:g}")
    else:
        console.say(f"recommended: {name_of(chosen)}" + (f", {chosen.adapter}" if chosen.adapter else ""))
    console.say(
        f"{spent.trials} trials, {spent.steps:,} steps; training {spent.train_seconds:.0f} s, "
        f"measuring {spent.judge_seconds:.0f} s; see {study.folder / 'index.html'}"
    )
    return {
        "front": [row.as_dict() for row in rows], "trials": spent.trials, "failed": spent.failed,
        "steps": spent.steps, "hypervolume": volume, "reference": study.reference(),
        "train_seconds": spent.train_seconds, "judge_seconds": spent.judge_seconds, "study": str(study.folder),
        "chosen": None if chosen is None else name_of(chosen),
        "adapter": str(chosen.adapter) if chosen is not None and chosen.adapter else None,
        "page": str(study.folder / "index.html"),
    }  # fmt: skip


def _write_config(study: "Study", request: SearchShowRequest, result: dict[str, Any]) -> Path:
    """Writes the recommended run as `studio train` takes it.

    Raises:
        RequestError: nothing is recommended, or it is the base model.
    """
    from studio.files import check_output, moved_in
    from studio.search_report import by_name
    from training.finetune.searching.setup import read_setup
    from training.toml import dump_toml

    assert request.write is not None
    check_output(request.write, flag="--write", suffixes=(".toml",))
    if result["chosen"] is None:
        raise RequestError("--write: no point is recommended; raise --limit, or name one with --point")
    chosen = by_name(study, str(result["chosen"]))
    config = read_setup(study.folder).run_at(chosen.candidate, chosen.point.step, pictures=request.pictures)
    with moved_in(request.write) as path:
        path.write_text(dump_toml(config.model_dump(mode="json")), encoding="utf-8")
    return request.write


VERBS = (Verb("search", SearchRequest, run_search), Verb("search show", SearchShowRequest, run_show))
