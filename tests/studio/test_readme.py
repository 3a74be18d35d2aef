"""The Python of the README and the guide, run as it stands there."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture
def somewhere(tmp_path, monkeypatch, tiny_model) -> Path:
    """A folder where models/weights/mini is a small model, and so is `model="mini"`."""
    from models import loading

    weights = tmp_path / "models" / "weights" / "mini"
    weights.parent.mkdir(parents=True)
    weights.symlink_to(tiny_model, target_is_directory=True)
    monkeypatch.setattr(loading, "resources", SimpleNamespace(files=lambda package: tmp_path / package))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_five_lines_of_the_readme_make_a_video(somewhere):
    (example,) = examples("README.md")
    assert len([line for line in example.splitlines() if line.strip()]) <= 5
    exec(compile(example, "README.md", "exec"), {})
    assert (somewhere / "out" / "rabbit.mp4").stat().st_size > 0
    assert (somewhere / "out" / "rabbit.json").is_file()


def test_the_examples_of_the_python_page_run(somewhere):
    for example in examples("docs/python.md"):
        exec(compile(example, "docs/python.md", "exec"), {})
    assert {path.name for path in (somewhere / "out").glob("*.mp4")} == {
        "rabbit.mp4",
        "cat-0.mp4",
        "cat-1.mp4",
        "snow.mp4",
    }


def test_the_shipped_weights_make_the_demo(studio, tmp_path):
    from models.loading import check_folder
    from studio.weights import mini_folder

    try:
        check_folder(mini_folder())
    except ValueError:
        pytest.skip("the mini weights are not here yet: run the four recipes")
    ran = studio("animate", "--reference", "juice-box", "--driving", "wave-both", "--num-inference-steps", 2,
                 "--preview", "--output", tmp_path / "demo.mp4", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert (ran.result["frames"], ran.result["height"], ran.result["width"]) == (17, 128, 128)
    assert {path.suffix for path in tmp_path.iterdir()} == {".mp4", ".json", ".png"}
