"""CelebA in every layout that people have it in; its crop, attributes, partition and persons."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from infostylegan.__main__ import main
from infostylegan.data import open_dataset

NUMBERS = [f"{i:06d}" for i in range(1, 7)]
SIGNS = np.random.default_rng(0).choice([-1, 1], (6, 3))
NAMES = ["5_o_Clock_Shadow", "Smiling", "Young"]
PARTS = [0, 0, 1, 2, 0, 2]
PERSONS = [2880, 17, 2880, 5, 17, 9]


def pixels(number: str) -> np.ndarray:
    return np.random.default_rng(int(number)).integers(0, 256, (218, 178, 3), dtype=np.uint8)


def face(number: str, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels(number)).save(out, kind)
    return out.getvalue()


FACES = {number: face(number) for number in NUMBERS}
ATTR = "6\n" + " ".join(NAMES) + "\n" + "".join(
    f"{n}.jpg " + " ".join(f"{v:2d}" for v in row) + "\n" for n, row in zip(NUMBERS, SIGNS)
)  # fmt: skip
PART = "".join(f"{n}.jpg {p}\n" for n, p in zip(NUMBERS, PARTS))
IDS = "".join(f"{n}.jpg {p}\n" for n, p in zip(NUMBERS, PERSONS))


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def archive(path: Path, folder: str, extra: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for number, content in FACES.items():
            file.writestr(f"{folder}{number}.jpg", content)  # PNG inside: what a file is counts
        for name, text in (extra or {}).items():
            file.writestr(name, text)
    return path


def torchvision(root: Path) -> Path:
    for number, content in FACES.items():
        write(root / f"celeba/img_align_celeba/{number}.jpg", content)
    write(root / "celeba/list_attr_celeba.txt", ATTR)
    write(root / "celeba/list_eval_partition.txt", PART)
    write(root / "celeba/identity_CelebA.txt", IDS)
    return root / "celeba"


def unpacked(root: Path) -> Path:
    return torchvision(root) / "img_align_celeba"


def zip_in_folder(root: Path) -> Path:
    archive(root / "img_align_celeba.zip", "img_align_celeba/")
    for name, text in (("list_attr_celeba", ATTR), ("list_eval_partition", PART), ("identity_CelebA", IDS)):
        write(root / f"{name}.txt", text.replace("\n", "\r\n"))
    return root


def zip_alone(root: Path) -> Path:
    return zip_in_folder(root) / "img_align_celeba.zip"


def official(root: Path) -> Path:
    write(root / "Anno/list_attr_celeba.txt", ATTR)
    write(root / "Anno/identity_CelebA.txt", IDS)
    write(root / "Eval/list_eval_partition.txt", PART)
    return archive(root / "Img/img_align_celeba.zip", "img_align_celeba/")


def one_zip(root: Path) -> Path:
    attr = "image_id," + ",".join(NAMES) + "\n" + "".join(
        f"{n}.jpg," + ",".join(map(str, row)) + "\n" for n, row in zip(NUMBERS, SIGNS)
    )  # fmt: skip
    part = "image_id,partition\n" + PART.replace(" ", ",")
    return archive(
        root / "archive.zip", "img_align_celeba/img_align_celeba/",
        {"list_attr_celeba.csv": attr, "list_eval_partition.csv": part, "identity_CelebA.txt": IDS},
    )  # fmt: skip


LAYOUTS = [torchvision, unpacked, zip_in_folder, zip_alone, official, one_zip]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "celeba", *map(str, arguments)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_crop_with_attributes_partition_and_persons(
    layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    result = run(layout(tmp_path / "source"), tmp_path / "c.zip")
    assert result.exit_code == 0, result.output
    assert "6 of CelebA's 202599 images are here" in result.output
    assert "3 attributes of each, and who it is" in result.output
    assert "partition: train 3, valid 1, test 2" in result.output
    data = open_dataset(str(tmp_path / "c.zip"))
    assert data.labels is None  # attributes are no labels: nothing trains on them
    assert data.attributes is not None
    assert list(data.attributes) == NAMES
    for i, name in enumerate(NAMES):
        assert np.array_equal(data.attributes[name], SIGNS[:, i] == 1)
    assert data.patients is not None
    assert data.patients.tolist() == [str(person) for person in PERSONS]
    for i, number in enumerate(NUMBERS):
        assert np.array_equal(data.images([i])[0], pixels(number)[57:185, 25:153].transpose(2, 0, 1))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "c.manifest.csv").read_text())))
    assert [row["partition"] for row in rows] == ["train", "train", "valid", "test", "train", "test"]
    assert rows[3]["name"] == "00000/img00000003.png"


def test_a_partition_can_be_packed_alone(tmp_path: Path) -> None:
    result = run(torchvision(tmp_path), tmp_path / "c.zip", "--split", "test", "--resolution", 64)
    assert result.exit_code == 0, result.output
    data = open_dataset(str(tmp_path / "c.zip"))
    assert (len(data), data.resolution) == (2, 64)
    assert data.attributes is not None
    assert np.array_equal(data.attributes["Smiling"], SIGNS[[3, 5], 1] == 1)


def test_images_of_another_size_are_left_out_and_listed(tmp_path: Path) -> None:
    source = torchvision(tmp_path / "s")
    out = io.BytesIO()
    Image.new("RGB", (400, 500)).save(out, "JPEG")
    write(source / "img_align_celeba/000002.jpg", out.getvalue())
    write(source / "img_align_celeba/000003.jpg", b"")
    assert run(source, tmp_path / "c.zip").exit_code == 2
    result = run(source, tmp_path / "c.zip", "--max-bad", 0.5)
    assert result.exit_code == 0, result.output
    assert "000002.jpg: 400x500, not the 178x218 of the aligned images" in result.output
    data = open_dataset(str(tmp_path / "c.zip"))
    assert data.attributes is not None
    assert np.array_equal(data.attributes["Young"], SIGNS[[0, 3, 4, 5], 2] == 1)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "c.manifest.csv").read_text())))
    assert [row["name"] for row in rows][3] == "00000/img00000001.png"
    assert rows[1]["skipped"].startswith("400x500")


def test_without_attributes_only_the_images_are_needed(tmp_path: Path) -> None:
    source = archive(tmp_path / "s/t/img_align_celeba.zip", "img_align_celeba/")
    result = run(source, tmp_path / "c.zip")
    assert result.exit_code == 2
    assert "there is no list_attr_celeba.txt in it or beside it; put it there, or" in result.output
    result = run(source, tmp_path / "c.zip", "--no-attributes")
    assert result.exit_code == 0, result.output
    assert open_dataset(str(tmp_path / "c.zip")).attributes is None


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("list_attr_celeba.txt", ATTR.replace("6\n", "7\n", 1), "announces 7 images and holds 6"),
        ("list_attr_celeba.txt", ATTR.replace("000004.jpg", "000009.jpg"), "no line for 1 of the 6 images"),
        ("list_attr_celeba.txt", ATTR.replace(" -1", " 3", 1), "the value '3', which is neither 1 nor -1"),
        ("list_attr_celeba.txt", ATTR.replace(" -1", "", 1), "has 2 values where there are 3 columns"),
        ("list_attr_celeba.txt", "", "names of the attributes is missing"),
        ("list_attr_celeba.txt", b"\xff\xfe\x00", "not a text"),
        ("list_eval_partition.txt", PART.replace(" 2", " 3", 1), "the partition '3'"),
        ("identity_CelebA.txt", IDS.replace("2880", "somebody"), "download it again"),
        ("copy/000001.jpg", FACES["000001"], "image 000001 is there twice"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    file: str, text: str | bytes, said: str, tmp_path: Path
) -> None:
    source = torchvision(tmp_path)
    write(source / file, text)
    result = run(source, tmp_path / "c.zip")
    assert result.exit_code == 2
    assert said in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "c.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "c.zip"], "nowhere: no such folder or archive"),
        (
            ["celeba", "c.zip", "--resolution", "256"],
            "CelebA's crop is 128x128, and images are never enlarged",
        ),
        (["celeba", "c.tar"], "give a name that ends in .zip"),
        (["empty", "c.zip"], "holds neither images nor img_align_celeba.zip"),
        (["other", "c.zip"], "none of its 1 images is called like 000001.jpg"),
        (["celeba", "c.zip", "--no-attributes", "--split", "test"], "needs list_eval_partition"),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torchvision(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "other/cat.png", FACES["000001"])
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.output
