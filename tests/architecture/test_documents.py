"""What the documents say is true: their links lead somewhere, and their pages are those of this version."""

import ast
import importlib.util
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
FOR_USERS = ("README.md", "python.md", "first-steps.md")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if not target.startswith(("http://", "https://"))]
    dead = [target for target in local if not (page.parent / target).exists()]
    if dead == ["docs/media/demo.png"] and not (ROOT / "models" / "weights" / "mini" / "model_index.json").exists():
        pytest.skip("the README's picture is made with the mini weights, which are not here yet")
    assert dead == []


def test_the_page_of_the_command_line_is_what_the_verbs_say():
    make_cli_docs = script("make_cli_docs")
    page = make_cli_docs.PAGE.read_text(encoding="utf-8")
    assert page == make_cli_docs.page() + "\n", "run: .venv/bin/python scripts/make_cli_docs.py"


def commands(page: Path) -> list[list[str]]:
    """The `studio` lines of the page, as words."""
    import shlex

    lines = [line.split(" # ")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    words = [shlex.split(line) for line in lines if line and not line.startswith("#")]
    return [line[1:] for line in words if line[0].rsplit("/")[-1] == "studio"]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_in_the_documents_is_a_request_that_the_program_takes(page):
    from studio.cli.flags import parse_flags
    from studio.cli.run import _find
    from studio.cli.verb import load_verbs

    for words in commands(page):
        verb, flags = _find(words, load_verbs())
        parse_flags(f"studio {verb.name}", verb.request, flags)


def test_motions_and_characters_in_the_documents_are_bundled():
    from pose.motions import MOTIONS
    from studio.characters import CHARACTERS

    for page in PAGES:
        for words in commands(page):
            flags = dict(pairwise(words))
            for flag, bundled in (("--driving", MOTIONS), ("--reference", CHARACTERS), ("--image", CHARACTERS)):
                value = flags.get(flag, "")
                assert not value or "." in value or value in bundled, f"{page.name}: {flag} {value}"


def test_examples_for_users_import_from_the_public_door_only():
    for page in PAGES:
        if page.name in FOR_USERS:
            for block in blocks(page, "python"):
                for node in ast.walk(ast.parse(block)):
                    assert not isinstance(node, ast.Import), page.name
                    assert not isinstance(node, ast.ImportFrom) or node.module == "studio", page.name


def test_the_makefile_has_what_the_readme_promises():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    promised = set(re.findall(r"^make ([a-z-]+)", "\n".join(page.read_text() for page in PAGES), re.MULTILINE))
    assert promised <= targets


def test_the_counts_in_the_readme_are_those_of_the_program():
    from pose.motions import MOTIONS
    from studio.characters import CHARACTERS

    counts = {20: "Twenty", 6: "six"}
    text = (ROOT / "README.md").read_text()
    assert f"{counts[len(MOTIONS)]} motions and {counts[len(CHARACTERS)]} characters are bundled" in text
