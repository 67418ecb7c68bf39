"""Facts about exports: each gives the same images elsewhere, and what comes back is what was written."""

import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from infostylegan import Discriminator, Generator, SnapshotError, load_generator
from infostylegan.__main__ import main
from infostylegan.codes import CodeSpec
from infostylegan.export import ExportError, load_snapshot, save_folder, save_snapshot
from infostylegan.export.card import model_card
from infostylegan.export.folders import new_folder
from infostylegan.export.web import describe_page
from infostylegan.naming import rename_codes

CODES = "cat:3,bern:1,unif:2"


def build(seed=0, **options):
    torch.manual_seed(seed)
    small = {"latent_dim": 16, "fmap_base": 64, "fmap_max": 8, "mapping_layers": 2, "mapping_lr": 1.0}
    G = Generator(**{"resolution": 8, "codes": CODES, **small, **options})
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        if G.mapping is not None:
            G.mapping.w_avg.normal_()
    return G.eval().requires_grad_(False)


def latents(G, n=3, seed=1):
    z, c = G.sample_latents(n, generator=torch.Generator().manual_seed(seed))
    return z, c, torch.arange(n) % 2


def image(G, n=3, psi=0.6):
    z, c, label = latents(G, n)
    return G(z, c, label if G.labels else None, psi, noise="const")


CONTENT = {
    "images": 1234,
    "version": "0.1.0",
    "commit": "5f3a",
    "code_names": {"unif1": "Größe | <b>"},
    "label_names": ["healthy", "ill"],
    "dataset": {"name": "fundus", "digest": "ab" * 32, "images": 99},
    "training_options": {"beta": 0.3, "gamma": 1.0},
}


@pytest.fixture(scope="module", name="G")
def _generator():
    return build(labels=2)


@pytest.fixture
def snapshot(tmp_path, G):
    path = tmp_path / "network-snapshot-000001.pkl"
    D = Discriminator(8, CODES, labels=2, fmap_base=64, fmap_max=8)
    save_snapshot(path, {"G": G, "D": D, "G_ema": G, **CONTENT})
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


# ---- safetensors ---------------------------------------------------------------------------------------


def test_the_default_export_is_a_folder_that_loads_with_the_same_images_bit_for_bit(snapshot, G):
    told = run("export", snapshot)
    assert told.exit_code == 0, told.output
    folder = snapshot.with_suffix("")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for path in (folder, folder / "model.safetensors"):
        assert torch.equal(image(load_generator(path)), image(G))
        content = load_snapshot(path)
        assert {key: content[key] for key in CONTENT} == CONTENT
        assert "D" not in content
        assert not content["G_ema"].training
    # Other programs read the weights by their names.
    import safetensors.torch

    weights = safetensors.torch.load_file(folder / "model.safetensors")
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in G.state_dict().items()}


def test_tensors_that_travel_alone_keep_their_configuration(snapshot, tmp_path, G):
    run("export", snapshot, "--out", tmp_path / "out")
    moved = tmp_path / "alone.safetensors"
    os.rename(tmp_path / "out" / "model.safetensors", moved)
    assert torch.equal(image(load_generator(moved)), image(G))
    assert load_snapshot(moved)["code_names"] == CONTENT["code_names"]


def test_names_given_to_an_exported_generator_are_kept_in_it(snapshot, tmp_path, G):
    run("export", snapshot, "--out", tmp_path / "out")
    for path in (tmp_path / "out", tmp_path / "out" / "model.safetensors"):
        rename_codes(path, {"cat0": "shape"})
        assert load_snapshot(path)["code_names"]["cat0"] == "shape"
        assert torch.equal(image(load_generator(path)), image(G))
    assert "| cat0 | shape |" in (tmp_path / "out" / "README.md").read_text("utf-8")


def damage(folder, name, text):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("config.json", "{", "damaged"), ("config.json", "[]", "no generator"),
     ("config.json", "{}", "no generator"),
     ("config.json", '{"format": 99, "generator": {}}', "update"), ("model.safetensors", b"", "safetensors"),
     ("config.json", '{"format": 1, "generator": {}}', "do not fit"),
     ("model.safetensors", b"\xff" * 99, "safetensors"),
     ("model.safetensors", pickle.dumps({"a": 1}), "safetensors")],
)  # fmt: skip
def test_a_damaged_folder_is_refused_by_name(tmp_path, G, name, text, words):
    save_folder(tmp_path / "g", {"G_ema": G})
    damage(tmp_path / "g", name, text)
    with pytest.raises(SnapshotError, match=words) as error:
        load_generator(tmp_path / "g")
    assert str(tmp_path / "g") in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path, G):
    save_folder(tmp_path / "g", {"G_ema": G})
    config = json.loads((tmp_path / "g" / "config.json").read_text())
    for change in ({"resolution": 16}, {"resolution": 17}, {"colour": "red"}, {"latent_dim": 32}):
        damage(
            tmp_path / "g",
            "config.json",
            json.dumps({**config, "generator": {**config["generator"], **change}}),
        )
        with pytest.raises(SnapshotError, match="do not fit"):
            load_generator(tmp_path / "g")


@pytest.mark.parametrize(
    "greed",
    [{"labels": 10**14}, {"fmap_base": 10**12, "fmap_max": 10**9}, {"mapping_layers": 10**12},
     {"noise_dim": 10**11}, {"mapping_layers": "many"}],
)  # fmt: skip
def test_a_configuration_that_asks_for_more_memory_than_its_weights_is_refused_before_it_is_taken(
    tmp_path, G, greed
):
    save_folder(tmp_path / "g", {"G_ema": G})
    config = json.loads((tmp_path / "g" / "config.json").read_text())
    config["generator"] |= greed
    damage(tmp_path / "g", "config.json", json.dumps(config))
    with pytest.raises(SnapshotError, match="do not fit"):
        load_generator(tmp_path / "g")


def test_tensors_of_another_program_and_an_empty_folder_are_refused(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SnapshotError, match="another program"):
        load_generator(tmp_path / "other.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SnapshotError, match=r"without model\.safetensors or a snapshot; give a snapshot, a run folder"
    ):
        load_generator(tmp_path / "empty")


# ---- the model card ------------------------------------------------------------------------------------


def test_the_card_tells_codes_names_data_and_limits_and_no_text_breaks_its_table(G):
    card = model_card({"G_ema": G, **CONTENT})
    assert card.startswith("---\nlibrary_name: infostylegan\n")
    assert "| unif1 | Größe \\| &lt;b> | −1 … 1 |" in card
    assert "| cat0 | – | 0 … 2 |" in card
    assert "Labels: 0: healthy, 1: ill." in card
    assert "fundus, 99 images" in card
    assert "infostylegan 0.1.0, commit 5f3a" in card
    assert "not for diagnosis" in card


@pytest.mark.parametrize("odd", [None, "x", 5, ["x"], {"unif0": 5, "name": [1], "images": "many"}], ids=str)
def test_a_file_with_odd_facts_about_itself_has_a_card_and_a_page(G, odd):
    """What stands beside the weights may be anybody's."""
    keys = ("code_names", "dataset", "training_options", "label_names", "images", "version", "commit")
    for key in keys:
        assert model_card({"G_ema": G, key: odd}).startswith("---")
        assert describe_page({"G_ema": G, key: odd})["resolution"] == G.grown_resolution
    json.dumps(describe_page({"G_ema": G, **dict.fromkeys(keys, odd)}))


@pytest.mark.parametrize("options", [{}, {"labels": 2}, {"styles": False}, {"codes": "none"}])
def test_the_code_on_the_card_runs(tmp_path, options, monkeypatch):
    save_folder(tmp_path, {"G_ema": build(**options)})
    program = (tmp_path / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch}
    exec(program, names)
    assert names["images"].shape == (8, 3, 8, 8)


# ---- pkl -----------------------------------------------------------------------------------------------


def test_the_pickle_holds_the_generator_alone_and_opens_with_plain_pickle_in_a_new_process(
    snapshot, G, tmp_path
):
    out = tmp_path / "g.pkl"
    assert run("export", snapshot, "--format", "pkl", "--out", out).exit_code == 0
    assert set(load_snapshot(out)) == {"G_ema", *CONTENT}
    program = (
        "import pickle, sys, torch; torch.set_num_threads(1)\n"
        "G = pickle.load(open(sys.argv[1], 'rb'))['G_ema']\n"
        "z, c = G.sample_latents(3, generator=torch.Generator().manual_seed(1))\n"
        "torch.save(G(z, c, torch.arange(3) % 2, psi=0.6, noise='const'), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", program, out, tmp_path / "i.pt"], check=True, timeout=120)
    assert torch.equal(torch.load(tmp_path / "i.pt"), image(G))


def test_payloads_within_zips_folders_and_tensors_never_run(tmp_path, G):
    trace = tmp_path / "trace"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    evil = pickle.dumps({"G_ema": Payload()})
    with zipfile.ZipFile(tmp_path / "torch.pkl", "w") as archive:
        archive.writestr("archive/data.pkl", evil)
        archive.writestr("archive/version", "3")
    with zipfile.ZipFile(tmp_path / "torch.pt", "w") as archive:
        archive.writestr("data.pkl", evil)
    for name in ("folder", "config"):
        save_folder(tmp_path / name, {"G_ema": G})
    damage(tmp_path / "folder", "model.safetensors", evil)
    damage(tmp_path / "config", "config.json", evil)
    (tmp_path / "evil.safetensors").write_bytes(evil)
    (tmp_path / "evil.onnx").write_bytes(evil)
    for name in ("torch.pkl", "torch.pt", "folder", "config", "evil.safetensors", "evil.onnx"):
        with pytest.raises(SnapshotError):
            load_generator(tmp_path / name)
        told = run("export", tmp_path / name, "--format", "pkl", "--out", tmp_path / "out.pkl")
        assert told.exit_code == 2
        assert told.output.startswith("Error: ")
    assert not trace.exists()
    pickle.loads(evil)  # the payload is real
    assert trace.exists()


def test_a_pickle_of_another_stylegan_is_refused_with_the_reason(tmp_path):
    asks = b"\x80\x04\x8c\x17torch_utils.persistence\x8c\x1b_reconstruct_persistent_obj\x93."
    (tmp_path / "ffhq.pkl").write_bytes(asks)
    with pytest.raises(SnapshotError, match=r"asks for torch_utils\.persistence"):
        load_generator(tmp_path / "ffhq.pkl")


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [("a.pkl", b"PK\x03\x04", "zip"), ("a.pkl.gz", b"\x1f\x8b\x08", "unpack"),
     ("a.onnx", b"\x08\x0a", "other programs"),
     ("a.png", b"\x89PNG\r\n", "picture")],
)  # fmt: skip
def test_files_of_other_kinds_are_told_apart(tmp_path, name, head, words):
    (tmp_path / name).write_bytes(head + bytes(64))
    with pytest.raises(SnapshotError, match=words):
        load_generator(tmp_path / name)


# ---- onnx and torch.export -----------------------------------------------------------------------------


def session(path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime (extra export) is not installed")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def in_onnx(model, z, c, label, psi):
    feed = {"z": z, "c": c, "label": label, "psi": torch.tensor(psi)}
    return model.run(None, {name: value.numpy() for name, value in feed.items()})[0]


@pytest.fixture(scope="module", name="onnx_file")
def _onnx_file(G, tmp_path_factory):
    pytest.importorskip("onnxscript", reason="onnxscript (extra export) is not installed")
    folder = tmp_path_factory.mktemp("onnx")
    save_snapshot(folder / "s.pkl", {"G_ema": G, **CONTENT})
    told = run("export", folder / "s.pkl", "--format", "onnx")
    assert told.exit_code == 0, told.output
    return folder / "s.onnx"


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("psi", [0.0, 0.6, 1.0])
def test_onnxruntime_gives_the_images_of_pytorch_at_any_batch_size_and_psi(onnx_file, G, n, psi):
    z, c, label = latents(G, n)
    found = in_onnx(session(onnx_file), z, c, label, psi)
    expected = G(z, c, label, psi, noise="const").numpy()
    assert found.shape == (n, 3, 8, 8)
    assert np.abs(found - expected).max() <= 1e-4
    assert np.abs(expected).max() > 0.5


def test_every_code_and_the_label_reach_the_onnx_images(onnx_file, G):
    model = session(onnx_file)
    z, c, label = latents(G, 1)
    before = in_onnx(model, z, c, label, 0.6)
    assert np.abs(in_onnx(model, z, c, 1 - label, 0.6) - before).max() > 1e-3
    for i in range(len(G.codes)):
        changed = c.clone()
        changed[:, i] = 1.0 - changed[:, i].round()
        assert np.abs(in_onnx(model, z, changed, label, 0.6) - before).max() > 1e-3, i


def test_an_onnx_file_says_what_it_is_and_nothing_of_the_machine_that_made_it(onnx_file, G):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(onnx_file)
    inputs = {
        i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input
    }
    assert inputs == {"z": ["batch", G.noise_dim], "c": ["batch", 4], "label": ["batch"], "psi": []}
    about = json.loads({p.key: p.value for p in model.metadata_props}["infostylegan"])
    assert about["code_names"] == CONTENT["code_names"]
    assert CodeSpec.from_config(about["generator"]["codes"]) == G.codes
    data = onnx_file.read_bytes()
    assert os.fsencode(os.getcwd()) not in data
    assert b".py" not in data


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"styles": False}, {"codes": "none"}, {"channels": 1}, {"code_input": "plain"}, {"resolution": 32},
     {"grown": 1}],
)  # fmt: skip
def test_every_kind_of_generator_goes_through_onnx(tmp_path, options):
    G = build(**{k: v for k, v in options.items() if k != "grown"})
    if "grown" in options:
        G.set_growth(8, 0.5)
    save_snapshot(tmp_path / "s.pkl", {"G_ema": G})
    for truncation in ("codes", "global"):
        told = run(
            "export", tmp_path / "s.pkl", "--format", "onnx", "--truncation", truncation, "--overwrite"
        )
        assert told.exit_code == 0, told.output
        z, c, label = latents(G, 5)
        found = in_onnx(session(tmp_path / "s.onnx"), z, c, label, 0.6)
        expected = G(z, c, None, 0.6, truncation=truncation, noise="const").numpy()
        assert np.abs(found - expected).max() <= 1e-4


def test_torch_export_gives_the_same_images_at_any_batch_size(snapshot, G):
    told = run("export", snapshot, "--format", "pt2")
    assert told.exit_code == 0, told.output
    extra = {"infostylegan.json": ""}
    program = torch.export.load(snapshot.with_suffix(".pt2"), extra_files=extra).module()
    for n, psi in ((1, 0.6), (5, 1.0)):
        z, c, label = latents(G, n)
        expected = G(z, c, label, psi, noise="const")
        torch.testing.assert_close(program(z, c, label, torch.tensor(psi)), expected, rtol=0, atol=1e-5)
    assert json.loads(extra["infostylegan.json"])["images"] == 1234


def test_without_the_extra_onnx_is_refused_with_the_remedy(snapshot, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    told = run("export", snapshot, "--format", "onnx")
    assert told.exit_code == 2
    assert "pip install '.[export]'" in told.output
    assert len(told.output.strip().splitlines()) == 1
    assert not snapshot.with_suffix(".onnx").exists()


# ---- where it is written -------------------------------------------------------------------------------


def test_nothing_is_replaced_unless_asked_for(snapshot, tmp_path):
    assert run("export", snapshot, "--format", "pkl").exit_code == 0
    again = run("export", snapshot, "--format", "pkl")
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    assert run("export", snapshot, "--format", "pkl", "--overwrite").exit_code == 0
    assert "itself" in run("export", snapshot, "--format", "pkl", "--out", snapshot, "--overwrite").output
    run("export", snapshot)
    assert run("export", snapshot, "--overwrite").exit_code == 0


def test_a_folder_of_something_else_is_never_replaced(snapshot, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    for kind in ("safetensors", "pkl"):
        told = run("export", snapshot, "--format", kind, "--out", tmp_path / "home", "--overwrite")
        assert told.exit_code == 2
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_a_folder_that_fails_half_way_leaves_no_trace_and_the_old_one(tmp_path):
    def fail(folder):
        with new_folder(folder, ["mark"]) as made:
            (made / "mark").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(tmp_path / "f")
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "f") as made:
        (made / "mark").write_text("old")
    with pytest.raises(RuntimeError):
        fail(tmp_path / "f")
    assert (tmp_path / "f" / "mark").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    with pytest.raises(ExportError), new_folder(tmp_path / "f", ["other"]):
        pass
    with new_folder(tmp_path / "f", ["mark"]) as made:
        (made / "mark").write_text("new")
    assert (tmp_path / "f" / "mark").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
