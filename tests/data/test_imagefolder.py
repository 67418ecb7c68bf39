"""Image folders of Hugging Face datasets: tables, folders as classes, splits, and mistakes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from infostylegan.__main__ import main
from infostylegan.data import DataError, Dataset, open_dataset
from infostylegan.data.imagefolder import read_imagefolder
from infostylegan.data.images import encode_png
from infostylegan.data.sources import FolderFiles


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "cache"))


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(np.random.default_rng(seed).integers(0, 256, (3, 16, 16), dtype=np.uint8)))
    return path


def folder_of(root: Path, table: str, content: str, where: str = "") -> Path:
    for i in range(4):
        picture(root / where / f"{i}.png", i)
    (root / where / table).write_text(content, encoding="utf-8")
    return root


CSV = (
    "file_name,label,age,note,patient_id\n0.png,cat,3,a,p1\n1.png,dog,5,b,p1\n"
    '2.png,cat,,"c,d",p2\n3.png,dog,7.5,,p3\n'
)
JSONL = "".join(
    json.dumps({"file_name": f"{i}.png", "label": i % 3, "blurred": bool(i % 2), "box": [i, i]}) + "\n"
    for i in range(4)
)


def packed(source: Path, *options: str) -> Dataset:
    dest = source.parent / "out.zip"
    result: Result = CliRunner().invoke(
        main, ["data", "hf-imagefolder", str(source), str(dest), "--overwrite", *options]
    )
    assert result.exit_code == 0, result.output
    return open_dataset(str(dest))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_csv_gives_classes_attributes_and_patients(
    tmp_path: Path, ends: str, bom: str, zipped: bool
) -> None:
    source = folder_of(tmp_path / "set", "metadata.csv", bom + CSV.replace("\n", ends))
    if zipped:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for file in sorted(source.iterdir()):
                archive.write(file, file.name)
        source = tmp_path / "set.zip"
    dataset = packed(source)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.label_names == ("cat", "dog")
    assert dataset.attributes is not None
    assert list(dataset.attributes) == ["age", "note"]
    assert np.array_equal(dataset.attributes["age"], [3, 5, np.nan, 7.5], equal_nan=True)
    assert dataset.attributes["note"].tolist() == ["a", "b", "c,d", ""]
    assert dataset.patients is not None
    assert dataset.patients.tolist() == ["p1", "p1", "p2", "p3"]


def test_json_lines_in_a_split_give_the_same(tmp_path: Path) -> None:
    folder_of(tmp_path / "set", "metadata.jsonl", JSONL, "train")
    folder_of(tmp_path / "set", "metadata.jsonl", JSONL, "validation")
    assert len(packed(tmp_path / "set")) == 8
    dataset = packed(tmp_path / "set", "--split", "train")
    assert dataset.labels is not None
    assert (len(dataset), dataset.labels.tolist(), dataset.label_names) == (4, [0, 1, 2, 0], None)
    assert dataset.attributes is not None
    assert dataset.attributes["blurred"].tolist() == [0, 1, 0, 1]
    assert dataset.attributes["box"].tolist() == ["[0, 0]", "[1, 1]", "[2, 2]", "[3, 3]"]


def test_training_straight_from_a_folder_sees_what_the_packed_zip_holds(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "set", "metadata.csv", CSV)
    straight, zipped = open_dataset(str(source)), packed(source)
    assert straight.digest == zipped.digest
    assert straight.label_names == zipped.label_names == ("cat", "dog")
    assert straight.attributes is not None
    assert list(straight.attributes) == ["age", "note"]
    assert open_dataset(str(source), labels=False).labels is None


def test_another_column_may_be_the_class(tmp_path: Path) -> None:
    dataset = packed(folder_of(tmp_path / "set", "metadata.csv", CSV), "--label-column", "note")
    assert dataset.label_names == ("", "a", "b", "c,d")
    assert dataset.attributes is not None
    assert dataset.attributes["label"].tolist() == ["cat", "dog", "cat", "dog"]


def test_without_a_table_folders_are_classes(tmp_path: Path) -> None:
    for i in range(6):
        picture(tmp_path / f"set/train/{'dog' if i % 2 else 'cat'}/{i}.png", i)
    dataset = packed(tmp_path / "set", "--split", "train")
    assert dataset.label_names == ("cat", "dog")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for i in range(3):
        picture(tmp_path / f"plain/train/{i}.png", i)
    assert packed(tmp_path / "plain").labels is None


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        (
            "metadata.csv",
            CSV.replace("3.png", "9.png"),
            "metadata.csv has no row for 1 of the 4 images, e.g. 3.png",
        ),
        ("metadata.csv", CSV + "0.png,dog,1,x,p9\n", "tells of 0.png twice, and differently"),
        ("metadata.csv", CSV.replace("file_name", "picture"), "row 1 has no file_name"),
        ("metadata.csv", CSV + "4.png,dog,1,x,p9,more\n", "a row has more cells than the header"),
        ("metadata.jsonl", JSONL + "{", "metadata.jsonl is damaged"),
        ("metadata.jsonl", JSONL + "[1]\n", "row 5 is no JSON object"),
        (
            "metadata.csv",
            "file_name,label\n" + "".join(f"{i}.png,{i - 1}\n" for i in range(4)),
            "holds -1 and the like",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, table: str, content: str, message: str) -> None:
    source = folder_of(tmp_path / "set", table, content)
    with pytest.raises(DataError, match=message):
        read_imagefolder(FolderFiles(source))


def test_a_split_or_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "set", "metadata.csv", CSV)
    with pytest.raises(DataError, match="no image lies in a folder called test or testing"):
        read_imagefolder(FolderFiles(source), split="test")
    with pytest.raises(DataError, match="has no column 'kind', only label, age, note, patient_id"):
        read_imagefolder(FolderFiles(source), label="kind")
    (source / "metadata.csv").unlink()
    with pytest.raises(DataError, match="but there is no metadata"):
        read_imagefolder(FolderFiles(source), label="kind")


def test_a_name_that_leads_out_of_the_folder_is_no_image_of_it(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    content = CSV.replace("3.png", "../secret.png")
    source = folder_of(tmp_path / "set", "metadata.csv", content)
    with pytest.raises(DataError, match=r"has no row for 1 of the 4 images, e\.g\. 3\.png"):
        read_imagefolder(FolderFiles(source))
