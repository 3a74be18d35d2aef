"""Serves the pages behind the door: `studio app` and `streamlit run app.py` both come through here."""

import os
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import streamlit as st
from starlette.middleware import Middleware
from streamlit import config, runtime
from streamlit.web.bootstrap import load_config_options

from models.loading import is_hub_id
from studio.door.asgi import Door
from studio.door.rules import TOKEN_VARIABLE, Rules, checked_hosts, find_token, is_loopback, new_token
from studio.errors import RequestError
from studio.roots import declared_roots, inside_roots
from studio.settings import Settings, studio_settings
from studio.ui.warm import warm_up

PAGES: Final = Path(__file__).parents[1] / "pages_script.py"
EXPOSED: Final = (
    "The studio would be open to everyone who can reach this machine: it was started on {address} without its door. "
    "Start it with `studio app --host {address}`, which asks for a token."
)


def safe_options(settings: Settings) -> dict[str, Any]:
    """Streamlit's options that nobody's own configuration may loosen."""
    return {
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableStaticServing": False,
        "server.fileWatcherType": "none",
        "server.maxUploadSize": settings.uploads.upload_mb,
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "full" if debugging() else "none",
        "client.toolbarMode": "viewer",
        "runner.magicEnabled": False,
        "logger.hideWelcomeMessage": True,  # it asks a server on the internet for our address; we print our own
    }


def debugging() -> bool:
    """Whether the owner asked for details of errors on the pages: $STUDIO_DEBUG."""
    return os.environ.get("STUDIO_DEBUG", "") not in ("", "0")


def door_to(
    address: str | None,
    *,
    tell: Callable[[str], None],
    token_file: Path | None = None,
    hosts: tuple[str, ...] = (),
    browser: bool = False,
) -> dict[str, Any]:
    """Makes what `st.App` takes beside the script: the door, the options, and the words at the start.

    Any `address` but this machine's own gets a token, a new one where none is given.

    Raises:
        RequestError: the token, a host name or the settings are wrong.
    """
    settings = studio_settings()
    given = find_token(token_file)
    os.environ.pop(TOKEN_VARIABLE, None)  # jobs that are started from here need not know it
    token = given or (None if is_loopback(address) else new_token())
    declared = (*hosts, *settings.hosts, *config.get_option("server.allowedHosts"))
    rules = Rules(token=token, hosts=checked_hosts(declared))

    @asynccontextmanager
    async def greeting(_: st.App) -> AsyncIterator[None]:
        warm_up()
        tell(_greeting(address, rules, is_new=given is None))
        if browser and rules.token is None:  # in a thread: some browsers run until they are closed
            threading.Thread(target=webbrowser.open, args=(_url(address),), daemon=True).start()
        yield

    return {"middleware": [Middleware(Door, rules=rules)], "lifespan": greeting}


def door_of_streamlit_run() -> dict[str, Any]:
    """The same for `streamlit run`, which has read its options by then: the unsafe among them are put right.

    Raises:
        SystemExit: the token, a host name or the settings are wrong.
    """
    try:
        for name, value in safe_options(studio_settings()).items():
            config.set_option(name, value)
        return door_to(
            config.get_option("server.address"), tell=_on_stderr, browser=not config.get_option("server.headless")
        )
    except RequestError as error:
        raise SystemExit(f"error: {error}") from None  # a message, where Streamlit would print a traceback


def serve(
    host: str,
    port: int,
    *,
    tell: Callable[[str], None],
    token_file: Path | None = None,
    hosts: tuple[str, ...] = (),
    browser: bool = True,
) -> None:
    """Serves the studio until it is stopped; `tell` hears the address, with a new token this once.

    Raises:
        RequestError: the token, a host name or the settings are wrong.
        RuntimeError: it could not listen.
    """
    options = {**safe_options(studio_settings()), "server.address": host, "server.port": port, "server.headless": True}
    load_config_options(options)  # as `run` does later: read in another way first, it would tell of a change
    app = st.App(PAGES, **door_to(host, tell=tell, token_file=token_file, hosts=hosts, browser=browser))
    try:
        app.run(config=options)
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"could not listen on {host} port {port}; is it taken? try --port") from None
    except OSError as error:
        raise RuntimeError(f"could not listen on {host} port {port}: {error.strerror}; try --host 127.0.0.1") from None


def why_exposed() -> str:
    """Says why no page may be drawn: a server without the door that others can reach. "" when all is well.

    `streamlit run studio/pages_script.py --server.address 0.0.0.0` would be one. Tests draw pages without a server.
    """
    address = config.get_option("server.address")
    if not runtime.exists() or Door.standing or is_loopback(address):
        return ""
    return EXPOSED.format(address=address or "0.0.0.0")


def typed_model(name: str) -> str:
    """Checks a model that was named on a page: mini, a hub id, or a folder where models may lie.

    Raises:
        RequestError: it is a folder elsewhere.
    """
    if name != "mini" and (Path(name).exists() or not is_hub_id(name)):
        inside_roots(name, roots=(*_roots(), *studio_settings().model_folders), what="model")
    return name


def typed_path(text: str, *, what: str = "path") -> Path:
    """Checks a path that was typed into a page: it must lie in the runs, in a declared data folder, or, where only
    this machine can reach the app, in the folder that it was started in.

    Raises:
        RequestError: it lies elsewhere.
    """
    return inside_roots(text, roots=_roots(), what=what)


def _roots() -> tuple[Path, ...]:
    return declared_roots(local=not runtime.exists() or is_loopback(config.get_option("server.address")))


def _greeting(address: str | None, rules: Rules, *, is_new: bool) -> str:
    if rules.token is None:
        return f"the studio is at {_url(address)} and answers this machine only"
    if is_new:
        # never handed to a browser by us: the words of its command can be read by all users of this machine
        return f"the studio is at {_url(address)}?token={quote(rules.token)}\n      whoever has this address can use it"
    return f"the studio is at {_url(address)} and asks for the token in --token-file or ${TOKEN_VARIABLE}"


def _url(address: str | None) -> str:
    wildcard = address in (None, "", "0.0.0.0", "::")
    name = socket.gethostname() if wildcard else f"[{address}]" if ":" in str(address) else str(address)
    scheme = "https" if config.get_option("server.sslCertFile") else "http"
    return f"{scheme}://{name}:{config.get_option('server.port')}/"


def _on_stderr(text: str) -> None:
    sys.stderr.write(f"note: {text}\n")
    sys.stderr.flush()
