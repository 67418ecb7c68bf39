"""Moving pictures written a frame at a time: WebP and GIF through Pillow, MP4 through PyAV (extra `video`).

Only the frame at hand is in memory. An animated WebP is a container of still ones, so that each frame is
encoded by itself and appended (developers.google.com/speed/webp/docs/riff_container).
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dnnlib.errors import UserError
from dnnlib.files import PathLike, atomic_write

Frame = npt.NDArray[np.uint8]

FORMATS = (".webp", ".mp4", ".gif")
MP4_CODECS = {"h264": "libx264", "av1": "libsvtav1"}


class AnimationError(UserError, ValueError):
    """A film that cannot be written; the message says why and how to mend it."""


def save_animation(
    frames: Iterable[Frame],
    path: PathLike,
    *,
    fps: float = 25.0,
    loop: bool = True,
    quality: int = 85,
    codec: str = "h264",
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write frames, uint8 [H, W, 3] of one size, as .webp, .mp4 or .gif, atomically; how many there were.

    loop      WebP and GIF start again at their end
    quality   0 … 100, of WebP and MP4
    codec     of an MP4: h264 or av1
    progress  called with the number of frames written so far
    Raises AnimationError for another suffix, no frames, frames of unequal size, or where PyAV is missing.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise AnimationError(f"{path}: a film ends in {', '.join(FORMATS)}, not {suffix or 'nothing'!r}")
    if not 0 < fps <= 240:
        raise AnimationError(f"fps {fps:g}: must be above 0 and at most 240")
    if not 0 <= quality <= 100:
        raise AnimationError(f"quality {quality}: must lie within 0 … 100")
    if suffix == ".mp4":
        _import_av()
    checked = _checked(iter(frames))
    with atomic_write(path) as file:
        if suffix == ".webp":
            parts = _write_webp(checked, file, fps, loop, quality)
        elif suffix == ".gif":
            parts = _write_gif(checked, file, fps, loop)
        else:
            parts = _write_mp4(checked, file, fps, quality, codec)
        count = 0
        for count in parts:
            if progress is not None:
                progress(count)
    return count


def _checked(frames: Iterator[Frame]) -> Iterator[Frame]:
    shape: tuple[int, ...] | None = None
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise AnimationError(f"a frame is uint8 [H, W, 3], not {frame.dtype} {list(frame.shape)}")
        if frame.shape != (shape or frame.shape):
            raise AnimationError(f"frames of {list(shape or ())} and {list(frame.shape)} in one film")
        shape = frame.shape
        yield frame
    if shape is None:
        raise AnimationError("no frames to write")


def _ticks(index: int, fps: float, unit: int) -> int:
    """How long frame `index` is shown, in 1/unit s; rounding does not add up."""
    return max(1, round((index + 1) * unit / fps) - round(index * unit / fps))


# ---- WebP ------------------------------------------------------------------------------------------------


def _chunk(name: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)


def _u24(*numbers: int) -> bytes:
    return b"".join(n.to_bytes(3, "little") for n in numbers)


def _write_webp(
    frames: Iterator[Frame], file: IO[bytes], fps: float, loop: bool, quality: int
) -> Iterator[int]:
    total = 0
    for i, frame in enumerate(frames):
        height, width = frame.shape[:2]
        if max(height, width) > 16383:
            raise AnimationError(
                f"{width}×{height}: WebP holds at most 16383 pixels a side; choose a smaller size"
            )
        if i == 0:
            animated = 0x02
            head = _chunk(b"VP8X", bytes([animated, 0, 0, 0]), _u24(width - 1, height - 1))
            head += _chunk(b"ANIM", b"\xff\xff\xff\xff", struct.pack("<H", 0 if loop else 1))
            total = file.write(b"RIFF\0\0\0\0WEBP" + head)
        still = io.BytesIO()
        Image.fromarray(frame).save(still, "WEBP", quality=quality, method=4)
        picture = still.getvalue()[12:]  # past RIFF, size and WEBP: the chunk of the picture itself
        place = _u24(0, 0, width - 1, height - 1, _ticks(i, fps, 1000))
        do_not_blend = 0x02
        total += file.write(_chunk(b"ANMF", place, bytes([do_not_blend]), picture))
        if total > 0xFFFFFFF0:
            raise AnimationError("more than the 4 GiB that a WebP holds: choose .mp4, or a shorter film")
        yield i + 1
    file.seek(4)
    file.write(struct.pack("<I", total - 8))


# ---- GIF -------------------------------------------------------------------------------------------------


def _write_gif(frames: Iterator[Frame], file: IO[bytes], fps: float, loop: bool) -> Iterator[int]:
    for i, frame in enumerate(frames):
        height, width = frame.shape[:2]
        if max(height, width) > 65535:
            raise AnimationError(f"{width}×{height}: GIF holds at most 65535 pixels a side")
        if i == 0:
            file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0))
            if loop:
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")
        colours, pixels = _gif_parts(Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT))
        file.write(b"\x21\xf9\x04\0" + struct.pack("<H", _ticks(i, fps, 100)) + b"\0\0")
        own_table = 0x80 | ((len(colours) // 3).bit_length() - 2)
        file.write(b"," + struct.pack("<HHHHB", 0, 0, width, height, own_table) + colours + pixels)
        yield i + 1
    file.write(b";")


def _gif_parts(image: Image.Image) -> tuple[bytes, bytes]:
    """The table of colours and the compressed pixels of a GIF of one frame that Pillow makes."""
    whole = io.BytesIO()
    image.save(whole, "GIF", interlace=False)
    data = whole.getvalue()
    table = 3 << ((data[10] & 7) + 1)
    at = 13 + table
    while data[at] == 0x21:  # extensions: blocks that each say their length, to an empty one
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    return data[13 : 13 + table], data[at + 10 : -1]


# ---- MP4 -------------------------------------------------------------------------------------------------


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise AnimationError(
            "MP4 needs PyAV, which is not installed: pip install '.[video]', or write a .webp"
        ) from None
    return av


def _write_mp4(
    frames: Iterator[Frame], file: IO[bytes], fps: float, quality: int, codec: str
) -> Iterator[int]:
    av = _import_av()
    if codec not in MP4_CODECS:
        raise AnimationError(f"codec {codec!r}: choose one of {', '.join(MP4_CODECS)}")
    from av.video.reformatter import Colorspace

    # The rate factor of both encoders: 85 gives 18 of 51 for H.264, and 22 of 63 for AV1.
    worst = {"h264": 51, "av1": 63}[codec]
    options = {"crf": str(round(8 + (worst - 8) * (100 - quality) / 65)) if quality > 35 else str(worst)}
    options["preset"] = {"h264": "medium", "av1": "8"}[codec]
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder tells of itself at length: errors alone
    # By name, so that the index can be moved to the front, where a browser wants it.
    with av.open(file.name, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for i, frame in enumerate(frames):
            # 4:2:0 has a colour for every 2 × 2 pixels.
            frame = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")
            if stream is None:
                stream = container.add_stream(MP4_CODECS[codec], rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = options
                context = stream.codec_context
                context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
                context.color_range = 1  # 16 … 235
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            picture.pts = i
            for packet in stream.encode(picture):
                container.mux(packet)
            yield i + 1
        if stream is not None:
            for packet in stream.encode():
                container.mux(packet)
