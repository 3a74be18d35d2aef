"""Who may reach the app: the rules, the door before an app, and a server that is really started."""

import asyncio
import http.client
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.door.asgi import Door
from studio.door.rules import Rules, Tries, checked_hosts, find_token, is_loopback, new_token
from studio.errors import RequestError

TOKEN = "a-token-of-many-letters"
LOCAL = ("127.0.0.1", 40000)


class Answer:
    def __init__(self, sent):
        self.sent = sent
        start = sent[0]
        self.status = start.get("status", start["type"])
        self.headers = {key.decode(): value.decode() for key, value in start.get("headers", [])}
        self.text = b"".join(m.get("body", b"") for m in sent).decode()


def visit(door, path="/", *, kind="http", method="GET", client=LOCAL, server=("127.0.0.1", 8501), query="", body=b"",
          scheme="http", **headers):  # fmt: skip
    """Sends one request through the door, as a server does."""
    named = {"host": "localhost:8501", "accept": "text/html", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {"type": kind, "method": method, "path": path, "query_string": query.encode(), "client": client,
             "server": server, "scheme": scheme,
             "headers": [(k.encode(), v.encode("latin-1")) for k, v in named.items() if v is not None]}  # fmt: skip
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(door(scope, receive, send))
    return Answer(sent)


async def the_app(scope, receive, send):
    """Answers everything with its own secret."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"the gallery"})


def door(token=None, hosts=(), **more):
    return Door(the_app, rules=Rules(token=token, hosts=checked_hosts(hosts)), **more)


def cookie_of(answer):
    return answer.headers["set-cookie"].split(";")[0]


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.8.9.10", "::ffff:127.0.0.1", "[::1]"])
def test_addresses_of_this_machine_only(address):
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.2", "example.org", "", None, "127.0.0.1.evil.example"])
def test_addresses_that_others_reach(address):
    assert not is_loopback(address)


def test_without_a_token_this_machine_comes_in_and_nobody_else():
    assert visit(door()).text == "the gallery"
    for client, server in ((("10.0.0.7", 1), LOCAL), (LOCAL, ("10.0.0.1", 8501))):
        answer = visit(door(), client=client, server=server, host="localhost")
        assert answer.status == 403 and "no token" in answer.text and "gallery" not in answer.text


def test_a_unix_socket_is_this_machine():
    assert visit(door(), client=None, server=("/run/studio.sock", None)).status == 200


@pytest.mark.parametrize("path", ["/", "/animate", "/media/abc.mp4", "/_stcore/health", "/_stcore/metrics",
                                  "/_stcore/upload_file/s/f", "/static/js/index.js", "//x"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST"])
def test_nothing_is_answered_without_the_token(path, method):
    answer = visit(door(TOKEN), path, method=method)
    assert answer.status == 401 and "gallery" not in answer.text


def test_a_websocket_without_the_token_is_not_accepted():
    answer = visit(door(TOKEN), "/_stcore/stream", kind="websocket", query=f"token={TOKEN}")
    assert answer.status == "websocket.close"


def test_the_address_with_the_token_signs_in_and_goes_on_without_it():
    answer = visit(door(TOKEN), "/gallery", query=f"token={TOKEN}&job=a%20b")
    assert answer.status == 200 and "gallery?job=a+b" in answer.text and TOKEN not in answer.text + str(answer.headers)
    assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=Strict" in answer.headers["set-cookie"]
    assert answer.headers["cache-control"] == "no-store"
    assert visit(door(TOKEN), cookie=cookie_of(answer)).text == "the gallery"
    assert (
        visit(door(TOKEN), "/_stcore/stream", kind="websocket", cookie=cookie_of(answer)).status == "websocket.accept"
    )


def test_the_form_signs_in():
    form = {"method": "POST", "content_type": "application/x-www-form-urlencoded", "origin": "http://localhost:8501"}
    answer = visit(door(TOKEN), body=f"token={TOKEN}".encode(), **form)
    assert visit(door(TOKEN), cookie=cookie_of(answer)).status == 200
    assert visit(door(TOKEN), body=b"token=" + b"x" * 10_000, **form).status == 401


def test_over_https_the_cookie_stays_on_https():
    assert "; Secure" in visit(door(TOKEN), query=f"token={TOKEN}", scheme="https").headers["set-cookie"]


@pytest.mark.parametrize("said", ["", "a", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\u00e9" * 20])
def test_a_wrong_token_does_not_sign_in(said):
    answer = visit(door(TOKEN), query=f"token={said}".encode().decode("latin-1"))
    assert answer.status == 401 and "set-cookie" not in answer.headers


def test_a_cookie_of_another_token_does_not_help():
    other = Rules(token="another-token-of-many-letters")
    mine = Rules(token=TOKEN)
    for cookie in (f"{other.cookie_name}={other.cookie_value}", f"{mine.cookie_name}={other.cookie_value}",
                   f"{mine.cookie_name}={TOKEN}", f"{mine.cookie_name}="):  # fmt: skip
        assert visit(door(TOKEN), cookie=cookie).status == 401


def test_the_page_after_the_token_never_leads_to_another_site():
    for path in ("//evil.example/", "/\\evil.example", "///evil.example"):
        answer = visit(door(TOKEN), path, query=f"token={TOKEN}")
        assert re.findall(r'url=(/[^/\\][^"]*)"', answer.text)
    assert "<script>" not in visit(door(TOKEN), '/"><script>', query=f"token={TOKEN}").text


def test_guessing_is_slowed_down_for_the_guesser_and_not_for_who_is_in():
    now = [0.0]
    one = door(TOKEN, tries=Tries(most=3, within_s=60, now=lambda: now[0]))
    for _ in range(3):
        assert visit(one, query="token=wrong").status == 401
    answer = visit(one, query=f"token={TOKEN}")
    assert answer.status == 429 and answer.headers["retry-after"] == "61"
    rules = Rules(token=TOKEN)
    assert visit(one, cookie=f"{rules.cookie_name}={rules.cookie_value}").status == 200
    assert visit(one, query=f"token={TOKEN}", client=("127.0.0.2", 1)).status == 200
    now[0] = 61.0
    assert visit(one, query=f"token={TOKEN}").status == 200


def test_addresses_of_one_ipv6_network_count_as_one():
    tries = Tries(most=2)
    tries.add("2001:db8::1")
    tries.add("2001:db8::ffff")
    assert tries.wait_s("2001:db8::2") > 0 and tries.wait_s("2001:db8:1::2") == 0


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "10.0.0.1",
                                  "localhost@x", "localhost/x", "localhost:x", "", None])  # fmt: skip
def test_a_name_that_is_not_ours_is_refused_on_this_machine_too(host):
    """DNS rebinding: a foreign page gives its own name our address."""
    answer = visit(door(), host=host)
    assert answer.status == 403 and "gallery" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8501", "127.0.0.1:9", "[::1]:8501", "localhost."])
def test_names_of_this_machine_are_known(host):
    assert visit(door(), host=host).status == 200


def test_declared_names_are_known():
    one = door(hosts=("studio.example.org", "*.lab.example"))
    assert visit(one, host="studio.example.org").status == 200
    assert visit(one, host="a.lab.example:8501").status == 200
    assert visit(one, host="lab.example").status == 403
    assert visit(one, host="xlab.example").status == 403


def test_two_host_headers_are_refused():
    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
        await door()({"type": "http", "path": "/", "headers": headers, "client": LOCAL, "server": LOCAL}, None, send)
        return sent

    assert asyncio.run(run())[0]["status"] == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost:9999", "null", "file://", "http://127.0.0.1:8501"]
)
def test_another_page_cannot_open_a_websocket_or_send_a_file(origin):
    assert visit(door(), "/_stcore/stream", kind="websocket", origin=origin).status == "websocket.close"
    assert visit(door(), "/_stcore/upload_file/s/f", method="PUT", origin=origin).status == 403


def test_our_own_page_can():
    origin = "http://localhost:8501"
    assert visit(door(), "/_stcore/stream", kind="websocket", origin=origin).status == "websocket.accept"
    assert visit(door(), "/_stcore/upload_file/s/f", method="PUT", origin=origin).status == 200


def test_answers_carry_headers_of_safety():
    headers = visit(door()).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert "sandbox" in visit(door(), "/media/x.svg").headers["content-security-policy"]
    assert "sandbox" not in headers["content-security-policy"]


def test_the_token_comes_from_a_file_of_ones_own_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_TOKEN", TOKEN)
    assert find_token() == TOKEN
    file = tmp_path / "token"
    file.write_text(TOKEN[::-1] + "\n")
    file.chmod(0o600)
    assert find_token(file) == TOKEN[::-1]
    monkeypatch.setenv("STUDIO_TOKEN", "")
    assert find_token() is None
    assert len(new_token()) >= 43 and new_token() != new_token()


@pytest.mark.parametrize("token", ["short", "has a space in the middle", "tab\tin the middle of it", "é" * 20, ""])
def test_a_weak_token_is_refused(token, tmp_path):
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    with pytest.raises(RequestError, match="at least 16 letters or digits and no spaces"):
        find_token(file)


def test_a_token_file_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    with pytest.raises(RequestError, match=r"others on this machine can read it; chmod 600"):
        find_token(file)
    with pytest.raises(RequestError, match="cannot be read"):
        find_token(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["*", "http://x.org", "x.org:80", "x.org/a", "", "*.", "a b"])
def test_a_host_name_that_is_none_is_refused(name):
    with pytest.raises(RequestError, match="give a plain host name"):
        checked_hosts((name,))


def test_the_limit_of_uploads_stands_in_one_place():
    import tomllib

    from studio.uploads import Limits

    config = tomllib.loads((Path(__file__).parents[2] / ".streamlit" / "config.toml").read_text())
    assert config["server"]["maxUploadSize"] == Limits().upload_mb
    assert config["server"]["enableXsrfProtection"] and config["server"]["enableCORS"]
    assert config["client"]["showErrorDetails"] == "none" and config["server"]["fileWatcherType"] == "none"


# The servers below listen on every address for some seconds, and are asked over 127.0.0.1 only.


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A studio in a process of its own."""

    def __init__(self, words, folder, **environment):
        self.port, self.log = free_port(), folder / "log.txt"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("STUDIO_", "STREAMLIT_"))}
        environment = {**clean, "STUDIO_RUNS": str(folder / "runs"), **environment}
        self.words = [word.replace("PORT", str(self.port)) for word in words]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-m", *self.words], stdout=log, stderr=log,
                                            cwd=Path(__file__).parents[2], stdin=subprocess.DEVNULL,
                                            env=environment)  # fmt: skip

    def __enter__(self):
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            if "the studio is at" in self.log.read_text():
                break
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    def ask(self, path="/", method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace"), dict(answer.getheaders())
        finally:
            connection.close()

    def websocket(self, **headers):
        return self.ask("/_stcore/stream", Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Version="13",
                        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==", **headers)[0]  # fmt: skip


@pytest.mark.enable_socket
def test_a_server_that_others_reach_lets_nothing_out_without_its_token(tmp_path):
    with Server(["studio", "app", "--host", "0.0.0.0", "--port", "PORT", "--browser"], tmp_path) as server:
        printed = server.log.read_text()
        (token,) = re.findall(r"\?token=(\S+)", printed)
        assert len(token) >= 43 and token not in str(server.words)
        command_line = Path(f"/proc/{server.process.pid}/cmdline")
        assert not command_line.exists() or token.encode() not in command_line.read_bytes()
        for path in ("/", "/_stcore/health", "/_stcore/host-config", "/media/x.png", "/static/js/index.js"):
            assert server.ask(path)[0] == 401
        assert server.ask("/_stcore/upload_file/a/b", "PUT", b"x" * 100)[0] == 401
        assert server.websocket() == 403
        assert server.ask("/?token=wrong", Accept="text/html")[0] == 401
        status, _, headers = server.ask(f"/?token={token}", Accept="text/html")
        cookie = headers["set-cookie"].split(";")[0]
        assert status == 200
        assert "Streamlit" in server.ask("/", Cookie=cookie)[1]
        assert server.ask("/_stcore/health", Cookie=cookie)[0] == 200
        assert server.ask("/", Cookie=cookie, Host="evil.example")[0] == 403
        assert server.websocket(Cookie=cookie, Origin="http://evil.example") == 403
        assert server.websocket(Cookie=cookie) == 101
        # signed in, XSRF protection still stands before uploads
        assert server.ask("/_stcore/upload_file/a/b", "PUT", b"x", Cookie=cookie)[0] == 403
        assert token not in server.log.read_text().replace(f"?token={token}", "", 1)


@pytest.mark.enable_socket
def test_streamlit_run_has_the_same_door_when_it_is_opened_to_others(tmp_path):
    words = ["streamlit", "run", "app.py", "--server.address", "0.0.0.0", "--server.port", "PORT", "--server.headless",
             "true", "--server.enableXsrfProtection", "false"]  # fmt: skip
    with Server(words, tmp_path, STUDIO_TOKEN=TOKEN) as server:
        assert TOKEN not in server.log.read_text()
        assert server.ask("/")[0] == 401 and server.websocket() == 403
        cookie = server.ask(f"/?token={TOKEN}")[2]["set-cookie"].split(";")[0]
        assert server.ask("/", Cookie=cookie)[0] == 200
        assert server.ask("/_stcore/upload_file/a/b", "PUT", b"x", Cookie=cookie)[0] == 403


@pytest.mark.enable_socket
def test_on_this_machine_there_is_no_token_but_names_and_pages_are_checked(tmp_path):
    with Server(["studio", "app", "--no-browser", "--port", "PORT"], tmp_path) as server:
        assert "answers this machine only" in server.log.read_text()
        assert server.ask("/_stcore/health")[0] == 200
        assert server.ask("/_stcore/health", Host="evil.example")[0] == 403
        assert server.websocket(Origin="http://localhost:1") == 403
        assert server.websocket(Origin=f"http://127.0.0.1:{server.port}") == 101
        # a proxy on this machine that lets others in
        assert server.ask("/", X_Forwarded_For="203.0.113.9")[0] == 403


def test_pages_served_without_the_door_to_others_are_not_drawn(monkeypatch):
    from streamlit import config, runtime

    from studio.ui.serve import why_exposed

    assert why_exposed() == ""  # no server
    monkeypatch.setattr(runtime, "exists", lambda: True)
    monkeypatch.setattr(Door, "standing", False)
    monkeypatch.setattr(config, "get_option", lambda name: "0.0.0.0")
    assert "studio app --host 0.0.0.0" in why_exposed()
    monkeypatch.setattr(Door, "standing", True)
    assert why_exposed() == ""


def test_a_wrong_token_file_is_refused_before_anything_listens(studio, tmp_path):
    ran = studio("app", "--host", "0.0.0.0", "--token-file", tmp_path / "none", "--no-browser")
    assert ran.code == 2 and "cannot be read" in ran.err and "Traceback" not in ran.err
