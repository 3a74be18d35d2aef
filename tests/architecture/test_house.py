"""The rules of the house that no room may break."""

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("studio", "training", "models", "pose")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_imports_go_to_the_right_only(capsys):
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_no_other_package_brings_a_folder_of_our_names():
    # open-clip-torch 2.24 shipped a top-level `training`, which wins over ours outside the repository
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    assert {room: set(owners[room]) for room in ROOMS} == {room: {"animatex-studio"} for room in ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_imported_from_this_folder_and_is_typed(room):
    assert Path(importlib.import_module(room).__path__[0]).resolve() == ROOT / room
    assert (ROOT / room / "py.typed").is_file()


def test_the_public_door_offers_what_it_lists():
    import studio

    classes = ["AnimateXPipeline", "Animation", "LoadedAdapter", "SparseConfig"]
    functions = ["add_random_words", "animate", "background", "delay_guidance", "load_adapter", "noisy_prompt"]
    assert studio.__all__ == [*classes, *functions]
    assert dir(studio) == studio.__all__
    assert all(getattr(studio, name).__name__ == name for name in studio.__all__)
    with pytest.raises(AttributeError, match="it offers AnimateXPipeline"):
        studio.nothing  # noqa: B018


def test_only_the_command_line_prints():
    printing = {
        short(path) for path in MODULES for call in calls(path)
        if isinstance(call.func, ast.Name) and call.func.id == "print"
    }  # fmt: skip
    assert {name for name in printing if not name.startswith("studio/cli/")} == set()


def test_nothing_reads_pickles():
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert {short(path): found for path in MODULES if (found := imported(path) & forbidden)} == {}


def test_torch_load_reads_numbers_only():
    for path in MODULES:
        for call in calls(path):
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func) in ("torch.load", "np.load"):
                flags = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                safe = flags.get("weights_only") == "True" or ast.unparse(call.func) == "np.load"
                assert safe and flags.get("allow_pickle") != "True", f"{short(path)}:{call.lineno}"


def test_every_room_is_in_the_wheel_and_the_app_is_not():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["packages"]["find"]["include"] == [f"{room}*" for room in ROOMS]
    for room, patterns in settings["package-data"].items():
        for pattern in patterns:
            if room != "*" and (ROOT / room / pattern.split("/")[0]).exists():
                assert [path for path in (ROOT / room).glob(pattern) if path.is_file()], f"{room}: {pattern}"


def test_the_launcher_has_no_logic():
    lines = (ROOT / "app.py").read_text().splitlines()
    assert len(lines) <= 20


def test_no_file_names_a_place_on_this_machine():
    places = ["/" + place for place in ("work/", "root/", "home/", "opt/")]
    files = [*MODULES, *(ROOT / "docs").rglob("*.md"), *(ROOT / "scripts").iterdir(), ROOT / "README.md",
             ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "CONTRIBUTING.md"]  # fmt: skip
    texts = {path: path.read_text() for path in files if path.is_file()}
    assert {short(path): place for path, text in texts.items() for place in places if place in text} == {}
