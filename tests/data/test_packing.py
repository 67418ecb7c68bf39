"""Packed zips: StyleGAN's layout, whole or absent, the same bytes for the same images; and the commands."""

from __future__ import annotations

import errno
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from infostylegan.__main__ import main
from infostylegan.data import ArrayDataset, DataError, open_dataset
from infostylegan.data.annotations import Annotations
from infostylegan.data.catalogue import RECIPES
from infostylegan.data.images import Framing
from infostylegan.data.packing import member_name, pack_dataset, pack_files
from infostylegan.data.sources import FolderFiles, find_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(tmp_path / f"set/{i}.png")
    (tmp_path / "set/labels.csv").write_text("image,level\n" + "".join(f"{i},{i % 3}\n" for i in range(6)))
    return tmp_path / "set"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_packed_zip_has_the_layout_of_stylegan(folder: Path, tmp_path: Path) -> None:
    files = FolderFiles(folder)
    packed = pack_files(files, tmp_path / "out/a.zip", Framing(16), Annotations.labelled(find_labels(files)))
    assert (packed.count, packed.skipped) == (6, [])
    with zipfile.ZipFile(tmp_path / "out/a.zip") as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        assert all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        assert [info.filename for info in infos] == [
            *(f"00000/img0000000{i}.png" for i in range(6)),
            "lower/00000.bin",
            "digests.bin",
            "dataset.json",
            "packed.json",
        ]
        document = json.loads(archive.read("dataset.json"))
        with archive.open("00000/img00000003.png") as file:
            assert Image.open(file).size == (16, 16)
    assert document == {"labels": [[f"00000/img0000000{i}.png", i % 3] for i in range(6)]}
    assert member_name(1234567) == "01234/img01234567.png"


@pytest.mark.parametrize("ram", [True, False])
def test_what_is_packed_is_what_the_folder_held(
    folder: Path, tmp_path: Path, ram: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FolderFiles(folder)
    pack_files(files, tmp_path / "a.zip", Framing(16, fit="crop"), Annotations.labelled(find_labels(files)))
    if not ram:
        monkeypatch.setattr("infostylegan.data.loading.RAM_LIMIT", 0)
    here = open_dataset(str(folder), resolution=16, cache_dir=str(tmp_path / "cache"))
    there = open_dataset(str(tmp_path / "a.zip"), cache_dir=str(tmp_path / "cache"))
    assert np.array_equal(here.images(range(6)), there.images(range(6)))
    assert here.labels is not None
    assert there.labels is not None
    assert np.array_equal(here.labels, there.labels)


def test_a_data_set_in_memory_packs_with_its_factors_and_class_names(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    factors = {"size": np.linspace(0, 1, 300), "side": np.arange(300) % 2}
    dataset = ArrayDataset("made", array, np.arange(300) % 2, ("left", "right"), factors)
    pack_dataset(dataset, tmp_path / "a.zip")
    again = open_dataset(str(tmp_path / "a.zip"))
    assert np.array_equal(again.images(range(300)), array)
    assert again.label_names == ("left", "right")
    assert again.factors is not None
    assert all(np.array_equal(again.factors[name], factors[name]) for name in factors)


def test_the_same_images_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        pack_files(FolderFiles(folder), tmp_path / name, Framing(8))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_bad_files_are_left_out_together_with_their_labels(folder: Path, tmp_path: Path) -> None:
    (folder / "2.png").write_bytes(b"damaged")
    files = FolderFiles(folder)
    labels = find_labels(files)
    packed = pack_files(files, tmp_path / "a.zip", Framing(16), Annotations.labelled(labels), max_bad=0.2)
    assert packed.count == 5
    assert packed.skipped == [("2.png", "not an image, or damaged at its very start")]
    again = open_dataset(str(tmp_path / "a.zip"))
    assert again.labels is not None
    assert again.labels.tolist() == [0, 1, 0, 1, 2]
    with pytest.raises(DataError, match=r"already 1 of 6 images cannot be used: 2.png .* a higher --max-bad"):
        pack_files(files, tmp_path / "b.zip", Framing(16), Annotations.labelled(labels))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "set"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_leaves_nothing_behind_and_the_old_file_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    written: list[object] = []
    write = zipfile.ZipFile.writestr

    def fail(self: zipfile.ZipFile, *arguments: object) -> None:
        written.append(arguments)
        if len(written) == 4:
            raise OSError(code, "the disk says no")
        write(self, *arguments)  # type: ignore[arg-type]

    (tmp_path / "a.zip").write_text("the old one")
    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(DataError, match=r"disk full .*a.zip|a.zip: cannot be written \(the disk says no\)"):
        pack_files(FolderFiles(folder), tmp_path / "a.zip", Framing(16), overwrite=True)
    assert (tmp_path / "a.zip").read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "set"]


def test_interrupting_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_files(FolderFiles(folder), tmp_path / "a.zip", Framing(16), progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_file_is_never_replaced_unasked(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("precious")
    with pytest.raises(DataError, match="exists already; give another name, or --overwrite"):
        pack_files(FolderFiles(folder), tmp_path / "a.zip", Framing(16))
    with pytest.raises(DataError, match=r"give a name that ends in \.zip"):
        pack_files(FolderFiles(folder), tmp_path / "a.tar", Framing(16))
    with pytest.raises(DataError, match="cannot be written"):
        pack_files(FolderFiles(folder), tmp_path / "a.zip/b.zip", Framing(16))


def test_damaged_factors_are_named(tmp_path: Path) -> None:
    array = np.zeros((3, 1, 8, 8), np.uint8)
    pack_dataset(ArrayDataset("made", array), tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive, archive.open("factors.npz", "w") as file:
        np.savez(file, size=np.zeros(2))
    with pytest.raises(DataError, match=r"size of shape \(2,\) for 3 images; pack it again"):
        open_dataset(str(tmp_path / "a.zip"))
    with pytest.raises(ValueError, match=r"size has shape \(2,\) for 3 images"):
        pack_dataset(ArrayDataset("made", array, factors={"size": np.zeros(2)}), tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


# ---- commands


def test_the_folder_command_packs(folder: Path, tmp_path: Path) -> None:
    result = run("data", "folder", folder, tmp_path / "a.zip", "--resolution", 8, "--fit", "pad")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{tmp_path / 'a.zip'}: 6 images, 8x8, RGB, ")
    result = run("data", "info", tmp_path / "a.zip")
    assert "6 images, 8x8, RGB\n  labels: 0 2, 1 2, 2 2\n  digest: " in result.output


def test_the_folder_command_crops_and_can_set_labels_aside(folder: Path, tmp_path: Path) -> None:
    result = run("data", "folder", folder, tmp_path / "a.zip", "--crop", "4,6,12,14", "--no-labels")
    assert result.exit_code == 0, result.output
    dataset = open_dataset(str(tmp_path / "a.zip"))
    assert dataset.labels is None
    expected = np.asarray(Image.open(folder / "0.png"))[6:14, 4:12].transpose(2, 0, 1)
    assert np.array_equal(dataset.images([0])[0], expected)


def test_the_fundus_command_draws(tmp_path: Path) -> None:
    result = run("data", "fundus", tmp_path / "f.zip", "--resolution", 8, "--count", 3)
    assert result.exit_code == 0, result.output
    dataset = open_dataset(str(tmp_path / "f.zip"))
    assert len(dataset) == 3
    assert dataset.factors is not None
    assert "cup_size" in dataset.factors


def test_the_mnist_command_packs(tmp_path: Path) -> None:
    header = bytes.fromhex("00000803 00000002 0000001c 0000001c")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + bytes(2 * 28 * 28))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(bytes.fromhex("00000801000000020307"))
    result = run("data", "mnist", tmp_path, tmp_path / "m.zip")
    assert result.exit_code == 0, result.output
    dataset = open_dataset(str(tmp_path / "m.zip"))
    assert (dataset.resolution, dataset.channels) == (32, 1)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [3, 7]
    assert dataset.label_names == tuple("0123456789")


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "info", "nowhere"),
        ("data", "info", "eyepacs"),
        ("data", "folder", "nowhere", "a.zip"),
        ("data", "mnist", "nowhere", "a.zip"),
        ("data", "fundus", "a.tar"),
        ("data", "fundus", "a.zip", "--resolution", "100"),
    ],
)
def test_mistakes_are_one_message_without_a_traceback(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INFOSTYLEGAN_DATA", raising=False)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_every_command_that_a_recipe_names_exists() -> None:
    for recipe in RECIPES.values():
        for line in recipe.splitlines():
            if "python -m infostylegan" in line:
                words = line.split()
                command = words[words.index("infostylegan") + 1 :]
                asked = run(*command[:2], "--help")
                assert asked.exit_code == 0
                assert all(word in asked.output for word in command if word.startswith("--"))


def test_an_error_escapes_what_a_terminal_would_obey_in_a_files_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("\x1b[2J\r.png", b"")
    result = CliRunner().invoke(main, ["data", "folder", str(tmp_path / "in.zip"), str(tmp_path / "o.zip"),
                                       "--resolution", "8"])  # fmt: skip
    assert result.exit_code == 2
    assert "\\x1b[2J\\r.png (not an image" in result.output
    assert not {"\x1b", "\r"} & set(result.output)


@pytest.mark.parametrize("share", ["-0.1", "7"])
def test_a_share_of_bad_images_that_is_none_is_refused(share: str, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 9).save(tmp_path / "1.png")
    command = ["data", "folder", str(tmp_path), str(tmp_path / "out.zip"), "--max-bad", share]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "is not in the range 0<=x<=1" in result.output
    assert not (tmp_path / "out.zip").exists()
