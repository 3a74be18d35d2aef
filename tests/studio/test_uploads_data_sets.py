"""Zip files from outside: what training gets, and every trick that is refused."""

import io
import json
import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from studio.errors import RequestError
from studio.uploads import Limits, keep_data_set


def png(colour=(200, 10, 10), size=(16, 16)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def header_only_png(width, height):
    """A PNG of a few bytes that claims any size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + struct.pack(">I", 4)
        + b"IDATxxxx"
        + bytes(4)
    )


def packed(*files, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, content)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return out.getvalue()


def entry(name, mode=0, **changed):
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = mode << 16
    for key, value in changed.items():
        setattr(info, key, value)
    return info


def refused(content, tmp_path, limits=None, name="data.zip"):
    with pytest.raises(RequestError) as caught:
        keep_data_set(name, content, tmp_path, limits=limits)
    assert list(tmp_path.iterdir()) == []  # nothing of it is left
    assert str(caught.value).startswith(f"zip file {name}: ")
    return str(caught.value)


def files_of(kept):
    return sorted(p.relative_to(kept.folder).as_posix() for p in kept.folder.rglob("*") if p.is_file())


def test_pictures_and_captions_become_a_data_folder_with_the_same_bytes(tmp_path):
    kept = keep_data_set("my-cat.zip", packed(("a/one.png", png()), ("a/one.txt", "a cat ü")), tmp_path)
    assert kept.folder.name == "my-cat"  # the name is the caption of files that have none
    assert kept.pictures == 1 and not kept.left_out and not kept.quarantined
    assert (kept.folder / "a" / "one.png").read_bytes() == png()
    assert (kept.folder / "a" / "one.txt").read_text() == "a cat ü"


def test_training_reads_what_was_kept(tmp_path):
    from training.finetune.data.captions import Captions
    from training.finetune.data.folder import list_files

    lines = json.dumps({"file_name": "a <b>.png", "text": "a bear"}) + "\n"
    content = packed(("a <b>.png", png()), ("metadata.jsonl", lines), ("c.png", png((0, 0, 9))), ("c.txt", "a cat"))
    kept = keep_data_set("x.zip", content, tmp_path)
    listing = list_files(kept.folder)
    captions = Captions(listing)
    assert {p.name: captions.of(p) for p in listing.files} == {"a _b_.png": ("a bear",), "c.png": ("a cat",)}
    assert not captions.problems
    assert [(told.name, told.why) for told in kept.renamed] == [("a <b>.png", "a _b_.png")]


def test_a_csv_of_captions_follows_renamed_files_too(tmp_path):
    table = 'file_name,text\nsub/a|1.png,"one, two"\nb.png,three\n'
    kept = keep_data_set("x.zip", packed(("sub/a|1.png", png()), ("b.png", png()), ("metadata.csv", table)), tmp_path)
    assert (kept.folder / "metadata.csv").read_text() == 'file_name,text\nsub/a_1.png,"one, two"\nb.png,three\n'


def test_the_same_zip_is_unpacked_once(tmp_path):
    content = packed(("a.png", png()))
    first = keep_data_set("x.zip", content, tmp_path)
    assert keep_data_set("x.zip", io.BytesIO(content), tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 1


def test_companion_files_of_a_mac_are_left_out_and_told(tmp_path):
    content = packed(
        ("a.png", png()), ("__MACOSX/._a.png", "x"), ("._b.png", "x"), (".DS_Store", "x"), ("Thumbs.db", "x")
    )
    kept = keep_data_set("x.zip", content, tmp_path)
    assert files_of(kept) == ["a.png"]
    assert len(kept.left_out) == 4
    assert {told.why for told in kept.left_out} == {"a macOS companion file", "a hidden file"}


def test_nested_archives_and_programs_are_left_out_and_told(tmp_path):
    kept = keep_data_set(
        "x.zip", packed(("a.png", png()), ("b.zip", packed(("c.png", png()))), ("run.sh", "rm")), tmp_path
    )
    assert files_of(kept) == ["a.png"]
    assert [told.why for told in kept.left_out] == [
        "an archive in the archive; unpack it first", "no picture, video or caption",
    ]  # fmt: skip


def test_what_does_not_decode_goes_into_quarantine_with_its_caption_and_its_reason(tmp_path):
    from training.finetune.data.quarantine import restore

    bad = png(size=(64, 64))[:60]
    kept = keep_data_set("x.zip", packed(("a.png", png()), ("b.png", bad), ("b.txt", "b"), ("c.png", "text")), tmp_path)
    assert kept.pictures == 1
    assert {told.name: told.why.split(" (")[0] for told in kept.quarantined} == {
        "b.png": "is damaged or cut off", "c.png": "is not a picture",
    }  # fmt: skip
    assert (kept.folder / "_quarantine" / "b.png").read_bytes() == bad
    restore(kept.folder)
    assert "b.txt" in files_of(kept)


def test_a_caption_that_is_not_utf8_takes_its_picture_into_quarantine(tmp_path):
    kept = keep_data_set("x.zip", packed(("a.png", png()), ("b.png", png()), ("b.txt", b"\xff\xfe\x00")), tmp_path)
    assert [(told.name, told.why) for told in kept.quarantined] == [
        ("b.png", "the text b.txt is not UTF-8 (at byte 0)")
    ]
    assert kept.pictures == 1


def test_videos_are_decoded_too(tmp_path, beep_video):
    whole = beep_video.read_bytes()
    kept = keep_data_set("x.zip", packed(("a.mp4", whole), ("b.mp4", whole[: len(whole) // 3])), tmp_path)
    assert kept.videos == 1
    assert [told.name for told in kept.quarantined] == ["b.mp4"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("../evil.png", "leads out of the archive"),
        ("a/../../evil.png", "leads out of the archive"),
        ("..\\evil.png", "leads out of the archive"),
        ("/etc/evil.png", "is an absolute path"),
        ("\\\\server\\share\\evil.png", "is an absolute path"),
        ("C:\\evil.png", "is an absolute path"),
        ("a/" * 30 + "deep.png", "folders deep"),
    ],
)
def test_a_path_that_leads_outside_is_refused(name, part, tmp_path):
    place = tmp_path / "inner"
    place.mkdir()
    assert part in refused(packed(("a.png", png()), (name, png())), place)
    assert [p.name for p in tmp_path.iterdir()] == ["inner"]


@pytest.mark.parametrize(
    ("mode", "part"),
    [
        (stat.S_IFLNK | 0o777, "is a symbolic link"),
        (stat.S_IFCHR | 0o666, "is a device"),
        (stat.S_IFBLK | 0o666, "is a device"),
        (stat.S_IFIFO | 0o666, "is a device"),
        (stat.S_IFSOCK | 0o666, "is a device"),
    ],
)
def test_links_and_devices_are_refused(mode, part, tmp_path):
    assert part in refused(packed((entry("a.png", mode), "/etc/passwd")), tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a.png", "a.png"), ("a.png", "A.PNG"), ("d/a.png", "D\\a.png"), ("é.png", "é.png"),
                                   ("a<.png", "a>.png")])  # fmt: skip
def test_two_files_under_one_name_are_refused(names, tmp_path):
    assert "has two files under one name" in refused(packed(*((name, png()) for name in names)), tmp_path)


def test_a_file_below_a_file_is_refused(tmp_path):
    assert "below a file" in refused(packed(("a.png", png()), ("a.png/b.png", png())), tmp_path)


def test_an_encrypted_zip_is_refused(tmp_path):
    content = bytearray(packed(("a.png", png())))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    assert "is encrypted; pack it without a password" in refused(bytes(content), tmp_path)


def test_too_many_files_are_refused_before_the_list_is_read(tmp_path, monkeypatch):
    content = packed(*((f"{k}.txt", "") for k in range(30)))
    monkeypatch.setattr(zipfile, "ZipFile", None)  # it would make an object of each
    assert "more than 20 files and folders" in refused(content, tmp_path, Limits(zip_members=20))


def test_a_file_that_says_it_is_too_large_is_refused(tmp_path):
    message = refused(packed(("a.bmp", bytes(3_000_000))), tmp_path, Limits(zip_member_mb=2))
    assert "'a.bmp' is larger than 2 MB unpacked" in message


def test_all_files_together_may_not_be_too_large(tmp_path):
    files = [(f"{k}.bmp", bytes(900_000)) for k in range(4)]
    assert "is more than 3 MB unpacked" in refused(packed(*files), tmp_path, Limits(zip_total_mb=3))


def test_a_bomb_is_found_by_what_comes_out_whatever_its_header_says(tmp_path):
    content = bytearray(packed(("a.bmp", bytes(50_000_000))))
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # it says: 1000 bytes
        at = content.index(mark) + place
        content[at : at + 4] = (1000).to_bytes(4, "little")
    message = refused(bytes(content), tmp_path, Limits(zip_member_mb=2))
    assert "no picture or video that can be read" in message or "larger than 2 MB" in message
    assert not any(p.stat().st_size > 3_000_000 for p in tmp_path.rglob("*"))


def test_a_bomb_is_found_by_its_ratio(tmp_path):
    assert "as a zip bomb does" in refused(packed(("a.bmp", bytes(50_000_000))), tmp_path)


def test_files_that_share_their_bytes_are_counted_each(tmp_path):
    """The bomb of overlapping files: a small zip in which many entries point at the same bytes."""
    body = np.random.default_rng(0).integers(0, 255, 900_000, np.uint8).tobytes()
    content = packed(("a.bmp", body), method=zipfile.ZIP_STORED)
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    listed = content[start:end]
    entries = b"".join(listed.replace(b"a.bmp", f"{k}.bmp".encode()) for k in range(8)).replace(b"0.bmp", b"a.bmp", 1)
    tail = bytearray(content[end:])
    tail[8:12] = (8).to_bytes(2, "little") * 2
    tail[12:16] = len(entries).to_bytes(4, "little")
    message = refused(content[:start] + entries + bytes(tail), tmp_path, Limits(zip_total_mb=3))
    assert "is more than 3 MB unpacked" in message


def test_a_picture_bomb_in_a_zip_goes_into_quarantine(tmp_path):
    kept = keep_data_set("x.zip", packed(("a.png", png()), ("b.png", header_only_png(60_000, 60_000))), tmp_path)
    assert "megapixels" in kept.quarantined[0].why


def test_a_damaged_file_in_the_archive_is_told_and_the_others_are_kept(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, 5000, np.uint8).tobytes()
    content = bytearray(packed(("a.png", png()), ("b.bmp", noise), method=zipfile.ZIP_STORED))
    content[content.index(noise) + 100] ^= 0xFF
    kept = keep_data_set("x.zip", bytes(content), tmp_path)
    assert files_of(kept) == ["a.png"]
    assert kept.left_out[0].name == "b.bmp" and "damaged in the archive" in kept.left_out[0].why


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty, 0 bytes"),
        (b"hello", "is not a zip file, or cut off"),
        (b"Rar!\x1a\x07\x01\x00" + b"\0" * 50, "is a RAR archive; pack the folder as ZIP"),
        (zlib.compress(b"x"), "is not a zip file"),
        (b"\x1f\x8b" + b"\0" * 50, "is a gzip archive"),
        (packed(("a.png", png()))[:60], "is not a zip file, or cut off"),
        (packed(("notes.doc", "x")), "has no picture or video that can be read"),
        (packed(), "has no picture or video that can be read"),
    ],
    # a zip holds the time, and workers must collect the same names
    ids=["nothing", "words", "rar", "deflated", "gzip", "cut off", "a document", "empty"],
)
def test_what_is_no_data_set_is_refused(content, part, tmp_path):
    assert part in refused(content, tmp_path)


def test_a_zip_that_is_too_large_is_refused(tmp_path):
    assert "is larger than 1 MB" in refused(bytes(1_100_000), tmp_path, Limits(zip_mb=1))


def test_work_that_takes_too_long_is_ended(tmp_path):
    files = [(f"{k}.png", png()) for k in range(50)]
    assert "takes longer than 0.001 s" in refused(packed(*files), tmp_path, Limits(zip_check_s=0.001))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>.png", "a\nb\x1b[0m.png", "\u202egnp.png", "con.png",
                                  "-rf.png", "a" * 250 + ".png", "x .png", "$(rm).png"])  # fmt: skip
def test_strange_names_become_safe_ones(name, tmp_path):
    kept = keep_data_set("x.zip", packed((name, png())), tmp_path)
    (file,) = files_of(kept)
    assert file.endswith(".png") and len(file.encode()) <= 124
    assert file.isprintable() and not set(file) & set('<>$\\"`|*?:&') and not file.startswith("-")
    assert kept.pictures == 1


def test_progress_is_told_to_the_end(tmp_path):
    shares = []
    keep_data_set("x.zip", packed(("a.png", png()), ("b.png", png())), tmp_path, tell=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0
