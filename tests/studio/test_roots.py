"""Paths typed into a page: inside the declared folders, or refused."""

import os

import pytest

from studio.errors import RequestError
from studio.roots import declared_roots, inside_roots, open_inside


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A root with a file in it, a secret beside it."""
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "b.txt").write_text("b")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path


@pytest.fixture
def roots(place):
    return (place / "root",)


def test_what_lies_inside_is_given_resolved(place, roots):
    assert inside_roots("sub/../sub/a.txt", roots=roots) == place / "root" / "sub" / "a.txt"
    assert inside_roots(f"  {place}/root/not-yet  ", roots=roots) == place / "root" / "not-yet"
    assert inside_roots(".", roots=roots) == place / "root"


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../secret.txt",
        "sub/../../secret.txt",
        "/etc/passwd",
        "~root/.ssh/id_rsa",
        "~/x",
        "../root-2/b.txt",
        "/proc/self/environ",
        "/proc/self/root/etc/passwd",
    ],
)
def test_what_lies_outside_is_refused(path, roots):
    with pytest.raises(
        RequestError, match=r"data folder .*: lies outside the folders that the app may read .*settings.toml"
    ):
        inside_roots(path, roots=roots, what="data folder")


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a\0b", "control characters"),
        ("a\nb", "control characters"),
        ("~no-such-user-here/x", "no path that can be"),
    ],
)
def test_what_is_no_path_is_refused(path, part, roots):
    with pytest.raises(RequestError, match=part):
        inside_roots(path, roots=roots)


def test_a_link_that_leads_outside_is_refused(place, roots):
    (place / "root" / "link").symlink_to(place / "secret.txt")
    (place / "root" / "up").symlink_to(place)
    for path in ("link", "up/secret.txt"):
        with pytest.raises(RequestError, match="lies outside"):
            inside_roots(path, roots=roots)


def test_a_link_that_stays_inside_is_followed(place, roots):
    (place / "root" / "link").symlink_to("sub")
    assert inside_roots("link/a.txt", roots=roots) == place / "root" / "sub" / "a.txt"


def test_a_root_that_is_a_link_itself_is_one(place, monkeypatch):
    (place / "runs").symlink_to(place / "root-2")
    monkeypatch.setenv("STUDIO_RUNS", str(place / "runs"))
    roots = declared_roots(local=False)
    assert inside_roots(place / "runs" / "b.txt", roots=roots) == place / "root-2" / "b.txt"


def test_a_link_put_there_after_the_check_is_not_followed(place, roots, monkeypatch):
    import studio.roots as module

    checked = inside_roots("sub/a.txt", roots=roots)
    (place / "root" / "sub" / "a.txt").unlink()
    (place / "root" / "sub" / "a.txt").symlink_to(place / "secret.txt")
    monkeypatch.setattr(module, "inside_roots", lambda path, **_: checked)  # the check came before the swap
    with pytest.raises(RequestError, match="cannot be opened"):
        open_inside("sub/a.txt", roots=roots)


def test_a_folder_swapped_for_a_link_is_not_followed(place, roots, monkeypatch):
    import studio.roots as module

    checked = inside_roots("sub/a.txt", roots=roots)
    (place / "root" / "sub").rename(place / "root" / "old")
    (place / "a.txt").write_text("secret")
    (place / "root" / "sub").symlink_to(place)
    monkeypatch.setattr(module, "inside_roots", lambda path, **_: checked)
    with pytest.raises(RequestError, match="cannot be opened"):
        open_inside("sub/a.txt", roots=roots)


def test_a_plain_file_is_opened_and_others_are_not(place, roots):
    with open_inside("sub/a.txt", roots=roots) as file:
        assert file.read() == b"a"
    os.mkfifo(place / "root" / "pipe")
    for path in ("sub", "pipe", "."):
        with pytest.raises(RequestError, match="is not a plain file"):
            open_inside(path, roots=roots)
    with pytest.raises(RequestError, match="cannot be opened"):
        open_inside("nothing", roots=roots)


def test_the_working_directory_is_a_root_on_this_machine_only(place, monkeypatch):
    monkeypatch.setenv("STUDIO_RUNS", str(place / "root-2"))
    assert declared_roots(local=True) == (place / "root-2", place / "root")
    assert declared_roots(local=False) == (place / "root-2",)


def test_data_folders_are_declared_in_the_settings_and_the_environment(place, monkeypatch):
    monkeypatch.setenv("STUDIO_RUNS", str(place / "root"))
    (place / "root" / "settings.toml").write_text(f'data_folders = ["{place}/root-2"]\n')
    monkeypatch.setenv("STUDIO_DATA", f"{place}/x{os.pathsep}{place}/y")
    assert declared_roots(local=False) == (place / "root", place / "root-2", place / "x", place / "y")
