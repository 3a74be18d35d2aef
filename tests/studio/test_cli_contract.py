"""The promises of the command line that no verb may break."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "diffusers", "transformers", "streamlit", "av", "cv2", "onnxruntime")


def verb_names() -> list[str]:
    from studio.cli.verb import load_verbs

    return list(load_verbs())


def test_help_answers_in_under_a_second_and_imports_nothing_heavy():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys; from studio.__main__ import main; main(['animate', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    modules = done.stdout.strip().splitlines()[-1]
    assert not [name for name in HEAVY if f"'{name}'" in modules]
    # its own time, 0.3 s: the clock on the wall also counts what else the machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_python_m_studio_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "studio", "motions", "--json"], capture_output=True, text=True)
    assert done.returncode == 0
    assert len(json.loads(done.stdout.splitlines()[-1])["motions"]) >= 12


@pytest.mark.parametrize("verb", verb_names())
def test_every_flag_of_every_verb_has_help(verb, studio):
    ran = studio(*verb.split(), "--help")
    assert ran.code == 0
    assert f"usage: studio {verb}" in ran.out
    from studio.cli.verb import load_verbs

    fields = load_verbs()[verb].request.model_fields
    assert all(field.description for field in fields.values())


def test_the_overview_lists_every_verb(studio):
    ran = studio("--help")
    assert ran.code == 0
    assert all(f"  {verb} " in ran.out for verb in verb_names())


def test_a_group_of_verbs_has_its_own_overview(studio):
    ran = studio("pose", "--help")
    assert ran.code == 0
    assert "pose extract" in ran.out
    assert "animate" not in ran.out.splitlines()[2]


def test_an_unknown_verb_is_refused_with_a_suggestion(studio):
    ran = studio("animte")
    assert ran.code == 2
    assert "did you mean 'animate'?" in ran.err


def test_an_unknown_second_word_is_refused_with_a_suggestion(studio):
    ran = studio("pose", "exract")
    assert ran.code == 2
    assert "did you mean 'extract'?" in ran.err


def test_an_unknown_flag_is_refused_with_a_suggestion(studio):
    ran = studio("animate", "--refrence", "x.png")
    assert ran.code == 2
    assert "did you mean --reference?" in ran.err


def test_flags_may_be_written_with_underscores(studio):
    ran = studio("animate", "--reference", "a.png", "--driving", "wave", "--num_frames", "many")
    assert ran.code == 2
    assert "--num-frames many: must be a whole number" in ran.err


def test_a_missing_flag_is_named_with_its_meaning(studio):
    ran = studio("animate", "--driving", "wave")
    assert ran.code == 2
    assert "--reference is required: The picture to animate: a file, or a bundled character" in ran.err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--height", "100", "--height 100: must be a multiple of 16; try 96 or 112"),
        ("--align", "automatic", "--align automatic: must be 'auto' or 'none' (did you mean 'auto'?)"),
        ("--device", "gpu", "--device gpu: must be auto, cpu, cuda or cuda:N"),
        ("--fps", "0", "--fps 0: must be greater than 0"),
        ("--guidance-scale", "much", "--guidance-scale much: must be a number"),
        ("--seed", "-1", "--seed -1: must be greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_told_with_the_flag_the_value_and_the_fix(flag, value, message, studio):
    ran = studio("animate", "--reference", "a.png", "--driving", "wave", flag, value)
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_with_json_a_failure_is_one_object_too(studio):
    ran = studio("animate", "--reference", "no.png", "--driving", "wave", "--json")
    assert ran.code == 2
    assert ran.result == {"error": "--reference no.png: no such file", "exit_code": 2}


def test_ctrl_c_ends_with_130_and_leaves_nothing(studio, monkeypatch, tmp_path, picture, tiny_model):
    from models.pipeline import AnimateXPipeline

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AnimateXPipeline, "_decode", interrupted)
    ran = studio("animate", "--reference", picture, "--driving", "wave", "--model", tiny_model, "--num-frames", 5,
                 "--output", tmp_path / "out.mp4")  # fmt: skip
    assert ran.code == 130
    assert "interrupted" in ran.err
    assert not list(tmp_path.iterdir())


def test_a_bug_ends_with_1_and_without_a_traceback(studio, monkeypatch):
    from studio import doctor

    def broken() -> None:
        raise RuntimeError("the sky fell")

    monkeypatch.delenv("STUDIO_DEBUG", raising=False)
    monkeypatch.setattr(doctor, "run_checks", broken)
    ran = studio("doctor", "--json")
    assert ran.code == 1
    assert ran.result == {"error": "RuntimeError: the sky fell", "exit_code": 1}
    assert "Traceback" not in ran.err


def test_doctor_names_what_it_found_and_the_command_that_mends(studio):
    ran = studio("doctor", "--json")
    assert ran.code == 0
    checks = {check["name"]: check for check in ran.result["checks"]}
    assert {"python", "torch", "devices", "attention", "xformers", "video codecs", "detector mini", "disk here"} <= set(
        checks
    )
    assert all(check["fix"] for check in checks.values() if not check["ok"])
    assert "libx264" in checks["video codecs"]["found"]


def test_every_module_of_verbs_is_listed_once():
    from studio.cli import verbs

    files = [path for path in Path(verbs.__path__[0]).glob("*.py") if path.stem != "__init__"]
    assert len(verb_names()) >= len(files)
