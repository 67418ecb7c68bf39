"""Facts about `project`: a photograph goes in, latents, a film and pictures come out."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from infostylegan import Discriminator, Generator
from infostylegan.__main__ import main
from infostylegan.export import load_generator, save_snapshot
from infostylegan.projection import load_projection

TINY = {"fmap_base": 64, "fmap_max": 8}
CODES = "cat:3,unif:1"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with snapshots and photographs."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("places")
    names = {"unif0": "pigmentation"}
    for channels in (1, 3):
        G = Generator(16, CODES, latent_dim=16, mapping_layers=2, channels=channels, **TINY)
        D = Discriminator(16, CODES, channels=channels, **TINY)
        save_snapshot(folder / f"{channels}.pkl", {"G_ema": G, "D": D, "code_names": names})
        save_snapshot(folder / f"{channels}-alone.pkl", {"G_ema": G})
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(folder / "photo.jpg")
    Image.fromarray(pixels[:, :, 0]).save(folder / "gray.png")
    Image.fromarray(pixels[:8, :8]).save(folder / "small.png")
    (folder / "text.png").write_text("no image")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["project", *map(str, arguments)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("photo", ["photo.jpg", "gray.png"])
def test_a_photograph_becomes_latents_a_film_and_a_strip(places, tmp_path, channels, photo):
    snapshot, out = places / f"{channels}.pkl", tmp_path / "out"
    result = run(places / photo, snapshot, "--steps", 6, "--set", "pigmentation=0.8,cat0=1", "--outdir", out)
    assert result.exit_code == 0, result.output
    made = {p.name for p in out.iterdir()}
    assert made == {
        "latents.npz", "latents.json", "optimisation.webp", "projection.png", "edit0.png", "strip.png",
        "codes.png",
    }  # fmt: skip
    assert "unif0 (pigmentation) = " in result.output
    with Image.open(out / "optimisation.webp") as film:
        assert film.n_frames > 6  # each step, and the last for a while
    told = json.loads((out / "latents.json").read_text())
    assert told["photograph"] == photo
    assert set(told["codes"]) == {"cat0", "unif0"}
    # Edited again from the latents alone, at once, to the same picture.
    again = tmp_path / "again"
    settings = ("--set", "unif0=0.8,cat0=1", "--no-sweep", "--outdir", again)
    assert run(out / "latents.npz", snapshot, *settings).exit_code == 0
    assert (again / "edit0.png").read_bytes() == (out / "edit0.png").read_bytes()
    assert not (again / "latents.npz").exists()
    assert not (again / "codes.png").exists()


def test_a_snapshot_without_a_discriminator_goes_by_pixels(places, tmp_path):
    result = run(places / "photo.jpg", places / "3-alone.pkl", "--steps", 4, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "dB" in result.output


def test_mistakes_get_one_line_and_leave_nothing(places, tmp_path):
    photo, snapshot = places / "photo.jpg", places / "3.pkl"
    for arguments, words in (
        ((places / "none.jpg", snapshot), "no such file"),
        ((places / "text.png", snapshot), "not an image"),
        ((places / "small.png", snapshot), "smaller than 16x16"),
        ((photo, snapshot, "--set", "unif0=2"), "a number from -1 to 1"),
        ((photo, snapshot, "--set", "glare=1"), "no code is called 'glare'"),
        ((photo, snapshot, "--label", 1), "without labels"),
        ((photo, snapshot, "--crop", "0,0,900,900"), "smaller than the crop"),
        ((places / "none.npz", snapshot), "no such file"),
        ((photo, places / "none.pkl"), "no such file"),
    ):
        out = tmp_path / "out"
        result = run(*arguments, "--steps", 2, "--outdir", out)
        assert result.exit_code == 2, (arguments, result.output)
        assert words in result.output
        assert "Traceback" not in result.output
        assert not out.exists()


def test_latents_of_another_generator_are_refused(places, tmp_path):
    assert run(places / "gray.png", places / "1.pkl", "--steps", 2, "--outdir", tmp_path).exit_code == 0
    result = run(tmp_path / "latents.npz", places / "3.pkl", "--outdir", tmp_path / "out")
    assert result.exit_code == 2
    assert "latents of another generator" in result.output
    assert load_projection(tmp_path / "latents.npz", load_generator(places / "1.pkl")).image.shape[1] == 1
