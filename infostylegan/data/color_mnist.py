"""Color MNIST: MNIST's digits, each in a colour, on a ground of a colour; used by Tang et al. (ICPR 2020).

Their colours are not published. Here a digit has one of ten bright hues, and the ground one of ten darker
ones, both drawn for each image independently of the digit and of each other, so the three factors `digit`,
`foreground` and `background` are independent. Grey levels of a digit mix the two colours. 32x32, RGB.
"""

from __future__ import annotations

import colorsys

import numpy as np

from infostylegan.data.loading import ArrayDataset
from infostylegan.data.sources import DIGITS

COLOURS = ("red", "orange", "yellow", "lime", "green", "turquoise", "sky", "blue", "violet", "pink")
_HUES = (0, 28, 54, 85, 130, 170, 200, 230, 275, 320)  # degrees


def _palette(saturation: float, value: float) -> np.ndarray:
    rgb = [colorsys.hsv_to_rgb(hue / 360, saturation, value) for hue in _HUES]
    return np.rint(255 * np.array(rgb)).astype(np.uint8)


FOREGROUND = _palette(0.75, 1.0)  # uint8 [10, 3]
BACKGROUND = _palette(1.0, 0.4)


def colourings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The foreground and background of images 0 ... count-1, int64 [count] each."""
    # Raw bits never change between NumPy releases. The bias of a remainder, 2**-60, is of no account.
    bits = np.random.Philox(np.random.SeedSequence([seed & (1 << 64) - 1, 0xC0102])).random_raw(count)
    drawn = (bits % np.uint64(100)).astype(np.int64)
    return drawn // 10, drawn % 10


def colour(digits: np.ndarray, foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Digits uint8 [n, 1, R, R] in colours int64 [n]: uint8 [n, 3, R, R], means of the two, rounded."""
    ink = digits.astype(np.uint32)
    front = FOREGROUND[foreground][:, :, None, None]
    ground = BACKGROUND[background][:, :, None, None]
    return ((ink * front + (255 - ink) * ground + 127) // 255).astype(np.uint8)


def colour_mnist(mnist: ArrayDataset, seed: int = 0, *, labels: bool = True) -> ArrayDataset:
    """Color MNIST from MNIST with its labels; raises ValueError where it has none."""
    if mnist.labels is None:
        raise ValueError("Color MNIST needs MNIST's labels, for the digit is one of its factors")
    foreground, background = colourings(len(mnist), seed)
    factors = {"digit": mnist.labels, "foreground": foreground, "background": background}
    return ArrayDataset(
        "color-mnist",
        colour(mnist.array, foreground, background),
        mnist.labels if labels else None,
        DIGITS if labels else None,
        factors,
    )
