"""Files meant to hurt, or made by mistake, and the outcome that docs/data.md states for each."""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infostylegan.data import DataError, open_dataset
from infostylegan.data.images import BadImage, Framing, decode, encode_png
from infostylegan.data.loading import read
from infostylegan.data.pieces import Pieces, find_pieces
from infostylegan.data.sources import Files, FolderFiles, ZipFiles, find_labels

PIXELS = np.random.default_rng(1).integers(0, 256, (3, 16, 16), dtype=np.uint8)
PNG = encode_png(PIXELS)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


RGB = Image.fromarray(PIXELS.transpose(1, 2, 0))


def in_folder(path: Path, members: dict[str, bytes]) -> Files:
    for name, content in members.items():
        (path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "set" / name).write_bytes(content)
    return FolderFiles(path / "set")


def in_zip(path: Path, members: dict[str, bytes], name: str = "set.zip") -> Files:
    with zipfile.ZipFile(path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return ZipFiles(path / name)


def cut(path: Path, count: int = 5) -> Path:
    """The file `path` in `count` pieces, as Kaggle cuts them; `path` itself is gone. The first piece."""
    content = path.read_bytes()
    size = -(-len(content) // count)
    for number in range(count):
        path.with_name(f"{path.name}.{number + 1:03d}").write_bytes(
            content[number * size : (number + 1) * size]
        )
    path.unlink()
    return path.with_name(f"{path.name}.001")


def in_pieces(path: Path, members: dict[str, bytes]) -> Files:
    in_zip(path, members)
    return ZipFiles(cut(path / "set.zip"))


WHERE = pytest.mark.parametrize("make", [in_folder, in_zip, in_pieces], ids=["folder", "zip", "pieces"])
Make = Callable[[Path, dict[str, bytes]], Files]


# ---- what an image file may be: the same outcome in a folder, a zip and a cut zip


def deep_rgb_png() -> bytes:
    """A 16-bit RGB PNG, whose high bytes are PIXELS."""
    rows = np.zeros((16, 1 + 16 * 6), np.uint8)
    rows[:, 1::2] = PIXELS.transpose(1, 2, 0).reshape(16, 48)
    rows[:, 2::2] = 0x5A

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">2I5B", 16, 16, 16, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes()))
            + chunk(b"IEND", b""))  # fmt: skip


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 8  # lies on its right side: turn it 90 degrees anticlockwise
    return encoded(RGB.rotate(-90), "PNG", exif=exif)


SAME = {
    "png": PNG,
    "bmp": encoded(RGB, "BMP"),
    "tiff": encoded(RGB, "TIFF"),
    "tiff, deflated, two frames": encoded(
        RGB, "TIFF", compression="tiff_deflate", save_all=True, append_images=[Image.new("RGB", (16, 16))]
    ),
    "ppm": encoded(RGB, "PPM"),
    "webp": encoded(RGB, "WEBP", lossless=True),
    "16-bit RGB png": deep_rgb_png(),
    "palette of 256": None,  # made below: every colour of PIXELS is one entry
    "alpha, opaque": encoded(RGB.convert("RGBA"), "PNG"),
    "exif orientation": turned(),
    "wrong extension": encoded(RGB, "TIFF"),
}
_palette = Image.new("P", (16, 16))
_palette.putdata(list(range(256)))
_palette.putpalette(PIXELS.transpose(1, 2, 0).reshape(-1).tolist())
SAME["palette of 256"] = encoded(_palette, "PNG")


@WHERE
@pytest.mark.parametrize("kind", SAME)
def test_every_sound_form_of_an_image_gives_the_same_pixels(make: Make, kind: str, tmp_path: Path) -> None:
    content = SAME[kind]
    assert content is not None
    files = make(tmp_path, {"a.png": content})
    assert np.array_equal(decode(read(files, 0), Framing(16)), PIXELS)


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def huge_png(width: int, height: int) -> bytes:
    """A PNG of 65 bytes that declares width x height pixels."""
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for checked in (b"IHDR" + header, b"IDAT" + zlib.compress(b"")):
        chunks += struct.pack(">I", len(checked) - 4) + checked + struct.pack(">I", zlib.crc32(checked))
    return b"\x89PNG\r\n\x1a\n" + chunks


BAD = {
    "nothing": (b"", "not an image"),
    "text": (b"no image at all\r\n", "not an image"),
    "html": (b"<!DOCTYPE html><html>Please log in</html>", "not an image"),
    "cut short": (PNG[: len(PNG) // 2], r"\w"),
    "jpeg cut short": (encoded(RGB.resize((64, 64)), "JPEG", quality=95)[:-999], "truncated"),
    "a program's language": (eps(), "not an image"),
    "a movie's format": (encoded(RGB, "GIF"), "not an image"),
    "declares 16 gigapixels": (huge_png(1 << 17, 1 << 17), r"pixels"),
    "declares 144 megapixels": (huge_png(12_000, 12_000), r"declares 12000x12000 pixels; more than"),
    "floating-point tiff": (encoded(Image.new("F", (16, 16), 0.5), "TIFF"), "floating-point"),
    "too small": (encoded(RGB.resize((15, 16)), "PNG"), "15x16 is smaller than 16x16"),
}


@WHERE
@pytest.mark.parametrize("kind", BAD)
def test_every_unsound_image_is_left_out_with_its_reason(make: Make, kind: str, tmp_path: Path) -> None:
    content, reason = BAD[kind]
    files = make(tmp_path, {"a.png": PNG, "b.png": content})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(BadImage, match=reason) as raised:
            decode(read(files, 1), Framing(16))
        assert "\n" not in str(raised.value)
        data = open_dataset(str(_origin(files)), max_bad=0.5, resolution=16)
    assert [name for name, _ in data.skipped] == ["b.png"]
    assert np.array_equal(data.images([0])[0], PIXELS)


def _origin(files: Files) -> Path:
    """What a user would give: for a cut archive, its first piece."""
    return files.path if files.path.exists() else files.path.with_name(files.path.name + ".001")


@WHERE
def test_other_files_among_the_images_are_passed_over(make: Make, tmp_path: Path) -> None:
    others = {
        "notes.txt": b"x",
        "Thumbs.db": b"x",
        ".DS_Store": b"x",
        "__MACOSX/._a.png": b"x",
        "x.gif": b"x",
    }
    files = make(tmp_path, {"a.png": PNG, "b.PPM": encoded(RGB, "PPM"), **others})
    assert files.names == ["a.png", "b.PPM"]


# ---- folders


def test_a_pipe_among_the_images_is_left_out_and_never_waited_for(tmp_path: Path) -> None:
    in_folder(tmp_path, {"a.png": PNG})
    os.mkfifo(tmp_path / "set/b.png")
    data = open_dataset(str(tmp_path / "set"), max_bad=0.5)
    assert data.skipped == [("b.png", "not a plain file")]


def test_a_link_to_nowhere_is_left_out(tmp_path: Path) -> None:
    in_folder(tmp_path, {"a.png": PNG})
    os.symlink(tmp_path / "gone.png", tmp_path / "set/b.png")
    data = open_dataset(str(tmp_path / "set"), max_bad=0.5)
    assert data.skipped == [("b.png", "cannot be read: No such file or directory")]


def test_a_file_too_large_for_an_image_is_left_out_unread(tmp_path: Path) -> None:
    files = in_folder(tmp_path, {"a.png": PNG, "b.png": b""})
    os.truncate(tmp_path / "set/b.png", 1 << 40)  # sparse: it takes no room
    with pytest.raises(
        BadImage, match=r"declares 1,099,511,627,776 bytes; more than 268,435,456 are refused"
    ):
        read(files, 1)


# ---- zips


def patch_size(path: Path, declared: int) -> None:
    """Let the first member of the zip declare so many bytes, in its own header and in the directory."""
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(mark) + offset, declared)
    path.write_bytes(content)


def test_a_zip_bomb_is_refused_by_the_size_that_it_declares(tmp_path: Path) -> None:
    in_zip(tmp_path, {"a.png": bytes(1000)})
    patch_size(tmp_path / "set.zip", (1 << 28) + 1)
    with pytest.raises(BadImage, match="declares 268,435,457 bytes"):
        read(ZipFiles(tmp_path / "set.zip"), 0)


def test_a_zip_bomb_that_declares_little_yields_no_more_than_it_declares(tmp_path: Path) -> None:
    in_zip(tmp_path, {"a.png": bytes(1 << 24)})
    patch_size(tmp_path / "set.zip", 100)
    with pytest.raises(BadImage, match="cannot be read: Bad CRC"):
        read(ZipFiles(tmp_path / "set.zip"), 0)


def test_names_that_lead_out_of_a_zip_are_left_out_and_write_nothing(tmp_path: Path) -> None:
    hostile = ["../up.png", "/etc/root.png", "x/../../up.png", "C:/drive.png", "..\\back.png"]
    files = in_zip(tmp_path, {"a.png": PNG, **dict.fromkeys(hostile, PNG)})
    before = sorted(tmp_path.rglob("*"))
    data = open_dataset(str(files.path), max_bad=0.9)
    assert [name for name, _ in data.skipped] == sorted(name.replace("\\", "/") for name in hostile)
    assert {reason for _, reason in data.skipped} == {"its name leads out of the archive"}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_in_a_zip_is_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.png", PNG)
        link = zipfile.ZipInfo("b.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    data = open_dataset(str(tmp_path / "set.zip"), max_bad=0.5)
    assert data.skipped == [("b.png", "a link inside the zip, not an image")]


def test_backslashes_in_a_zip_are_folders(tmp_path: Path) -> None:
    files = in_zip(tmp_path, {"train\\a.png": PNG})
    assert files.names == ["train/a.png"]
    assert files.read(0) == PNG


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_for_two_images_in_a_zip_is_refused_unless_they_are_the_same(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.png", PNG)
        archive.writestr("a.png", PNG)
    assert ZipFiles(tmp_path / "set.zip").names == ["a.png"]
    with zipfile.ZipFile(tmp_path / "set.zip", "a") as archive:
        archive.writestr("a.png", b"another")
    with pytest.raises(DataError, match=r"two different images called a.png; make the zip again"):
        ZipFiles(tmp_path / "set.zip")


def test_a_damaged_member_is_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.png", PNG)
        archive.writestr("b.png", PNG)
    content = bytearray((tmp_path / "set.zip").read_bytes())
    content[content.rindex(b"IDAT") + 30] ^= 0xFF
    (tmp_path / "set.zip").write_bytes(content)
    data = open_dataset(str(tmp_path / "set.zip"), max_bad=0.5)
    assert data.skipped == [("b.png", "cannot be read: Bad CRC-32 for file 'b.png'")]


def test_a_member_in_an_unknown_compression_is_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.png", PNG)
        archive.writestr("b.png", PNG)
    content = bytearray((tmp_path / "set.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", content, content.rindex(mark) + offset, 97)  # WavPack
    (tmp_path / "set.zip").write_bytes(content)
    data = open_dataset(str(tmp_path / "set.zip"), max_bad=0.5)
    assert data.skipped[0][0] == "b.png"
    assert "compression" in data.skipped[0][1]


def test_labels_larger_than_any_table_are_refused(tmp_path: Path) -> None:
    in_zip(tmp_path, {"dataset.json": b"{}", "a.png": PNG})
    patch_size(tmp_path / "set.zip", (1 << 28) + 1)
    files = ZipFiles(tmp_path / "set.zip")
    with pytest.raises(DataError, match=r"dataset.json in it is damaged \(declares"):
        find_labels(files)


# ---- archives in pieces


def test_pieces_read_like_the_whole_at_every_offset_and_length(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8).tobytes()
    (tmp_path / "x.zip").write_bytes(content)
    first = cut(tmp_path / "x.zip", 7)
    with Pieces(find_pieces(first)) as file:
        assert file.read() == content
        for start in range(0, 1000, 37):
            for length in (0, 1, 143, 300, 2000):
                file.seek(start)
                assert file.read(length) == content[start : start + length]
                assert file.tell() == min(1000, start + length)
        assert file.seek(-5, os.SEEK_END) == 995
        assert file.seek(2, os.SEEK_CUR) == 997
        assert file.read() == content[997:]
        with pytest.raises(OSError, match="before the start"):
            file.seek(-1)


def test_any_piece_stands_for_its_archive(tmp_path: Path) -> None:
    in_pieces(tmp_path, {"a.png": PNG, "b.png": PNG})
    assert [ZipFiles(tmp_path / f"set.zip.00{n}").names for n in (1, 3, 5)] == [["a.png", "b.png"]] * 3
    assert len(open_dataset(str(tmp_path / "set.zip.002"))) == 2


@pytest.mark.parametrize("gone", [1, 3])
def test_a_missing_piece_is_named(tmp_path: Path, gone: int) -> None:
    in_pieces(tmp_path, {"a.png": PNG})
    (tmp_path / f"set.zip.00{gone}").unlink()
    with pytest.raises(DataError, match=rf"set.zip: piece set.zip.00{gone} is missing \(of 5 or more\)"):
        ZipFiles(tmp_path / "set.zip.002")


def test_a_missing_last_piece_is_guessed(tmp_path: Path) -> None:
    in_pieces(tmp_path, {"a.png": PNG})
    (tmp_path / "set.zip.005").unlink()
    with pytest.raises(
        DataError, match=r"its 4 pieces, to set.zip.004, make no zip .* download what is missing"
    ):
        ZipFiles(tmp_path / "set.zip.001")


def test_a_piece_cut_short_is_named(tmp_path: Path) -> None:
    in_pieces(tmp_path, {"a.png": PNG})
    piece = tmp_path / "set.zip.002"
    piece.write_bytes(piece.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"set.zip.002: [\d,]+ bytes where other pieces have .* cut short"):
        ZipFiles(tmp_path / "set.zip.001")


# ---- labels


@WHERE
@pytest.mark.parametrize(
    "table",
    [
        b"image,level\nb,1\na,0\n",
        b"image,level\r\nb.png,1\r\na.png,0\r\n",
        b'\xef\xbb\xbfimage,level\r\n"b",1\r\n"a",0\r\n\r\n',
        b"image;level\nset/b.png;1\nset/a.png;0\nset/other.png;4\n",
        b"level\timage\n1\t./b\n0\ta\n",
    ],
    ids=["no extension", "Windows line ends", "BOM and quotes", "one too many", "tabs"],
)
def test_labels_are_found_however_the_table_is_written(make: Make, table: bytes, tmp_path: Path) -> None:
    found = find_labels(make(tmp_path, {"a.png": PNG, "b.png": PNG, "labels.csv": table}))
    assert found is not None
    assert found[0].tolist() == [0, 1]


@WHERE
@pytest.mark.parametrize(
    ("table", "said"),
    [
        (b"image,level\na,0\n", "no label for 1 of the 2 images, e.g. b.png"),
        (b"image,level\na,0\nb,1\na,2\n", "gives a two labels, 0 and 2"),
        (b"image,level\na,0\nb\n", "row 3 has 1 columns"),
        (b"\xff\xfei\x00m\x00a\x00g\x00e\x00", "not a CSV table in UTF-8"),
        (b"", "holds no rows"),
    ],
    ids=["one too few", "contradiction", "short row", "UTF-16", "empty"],
)
def test_labels_that_do_not_fit_are_refused(make: Make, table: bytes, said: str, tmp_path: Path) -> None:
    files = make(tmp_path, {"a.png": PNG, "b.png": PNG, "labels.csv": table})
    with pytest.raises(DataError, match=said):
        find_labels(files)
