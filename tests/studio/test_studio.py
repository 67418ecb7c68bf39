"""Facts about what the studio draws, makes and remembers."""

import dataclasses
import io
import json
import threading
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from infostylegan.export import load_generator
from infostylegan.render.grids import to_uint8
from infostylegan.render.latents import seeded_latents
from infostylegan.studio import server, studies
from infostylegan.studio.jobs import KEPT, Busy, FairLock, Jobs
from infostylegan.studio.model import Model
from infostylegan.studio.security import Access
from metrics.errors import MetricError
from metrics.study import Study

from .conftest import make_snapshot, open_client, picture, pixels, raw, settings, wait  # isort: skip


def image(client, **changes):
    answer = client.post("/api/image", json=settings(**changes))
    assert answer.status_code == 200, answer.text
    return pixels(answer.content)


# ---- pictures ------------------------------------------------------------------------------------------


def test_the_page_is_told_every_code_with_the_name_people_gave_it(client):
    about = client.get("/api/model").json()
    assert [(c["name"], c["kind"], c["values"], c["title"]) for c in about["codes"]] == [
        ("cat0", "cat", 3, ""),
        ("bern0", "bern", 2, ""),
        ("unif0", "unif", 2, ""),
        ("unif1", "unif", 2, "pigmentation"),
    ]
    assert about["resolution"] == 16
    assert about["images"] == 200_000
    assert about["labels"] == []


def test_a_picture_is_what_generate_makes_of_its_seed_and_codes(client, snapshot):
    G = load_generator(snapshot)
    z, c, _ = seeded_latents(G, [11])
    wanted = to_uint8(G(z, c, psi=0.6, noise="const"))[0]
    codes = client.get("/api/seed/11").json()["codes"]
    assert list(codes.values()) == pytest.approx(c[0].tolist())
    assert np.array_equal(image(client, seed=11, psi=0.6, codes=codes), wanted)


@pytest.mark.parametrize("code", ["cat0", "bern0", "unif0", "unif1"])
def test_each_control_changes_the_picture_and_back_again(client, code):
    plain = image(client)
    assert not np.array_equal(image(client, codes={code: 1}), plain)
    assert not np.array_equal(image(client, seed=1), plain)
    assert not np.array_equal(image(client, psi=0.3), plain)
    assert np.array_equal(image(client), plain)


def test_a_label_chooses_the_class(labelled_snapshot, tmp_path, access):
    with open_client(server.make_app(Model(labelled_snapshot), tmp_path, access), access) as client:
        assert client.get("/api/model").json()["labels"] == ["0", "1", "2"]
        pictures = [image(client, label=label) for label in range(3)]
        assert not np.array_equal(pictures[0], pictures[1])
        for label in (3, -1, None, "0"):
            assert client.post("/api/image", json=settings(label=label)).status_code == 400


@pytest.mark.parametrize(
    "kind",
    [
        {"channels": 1},
        {"styles": False},
        {"codes": "none"},
        {"codes": "cat:10"},
        {"labels": 2, "styles": False},
    ],
    ids=str,
)
def test_every_kind_of_generator_is_drawn_projected_and_filmed(kind, tmp_path, access):
    model = Model(make_snapshot(tmp_path / "one.pkl", **kind))
    with open_client(server.make_app(model, tmp_path, access), access) as client:
        codes = {code["name"]: 0 for code in client.get("/api/model").json()["codes"]}
        plain = {"seed": 1, "psi": 0.7, "label": 0, "codes": codes}
        answer = client.post("/api/image", json=plain)
        assert Image.open(io.BytesIO(answer.content)).mode == ("L" if "channels" in kind else "RGB")
        for name in codes:
            assert client.post("/api/strip", json={**plain, "code": name}).status_code == 200
        job = wait(client, client.post("/api/jobs/photo", content=picture()).json())
        assert job["state"] == "done", job
        changed = {**plain, "photo": job["result"]["photo"], "codes": job["result"]["codes"]}
        assert client.post("/api/image", json=changed).status_code == 200
        for wish in [plain, *([{**changed, "sweep": next(iter(codes))}] if codes else [])]:
            started = client.post("/api/jobs/walk", json={"sweep": None, "seconds": 0.5, "fps": 6, **wish})
            assert wait(client, started.json())["state"] == "done"


def test_a_saved_picture_carries_its_settings(client):
    answer = client.post("/api/image", json=settings(seed=5, codes={"unif1": -0.25}))
    about = json.loads(Image.open(io.BytesIO(answer.content)).text["infostylegan"])
    assert about["seed"] == 5
    assert about["codes"]["unif1"] == -0.25
    assert about["snapshot"] == "network-snapshot-000200.pkl"


@pytest.mark.parametrize(("code", "values"), [("unif0", 7), ("cat0", 3), ("bern0", 2)])
def test_a_strip_shows_the_same_picture_with_one_code_at_each_of_its_values(client, code, values):
    answer = client.post("/api/strip", json={**settings(seed=2, psi=0.8), "code": code})
    strip = pixels(answer.content)
    assert strip.shape == (16, 16 * values, 3)
    at = np.linspace(-1, 1, 7) if code == "unif0" else range(values)
    for i, value in enumerate(at):
        single = image(client, seed=2, psi=0.8, codes={code: float(value)})
        # A batch and a single image may differ in the last bit of a float.
        difference = np.abs(strip[:, 16 * i : 16 * i + 16].astype(int) - single.astype(int))
        assert difference.max() <= 1


# ---- photographs ---------------------------------------------------------------------------------------


def test_a_photograph_is_projected_and_its_codes_change_its_likeness(client, app):
    job = wait(client, client.post("/api/jobs/photo", content=picture((60, 40), "JPEG")).json())
    assert (job["state"], job["done"], job["total"]) == ("done", 6, 6)
    assert job["previews"] > 1
    assert pixels(client.get(f"/api/jobs/{job['id']}/preview").content).shape == (16, 16, 3)
    photo, codes = job["result"]["photo"], job["result"]["codes"]
    kept = app.state.studio.photos.find(photo)
    likeness = image(client, photo=photo, codes=codes)
    difference = np.abs(likeness.astype(int) - to_uint8(kept.projection.image)[0].astype(int))
    assert difference.max() <= 1
    other = {**codes, "unif0": -codes["unif0"] or 1.0}
    assert not np.array_equal(image(client, photo=photo, codes=other), likeness)
    strip = client.post("/api/strip", json={**settings(photo=photo, codes=codes), "code": "cat0"})
    assert pixels(strip.content).shape == (16, 48, 3)
    original = pixels(client.get(f"/api/photos/{photo}").content)
    assert original.shape == (16, 16, 3)
    assert original[0, -1, 0] > original[0, 0, 0] + 100  # red grows to the right
    assert client.get("/api/photos/nosuch").status_code == 400


def test_an_image_of_the_data_set_can_be_projected(snapshot, tmp_path, access, make_images):
    from infostylegan.data.catalogue import open_dataset

    data = open_dataset(str(make_images(tmp_path / "images")), resolution=16, channels=3)
    with open_client(server.make_app(Model(snapshot, data), tmp_path, access), access) as client:
        assert client.get("/api/model").json()["data"] == {"name": "images", "images": 24}
        shown = pixels(client.get("/api/data/3").content)
        assert np.array_equal(shown, data.images([3])[0].transpose(1, 2, 0))
        job = wait(client, client.post("/api/jobs/photo?data=3").json())
        assert np.array_equal(pixels(client.get(f"/api/photos/{job['result']['photo']}").content), shown)
        for index in ("24", "-1", "x", "99999999999999"):
            assert client.post(f"/api/jobs/photo?data={index}").status_code == 400
        assert client.get("/api/data/24").status_code == 400


def test_a_generator_without_a_discriminator_projects_too(snapshot, tmp_path, access):
    from infostylegan.export import save_generator

    save_generator(tmp_path / "alone.pkl", load_generator(snapshot))
    with open_client(server.make_app(Model(tmp_path / "alone.pkl"), tmp_path, access), access) as client:
        assert wait(client, client.post("/api/jobs/photo", content=picture()).json())["state"] == "done"


def test_an_exported_folder_is_played_and_studied_as_its_snapshot_is(snapshot, tmp_path, access, client):
    from infostylegan.export import load_snapshot
    from infostylegan.export.tensors import save_folder

    save_folder(tmp_path / "export", load_snapshot(snapshot))
    app = server.make_app(Model(tmp_path / "export"), tmp_path, access)
    with open_client(app, access) as other:
        assert np.array_equal(image(other, seed=3), image(client, seed=3))
        assert other.get("/api/model").json()["codes"] == client.get("/api/model").json()["codes"]
        wish = {"code": "unif1", "attribute": "hue", "samples": 1, "seed": 0}
        assert wait(other, other.post("/api/jobs/study", json=wish).json())["state"] == "done"


def test_a_slider_is_served_between_the_steps_of_a_projection_and_the_projection_can_be_called_off(
    client, monkeypatch
):
    monkeypatch.setattr("infostylegan.studio.photos.STEPS", 100_000)
    job = client.post("/api/jobs/photo", content=picture()).json()
    while client.get(f"/api/jobs/{job['id']}").json()["done"] < 3:
        time.sleep(0.01)
    for seed in range(3):
        assert image(client, seed=seed).shape == (16, 16, 3)
    second = client.post("/api/jobs/photo", content=picture())
    assert second.status_code == 409
    assert "cancel" in second.json()["error"]
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 200
    job = wait(client, job)
    assert job["state"] == "cancelled"
    assert job["result"] is None
    assert job["done"] < 100_000


# ---- films ---------------------------------------------------------------------------------------------


def film(client, **wish):
    started = client.post("/api/jobs/walk", json={**settings(), "seconds": 1, "fps": 8, **wish})
    assert started.status_code == 202, started.text
    job = wait(client, started.json())
    assert (job["state"], job["done"]) == ("done", job["total"])
    answer = client.get(f"/api/jobs/{job['id']}/file")
    assert answer.headers["content-type"] == "image/webp"
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.parametrize("sweep", ["unif0", "cat0", None])
def test_a_walk_is_an_endless_webp_of_as_many_frames_as_asked_for(client, sweep):
    found = film(client, sweep=sweep)
    assert (found.format, found.n_frames, found.info["loop"]) == ("WEBP", 8, 0)
    assert found.size == (256, 256)
    frames = []
    for frame in range(8):
        found.seek(frame)
        frames.append(np.asarray(found.convert("RGB")).astype(int))
        assert found.info["duration"] == 125
    assert all(np.abs(frame - frames[0]).max() > 8 for frame in frames[2:6:3])


def test_a_swept_walk_begins_with_the_picture_on_the_page(client):
    found = film(client, sweep="unif0", seed=4, codes={"cat0": 2})
    wanted = Image.fromarray(image(client, seed=4, codes={"cat0": 2})).resize((256, 256), Image.LANCZOS)
    difference = np.asarray(found.convert("RGB")).astype(int) - np.asarray(wanted).astype(int)
    assert np.abs(difference).mean() < 6  # WebP is lossy


def test_a_walk_of_a_photograph_starts_from_its_likeness(client):
    job = wait(client, client.post("/api/jobs/photo", content=picture()).json())
    photo = {"photo": job["result"]["photo"], "codes": {**job["result"]["codes"], "unif0": 0}}
    for sweep in ("unif0", "bern0"):
        assert film(client, sweep=sweep, **photo).n_frames == 8
    refused = client.post("/api/jobs/walk", json={**settings(**photo), "seconds": 1, "fps": 8, "sweep": None})
    assert refused.status_code == 400


@pytest.mark.parametrize(
    "wish",
    [{"seconds": 0}, {"seconds": 1000}, {"fps": 1000}, {"fps": "x"}, {"sweep": "nosuch"}, {"seconds": None}],
)
def test_a_walk_that_cannot_be_made_is_refused(client, wish):
    answer = client.post("/api/jobs/walk", json={**settings(), "seconds": 1, "fps": 8, "sweep": None, **wish})
    assert answer.status_code == 400


def test_a_walk_can_be_called_off_and_leaves_no_file(client):
    wish = {**settings(), "seconds": 20, "fps": 30, "sweep": "unif0"}
    job = client.post("/api/jobs/walk", json=wish).json()
    client.delete(f"/api/jobs/{job['id']}")
    assert wait(client, job)["state"] == "cancelled"
    assert client.get(f"/api/jobs/{job['id']}/file").status_code == 404


# ---- studies -------------------------------------------------------------------------------------------


@pytest.fixture
def study(client):
    """A study of eight rows, a control and a repeat: its name."""
    wish = {"code": "unif1", "attribute": "  melanin  of the fundus ", "samples": 8, "seed": 0}
    job = wait(client, client.post("/api/jobs/study", json=wish).json())
    assert job["state"] == "done", job
    return job["result"]["name"]


def standing(client, study, rater):
    return client.get(f"/api/studies/{study}", params={"rater": rater}).json()


def vote(client, study, rater, item, answer):
    body = {"rater": rater, "item": item, "answer": answer}
    found = client.post(f"/api/studies/{study}/votes", json=body)
    assert found.status_code == 200, found.text
    return found.json()


def test_a_study_is_rated_row_by_row_undone_and_resumed(client, study):
    now = standing(client, study, "anna")
    assert (now["rows"], now["voted"], now["before"]) == (10, 0, None)
    assert now["question"] == "Does melanin of the fundus change consistently along this row?"
    seen = []
    for number in range(10):
        item = now["next"][0]
        seen.append(item)
        assert client.get(f"/api/studies/{study}/rows/{item}").headers["content-type"] == "image/png"
        now = vote(client, study, "anna", item, number % 3 == 0)
        assert (now["voted"], now["before"]) == (number + 1, item)
        if number == 4:
            now = vote(client, study, "anna", now["before"], None)
            assert (now["voted"], now["next"][0], now["before"]) == (4, item, seen[-2])
            now = vote(client, study, "anna", item, False)
            assert standing(client, study, "anna") == now  # as after closing the page
    assert now["next"] == []
    assert sorted(set(seen)) == sorted(seen)
    assert standing(client, study, "ben")["voted"] == 0
    listed = client.get("/api/studies").json()["studies"]
    assert listed == [
        {"name": study, "attribute": "melanin of the fundus", "rows": 10, "raters": {"anna": 10}}
    ]


def test_nothing_that_a_rater_gets_tells_the_model_the_code_or_the_kind_of_row(client, study, snapshot):
    now = standing(client, study, "anna")
    voted = vote(client, study, "anna", now["next"][0], True)
    answers = [client.get("/api/studies").text, json.dumps(now), json.dumps(voted)]
    row = client.get(f"/api/studies/{study}/rows/{now['next'][1]}")
    answers.append(str(row.headers))
    for text in answers:
        for word in (
            snapshot.stem,
            snapshot.parent.name,
            "unif1",
            "pigmentation",
            "still",
            "repeat",
            "sample",
        ):
            assert word not in text, word
    assert Image.open(io.BytesIO(row.content)).info == {}


def test_the_page_scores_exactly_as_the_command_line_does(client, study, tmp_path):
    draw = np.random.default_rng(0)
    for rater, share in (("anna", 0.9), ("ben", 0.6), ("carl", 0.2)):
        now = standing(client, study, rater)
        while now["next"]:
            now = vote(client, study, rater, now["next"][0], bool(draw.random() < share))
    scored = client.get(f"/api/studies/{study}/score").json()
    direct = dataclasses.asdict(Study.open(tmp_path / "studies" / study).score())
    assert scored == json.loads(json.dumps(direct))
    assert set(scored["raters"]) == {"anna", "ben", "carl"}
    assert scored["models"][0]["fleiss"] is not None


def test_agreement_that_is_undefined_is_null_and_not_nan(client, study):
    for rater in ("anna", "ben"):
        now = standing(client, study, rater)
        while now["next"]:
            now = vote(client, study, rater, now["next"][0], True)
    answer = client.get(f"/api/studies/{study}/score")
    assert "NaN" not in answer.text
    assert answer.json()["models"][0]["cohen"]["value"] is None
    assert answer.json()["models"][0]["acm"]["value"] == 1.0


@pytest.mark.parametrize(
    "wish",
    [{"attribute": ""}, {"attribute": " "}, {"attribute": "x" * 200}, {"samples": 0}, {"samples": 10**9},
     {"samples": 1.5}, {"samples": True}, {"samples": "8"}, {"seed": -1}, {"seed": None}, {"code": "nosuch"},
     {"code": None}],
    ids=str,
)  # fmt: skip
def test_a_study_that_cannot_be_made_is_refused_and_leaves_nothing(client, tmp_path, wish):
    whole = {"code": "unif0", "attribute": "hue", "samples": 2, "seed": 0, **wish}
    job = wait(client, client.post("/api/jobs/study", json=whole).json())
    assert job["state"] == "failed"
    assert "\n" not in job["error"]
    assert not (tmp_path / "studies").exists()


def test_a_study_called_off_half_way_leaves_nothing(client, tmp_path, monkeypatch):
    began = threading.Event()

    def progress(self, *args, **options):
        began.set()
        return step(self, *args, **options)

    step = studies.Job.step
    monkeypatch.setattr(studies.Job, "step", progress)
    wish = {"code": "unif0", "attribute": "hue", "samples": 500, "seed": 0}
    job = client.post("/api/jobs/study", json=wish).json()
    assert began.wait(30)
    client.delete(f"/api/jobs/{job['id']}")
    assert wait(client, job)["state"] == "cancelled"
    assert list((tmp_path / "studies").iterdir()) == []


def test_a_damaged_study_is_named_in_the_list_and_the_others_are_shown(client, study, tmp_path):
    (tmp_path / "studies" / "broken").mkdir()
    (tmp_path / "studies" / "broken" / "study.json").write_text("{")
    listed = client.get("/api/studies").json()["studies"]
    assert [each["name"] for each in listed] == ["broken", study]
    assert "error" in listed[0]
    assert client.get("/api/studies/broken/score").status_code == 400


def test_votes_from_many_browsers_at_once_are_all_kept(client, study):
    items = standing(client, study, "anna")["next"]
    raters = [f"reader-{i}" for i in range(8)]

    def rate(rater):
        for item in items:
            vote(client, study, rater, item, True)

    threads = [threading.Thread(target=rate, args=(rater,)) for rater in raters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = client.get("/api/studies").json()["studies"][0]["raters"]
    assert listed == dict.fromkeys(raters, 3)


# ---- jobs ----------------------------------------------------------------------------------------------


def test_a_fair_lock_is_handed_over_in_the_order_of_asking():
    lock, order = FairLock(), []
    lock.acquire()

    def ask(number):
        with lock:
            order.append(number)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=ask, args=(number,)))
        threads[-1].start()
        while len(lock._waiting) <= number:
            time.sleep(0.001)
    lock.yield_turn()  # the others, who asked before, go first
    assert order == [0, 1, 2, 3, 4]
    lock.release()
    for thread in threads:
        thread.join()
    with lock:
        pass


def test_one_job_runs_at_a_time_and_only_the_last_few_are_kept():
    jobs, go = Jobs(lambda error: None), threading.Event()
    first = jobs.start("x", lambda job: go.wait(10) and None)
    with pytest.raises(Busy):
        jobs.start("x", lambda job: None)
    go.set()
    for _ in range(KEPT + 2):
        while jobs.running:
            time.sleep(0.001)
        last = jobs.start("x", lambda job: None)
    assert jobs.get(first.id) is None
    assert jobs.get(last.id) is last
    jobs.close()


def test_a_strip_of_a_category_with_many_values_stays_short():
    from infostylegan.codes import Categorical
    from infostylegan.studio.model import strip_values

    assert strip_values(Categorical(3)) == [0, 1, 2]
    many = strip_values(Categorical(1000))
    assert len(many) == 12
    assert (many[0], many[-1]) == (0, 999)
    assert many == sorted(set(many))


def test_a_study_that_would_not_fit_into_memory_is_refused_before_it_is_drawn(client, monkeypatch):
    monkeypatch.setattr(studies, "MAX_MEMORY", 4 * 8 * 3 * 16 * 16 * 10)
    for samples, state in ((10, "done"), (11, "failed")):
        wish = {"code": "unif0", "attribute": "hue", "samples": samples, "seed": 0}
        job = wait(client, client.post("/api/jobs/study", json=wish).json())
        assert job["state"] == state
    assert "at most 10" in job["error"]


def test_a_study_from_elsewhere_cannot_name_files_outside_its_rows(client, study, tmp_path):
    folder = tmp_path / "studies" / study
    (folder / "secret.png").write_bytes(picture())
    content = json.loads((folder / "study.json").read_text())
    content["items"]["../secret"] = next(iter(content["items"].values()))
    (folder / "study.json").write_text(json.dumps(content))
    found = raw(
        client.app, f"/api/studies/{study}/rows/../secret",
        headers=[("Host", "localhost"), ("Cookie", f"studio-test={client.cookies['studio-test']}")],
    )  # fmt: skip
    assert found[0] in (400, 404)
    with pytest.raises(MetricError, match="no picture"):
        client.app.state.studio.studies.row(study, "../secret")


# ---- the command ---------------------------------------------------------------------------------------


def run(*args):
    from infostylegan.__main__ import main

    return CliRunner().invoke(main, ["studio", *map(str, args)])


def test_a_mistake_on_the_command_line_gets_one_line(snapshot, tmp_path):
    import socket

    taken = socket.create_server(("127.0.0.1", 0))
    (tmp_path / "other.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for args, words in (
        ((tmp_path / "nosuch.pkl",), "nosuch.pkl: no such file"),
        ((tmp_path / "other.pkl",), "refused"),
        ((snapshot, "--data", "nosuch"), "nosuch"),
        ((snapshot, "--port", taken.getsockname()[1]), "--port 0 takes a free one"),
        ((snapshot, "--host", "192.0.2.1"), "--host 192.0.2.1"),
    ):
        result = run(*args)
        assert result.exit_code == 2, (args, result.output)
        assert words in result.stderr
        assert "Traceback" not in result.output
    taken.close()


def test_the_command_prints_an_address_that_opens_the_page_and_ends_at_once_with_ctrl_c(snapshot, tmp_path):
    import os
    import signal
    import subprocess
    import sys
    import urllib.request

    command = [sys.executable, "-m", "infostylegan", "studio", str(snapshot), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--studies", str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        line = process.stdout.readline()
        address = line.split()[-1]
        assert address.startswith("http://127.0.0.1:")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(address, timeout=30) as page:
            assert page.url.endswith("/")
            assert b"<title>Studio</title>" in page.read()
            assert "server" not in {name.lower() for name in page.headers}
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")


def test_a_missing_extra_is_named_with_the_command_that_installs_it(snapshot, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run(snapshot)
    assert result.exit_code == 2
    assert "pip install '.[studio]'" in result.stderr


def test_a_cookie_of_one_studio_does_not_open_another(app, access):
    other = Access(cookie=access.cookie)
    headers = [("Host", "localhost"), ("Cookie", f"{access.cookie}={other.session}")]
    assert raw(app, "/", headers=headers)[0] == 401


def test_pictures_leave_the_networks_fit_for_projecting(client):
    """Tensors cached while drawing must not be of inference mode: gradients run through them later."""
    image(client, psi=0.5)
    assert wait(client, client.post("/api/jobs/photo", content=picture()).json())["state"] == "done"
    assert not torch.is_inference_mode_enabled()
