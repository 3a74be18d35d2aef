"""Writes docs/cli.md from the verbs themselves: run it from the repository's root after changing a flag.

.venv/bin/python scripts/make_cli_docs.py
"""

import inspect
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from studio.cli.flags import make_parser
from studio.cli.verb import load_verbs

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# The command line

Written by `scripts/make_cli_docs.py` from the verbs themselves; `studio VERB --help` says the same.

`.venv/bin/studio VERB [flags]`, also `python -m studio VERB`. Every verb takes `--help` and `--json`: progress then
goes to stderr and the last line of stdout is one JSON object. Exit codes: 0 done, 1 failed while running, 2 the request
was wrong, 130 interrupted. `STUDIO_DEBUG=1` shows the traceback of a failure.
"""


def page() -> str:
    """The whole page."""
    verbs = load_verbs()
    listed = "\n".join(
        f"- [`studio {name}`](#studio-{name.replace(' ', '-')}): {verb.summary}" for name, verb in verbs.items()
    )
    return "\n".join([HEAD, listed, *(section(name, verb.request) for name, verb in verbs.items())])


def section(name: str, request: type[BaseModel]) -> str:
    """One verb with its flags, in the order of `--help`."""
    lines = [f"\n## studio {name}\n", inspect.cleandoc(request.__doc__ or "")]
    rows = []
    for action in make_parser(f"studio {name}", request)._actions:
        if action.dest not in request.model_fields:
            continue  # --json and --help, which every verb has
        info = request.model_fields[action.dest]
        spelt = action.option_strings[0] if action.option_strings else action.dest.upper()
        shown = "required" if info.is_required() else default(info.get_default(call_default_factory=True))
        rows.append(f"| `{spelt}` | {(info.description or '').replace('|', chr(92) + '|')} | {shown} |")
    if rows:
        lines += ["", "| flag | what it does | default |", "|---|---|---|", *rows]
    return "\n".join(lines)


def default(value: Any) -> str:
    """Words a default; what is worked out later is said in the help."""
    if value is None or isinstance(value, BaseModel) or value is PydanticUndefined or value == () or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(page() + "\n", encoding="utf-8")
    print(PAGE)
