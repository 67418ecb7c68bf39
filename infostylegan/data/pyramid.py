"""An image at lower resolutions: sums over blocks of its pixels, and how those are kept in a packed set.

Training at r x r sees the mean of each block of s*s pixels, s = R/r, of the R x R image. Sums are exact
integers, so a set that was packed with them and one that adds them up while reading give the same batches,
to the bit.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

SMALLEST = 4  # the resolution at which growth can start, and so the lowest that is kept


def lower_resolutions(resolution: int) -> tuple[int, ...]:
    """The resolutions kept beside one: halved again and again, down to 4."""
    kept = []
    while resolution > SMALLEST:
        resolution //= 2
        kept.append(resolution)
    return tuple(kept)


def box_sums(images: np.ndarray, resolution: int) -> np.ndarray:
    """Sums over s*s blocks, exact integers: uint8 [n, C, R, R] -> uint8|uint16|uint32 [n, C, r, r], s = R/r.

    Adding strided views pairwise is several times faster than a reduction over a 6-d reshape.
    """
    factor = images.shape[-1] // resolution
    sums = images
    while sums.shape[-1] > resolution:
        sums = _halve(sums, images.shape[-1] // sums.shape[-1] * 2)
    assert sums.shape[-1] * factor == images.shape[-1]
    return sums


def _halve(sums: np.ndarray, factor: int) -> np.ndarray:
    """Sums over 2x2 blocks, in a type that holds those of factor*factor bytes."""
    wide = sum_type(factor)
    rows = np.add(sums[..., 0::2, :], sums[..., 1::2, :], dtype=wide)
    return np.add(rows[..., 0::2], rows[..., 1::2], dtype=wide)


def sum_type(factor: int) -> np.dtype:
    """The integers that hold a sum of factor*factor bytes."""
    if factor == 1:
        return np.dtype(np.uint8)
    return np.dtype(np.uint16) if 255 * factor * factor < 1 << 16 else np.dtype(np.uint32)


def to_float(sums: np.ndarray, factor: int) -> torch.Tensor:
    """Block sums -> means in [-1, 1], float32: 0 -> -1 and 255*s*s -> 1, both exact."""
    # Left to NumPy, because this is run by threads that read ahead: torch would start a second team of OpenMP
    # threads for them, and libgomp, seeing more threads than cores, then lets those of the training step
    # sleep between their tasks, which takes a step of small networks twice the time.
    scaled = sums.astype(np.float32)
    # 127.5*s*s and every sum are exact in float32 (s <= 128), so there is one rounding, in the division.
    scaled /= np.float32(127.5 * factor * factor)
    scaled -= np.float32(1.0)
    return torch.from_numpy(scaled)


# ---- kept in a packed set ------------------------------------------------------------------------------


def encode_pyramid(image: np.ndarray) -> tuple[bytes, ...]:
    """One record for each of `lower_resolutions`, of an image uint8 [C, R, R]."""
    records = []
    sums = image
    for resolution in lower_resolutions(image.shape[-1]):
        sums = _halve(sums, image.shape[-1] // resolution)
        records.append(encode_sums(sums))
    return tuple(records)


def encode_sums(sums: np.ndarray) -> bytes:
    """Sums [C, r, r] without loss: what the neighbours above and to the left do not tell, deflated.

    The residual of a - left - above + corner wraps around in the sums' own type, small negative ones are
    folded among the small positive ones, and bytes of the same weight lie together: the upper ones are then
    nearly all 0. Runs and Huffman codes compress such bytes as well as a search for repetitions does, in a
    fraction of the time.
    """
    across = sums.copy()
    across[..., 1:] -= sums[..., :-1]
    residual = across.copy()
    residual[..., 1:, :] -= across[..., :-1, :]
    top = residual.dtype.itemsize * 8 - 1
    folded = (residual << 1) ^ (0 - (residual >> top)).astype(residual.dtype)
    planes = folded.astype(folded.dtype.newbyteorder("<")).reshape(-1, 1).view(np.uint8).T
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return packer.compress(planes.tobytes()) + packer.flush()


def decode_sums(record: bytes, channels: int, resolution: int, factor: int) -> np.ndarray:
    """What `encode_sums` was given, [channels, r, r]. Raises ValueError where the record is damaged."""
    kind = sum_type(factor)
    count = channels * resolution * resolution
    try:
        content = zlib.decompress(record, bufsize=count * kind.itemsize)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(content) != count * kind.itemsize:
        raise ValueError(f"{len(content)} bytes where {count * kind.itemsize} belong")
    planes = np.frombuffer(content, dtype=np.uint8).reshape(kind.itemsize, count)
    folded = np.ascontiguousarray(planes.T).view(kind.newbyteorder("<")).astype(kind)
    sums = (folded >> 1) ^ (0 - (folded & 1)).astype(kind)
    sums = sums.reshape(channels, resolution, resolution)
    np.cumsum(sums, axis=1, dtype=kind, out=sums)
    np.cumsum(sums, axis=2, dtype=kind, out=sums)
    return sums
