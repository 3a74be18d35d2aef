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


def test_what_a_form_writes_is_read_again_and_leaves_defaults_out(tmp_path, monkeypatch):
    from studio.settings import Settings, file_settings, write_settings

    monkeypatch.setenv("STUDIO_RUNS", str(tmp_path))
    settings = Settings(model_folders=(tmp_path,), animate={"num_inference_steps": 9})
    assert write_settings(settings).read_text().split() == [
        "model_folders", "=", f'["{tmp_path}"]', "[animate]", "num_inference_steps", "=", "9",
    ]  # fmt: skip
    assert file_settings() == settings


def test_a_form_does_not_write_what_the_environment_says(tmp_path, monkeypatch):
    from studio.settings import file_settings, set_by_environment, studio_settings

    monkeypatch.setenv("STUDIO_RUNS", str(tmp_path))
    monkeypatch.setenv("STUDIO_UPLOADS_PICTURE_MB", "7")
    assert studio_settings().uploads.picture_mb == 7
    assert file_settings().uploads.picture_mb == 50
    assert set_by_environment() == ("STUDIO_UPLOADS_PICTURE_MB",)
