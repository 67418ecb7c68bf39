"""Folders, zips, MNIST's files and tables of labels, sound and unsound."""

from __future__ import annotations

import gzip
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infostylegan.data.errors import DataError
from infostylegan.data.sources import FolderFiles, ZipFiles, find_labels, read_idx, read_mnist


def picture(path: Path, value: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), value).save(path)
    return path


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist(folder: Path, count: int = 5, *, part: str = "train", suffix: str = "", dot: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for kind, array in (("images", images), ("labels", labels)):
        name = f"{part}-{kind}{'.' if dot else '-'}idx{array.ndim}-ubyte{suffix}"
        content = idx(array)
        (folder / name).write_bytes(gzip.compress(content) if suffix == ".gz" else content)
    return folder


# ---- folders and zips


def test_a_folder_is_walked_in_the_order_of_names_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.png", "a.PNG", ".hidden/x.png", "b/._2.png", "__MACOSX/y.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert FolderFiles(tmp_path).names == ["a.PNG", "b/10.png", "b/2.png"]


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere/1.png")
    (tmp_path / "set").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "set/link")
    os.symlink(tmp_path / "set", tmp_path / "set/circle")
    assert FolderFiles(tmp_path / "set").names == ["link/1.png"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "empty; give a folder"),
        (["a.txt", "b.txt"], "no images in it, only 2 other files such as a.txt; give"),
        (["train.zip"], "archives such as train.zip; give that archive"),
        (["train.zip.001"], "archives such as train.zip.001; give that archive"),
        (["train.tar"], "archives such as train.tar; unpack"),
    ],
)
def test_a_folder_without_images_says_what_it_holds(tmp_path: Path, files: list[str], said: str) -> None:
    for name in files:
        (tmp_path / name).write_text("text")
    with pytest.raises(DataError, match=said):
        FolderFiles(tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_lists_and_reads_like_the_folder_it_was_made_of(tmp_path: Path, method: int) -> None:
    names = ["00000/img00000000.png", "00000/img00000001.png", "z.png"]
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as archive:
        for value, name in enumerate(names):
            archive.write(picture(tmp_path / "set" / name, value), name)
        archive.writestr("__MACOSX/z.png", b"")
        archive.writestr("dataset.json", "{}")
    folder, packed = FolderFiles(tmp_path / "set"), ZipFiles(tmp_path / "set.zip")
    assert folder.names == packed.names == names
    assert [folder.read(i) for i in range(3)] == [packed.read(i) for i in range(3)]
    assert [stamp[:2] for stamp in folder.stamps()] == [stamp[:2] for stamp in packed.stamps()]
    assert packed.beside("dataset.json") == b"{}"
    assert packed.beside("labels.csv") is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("set.zip", "damaged or unfinished zip"),
        ("test.zip.001", "its 1 pieces, to test.zip.001, make no zip .* download what is missing"),
        ("a.jpeg", "a single image; give the folder"),
        ("set.tar", "not a zip"),
    ],
)
def test_what_is_no_zip_says_so(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match=said):
        ZipFiles(tmp_path / name)


def test_a_zip_without_images_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "text")
    with pytest.raises(DataError, match=r"only 1 other files such as readme.txt"):
        ZipFiles(tmp_path / "a.zip")


def test_a_locked_zip_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.png", b"secret")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag "encrypted" in the directory
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"1 images are locked by a password, e.g. 1.png; unpack"):
        ZipFiles(path)


# ---- labels


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    for name in ("10_left.jpeg", "10_right.jpeg", "13_left.jpeg"):
        picture(tmp_path / "eyes" / name)
    return tmp_path / "eyes"


def labels_of(folder: Path, table: Path | None = None) -> tuple[list[int], tuple[str, ...] | None] | None:
    found = find_labels(FolderFiles(folder), table)
    return None if found is None else (found[0].tolist(), found[1])


@pytest.mark.parametrize(
    "text",
    [
        "image,level\n13_left,4\n10_left,0\n10_right,2\n99_left,1\n",  # Kaggle's, and one image we lack
        "image,level,Usage\n13_left,4,Public\n10_left,0,Private\n10_right,2,Public\n",
        "filename;grade\r\n13_left.jpeg;4\r\n10_left.jpeg;0\r\n10_right.jpeg;2\r\n",
        "\ufefffile\tlabel\nx/13_left.jpeg\t4\nx/10_left.jpeg\t0\nx/10_right.jpeg\t2.0\n",
        "split,file,dr_grade,dme_risk\na,eyes/13_left.jpeg,4,0\na,eyes/10_left.jpeg,0,0\n"
        "a,eyes/10_right.jpeg,2,1\nb,other/10_right.jpeg,3,1\n",
    ],
)
def test_a_table_of_labels_is_matched_by_name(eyes: Path, text: str) -> None:
    (eyes / "labels.csv").write_bytes(text.encode())
    assert labels_of(eyes) == ([0, 2, 4], None)


def test_a_table_may_lie_anywhere(eyes: Path, tmp_path: Path) -> None:
    assert labels_of(eyes) is None
    (tmp_path / "t.csv").write_text("image,level\n13_left,4\n10_left,0\n10_right,2\n")
    assert labels_of(eyes, tmp_path / "t.csv") == ([0, 2, 4], None)


def test_classes_given_by_name_are_numbered_in_the_order_of_their_names(eyes: Path) -> None:
    (eyes / "labels.csv").write_text("image,label\n13_left,sick\n10_left,well\n10_right,sick\n")
    assert labels_of(eyes) == ([1, 0, 0], ("sick", "well"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,level\n10_left,0\n", "no label for 2 of the 3 images, e.g. 10_right.jpeg, 13_left.jpeg"),
        ("image,level\n10_left,0\n10_right,\n13_left,1\n", "no label for 1 of the 3 images"),
        ("image,level\n10_left,0\n10_left,1\n", "gives 10_left two labels, 0 and 1"),
        ("image,level\n10_left,0.5\n10_right,0\n13_left,1\n", "has the label 0.5; labels must be"),
        ("image,level\n10_left,-1\n10_right,0\n13_left,1\n", "has the label -1; labels must be"),
        ("image,level\n10_left\n", "row 2 has 1 columns, its header 2"),
        ("image,level\n", "holds no rows"),
        (
            "eye,level\n10_left,0\n",
            "has the columns eye, level; name the column of each image's file 'image'",
        ),
        ("image,x\n10_left,0\n", "name the column of each image's label 'label'"),
    ],
)
def test_a_table_that_does_not_fit_says_why(eyes: Path, text: str, said: str) -> None:
    (eyes / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        labels_of(eyes)


def test_a_table_that_is_not_there_says_so(eyes: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.csv: the labels cannot be read \(No such file"):
        labels_of(eyes, Path("nowhere.csv"))


def test_dataset_json_labels_the_images(eyes: Path) -> None:
    pairs = [["10_left.jpeg", 1], ["10_right.jpeg", 0], ["13_left.jpeg", 1]]
    (eyes / "dataset.json").write_text(json.dumps({"labels": pairs, "label_names": ["well", "sick"]}))
    assert labels_of(eyes) == ([1, 0, 1], ("well", "sick"))
    (eyes / "dataset.json").write_text('{"labels": null}')
    assert labels_of(eyes) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not "),
        ("[]", "is not "),
        ('{"labels": [["10_left.jpeg"]]}', "is not "),
        ('{"labels": [["10_left.jpeg", [0.5, 1]]]}', r"labels 10_left.jpeg with \[0.5, 1\]; a label must be"),
        ('{"labels": [["10_left.jpeg", 1]]}', "no label for 2 of the 3 images"),
    ],
)
def test_a_dataset_json_that_does_not_fit_says_why(eyes: Path, text: str, said: str) -> None:
    (eyes / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=said):
        labels_of(eyes)


# ---- MNIST


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", [False, True])
def test_mnist_files_are_padded_to_a_power_of_two(tmp_path: Path, suffix: str, dot: bool) -> None:
    images, found = read_mnist(mnist(tmp_path, suffix=suffix, dot=dot))
    assert images.shape == (5, 1, 32, 32)
    assert images.dtype == np.uint8
    inner = np.random.default_rng(5).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    assert np.array_equal(images[:, 0, 2:30, 2:30], inner)
    assert images.sum() == inner.sum()  # so the border is black
    assert found is not None
    assert found[0].tolist() == [0, 1, 2, 3, 4]
    assert found[1] == tuple("0123456789")


def test_mnist_has_two_splits_and_may_lack_labels(tmp_path: Path) -> None:
    mnist(tmp_path, 5)
    mnist(tmp_path, 3, part="t10k")
    assert len(read_mnist(tmp_path, "test")[0]) == 3
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert read_mnist(tmp_path)[1] is None
    with pytest.raises(DataError, match="no split 'dev'; use 'train' or 'test'"):
        read_mnist(tmp_path, "dev")


def test_fashion_is_recognised_by_its_folder(tmp_path: Path) -> None:
    found = read_mnist(mnist(tmp_path / "fashion-mnist"))[1]
    assert found is not None
    assert found[1] is not None
    assert found[1][9] == "Ankle boot"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an idx file of bytes"),
        (b"<html>", "not an idx file of bytes"),
        (b"\x00\x00\x08\x03\x00", "5 bytes where its header announces"),
        (idx(np.zeros((5, 28, 28), np.uint8))[:-1], "3935 bytes where its header announces 3936"),
        (gzip.compress(bytes(99))[:-9], "cannot be read"),
        (idx(np.zeros((5, 32, 32), np.uint8)), r"shape \(5, 32, 32\), not 28x28"),
        (idx(np.zeros((4, 28, 28), np.uint8)), "5 labels for the 4 images"),
    ],
)
def test_damaged_mnist_files_say_so(tmp_path: Path, content: bytes, said: str) -> None:
    mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=said + ".*again"):
        read_mnist(tmp_path)


def test_mnist_without_its_images_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte .* is missing"):
        read_mnist(tmp_path)


def test_the_real_digits() -> None:
    folder = os.environ.get("INFOSTYLEGAN_MNIST")
    if not folder:
        pytest.skip("INFOSTYLEGAN_MNIST does not name a folder with MNIST's files")
    images, found = read_mnist(Path(folder))
    assert images.shape == (60000, 1, 32, 32)
    assert found is not None
    assert found[0][:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(found[0]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert abs(images[:, :, 2:30, 2:30].mean() - 33.3184) < 1e-3


def test_idx_keeps_its_shape(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx(array))
    assert np.array_equal(read_idx(tmp_path / "a"), array)
