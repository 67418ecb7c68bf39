"""From what a user types after --data (a name, a folder, a zip) to a data set."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np

from infostylegan.data import fundus
from infostylegan.data.errors import DataError
from infostylegan.data.images import BadImage, Framing, check_resolution, luma, read_header
from infostylegan.data.loading import (
    ArrayDataset,
    Dataset,
    FileDataset,
    Progress,
    box_sums,
    load_files,
    worker_count,
)
from infostylegan.data.packing import is_packed, label_document, pack_chunks, read_factors
from infostylegan.data.sources import (
    Files,
    FolderFiles,
    ZipFiles,
    find_labels,
    is_mnist_folder,
    read_mnist,
)

LARGEST_GUESS = 512  # the resolution taken where none is asked for
SAMPLED = 256  # images whose headers decide resolution and channels
FUNDUS_COUNT = 8192
GRADES = ("no retinopathy", "mild", "moderate", "severe", "proliferative")

# How to get each set that has a name and is not embedded. Only commands that exist are named here.
RECIPES = {
    "eyepacs": """\
Where it comes from: kaggle.com/c/diabetic-retinopathy-detection (an account, and its rules accepted).
The paper trained on the 53,576 test images: test.zip.001 to test.zip.007, and retinopathy_solution.csv.
How to prepare it, once:
  cat test.zip.00? > test.zip && unzip test.zip
  python -m infostylegan data folder test data/eyepacs.zip --resolution 512 --fit pad \
--labels retinopathy_solution.csv""",
    "celeba": """\
Where it comes from: mmlab.ie.cuhk.edu.hk/projects/CelebA.html, "Align&Cropped Images", img_align_celeba.zip.
How to prepare it, once:
  unzip img_align_celeba.zip
  python -m infostylegan data folder img_align_celeba data/celeba.zip --resolution 128 \
--crop 25,57,153,185""",
    "mnist": """\
Where it comes from: its four files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the same of
t10k, from any mirror of yann.lecun.com/exdb/mnist.
How to prepare it: put them into data/mnist, as they are.""",
    "fashion-mnist": """\
Where it comes from: github.com/zalandoresearch/fashion-mnist, the four .gz files under data/fashion.
How to prepare it: put them into data/fashion-mnist, as they are.""",
}
NAMES = ("fundus", *RECIPES)


def open_dataset(
    data: str,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    fit: str = "crop",
    max_bad: float = 0.05,
    cache_dir: str | None = None,
    labels: bool = True,
    split: str = "train",
    count: int = FUNDUS_COUNT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Open the data set that `data` names.

    data        "fundus" (drawn here), "eyepacs", "celeba", "mnist", "fashion-mnist" (looked for under ./data
                and $INFOSTYLEGAN_DATA), a folder with MNIST's files, a folder of images, or a zip of images
    resolution  pixels a side, a power of two; None: fundus 64, MNIST 32, else the largest power of two that
                half the images reach, at most 512
    channels    1 or 3; None: 1 where every image sampled is gray
    fit         "crop" to the centred square, or "pad" to a square with black
    max_bad     the share of images that may be left out for being damaged or too small
    cache_dir   where drawn images and the findings about large sets are kept; None: $INFOSTYLEGAN_CACHE, or
                ~/.cache/infostylegan
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
    cache = cache_folder(cache_dir)
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
    path = _locate(data, resolution)
    if path.is_dir() and is_mnist_folder(path):
        return open_mnist(path, resolution, channels, split=split, labels=labels)
    _only_train(data, split)
    files = open_files(path)
    framing = choose_framing(files, resolution, channels, fit)
    found = find_labels(files) if labels else None
    return load_files(
        files,
        framing,
        name=data if data in NAMES else path.resolve().stem,
        labels=found[0] if found else None,
        label_names=found[1] if found else None,
        factors=read_factors(files),
        max_bad=max_bad,
        trusted=isinstance(files, ZipFiles) and is_packed(files),
        memo=cache,
        progress=progress,
    )


def cache_folder(cache_dir: str | None = None) -> Path:
    chosen = cache_dir or os.environ.get("INFOSTYLEGAN_CACHE") or "~/.cache/infostylegan"
    return Path(chosen).expanduser()


def open_files(path: Path) -> Files:
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
                except BadImage as error:
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
            resolution = min(LARGEST_GUESS, max(8, 1 << (int(shorter).bit_length() - 1)))
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
    return ArrayDataset(folder.resolve().name, images, *(found or (None, None)))


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
    roots = [Path("data"), Path()]
    if os.environ.get("INFOSTYLEGAN_DATA"):
        roots.append(Path(os.environ["INFOSTYLEGAN_DATA"]).expanduser())
    sizes = [str(size) for size in (512, 256, 128, 64, 1024)]
    suffixes = [str(resolution)] if resolution else []
    for root in roots:
        for suffix in (*suffixes, "", *sizes):
            yield root / f"{name}{suffix}.zip"
        yield root / name


# ---- fundus --------------------------------------------------------------------------------------------


def open_fundus(
    resolution: int = 64,
    channels: int = 3,
    *,
    count: int = FUNDUS_COUNT,
    seed: int = 0,
    cache: Path | None = None,
    labels: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Drawn retinal photographs with known factors; drawn once, then read from `cache`.

    The labels are the grades of retinopathy. A damaged cache is drawn again; where it cannot be written,
    the images are drawn for this process alone, with a warning.
    """
    check_fundus(resolution, count)
    version = hashlib.sha256(Path(fundus.__file__).read_bytes()).hexdigest()
    key = json.dumps(["fundus", version, seed, count, resolution])
    digest = hashlib.sha256(json.dumps([key, channels, labels]).encode()).hexdigest()
    path = (cache or cache_folder()) / f"fundus-{resolution}-{count}-seed{seed}-{version[:12]}.zip"
    framing = Framing(resolution, channels)
    known = partial(_cached_fundus, path, framing, count, labels)
    try:
        dataset = known()
        if dataset is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _lock(path.with_suffix(".lock")):
                dataset = known()  # another process may have drawn it while we waited
                if dataset is None:
                    pack_fundus(path, resolution, count, seed, overwrite=True, progress=progress)
                    dataset = known()
    except (OSError, DataError) as error:
        warnings.warn(
            f"drawn images cannot be kept in {path.parent} ({_reason(error)}), so they are drawn at every "
            "start; point INFOSTYLEGAN_CACHE at a folder that can be written",
            stacklevel=2,
        )
        dataset = None
    if dataset is None:
        dataset = _fundus_in_memory(framing, count, seed, labels, progress)
    dataset.digest = digest
    return dataset


def pack_fundus(
    dest: Path,
    resolution: int = 64,
    count: int = FUNDUS_COUNT,
    seed: int = 0,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Draw `count` images straight into a zip. Raises DataError where it cannot be written."""
    check_fundus(resolution, count)
    factors: dict[str, np.ndarray] = {}

    def document() -> dict[str, object]:
        return label_document(factors["dr_grade"].astype(np.int64), GRADES)

    pack_chunks(
        draw_fundus(resolution, count, seed, factors), dest, total=count, document=document, factors=factors,
        overwrite=overwrite, progress=progress,
    )  # fmt: skip


def check_fundus(resolution: int, count: int) -> None:
    if resolution not in fundus.RESOLUTIONS:
        raise DataError(f"fundus: cannot be drawn at {resolution}x{resolution}; "
                        f"use one of {', '.join(map(str, fundus.RESOLUTIONS))}")  # fmt: skip
    if count < 1:
        raise DataError(f"fundus: {count} images; ask for at least one")


def draw_fundus(
    resolution: int, count: int, seed: int, factors: dict[str, np.ndarray]
) -> Iterator[np.ndarray]:
    """The images in order, uint8 [n, 3, R, R] at a time, drawn by all cores.

    `factors` is filled, each [N], once the last images have been fetched.
    """
    # A few seconds of work a chunk at the most, and enough chunks to keep every core busy to the end.
    rows = max(1, min(64, (1 << 18) // resolution**2, -(-count // worker_count())))
    chunks = [range(start, min(start + rows, count)) for start in range(0, count, rows)]
    drawn: dict[str, list[np.ndarray]] = {}
    for images, values in _spread(partial(fundus.render_batch, seed, resolution=resolution), chunks):
        for name, column in values.items():
            drawn.setdefault(name, []).append(np.asarray(column))
        yield images.transpose(0, 3, 1, 2)
    factors.update({name: np.concatenate(columns) for name, columns in drawn.items()})


def _spread(
    function: Callable[[range], tuple[np.ndarray, dict[str, np.ndarray]]], chunks: list[range]
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """function(chunk) of each chunk, in order, by processes where that pays.

    Threads would gain nothing: a small picture is many short steps, which hold the interpreter's lock.
    """
    done = 0
    workers = min(worker_count(), len(chunks))
    if workers > 1 and sum(map(len, chunks)) >= 512 and not multiprocessing.current_process().daemon:
        # Not by fork: the parent has threads, of torch for one, that a forked child would lack.
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        try:
            for result in pool.map(function, chunks):
                yield result
                done += 1
        except BrokenProcessPool:  # e.g. a script without `if __name__ == "__main__"`: go on alone
            pass
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    yield from map(function, chunks[done:])


def _cached_fundus(
    path: Path, framing: Framing, count: int, labels: bool
) -> ArrayDataset | FileDataset | None:
    """The data set in `path`, or None where there is none, or none that is whole."""
    try:
        files = ZipFiles(path)
        found = find_labels(files)
        factors = read_factors(files)
        if not is_packed(files) or len(files.names) != count or factors is None or found is None:
            return None
        values, names = found if labels else (None, None)
        return load_files(
            files, framing, name="fundus", labels=values, label_names=names, factors=factors, max_bad=0.0,
            trusted=True,
        )  # fmt: skip
    except DataError:
        return None


def _fundus_in_memory(
    framing: Framing, count: int, seed: int, labels: bool, progress: Progress | None
) -> ArrayDataset:
    factors: dict[str, np.ndarray] = {}
    array = np.empty((count, framing.channels, framing.resolution, framing.resolution), dtype=np.uint8)
    done = 0
    for images in draw_fundus(framing.resolution, count, seed, factors):
        array[done : done + len(images)] = luma(images) if framing.channels == 1 else images
        done += len(images)
        if progress is not None:
            progress(done, count)
    grades = factors["dr_grade"].astype(np.int64)
    return ArrayDataset("fundus", array, grades if labels else None, GRADES if labels else None, factors)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time. The system drops the lock with its owner, so that none is ever left behind."""
    try:
        import fcntl
    except ImportError:  # not on Windows: two processes may then draw the same file, and either wins
        yield
        return
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
