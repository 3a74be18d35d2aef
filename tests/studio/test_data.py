"""`studio data check` and `studio data preview`, as a user types them."""

import json
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw


def drawn(seed, size=(160, 160), mode="RGB"):
    """A picture of random discs, unlike any other."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(0, 255, 3).tolist()))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, r = rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(10, 50)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return image.convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Four good pictures with captions."""
    place = tmp_path / "set"
    place.mkdir()
    for k in range(4):
        drawn(k).save(place / f"{k}.png")
        (place / f"{k}.txt").write_text(f"discs number {k}")
    return place


@pytest.fixture
def check(studio, tiny_model):
    def run(*words):
        return studio("data", "check", *words, "--pretrained-model-name-or-path", tiny_model, "--json")

    return run


def found(done):
    return {(os.path.basename(p["file"]), p["kind"], p["severity"]) for p in done.result["problems"]}


def test_good_data_is_fine(check, folder):
    done = check(folder)
    assert done.code == 0, done.err
    assert done.result["ok"] is True and done.result["files"] == 4 and done.result["problems"] == []


def test_every_kind_of_trouble_with_pictures_is_named_with_a_fix(check, folder):
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "no.jpg").write_text("not a picture")
    drawn(10, (40, 40)).save(folder / "small.png")
    drawn(11, (900, 160)).save(folder / "long.png")
    (folder / "twin.png").write_bytes(whole)
    Image.open(folder / "1.png").resize((200, 200)).save(folder / "like.jpg", quality=80)
    drawn(12).save(folder / "empty.png")
    (folder / "empty.txt").write_text("  ")
    drawn(13).save(folder / "wordy.png")
    (folder / "wordy.txt").write_text("many words " * 60)
    (folder / "orphan.txt").write_text("of nothing")
    (folder / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "gone"}')
    done = check(folder)
    assert done.code == 2 and done.result["ok"] is False and done.result["files"] == 12
    assert found(done) == {
        ("cut.png", "unreadable", "error"), ("no.jpg", "unreadable", "error"),
        ("small.png", "small", "warning"), ("long.png", "extreme shape", "warning"),
        ("twin.png", "duplicate", "warning"), ("like.jpg", "near duplicate", "warning"),
        ("empty.png", "empty caption", "warning"), ("wordy.png", "long caption", "warning"),
        ("orphan.txt", "orphan caption", "warning"), ("metadata.jsonl", "caption of no file", "warning"),
    }  # fmt: skip
    assert all(p["fix"] and p["why"] for p in done.result["problems"])
    (twin,) = [p for p in done.result["problems"] if p["kind"] == "duplicate"]
    assert "0.png" in twin["why"] and "with another caption" in twin["why"]
    assert "cut.png" in done.err and "fix:" in done.err


def test_what_is_done_with_odd_formats_is_told_and_is_no_trouble(check, folder):
    rotated = drawn(20, (200, 160))
    exif = rotated.getexif()
    exif[0x0112] = 6
    rotated.save(folder / "phone.jpg", exif=exif)
    drawn(21, mode="L").save(folder / "grey.png")
    clear = drawn(22, mode="RGBA")
    clear.putalpha(100)
    clear.save(folder / "clear.png")
    drawn(23).save(folder / "moving.webp", save_all=True, append_images=[drawn(24)], lossless=True)
    done = check(folder)
    assert done.code == 0, done.err
    assert found(done) == {
        ("phone.jpg", "EXIF rotation", "note"), ("grey.png", "not RGB", "note"), ("clear.png", "transparency", "note"),
        ("moving.webp", "animated picture", "note"),
    }  # fmt: skip
    said = {p["kind"]: p["why"] for p in done.result["problems"]}
    assert "over white" in said["transparency"] and "the first one is taken" in said["animated picture"]


def write_video(path, times, rate=20):
    """Noise frames at times in ms; the container is told the rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        rng = np.random.default_rng(len(times))
        for time in times:
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (64, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_trouble_with_videos_is_found(check, tmp_path):
    place = tmp_path / "clips"
    place.mkdir()
    write_video(place / "steady.mkv", range(0, 1600, 50))
    write_video(place / "uneven.mkv", [0, 50, 100, 300, 350, 400, 700, 750, 800, 850, 900, 950, 1000, 1050, 1100])
    write_video(place / "short.mkv", [0, 50, 100])
    write_video(place / "slow.mkv", range(0, 4000, 250), rate=4)
    done = check(place, "--set", "task=ti2v", "--resolution", 32)
    assert done.code == 2
    assert found(done) == {
        ("uneven.mkv", "variable rate", "note"), ("short.mkv", "too short", "error"), ("slow.mkv", "slow", "warning")
    }  # fmt: skip


def test_bad_files_go_to_quarantine_with_their_captions_and_come_back(check, folder):
    (folder / "bad.png").write_bytes(b"nothing")
    (folder / "bad.txt").write_text("its caption")
    done = check(folder, "--quarantine")
    assert done.code == 2 and len(done.result["quarantined"]) == 2
    assert (folder / "_quarantine" / "bad.png").is_file() and not (folder / "bad.txt").exists()
    (row, _) = [json.loads(line) for line in (folder / "_quarantine" / "manifest.jsonl").read_text().splitlines()]
    assert row["file"] == "bad.png" and "picture" in row["why"]
    assert check(folder).code == 0
    back = check(folder, "--restore")
    assert back.code == 0 and len(back.result["restored"]) == 2
    assert (folder / "bad.txt").read_text() == "its caption" and not (folder / "_quarantine").exists()


def test_a_folder_where_every_file_is_bad_lists_them_all(check, tmp_path):
    place = tmp_path / "bad"
    place.mkdir()
    for k in range(3):
        (place / f"{k}.png").write_bytes(b"nothing")
    done = check(place)
    assert done.code == 2 and len(found(done)) == 3


def test_a_config_is_checked_as_it_would_be_trained(studio, folder, tiny_model, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(f"model = {json.dumps(str(tiny_model))}\nresolution = 256\n[[data]]\nfolder = 'set'\nrepeats = 2\n")
    done = studio("data", "check", path, "--json")
    assert {kind for _, kind, _ in found(done)} == {"small"} and done.result["samples"] == 8


def refused(done, *words):
    assert done.code == 2 and "Traceback" not in done.err
    assert all(word in done.err for word in words), done.err


def test_what_is_wrong_with_the_request_is_named(studio, check, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(check(tmp_path / "empty"), "empty has no pictures or videos")
    refused(check(tmp_path / "nowhere"), "no such file or folder")
    refused(check(folder / "0.png"), "is a file; name the folder")
    refused(check(folder, "--quarantine", "--restore"), "give one of the two")
    refused(check(folder, "--restore"), "nothing was moved away")
    refused(check(folder, "--set", "num_frame=3"), "num_frame", "num_frames")
    refused(check(folder, "--set", "task=ti2w"), "ti2w", "ti2v")
    (tmp_path / "run.toml").write_text("[[data]]\nfolder = 'set'\nrepeat = 3\n")
    refused(studio("data", "check", tmp_path / "run.toml"), "data.1.repeat is not an option", "did you mean 'repeats'?")
    (tmp_path / "run.toml").write_text("[[data]]\nfolder = 'set'\nweight = 0\n")
    refused(studio("data", "check", tmp_path / "run.toml"), "every data set has the weight 0")


def test_a_preview_draws_what_is_seen_and_tells_the_buckets(studio, folder, tiny_model, tmp_path):
    Image.new("RGB", (300, 150), (255, 0, 0)).save(folder / "wide.png")
    output = tmp_path / "out.png"
    done = studio("data", "preview", folder, "--pretrained-model-name-or-path", tiny_model, "--output", output,
                  "--resolution", 64, "--set", "caption_dropout=0", "--set", "trigger=sks", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.result["drawn"] == 5 and sum(row["samples"] for row in done.result["buckets"]) == 5
    sheet = np.asarray(Image.open(output)).astype(int)
    red = (sheet[..., 0] > 250) & (sheet[..., 1:].max(-1) < 5)
    rows, columns = np.nonzero(red)
    assert columns.max() - columns.min() + 1 == 192  # the wide one, in its shape
    assert 90 <= rows.max() - rows.min() + 1 <= 110
    assert "96x48: 1 samples" in done.err or "96x32: 1 samples" in done.err or "x48" in done.err


def test_a_preview_of_clips_is_a_strip(studio, tiny_model, tmp_path):
    place = tmp_path / "clips"
    place.mkdir()
    write_video(place / "a.mkv", range(0, 1600, 50))
    output = tmp_path / "out.png"
    done = studio("data", "preview", place, "--pretrained-model-name-or-path", tiny_model, "--output", output,
                  "--set", "task=ti2v", "--resolution", 32, "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.result["buckets"] == [{"task": "ti2v", "width": 32, "height": 32, "frames": 9, "samples": 2}]
    assert Image.open(output).size[1] > 192


def test_one_bad_picture_among_two_hundred_is_named_quarantined_and_the_rest_is_trained(studio, tiny_model, tmp_path):
    place = tmp_path / "many"
    place.mkdir()
    for k in range(200):
        Image.new("RGB", (40, 40), (k, 255 - k, 20)).save(place / f"{k:03}.png")
    whole = (place / "117.png").read_bytes()
    (place / "117.png").write_bytes(whole[: len(whole) // 2])
    done = studio("train", "--pretrained-model-name-or-path", tiny_model, "--train-data-dir", place, "--resolution", 32,
                  "--max-train-steps", 2, "--output-dir", tmp_path / "run", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert "left out" in done.err and "117.png" in done.err
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert row["file"].endswith("117.png") and row["why"] and row["when"]
    assert whole[: len(whole) // 2] == (place / "117.png").read_bytes()  # a run moves nothing
