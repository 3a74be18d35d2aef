"""Writing TOML: what `tomllib` reads, it does not write."""

import json
from collections.abc import Mapping
from typing import Any


def dump_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Tables of scalars and lists, tables in tables, and lists of tables. None is left out: TOML has no word for it."""
    return "\n".join(_lines(values, prefix)) + "\n"


def _lines(values: Mapping[str, Any], prefix: str) -> list[str]:
    lines, later = [], []
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if value is None:
            continue
        if isinstance(value, Mapping):
            later += ["", f"[{name}]", *_lines(value, name)]
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            for item in value:
                later += ["", f"[[{name}]]", *_lines(item, name)]
        else:
            # JSON's scalars and lists are TOML as they stand
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return lines + later
