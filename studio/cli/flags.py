"""Turns the fields of a request into flags, and flags into a checked request.

Why not tyro (tried, 1.0.17): its errors are printed boxes followed by SystemExit, so `--json` cannot carry them; a
bound that pydantic refuses comes out as pydantic's dump with a link; an unknown verb gets no suggestion; `--height`
reads as `{None}|INT`. Here the same validation words the message for the command, for Python and for the form.
"""

import argparse
import types
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studio.errors import RequestError
from studio.requests import Positional, Repeated, Unit, make_request

R = TypeVar("R", bound=BaseModel)


class HelpAskedError(Exception):
    """`--help` was given; carries the text."""


class _Parser(argparse.ArgumentParser):
    """An argparse parser that raises instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message}; see `{self.prog} --help`")


def make_parser(program: str, kind: type[BaseModel]) -> argparse.ArgumentParser:
    """Builds the parser of one verb from the fields of its request."""
    parser = _Parser(prog=program, description=(kind.__doc__ or "").strip(), add_help=False, allow_abbrev=False)
    own = kind.__annotations__  # what the verb itself says comes before what it shares with others, required first
    for name, info in sorted(kind.model_fields.items(), key=lambda f: (not f[1].is_required(), f[0] not in own)):
        _add_flag(parser, name, info)
    parser.add_argument("--json", action="store_true", help="progress on stderr, one JSON object as the last line")
    parser.add_argument("--help", "-h", action="store_true", help="shows this")
    return parser


def parse_flags(program: str, kind: type[R], arguments: Sequence[str]) -> R:
    """Reads the flags of one verb. `--num_frames` and `--num-frames` are the same.

    Raises:
        HelpAskedError: `--help` is among them.
        RequestError: an unknown flag or a wrong value.
    """
    parser = make_parser(program, kind)
    if "--help" in arguments or "-h" in arguments:
        raise HelpAskedError(parser.format_help())
    found, unknown = parser.parse_known_args([_dashed(argument) for argument in arguments])
    if unknown:
        raise RequestError(_unknown(unknown[0], parser))
    given = {name: value for name, value in vars(found).items() if name in kind.model_fields and value is not None}
    return make_request(kind, given, as_flags=True)


def _add_flag(parser: argparse.ArgumentParser, name: str, info: FieldInfo) -> None:
    """Adds the flag of one field. Values stay text: pydantic reads them, so that its rules are the only ones."""
    help_text = _help(info)
    kind = _bare(info.annotation)
    if any(isinstance(mark, Positional) for mark in info.metadata):
        several = get_origin(kind) is tuple
        many = ("+" if several else None) if info.is_required() else "*" if several else "?"
        parser.add_argument(name, metavar=name.upper(), help=help_text, nargs=many)
        return
    flag = "--" + name.replace("_", "-")
    repeated = next((mark for mark in info.metadata if isinstance(mark, Repeated)), None)
    if repeated is not None:
        parser.add_argument(flag, dest=name, action="append", metavar=repeated.metavar, help=help_text)
    elif kind is bool:
        if info.default is True:
            parser.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=help_text)
        else:
            parser.add_argument(flag, dest=name, action="store_const", const=True, default=None, help=help_text)
    elif get_origin(kind) is tuple:
        parser.add_argument(flag, dest=name, action="append", metavar=_metavar(get_args(kind)[0]), help=help_text)
    else:
        parser.add_argument(flag, dest=name, metavar=_metavar(kind), help=help_text)


def _help(info: FieldInfo) -> str:
    """Writes help, unit and default on one line."""
    parts = [(info.description or "").replace("%", "%%")]
    parts += [f"[{mark.name}]" for mark in (*info.metadata, *_marks(info.annotation)) if isinstance(mark, Unit)]
    if info.is_required():
        parts.append("(required)")
    elif info.default not in (None, (), "", False) and not isinstance(info.default, BaseModel):
        parts.append(f"(default: {info.default})")
    return " ".join(part for part in parts if part)


def _marks(annotation: Any) -> list[Any]:
    """Collects what Annotated[...] says inside of `Annotated[...] | None`."""
    own = list(getattr(annotation, "__metadata__", ()))
    return own + [mark for part in get_args(annotation) if get_origin(part) is Annotated for mark in _marks(part)]


def _bare(annotation: Any) -> Any:
    """Takes `| None` and Annotated[...] off a type."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        else:
            return annotation


def _metavar(kind: Any) -> str:
    """Names the kind of value."""
    kind = _bare(kind)
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _dashed(argument: str) -> str:
    """Spells a flag with dashes; its value, if it stands in the same word, stays."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value


def _unknown(word: str, parser: argparse.ArgumentParser) -> str:
    """Words the error about something the verb does not take."""
    if not word.startswith("-"):
        return f"{word!r} is one value too many; see `{parser.prog} --help`"
    flag = word.partition("=")[0]
    known = [option for action in parser._actions for option in action.option_strings]
    close = get_close_matches(flag, known, n=1, cutoff=0.6)
    return f"{flag} is not a flag of `{parser.prog}`" + (
        f" (did you mean {close[0]}?)" if close else f"; see `{parser.prog} --help`"
    )
