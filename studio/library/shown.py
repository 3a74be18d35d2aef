"""The library in words for people: sizes, times, what stands under a card."""

import time
from typing import Final

from studio.library.thing import Kind, Thing

NAMES: Final[dict[Kind, str]] = {
    "result": "Results", "run": "Runs", "adapter": "Adapters", "study": "Studies", "model": "Models",
    "motion": "Motions", "character": "Characters",
}  # fmt: skip
ICONS: Final[dict[Kind, str]] = {
    "result": "movie", "run": "model_training", "adapter": "extension", "study": "query_stats",
    "model": "deployed_code", "motion": "directions_run", "character": "face",
}  # fmt: skip
TEACHING: Final[dict[Kind, str]] = {
    "result": "Nothing was made yet. Animate a character, and the video is kept here with all that made it.",
    "run": "No run yet. Fine-tune a model on your pictures, and its folder is kept here.",
    "adapter": "No adapter yet. A finished fine-tuning run leaves one: a small file that changes a model.",
    "study": "No study yet. A search or a comparison of methods is kept here as a whole.",
    "model": "No model is here, not even the small one that the studio brings; look at the System page.",
    "motion": "No motion is here. The Pose page makes motions of videos.",
    "character": "No character is here. Put pictures into the folder characters of the runs folder.",
}


def size_text(size: float) -> str:
    """Bytes for people: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def count_text(count: int, one: str = "thing", several: str = "") -> str:
    """A number of things: 1 thing, 10,000 things."""
    return f"1 {one}" if count == 1 else f"{count:,} {several or one + 's'}"


def when_text(at: float, now: float | None = None) -> str:
    """A time for people: 5 min ago, yesterday, 2026-01-31."""
    ago = (time.time() if now is None else now) - at
    if ago < 60:
        return "just now"
    if ago < 3600:
        return f"{ago // 60:.0f} min ago"
    if ago < 86_400:
        return f"{ago // 3600:.0f} h ago"
    if ago < 7 * 86_400:
        return f"{ago // 86_400:.0f} days ago" if ago >= 2 * 86_400 else "yesterday"
    return time.strftime("%Y-%m-%d", time.localtime(at))


def card_line(thing: Thing, now: float | None = None) -> str:
    """What stands under the title of a card."""
    facts = thing.facts
    parts: list[str] = []
    if thing.kind == "result":
        parts += [f"seed {facts['seed']}"] if "seed" in facts else []
        parts += [f"{facts['frames']} frames"] if "frames" in facts else []
    elif thing.kind == "run":
        parts += [str(facts.get("method") or "run")]
        if "steps" in facts:
            parts.append(f"{facts['steps']} steps" + ("" if facts.get("complete") else ", not finished"))
    elif thing.kind in ("adapter", "study"):
        parts += [str(facts[name]) for name in ("what", "method", "strategy") if facts.get(name)]
        parts += [f"for {thing.model.rsplit('/', 1)[-1]}"] if thing.model and thing.kind == "adapter" else []
    elif thing.kind == "model":
        parts += [str(facts["pipeline"])] if facts.get("pipeline") else []
    if thing.kind in ("motion", "character"):
        return thing.prompt or when_text(thing.made_at, now)
    if thing.is_bundled:
        return " · ".join([*parts, size_text(thing.bytes)])
    return " · ".join([*parts, when_text(thing.trashed_at or thing.made_at, now)])


def placeholder(kind: Kind) -> str:
    """An SVG for a thing of which there is no picture; the same shape as the pictures."""
    return _SVG.format(path=_SHAPES[kind])


_SVG: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="240" viewBox="0 0 320 240">'
    '<rect width="320" height="240" fill="#808495" fill-opacity="0.14"/>'
    '<g transform="translate(124 84) scale(3)" fill="none" stroke="#808495" stroke-width="1.6" '
    'stroke-linecap="round" stroke-linejoin="round">{path}</g></svg>'
)
_SHAPES: Final[dict[Kind, str]] = {
    "result": '<rect x="3" y="5" width="18" height="14" rx="2"/><path d="M10 9l5 3-5 3z"/>',
    "run": '<path d="M3 4v16h18M6 8c3 7 6 9 14 9"/>',
    "adapter": '<path d="M4 9h4a2.5 2.5 0 1 1 5 0h5v4a2.5 2.5 0 1 1 0 5v2H4z"/>',
    "study": '<path d="M4 4v16h16"/><path d="M8 15h.01M11 9h.01M15 12h.01M18 6h.01" stroke-width="3"/>',
    "model": '<path d="M12 3l8 4.5v9L12 21l-8-4.5v-9zM12 12l8-4.5M12 12v9M12 12L4 7.5"/>',
    "motion": '<circle cx="14" cy="4.5" r="2"/><path d="M13 8l-4 3 3 3-2 6M13 8l3 3 3 1M12 14l4 6M9 11l-3-1"/>',
    "character": '<circle cx="12" cy="8" r="4"/><path d="M4 21c0-5 3.5-8 8-8s8 3 8 8"/>',
}
