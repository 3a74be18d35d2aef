"""`studio app`."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.requests import Request


class AppRequest(Request):
    """Opens the studio in the browser."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8501
    """Port to listen on."""
    host: str = "127.0.0.1"
    """Address to listen on. With anything but 127.0.0.1 others on the network can come in, who know the token."""
    token_file: Path | None = None
    """A file with the token, for your eyes only (chmod 600). Else $STUDIO_TOKEN, or a new one that is printed."""
    allow_host: tuple[str, ...] = ()
    """A name by which it is opened beside this machine's own, such as that of a proxy; repeat it for several."""
    browser: bool = True
    """Opens a browser window, unless there is a token."""


def run(request: AppRequest, console: Console) -> Result:
    """Serves the app until it is stopped."""
    from studio.ui.serve import serve

    with suppress(KeyboardInterrupt):  # the way to end it
        serve(request.host, request.port, tell=console.note, token_file=request.token_file, hosts=request.allow_host,
              browser=request.browser)  # fmt: skip
    return {"host": request.host, "port": request.port}


VERB = Verb("app", AppRequest, run)
