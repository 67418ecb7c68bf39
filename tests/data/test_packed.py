"""A packed set: the lower resolutions it carries, reading any part of it, and the digests that prove it."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from infostylegan.data import ArrayDataset, BatchStream, DataError, loading, open_dataset, packed
from infostylegan.data.annotations import Annotations
from infostylegan.data.images import Framing, encode_png
from infostylegan.data.loading import FileDataset, load_files
from infostylegan.data.packed import PackedDataset, verify_packed
from infostylegan.data.packing import CHUNK, entry, lower_name, member_name, pack_dataset, write_zip
from infostylegan.data.pyramid import (
    box_sums,
    decode_sums,
    encode_pyramid,
    encode_sums,
    lower_resolutions,
    sum_type,
)
from infostylegan.data.sources import FolderFiles, ZipFiles


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "cache"))


def noise(count: int, resolution: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (count, channels, resolution, resolution)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def packed_zip(path: Path, array: np.ndarray, **known: object) -> Path:
    pack_dataset(ArrayDataset("made", array, **known), path)  # type: ignore[arg-type]
    return path


def opened(path: Path) -> PackedDataset:
    dataset = open_dataset(str(path))
    assert isinstance(dataset, PackedDataset)
    return dataset


# ---- records


@given(
    image=arrays.arrays(np.uint8, st.sampled_from([(1, 4, 4), (3, 8, 8), (1, 32, 32), (3, 64, 64)])),
)
@settings(max_examples=60, deadline=None)
def test_a_record_gives_back_the_exact_sums(image: np.ndarray) -> None:
    size = image.shape[-1]
    records = encode_pyramid(image)
    assert len(records) == len(lower_resolutions(size))
    for resolution, record in zip(lower_resolutions(size), records):
        back = decode_sums(record, image.shape[0], resolution, size // resolution)
        expected = box_sums(image[None], resolution)[0]
        assert back.dtype == expected.dtype == sum_type(size // resolution)
        assert np.array_equal(back, expected)


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_at_512_survive_at_every_resolution(value: int) -> None:
    image = np.full((1, 512, 512), value, np.uint8)
    image[0, 0, 0] = 255 - value  # a corner that differs makes every residual wrap
    for resolution, record in zip(lower_resolutions(512), encode_pyramid(image)):
        back = decode_sums(record, 1, resolution, 512 // resolution)
        blocks = image.reshape(resolution, 512 // resolution, resolution, 512 // resolution)
        assert np.array_equal(back[0].astype(np.int64), blocks.astype(np.int64).sum(axis=(1, 3)))


@given(
    sums=arrays.arrays(st.sampled_from([np.uint16, np.uint32]), (2, 8, 8)),
)
@settings(max_examples=60, deadline=None)
def test_any_integers_survive_the_residuals(sums: np.ndarray) -> None:
    factor = 2 if sums.dtype == np.uint16 else 64
    assert np.array_equal(decode_sums(encode_sums(sums), 2, 8, factor), sums)


def test_a_damaged_record_is_no_image() -> None:
    record = encode_sums(np.zeros((1, 8, 8), np.uint16))
    for damaged in (
        record[:-3],
        b"",
        record[:4] + b"\xff" * len(record),
        encode_sums(np.zeros((1, 4, 4), np.uint16)),
    ):
        with pytest.raises(ValueError, match=r".+"):
            decode_sums(damaged, 1, 8, 2)


def test_lower_resolutions_end_at_four() -> None:
    assert lower_resolutions(512) == (256, 128, 64, 32, 16, 8, 4)
    assert lower_resolutions(8) == (4,)
    assert lower_resolutions(4) == ()


# ---- what other tools see


def test_no_member_but_the_images_has_the_ending_of_an_image(tmp_path: Path) -> None:
    """Other StyleGAN tools list every member whose ending Pillow knows, and want all of one shape."""
    Image.init()
    known = {"labels": np.arange(5) % 2, "factors": {"a": np.arange(5)}, "attributes": {"b": np.arange(5)},
             "patients": np.array(list("aabbc"))}  # fmt: skip
    path = packed_zip(tmp_path / "a.zip", noise(5, 16), **known)
    with zipfile.ZipFile(path) as archive:
        images = sorted(
            name for name in archive.namelist() if os.path.splitext(name)[1].lower() in Image.EXTENSION
        )
        assert images == [member_name(i) for i in range(5)]
        shapes = {np.asarray(Image.open(io.BytesIO(archive.read(name)))).shape for name in images}
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
        assert shapes == {(16, 16, 3)}
        assert [labels[name] for name in images] == [0, 1, 0, 1, 0]


# ---- reading


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory", [True, False])
def test_a_packed_set_gives_the_batches_of_the_array_it_was_packed_from(
    tmp_path: Path, channels: int, memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = noise(CHUNK + 40, 32, channels)
    made = ArrayDataset("made", array, np.arange(len(array)) % 7)
    dataset = opened(packed_zip(tmp_path / "a.zip", array, labels=made.labels))
    monkeypatch.setattr(loading, "RAM_LIMIT", (2 << 30) if memory else 0)
    assert dataset.digest == made.digest
    here, there = BatchStream(made, 3), BatchStream(dataset, 3)
    for resolution in (4, 8, 16, 32, 8, 32):
        for position in (0, 5, CHUNK + 30, 3 * CHUNK):
            ours, theirs = here.batch(position, 20, resolution), there.batch(position, 20, resolution)
            assert torch.equal(ours[0], theirs[0])
            assert ours[1] is not None
            assert theirs[1] is not None
            assert torch.equal(ours[1], theirs[1])
    assert np.array_equal(dataset.images([-1, 0]), array[[-1, 0]])
    with pytest.raises(IndexError, match="has 296 images, not 296 to 296"):
        dataset.images([296])
    there.close()


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256])
def test_training_below_512_decodes_no_image_of_512(
    tmp_path: Path, resolution: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.repeat(np.repeat(noise(3, 64), 8, axis=2), 8, axis=3)
    dataset = opened(packed_zip(tmp_path / "a.zip", array))

    def refuse(*arguments: object) -> None:
        raise AssertionError("an image was decoded at its full size")

    monkeypatch.setattr(packed, "decode", refuse)
    images, _ = BatchStream(dataset, 0, prefetch=0).batch(0, 3, resolution)
    expected, _ = BatchStream(ArrayDataset("made", array), 0).batch(0, 3, resolution)
    assert torch.equal(images, expected)
    with pytest.raises(AssertionError, match="at its full size"):
        dataset.images([0])


def test_what_fits_in_memory_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = opened(packed_zip(tmp_path / "a.zip", noise(6, 16)))
    decoded: list[tuple[int, int]] = []
    decode_at = PackedDataset.decode_at

    def count(self: PackedDataset, index: int, resolution: int) -> np.ndarray:
        decoded.append((index, resolution))
        return decode_at(self, index, resolution)

    monkeypatch.setattr(PackedDataset, "decode_at", count)
    for resolution in (8, 16, 8, 16, 8):
        for _ in range(3):
            dataset.block_sums(range(6), resolution)
    assert sorted(decoded) == sorted((i, r) for i in range(6) for r in (8, 16))


def test_a_batch_does_not_depend_on_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed_zip(tmp_path / "a.zip", noise(50, 32))
    monkeypatch.setattr(loading, "RAM_LIMIT", 0)
    batches = []
    for workers in (1, 2, 7):
        monkeypatch.setattr(loading, "worker_count", lambda workers=workers: workers)
        stream = BatchStream(opened(path), 9, prefetch=workers)
        batches.append(torch.cat([stream.batch(position, 10, 8)[0] for position in range(0, 120, 10)]))
        stream.close()
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


def _sums_in_child(stream: BatchStream, start: int, queue: multiprocessing.Queue[bytes]) -> None:
    out = [stream.batch(position, 8, resolution)[0].numpy() for position in range(start, start + 240, 8)
           for resolution in (8, 32)]  # fmt: skip
    queue.put(b"".join(images.tobytes() for images in out))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["packed", "zip"])
def test_forked_processes_read_at_once_without_disturbing_each_other(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children forked in the midst of reading, with threads running and batches under way."""
    array = noise(64, 32)
    monkeypatch.setattr(loading, "RAM_LIMIT", 0)
    if kind == "packed":
        dataset = open_dataset(str(packed_zip(tmp_path / "a.zip", array)))
    else:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for i, image in enumerate(array):
                archive.writestr(f"{i:03d}.png", encode_png(image))
        dataset = open_dataset(str(tmp_path / "a.zip"))
        assert isinstance(dataset, FileDataset)
    stream = BatchStream(dataset, 2, prefetch=2)
    stream.batch(0, 8, 8)  # threads are running now, and two batches are being decoded
    context = multiprocessing.get_context("fork")
    queues = [context.Queue() for _ in range(3)]
    children = [context.Process(target=_sums_in_child, args=(stream, 8, queue)) for queue in queues]
    for child in children:
        child.start()
    got = [queue.get(timeout=60) for queue in queues]
    for child in children:
        child.join(timeout=60)
    plain = BatchStream(ArrayDataset("made", array), 2)
    expected = b"".join(
        plain.batch(position, 8, resolution)[0].numpy().tobytes()
        for position in range(8, 248, 8)
        for resolution in (8, 32)
    )
    assert all(content == expected for content in got)
    stream.close()


def test_many_threads_may_read_one_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = noise(40, 16)
    dataset = opened(packed_zip(tmp_path / "a.zip", array))
    wrong: list[int] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            chosen = rng.integers(0, 40, 5)
            if not np.array_equal(dataset.images(chosen), array[chosen]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- one set in many forms


def test_the_digest_and_the_batches_do_not_depend_on_the_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = noise(9, 16)
    (tmp_path / "set").mkdir()
    for i, image in enumerate(array):
        (tmp_path / f"set/{i}.png").write_bytes(encode_png(image))
    (tmp_path / "set/labels.csv").write_text("image,label\n" + "".join(f"{i},{i % 3}\n" for i in range(9)))
    folder = open_dataset(str(tmp_path / "set"))
    pack_dataset(folder, tmp_path / "set.zip")
    forms = [ArrayDataset("set", array, np.arange(9) % 3), folder, open_dataset(str(tmp_path / "set.zip"))]
    monkeypatch.setattr(loading, "RAM_LIMIT", 0)
    forms += [open_dataset(str(tmp_path / "set")), open_dataset(str(tmp_path / "set.zip"))]
    assert [type(form) for form in forms] == [
        ArrayDataset,
        ArrayDataset,
        PackedDataset,
        FileDataset,
        PackedDataset,
    ]
    assert len({form.digest for form in forms}) == 1
    batches = [BatchStream(form, 4, prefetch=0).batch(5, 12, 8)[0] for form in forms]
    assert all(torch.equal(batch, batches[0]) for batch in batches)
    bare = [open_dataset(str(tmp_path / name), labels=False) for name in ("set", "set.zip")]
    assert bare[0].digest == bare[1].digest != folder.digest


def test_attributes_and_patients_travel_with_the_images(tmp_path: Path) -> None:
    attributes = {"Smiling": np.array([1, 0, 1, 1]), "odd name/with slash": np.array(list("abcd"))}
    patients = np.array(["10", "10", "11", "Jörg"])
    pack_dataset(
        ArrayDataset("made", noise(4, 8), attributes=attributes, patients=patients), tmp_path / "a.zip",
        extras={"manifest.csv": b"source\n"},
    )  # fmt: skip
    dataset = opened(tmp_path / "a.zip")
    assert dataset.attributes is not None
    assert {name: values.tolist() for name, values in dataset.attributes.items()} == {
        "Smiling": [1, 0, 1, 1], "odd name/with slash": ["a", "b", "c", "d"],
    }  # fmt: skip
    assert dataset.patients is not None
    assert dataset.patients.tolist() == ["10", "10", "11", "Jörg"]
    files = ZipFiles(tmp_path / "a.zip")
    assert files.beside("manifest.csv") == b"source\n"
    lower = load_files(files, Framing(4), packed.read_annotations(files), name="made")
    assert lower.patients is not None
    assert lower.patients.tolist() == patients.tolist()


def test_a_zip_of_format_one_still_reads(tmp_path: Path) -> None:
    array = noise(5, 16, 1)
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        for i, image in enumerate(array):
            archive.writestr(member_name(i), encode_png(image))
        with archive.open("factors.npz", "w") as file:
            np.savez(file, size=np.arange(5))
        archive.writestr("dataset.json", json.dumps({"labels": [[member_name(i), i % 2] for i in range(5)]}))
        archive.comment = b"packed by infostylegan, format 1"
    dataset = open_dataset(str(tmp_path / "old.zip"))
    assert isinstance(dataset, ArrayDataset)
    assert np.array_equal(dataset.array, array)
    assert dataset.factors is not None
    assert dataset.factors["size"].tolist() == [0, 1, 2, 3, 4]
    assert dataset.digest == ArrayDataset("x", array, np.arange(5) % 2).digest
    with pytest.raises(DataError, match="carries no digests to verify"):
        verify_packed(ZipFiles(tmp_path / "old.zip"))


def test_a_zip_of_a_later_format_is_refused(tmp_path: Path) -> None:
    path = packed_zip(tmp_path / "a.zip", noise(2, 8))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"packed by infostylegan, format 99"
    with pytest.raises(DataError, match="packed in format 99, and this version reads up to 2"):
        open_dataset(str(path))


def test_another_resolution_or_channels_are_made_from_the_images(tmp_path: Path) -> None:
    path = packed_zip(tmp_path / "a.zip", noise(3, 16))
    gray = open_dataset(str(path), channels=1)
    small = open_dataset(str(path), resolution=8)
    assert isinstance(gray, ArrayDataset)
    assert (gray.channels, small.resolution) == (1, 8)
    assert len({gray.digest, small.digest, open_dataset(str(path)).digest}) == 3


# ---- damage


def repacked(path: Path, change: dict[str, bytes | None]) -> Path:
    """The zip with some members changed or left out, and its CRCs right."""
    dest = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(dest, "w") as archive:
        for info in source.infolist():
            content = change.get(info.filename, source.read(info))
            if content is not None:
                archive.writestr(info.filename, content)
        archive.comment = source.comment
    return dest


def test_a_sound_zip_has_nothing_wrong_with_it(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = packed_zip(tmp_path / "a.zip", noise(7, 16), labels=np.arange(7))
    assert verify_packed(ZipFiles(path), lambda done, total: seen.append((done, total))) == []
    assert seen == [(i + 1, 7) for i in range(7)]


def test_verifying_names_what_was_changed(tmp_path: Path) -> None:
    array = noise(4, 8)
    path = packed_zip(tmp_path / "a.zip", array, labels=np.arange(4), factors={"x": np.arange(4)})
    other = encode_png(noise(1, 8, seed=5)[0])
    noted = "its SHA-256 is not the one noted when it was packed"
    for change, expected in (
        ({member_name(2): other}, [(member_name(2), "other pixels than were packed")]),
        ({member_name(1): b"junk"}, [(member_name(1), "not an image, or damaged at its very start")]),
        ({lower_name(0): b"junk"}, [(lower_name(0), noted)]),
        ({"factors.npz": None}, [("factors.npz", "missing")]),
        ({"dataset.json": b'{"labels": null}'}, [("dataset.json", noted)]),
    ):
        assert verify_packed(ZipFiles(repacked(path, change))) == expected  # type: ignore[arg-type]


def test_verifying_finds_lower_resolutions_that_are_not_those_of_the_image(tmp_path: Path) -> None:
    right, wrong = noise(2, 8), noise(2, 8, seed=1)
    entries = [entry(right[0]), entry(right[1])]
    entries[1] = type(entries[1])(entries[1].png, entry(wrong[1]).lower, entries[1].digest, 3, 8)
    write_zip(tmp_path / "a.zip", entries, Annotations)
    assert verify_packed(ZipFiles(tmp_path / "a.zip")) == [
        (member_name(1), "at 4x4 it is not what its own pixels give")
    ]


def test_a_damaged_zip_is_named_and_never_read_as_if_whole(tmp_path: Path) -> None:
    path = packed_zip(tmp_path / "a.zip", noise(4, 8))
    for change, message in (
        ({"packed.json": b"{"}, r"changed.zip: its packed.json is damaged .*; pack it again"),
        ({"packed.json": None}, r"changed.zip: its packed.json is damaged .*; pack it again"),
        ({member_name(3): None}, "tells of 4 images of 8x8, and it holds 3; pack it again"),
        ({"digests.bin": b"short"}, "its digests.bin is damaged; pack it again"),
    ):
        with pytest.raises(DataError, match=message):
            open_dataset(str(repacked(path, change)))  # type: ignore[arg-type]
    for change, resolution in (({lower_name(0): b"\0" * 999}, 4), ({member_name(0): b"junk"}, 8)):
        dataset = opened(repacked(path, change))  # type: ignore[arg-type]
        with pytest.raises(DataError, match=rf"image 0 is damaged at {resolution}x{resolution}"):
            dataset.block_sums([0], resolution)


def test_a_flipped_bit_in_an_image_is_found_on_reading_it(tmp_path: Path) -> None:
    path = packed_zip(tmp_path / "a.zip", noise(3, 16))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(member_name(1)).header_offset
    content[start + 300] ^= 1
    path.write_bytes(content)
    dataset = opened(path)
    dataset.images([0, 2])
    with pytest.raises(DataError, match=r"image 1 is damaged at 16x16 \(its CRC does not fit\)"):
        dataset.images([1])
    (problem,) = verify_packed(ZipFiles(path))
    assert problem[0] == member_name(1)


def test_a_zip_cut_short_after_opening_is_named(tmp_path: Path) -> None:
    path = packed_zip(tmp_path / "a.zip", noise(4, 8))
    dataset = opened(path)
    os.truncate(path, 100)
    with pytest.raises(DataError, match=r"a.zip: image 3 is damaged at 8x8 \(cut short\)"):
        dataset.images([3])


def test_images_of_two_shapes_and_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image 1 is"):
        write_zip(tmp_path / "a.zip", [entry(noise(1, 8)[0]), entry(noise(1, 16)[0])], Annotations)
    with pytest.raises(ValueError, match="without images"):
        write_zip(tmp_path / "a.zip", [], Annotations)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_one_image_is_a_set(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.png").write_bytes(encode_png(noise(1, 8)[0]))
    assert FolderFiles(tmp_path / "set").names == ["a.png"]
    pack_dataset(open_dataset(str(tmp_path / "set")), tmp_path / "one.zip")
    assert len(opened(tmp_path / "one.zip")) == 1
