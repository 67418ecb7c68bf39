"""EyePACS in every layout that people have it in gives the same zip; and what is amiss is said."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from infostylegan.__main__ import main
from infostylegan.data import DataError, open_dataset
from infostylegan.data import eyepacs as module
from infostylegan.data.eyepacs import Choice, find_photographs
from infostylegan.data.loading import array_digest
from infostylegan.data.preparing import unfinished
from infostylegan.data.retina import prepare

ROOT = Path(__file__).resolve().parents[2]
TEST = {  # name -> grade, usage; the order of the set is 1, 4, 10
    "10_left": (0, "Private"), "10_right": (1, "Public"), "1_left": (4, "Public"), "1_right": (2, "Public"),
    "4_left": (0, "Private"), "4_right": (3, "Public"),
}  # fmt: skip
TRAIN = {"13_left": (0, ""), "13_right": (2, "")}
TEST_TABLE = "image,level,Usage\n" + "".join(f"{n},{g},{u}\n" for n, (g, u) in TEST.items())
TRAIN_TABLE = "image,level\n" + "".join(f"{n},{g}\n" for n, (g, _) in TRAIN.items())


def eye(name: str) -> bytes:
    """A JPEG of a disc on black, another for each name."""
    rng = np.random.default_rng(list(name.encode()))
    yy, xx = np.mgrid[:48, :64] + 0.5
    inside = np.hypot(xx - 32, yy - 24) < 20
    pixels = (inside[..., None] * rng.integers(90, 200, (1, 1, 3))).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def zipped(members: dict[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def cut(path: Path, content: bytes, count: int) -> None:
    size = -(-len(content) // count)
    for number in range(count):
        write(path.with_name(f"{path.name}.{number + 1:03d}"), content[number * size : (number + 1) * size])


def images(folder: str, names: dict[str, tuple[int, str]], extension: str = "jpeg") -> dict[str, bytes | str]:
    return {f"{folder}{name}.{extension}": eye(name) for name in names}


# ---- layouts: each makes a source under `root`, and gives it


def kaggle(root: Path) -> Path:
    cut(root / "test.zip", zipped(images("test/", TEST)), 7)
    cut(root / "train.zip", zipped(images("train/", TRAIN)), 5)
    write(root / "trainLabels.csv.zip", zipped({"trainLabels.csv": TRAIN_TABLE}))
    write(root / "retinopathy_solution.csv", TEST_TABLE)
    write(root / "sample.zip", zipped(images("sample/", TRAIN)))
    write(root / "sampleSubmission.csv.zip", zipped({"sampleSubmission.csv": "image,level\n1_left,0\n"}))
    return root


def kaggle_joined(root: Path) -> Path:
    write(root / "test.zip", zipped(images("test/", TEST)))
    write(root / "retinopathy_solution.csv.zip", zipped({"retinopathy_solution.csv": TEST_TABLE}))
    return root


def one_archive(root: Path) -> Path:
    return kaggle(root) / "test.zip.003"


def joined_name_of_pieces(root: Path) -> Path:
    return kaggle(root) / "test.zip"


def unpacked(root: Path) -> Path:
    for name, content in (images("test/", TEST) | images("train/", TRAIN)).items():
        write(root / name, content)
    write(root / "trainLabels.csv", TRAIN_TABLE)
    write(root / "retinopathy_solution.csv", "\ufeff" + TEST_TABLE.replace("\n", "\r\n"))
    return root


def inner_folder(root: Path) -> Path:
    return unpacked(root) / "test"


def resized_2015(root: Path) -> Path:
    for name, content in (
        images("resized test 15/", TEST, "jpg") | images("resized train 15/", TRAIN, "jpg")
    ).items():
        write(root / name, content)
    write(root / "resized train 19/0a1b2c3d.jpg", eye("aptos"))
    write(root / "labels/testLabels15.csv", TEST_TABLE)
    write(root / "labels/trainLabels15.csv", TRAIN_TABLE)
    write(root / "labels/trainLabels19.csv", "id_code,diagnosis\n0a1b2c3d,2\n")
    return root


def mirror_zip(root: Path) -> Path:
    members = images("resized test 15/", TEST, "jpg") | {"labels/testLabels15.csv": TEST_TABLE}
    write(root / "archive.zip", zipped(members))
    return root / "archive.zip"


LAYOUTS = [
    kaggle, kaggle_joined, one_archive, joined_name_of_pieces, unpacked, inner_folder, resized_2015,
    mirror_zip,
]  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "eyepacs", *map(str, arguments), "--resolution", "32"])


def manifest(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_papers_split_in_order_with_grades_and_patients(
    layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    result = run(layout(tmp_path / "source"), tmp_path / "out.zip")
    assert result.exit_code == 0, result.output
    assert "6 of the 53576 photographs of the split test are here" in result.output
    data = open_dataset(str(tmp_path / "out.zip"))
    assert data.labels is not None
    assert data.labels.tolist() == [4, 2, 0, 3, 0, 1]
    assert data.label_names is not None
    assert data.label_names[4] == "proliferative"
    assert data.patients is not None
    assert data.patients.tolist() == ["1", "1", "4", "4", "10", "10"]
    order = ["1_left", "1_right", "4_left", "4_right", "10_left", "10_right"]
    for index, name in enumerate(order):
        made = prepare(eye(name), module.Recipe(32))
        assert np.array_equal(data.images([index])[0], made.pixels)
    rows = manifest(tmp_path / "out.manifest.csv")
    assert [f"{row['patient']}_{row['eye']}" for row in rows] == order
    assert [row["usage"] for row in rows] == [TEST[name][1] for name in order]
    assert rows[2]["name"] == "00000/img00000002.png"
    assert rows[2]["source"].endswith(("4_left.jpeg", "4_left.jpg"))
    assert rows[2]["found"] == "circle"
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.read("manifest.csv").decode() == (tmp_path / "out.manifest.csv").read_text()
    assert not unfinished(tmp_path / "out.zip").exists()
    images_alone = np.concatenate([data.images([i]) for i in range(6)])
    assert data.digest == array_digest(images_alone, np.array([4, 2, 0, 3, 0, 1]))  # whatever the layout


def test_the_resized_training_images_come_with_their_own_table(tmp_path: Path) -> None:
    source = tmp_path / "resized_train_cropped/resized_train_cropped"
    for name, content in images("", TRAIN).items():
        write(source / name, content)
    rows = "".join(f"{i},{i},{n},{g}\n" for i, (n, (g, _)) in enumerate(TRAIN.items()))
    write(tmp_path / "trainLabels_cropped.csv", "Unnamed: 0,Unnamed: 0.1,image,level\n" + rows)
    result = run(source, tmp_path / "out.zip", "--split", "train")
    assert result.exit_code == 0, result.output
    assert open_dataset(str(tmp_path / "out.zip")).labels.tolist() == [0, 2]  # type: ignore[union-attr]
    assert "are of train; say --split train" in run(source, tmp_path / "b.zip").output


def test_all_takes_both_splits(tmp_path: Path) -> None:
    photographs, foreign = find_photographs(resized_2015(tmp_path), Choice("all"))
    assert [p.stem for p in photographs][-2:] == ["13_left", "13_right"]
    assert len(photographs) == 8
    assert foreign == 1


def test_the_other_splits_archive_is_not_even_opened(tmp_path: Path) -> None:
    kaggle(tmp_path)
    (tmp_path / "train.zip.002").unlink()
    assert len(find_photographs(tmp_path, Choice("test"))[0]) == 6
    with pytest.raises(DataError, match=r"train.zip.002 is missing"):
        find_photographs(tmp_path, Choice("train"))


# ---- what is left out


def test_known_bad_damaged_and_dark_photographs_are_left_out_and_listed(tmp_path: Path) -> None:
    unpacked(tmp_path / "s")
    dark = io.BytesIO()
    Image.new("RGB", (64, 48)).save(dark, "JPEG")
    for name, content in (("25313_right", eye("x")), ("7_left", b""), ("7_right", dark.getvalue()),
                          ("8_left", eye("8_left")[:700])):  # fmt: skip
        write(tmp_path / f"s/test/{name}.jpeg", content)
    write(
        tmp_path / "s/retinopathy_solution.csv",
        TEST_TABLE + "25313_right,0,Private\n7_left,0,Public\n7_right,0,Public\n8_left,1,Public\n",
    )
    result = run(tmp_path / "s", tmp_path / "out.zip")
    assert result.exit_code == 2
    assert "cannot be used" in result.output
    result = run(tmp_path / "s", tmp_path / "out.zip", "--max-bad", "0.4")  # goes on where it stopped
    assert result.exit_code == 0, result.output
    rows = {f"{row['patient']}_{row['eye']}": row for row in manifest(tmp_path / "out.manifest.csv")}
    assert rows["25313_right"]["skipped"] == "known to be bad"
    assert rows["7_left"]["skipped"].startswith("not an image")
    assert rows["7_right"]["skipped"] == "all dark: no retina to be seen"
    assert "truncated" in rows["8_left"]["skipped"]
    assert {name for name, row in rows.items() if row["name"]} == set(TEST)
    assert rows["10_right"]["name"] == "00000/img00000005.png"  # no gaps
    assert "1 left out: known to be bad" in result.output
    assert "left out: test/7_left.jpeg: not an image" in result.output


def test_eyeq_decides_by_quality(tmp_path: Path) -> None:
    unpacked(tmp_path / "s")
    write(
        tmp_path / "q.csv",
        ",image,quality,DR_grade\n0,1_left.jpeg,0,4\n1,1_right.jpeg,1,2\n2,4_left.jpeg,2,0\n3,10_left.jpeg,0,0\n",
    )

    def taken(*options: str) -> dict[str, str]:
        result = run(
            tmp_path / "s", tmp_path / "out.zip", "--overwrite", "--quality", tmp_path / "q.csv", *options
        )
        assert result.exit_code == 0, result.output
        rows = manifest(tmp_path / "out.manifest.csv")
        return {f"{row['patient']}_{row['eye']}": row["skipped"] for row in rows}

    unrated = "not rated in the file of qualities"
    assert taken() == {
        "1_left": "", "1_right": "", "4_left": "quality: reject", "4_right": unrated,
        "10_left": "", "10_right": unrated,
    }  # fmt: skip
    assert [name for name, reason in taken("--accept", "good").items() if not reason] == ["1_left", "10_left"]


def test_patients_can_be_chosen_and_both_eyes_stay_together(tmp_path: Path) -> None:
    unpacked(tmp_path / "s")
    write(tmp_path / "p.txt", "patient\r\n10\r\n# a comment\r\n1_left.jpeg\r\n77\r\n")
    result = run(tmp_path / "s", tmp_path / "out.zip", "--keep-patients", tmp_path / "p.txt")
    assert result.exit_code == 0, result.output
    patients = open_dataset(str(tmp_path / "out.zip")).patients
    assert patients is not None
    assert patients.tolist() == ["1", "1", "10", "10"]
    assert "2 left out: patient not asked for" in result.output


def test_no_labels_does_without_a_table(tmp_path: Path) -> None:
    (unpacked(tmp_path / "s") / "retinopathy_solution.csv").unlink()
    result = run(tmp_path / "s", tmp_path / "out.zip")
    assert result.exit_code == 2
    assert "no grade for 6 of its 6 photographs, e.g. " in result.output
    assert "put retinopathy_solution.csv there" in result.output
    assert run(tmp_path / "s", tmp_path / "out.zip", "--no-labels").exit_code == 0
    assert open_dataset(str(tmp_path / "out.zip")).labels is None
    write(tmp_path / "elsewhere.csv", TEST_TABLE)
    assert run(tmp_path / "s", tmp_path / "b.zip", "--labels", tmp_path / "elsewhere.csv").exit_code == 0


def test_options_change_the_pixels(tmp_path: Path) -> None:
    unpacked(tmp_path / "s")
    assert run(tmp_path / "s", tmp_path / "g.zip", "--graham", "--canonical-side").exit_code == 0
    image = open_dataset(str(tmp_path / "g.zip")).images([0])[0]
    assert (image[:, 0, 0] == 128).all()
    with zipfile.ZipFile(tmp_path / "g.zip") as archive:
        assert b'"graham": true' in archive.read("about.json")


# ---- mistakes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: write(s / "copy/1_left.jpeg", eye("1_left")), "1_left is there twice, as"),
        (lambda s: write(s / "trainLabels2.csv", "image,level\n1_left,0\n"), r"1_left has grade \d in"),
        (
            lambda s: write(s / "retinopathy_solution.csv", "image,level\n1_left,5\n"),
            "gives 1_left the grade '5'",
        ),
        (
            lambda s: write(s / "retinopathy_solution.csv", "image\n1_left\n"),
            "name the column of each image's",
        ),
        (lambda s: write(s / "retinopathy_solution.csv", b"\xff\xfe1"), "not a CSV table in UTF-8"),
        (
            lambda s: write(s / "retinopathy_solution.csv", "image,level,Usage\n1_left,4,Public\n"),
            "no grade for 5 of its 6",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(
    change: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    change(unpacked(tmp_path / "s"))
    result = run(tmp_path / "s", tmp_path / "out.zip")
    assert result.exit_code == 2
    assert re.search(said, result.output), result.output
    assert result.output.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no images and no archives of images"),
        ({"cat.png": eye("cat")}, "only 1 other images; EyePACS's are called like 10_left.jpeg"),
        ({"x/1_left.jpeg": eye("1_left")}, "nothing tells which of its 1 photographs are of the split test"),
    ],
)
def test_a_source_without_the_photographs_says_what_it_holds(
    files: dict[str, bytes], said: str, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    for name, content in files.items():
        write(tmp_path / "s" / name, content)
    result = run(tmp_path / "s", tmp_path / "out.zip", "--no-labels")
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "out.zip"], "nowhere: no such folder or archive"),
        (["s", "out.tar"], "give a name that ends in .zip"),
        (["s", "there.zip"], "exists already"),
        (["s", "out.zip", "--keep-patients", "none.txt"], "the patients cannot be read"),
        (
            ["s", "out.zip", "--keep-patients", "99.txt"],
            "names 1 patients, none of them among the photographs",
        ),
        (["s", "out.zip", "--keep-patients", "odd.txt"], "line 2 is 'mine', no patient such as 10"),
        (["s", "out.zip", "--quality", "99.txt"], "EyeQ's files have image and quality"),
        (["s", "out.zip", "--quality", "q.csv"], "rates none of the photographs"),
    ],
)
def test_mistakes_are_one_message_and_nothing_is_written(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unpacked(tmp_path / "s")
    write(tmp_path / "there.zip", b"precious")
    write(tmp_path / "99.txt", "patient\n99\n")
    write(tmp_path / "odd.txt", "10\nmine\n")
    write(tmp_path / "q.csv", "image,quality\n99_left,0\n")
    before = sorted(tmp_path.iterdir())
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.zip").read_bytes() == b"precious"


# ---- kills


KILLED = """
import sys, time
from infostylegan.data import eyepacs, preparing
preparing._SAVE_SECONDS = 0
make = eyepacs.prepare
def slowly(*arguments):
    time.sleep(0.2)
    return make(*arguments)
eyepacs.prepare = slowly
from infostylegan.__main__ import main
main()
"""


def many(root: Path, count: int = 24) -> Path:
    names = {f"{i}_{side}": (i % 5, "Public") for i in range(1, count // 2 + 1) for side in ("left", "right")}
    cut(root / "test.zip", zipped(images("test/", names)), 3)
    rows = "".join(f"{n},{g},{u}\n" for n, (g, u) in names.items())
    write(root / "retinopathy_solution.csv", "image,level,Usage\n" + rows)
    return root


def test_after_a_kill_the_same_command_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dest = many(tmp_path / "s"), tmp_path / "out.zip"
    command = ["data", "eyepacs", str(source), str(dest), "--resolution", "32"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, *command], env=environment)
    journal = unfinished(dest) / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    busy = run(source, dest)  # a second one at the same time is turned away
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert busy.exit_code == 2
    assert "another process is at work on it" in busy.output
    done = journal.read_bytes().count(b"\n")
    assert 3 <= done < 24
    assert not dest.exists()

    other = run(source, dest, "--graham")
    assert other.exit_code == 2
    assert "unfinished work of another kind (other recipe)" in other.output

    part = tmp_path / ".out.zip.12345.part"  # of a kill while the zip was written
    part.write_bytes(b"half a zip")
    made = []
    monkeypatch.setattr(module, "prepare", lambda *a: made.append(a) or prepare(*a))
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert len(made) == 24 - done
    assert not unfinished(dest).exists()
    assert not part.exists()
    fresh = tmp_path / "fresh.zip"
    assert run(source, fresh).exit_code == 0
    assert fresh.read_bytes() == dest.read_bytes()
    assert fresh.with_suffix(".manifest.csv").read_bytes() == dest.with_suffix(".manifest.csv").read_bytes()


@pytest.mark.parametrize("damage", ["torn line", "lost bytes", "extra bytes"])
def test_what_a_kill_tore_is_made_again(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, dest = many(tmp_path / "s"), tmp_path / "out.zip"
    calls = []

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > 10:
            raise KeyboardInterrupt
        return prepare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "prepare", interrupted)
    assert run(source, dest).exit_code == 1
    folder = unfinished(dest)
    journal = (folder / "journal.jsonl").read_bytes()
    assert journal.count(b"\n") >= 1
    if damage == "torn line":
        (folder / "journal.jsonl").write_bytes(journal[:-20])
    elif damage == "lost bytes":
        os.truncate(folder / "images.bin", (folder / "images.bin").stat().st_size - 7)
    else:
        with open(folder / "images.bin", "ab") as file:
            file.write(b"of an image that no line names")
    monkeypatch.setattr(module, "prepare", prepare)
    assert run(source, dest).exit_code == 0
    assert run(source, tmp_path / "fresh.zip").exit_code == 0
    assert dest.read_bytes() == (tmp_path / "fresh.zip").read_bytes()


def test_damage_within_the_unfinished_work_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dest = many(tmp_path / "s"), tmp_path / "out.zip"

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("infostylegan.data.preparing.write_zip", interrupted)
        assert run(source, dest).exit_code == 1
    path = unfinished(dest) / "images.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    result = run(source, dest)
    assert result.exit_code == 2
    assert "images.bin: damaged; remove" in result.output
    assert not dest.exists()
