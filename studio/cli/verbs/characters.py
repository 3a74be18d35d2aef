"""`studio characters`."""

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.requests import Request


class CharactersRequest(Request):
    """Lists the bundled characters; each name can be used as --reference or --image."""


def run(_: CharactersRequest, console: Console) -> Result:
    """Lists them with one line each."""
    from studio.characters import CHARACTERS, character_file

    width = max(map(len, CHARACTERS))
    for name, description in CHARACTERS.items():
        console.say(f"{name:<{width}}  {description}")
    rows = [{"name": n, "description": text, "file": str(character_file(n))} for n, text in CHARACTERS.items()]
    return {"characters": rows}


VERB = Verb("characters", CharactersRequest, run)
