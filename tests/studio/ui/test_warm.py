"""What the server does beside its first visitor."""

import subprocess
import sys


def test_what_pages_import_is_no_work_for_the_collector_after_every_run():
    script = """
import gc, sys
from studio.ui.warm import warm_up
warm_up().join()
assert {"torch", "peft", "studio.ui.pages.fine_tune"} <= set(sys.modules)
print(len(gc.get_objects()), gc.get_freeze_count())
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seen, frozen = map(int, run.stdout.split())
    assert frozen > 100_000 and seen < frozen / 20
