"""The rules of the door, without a server: addresses, names, the token, and how often one may guess."""

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from studio.errors import RequestError

SHORTEST_TOKEN: Final = 16
TOKEN_VARIABLE: Final = "STUDIO_TOKEN"
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_LOCAL_NAMES: Final = {"localhost", "localhost.localdomain"}


def is_loopback(address: str | None) -> bool:
    """Tells whether an address to listen on reaches this machine only. None and "" mean every address: they do not."""
    if address in _LOCAL_NAMES:
        return True
    ip = _ip(address or "")
    return ip is not None and ip.is_loopback


def find_token(token_file: Path | None = None) -> str | None:
    """Reads the token: from a file, else from $STUDIO_TOKEN; None where neither is given.

    It is never a flag: all users of a machine see the words of all commands.

    Raises:
        RequestError: the file cannot be read by us, can be read by others, or the token is too short or has spaces.
    """
    if token_file is not None:
        where = f"--token-file {token_file}"
        try:
            if os.name == "posix" and token_file.stat().st_mode & 0o077:
                raise RequestError(f"{where}: others on this machine can read it; chmod 600 {token_file}")
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise RequestError(f"{where}: cannot be read ({reason}); give a file with the token in it") from None
    else:
        where, token = f"${TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    if len(token) < SHORTEST_TOKEN or not _TOKEN.fullmatch(token):
        raise RequestError(f"{where}: the token must have at least {SHORTEST_TOKEN} letters or digits and no spaces; "
                           "make one: python -c 'import secrets; print(secrets.token_urlsafe())'")  # fmt: skip
    return token


def new_token() -> str:
    """Makes a token that cannot be guessed: 256 bits."""
    return secrets.token_urlsafe(32)


def checked_hosts(names: tuple[str, ...], *, where: str = "--allow-host") -> frozenset[str]:
    """Checks names by which the app may be opened; `*.example.org` stands for all below.

    Raises:
        RequestError: a name with a scheme, a port or a path, or `*` alone.
    """
    for name in names:
        if not _HOST.fullmatch(name.lower()):
            raise RequestError(f"{where} {name!r}: give a plain host name such as studio.example.org or *.example.org")
    return frozenset(name.lower().rstrip(".") for name in names)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Who may come in."""

    token: str | None = None
    """What a visitor must know; None lets in this machine only."""
    hosts: frozenset[str] = frozenset()
    """Declared names beside those of this machine."""

    @property
    def cookie_name(self) -> str:
        """A name of its own for each token: browsers share cookies between the ports of a machine."""
        return f"studio_door_{self._keyed('name')[:8]}"

    @property
    def cookie_value(self) -> str:
        """What a signed-in browser holds: made from the token, which cannot be found from it."""
        return self._keyed("cookie")

    def token_fits(self, said: str) -> bool:
        """Compares in constant time."""
        return self.token is not None and hmac.compare_digest(said.encode(), self.token.encode())

    def cookie_fits(self, said: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(said.encode(), self.cookie_value.encode())

    def host_fits(self, host: str | None) -> bool:
        """Checks the name by which a page was asked for.

        A foreign page can give its own name our address (DNS rebinding) and then counts as one origin with us. So
        names must be ours: localhost, this machine's, the declared. With a token, numbers are fine too: they cannot
        be rebound.
        """
        name = _host_name(host)
        if name is None:
            return False
        ip = _ip(name)
        if ip is not None:
            return ip.is_loopback or self.token is not None or name in self.hosts
        return name in _LOCAL_NAMES or self._is_declared(name) or (self.token is not None and name in _own_names())

    def origin_fits(self, origin: str, host: str | None) -> bool:
        """Checks which page opens a websocket or sends something: only one of ours, on the same port."""
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https"):
            return False
        return parts.netloc.lower() == (host or "").lower() or self._is_declared(_host_name(parts.netloc) or "")

    def _is_declared(self, name: str) -> bool:
        return any(name == host or (host.startswith("*.") and name.endswith(host[1:])) for host in self.hosts)

    def _keyed(self, purpose: str) -> str:
        return hmac.new((self.token or "").encode(), f"studio door {purpose}".encode(), hashlib.sha256).hexdigest()


class Tries:
    """Counts wrong tokens by address, and holds further ones up for a while."""

    def __init__(self, *, most: int = 10, within_s: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        self._most, self._within_s, self._now = most, within_s, now
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long this address has to wait before it may try again; 0 when it may."""
        recent = self._recent(address)
        return max(0.0, recent[0] + self._within_s - self._now()) if len(recent) >= self._most else 0.0

    def add(self, address: str) -> None:
        """Notes a wrong token."""
        key = _network(address)
        self._wrong[key] = [*self._recent(address), self._now()][-self._most :]
        self._wrong.move_to_end(key)
        while len(self._wrong) > 4096:
            self._wrong.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        return [then for then in self._wrong.get(_network(address), []) if self._now() - then < self._within_s]


def _network(address: str) -> str:
    """One machine has 2**64 addresses of IPv6: they count as one."""
    ip = _ip(address)
    return str(ipaddress.ip_network((ip, 64), strict=False)) if isinstance(ip, ipaddress.IPv6Address) else address


def _host_name(host: str | None) -> str | None:
    try:
        parts = urlsplit(f"//{host or ''}")
        _ = parts.port  # raises for what is no port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc or not parts.hostname:
        return None
    return parts.hostname.lower().rstrip(".")


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.split(".")[0], f"{name.split('.')[0]}.local"}
