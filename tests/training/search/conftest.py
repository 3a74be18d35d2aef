"""What the tests of searches share: a toy to train, worker processes, and a database."""

import importlib.util
import json
import subprocess
import sys
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
