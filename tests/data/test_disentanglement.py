"""Sets with known factors: drawn, read from their official layouts, and drawn from by factor."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from infostylegan.__main__ import main
from infostylegan.data import ArrayDataset, BatchStream, DataError, dsprites, fundus, loading, open_dataset
from infostylegan.data.catalogue import open_factors
from infostylegan.data.color_mnist import BACKGROUND, FOREGROUND, colour, colour_mnist, colourings
from infostylegan.data.dsprites import COUNT, SIZES, Regenerated, factor_indices, frame_indices, render
from infostylegan.data.factors import (
    BINS,
    ColorMnistSource,
    DspritesSource,
    FundusSource,
    LookupSource,
    discretise,
)
from infostylegan.data.shapes3d import FACTORS as SHAPES3D_FACTORS
from metrics import FactorSource

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with a cache of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INFOSTYLEGAN_DATA", raising=False)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def shared(*names: str) -> Path:
    """A file of the data beside the repository; skip where a clone has none."""
    roots = [
        os.environ.get("INFOSTYLEGAN_SHARED"),
        REPOSITORY.parent / "shared",
        REPOSITORY.parent.parent / "shared",
    ]
    for root in roots:
        if root and Path(root, "data", *names).exists():
            return Path(root, "data", *names)
    pytest.skip(f"{'/'.join(names)} is not beside this repository")


# ---- dSprites, drawn


def test_frames_drawn_anew_agree_with_the_originals() -> None:
    frames, classes = dsprites.read_originals(shared("dsprites_reference", "original_frames_320.npz"))
    assert len(frames) == 320
    wrong = dsprites.compare(frames, classes)
    assert wrong["square"] <= 0.2
    assert wrong["ellipse"] <= 1
    assert wrong["heart"] <= 2


def test_frames_are_numbered_as_in_the_official_file() -> None:
    assert int(np.prod(list(SIZES.values()))) == COUNT
    assert factor_indices([0, 1, 32, 1024, 40 * 1024, 6 * 40 * 1024, COUNT - 1]).tolist() == [
        [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0],
        [2, 5, 39, 31, 31],
    ]  # fmt: skip
    some = np.random.default_rng(0).integers(0, COUNT, 50)
    assert np.array_equal(frame_indices(factor_indices(some)), some)


def test_frames_are_black_and_white_and_the_last_orientation_is_the_first() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.integers(0, size, 60) for size in SIZES.values()], axis=1)
    frames = render(drawn)
    assert frames.shape == (60, 1, 64, 64)
    assert set(np.unique(frames)) == {0, 255}
    turned = drawn.copy()
    drawn[:, 2], turned[:, 2] = 0, 39
    assert np.array_equal(render(drawn), render(turned))


def test_a_frame_is_the_same_whatever_is_drawn_beside_it() -> None:
    some = factor_indices(np.random.default_rng(1).integers(0, COUNT, 300))
    together = render(some)
    assert all(np.array_equal(together[i], render(some[i : i + 1])[0]) for i in range(0, 300, 17))
    assert render(np.zeros((0, 5), dtype=np.int64)).shape == (0, 1, 64, 64)


def test_a_sprite_has_the_area_of_its_outline_and_sits_at_its_place() -> None:
    """Area s*s of a square of side 19.2 s px; half a polygon's cross products for the others."""
    for shape in range(3):
        corners = dsprites._outline(shape) * 64
        x, y = corners.T
        area = 0.5 * abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))))
        for scale in (0, 5):
            everywhere = np.array([[shape, scale, 7, x, 31] for x in range(32)])
            frames = render(everywhere)[:, 0] > 0
            expected = area * np.linspace(0.5, 1, 6)[scale] ** 2
            assert abs(frames.sum() / 32 - expected) <= 0.02 * expected
            if shape < 2:  # the heart's centre is not its centroid
                for column, frame in enumerate(frames):
                    rows, columns = np.nonzero(frame)
                    assert abs(columns.mean() + 0.5 - (16 + 32 * column / 31)) < 0.3
                    assert abs(rows.mean() + 0.5 - 48) < 0.3


@pytest.mark.parametrize("factors", [[[3, 0, 0, 0, 0]], [[0, 0, -1, 0, 0]], [[0, 0, 0, 32, 0]]])
def test_factors_out_of_range_are_refused(factors: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="value indices below"):
        render(np.array(factors))


def test_dsprites_opens_without_any_file_and_trains() -> None:
    dataset = open_dataset("dsprites")
    assert isinstance(dataset, Regenerated)
    assert (len(dataset), dataset.resolution, dataset.channels) == (COUNT, 64, 1)
    images, labels = BatchStream(dataset, 0).batch(0, 16, 8)
    assert images.shape == (16, 1, 8, 8)
    assert labels is not None
    assert dataset.factors is not None
    chosen = BatchStream(dataset, 0).indices(0, 16)
    assert np.array_equal(labels.numpy(), dataset.factors["shape"][chosen])
    whole = BatchStream(ArrayDataset("some", dataset.images(chosen)), 0)
    assert torch.equal(images, whole._images(np.arange(16), 8))
    with pytest.raises(DataError, match="is 64x64, gray; use --resolution 64"):
        open_dataset("dsprites", resolution=32)
    assert open_dataset("dsprites", labels=False).labels is None


@pytest.mark.slow
def test_the_digest_of_the_drawn_set_is_that_of_its_frames() -> None:
    assert dsprites.computed_digest(labels=True) == open_dataset("dsprites").digest
    assert dsprites.computed_digest(labels=False) == open_dataset("dsprites", labels=False).digest


# ---- dSprites, the official file


class Touched:
    """A pickle of this would make a file on being opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return builtins.open, (str(self.path), "w")


def official(path: Path, rows: np.ndarray, *, trap: Path | None = None, **changed: Any) -> Path:
    """A small file in the layout of the official one, with a pickled object for metadata, as there."""
    classes = np.concatenate([np.zeros((len(rows), 1), np.int64), factor_indices(rows)], axis=1)
    metadata = np.empty((), dtype=object)
    metadata[()] = Touched(trap) if trap else {"title": "dSprites dataset"}
    arrays = {
        "metadata": metadata,
        "imgs": (render(factor_indices(rows))[:, 0] > 0).astype(np.uint8),
        "latents_classes": classes,
        "latents_values": classes.astype(np.float64),
        **changed,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=True)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return path


def test_the_official_npz_opens_and_its_pickle_is_never_run(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, COUNT, 30)
    trap = tmp_path / "trap"
    path = official(tmp_path / dsprites.NPZ, rows, trap=trap)
    pickle.dumps(Touched(trap))  # the trap is a real one
    dataset = open_dataset(str(path))
    assert not trap.exists()
    assert np.array_equal(dataset.images(range(30)), render(factor_indices(rows)))
    assert dataset.factors is not None
    assert list(dataset.factors) == list(SIZES)
    assert np.array_equal(np.stack(list(dataset.factors.values()), axis=1), factor_indices(rows))
    assert dataset.label_names == ("square", "ellipse", "heart")
    assert dataset.digest == ArrayDataset("x", dataset.images(range(30)), dataset.labels).digest


def test_dsprites_on_this_machine_comes_before_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here/data").mkdir()
    official(tmp_path / "here/data" / dsprites.NPZ, np.arange(12))
    assert len(open_dataset("dsprites")) == 12


def test_the_dsprites_command_packs_the_official_file(tmp_path: Path) -> None:
    path = official(tmp_path / dsprites.NPZ, np.arange(0, COUNT, 40_000))
    for source in (path, tmp_path):
        result = run("data", "dsprites", source, tmp_path / "a.zip", "--overwrite")
        assert result.exit_code == 0, result.output
    packed = open_dataset(str(tmp_path / "a.zip"))
    assert packed.digest == open_dataset(str(path)).digest
    assert packed.factors is not None
    assert packed.factors["orientation"].tolist() == factor_indices(range(0, COUNT, 40_000))[:, 2].tolist()


def test_the_dsprites_command_draws_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(0, COUNT, 20_000)
    originals = official(tmp_path / "originals.npz", rows)
    small = open_dataset(str(originals))
    monkeypatch.setattr(dsprites, "Regenerated", lambda: small)
    result = run("data", "dsprites", "--regenerate", tmp_path / "a.zip", "--check", originals)
    assert result.exit_code == 0, result.output
    assert "heart: 0.00 wrong pixels a frame" in result.output
    for arguments in (["--regenerate", "a", "b"], ["a"]):
        result = run("data", "dsprites", *arguments)
        assert result.exit_code != 0
        assert "DEST.zip" in result.output


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"imgs": np.full((3, 64, 64), 7, np.uint8)}, "imgs holds values other than 0 and 1"),
        ({"imgs": np.zeros((3, 64, 64), np.float32)}, r"imgs is float32 \(3, 64, 64\), not bytes"),
        ({"imgs": np.zeros((3, 60, 64), np.uint8)}, r"not bytes \[N, 64, 64\]"),
        (
            {"latents_classes": np.zeros((2, 6), np.int64)},
            r"latents_classes is int64 \(2, 6\), not int64 \(3, 6\)",
        ),
        ({"latents_classes": np.array([{}] * 3)}, "damaged, or not dSprites' file"),
    ],
)
def test_a_file_that_is_not_dsprites_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = official(tmp_path / "a.npz", np.arange(3), **changed)
    with pytest.raises(DataError, match=message):
        open_dataset(str(path))


def test_a_damaged_npz_is_named(tmp_path: Path) -> None:
    path = official(tmp_path / "a.npz", np.arange(3))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="download dsprites_ndarray"):
        open_dataset(str(path))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("readme.npy", b"")
    with pytest.raises(DataError, match=r"not dSprites' file: .*imgs"):
        open_dataset(str(tmp_path / "b.npz"))


# ---- Color MNIST


def mnist(folder: Path, count: int = 60) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
        array = rng.integers(0, 256, shape, dtype=np.uint8) if len(shape) == 3 else np.arange(count) % 10
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *shape)
        (folder / f"train-{kind}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())
    return folder


def test_a_digit_is_a_mixture_of_two_colours() -> None:
    ink = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    for front, ground in ((0, 0), (3, 7), (9, 1)):
        image = colour(ink, np.array([front]), np.array([ground]))[0].reshape(3, 256)
        share = np.arange(256) / 255
        exact = share * FOREGROUND[front][:, None] + (1 - share) * BACKGROUND[ground][:, None].astype(float)
        assert np.abs(image - exact).max() <= 0.5 + 1e-9
        assert np.array_equal(image[:, 0], BACKGROUND[ground])
        assert np.array_equal(image[:, 255], FOREGROUND[front])


def test_colours_are_told_apart_and_are_lighter_than_any_ground() -> None:
    both = np.concatenate([FOREGROUND, BACKGROUND]).astype(int)
    distances = np.abs(both[:, None] - both[None]).sum(axis=2) + 999 * np.eye(20, dtype=int)
    assert distances.min() >= 30
    luma = np.array([0.299, 0.587, 0.114])
    assert (FOREGROUND.max(axis=1) == 255).all()
    assert (BACKGROUND.max(axis=1) == 102).all()
    assert (FOREGROUND @ luma).min() > (BACKGROUND @ luma).max()


def test_colours_are_independent_of_each_other_and_the_same_on_every_machine() -> None:
    foreground, background = colourings(60_000, 0)
    table = np.histogram2d(foreground, background, bins=10)[0]
    assert ((table - 600) ** 2 / 600).sum() < 148  # the 99.9 % point of chi square with 99 degrees of freedom
    assert colourings(6, 0)[0].tolist() == foreground[:6].tolist()
    assert np.stack(colourings(4, 1)).tolist() == [[0, 8, 7, 3], [5, 0, 0, 4]]


def test_color_mnist_is_made_from_the_files_of_mnist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it is made from MNIST's four files"):
        open_dataset("color-mnist")
    folder = mnist(tmp_path / "here/data/mnist")
    dataset = open_dataset("color-mnist")
    gray = open_dataset(str(folder))
    assert (dataset.name, dataset.channels, dataset.resolution, len(dataset)) == ("color-mnist", 3, 32, 60)
    assert dataset.factors is not None
    assert list(dataset.factors) == ["digit", "foreground", "background"]
    assert np.array_equal(dataset.factors["digit"], gray.labels)
    expected = colour(gray.images(range(60)), dataset.factors["foreground"], dataset.factors["background"])
    assert np.array_equal(dataset.images(range(60)), expected)
    result = run("data", "color-mnist", folder, tmp_path / "a.zip")
    assert result.exit_code == 0, result.output
    packed = open_dataset(str(tmp_path / "a.zip"))
    assert packed.digest == dataset.digest
    assert packed.factors is not None
    assert np.array_equal(packed.factors["background"], dataset.factors["background"])
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="Color MNIST needs the labels"):
        open_dataset("color-mnist")


def test_fashion_mnist_has_its_garments_whatever_the_folder_is_called(tmp_path: Path) -> None:
    result = run("data", "fashion-mnist", mnist(tmp_path / "files"), tmp_path / "a.zip")
    assert result.exit_code == 0, result.output
    assert open_dataset(str(tmp_path / "a.zip")).label_names[:2] == ("T-shirt/top", "Trouser")  # type: ignore[index]


# ---- 3D Shapes


def shapes_h5(path: Path, count: int = 24, **changed: Any) -> Path:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install '.[data]'")
    rng = np.random.default_rng(0)
    values = np.stack(
        [np.arange(count) % 10 / 10, np.arange(count) % 5 / 10, np.arange(count) % 2 / 10,
         0.75 + np.arange(count) % 3 / 14, np.arange(count) % 4, np.arange(count) % 15 * 4.0 - 30], axis=1
    )  # fmt: skip
    with h5py.File(path, "w") as file:
        images = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        file.create_dataset("images", data=changed.get("images", images), compression="gzip")
        file.create_dataset("labels", data=changed.get("labels", values))
    return path


def test_the_official_h5_opens_packs_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shapes_h5(tmp_path / "3dshapes.h5")
    dataset = open_dataset(str(path))
    assert (len(dataset), dataset.resolution, dataset.channels) == (24, 64, 3)
    assert dataset.factors is not None
    assert tuple(dataset.factors) == SHAPES3D_FACTORS
    assert dataset.factors["orientation"].tolist() == [i % 15 for i in range(24)]
    assert dataset.label_names == ("cube", "cylinder", "sphere", "capsule")
    first = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    assert np.array_equal(dataset.images([5, 0, 5, -1]), first[[5, 0, 5, -1]])
    assert np.array_equal(dataset.images(range(3, 9)), first[3:9])
    assert dataset.images([]).shape == (0, 3, 64, 64)
    result = run("data", "shapes3d", tmp_path, tmp_path / "shapes3d.zip")
    assert result.exit_code == 0, result.output
    packed = open_dataset(str(tmp_path / "shapes3d.zip"))
    assert packed.digest == dataset.digest
    for resolution in (8, 64):
        here, there = (BatchStream(form, 1).batch(7, 20, resolution)[0] for form in (dataset, packed))
        assert torch.equal(here, there)
    with pytest.raises(DataError, match=r"data shapes3d 3dshapes.h5 data/shapes3d.zip"):
        open_dataset("shapes3d")
    (tmp_path / "here/data").mkdir()
    path.rename(tmp_path / "here/data/3dshapes.h5")
    assert open_dataset("shapes3d").digest == dataset.digest


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": np.zeros((4, 64, 32, 3), np.uint8)}, r"images is uint8 \(4, 64, 32, 3\)"),
        ({"images": np.zeros((4, 64, 64, 3), np.float32)}, "images is float32"),
        ({"labels": np.zeros((4, 5))}, r"labels has shape \(4, 5\), not \(24, 6\)"),
    ],
)
def test_another_h5_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(str(shapes_h5(tmp_path / "a.h5", **changed)))


def test_a_file_that_is_no_h5_and_a_missing_h5py_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.h5").write_bytes(b"junk")
    pytest.importorskip("h5py", reason="h5py is not installed: pip install '.[data]'")
    with pytest.raises(DataError, match=r"a.h5: damaged, or not 3D Shapes' file"):
        open_dataset(str(tmp_path / "a.h5"))
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(DataError, match=r"h5py is missing; pip install '\.\[data\]'"):
        open_dataset(str(tmp_path / "a.h5"))


# ---- worlds to draw from


def worlds(tmp_path: Path) -> dict[str, Any]:
    gray = open_dataset(str(mnist(tmp_path / "digits", 3000)))
    assert isinstance(gray, ArrayDataset)
    return {
        "dsprites": DspritesSource(),
        "color-mnist": ColorMnistSource(gray),
        "fundus": FundusSource(8),
        "lookup": LookupSource(colour_mnist(gray)),
    }


@pytest.mark.parametrize("name", ["dsprites", "color-mnist", "fundus", "lookup"])
def test_a_world_draws_holds_factors_fixed_and_gives_images(tmp_path: Path, name: str) -> None:
    world = worlds(tmp_path)[name]
    assert isinstance(world, FactorSource)
    sizes = list(world.factor_sizes.values())
    drawn = world.draw(300, np.random.default_rng(0))
    assert drawn.dtype == np.int64
    assert drawn.shape == (300, len(sizes))
    assert (drawn >= 0).all()
    assert (drawn < sizes).all()
    assert np.array_equal(drawn, world.draw(300, np.random.default_rng(0)))
    for column, factor in enumerate(world.factor_sizes):
        value = int(drawn[0, column])
        held = world.draw(20, np.random.default_rng(1), {factor: value})
        assert (held[:, column] == value).all()
        others = [k for k in range(len(sizes)) if k != column]
        assert all(len(np.unique(held[:, k])) > 1 for k in others)
    images = world.images(drawn[:12])
    assert images.dtype == np.uint8
    assert images.shape[0] == 12
    assert images.shape[1] in (1, 3)
    with pytest.raises(ValueError, match="no factor 'height'"):
        world.draw(1, np.random.default_rng(0), {"height": 0})
    factor = next(iter(world.factor_sizes))
    with pytest.raises(ValueError, match=f"{factor} takes the values 0 to"):
        world.draw(1, np.random.default_rng(0), {factor: 99})


def test_dsprites_gives_the_frame_that_has_the_factors() -> None:
    rows = np.random.default_rng(4).integers(0, COUNT, 50)
    dataset = open_dataset("dsprites")
    assert dataset.factors is not None
    factors = np.stack([values[rows] for values in dataset.factors.values()], axis=1)
    assert np.array_equal(DspritesSource().images(factors), dataset.images(rows))


def test_a_digit_drawn_by_factor_has_the_class_and_the_colours(tmp_path: Path) -> None:
    gray = open_dataset(str(mnist(tmp_path / "digits")))
    assert isinstance(gray, ArrayDataset)
    assert gray.labels is not None
    world = ColorMnistSource(gray)
    image = world.images(np.array([[4, 2, 8]] * 20))
    fours = colour(gray.array[gray.labels == 4], np.full(6, 2), np.full(6, 8))
    matches = [[np.array_equal(one, four) for four in fours] for one in image]
    assert all(any(row) for row in matches)
    assert np.array(matches).any(axis=0).sum() > 2  # nuisance is drawn anew


def test_a_retina_drawn_by_factor_is_the_renderers_at_the_middle_of_each_interval() -> None:
    world = FundusSource(16, seed=5)
    assert world.factor_sizes == {
        "pigmentation": BINS, "brightness": BINS, "glare": 2, "eye_side": 2, "field_of_view": 3,
        "cup_size": BINS, "vessel_calibre": BINS, "dr_grade": 5,
    }  # fmt: skip
    assert world.value("cup_size", 0) == pytest.approx(0.2 + 0.6 * 0.05)
    assert world.value("vessel_calibre", 9) == pytest.approx(1.4 - 0.7 * 0.05)
    assert world.value("dr_grade", 4) == 4
    factors = np.array([[0, 9, 1, 0, 2, 5, 5, 3]] * 2)
    images = world.images(factors)
    values = {name: world.value(name, int(k)) for name, k in zip(world.factor_sizes, factors[0])}
    for index in range(2):
        expected = fundus.render(values, 16, seed=5, index=index).transpose(2, 0, 1)
        assert np.array_equal(images[index], expected)
    assert not np.array_equal(images[0], images[1])
    glare = world.draw(2000, np.random.default_rng(0))[:, 2]
    assert 0.26 < glare.mean() < 0.34  # as in the data set: 0.3


def test_looking_up_gives_images_that_have_the_factors(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1).repeat(8, 2).repeat(8, 3)
    factors = {"shade": np.arange(12) // 6, "place": np.array([0.5, 1.5, 9.0] * 4)}
    world = LookupSource(ArrayDataset("made", array, factors=factors))
    assert world.factor_sizes == {"shade": 2, "place": 3}
    got = {int(world.images(np.array([[1, 2]]))[0, 0, 0, 0]) for _ in range(40)}
    assert got == {8, 11}
    with pytest.raises(DataError, match="made: no image has shade 0, place 5"):
        world.images(np.array([[0, 5]]))
    lone = LookupSource(ArrayDataset("made", array[:4], factors={"a": np.arange(4), "b": np.arange(4)}))
    with pytest.raises(DataError, match="made: no image has a 0, b 3"):
        lone.draw(1, np.random.default_rng(0), {"a": 0, "b": 3})
    with pytest.raises(DataError, match="made: its factors are not known"):
        LookupSource(ArrayDataset("made", array))


@given(values=st.lists(st.floats(-5, 7, allow_nan=False), min_size=60, max_size=200, unique=True))
@settings(max_examples=30, deadline=None)
def test_continuous_factors_are_cut_into_intervals_of_equal_width(values: list[float]) -> None:
    array = np.array(values)
    index = discretise(array)
    assert index.min() == 0
    assert index.max() == BINS - 1
    width = (array.max() - array.min()) / BINS
    assert (np.abs(array - (array.min() + (index + 0.5) * width)) <= width * (0.5 + 1e-9)).all()


def test_few_values_are_numbered_in_their_order() -> None:
    assert discretise(np.array([0.7, 0.5, 0.7, 1.0])).tolist() == [1, 0, 1, 2]
    assert discretise(np.array([7, 3, 900])).tolist() == [1, 0, 2]


def test_worlds_open_by_name(tmp_path: Path) -> None:
    assert isinstance(open_factors("dsprites"), DspritesSource)
    assert isinstance(open_factors("fundus", resolution=8), FundusSource)
    mnist(tmp_path / "here/data/mnist")
    assert isinstance(open_factors("color-mnist"), ColorMnistSource)
    run("data", "color-mnist", tmp_path / "here/data/mnist", tmp_path / "a.zip")
    assert isinstance(open_factors(str(tmp_path / "a.zip")), LookupSource)
    with pytest.raises(DataError, match="its factors are not known"):
        open_factors(str(tmp_path / "here/data/mnist"))


def test_sets_made_from_factors_open_too_large_for_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mnist(tmp_path / "here/data/mnist")
    run("data", "color-mnist", tmp_path / "here/data/mnist", tmp_path / "a.zip")
    plain = BatchStream(open_dataset(str(tmp_path / "a.zip")), 0).batch(0, 30, 16)[0]
    monkeypatch.setattr(loading, "RAM_LIMIT", 0)
    assert torch.equal(BatchStream(open_dataset(str(tmp_path / "a.zip")), 0).batch(0, 30, 16)[0], plain)
