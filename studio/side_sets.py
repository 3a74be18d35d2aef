"""Variants side by side: one animation for each variant and seed, and a file that remembers which jobs those are."""

import json
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from studio.animate_form import animate_words
from studio.errors import RequestError
from studio.files import moved_in
from studio.places import folders_with
from studio.run_reading import checkpoints, settings_of_run

FOLDER: Final = "side-by-side"
"""Below the runs."""
MOST_VARIANTS: Final = 4
MOST_SEEDS: Final = 8
ADAPTER: Final = "adapter.safetensors"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way of making the video."""

    label: str
    adapter: str | None = None
    """Its file; None is the base model."""
    scale: float = 1.0

    @property
    def flag(self) -> tuple[str, ...]:
        """What `--adapter` is given."""
        if self.adapter is None:
            return ()
        return (self.adapter if self.scale == 1 else f"{self.adapter}:{self.scale:g}",)


@dataclass(frozen=True, kw_only=True)
class Side:
    """A comparison of variants at the same seeds."""

    name: str
    reference: str
    driving: str
    prompt: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    jobs: tuple[tuple[int, ...], ...]
    """The job of every variant, for every seed."""
    made: float
    """Seconds since 1970."""


def check_variants(variants: Sequence[Variant], *, to_come: Collection[str] = ()) -> None:
    """Checks that there is something to compare.

    Args:
        to_come: adapters that are made first.

    Raises:
        RequestError: fewer than two, more than there is room for, the same twice, or a file that is not there.
    """
    if not 2 <= len(variants) <= MOST_VARIANTS:
        raise RequestError(f"{len(variants)} variants: choose 2 to {MOST_VARIANTS} to see side by side")
    seen: dict[tuple[str, ...], str] = {}
    for variant in variants:
        if variant.flag in seen:
            raise RequestError(f"{variant.label} and {seen[variant.flag]} are the same; give one another scale or file")
        seen[variant.flag] = variant.label
        if variant.adapter is None or variant.adapter in to_come:
            continue
        if not Path(variant.adapter).is_file():
            raise RequestError(f"{variant.label}: the adapter {Path(variant.adapter).name} is not there any more")


def read_seeds(text: str) -> tuple[int, ...]:
    """Reads seeds with commas between, and ranges such as 0-3.

    Raises:
        RequestError: one is no whole number, or there are too many.
    """
    found: list[int] = []
    for word in text.replace(" ", ",").split(","):
        first, dash, last = word.partition("-")
        if not word:
            continue
        if not all(
            part.isascii() and part.isdigit() and len(part) < 19 for part in ([first, last] if dash else [first])
        ):
            raise RequestError(
                f"seeds {text[:60]!r}: must be whole numbers with commas between, such as 0, 1, 7 or 0-3"
            )
        stop = int(last) if dash else int(first)
        if stop - int(first) >= MOST_SEEDS:
            raise RequestError(f"seeds {word}: at most {MOST_SEEDS} at once")
        found += range(int(first), stop + 1)
    found = list(dict.fromkeys(found))
    if not 1 <= len(found) <= MOST_SEEDS:
        raise RequestError(f"seeds {text[:60]!r}: give 1 to {MOST_SEEDS} of them, such as 0, 1, 7")
    return tuple(found)


def side_words(values: Mapping[str, Any], variant: Variant, seed: int, folder: Path) -> list[str]:
    """The command of one animation.

    Raises:
        RequestError: a value is wrong.
    """
    return animate_words({**values, "adapter": variant.flag, "seed": seed}, folder)


def new_name() -> str:
    """A name that sorts by time and is short enough for titles."""
    return f"{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def save_side(root: Path, side: Side) -> Path:
    """Keeps it below the runs."""
    path = root / FOLDER / f"{side.name}.json"
    with moved_in(path) as staged:
        staged.write_text(json.dumps(asdict(side), indent=1), encoding="utf-8")
    return path


def sides(root: Path, limit: int = 50) -> list[Side]:
    """Those that were kept, the latest first; files that cannot be read are left out."""
    paths = sorted((root / FOLDER).glob("*.json"), key=lambda path: -path.stat().st_mtime)
    found = []
    for path in paths[:limit]:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            found.append(
                Side(**{**told, "seeds": tuple(told["seeds"]), "jobs": tuple(map(tuple, told["jobs"])),
                        "variants": tuple(Variant(**one) for one in told["variants"])})
            )  # fmt: skip
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return found


def find_adapters(roots: Sequence[Path]) -> dict[str, Path]:
    """Adapters by a name for lists: of finished runs, of the fronts of studies, and uploaded ones."""
    found: dict[str, Path] = {}
    for folder in folders_with([ADAPTER], roots):
        found[_title(folder, roots)] = folder / ADAPTER
    for folder in folders_with(["front.json"], roots):
        found |= {f"{_title(folder, roots)} {name}": path for name, path in _of_front(folder).items()}
    for root in roots:
        for path in sorted((root / "uploads").glob("*.safetensors")):
            found[f"uploads/{path.stem}"] = path
    return found


def find_checkpoints(roots: Sequence[Path]) -> dict[str, tuple[Path, int]]:
    """Checkpoints of fine-tuning runs by a name for lists: the run and the step."""
    found: dict[str, tuple[Path, int]] = {}
    for folder in folders_with(["config.toml"], roots):
        if settings_of_run(folder) is not None:
            name = _title(folder, roots)
            found |= {f"{name}, step {one.step}": (folder, one.step) for one in checkpoints(folder)}
    return found


def _of_front(folder: Path) -> dict[str, Path]:
    try:
        rows = json.loads((folder / "front.json").read_text(encoding="utf-8"))["front"]
        files = {str(row["name"]): folder / row["adapter"] for row in rows if row.get("adapter")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: path for name, path in files.items() if path.resolve().is_relative_to(folder.resolve())}


def _title(folder: Path, roots: Sequence[Path]) -> str:
    root = next((root for root in roots if folder.is_relative_to(root)), None)
    return folder.relative_to(root).as_posix() if root is not None else str(folder)
