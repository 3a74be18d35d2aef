"""A page in a runs folder of its own."""

from pathlib import Path

import pytest

APP = Path(__file__).parents[3] / "app.py"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The studio's folder; jobs stay in the queue until the test runs them."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("STUDIO_RUNS", str(folder))
    monkeypatch.setattr("studio.ui.shell.ensure_worker", lambda queue: False)
    return folder


@pytest.fixture
def tiny_model(tiny_model, monkeypatch):
    """The same, where pages may read it."""
    monkeypatch.setenv("STUDIO_DATA", str(tiny_model.parent))
    return tiny_model


@pytest.fixture
def queue(runs):
    """The same queue as the page's."""
    from studio.jobs import Queue

    return Queue(runs)


@pytest.fixture
def go_to():
    """Goes to another page as a click in the navigation does; AppTest itself knows pages that are files only."""

    def go(app, name):
        app._page_hash = app.session_state["pages"][name]._script_hash
        return app.run()

    return go


@pytest.fixture
def type_in():
    """Types into a list that takes what it does not have; AppTest itself knows the list alone."""

    def type_into(box, value):
        box.options.append(str(value))
        return box.set_value(str(value))

    return type_into


@pytest.fixture
def open_page(runs, go_to):
    """Opens a page of the studio."""
    from streamlit.testing.v1 import AppTest

    def opened(name="animate"):
        app = AppTest.from_file(str(APP), default_timeout=60).run()
        return app if name == "animate" else go_to(app, name)

    return opened


@pytest.fixture
def work(queue):
    """Runs all jobs that wait, in a worker of this process and real processes of `studio`."""

    def run():
        from studio.jobs import Worker

        Worker(queue, "cpu").run(until_empty=True)

    return run
