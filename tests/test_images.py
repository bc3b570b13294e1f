"""Untrusted pictures: each is taken as a viewer would show it, or refused in one sentence."""

import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from gradio.data_classes import ImageData
from PIL import Image

from analysis.tabs.photograph import Photograph

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def taken(path: Path) -> np.ndarray:
    """What the page takes from an uploaded file."""
    return Photograph(render=False).preprocess(ImageData(path=str(path)))


def refusal(path: Path) -> str:
    with pytest.raises(gr.Error) as refused:
        taken(path)
    return refused.value.message


def saved(folder: Path, name: str, picture: Image.Image, **options) -> Path:
    picture.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "png", "webp", "bmp", "gif", "tif"])
def test_the_known_formats_are_taken(tmp_path, suffix):
    rgb = taken(saved(tmp_path, f"ünïcode.{suffix}", Image.new("RGB", (30, 20), (200, 100, 50))))
    assert rgb.shape == (20, 30, 3) and rgb.dtype == np.uint8
    assert np.abs(rgb - np.array([200.0, 100, 50])).max() < 6


def test_the_content_of_a_file_counts_and_not_its_name(tmp_path):
    picture = Image.fromarray(NOISE)
    assert np.array_equal(taken(saved(tmp_path, "x.jpg", picture, format="PNG")), NOISE)
    assert taken(saved(tmp_path, "y.png", picture, format="JPEG", progressive=True)).shape == NOISE.shape


@pytest.mark.parametrize(
    ("mode", "color", "seen"),
    [
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("P", 0, (0, 0, 0)),
        ("LA", (0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
    ],
)
def test_every_mode_becomes_colors_and_transparency_becomes_white(tmp_path, mode, color, seen):
    rgb = taken(saved(tmp_path, "x.png", Image.new(mode, (9, 9), color)))
    assert np.abs(rgb.astype(int) - seen).max() <= 1


def test_a_transparent_color_of_a_palette_becomes_white(tmp_path):
    picture = Image.new("P", (9, 9), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    assert (taken(saved(tmp_path, "x.gif", picture, transparency=0)) == 255).all()


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_printing_colors_become_screen_colors(tmp_path, suffix):
    rgb = taken(saved(tmp_path, f"x.{suffix}", Image.new("CMYK", (16, 16), (0, 255, 255, 0))))
    assert np.abs(rgb.astype(int) - (255, 0, 0)).max() < 6


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_gray_of_16_bits_keeps_its_brightness(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    assert taken(saved(tmp_path, f"x.{suffix}", Image.fromarray(ramp))).mean() == pytest.approx(127.5, abs=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = (
        NOISE,
        NOISE[:, ::-1],
        NOISE[::-1, ::-1],
        NOISE[::-1],
        NOISE.transpose(1, 0, 2),
        np.rot90(NOISE, -1),
        NOISE[::-1, ::-1].transpose(1, 0, 2),
        np.rot90(NOISE),
    )[orientation - 1]
    assert np.array_equal(taken(saved(tmp_path, "x.png", Image.fromarray(NOISE), exif=exif)), upright)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "lime", "blue")]
    rgb = taken(saved(tmp_path, f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:], lossless=True))
    assert np.abs(rgb.astype(int) - (255, 0, 0)).max() < 6


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_slivers_can_be_decoded(tmp_path, size):
    assert taken(saved(tmp_path, "x.png", Image.new("RGB", size))).shape == (*size[::-1], 3)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes do not hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


def encoded(tmp_path: Path, suffix: str) -> bytes:
    return saved(tmp_path, f"whole.{suffix}", Image.fromarray(NOISE)).read_bytes()


def a_share(suffix: str, share: float):
    return lambda folder: (whole := encoded(folder, suffix))[: int(share * len(whole))]


def a_flipped_header(folder: Path) -> bytes:
    whole = bytearray(encoded(folder, "png"))
    whole[30] ^= 1  # in the checksum of the header
    return bytes(whole)


def zipped(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr("x.txt", "hello")
    return (folder / "x.zip").read_bytes()


BAD = {
    "empty": lambda _: b"",
    "one byte": lambda _: b"\xff",
    "text": lambda _: b"hello",
    "jpeg cut at 10 %": a_share("jpg", 0.1),
    "jpeg cut at 50 %": a_share("jpg", 0.5),
    "jpeg cut at 95 %": a_share("jpg", 0.95),
    "png cut at 50 %": a_share("png", 0.5),
    "webp cut at 50 %": a_share("webp", 0.5),
    "png signature alone": lambda folder: encoded(folder, "png")[:8],
    "png with a wrong checksum": a_flipped_header,
    "png of 100000x100000": lambda _: png_that_claims(100_000, 100_000),
    "png of 12000x12000": lambda _: png_that_claims(12_000, 12_000),
    "gif of 65535x65535": lambda _: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";",
    "svg": lambda _: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "html": lambda _: b"<!doctype html><p>not found",
    "eps": lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "pdf": lambda _: b"%PDF-1.4\n%%EOF",
    "zip": zipped,
    "ico": lambda folder: encoded(folder, "ico"),
    "tga": lambda folder: encoded(folder, "tga"),
    "pcx": lambda folder: encoded(folder, "pcx"),
    "ppm": lambda folder: encoded(folder, "ppm"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_what_is_no_picture_is_refused_in_one_sentence(tmp_path, kind, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(BAD[kind](tmp_path))
    said = refusal(path)
    assert re.fullmatch(r"This image cannot be used: it [^\n]+\.", said)
    assert str(tmp_path) not in said


def test_a_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(12_000, 12_000))
    assert "has 12000x12000 pixels, more than 40 million" in refusal(path)


def test_what_is_no_regular_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "pipe.png", tmp_path / "endless.png"):
        assert "it is not a regular file" in refusal(path)


def test_an_upload_that_was_deleted_meanwhile_can_be_given_again(tmp_path):
    assert "it is no longer on the server; upload it again" in refusal(tmp_path / "gone.png")


@pytest.mark.parametrize("path", [None, "", "data:image/png;base64,iVBORw0KGgo="])
def test_a_picture_that_was_not_uploaded_is_refused(path):
    with pytest.raises(gr.Error, match="it must be uploaded as a file"):
        Photograph(render=False).preprocess(ImageData(path=path, url="data:image/png;base64,iVBORw0KGgo="))


def test_no_picture_is_no_mistake():
    assert Photograph(render=False).preprocess(None) is None
