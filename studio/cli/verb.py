"""What a verb is, and the table of them."""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydantic import BaseModel

from studio.cli.console import Console

Result = Mapping[str, object]
"""What `--json` prints: plain values only."""


@dataclass(frozen=True)
class Verb:
    """One or two words on the command line, the request they take, and what is done with it."""

    name: str
    """As typed: "animate", "pose extract"."""
    request: type[BaseModel]
    """Its fields are the flags, its docstring the help."""
    run: Callable[[Any, Console], Result]
    """Does it. Heavy imports belong inside: `--help` must answer in under a second."""

    @property
    def summary(self) -> str:
        """The first line of the help."""
        return (self.request.__doc__ or "").strip().splitlines()[0]


def load_verbs() -> dict[str, Verb]:
    """Collects `VERB` (or `VERBS`) of every module in `studio.cli.verbs`, in alphabetical order."""
    from studio.cli import verbs

    found: dict[str, Verb] = {}
    for module_info in pkgutil.iter_modules(verbs.__path__):
        module = import_module(f"{verbs.__name__}.{module_info.name}")
        for verb in getattr(module, "VERBS", None) or (module.VERB,):
            if verb.name in found:
                raise ImportError(f"two modules define the verb {verb.name!r}; the second is {module.__name__}")
            found[verb.name] = verb
    return dict(sorted(found.items()))
