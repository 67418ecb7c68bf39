"""Facts about generate, traverse and walk as commands: files, names, and one clear line for a mistake."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from infostylegan import Generator
from infostylegan.__main__ import main
from infostylegan.export import save_snapshot
from infostylegan.render.latents import parse_seeds, parse_settings, seeded_latents


@pytest.fixture(scope="module", name="G")
def _generator():
    torch.manual_seed(0)
    small = {"latent_dim": 16, "fmap_base": 64, "fmap_max": 8, "mapping_layers": 2, "mapping_lr": 1.0}
    G = Generator(8, "cat:3,bern:1,unif:2", labels=2, **small)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return G.eval().requires_grad_(False)


@pytest.fixture
def run(tmp_path, monkeypatch, G):
    monkeypatch.chdir(tmp_path)
    content = {"G_ema": G, "code_names": {"unif1": "Pigment", "bern0": "eye"}}
    save_snapshot("s.pkl", content)
    direct = Generator(8, "cat:3", styles=False, latent_dim=16, fmap_base=64, fmap_max=8)
    save_snapshot("direct.pkl", {"G_ema": direct})
    save_snapshot("plain.pkl", {"G_ema": Generator(8, "none", latent_dim=16, fmap_base=64, fmap_max=8)})

    def invoke(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return invoke


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_generate_writes_a_png_a_seed_and_a_sheet_and_codes_by_their_given_names(run, tmp_path, G):
    told = run("generate", "s.pkl", "--seeds", "0-2,7", "--codes", "cat0=2,pigment=0.5", "--psi", 0.7)
    assert told.exit_code == 0, told.output
    out = tmp_path / "generated"
    pictures = ["seed0000.png", "seed0001.png", "seed0002.png", "seed0007.png"]
    assert sorted(p.name for p in out.iterdir()) == [*pictures, "sheet.png"]
    z, c, label = seeded_latents(G, [7])
    c[0, 0], c[0, 3] = 2.0, 0.5
    image = G(z, c, label, 0.7, noise="const")[0].add(1).mul(127.5).round().clamp(0, 255)
    assert np.abs(pixels(out / "seed0007.png") - image.permute(1, 2, 0).numpy()).max() <= 1
    about = json.loads(Image.open(out / "seed0007.png").text["infostylegan"])
    assert about["seed"] == 7
    assert about["codes"] == dict(zip(G.codes.names, c[0].tolist()))


def test_a_seed_gives_the_same_image_in_any_company_and_batch(run, tmp_path):
    run("generate", "s.pkl", "--seeds", "3", "--outdir", "a", "--label", 1)
    run("generate", "s.pkl", "--seeds", "0-9", "--outdir", "b", "--label", 1, "--batch", 4, "--no-sheet")
    assert np.abs(pixels("a/seed0003.png") - pixels("b/seed0003.png")).max() <= 1
    run("generate", "s.pkl", "--seeds", "3", "--outdir", "c", "--label", 0)
    assert np.abs(pixels("a/seed0003.png") - pixels("c/seed0003.png")).max() > 1
    assert not (tmp_path / "b" / "sheet.png").exists()


def test_traverse_draws_all_codes_or_one_or_two_as_a_grid(run, tmp_path):
    told = run("traverse", "s.pkl", "--seeds", "0-1")
    assert told.exit_code == 0, told.output
    out = tmp_path / "traversals"
    assert {p.name for p in out.iterdir()} == {
        f"traverse-{c}.png" for c in ("cat0", "bern0", "unif0", "unif1")
    }
    assert "unif1 (Pigment)" in told.output
    told = run("traverse", "s.pkl", "pigment", "cat0", "--seeds", "5", "--steps", 4, "--outdir", "grid")
    assert told.exit_code == 0, told.output
    sheet = Image.open("grid/traverse-unif1-cat0-seed0005.png")
    one = Image.open(out / "traverse-cat0.png")
    assert sheet.height > 4 * 48  # four values down, three across
    assert abs(sheet.width - one.width) < 3 * 48


def test_a_grid_holds_each_pair_of_values_in_its_place(G):
    from infostylegan.render.traversal import traverse_pair

    latents = seeded_latents(G, [5])
    images, down, across = traverse_pair(G, 3, 0, latents, steps=4)
    assert len(images) == 12
    assert down.tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])
    assert across.tolist() == [0, 1, 2]
    z, c, label = latents
    for row in range(4):
        for column in range(3):
            c[0, 3], c[0, 0] = down[row], across[column]
            torch.testing.assert_close(images[3 * row + column], G(z, c, label, noise="const")[0])


@pytest.mark.parametrize("name", ["w.webp", "w.gif", "w.mp4"])
def test_walk_writes_a_film_of_the_length_and_size_asked_for(run, tmp_path, name):
    if name.endswith("mp4"):
        pytest.importorskip("av", reason="PyAV (extra video) is not installed")
    options = ["--seconds", 0.5, "--fps", 10, "--size", 16, "--samples", 3, "--columns", 3, "--out", name]
    told = run("walk", "s.pkl", "--codes", "pigment=sweep,cat0=fade,eye=1", "--psi", 0.7, *options)
    assert told.exit_code == 0, told.output
    assert "5 frames of 48x16, 0.5 s" in told.output
    if not name.endswith("mp4"):
        film = Image.open(name)
        assert (film.n_frames, film.size) == (5, (48, 16))
    told = run("walk", "s.pkl", "--codes", "all=sweep", "--in-turn", "--keys", 1, *options)
    assert told.exit_code == 0, told.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["generate", "none.pkl"], "no such file"),
     (["generate", "s.pkl", "--seeds", "3-1"], "backwards"),
     (["generate", "s.pkl", "--seeds", "a"], "cannot read 'a'"),
     (["generate", "s.pkl", "--codes", "unif9=1"], "unif9"),
     (["generate", "s.pkl", "--codes", "cat0=3"], "0 to 2"),
     (["generate", "s.pkl", "--codes", "cat0=inf"], "0 to 2"),
     (["generate", "s.pkl", "--codes", "bern0=0.5"], "0 to 1"),
     (["generate", "s.pkl", "--codes", "cat0"], "name=value"),
     (["generate", "s.pkl", "--codes", "unif0=nan"], "-1 to 1"),
     (["generate", "s.pkl", "--label", "2"], "0 to 1"),
     (["generate", "s.pkl", "--psi", "-1"], "0 … 2"),
     (["generate", "direct.pkl", "--psi", "0.5"], "no styles"),
     (["generate", "s.pkl", "--outdir", "s.pkl"], "s.pkl"),
     (["traverse", "plain.pkl"], "no codes"),
     (["traverse", "s.pkl", "cat0", "cat0"], "itself"),
     (["traverse", "s.pkl", "cat0", "bern0", "unif0"], "3 codes"),
     (["traverse", "s.pkl", "hue"], "hue"),
     (["walk", "s.pkl", "--out", "w.avi"], ".webp"),
     (["walk", "s.pkl", "--seconds", "0"], "above 0"),
     (["walk", "s.pkl", "--codes", "unif0=wobble"], "sweep"),
     (["walk", "s.pkl", "--codes", "all=1"], "all=1"),
     (["walk", "s.pkl", "--seeds", "1,2,3", "--samples", "2"], "equally many")],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_it_and_nothing_is_written(run, tmp_path, arguments, words):
    told = run(*arguments)
    assert told.exit_code == 2
    assert told.output.startswith("Error: ")
    assert words in told.output
    assert len(told.output.strip().splitlines()) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"s.pkl", "direct.pkl", "plain.pkl"}


def test_seeds_and_settings_are_read_as_written(G):
    assert parse_seeds("0-3, 9,7-7") == [0, 1, 2, 3, 9, 7]
    found = parse_settings("cat0=1, unif1=-0.5", G.codes)
    assert found == {"cat0": 1.0, "unif1": -0.5}
    assert parse_settings("", G.codes) == {}
    names = {"unif0": "a=b"}
    assert parse_settings("a=b=0.5", G.codes, names) == {"unif0": 0.5}
