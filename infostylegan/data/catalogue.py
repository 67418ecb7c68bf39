"""From what a user types after --data (a name, a folder, a zip) to a data set."""

from __future__ import annotations

import contextlib
import difflib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dnnlib.cache import cache_folder
from infostylegan.data import dsprites
from infostylegan.data.color_mnist import colour_mnist
from infostylegan.data.drawing import FUNDUS_COUNT, open_fundus
from infostylegan.data.errors import DataError
from infostylegan.data.factors import ColorMnistSource, DspritesSource, FundusSource, LookupSource
from infostylegan.data.imagefolder import has_table, read_imagefolder
from infostylegan.data.images import BadImage, Framing, check_resolution, read_header
from infostylegan.data.loading import ArrayDataset, Dataset, Progress, load_files
from infostylegan.data.packed import PackedDataset, read_contents
from infostylegan.data.packing import read_annotations
from infostylegan.data.pyramid import box_sums
from infostylegan.data.shapes3d import FILE as SHAPES3D_FILE
from infostylegan.data.shapes3d import Shapes3d
from infostylegan.data.sources import Files, FolderFiles, ZipFiles, find_labels, is_mnist_folder, read_mnist

FactorSource = DspritesSource | ColorMnistSource | FundusSource | LookupSource

LARGEST_GUESS = 512  # the resolution taken where none is asked for
SAMPLED = 256  # images whose headers decide resolution and channels

# How to get each set that has a name and is not embedded. Only commands that exist are named here.
RECIPES = {
    "eyepacs": """\
Where it comes from: kaggle.com/c/diabetic-retinopathy-detection (an account, and its rules accepted).
The paper trained on the 53,576 test images: test.zip.001 to test.zip.007, and retinopathy_solution.csv.
How to prepare it, once:
  python -m infostylegan data eyepacs FOLDER_OF_THESE data/eyepacs.zip --resolution 512""",
    "celeba": """\
Where it comes from: mmlab.ie.cuhk.edu.hk/projects/CelebA.html, "Align&Cropped Images", img_align_celeba.zip.
How to prepare it, once:
  python -m infostylegan data celeba img_align_celeba.zip data/celeba.zip --resolution 128
Beside it belong list_attr_celeba.txt and list_eval_partition.txt; without them, add --no-attributes.""",
    "mnist": """\
Where it comes from: its four files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the same of
t10k, from any mirror of yann.lecun.com/exdb/mnist.
How to prepare it: put them into data/mnist, as they are.""",
    "fashion-mnist": """\
Where it comes from: github.com/zalandoresearch/fashion-mnist, the four .gz files under data/fashion.
How to prepare it: put them into data/fashion-mnist, as they are.""",
    "color-mnist": """\
Where it comes from: it is made from MNIST's four files, train-images-idx3-ubyte.gz and so on.
How to prepare it: put them into data/mnist, as they are.""",
    "shapes3d": """\
Where it comes from: storage.googleapis.com/3d-shapes (github.com/google-deepmind/3d-shapes), 3dshapes.h5.
How to prepare it, once:
  pip install '.[data]'
  python -m infostylegan data shapes3d 3dshapes.h5 data/shapes3d.zip""",
}
NAMES = ("fundus", "dsprites", *RECIPES)


def open_dataset(
    data: str,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    fit: str = "crop",
    max_bad: float = 0.05,
    largest: int = LARGEST_GUESS,
    cache_dir: str | None = None,
    labels: bool = True,
    split: str = "train",
    count: int = FUNDUS_COUNT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Open the data set that `data` names.

    data        "fundus" and "dsprites" (drawn here), "eyepacs", "celeba", "mnist", "fashion-mnist",
                "color-mnist", "shapes3d" (looked for under ./data and $INFOSTYLEGAN_DATA), a folder with
                MNIST's files, dSprites' .npz, 3D Shapes' .h5, a folder of images, or a zip of images
    resolution  pixels a side, a power of two; None: fundus 64, MNIST 32, else the largest power of two that
                half the images reach, at most `largest`
    channels    1 or 3; None: 1 where every image sampled is gray
    fit         "crop" to the centred square, or "pad" to a square with black
    max_bad     the share of images that may be left out for being damaged or too small
    cache_dir   where drawn images and the findings about large sets are kept; None: dnnlib.cache's folder
    labels      False: pay no heed to labels
    split       "train" or "test"; only MNIST's files have a "test"
    count, seed how many images of fundus to draw, and which
    progress    called with (done, total) while images are drawn or looked at

    Raises DataError, which says what is wrong, where, and how to mend it.
    """
    if resolution is not None:
        check_resolution(resolution)
    if channels not in (None, 1, 3):
        raise DataError(f"{channels} channels: images have 1 (gray) or 3 (RGB); use 1 or 3")
    if not 0 <= max_bad <= 1:
        raise DataError(f"max_bad {max_bad:g} is no share of images; give a number from 0 to 1")
    cache = Path(cache_dir).expanduser() if cache_dir else cache_folder()
    if data == "fundus":
        _only_train(data, split)
        return open_fundus(
            resolution or 64,
            channels or 3,
            count=count,
            seed=seed,
            cache=cache,
            labels=labels,
            progress=progress,
        )
    if data == "dsprites":
        _only_train(data, split)
        found_here = find_dsprites()
        if found_here is None:
            return _fixed(dsprites.Regenerated(labels=labels), resolution, channels)
        data, path = str(found_here), found_here
    else:
        path = _locate(data, resolution)
    if data == "color-mnist" and path.is_dir():
        return open_color_mnist(path, resolution, split=split, labels=labels, seed=seed)
    if path.suffix.lower() in (".npz", ".h5", ".hdf5") and path.is_file():
        _only_train(data, split)
        whole: Dataset
        if path.suffix.lower() == ".npz":
            whole = dsprites.read_npz(path, labels=labels)
        else:
            whole = Shapes3d(path, labels=labels, progress=progress)
        return _fixed(whole, resolution, channels)
    if path.is_dir() and is_mnist_folder(path):
        return open_mnist(path, resolution, channels, split=split, labels=labels)
    _only_train(data, split)
    files = open_files(path)
    name = data if data in NAMES else path.resolve().stem
    known = read_annotations(files, find_labels(files) if labels else None)
    if labels and known.labels is None and has_table(files):
        known = read_imagefolder(files)
    contents = read_contents(files) if isinstance(files, ZipFiles) else None
    if contents is not None:
        resolution = resolution or min(contents.resolution, largest)
        if (resolution, channels or contents.channels) == (contents.resolution, contents.channels):
            assert isinstance(files, ZipFiles)
            return PackedDataset(files, contents, known, name=name)
    framing = choose_framing(files, resolution, channels, fit, largest=largest)
    return load_files(files, framing, known, name=name, max_bad=max_bad, memo=cache, progress=progress)


def open_files(path: Path) -> FolderFiles | ZipFiles:
    """The image files in a folder or zip. Raises DataError where there are none."""
    if not path.exists():
        raise DataError(f"{path}: no such folder or zip")
    return FolderFiles(path) if path.is_dir() else ZipFiles(path)


def choose_framing(
    files: Files,
    resolution: int | None = None,
    channels: int | None = None,
    fit: str = "crop",
    crop: tuple[int, int, int, int] | None = None,
    largest: int = LARGEST_GUESS,
) -> Framing:
    """What to make the images into: what was asked for, else what a sample of headers suggests."""
    if resolution is None or channels is None:
        headers = []
        reason = ""
        for index in np.unique(np.linspace(0, len(files.names) - 1, SAMPLED).astype(np.int64)):
            with contextlib.suppress(OSError):
                try:
                    with files.open(int(index)) as file:
                        headers.append(read_header(file))
                except (BadImage, zipfile.BadZipFile, RuntimeError) as error:
                    reason = reason or f"{files.names[index]} ({error})"
        if not headers:
            raise DataError(f"{files.path}: no image can be read, e.g. {reason or files.names[0]}; "
                            "copy or download them again")  # fmt: skip
        if channels is None:
            channels = 1 if all(header.gray for header in headers) else 3
        if resolution is None:
            shorter = float(np.median([min(header.width, header.height) for header in headers]))
            if crop is not None:
                shorter = min(shorter, crop[2] - crop[0], crop[3] - crop[1])
            resolution = min(largest, max(8, 1 << (int(shorter).bit_length() - 1)))
    return Framing(resolution, channels, fit, crop)


def open_mnist(
    folder: Path, resolution: int | None, channels: int | None, *, split: str = "train", labels: bool = True
) -> ArrayDataset:
    """MNIST's files, padded to 32x32; lower resolutions are box averages, rounded."""
    resolution = resolution or 32
    if resolution > 32:
        raise DataError(f"{folder}: MNIST images are 32x32 when padded, not {resolution}x{resolution}; "
                        "use --resolution 32 or less")  # fmt: skip
    images, found = read_mnist(folder, split, labels=labels)
    if resolution < 32:
        area = (32 // resolution) ** 2
        images = ((box_sums(images, resolution) + area // 2) // area).astype(np.uint8)
    if channels == 3:
        images = np.repeat(images, 3, axis=1)
    # The two sets have the same file names; only the folder tells them apart.
    name = "fashion-mnist" if "fashion" in str(folder.resolve()).lower() else "mnist"
    return ArrayDataset(name, images, *(found or (None, None)))


def open_color_mnist(
    folder: Path, resolution: int | None = None, *, split: str = "train", labels: bool = True, seed: int = 0
) -> ArrayDataset:
    """Color MNIST, made from the folder with MNIST's files; `seed` is that of the colours."""
    digits = open_mnist(folder, resolution, None, split=split)
    if digits.labels is None:
        raise DataError(
            f"{folder}: Color MNIST needs the labels; put {split}-labels-idx1-ubyte.gz there, too"
        )
    return colour_mnist(digits, seed, labels=labels)


def find_dsprites() -> Path | None:
    """dSprites on this machine, packed or as its owners distribute it."""
    paths = [path for root in _roots() for path in (root / "dsprites.zip", root / dsprites.NPZ)]
    return next((path for path in paths if path.exists()), None)


def open_factors(data: str, *, resolution: int | None = None, seed: int = 0) -> FactorSource:
    """What `data` names, as a world to draw images from by their factors; see `data.factors`.

    `seed` is that of everything but the factors. Raises DataError for a set whose factors are not known.
    """
    if data == "dsprites" and resolution in (None, dsprites.SIZE):
        return DspritesSource()
    if data == "fundus":
        return FundusSource(resolution or 64, seed)
    if data == "color-mnist":
        path = _locate(data, resolution)
        if path.is_dir():
            return ColorMnistSource(open_mnist(path, resolution, None), seed)
    return LookupSource(open_dataset(data, resolution=resolution), seed)


def _fixed(dataset: Dataset, resolution: int | None, channels: int | None) -> Dataset:
    """A set that is as it is; raise DataError where it is wanted otherwise."""
    if resolution not in (None, dataset.resolution) or channels not in (None, dataset.channels):
        size, kind = dataset.resolution, "gray" if dataset.channels == 1 else "RGB"
        raise DataError(f"{dataset.name}: is {size}x{size}, {kind}; use --resolution {size}, or pack it "
                        "and open the zip")  # fmt: skip
    return dataset


# ---- names ---------------------------------------------------------------------------------------------


def _only_train(data: str, split: str) -> None:
    if split != "train":
        raise DataError(
            f"{data}: has no split {split!r}; only MNIST's files do. Give a data set of its own instead"
        )


def _locate(data: str, resolution: int | None) -> Path:
    """The folder or zip that `data` means. Raises DataError where there is none."""
    if data in RECIPES:
        tried = list(_candidates(data, resolution))
        for path in tried:
            if path.exists():
                return path
        if data == "color-mnist":
            for path in _candidates("mnist", resolution):
                if path.is_dir() and is_mnist_folder(path):
                    return path
        places = dict.fromkeys(str(path.parent.absolute()) for path in tried)
        looked = ", ".join(places)
        hint = (
            ""
            if "INFOSTYLEGAN_DATA" in os.environ
            else "; INFOSTYLEGAN_DATA, where set, is looked at as well"
        )
        raise DataError(
            f"{data}: not found; looked for {data}.zip, {data}512.zip, ... and the folder {data} "
            f"in {looked}{hint}.\n"
            f"{RECIPES[data]}"
        )
    path = Path(data).expanduser()
    if path.exists():
        return path
    message = f"{data}: no such folder or zip"
    if "/" in data or os.sep in data:
        nearest = next(parent for parent in path.absolute().parents if parent.exists())
        if nearest != path.absolute().parent:
            raise DataError(f"{message}; {nearest} exists, but nothing below it on that path")
        near = difflib.get_close_matches(path.name, os.listdir(nearest) if nearest.is_dir() else [], n=1)
        raise DataError(message + (f"; did you mean {path.parent / near[0]}?" if near else f" in {nearest}"))
    near = difflib.get_close_matches(data.lower(), NAMES, n=1, cutoff=0.5)
    near = near or difflib.get_close_matches(data, os.listdir("."), n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise DataError(f"{message} here, and no name of a data set ({', '.join(NAMES)}){guess}")


def _candidates(name: str, resolution: int | None) -> Iterator[Path]:
    sizes = [str(size) for size in (512, 256, 128, 64, 1024)]
    suffixes = [str(resolution)] if resolution else []
    for root in _roots():
        for suffix in (*suffixes, "", *sizes):
            yield root / f"{name}{suffix}.zip"
        if name == "shapes3d":
            yield root / SHAPES3D_FILE
        yield root / name


def _roots() -> list[Path]:
    roots = [Path("data"), Path()]
    if os.environ.get("INFOSTYLEGAN_DATA"):
        roots.append(Path(os.environ["INFOSTYLEGAN_DATA"]).expanduser())
    return roots
