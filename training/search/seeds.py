"""Candidates from a file: the door for any outside proposer, human or model."""

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from training.search.space import Candidate, Choice, Space, Value

_KEYS = ("sites", "mask", "values")


def read_candidates(path: Path, space: Space) -> list[Candidate]:
    """Reads `--seed-configs`, a JSON list of candidates.

    Each is an object of `values` (the numbers by name) and either `sites` (the names of those that are trained) or
    `mask` (a text of 0 and 1, one a site).

    Raises:
        ValueError: the file cannot be read, or a candidate is not of the space.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, list):
        raise ValueError(f"{path}: must be a list of candidates, is {type(found).__name__}")
    candidates = []
    for number, each in enumerate(found, 1):
        try:
            candidates.append(_candidate(each, space))
        except ValueError as error:
            raise ValueError(f"{path}, candidate {number}: {error}") from error
    return candidates


def seeds_of(found: Iterable[tuple[Collection[str], Mapping[str, Value]]], space: Space) -> list[Candidate]:
    """Candidates of another space, (names of the sites that are on, numbers by name), brought into this one.

    Sites that this space lacks are left out, numbers go to the nearest that there is, and those that are new to the
    middle. What trains nothing is no candidate.
    """
    candidates = []
    for sites, values in found:
        mask = tuple(site in sites for site in space.sites)
        numbers = {n: kind.nearest(values[n]) if n in values else kind.at(0.5) for n, kind in space.numbers.items()}
        if any(mask):
            candidates.append(Candidate(mask=mask, values=numbers))
    return list({candidate.key: candidate for candidate in candidates}.values())


def _candidate(found: Any, space: Space) -> Candidate:
    if not isinstance(found, dict):
        raise ValueError(f"must be an object with {', '.join(_KEYS)}, is {found!r:.40}")
    for key in found:
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}; there are {', '.join(_KEYS)}")
    if ("sites" in found) == ("mask" in found):
        raise ValueError("give either sites (names) or mask (a text of 0 and 1)")
    mask = _sites(found["sites"], space) if "sites" in found else _bits(found["mask"])
    values = found.get("values", {})
    if not isinstance(values, dict):
        raise ValueError(f"values must be an object of numbers by name, is {values!r:.40}")
    candidate = Candidate(mask=mask, values=values)
    space.check(candidate)
    return Candidate(mask=mask, values=_as_in_space(values, space))


def _sites(names: Any, space: Space) -> tuple[bool, ...]:
    if not isinstance(names, list):
        raise ValueError(f"sites must be a list of names, is {names!r:.40}")
    for name in names:
        if name not in space.sites:
            close = difflib.get_close_matches(str(name), space.sites, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"unknown site {name!r}; {hint}the space has {len(space.sites)}, {space.sites[0]!r} first")
    return tuple(site in names for site in space.sites)


def _bits(mask: Any) -> tuple[bool, ...]:
    if not isinstance(mask, str) or set(mask) - {"0", "1"}:
        raise ValueError(f"mask must be a text of 0 and 1, is {mask!r:.40}")
    return tuple(bit == "1" for bit in mask)


def _as_in_space(values: Mapping[str, Value], space: Space) -> dict[str, Value]:
    """JSON writes 1 for 1.0 and the other way round, and a candidate must be the same however it is written."""
    found: dict[str, Value] = {}
    for name, kind in space.numbers.items():
        value = values[name]
        found[name] = kind.options[kind.options.index(value)] if isinstance(kind, Choice) else float(value)
    return found
