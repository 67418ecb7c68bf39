"""open_dataset: every kind of source becomes the same kind of data set, or says what to mend."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infostylegan.data import ArrayDataset, BatchStream, DataError, drawing, fundus, loading, open_dataset
from infostylegan.data.loading import FileDataset
from infostylegan.data.packed import PackedDataset


def picture(path: Path, size: tuple[int, int] = (16, 16), seed: int = 0, gray: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if gray else (size[1], size[0], 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def folder_of(path: Path, count: int = 6, size: tuple[int, int] = (16, 16), gray: bool = False) -> Path:
    for i in range(count):
        picture(path / f"sub{i % 2}" / f"{i}.png", size, i, gray)
    return path


def zip_of(folder: Path, path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def mnist(folder: Path, count: int = 20) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
        array = rng.integers(0, 256 if len(shape) == 3 else 10, shape, dtype=np.uint8)
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *shape)
        (folder / f"train-{kind}-ubyte").write_bytes(head + array.tobytes())
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with a cache of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INFOSTYLEGAN_DATA", raising=False)


@pytest.fixture
def on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for images: every set is decoded per batch."""
    monkeypatch.setattr(loading, "RAM_LIMIT", 0)


# ---- what opens


def test_a_folder_opens(tmp_path: Path) -> None:
    dataset = open_dataset(str(folder_of(tmp_path / "set")))
    assert isinstance(dataset, ArrayDataset)
    assert (dataset.name, len(dataset), dataset.resolution, dataset.channels) == ("set", 6, 16, 3)
    assert dataset.labels is None
    assert dataset.skipped == []
    first = np.asarray(Image.open(tmp_path / "set/sub0/0.png")).transpose(2, 0, 1)
    assert np.array_equal(dataset.images([0])[0], first)
    assert dataset.images([5, 0]).shape == (2, 3, 16, 16)


def test_a_folder_and_its_zip_are_the_same_data_set(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    opened = [open_dataset(str(folder))]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        opened.append(open_dataset(str(zip_of(folder, tmp_path / f"{method}.zip", method))))
    assert len({dataset.digest for dataset in opened}) == 1
    assert all(np.array_equal(dataset.images(range(6)), opened[0].images(range(6))) for dataset in opened)


def test_the_digest_follows_whatever_training_sees(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    digests = [open_dataset(str(folder)).digest, open_dataset(str(folder), resolution=8).digest]
    digests.append(open_dataset(str(folder), channels=1).digest)
    (folder / "labels.csv").write_text("image,label\n" + "".join(f"{i},{i % 2}\n" for i in range(6)))
    digests.append(open_dataset(str(folder)).digest)
    picture(folder / "sub0/0.png", seed=99)
    digests.append(open_dataset(str(folder)).digest)
    assert len(set(digests)) == 5
    assert open_dataset(str(folder), labels=False).labels is None


@pytest.mark.usefixtures("on_demand")
def test_a_set_too_large_for_memory_is_the_same_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "set", 7)
    (folder / "labels.csv").write_text("image,label\n" + "".join(f"{i},{i}\n" for i in range(7)))
    (folder / "sub0/2.png").write_bytes(b"damaged")
    large = open_dataset(str(folder), max_bad=0.5)
    monkeypatch.undo()
    small = open_dataset(str(folder), max_bad=0.5)
    assert isinstance(large, FileDataset)
    assert isinstance(small, ArrayDataset)
    assert large.digest == small.digest
    assert large.skipped == small.skipped == [("sub0/2.png", "not an image, or damaged at its very start")]
    for position in (0, 4, 9):
        for resolution in (16, 4):
            here = BatchStream(large, 1).batch(position, 4, resolution)
            there = BatchStream(small, 1).batch(position, 4, resolution)
            assert torch.equal(here[0], there[0])
            assert here[1] is not None
            assert there[1] is not None
            assert torch.equal(here[1], there[1])


@pytest.mark.usefixtures("on_demand")
def test_a_large_set_is_looked_at_once_and_again_when_it_changes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", 6)
    looked: list[int] = []
    first = open_dataset(str(folder), progress=lambda done, total: looked.append(done))
    assert looked == [1, 2, 3, 4, 5, 6]
    again = open_dataset(str(folder), progress=lambda done, total: looked.append(done))
    assert len(looked) == 6
    assert again.digest == first.digest
    picture(folder / "sub0/0.png", (16, 17), seed=99)
    changed = open_dataset(str(folder), progress=lambda done, total: looked.append(done))
    assert len(looked) == 12
    assert changed.digest != first.digest
    for memo in (tmp_path / "cache").glob("examined-*"):
        memo.write_text("damaged")
    assert open_dataset(str(folder)).digest == changed.digest


@pytest.mark.usefixtures("on_demand")
def test_a_file_that_goes_bad_while_training_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", 4)
    stream = BatchStream(open_dataset(str(folder)), 0)
    (folder / "sub1/3.png").write_bytes(b"overwritten")
    with pytest.raises(DataError, match=r"sub1/3.png was sound and is now bad .*; put it back"):
        stream.batch(0, 4)


def test_gray_images_open_as_one_channel_unless_asked_otherwise(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", gray=True)
    assert open_dataset(str(folder)).channels == 1
    assert open_dataset(str(folder), channels=3).channels == 3
    picture(folder / "z.png")
    assert open_dataset(str(folder)).channels == 3


@pytest.mark.parametrize(
    ("size", "resolution"), [((16, 40), 16), ((70, 40), 32), ((8, 9), 8), ((1100, 1030), 512)]
)
def test_the_resolution_is_the_power_of_two_that_most_images_reach(
    tmp_path: Path, size: tuple[int, int], resolution: int
) -> None:
    assert open_dataset(str(folder_of(tmp_path / "set", 2, size))).resolution == resolution


def test_mnist_files_open_padded_gray_and_labelled(tmp_path: Path) -> None:
    dataset = open_dataset(str(mnist(tmp_path / "digits")))
    assert (dataset.name, len(dataset), dataset.resolution, dataset.channels) == ("mnist", 20, 32, 1)
    assert dataset.labels is not None
    assert dataset.labels.dtype == np.int64
    assert dataset.label_names == tuple("0123456789")
    small = open_dataset(str(tmp_path / "digits"), resolution=8, channels=3).images([3])
    means = dataset.images([3])[0, 0].reshape(8, 4, 8, 4).mean(axis=(1, 3))
    assert small.shape == (1, 3, 8, 8)
    assert np.abs(small[0, 1] - means).max() <= 0.5
    fashion = open_dataset(str(mnist(tmp_path / "fashion" / "raw")))
    assert fashion.name == "fashion-mnist"


@pytest.mark.parametrize("place", ["data/{}.zip", "data/{}512.zip", "{}.zip", "data/{}"])
@pytest.mark.parametrize("name", ["eyepacs", "celeba"])
def test_a_name_is_looked_for_where_it_is_usually_put(tmp_path: Path, place: str, name: str) -> None:
    target = Path(place.format(name))
    target.parent.mkdir(exist_ok=True)
    folder = folder_of(tmp_path / "set", 3)
    if target.suffix:
        zip_of(folder, target)
    else:
        folder.rename(target)
    assert (open_dataset(name).name, len(open_dataset(name))) == (name, 3)


def test_a_folder_in_the_environment_is_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist(tmp_path / "sets/mnist")
    monkeypatch.setenv("INFOSTYLEGAN_DATA", str(tmp_path / "sets"))
    assert len(open_dataset("mnist")) == 20


def test_a_name_prefers_the_resolution_asked_for(tmp_path: Path) -> None:
    Path("data").mkdir()
    zip_of(folder_of(tmp_path / "a", 3, (16, 16)), Path("data/celeba16.zip"))
    zip_of(folder_of(tmp_path / "b", 4, (32, 32)), Path("data/celeba.zip"))
    assert len(open_dataset("celeba", resolution=16)) == 3
    assert len(open_dataset("celeba", resolution=32)) == 4


# ---- what does not


@pytest.mark.parametrize("name", ["eyepacs", "celeba", "mnist", "fashion-mnist"])
def test_a_name_that_is_not_there_says_where_to_get_it_and_how(name: str) -> None:
    with pytest.raises(DataError) as raised:
        open_dataset(name)
    text = str(raised.value)
    assert text.startswith(f"{name}: not found; looked for {name}.zip")
    assert str(Path("data").absolute()) in text
    assert "Where it comes from: " in text
    assert "How to prepare it" in text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("eyepcas", "no such folder or zip here, .* did you mean eyepacs?"),
        ("FUNDUS", "did you mean fundus?"),
        (
            "qqqq",
            r"no name of a data set \(fundus, dsprites, eyepacs, celeba, mnist, .*, shapes3d\)$",
        ),
        ("./facs", "did you mean faces?"),
        ("nowhere/at/all", "exists, but nothing below it"),
        ("faces", "empty"),
    ],
)
def test_a_path_that_is_not_there_says_so(data: str, said: str) -> None:
    Path("faces").mkdir()
    with pytest.raises(DataError, match=said):
        open_dataset(data)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resolution": 24}, "resolution 24 is not a power of two .* use 16 or 32"),
        ({"channels": 4}, "4 channels"),
        ({"fit": "stretch"}, "fit 'stretch' is unknown; use 'crop' or 'pad'"),
        ({"max_bad": 5}, "max_bad 5 is no share"),
        ({"split": "test"}, "has no split 'test'"),
        ({"resolution": 32}, r"none of its 6 images can be used: sub0/0.png \(16x16 is smaller than 32x32\)"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_dataset(str(folder_of(tmp_path / "set")), **options)  # type: ignore[arg-type]


def test_mnist_is_not_enlarged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"are 32x32 when padded, not 64x64; use --resolution 32"):
        open_dataset(str(mnist(tmp_path)), resolution=64)


@pytest.mark.parametrize("large", [False, True])
def test_a_few_bad_files_are_left_out_and_many_are_an_error(
    tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(loading, "RAM_LIMIT", 0)
    folder = folder_of(tmp_path / "set", 20)
    (folder / "labels.csv").write_text("image,label\n" + "".join(f"{i},{i}\n" for i in range(20)))
    whole = (folder / "sub0/4.png").read_bytes()
    (folder / "sub0/4.png").write_bytes(whole[: len(whole) // 2])
    dataset = open_dataset(str(folder))
    assert len(dataset) == 19
    assert [name for name, _ in dataset.skipped] == ["sub0/4.png"]
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 10, 12, 14, 16, 18, 2, 6, 8, 1, 11, 13, 15, 17, 19, 3, 5, 7, 9]
    last = np.asarray(Image.open(folder / "sub1/9.png")).transpose(2, 0, 1)
    assert np.array_equal(dataset.images([18])[0], last)
    picture(folder / "sub1/5.png", (15, 16))
    with pytest.raises(DataError) as raised:
        open_dataset(str(folder))
    text = str(raised.value)
    assert "2 of 20 images cannot be used: sub0/4.png (" in text
    assert "sub1/5.png (15x16 is smaller than 16x16)" in text
    assert text.endswith("go on without them with --max-bad 0.1 (now 0.05)")
    assert len(open_dataset(str(folder), max_bad=0.1)) == 18


def test_a_zip_with_a_damaged_member_leaves_it_out(tmp_path: Path) -> None:
    path = zip_of(folder_of(tmp_path / "set", 4), tmp_path / "set.zip", zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(content)
    dataset = open_dataset(str(path), max_bad=0.25)
    assert [(name, "CRC" in reason) for name, reason in dataset.skipped] == [("sub0/0.png", True)]


def test_a_folder_where_nothing_can_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image can be read, e.g. a.png \(not an image"):
        open_dataset(str(tmp_path))


# ---- fundus


def test_fundus_is_drawn_once_and_then_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    dataset = open_dataset("fundus", resolution=16, count=12, progress=lambda done, _: drawn.append(done))
    assert drawn == list(range(1, 13))
    images, factors = fundus.render_batch(0, range(12), 16)
    assert np.array_equal(dataset.images(range(12)), images.transpose(0, 3, 1, 2))
    assert dataset.factors is not None
    assert list(dataset.factors) == [factor.name for factor in fundus.FACTORS]
    assert all(np.array_equal(dataset.factors[name], factors[name]) for name in factors)
    assert dataset.labels is not None
    assert np.array_equal(dataset.labels, factors["dr_grade"])
    assert dataset.label_names is not None
    assert len(dataset.label_names) == 5
    monkeypatch.setattr(fundus, "render_batch", None)
    again = open_dataset("fundus", resolution=16, count=12)
    assert again.digest == dataset.digest
    assert np.array_equal(again.images(range(12)), dataset.images(range(12)))


def test_each_fundus_set_has_a_digest_of_its_own() -> None:
    options = [{"count": 3}, {"count": 4}, {"count": 3, "seed": 1}, {"count": 3, "channels": 1}]
    digests = {open_dataset("fundus", resolution=8, **option).digest for option in options}
    assert len(digests) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_a_damaged_cache_is_drawn_again(tmp_path: Path, damage: str) -> None:
    whole = open_dataset("fundus", resolution=16, count=6)
    (path,) = (tmp_path / "cache").glob("fundus-*.zip")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[content.index(b"IDAT") + 40] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(b"something else")
    mended = open_dataset("fundus", resolution=16, count=6)
    assert np.array_equal(mended.images(range(6)), whole.images(range(6)))
    assert len(path.read_bytes()) == len(content)
    assert list((tmp_path / "cache").glob(".*")) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, channels: int) -> None:
    kept = open_dataset("fundus", resolution=16, count=6, channels=channels)
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match=r"cannot be kept in .*file.* point INFOSTYLEGAN_CACHE"):
        drawn = open_dataset(
            "fundus", resolution=16, count=6, channels=channels, cache_dir=str(tmp_path / "file")
        )
    assert np.array_equal(kept.images(range(6)), drawn.images(range(6)))
    assert kept.digest == drawn.digest


@pytest.mark.usefixtures("on_demand")
def test_fundus_too_large_for_memory_is_read_from_its_cache() -> None:
    dataset = open_dataset("fundus", resolution=16, count=6)
    assert isinstance(dataset, PackedDataset)
    assert np.array_equal(dataset.images([4])[0], fundus.render_batch(0, [4], 16)[0][0].transpose(2, 0, 1))


@pytest.mark.parametrize("executable", [sys.executable, "no-such-program", shutil.which("false") or ""])
def test_many_processes_draw_what_one_would(monkeypatch: pytest.MonkeyPatch, executable: str) -> None:
    monkeypatch.setattr(drawing, "worker_count", lambda: 2)
    monkeypatch.setattr(drawing, "WORTHWHILE", 10)
    monkeypatch.setattr(sys, "executable", executable)
    factors: dict[str, np.ndarray] = {}
    images = np.concatenate(list(drawing.draw_fundus(8, 70, 3, factors)))
    expected, values = fundus.render_batch(3, range(70), 8)
    assert np.array_equal(images, expected.transpose(0, 3, 1, 2))
    assert all(np.array_equal(factors[name], values[name]) for name in values)


def test_a_script_without_a_main_guard_may_draw(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('started')\n"
        "from infostylegan.data import drawing, open_dataset\n"
        "drawing.WORTHWHILE = 10\n"
        "print(len(open_dataset('fundus', resolution=8, count=70)))\n"
    )
    root = Path(fundus.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("started\n70\n", 0), done.stderr


@pytest.mark.parametrize(
    ("options", "said"), [({"resolution": 1024}, "use one of 8"), ({"count": 0}, "at least one")]
)
def test_fundus_that_cannot_be_drawn_says_so(options: dict[str, int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_dataset("fundus", **options)  # type: ignore[arg-type]


def test_opening_is_silent(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_dataset(str(folder_of(tmp_path / "set")))
        open_dataset("fundus", resolution=8, count=2)
