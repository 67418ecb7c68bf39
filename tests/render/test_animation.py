"""Facts about films: frames come back in order and in time, and memory does not grow with their number."""

import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageSequence

from infostylegan.render.animation import AnimationError, save_animation


def picture(i, height=24, width=32):
    """Smooth, and different for each i."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40 * i % 256)], -1).astype(np.uint8)


def decoded(path):
    if path.suffix == ".mp4":
        av = pytest.importorskip("av", reason="PyAV (extra video) is not installed")
        with av.open(str(path)) as film:
            return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(path))]


@pytest.mark.parametrize("name", ["a.webp", "a.gif", "a.mp4"])
def test_every_frame_comes_back_in_order(tmp_path, name):
    if name.endswith("mp4"):
        pytest.importorskip("av", reason="PyAV (extra video) is not installed")
    path, told = tmp_path / name, []
    assert save_animation(map(picture, range(6)), path, fps=10, quality=95, progress=told.append) == 6
    assert told == [1, 2, 3, 4, 5, 6]
    film = decoded(path)
    assert len(film) == 6
    for i, frame in enumerate(film):
        assert np.abs(frame.astype(int) - picture(i)).mean() < 6, i
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_durations_add_up_to_the_length_at_any_rate(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    save_animation(map(picture, range(24)), path, fps=24)
    film, total = Image.open(path), 0
    for i in range(film.n_frames):
        film.seek(i)
        film.load()
        total += film.info["duration"]
    assert total == 1000
    assert film.info["loop"] == 0


def test_an_mp4_has_the_rate_asked_for_the_colours_of_bt709_and_even_sides(tmp_path):
    av = pytest.importorskip("av", reason="PyAV (extra video) is not installed")
    path = tmp_path / "a.mp4"
    save_animation((picture(i, 25, 33) for i in range(10)), path, fps=29.97)
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(29.97, abs=0.01)
        assert (stream.width, stream.height) == (34, 26)
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.colorspace == 1
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")  # a browser can start at once


def test_an_av1_film_can_be_asked_for(tmp_path):
    av = pytest.importorskip("av", reason="PyAV (extra video) is not installed")
    save_animation((picture(i, 64, 64) for i in range(4)), tmp_path / "a.mp4", codec="av1")
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert "av1" in film.streams.video[0].codec_context.name
        assert sum(1 for _ in film.decode(video=0)) == 4


def test_a_webp_says_its_own_length_and_every_chunk_fits_within(tmp_path):
    path = tmp_path / "a.webp"
    save_animation(map(picture, range(3)), path, loop=False)
    data = path.read_bytes()
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    at, names = 12, []
    while at < len(data):
        name, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        names.append(name)
        at += 8 + size + size % 2
    assert at == len(data)
    assert names == [b"VP8X", b"ANIM", b"ANMF", b"ANMF", b"ANMF"]
    assert Image.open(path).info["loop"] == 1


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path, suffix):
    def peak(count):
        tracemalloc.start()
        save_animation((picture(i, 96, 96) for i in range(count)), tmp_path / f"a.{suffix}")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)
    assert peak(80) < 1.2 * peak(8)


@pytest.mark.parametrize(
    ("name", "frames", "words"),
    [("a.avi", [picture(0)], "webp"), ("a", [picture(0)], "webp"), ("a.webp", [], "no frames"),
     ("a.webp", [picture(0), picture(0, 25)], "in one film"), ("a.gif", [picture(0)[:, :, :1]], "uint8"),
     ("a.webp", [picture(0).astype(float)], "uint8")],
)  # fmt: skip
def test_what_cannot_be_a_film_is_refused_and_leaves_the_old_file(tmp_path, name, frames, words):
    (tmp_path / name).write_text("old")
    with pytest.raises(AnimationError, match=words):
        save_animation(iter(frames), tmp_path / name)
    assert (tmp_path / name).read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_without_pyav_an_mp4_is_refused_with_the_remedy():
    program = (
        "import sys; sys.modules['av'] = None\n"
        "from infostylegan.render.animation import save_animation, AnimationError\n"
        "try: save_animation(iter([]), 'a.mp4')\n"
        "except AnimationError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "pip install '.[video]'" in told.stdout
