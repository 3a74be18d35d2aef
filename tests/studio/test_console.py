"""What the command line tells of long work."""

import time

from studio.cli.console import Console
from studio.progress import Progress


def test_a_line_tells_rate_time_left_and_peak_memory_once_they_are_known(monkeypatch, capsys):
    monkeypatch.setenv("STUDIO_PROGRESS_EVERY_S", "0")
    console = Console()
    for done in (1, 2, 4):
        console.progress(Progress(stage="training", done=done, total=12, detail="loss 0.5"))
        time.sleep(0.06)
    first, _, third = capsys.readouterr().err.splitlines()
    assert first.startswith("training: 1/12 steps, loss 0.5, peak ")
    assert "left" not in first
    assert "steps/s" in third and " s left, peak " in third and third.endswith(" GiB")
