"""`studio app`."""

import subprocess
import sys
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
    """Address to listen on; anything but 127.0.0.1 lets others on the network in, without a password."""
    browser: bool = True
    """Opens a browser window."""


def run(request: AppRequest, console: Console) -> Result:
    """Runs Streamlit until it is stopped."""
    from importlib.util import find_spec

    page = find_spec("studio.ui.main")
    assert page is not None and page.origin is not None
    if request.host not in ("127.0.0.1", "localhost", "::1"):
        console.note(f"{request.host} lets everyone who can reach this machine use it; there is no password")
    code = subprocess.call(
        [sys.executable, "-m", "streamlit", "run", page.origin, "--server.address", request.host,
         "--server.port", str(request.port), "--browser.gatherUsageStats", "false",
         "--server.headless", str(not request.browser).lower(), "--server.fileWatcherType", "none",
         "--runner.magicEnabled", "false",
         "--client.toolbarMode", "viewer"]
    )  # fmt: skip
    if code > 0:
        raise RuntimeError(f"streamlit ended with code {code}; is port {request.port} taken? try --port")
    return {"host": request.host, "port": request.port}


VERB = Verb("app", AppRequest, run)
