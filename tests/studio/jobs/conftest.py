"""A queue in a folder, and workers in processes of their own, as the studio starts them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest


@pytest.fixture
def queue(tmp_path):
    """A queue in a file, as everybody has it."""
    from studio.jobs import Queue

    return Queue(tmp_path / "runs")


@pytest.fixture
def shared_queue(tmp_path, postgres):
    """A queue that several machines share: a fresh PostgreSQL database."""
    import sqlalchemy as sa

    from studio.jobs import Queue

    name = f"jobs_{tmp_path.name.replace('-', '_')[-40:]}".lower()
    engine = sa.create_engine(postgres.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'create database "{name}"')
    return Queue(tmp_path / "runs", postgres.replace("/postgres?", f"/{name}?"))


@pytest.fixture
def start_worker(queue):
    """Starts `studio jobs run`; all of them are gone after the test."""
    started = []

    def start(*flags, root=None):
        process = subprocess.Popen(
            [sys.executable, "-m", "studio", "jobs", "run", "--root", str(root or queue.root), *flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    from studio.jobs.process import kill

    for job in queue.jobs(("running",)):
        kill(job.token)


@pytest.fixture
def until():
    """Waits for something to come true."""

    def wait(condition, seconds=60):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "it did not come true in time"
            time.sleep(0.05)
        return found

    return wait


@pytest.fixture
def long_job(tmp_path, queue):
    """Submits a job that takes some seconds, light and without torch: many pictures to look at."""
    from PIL import Image

    def submit(pictures=300, **options):
        folder = tmp_path / f"pictures-{pictures}"
        if not folder.exists():
            folder.mkdir()
            Image.effect_noise((512, 512), 80).save(folder / "0.png")
            (folder / "0.txt").write_text("noise")
            for number in range(1, pictures):
                os.link(folder / "0.png", folder / f"{number}.png")
                os.link(folder / "0.txt", folder / f"{number}.txt")
        return queue.submit(["data", "check", str(folder)], **options)

    return submit
