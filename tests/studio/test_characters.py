"""The bundled characters stand for a picture wherever one is asked for."""

import hashlib
import json
from pathlib import Path

import pytest


def names() -> list[str]:
    from studio.characters import CHARACTERS

    return list(CHARACTERS)


@pytest.mark.parametrize("name", names())
def test_every_character_is_a_small_square_picture(name):
    from pose.media import read_image
    from studio.characters import character_file

    assert read_image(character_file(name)).shape == (256, 256, 3)
    assert character_file(name).stat().st_size < 40_000


def test_the_script_that_draws_them_knows_the_same_names():
    script = Path(__file__).parents[2] / "scripts" / "make_characters.py"
    assert all(f'"{name}":' in script.read_text() for name in names())


def test_the_command_lists_them(studio):
    ran = studio("characters", "--json")
    assert ran.code == 0
    assert [row["name"] for row in ran.result["characters"]] == names()


def test_a_name_is_used_as_the_reference(studio, tiny_model, tmp_path):
    from studio.characters import character_file

    output = tmp_path / "out.mp4"
    ran = studio("animate", "--reference", "rabbit", "--driving", "wave", "--model", tiny_model, "--num-frames", 5,
                 "--num-inference-steps", 1, "--output", output)  # fmt: skip
    assert ran.code == 0, ran.err
    sidecar = json.loads(output.with_suffix(".json").read_text())
    digest = hashlib.sha256(character_file("rabbit").read_bytes()).hexdigest()
    assert sidecar["inputs"]["reference"]["sha256"] == digest


def test_a_file_of_that_name_wins(tmp_path, monkeypatch):
    from studio.characters import picture_file

    monkeypatch.chdir(tmp_path)
    (tmp_path / "rabbit").write_bytes(b"")
    assert picture_file(Path("rabbit")) == Path("rabbit")


def test_a_misspelt_name_is_refused_with_a_suggestion(studio, tmp_path):
    ran = studio("animate", "--reference", "rabit", "--driving", "wave", "--output", tmp_path / "out.mp4")
    assert ran.code == 2
    assert "did you mean 'rabbit'?" in ran.err
