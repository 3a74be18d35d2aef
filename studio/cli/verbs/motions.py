"""`studio motions`."""

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.requests import Request


class MotionsRequest(Request):
    """Lists the bundled motions; each name can be used as --driving."""


def run(_: MotionsRequest, console: Console) -> Result:
    """Lists them with one line each."""
    from pose.bundled import MOTIONS

    width = max(map(len, MOTIONS))
    for name, description in MOTIONS.items():
        console.say(f"{name:<{width}}  {description}")
    return {"motions": [{"name": name, "description": text} for name, text in MOTIONS.items()]}


VERB = Verb("motions", MotionsRequest, run)
