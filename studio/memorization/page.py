"""The report as one HTML page that needs nothing beside it."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from studio.files import moved_in

if TYPE_CHECKING:
    from training.finetune.audit import Audit, Figure

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1d22; --soft: #5d6470; --ground: #fdfdfc; --line: #d9dbe0;
  --bad: #b3261e; --good: #1d6f42; --made: #c8553d; --unseen: #3d6fc8; --blurred: #8a8f99; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --soft: #9aa1ad; --ground: #17181b; --line: #34373d;
  --bad: #ff8a80; --good: #7fd6a4; --made: #f0876f; --unseen: #86aef5; --blurred: #8a8f99; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p.verdict { font-size: 1.1rem; border-left: 4px solid var(--line); padding: .3rem 0 .3rem 1rem; }
p.verdict.bad { border-color: var(--bad); } p.verdict.good { border-color: var(--good); }
.soft { color: var(--soft); } .bad { color: var(--bad); } .good { color: var(--good); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; } td.number, th.number { text-align: right; white-space: nowrap; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; } figure img { width: calc(50% - 2px); image-rendering: pixelated; }
figcaption { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere; }
svg text { fill: var(--soft); font-size: 11px; }
"""
_COLOURS: Final = ("--made", "--unseen", "--blurred")
_BINS: Final = 30
_ROWS: Final = 50
"""Captions and files that are listed; the JSON has all."""


def write_page(path: Path, audit: "Audit") -> None:
    """Writes the page."""
    with moved_in(path) as staged:
        staged.write_text(page(audit), encoding="utf-8")


def page(audit: "Audit") -> str:
    """The page. Captions and paths are text of others, so all of them are escaped."""
    mood = {True: "bad", False: "good", None: ""}[audit.copies]
    parts = [
        f"<h1>What {escape(Path(audit.run).name)} has memorized</h1>",
        f'<p class="verdict {mood}">{escape(audit.words)}</p>',
        f'<p class="soft">{audit.samples} samples of {audit.trained} trained pictures\' captions, beside '
        f"{audit.held_out} held-out pictures. {escape(audit.run)}</p>",
        "<h2>Figures</h2>", _figures(audit.figures), "<h2>Distance to the nearest trained picture</h2>",
        _histogram(audit.distances, audit.space), "<h2>Nearest pairs</h2>", _pairs(audit),
        "<h2>Captions at risk</h2>", _risks(audit),
    ]  # fmt: skip
    if audit.canaries:
        parts += ["<h2>Canaries</h2>", _canaries(audit)]
    parts += ["<h2>Duplicates in the data</h2>", _duplicates(audit)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Memorization of {escape(Path(audit.run).name)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already."""

    def row(cells: Sequence[str], tag: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        kinds = [' class="number"' if k in numbers else "" for k in range(len(cells))]
        return "".join(f"<{tag}{scope}{kind}>{cell}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{row(head, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def _figures(figures: "Sequence[Figure]") -> str:
    known = [figure for figure in figures if figure.value is not None]
    rows = [
        (
            f'{escape(f.title)}<br><span class="soft">{escape(f.meaning)}</span>', number(f.value), interval(f),
            background(f), _verdict(f),
        )
        for f in known
    ]  # fmt: skip
    table = _table(("figure", "value", "95 % interval", "without copying", "says"), rows, (1, 2, 3))
    missing = [(escape(f.title), escape(f.why)) for f in figures if f.value is None]
    return table + ("<h3>Not measured</h3>" + _table(("figure", "why"), missing) if missing else "")


def _verdict(figure: "Figure") -> str:
    mood = {"copying": "bad", "no copying": "good"}.get(figure.verdict, "soft")
    return f'<span class="{mood}">{escape(figure.verdict)}</span>'


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "–" if value is None else f"{value:.3g}"


def background(figure: "Figure") -> str:
    """The number, and its interval where it has one."""
    if figure.background_high is None or figure.background_low == figure.background_high:
        return number(figure.background)
    return f"{number(figure.background)} ({figure.background_low:.2g} to {figure.background_high:.2g})"


def interval(figure: "Figure") -> str:
    """From low to high, or a dash."""
    return "–" if figure.low is None else f"{figure.low:.3g} to {figure.high:.3g}"


def _histogram(distances: dict[str, tuple[float, ...]], space: str) -> str:
    """Bars of every set, each of one height in all, on one axis."""
    known = {name: values for name, values in distances.items() if values}
    most = max((max(values) for values in known.values()), default=0.0) or 1.0
    width, height, gap = 640, 90, 26
    drawn = []
    for place, (name, values) in enumerate(known.items()):
        counts = [0] * _BINS
        for value in values:
            counts[min(_BINS - 1, int(value / most * _BINS))] += 1
        top = place * (height + gap)
        drawn.append(f'<text x="0" y="{top + 12}">{escape(name)} ({len(values)})</text>')
        for k, count in enumerate(counts):
            tall = (height - 18) * count / max(counts)
            drawn.append(
                f'<rect x="{k * width / _BINS:.1f}" y="{top + height - tall:.1f}" width="{width / _BINS - 1:.1f}" '
                f'height="{tall:.1f}" fill="var({_COLOURS[place]})"/>'
            )
    full = len(known) * (height + gap)
    drawn.append(f'<text x="0" y="{full}">0</text><text x="{width}" y="{full}" text-anchor="end">{most:.3g}</text>')
    told = (
        f"Histograms of the distances in {escape(space)} of {escape(', '.join(known))} to the nearest trained picture"
    )
    return f'<svg viewBox="0 0 {width} {full + 4}" role="img" aria-label="{told}" width="100%">{"".join(drawn)}</svg>'


def _pairs(audit: "Audit") -> str:
    shown = []
    for pair in audit.pairs:
        caption, file = escape(pair.caption), escape(pair.file)
        shown.append(
            f'<figure><img src="{_png(pair.made)}" alt="made of: {caption}"> '
            f'<img src="{_png(pair.trained)}" alt="trained picture {file}">'
            f"<figcaption>{caption}, seed {pair.seed}, distance {pair.distance:.3g} "
            f"({escape(pair.space)})<br>{file}</figcaption></figure>"
        )
    told = "Left what the model made, right what it was trained on."
    return f'<p class="soft">{told}</p><div class="pairs">{"".join(shown)}</div>'


def _png(picture: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _risks(audit: "Audit") -> str:
    rows = [
        (
            escape(r.caption) or '<span class="soft">no caption</span>', str(r.pictures), f"{r.rank:.2f}",
            number(r.magnitude), number(r.nearest), "yes" if r.extracted else "no",
        )
        for r in audit.risks[:_ROWS]
    ]  # fmt: skip
    head = ("caption", "pictures", "risk, 0 to 1", "magnitude", "share of unseen pictures nearer", "extracted")
    return _table(head, rows, (1, 2, 3, 4))


def _canaries(audit: "Audit") -> str:
    names = sorted({name for canary in audit.canaries for name in canary.scores})
    rows = [
        (escape(c.sample.caption), str(c.repeats), *(number(c.scores.get(name)) for name in names))
        for c in audit.canaries
    ]
    told = "Pictures planted at known repeats: what is detected of these would be of others. More is more memorized."
    return f'<p class="soft">{told}</p>' + _table(("caption", "repeats", *names), rows, tuple(range(1, len(names) + 2)))


def _duplicates(audit: "Audit") -> str:
    twins = audit.twins
    rows = [(escape(file), f"{count} times the same file") for file, count in twins.identical]
    rows += [(escape(str(one.path)), f"looks like {escape(str(other.path))}") for one, other in twins.trained]
    leaked = [(escape(str(one.path)), f"<b>held out</b> as {escape(str(other.path))}") for one, other in twins.leaked]
    if not rows and not leaked:
        return '<p class="soft">None were found.</p>'
    more = len(rows) - _ROWS
    return _table(("file", ""), [*leaked, *rows[:_ROWS]]) + (f"<p>and {more} more</p>" if more > 0 else "")
