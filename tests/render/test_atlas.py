"""Facts about the code atlas: what it measures is what the codes do."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import spearmanr

from infostylegan import Discriminator, Generator
from infostylegan.__main__ import main
from infostylegan.codes import Bernoulli, Categorical, Uniform
from infostylegan.data import ArrayDataset
from infostylegan.export import save_snapshot
from infostylegan.losses import information
from infostylegan.render.atlas import atlas_record, survey
from infostylegan.render.atlas_pages import overview, page
from infostylegan.render.attributes import fit_probe, fit_probes, known_attributes
from infostylegan.render.statistics import STATISTICS, association, chance_level, measure_statistics

TINY = {"fmap_base": 64, "fmap_max": 8}
CODES = "cat:3,bern:1,unif:2"


class Painter(Generator):
    """unif0 is the light of the left half, cat0 the hue of the right one; bern0 and unif1 do nothing."""

    def forward(self, z, c, label=None, psi=1.0, *, truncation="codes", noise="random"):
        images = torch.zeros(len(c), 3, 16, 16) + 0.02 * z[:, :1, None, None]
        images[:, :, :, :8] += 0.5 * c[:, 2].view(-1, 1, 1, 1)
        hues = torch.eye(3)[c[:, 0].long()] - 0.5
        images[:, :, :, 8:] += hues.view(-1, 3, 1, 1)
        return images


@pytest.fixture(scope="module")
def painted():
    torch.manual_seed(0)
    G = Painter(16, CODES, latent_dim=16, **TINY).eval()
    return G, survey(G, None, samples=400, rows=3)


def picture(**parts):
    """One black 16 × 16 image with rectangles of white: name=(rows, columns)."""
    image = np.zeros((1, 1, 16, 16), dtype=np.uint8)
    for rows, columns in parts.values():
        image[0, 0, rows, columns] = 255
    return image


# ---- statistics ----------------------------------------------------------------------------------------


def test_statistics_say_what_their_names_say():
    def value(name, image):
        return float(STATISTICS[name](image)[0])

    whole, half = slice(None), slice(8, None)
    assert value("light to the right", picture(a=(whole, half))) == pytest.approx(8 / 15, abs=1e-6)
    assert value("light to the bottom", picture(a=(half, whole))) == pytest.approx(8 / 15, abs=1e-6)
    assert value("light to the right", picture(a=(whole, whole))) == pytest.approx(0, abs=1e-6)
    assert value("tallness", picture(a=(whole, slice(7, 9)))) > 1
    assert value("tallness", picture(a=(slice(7, 9), whole))) < -1
    assert value("size", picture(a=(whole, whole))) > 2 * value("size", picture(a=(half, half)))
    rising = picture(**{f"p{i}": (slice(15 - i, 16 - i), slice(i, i + 1)) for i in range(16)})
    assert value("slant", rising) == pytest.approx(1, abs=1e-5)
    assert value("slant", rising[..., ::-1].copy()) == pytest.approx(-1, abs=1e-5)
    middle = picture(a=(slice(4, 12), slice(4, 12)))
    assert value("light in the centre", middle) > 1 > 0 > value("light in the centre", 255 - middle)
    board = np.indices((16, 16)).sum(0)[None, None] % 2 * 255
    assert value("sharpness", board.astype(np.uint8)) > 5 * value("sharpness", picture(a=(whole, half)))
    assert value("saturation", middle) == 0
    red = np.zeros((1, 3, 4, 4), dtype=np.uint8)
    red[:, 0] = 255
    assert value("saturation", red) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_finite_on_any_image(channels):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (4, channels, 8, 8), dtype=np.uint8)
    images[0], images[1] = 0, 255
    for name, values in measure_statistics(images).items():
        assert values.shape == (4,), name
        assert np.isfinite(values).all(), name


def test_the_association_of_ordered_codes_is_spearmans():
    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, 200)
    for y in (x**3, -np.exp(x), x + draw.normal(0, 1, 200), draw.normal(0, 1, 200)):
        assert association(Uniform(), x, y) == pytest.approx(spearmanr(x, y).statistic)
    coin = (x > 0).astype(float)
    assert association(Bernoulli(), coin, x) == pytest.approx(spearmanr(coin, x).statistic)
    assert association(Uniform(), x, np.ones(200)) == 0


def test_the_association_of_categories_knows_no_order_and_forgives_chance():
    draw = np.random.default_rng(0)
    values = draw.integers(0, 4, 300).astype(float)
    code = Categorical(4)
    apart = np.array([2.0, 0.0, 3.0, 1.0])[values.astype(int)]
    assert association(code, values, apart) == pytest.approx(1)
    nothing = [association(code, values, draw.normal(size=300)) ** 2 for _ in range(50)]
    assert np.mean(nothing) < 0.01  # without the correction it would be 0.01 at the least: 3 / 299
    assert association(code, values, np.ones(300)) == 0


def test_chance_stays_below_its_level_in_nineteen_of_twenty_atlases():
    draw = np.random.default_rng(0)
    level = chance_level(200, 20)
    x = draw.normal(size=(200, 200, 1))
    y = draw.normal(size=(200, 200, 20))
    x, y = ((v - v.mean(1, keepdims=True)) / v.std(1, keepdims=True) for v in (x, y))
    beyond = (np.abs((x * y).mean(axis=1)) > level).any(axis=1).mean()
    assert 0.01 < beyond < 0.1


# ---- the survey ----------------------------------------------------------------------------------------


def test_each_code_goes_with_what_it_paints(painted):
    entries = {entry.code.name: entry for entry in painted[1].entries}
    first = entries["unif0"].suggestion
    assert first.what == "brightness"
    assert first.strength > 0.8
    assert entries["cat0"].suggestion is not None
    for idle in ("bern0", "unif1"):
        assert entries[idle].suggestion is None
        assert entries[idle].share == pytest.approx(0, abs=1e-9)


def test_the_map_shows_where_a_code_acts_and_how_far(painted):
    entries = {entry.code.name: entry for entry in painted[1].entries}
    light, hue = entries["unif0"].where, entries["cat0"].where
    assert light[:, 8:].max() < 1e-6
    assert hue[:, :8].max() < 1e-6
    # 0.5 · |value| over eight values from -1 to 1, on a range of 2.
    assert light[:, :8] == pytest.approx(
        np.full((16, 8), 0.25 * np.abs(np.linspace(-1, 1, 8)).mean()), rel=1e-4
    )


def test_the_shares_of_codes_that_add_up_are_shares_of_the_whole(painted):
    shares = {entry.code.name: entry.share for entry in painted[1].entries}
    # Variances: left 0.25 · Var(unif), right 2/9 in each channel; eight values spread wider than the prior.
    left, right = 0.25 / 3 / 2, 2 / 9 / 2
    assert shares["cat0"] == pytest.approx(right / (left + right), abs=0.05)
    assert shares["unif0"] == pytest.approx(9 / 7 * left / (left + right), abs=0.05)


def test_information_is_that_of_the_same_images_read_by_q():
    torch.manual_seed(0)
    G = Painter(16, CODES, latent_dim=16, **TINY).eval()
    D = Discriminator(16, CODES, **TINY).eval()
    found = survey(G, D, samples=64, rows=1, batch=7)
    z, c = G.sample_latents(64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told = information(G.codes, D.posterior(G(z, c)), c).mean(dim=0)
    for entry, value in zip(found.entries, told):
        assert entry.nats == pytest.approx(float(value), abs=1e-4)
        assert entry.interval[0] < entry.nats < entry.interval[1]


# ---- attributes ----------------------------------------------------------------------------------------


def test_the_ridge_is_sklearns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    from infostylegan.render.attributes import _ridge

    draw = np.random.default_rng(0)
    for n, f in ((50, 20), (20, 50)):
        x, y = draw.normal(size=(n, f)), draw.normal(size=n)
        model = linear_model.Ridge(alpha=10.0, fit_intercept=False).fit(x, y)
        assert _ridge(x, y, 10.0) == pytest.approx(model.coef_, abs=1e-8)


def test_a_probe_reads_what_features_tell_and_admits_what_they_do_not():
    draw = np.random.default_rng(0)
    features = draw.normal(size=(400, 30)) * 5 + 3
    held = np.arange(400) % 4 == 0
    target = features[:, 3] - 2 * features[:, 7] + draw.normal(size=400)
    probe = fit_probe(features, target, held)
    assert probe.readable
    assert probe.quality > 0.95
    assert probe(features)[held] == pytest.approx(target[held], abs=5)
    assert not fit_probe(features, draw.normal(size=400), held).readable


def test_patients_stay_on_one_side_of_the_split(monkeypatch):
    seen = []
    from infostylegan.render import attributes

    monkeypatch.setattr(attributes, "fit_probe", lambda f, t, held: seen.append(held))
    patients = np.repeat([f"p{i}" for i in range(20)], 2)
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    data = ArrayDataset("x", images, labels=np.arange(40) % 3, patients=patients)
    fit_probes(Discriminator(16, "none", **TINY).eval(), data)
    assert len(seen) == 3
    assert seen[0].sum() == 10
    assert (seen[0].reshape(20, 2).all(1) | ~seen[0].reshape(20, 2).any(1)).all()


def test_everything_known_of_the_images_is_an_attribute():
    images = np.zeros((6, 1, 8, 8), dtype=np.uint8)
    data = ArrayDataset(
        "x", images, labels=np.array([0, 1, 2] * 2), label_names=("none", "mild", "severe"),
        factors={"eye_side": np.arange(6)}, attributes={"glare": np.array([0, 1] * 3), "same": np.ones(6)},
    )  # fmt: skip
    known = known_attributes(data)
    assert set(known) == {"eye side", "glare", "class none", "class mild", "class severe"}
    assert known["class mild"].tolist() == [0, 1, 0, 0, 1, 0]
    two = known_attributes(ArrayDataset("x", images, labels=np.array([0, 1] * 3)))
    assert list(two) == ["class 1"]


# ---- pages and the command -----------------------------------------------------------------------------


def test_pages_are_drawn_for_every_kind_of_code_and_long_names(painted):
    _, atlas = painted
    names = {"unif0": "Größe der Papille, von klein bis groß gest", "cat0": "x"}
    sizes = [page(entry, atlas, names).size for entry in atlas.entries]
    assert all(800 < width < 2000 and 500 < height < 2000 for width, height in sizes)
    assert overview(atlas, names, "title").height > 4 * 64
    record = atlas_record(atlas, names)
    assert record["codes"]["cat0"]["name"] == "x"
    assert json.loads(json.dumps(record)) == json.loads(json.dumps(record, allow_nan=False))


def run(*arguments):
    return CliRunner().invoke(main, ["atlas", *map(str, arguments)])


def test_the_command_draws_a_page_a_code_from_a_snapshot_alone(tmp_path):
    torch.manual_seed(0)
    G, D = Generator(8, "bern:1,unif:1", latent_dim=8, **TINY), Discriminator(8, "bern:1,unif:1", **TINY)
    save_snapshot(tmp_path / "a.pkl", {"G_ema": G, "D": D, "code_names": {"unif0": "glare"}})
    result = run(tmp_path / "a.pkl", "--samples", 32, "--rows", 2, "--outdir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    made = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert made == ["atlas.json", "bern0.png", "overview.png", "unif0.png"]
    assert "unif0 (glare)" in result.output
    record = json.loads((tmp_path / "out/atlas.json").read_text())
    assert record["codes"]["bern0"]["ceiling"] == pytest.approx(np.log(2))


def test_what_cannot_be_drawn_is_said_in_one_line(tmp_path, make_images):
    G, D = Generator(8, "none", latent_dim=8, **TINY), Discriminator(8, "bern:1", **TINY)
    save_snapshot(tmp_path / "none.pkl", {"G_ema": G})
    save_snapshot(tmp_path / "alone.pkl", {"G_ema": Generator(8, "bern:1", latent_dim=8, **TINY)})
    save_snapshot(tmp_path / "both.pkl", {"G_ema": Generator(8, "bern:1", latent_dim=8, **TINY), "D": D})
    images = make_images(tmp_path / "images")
    for arguments, words in (
        ((tmp_path / "none.pkl",), "no codes"),
        ((tmp_path / "alone.pkl", "--data", images), "no discriminator"),
        ((tmp_path / "both.pkl", "--data", images), "knows no labels"),
    ):
        result = run(*arguments, "--outdir", tmp_path / "out")
        assert result.exit_code == 2
        assert words in result.output
    assert not (tmp_path / "out").exists()
