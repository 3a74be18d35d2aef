"""What the tests of searches share: a toy to train, worker processes, and a database."""

import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="session")
def toy():
    """The module `worker.py` beside this file."""
    spec = importlib.util.spec_from_file_location("search_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def processes():
    """Asks a process that starts workers and kills them."""
    with subprocess.Popen(
        [sys.executable, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as server:

        def ask(do, folder, storage=None, *, pause_s=0.0, workers=1, **more):
            request = {"do": do, "folder": str(folder), "storage": storage, "pause_s": pause_s, "workers": workers}
            server.stdin.write(json.dumps({**request, **more}) + "\n")
            answer = json.loads(server.stdout.readline())
            assert "error" not in answer, answer["error"]
            return answer

        yield ask
        server.stdin.close()


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of this session, on a socket in a folder of its own."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip extra `postgres`)")
    program = shutil.which("initdb") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
    if program is None:
        pytest.skip("there is no PostgreSQL here (initdb)")
    binaries = Path(program).resolve().parent
    # the path of a socket may have 107 letters
    place = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    plain = unprivileged(place)

    def run(name, *words):
        subprocess.run([*plain, binaries / name, "-D", place / "data", *words], check=True, capture_output=True)

    try:
        run("initdb", "--auth=trust", "--username=studio", "--no-sync", "--encoding=UTF8", "--locale=C")
        options = f"-c listen_addresses='' -c unix_socket_directories={place} -c shared_buffers=16MB"
        run("pg_ctl", "start", "--wait", "--log", place / "log", "-o", options)
        yield f"postgresql://studio@/postgres?host={place}"
        run("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def unprivileged(place):
    """The words before a command that PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    names = [user.pw_name for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody")]
    if not names or shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` or no `setpriv`")
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(place, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
