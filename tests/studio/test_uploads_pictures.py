"""Pictures from outside: what is kept, and what is refused with one clear message."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from studio.errors import RequestError
from studio.uploads import Limits, keep_picture


def encoded(image, format="PNG", **more):
    out = io.BytesIO()
    image.save(out, format, **more)
    return out.getvalue()


def refused(content, tmp_path, name="figure.png", limits=None):
    with pytest.raises(RequestError) as caught:
        keep_picture(name, content, tmp_path, limits=limits)
    assert list(tmp_path.iterdir()) == []  # nothing half-written
    return str(caught.value)


def header_only_png(width, height):
    """A PNG of a few bytes that claims any size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 4) + b"IDAT" + b"xxxx" + struct.pack(">I", 0)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_common_format_becomes_a_png_of_our_name(format, tmp_path):
    kept = keep_picture("../../x.exe", encoded(Image.new("RGB", (20, 12), (200, 10, 10)), format), tmp_path)
    assert kept.parent == tmp_path and kept.name.startswith("picture-") and kept.suffix == ".png"
    with Image.open(kept) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (20, 12))
        assert abs(image.getpixel((5, 5))[0] - 200) < 4


def test_the_content_decides_and_not_the_ending(tmp_path):
    kept = keep_picture("photo.png", encoded(Image.new("RGB", (16, 16)), "JPEG"), tmp_path)
    with Image.open(kept) as image:
        assert image.format == "PNG"


def test_a_photo_taken_upright_is_kept_upright_and_without_its_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret place"
    content = encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif, comment=b"secret")
    kept = keep_picture("photo.jpg", content, tmp_path)
    with Image.open(kept) as image:
        image.load()
        assert image.size == (20, 40)
        assert not image.getexif() and not image.info
    assert b"secret" not in kept.read_bytes()


def test_transparency_stays(tmp_path):
    with Image.open(keep_picture("a.png", encoded(Image.new("RGBA", (16, 16), (9, 9, 9, 0))), tmp_path)) as image:
        assert image.mode == "RGBA" and image.getpixel((0, 0))[3] == 0


def test_sixteen_bits_become_eight(tmp_path):
    deep = Image.fromarray(np.full((16, 16), 257 * 100, np.uint16))
    with Image.open(keep_picture("deep.png", encoded(deep), tmp_path)) as image:
        assert image.mode == "RGB" and image.getpixel((3, 3)) == (100, 100, 100)


def test_the_same_upload_gives_the_same_file(tmp_path):
    content = encoded(Image.new("RGB", (16, 16)))
    first = keep_picture("a.png", content, tmp_path)
    stamp = first.stat().st_mtime_ns
    assert keep_picture("b.png", io.BytesIO(content), tmp_path) == first
    assert first.stat().st_mtime_ns == stamp and len(list(tmp_path.iterdir())) == 1


def test_an_empty_file_is_refused(tmp_path):
    assert "picture figure.png: is empty, 0 bytes" in refused(b"", tmp_path)


def test_a_file_that_is_too_large_is_refused_while_it_is_read(tmp_path):
    class Endless(io.RawIOBase):
        read_bytes = 0

        def seekable(self):
            return False

        def read(self, size=-1):
            self.read_bytes += size
            return b"x" * size

    stream = Endless()
    assert "is larger than 1 MB; make it smaller" in refused(stream, tmp_path, limits=Limits(picture_mb=1))
    assert stream.read_bytes < 4_000_000


@pytest.mark.parametrize("size", [(100_000, 100_000), (20_000, 20_000), (8000, 8000)])
def test_a_huge_picture_is_refused_by_its_header(size, tmp_path):
    message = refused(header_only_png(*size), tmp_path)
    assert "megapixels" in message and "make it smaller" in message


def test_a_tiny_picture_is_refused(tmp_path):
    assert "is 3x30 px, and each side must be at least 8" in refused(encoded(Image.new("RGB", (3, 30))), tmp_path)


def test_a_cut_off_picture_is_refused(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    content = encoded(noise)
    assert "is damaged or cut off" in refused(content[: len(content) // 2], tmp_path)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"these are notes", "is not a picture"),
        (b"<html><script>alert(1)</script></html>", "is not a picture"),
        (b"%PDF-1.7 ...", "is a PDF; export the page as PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "is a HEIC photo; export it as JPEG"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 40, "is a video"),
        (b"PK\x03\x04" + b"\0" * 40, "is a zip file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "is not a picture"),
    ],
)
def test_other_files_are_named_for_what_they_are(content, part, tmp_path):
    assert part in refused(content, tmp_path)


def test_a_name_of_html_and_control_letters_is_shown_on_one_short_line(tmp_path):
    message = refused(b"", tmp_path, name="../..\\evil\n\x1b[31m\u202egnp.<b>" + "x" * 500 + ".png")
    assert "\n" not in message and "\x1b" not in message and "\u202e" not in message and ".." not in message
    assert len(message) < 150


def test_a_name_is_never_a_path(tmp_path):
    content = encoded(Image.new("RGB", (16, 16)))
    folder = tmp_path / "a" / "b"
    for name in ("../../../etc/passwd", "/etc/passwd", "C:\\x.png", "..", "", "\0", "a" * 5000):
        assert keep_picture(name, content, folder).parent == folder
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(["a", "b", *(p.name for p in folder.iterdir())])


def test_no_torch_is_loaded_for_a_picture():
    import subprocess
    import sys

    code = "import sys, studio.uploads; assert 'torch' not in sys.modules and 'streamlit' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
