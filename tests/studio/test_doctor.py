"""`studio doctor` finds what is missing and names the command that mends it."""

import sys


def test_a_system_without_the_libraries_of_opencv_is_told_the_apt_line(monkeypatch):
    from studio.doctor import run_checks

    monkeypatch.setitem(sys.modules, "cv2", None)  # makes the import fail, as libGL.so.1 missing does
    (check,) = [check for check in run_checks() if check.name == "system libraries"]
    assert not check.ok and check.needed
    assert check.fix == "sudo apt-get install libgl1 libglib2.0-0"


def test_the_apt_line_stands_in_the_readme():
    from pathlib import Path

    from studio.doctor import APT_LINE

    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert set(APT_LINE.split()) <= set(readme.split())


def test_the_app_tells_who_could_reach_it_and_what_it_reads(monkeypatch, tmp_path):
    from studio.doctor import _app

    monkeypatch.setenv("STUDIO_RUNS", str(tmp_path))
    monkeypatch.delenv("STUDIO_TOKEN", raising=False)
    (check,) = _app()
    assert check.ok and "this machine only" in check.found and str(tmp_path) in check.found
    monkeypatch.setenv("STUDIO_TOKEN", "short")
    (check,) = _app()
    assert not check.ok and "at least 16 letters" in check.found
