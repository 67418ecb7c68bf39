"""Facts about a rating study: what is rendered, what is kept, what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from infostylegan import Generator
from infostylegan.export import save_generator
from metrics.errors import MetricError
from metrics.study import APART, Rated, Study


def tiny(seed=0, codes="cat:3,bern:1,unif:2"):
    torch.manual_seed(seed)
    return Generator(16, codes, latent_dim=16, fmap_base=64, fmap_max=8).eval()


@pytest.fixture(scope="module")
def rated():
    return Rated(tiny(), "unif1", "one", "d1")


@pytest.fixture(scope="module")
def blueprint(rated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "melanin"
    Study.create(folder, [rated], attribute="melanin", samples=20, controls=0.2, repeats=0.15)
    return folder


@pytest.fixture
def study(blueprint, tmp_path):
    """A study of one model, without votes."""
    import shutil

    return Study.open(shutil.copytree(blueprint, tmp_path / "melanin"))


def of_kind(study, kind):
    return [name for name, item in study.items.items() if item.kind == kind]


def pixels(study, name):
    return np.asarray(Image.open(study.image(name)).convert("RGB")).astype(int)


def test_a_study_has_its_samples_its_controls_and_its_repeats(study):
    counts = [len(of_kind(study, kind)) for kind in ("sample", "still", "other", "repeat")]
    assert counts == [20, 2, 2, 3]
    assert all(study.image(name).is_file() for name in study.items)
    assert study.models[0].digest == "d1"
    assert study.question == "Does melanin change consistently along this row?"


def test_along_a_sample_the_code_moves_and_along_a_still_row_nothing_does(study):
    def movement(name):
        row = pixels(study, name)
        cells = [row[2:98, 2 + 98 * i : 98 + 98 * i] for i in range(8)]
        return max(np.abs(cell - cells[0]).max() for cell in cells)

    assert row_size(study) == (2 + 8 * 98, 2 + 98)
    assert min(map(movement, of_kind(study, "sample"))) > 0
    assert max(map(movement, of_kind(study, "still"))) == 0
    assert min(map(movement, of_kind(study, "other"))) > 0


def row_size(study):
    sizes = {Image.open(study.image(name)).size for name in study.items}
    assert len(sizes) == 1, "a row's size must not tell what it is"
    return sizes.pop()


def test_a_repeat_shows_the_very_row_that_it_repeats(study):
    for name in of_kind(study, "repeat"):
        original = study.items[name].of
        assert study.items[original].kind == "sample"
        assert study.image(name).read_bytes() == study.image(original).read_bytes()


def test_a_row_can_be_drawn_again_from_its_seed(rated, study):
    from infostylegan.render.grids import image_grid
    from infostylegan.render.latents import seeded_latents
    from infostylegan.render.traversal import traverse

    for name in of_kind(study, "sample")[:3]:
        images, _ = traverse(rated.G, 3, latents=seeded_latents(rated.G, [study.items[name].seed]))
        assert np.array_equal(
            np.asarray(image_grid(images, 8, min_cell=96)), np.asarray(Image.open(study.image(name)))
        )
    seeds = [item.seed for item in study.items.values() if item.kind != "repeat"]
    assert len(set(seeds)) == len(seeds)


def test_names_of_items_do_not_tell_their_kind(study):
    kinds = [study.items[name].kind for name in sorted(study.items)]
    assert kinds != sorted(kinds)
    assert kinds[:20] != ["sample"] * 20


def test_every_rater_has_an_order_of_their_own_and_always_the_same(study):
    order = study.order("anna")
    assert sorted(order) == sorted(study.items)
    assert order == Study.open(study.folder).order("anna")
    assert order != study.order("bert")
    for name in of_kind(study, "repeat"):
        assert abs(order.index(name) - order.index(study.items[name].of)) >= APART


def test_the_same_seed_renders_the_same_rows_and_another_others(rated, study, tmp_path):
    options = {"attribute": "melanin", "samples": 3, "controls": 0.0, "repeats": 0.0}
    a, b, c = (
        Study.create(tmp_path / str(i), [rated], seed=seed, **options) for i, seed in enumerate((0, 0, 1))
    )
    rows = [{item.sha256 for item in s.items.values()} for s in (a, b, c)]
    assert rows[0] == rows[1]
    assert rows[0].isdisjoint(rows[2])


def test_votes_are_appended_and_the_last_one_counts(study):
    first, second = study.order("anna")[:2]
    study.vote("anna", first, True)
    study.vote("anna", second, True)
    study.vote("anna", first, False)
    study.vote("anna", second, None)
    assert Study.open(study.folder).votes("anna") == {first: False}
    lines = study.ratings("anna").read_text().splitlines()
    assert [json.loads(line)["vote"] for line in lines] == [True, True, False, None]
    assert all(json.loads(line)["study"] == study.digest for line in lines)


def vote_all(study, rater, answer):
    for name, item in study.items.items():
        study.vote(rater, name, answer(name, item))


def test_the_score_counts_samples_only_and_reports_the_rest_beside_it(study):
    samples = of_kind(study, "sample")
    yes = set(samples[:15])

    def honest(name, item):
        return (item.of or name) in yes

    def sleepy(name, item):
        return True

    vote_all(study, "anna", honest)
    vote_all(study, "bert", sleepy)
    score = study.score()
    model = score.models[0]
    assert model.raters["anna"].value == 0.75
    assert model.raters["bert"].value == 1.0
    assert model.acm.value == score.value == pytest.approx((0.75 + 1) / 2)
    assert model.acm.n == 20
    assert score.raters["anna"].still.value == 0
    assert score.raters["bert"].still.value == 1
    assert score.raters["anna"].consistency.value == score.raters["bert"].consistency.value == 1
    assert model.cohen.observed == model.fleiss.observed == model.ac1.observed == 0.75


def test_a_study_nobody_has_rated_has_no_score_and_one_rater_has_no_agreement(study):
    assert study.score().value is None
    study.vote("anna", of_kind(study, "sample")[0], True)
    model = study.score().models[0]
    assert model.acm.n == 1
    assert model.fleiss is model.cohen is model.ac1 is None


def test_several_models_are_mixed_in_one_study_and_scored_apart(rated, tmp_path):
    other = Rated(tiny(1), "bern0", "two", "d2")
    study = Study.create(tmp_path / "s", [rated, other], attribute="glare", samples=4)
    vote_all(study, "anna", lambda name, item: item.model == 1)
    assert [score.acm.value for score in study.score().models] == [0.0, 1.0]
    assert [score.model.code for score in study.score().models] == ["unif1", "bern0"]


def test_a_generator_with_one_code_has_still_controls_only(tmp_path):
    rated = Rated(tiny(codes="unif:1"), "unif0", "m", "d")
    study = Study.create(tmp_path / "s", [rated], attribute="hue", samples=5, controls=0.4)
    assert (len(of_kind(study, "still")), len(of_kind(study, "other"))) == (2, 0)


def test_a_snapshot_is_rated_by_the_name_of_a_code_or_by_what_people_call_it(tmp_path):
    path = tmp_path / "network-snapshot-000001.pkl"
    save_generator(path, tiny(), code_names={"unif1": "melanin"})
    assert Rated.load(path, "melanin").code == Rated.load(path, "unif1").code == "unif1"
    with pytest.raises(
        MetricError, match=r"no code is called 'unif7'; this generator has cat0, bern0, unif0, unif1"
    ):
        Rated.load(path, "unif7")


def test_a_study_is_never_overwritten(rated, study):
    with pytest.raises(MetricError, match="holds a study already"):
        Study.create(study.folder, [rated], attribute="melanin", samples=1)


def test_votes_of_another_model_are_refused(rated, study, tmp_path):
    rival = Rated(rated.G, "unif1", "one", "d2")
    twin = Study.create(
        tmp_path / "twin", [rival], attribute="melanin", samples=20, controls=0.2, repeats=0.15
    )
    twin.vote("anna", next(iter(twin.items)), True)
    study.ratings("anna").write_bytes(twin.ratings("anna").read_bytes())
    with pytest.raises(
        MetricError, match=r"anna\.jsonl, vote 1: was given to another study .* another model"
    ):
        study.score()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"study": "DIGEST", "item": "ITEM", "vote": "maybe"}',
            "vote 1: 'maybe' is no vote; write true, false",
        ),
        ('{"study": "DIGEST", "item": "ITEM", "vote": 1}', "vote 1: 1 is no vote"),
        ('{"study": "DIGEST", "item": "ITEM"}', "vote 1: 'missing' is no vote"),
        ('{"study": "DIGEST", "item": "r9999", "vote": true}', "item 'r9999', which the study does not have"),
        ("yes, it did", "line 1 is not JSON"),
        ("[true]", "line 1 is not a JSON object"),
        ('{"item": "ITEM", "vote": true}', "another study"),
    ],
)
def test_votes_that_do_not_parse_are_named_by_file_and_line(study, line, message):
    text = line.replace("DIGEST", study.digest).replace("ITEM", next(iter(study.items)))
    study.ratings("anna").write_text(text + "\n")
    with pytest.raises(MetricError, match=message) as error:
        study.votes("anna")
    assert "anna.jsonl" in str(error.value)


def test_ratings_made_elsewhere_are_taken_in_once(study, tmp_path):
    a, b = list(study.items)[:2]
    away = tmp_path / "clara.jsonl"
    record = {"study": study.digest, "item": a, "vote": True, "time": "2026-01-01T00:00:00Z"}
    away.write_text("".join(json.dumps({**record, "item": name}) + "\n" for name in (a, b)))
    assert study.add_ratings(away) == study.add_ratings(away) == "clara"
    assert len(study.ratings("clara").read_text().splitlines()) == 2
    assert study.votes("clara") == {a: True, b: True}


def test_bad_ratings_made_elsewhere_leave_the_study_as_it_is(study, tmp_path):
    away = tmp_path / "clara.jsonl"
    away.write_text('{"study": "x", "item": "r0001", "vote": true}\n')
    with pytest.raises(MetricError, match="another study"):
        study.add_ratings(away)
    assert study.raters() == []


@pytest.mark.parametrize("rater", ["", "../anna", "a/b", ".hidden", "x" * 65])
def test_a_raters_name_is_never_a_path(study, rater):
    with pytest.raises(MetricError, match="use letters, digits"):
        study.vote(rater, next(iter(study.items)), True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no study"),
        ("{", "is no study, or damaged"),
        ('{"format": 9}', "format 9"),
        ("[]", "damaged"),
    ],
)
def test_what_is_no_study_is_said_to_be_none(tmp_path, content, message):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(MetricError, match=message):
        Study.open(tmp_path)


@pytest.mark.parametrize("odd", [5, ["x"], "x", {"unif0": 5}], ids=str)
def test_names_in_a_snapshot_that_are_none_do_not_matter(tmp_path, odd):
    G = Generator(8, "unif:1", latent_dim=8, fmap_base=64, fmap_max=8)
    save_generator(tmp_path / "a.pkl", G, code_names=odd)
    assert Rated.load(tmp_path / "a.pkl", "unif0").code == "unif0"
