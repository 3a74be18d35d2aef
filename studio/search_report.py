"""What a search found: the front as JSON, CSV, a picture and a page, and which point of it to take."""

import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pose.wording import in_a_line
from studio.errors import RequestError
from studio.files import moved_in
from studio.search_plots import front_plot, masks_plot

if TYPE_CHECKING:
    from training.search.study import Result, Study

FINALS, FRONT, PAGE = "finals.json", "front.json", "index.html"
Finals = dict[str, dict[str, float]]
"""What the final choice measured of points, by their names: `quality`, `copying`, and the metrics by theirs."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A point of the front."""

    name: str
    """TRIAL:STEP."""
    trial: int
    step: int
    sites: tuple[str, ...]
    """Those that are trained."""
    values: dict[str, float | int | str]
    """The candidate's numbers."""
    trained: int
    """Trained numbers."""
    quality: float
    copying: float
    metrics: dict[str, float]
    adapter: str | None
    """Its file, below the study's folder."""
    final: dict[str, float] | None
    """Measured again on other pictures and seeds; None where that was not done yet."""

    @property
    def sites_on(self) -> int:
        """How many sites are trained."""
        return len(self.sites)

    @property
    def rate(self) -> str:
        """The learning rate, worded."""
        value = self.values.get("learning_rate")
        return f"{value:.2g}" if isinstance(value, float) else str(value or "")

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How far the figures of a point may be off."""

    error: float | None
    """Standard error of the kernel distance."""
    low: float | None
    high: float | None
    """The 95 % interval of the copy rate."""


def noise_of(metrics: Mapping[str, float]) -> Noise:
    """What was measured of it; None where a study is older than that."""

    def first(prefix: str) -> float | None:
        return next((value for name, value in metrics.items() if name.startswith(prefix)), None)

    return Noise(error=first("kd-error("), low=first("copy-rate-low("), high=first("copy-rate-high("))


def name_of(result: "Result") -> str:
    """A point's name, TRIAL:STEP."""
    return f"{result.trial.number}:{result.point.step}"


def by_name(study: "Study", name: str) -> "Result":
    """The point of that name.

    Raises:
        RequestError: there is none.
    """
    for result in study.points():
        if name_of(result) == name:
            return result
    known = ", ".join(map(name_of, study.front()))
    raise RequestError(f"--point {name}: there is no such point; on the front are {known or 'none'}")


def rows_of(study: "Study", finals: Finals) -> list[Row]:
    """The front, by quality."""
    return [row_of(study, result, finals) for result in study.front()]


def row_of(study: "Study", result: "Result", finals: Finals) -> Row:
    """All that is known of a point, also of one that is not on the front."""
    point, name = result.point, name_of(result)
    return Row(
        name=name, trial=result.trial.number, step=point.step,
        sites=tuple(s for s, bit in zip(study.header.space.sites, result.candidate.mask, strict=True) if bit),
        values=dict(result.candidate.values), trained=int(point.metrics.get("trained-numbers", 0)),
        quality=point.quality, copying=point.copying, metrics=dict(point.metrics), adapter=point.path,
        final=finals.get(name),
    )  # fmt: skip


def front_in(folder: Path) -> list[Row]:
    """The front of a study by its folder: of its ledger, or where that is in a database, as `front.json` has it.

    Raises:
        RequestError: there is neither.
    """
    from training.search.ledger import LEDGER
    from training.search.study import open_study

    if (folder / LEDGER).is_file():
        return rows_of(open_study(folder), {})
    path = folder / FRONT
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["front"]
        return [Row(**{**row, "sites": tuple(row["sites"])}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{folder} has no ledger, and {path.name} cannot be read ({in_a_line(error)}); `studio search show` with "
            "the study's --storage writes it"
        ) from None


def judged(study: "Study", finals: Finals) -> "Callable[[Result], tuple[float, float]]":
    """What points of the front are chosen by: the figures of the final choice, for a winner was lucky as well.

    Until all of the front have them those of the search: one of these beside final figures would win by its luck.
    """
    whole = all(name_of(result) in finals for result in study.front())

    def objectives(result: "Result") -> tuple[float, float]:
        final = finals.get(name_of(result)) if whole else None
        return result.objectives if final is None else (final["quality"], final["copying"])

    return objectives


def choose(study: "Study", finals: Finals, *, limit: float | None = None, name: str | None = None) -> "Result | None":
    """The point to take, by what the final choice measured where it did: a winner of the search was lucky as well.

    Args:
        limit: the highest copy rate; by default the study's; without any the knee of the front is taken.
        name: takes this one.

    Raises:
        RequestError: there is no point of that name.
    """
    from training.search import pareto

    if name is not None:
        return by_name(study, name)

    found, objectives = study.front(), judged(study, finals)
    limit = study.header.limit if limit is None else limit
    if limit is not None:
        return pareto.best_within(found, objectives, limit)
    return pareto.knee(found, objectives) if found else None


def read_finals(folder: Path) -> Finals:
    """What the final choice measured so far."""
    path = folder / FINALS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def add_final(study: "Study", name: str, found: dict[str, float]) -> None:
    """Keeps what it measured of a point, beside what other workers did meanwhile."""
    with study.ledger.exclusive():
        finals = {**read_finals(study.folder), name: found}
        with moved_in(study.folder / FINALS) as path:
            path.write_text(json.dumps(finals, indent=1), encoding="utf-8")


def write_report(study: "Study", finals: Finals) -> None:
    """Writes front.json, front.csv, front.png, masks.png and index.html into the study's folder."""
    rows, chosen = rows_of(study, finals), choose(study, finals)
    folder, header = study.folder, study.header
    told = {
        "study": header.name, "strategy": header.strategy, "objectives": list(header.objectives),
        "hypervolume": study.hypervolume(), "reference": study.reference(), "limit": header.limit,
        "chosen": None if chosen is None else name_of(chosen), "front": [row.as_dict() for row in rows],
    }  # fmt: skip
    with moved_in(folder / FRONT) as path:
        path.write_text(json.dumps(told, indent=1), encoding="utf-8")
    with moved_in(folder / "front.csv") as path:
        path.write_text(_csv(rows), encoding="utf-8")
    mark = None if chosen is None else name_of(chosen)
    with moved_in(folder / "front.png") as path:
        front_plot(study, rows, mark, path)
    with moved_in(folder / "masks.png") as path:
        masks_plot(header.space.sites, rows, path)
    with moved_in(folder / PAGE) as path:
        path.write_text(_page(study, rows, mark), encoding="utf-8")


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    flat = [
        {
            "point": row.name, **_figures("", {"quality": row.quality, "copying": row.copying, **row.metrics}),
            **_figures("final_", row.final or {}), "trained": row.trained, **row.values,
            "sites": " ".join(row.sites), "adapter": row.adapter,
        }
        for row in rows
    ]  # fmt: skip
    writer = csv.DictWriter(text, list(flat[0]) if flat else ["point"])
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _figures(prefix: str, found: Mapping[str, float]) -> dict[str, float | None]:
    noise = noise_of(found)
    told = {
        "quality": found.get("quality"), "quality_error": noise.error, "copying": found.get("copying"),
        "copying_low": noise.low, "copying_high": noise.high,
    }  # fmt: skip
    return {prefix + name: value for name, value in told.items()}


_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: #fff; }
tr.chosen { font-weight: 600; }
details td { text-align: left; }
"""


def _page(study: "Study", rows: Sequence[Row], mark: str | None) -> str:
    """One page that needs nothing but the pictures beside it."""
    header, spent = study.header, study.spent()
    quality, copying = (html.escape(name) for name in header.objectives)
    limit = "" if header.limit is None else f" Accepted is a copy rate of {header.limit:g} at most."
    body = "\n".join(_table_row(row, row.name == mark) for row in rows)
    sites = "\n".join(
        f"<tr><td>{html.escape(row.name)}</td><td>{html.escape(', '.join(row.sites)) or 'the base model'}</td></tr>"
        for row in rows
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(header.name)}: what to train</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(header.name)}</h1>
<p>{spent.trials} ways of training, {spent.steps:,} steps, strategy {html.escape(header.strategy)}.{limit}
{f"Recommended is <b>{html.escape(mark)}</b>." if mark else "Nothing is recommended."}</p>
<img src="front.png" alt="Every checkpoint by kernel distance and copy rate, with the front as a line">
<h2>The front</h2>
<table><tr><th>trial:step</th><th>sites</th><th>numbers</th><th>rate</th><th>{quality}</th><th>{copying}</th>
<th>final distance</th><th>final copies</th></tr>
{body}
</table>
<p>Smaller is better in both. After ± stands a standard error, in brackets a 95 % interval.
The final figures are of held-out pictures and seeds that the search did not see.</p>
<h2>What they train</h2>
<img src="masks.png" alt="One row for each point of the front, one column for each site; filled where it is trained">
<details><summary>By name</summary><table>{sites}</table></details>
</body></html>
"""


def _table_row(row: Row, chosen: bool) -> str:
    final = row.final or {}
    cells = [
        html.escape(row.name), str(row.sites_on), f"{row.trained:,}", html.escape(row.rate),
        *_worded(row.quality, row.copying, row.metrics),
        *(_worded(final["quality"], final["copying"], final) if final else ("", "")),
    ]  # fmt: skip
    tag = '<tr class="chosen">' if chosen else "<tr>"
    return tag + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _worded(quality: float, copying: float, metrics: Mapping[str, float]) -> tuple[str, str]:
    noise = noise_of(metrics)
    error = "" if noise.error is None else f" ± {noise.error:.4f}"
    interval = "" if noise.low is None or noise.high is None else f" ({noise.low:.3f} to {noise.high:.3f})"
    return f"{quality:.4f}{error}", f"{copying:.3f}{interval}"
