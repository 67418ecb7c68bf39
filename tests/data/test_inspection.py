"""`data inspect` tells what is there; `data verify` finds what is not as it was packed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from infostylegan.__main__ import main
from infostylegan.data import ArrayDataset, open_dataset
from infostylegan.data.inspection import describe, inspect_dataset, sheet_cells
from infostylegan.data.licences import licence_note
from infostylegan.data.packing import pack_dataset


def example() -> ArrayDataset:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    array[7] = array[3]
    array[31] = array[3]
    array[9] = array[8]
    return ArrayDataset(
        "example", array, np.arange(40) % 3, ("well", "ill", "bad"),
        attributes={"Smiling": (np.arange(40) % 4 == 0).astype(np.uint8), "age": np.linspace(20, 80, 40)},
        patients=(np.arange(40) // 2).astype(str),
    )  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


@pytest.mark.parametrize("packed", [False, True])
def test_means_and_deviations_are_those_of_the_pixels(packed: bool, tmp_path: Path) -> None:
    dataset = example()
    if packed:
        pack_dataset(dataset, tmp_path / "a.zip")
    seen = inspect_dataset(open_dataset(str(tmp_path / "a.zip")) if packed else dataset)
    assert np.allclose(seen.everything.mean, dataset.array.mean(0))
    assert np.allclose(seen.everything.deviation, dataset.array.std(0))
    assert [group.name for group in seen.groups] == ["well", "ill", "bad"]
    ill = dataset.array[np.arange(40) % 3 == 1]
    assert np.allclose(seen.groups[1].mean, ill.mean(0))
    assert np.allclose(seen.groups[1].deviation, ill.std(0))
    assert seen.duplicates == [[3, 7, 31], [8, 9]]
    assert seen.across == 1  # 8 and 9 are of one patient
    assert np.allclose(seen.brightness, np.percentile(dataset.array.mean((1, 2, 3)), (5, 50, 95)))
    assert seen.lower == ((8, 4) if packed else ())


def test_the_sheet_shows_the_classes_with_their_mean_and_contrast() -> None:
    dataset = example()
    cells, columns, rows = sheet_cells(dataset, inspect_dataset(dataset))
    assert rows == ["all: 40", "well: 14", "ill: 13", "bad: 13"]
    assert cells.shape == (4 * len(columns), 16, 16, 3)
    assert np.abs(cells[0] - dataset.array.mean(0).transpose(1, 2, 0)).max() <= 0.5
    assert np.array_equal(cells[2], dataset.array[0].transpose(1, 2, 0))
    assert np.array_equal(cells[len(columns) - 1], dataset.array[39].transpose(1, 2, 0))
    few = ArrayDataset("few", dataset.array[:3])
    cells, columns, rows = sheet_cells(few, inspect_dataset(few))
    assert rows == ["all: 3", "0 to 0", "1 to 1", "2 to 2"]
    assert (cells[5:10] == 255).all()  # three images, and paper


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([0, 1, 1, 1]), "75.0% yes"),
        (np.array([3, 3]), "always 3"),
        (np.array(["a", "b", "a"]), "a: 2, b: 1"),
        (np.linspace(0, 1, 101), "0 to 1, mean 0.5, 101 values"),
    ],
)
def test_a_column_is_described_in_few_words(values: np.ndarray, words: str) -> None:
    assert describe(values) == words


def test_licences_go_by_the_longest_name() -> None:
    assert "Zalando" in licence_note("fashion_mnist32")
    assert "LeCun" in licence_note("mnist")
    assert "Kaggle" in licence_note("eyepacs512")
    assert licence_note("mine").startswith("not known here")


def test_inspecting_prints_tables_and_writes_the_sheet(tmp_path: Path) -> None:
    about = {"about.json": b'{"dataset": "eyepacs", "prepared": {"resolution": 16}}'}
    pack_dataset(example(), tmp_path / "a.zip", extras=about)
    result = run("inspect", tmp_path / "a.zip")
    assert result.exit_code == 0, result.output
    for words in (
        "a: 40 images, 16x16, RGB", "also at 8x8, 4x4", "eyepacs, prepared with resolution 16",
        "0  well                       14   35.0%", "Smiling                  25.0% yes",
        "patients: 20, with 2.00 images each, at most 2",
        "duplicates: 3 images repeat another, in 2 groups, 1 of them across patients", "images 3, 7, 31",
        f"digest: {example().digest}", "licence: EyePACS: the rules of the Kaggle", "a.inspect.png",
    ):  # fmt: skip
        assert words in result.output
    with Image.open(tmp_path / "a.inspect.png") as sheet:
        assert sheet.width > 10 * 48


def test_inspecting_takes_names_and_folders_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.new("L", (8, 8), 9).save(tmp_path / "pictures/\x1b[31mred.png")
    (tmp_path / "pictures/bad\x1b[2J.png").write_bytes(b"")
    result = run("inspect", "pictures", "--max-bad", 0.5)
    assert result.exit_code == 0, result.output
    assert "pictures: 1 images, 8x8, gray" in result.output
    assert "\x1b" not in result.output  # what a terminal would obey is escaped
    assert "bad\\x1b[2J.png: not an image" in result.output
    assert (tmp_path / "pictures.inspect.png").is_file()


def test_inspecting_a_set_by_its_name_tells_how_it_was_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    about = {"about.json": b'{"dataset": "eyepacs", "prepared": {"graham": true}}'}
    pack_dataset(example(), Path("data/eyepacs.zip"), extras=about)
    assert "eyepacs, prepared with graham True" in run("inspect", "eyepacs").output


def test_a_class_keeps_its_number_where_another_has_no_images(tmp_path: Path) -> None:
    labels = np.array([0, 2, 2, 2])
    pack_dataset(ArrayDataset("x", example().array[:4], labels, ("well", "ill", "bad")), tmp_path / "x.zip")
    output = run("inspect", tmp_path / "x.zip").output
    assert "0  well                        1   25.0%" in output
    assert "2  bad                         3   75.0%" in output
    assert " ill " not in output


def test_names_of_classes_that_a_terminal_would_obey_are_escaped(tmp_path: Path) -> None:
    names = ("well", "\x1b[2J")
    pack_dataset(ArrayDataset("x", example().array[:2], np.arange(2), names), tmp_path / "x.zip")
    for command in ("info", "inspect"):
        output = run(command, tmp_path / "x.zip").output
        assert "\x1b" not in output
        assert "\\x1b[2J" in output


def rewrite(path: Path, change: dict[str, bytes]) -> None:
    """The same zip with other content in some members: CRCs fit, digests do not."""
    with zipfile.ZipFile(path) as old:
        comment, members = old.comment, {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name, content in (members | change).items():
            new.writestr(name, content)
        new.comment = comment


def test_verifying_finds_every_kind_of_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    pack_dataset(example(), path)
    result = run("verify", path)
    assert result.exit_code == 0, result.output
    assert "sound; 40 images decoded and held against their digests" in result.output
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        other = archive.read("00000/img00000001.png")
    rewrite(path, {"00000/img00000005.png": other})
    result = run("verify", path)
    assert result.exit_code == 1
    assert "00000/img00000005.png: other pixels than were packed" in result.output
    path.write_bytes(whole)
    rewrite(path, {"dataset.json": b'{"labels": null}'})
    result = run("verify", path)
    assert result.exit_code == 1
    assert "dataset.json: its SHA-256 is not the one noted" in result.output
    path.write_bytes(whole[:-100])
    result = run("verify", path)
    assert result.exit_code == 2
    assert "damaged or unfinished zip" in result.output


def test_verifying_what_was_packed_elsewhere_decodes_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for i in range(3):
            Image.new("L", (8, 8), i).save(tmp_path / "x.png")
            archive.write(tmp_path / "x.png", f"{i}.png")
    result = run("verify", tmp_path / "b.zip")
    assert result.exit_code == 0
    assert "sound; 3 images decoded at 8x8; there are no digests" in result.output
    rewrite(tmp_path / "b.zip", {"1.png": b"nothing"})
    result = run("verify", tmp_path / "b.zip")
    assert result.exit_code == 1
    assert "1.png: not an image" in result.output
    assert "1 of its parts are not sound" in result.output
