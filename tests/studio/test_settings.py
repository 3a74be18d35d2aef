"""The settings of a studio."""

import pytest

from studio.errors import RequestError
from studio.settings import studio_settings


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_RUNS", str(tmp_path))

    def read(text):
        (tmp_path / "settings.toml").write_text(text)
        return studio_settings()

    return read


def test_without_a_file_the_defaults_hold(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_RUNS", str(tmp_path))
    assert studio_settings().uploads.picture_mb == 50 and studio_settings().hosts == ()


def test_the_environment_goes_before_the_file(settings, monkeypatch):
    monkeypatch.setenv("STUDIO_UPLOADS_PICTURE_MB", "7")
    found = settings('hosts = ["x.org"]\n[uploads]\npicture_mb = 9\nvideo_mb = 11\n')
    assert (found.uploads.picture_mb, found.uploads.video_mb, found.hosts) == (7, 11, ("x.org",))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a = ", "is not TOML"),
        ("[uploads]\npicture_mbs = 3", "no such setting (did you mean 'picture_mb'?)"),
        ("hostes = []", "no such setting (did you mean 'hosts'?)"),
        ("[uploads]\npicture_mb = 0", "uploads.picture_mb: '0'"),
        ('[uploads]\npicture_mb = "many"', "uploads.picture_mb: 'many'"),
        ("uploads = 3", "uploads: '3'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(text, part, settings):
    with pytest.raises(RequestError) as caught:
        settings(text)
    assert part in str(caught.value) and "settings.toml" in str(caught.value)


def test_a_wrong_variable_is_named(settings, monkeypatch):
    monkeypatch.setenv("STUDIO_UPLOADS_VIDEO_MB", "x")
    with pytest.raises(RequestError, match=r"\$STUDIO_UPLOADS_VIDEO_MB: 'x'"):
        settings("")
