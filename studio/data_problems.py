"""What `studio data check` found, for a page: rows, a sentence, and what lies in quarantine."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def problem_rows(result: Mapping[str, Any], folders: Sequence[Path]) -> list[dict[str, str]]:
    """A row a problem: errors first, files by their path in the data folder; notes of one kind are one row."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    more: Counter[tuple[str, ...]] = Counter()
    for problem in result.get("problems", ()):
        one = () if problem["severity"] == "note" else (str(problem["file"]),)
        key = (problem["severity"], str(problem["kind"]), str(problem["why"]), *one)
        if key in rows:
            more[key] += 1
        else:
            rows[key] = {"severity": problem["severity"], "file": _within(Path(problem["file"]), folders),
                         "why": problem["why"], "fix": problem["fix"]}  # fmt: skip
    for key, count in more.items():
        rows[key]["file"] += f" and {count} more"
    return list(rows.values())


def _within(file: Path, folders: Sequence[Path]) -> str:
    for folder in folders:
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    return str(file)


def summary(result: Mapping[str, Any]) -> tuple[str, int]:
    """One sentence, and how many files a run would leave out."""
    counts = Counter(problem["severity"] for problem in result.get("problems", ()))
    bad = len({problem["file"] for problem in result.get("problems", ()) if problem["severity"] == "error"})
    said = [_counted(int(result.get("files", 0)), "file"), _counted(int(result.get("samples", 0)), "sample")]
    said += [_counted(counts[severity], severity) for severity in ("error", "warning") if counts[severity]]
    return (", ".join(said) + ("; nothing is wrong." if len(said) == 2 else ".")), bad


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def quarantines(folders: Sequence[Path]) -> dict[Path, int]:
    """Data folders with something in quarantine, and how many files that is."""
    found = {}
    for folder in folders:
        try:
            lines = (folder / "_quarantine" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        found[folder] = sum(bool(line.strip()) for line in lines)
    return {folder: count for folder, count in found.items() if count}
