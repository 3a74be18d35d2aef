"""The door before the app: every page, medium, upload and websocket passes it."""

from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from studio.door.page import message_page, refresh_page, sign_in_page
from studio.door.rules import Rules, Tries, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_FORM_BYTES: Final = 4096
_COOKIE_S: Final = 30 * 24 * 3600
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_POLICY: Final = "frame-ancestors 'self'; object-src 'none'; base-uri 'self'"
_MEDIA_POLICY: Final = f"{_POLICY}; sandbox"
"""A picture or file opened by itself runs no script, whatever it is."""


class Door:
    """ASGI middleware: refuses who may not come in, signs in who knows the token, and adds headers of safety."""

    standing: ClassVar[bool] = False
    """Whether the server of this process has a door; without one, `studio.ui.main` serves this machine only."""

    def __init__(self, app: App, *, rules: Rules, tries: Tries | None = None) -> None:
        self._app, self._rules, self._tries = app, rules, tries or Tries()
        Door.standing = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or answers it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        visit = _Visit(scope, receive, send)
        if why := self._why_refused(visit):
            await visit.refuse(403, why)
        elif self._rules.token is None or self._has_cookie(visit):
            await self._app(scope, receive, _with_headers(send, media="/media/" in visit.path))
        else:
            await self._sign_in(visit)

    def _why_refused(self, visit: "_Visit") -> str:
        if self._rules.token is None and not visit.is_local:
            return ("This studio has no token, so it answers this machine only. Start it with --host 0.0.0.0 "
                    "or, behind a proxy, with STUDIO_TOKEN set.")  # fmt: skip
        if not self._rules.host_fits(visit.header("host")):
            return ("This studio does not know the name in the address bar. Open it as localhost, or start it with "
                    "--allow-host and that name.")  # fmt: skip
        origin = visit.header("origin")
        sends = visit.is_websocket or visit.method not in _SAFE_METHODS
        if origin is not None and sends and not self._rules.origin_fits(origin, visit.header("host")):
            return "Another page tried to use this studio."
        return ""

    def _has_cookie(self, visit: "_Visit") -> bool:
        said = visit.cookie(self._rules.cookie_name)
        if said is None or self._tries.wait_s(visit.address) > 0:
            return said is not None and self._rules.cookie_fits(said)  # who is in stays in, whoever guesses beside him
        fits = self._rules.cookie_fits(said)
        if not fits:
            self._tries.add(visit.address)
        return fits

    async def _sign_in(self, visit: "_Visit") -> None:
        said = "" if visit.is_websocket else await visit.token()
        wait_s = self._tries.wait_s(visit.address)
        if said and wait_s > 0:
            await visit.answer(429, sign_in_page(f"Too many wrong tokens; wait {wait_s:.0f} s."),
                               {"retry-after": str(int(wait_s) + 1)})  # fmt: skip
        elif said and self._rules.token_fits(said):
            cookie = (f"{self._rules.cookie_name}={self._rules.cookie_value}; Path=/; Max-Age={_COOKIE_S}; HttpOnly; "
                      f"SameSite=Strict{'; Secure' if visit.scope.get('scheme') == 'https' else ''}")  # fmt: skip
            await visit.answer(200, refresh_page(visit.clean_url), {"set-cookie": cookie})
        elif said:
            self._tries.add(visit.address)
            await visit.answer(401, sign_in_page("That is not the token."))
        elif visit.is_websocket or "text/html" not in (visit.header("accept") or ""):
            await visit.refuse(401, "Sign in first.")
        else:
            await visit.answer(401, sign_in_page())


class _Visit:
    """A request or websocket, with what the door asks of it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.is_websocket = scope["type"] == "websocket"
        self.method = str(scope.get("method", "GET"))
        self.path = str(scope.get("path", "/"))
        client, server = scope.get("client"), scope.get("server")
        self.address = str(client[0]) if client else "unix"
        # a unix socket has no addresses; files decide who reaches it
        self.is_local = all(end is None or end[1] is None or is_loopback(str(end[0])) for end in (client, server))

    def header(self, name: str) -> str | None:
        """The only header of that name; None where there is none, or several that may contradict one another."""
        found = [value for key, value in self.scope["headers"] if key.lower() == name.encode()]
        return found[0].decode("latin-1") if len(found) == 1 else None

    def cookie(self, name: str) -> str | None:
        """A cookie's value."""
        for key, value in self.scope["headers"]:
            if key.lower() == b"cookie":
                try:
                    jar = SimpleCookie(value.decode("latin-1"))
                except CookieError:
                    continue
                if name in jar:
                    return jar[name].value
        return None

    async def token(self) -> str:
        """The token that a visitor gives: `?token=` in the address, or the form of the sign-in page."""
        if self.method == "POST" and (self.header("content-type") or "").startswith(
            "application/x-www-form-urlencoded"
        ):
            body = b""
            while len(body) <= _FORM_BYTES:
                message = await self._receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    return parse_qs(body.decode("latin-1")).get("token", [""])[0].strip()
            return ""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        return query.get("token", [""])[0].strip() if self.method == "GET" else ""

    @property
    def clean_url(self) -> str:
        """The same address without the token, on this host."""
        pairs = parse_qsl(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        rest = urlencode([(key, value) for key, value in pairs if key != "token"])
        return "/" + quote(self.path.lstrip("/\\")) + (f"?{rest}" if rest else "")

    async def answer(self, status: int, page: str, headers: dict[str, str] | None = None) -> None:
        """Sends a page of the door."""
        safe = {**_HEADERS, "content-type": "text/html; charset=utf-8", "cache-control": "no-store",
                "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
                "frame-ancestors 'none'; base-uri 'none'", **(headers or {})}  # fmt: skip
        content = b"" if self.method == "HEAD" else page.encode()
        raw = [(key.encode(), value.encode("latin-1")) for key, value in safe.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        await self._send({"type": "http.response.body", "body": content})

    async def refuse(self, status: int, why: str) -> None:
        """Turns a visitor away: a websocket before it is accepted, which browsers see as a failed connection."""
        if self.is_websocket:
            await self._send({"type": "websocket.close", "code": 1008, "reason": why[:100]})
        else:
            await self.answer(status, message_page(why))


def _with_headers(send: Send, *, media: bool) -> Send:
    """Adds headers of safety to what the app answers; those that it sets itself stay."""
    added = {**_HEADERS, "content-security-policy": _MEDIA_POLICY if media else _POLICY}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            there = {key.lower() for key, _ in headers}
            headers += [(k.encode(), v.encode()) for k, v in added.items() if k.encode() not in there]
            message = {**message, "headers": headers}
        await send(message)

    return sending
