"""Facts about snapshots: they come back as they were, and reading one never executes anything in it."""

import builtins
import io
import json
import os
import pickle
import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from infostylegan import Discriminator, Generator, SnapshotError, load_generator, save_generator
from infostylegan.export import load_snapshot, rebuild_network, save_snapshot

CODES = "cat:3,bern:1,unif:1"
TINY = {"fmap_base": 64, "fmap_max": 8}


@pytest.fixture
def networks():
    torch.manual_seed(0)
    G = Generator(8, CODES, latent_dim=16, **TINY)
    G.mapping.w_avg.normal_()
    G.set_growth(8, 0.5)
    return G, Discriminator(8, CODES, **TINY)


@pytest.fixture
def snapshot(tmp_path, networks):
    path = tmp_path / "network-snapshot-000001.pkl"
    save_snapshot(path, {"G": networks[0], "D": networks[1], "G_ema": networks[0], "images": 1234})
    return path


def image(G):
    z, c = G.sample_latents(3, generator=torch.Generator().manual_seed(0))
    return G(z, c, psi=0.7, noise="const")


def refused(path):
    """The message of the error that every way of loading `path` raises; it names the file."""
    with pytest.raises(SnapshotError) as one:
        load_snapshot(path)
    with pytest.raises(SnapshotError) as two:
        load_generator(path)
    assert str(path) in str(one.value)
    assert str(one.value) == str(two.value)
    return str(one.value)


# ---- there and back ------------------------------------------------------------------------------------


def test_a_generator_comes_back_with_the_same_images_bit_for_bit(tmp_path, networks):
    save_generator(tmp_path / "g.pkl", networks[0], note="hello")
    G = load_generator(tmp_path / "g.pkl")
    assert torch.equal(image(G), image(networks[0]))
    assert G.codes == networks[0].codes
    assert G.config == networks[0].config
    assert load_snapshot(tmp_path / "g.pkl")["note"] == "hello"


def test_a_snapshot_keeps_every_weight_and_buffer_of_every_network_and_the_plain_data(snapshot, networks):
    content = load_snapshot(snapshot)
    assert set(content) == {"G", "D", "G_ema", "images"}
    assert content["images"] == 1234
    for name, original in (("G", networks[0]), ("D", networks[1]), ("G_ema", networks[0])):
        for key, value in original.state_dict().items():
            assert torch.equal(content[name].state_dict()[key], value), key


def test_loaded_networks_are_in_eval_mode_and_want_no_gradients(snapshot):
    for network in (load_generator(snapshot), load_snapshot(snapshot)["D"]):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_plain_pickle_gives_a_working_network(snapshot, networks):
    with open(snapshot, "rb") as file:
        G = pickle.load(file)["G_ema"]
    assert isinstance(G, torch.nn.Module)
    assert torch.equal(image(G), image(networks[0]))


def test_a_new_process_reads_the_same_images(snapshot, networks, tmp_path):
    program = (
        "import pickle, sys, torch; torch.set_num_threads(1)\n"
        "G = pickle.load(open(sys.argv[1], 'rb'))['G_ema']\n"
        "z, c = G.sample_latents(3, generator=torch.Generator().manual_seed(0))\n"
        "torch.save(G(z, c, psi=0.7, noise='const'), sys.argv[2])"
    )
    out = tmp_path / "image.pt"
    subprocess.run([sys.executable, "-c", program, snapshot, out], check=True, timeout=120)
    assert torch.equal(torch.load(out), image(networks[0]))


def test_the_only_thing_that_a_snapshot_asks_for_is_rebuild_network(snapshot):
    calls, texts = set(), []
    for opcode, argument, _ in pickletools.genops(snapshot.read_bytes()):
        if isinstance(argument, str):
            texts.append(argument)
        assert opcode.name not in {"GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
        if opcode.name == "STACK_GLOBAL":
            calls.add(tuple(texts[-2:]))
    assert calls == {("infostylegan.export", "rebuild_network")}


def test_the_same_networks_give_the_same_bytes(tmp_path, networks):
    for name in ("a", "b"):
        save_generator(tmp_path / name, networks[0])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("thing", [np.zeros(3), torch.zeros(3), Path("x"), print, object()])
def test_anything_but_networks_and_plain_data_is_not_written(tmp_path, networks, thing):
    path = tmp_path / "g.pkl"
    with pytest.raises(TypeError, match="networks and plain data"):
        save_generator(path, networks[0], extra=[thing])
    assert os.listdir(tmp_path) == []


# ---- hostile files -------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def write(path, content, protocol=4):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_a_file_that_calls_the_shell_is_refused_and_does_not_run(tmp_path, protocol):
    trace = tmp_path / "trace"
    path = write(tmp_path / "evil.pkl", {"G_ema": Calls(os.system, f"touch {trace}")}, protocol)
    message = refused(path)
    assert "system" in message
    assert not trace.exists()
    with open(path, "rb") as file:  # the file is a real attack: plain pickle falls for it
        pickle.load(file)
    assert trace.exists()


@pytest.mark.parametrize(
    "function",
    [eval, exec, __import__, open, getattr, setattr, print, type, subprocess.Popen, pickle.loads, os.remove,
     torch.load, torch.hub.load, json.loads, load_snapshot, save_snapshot, Generator, Path],
)  # fmt: skip
def test_no_other_function_or_class_can_be_called_by_a_file(tmp_path, function):
    message = refused(write(tmp_path / "evil.pkl", {"G_ema": Calls(function, "1")}))
    assert function.__name__ in message
    assert "refused" in message


@pytest.mark.parametrize(
    "name",
    ["rebuild_network.__globals__", "rebuild_network.__call__", "os.system", "Generator.from_config", "KINDS",
     "pickle.loads", "io.open", "_Unpickler", "atomic_write"],
)  # fmt: skip
def test_no_other_name_of_the_same_module_can_be_reached(tmp_path, name):
    module = b"infostylegan.export"
    text = name.encode()
    stack = b"\x80\x04\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(text)]) + text + b"\x93."
    assert name in refused(write(tmp_path / "evil.pkl", stack))
    old = b"c" + module + b"\n" + text + b"\n."
    assert name in refused(write(tmp_path / "evil.pkl", old))


def test_a_pickle_within_a_snapshot_is_not_opened(tmp_path, networks):
    trace = tmp_path / "trace"
    inner = pickle.dumps(Calls(os.system, f"touch {trace}"))
    weights = {"G_ema": Calls(rebuild_network, "generator", json.dumps(networks[0].config), inner)}
    refused(write(tmp_path / "evil.pkl", weights))
    config = {"G_ema": Calls(rebuild_network, "generator", inner, b"")}
    refused(write(tmp_path / "evil.pkl", config))
    assert not trace.exists()


def test_a_file_of_torch_save_is_refused(tmp_path, networks):
    torch.save({"G_ema": networks[0].state_dict()}, tmp_path / "new.pt")
    refused(tmp_path / "new.pt")
    torch.save(networks[0], tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "old.pt")


def test_a_reference_to_data_outside_the_file_is_refused(tmp_path):
    refused(write(tmp_path / "evil.pkl", b"Pos.system\n."))
    refused(write(tmp_path / "evil.pkl", b"\x80\x04\x8c\x01xQ."))


def test_an_extension_code_is_refused(tmp_path):
    import copyreg

    copyreg.add_extension("os", "system", 240)
    try:
        refused(write(tmp_path / "evil.pkl", b"\x80\x02\x82\xf0."))
    finally:
        copyreg.remove_extension("os", "system", 240)


@pytest.fixture
def unharmed():
    """Whatever a test does to `rebuild_network` is undone."""
    names = ("__name__", "__module__", "__qualname__", "__defaults__")
    kept = {name: getattr(rebuild_network, name) for name in names}
    yield kept
    for name, value in kept.items():
        setattr(rebuild_network, name, value)
    vars(rebuild_network).clear()


@pytest.mark.parametrize(
    ("name", "value"), [("__name__", "system"), ("__module__", "os"), ("__defaults__", (1, 2)), ("new", 1)]
)
def test_a_file_cannot_change_the_program_that_reads_it(snapshot, tmp_path, unharmed, name, value):
    """The opcode BUILD sets attributes of whatever stands on the stack, functions too."""
    pairs = pickle.dumps({name: value}, 2)[2:-1]
    for state in (b"N" + pairs + b"\x86", pairs):
        ask = b"\x80\x04cinfostylegan.export\nrebuild_network\n"
        evil = write(tmp_path / "evil.pkl", ask + state + b"b.")
        with pytest.raises(SnapshotError):
            load_snapshot(evil)
        assert getattr(rebuild_network, name, None) == unharmed.get(name)
    assert isinstance(load_generator(snapshot), Generator)


def test_a_file_cannot_set_attributes_of_a_network_that_it_holds(tmp_path, networks):
    class Patched(Calls):
        def __reduce__(self):
            return *self.call, {"noise_dim": 1}

    function, arguments = rebuilt(networks[0]).call
    path = write(tmp_path / "evil.pkl", {"G_ema": Patched(function, *arguments)})
    refused(path)


@pytest.mark.parametrize("number", [b"r\xff\xff\xff\x7f", b"p2147483647\n"])
def test_a_short_file_that_numbers_an_object_in_the_billions_is_refused_before_room_is_made(tmp_path, number):
    (tmp_path / "bomb.pkl").write_bytes(b"\x80\x04N" + number + b".")
    assert "numbers an object 2147483647" in refused(tmp_path / "bomb.pkl")


# ---- damaged and foreign files -------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in refused(tmp_path / "nothing.pkl")
    refused(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_file_cut_short_is_refused_by_name(snapshot, share):
    whole = snapshot.read_bytes()
    snapshot.write_bytes(whole[: int(len(whole) * share)])
    assert "damaged" in refused(snapshot)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x80\x04", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000), b"(" * 1000, b"." * 10],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, content):
    refused(write(tmp_path / "x.pkl", content))


def test_a_zip_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pkl", "w") as archive:
        archive.writestr("a", "b")
    refused(tmp_path / "x.pkl")


@pytest.mark.parametrize("content", [[], {}, 3, None, {"G_ema": 1}, {"G": 1}, {"G_ema": None}, "G_ema"])
def test_plain_data_without_a_generator_is_refused(tmp_path, content):
    assert "G_ema" in refused(write(tmp_path / "x.pkl", content))


def test_a_discriminator_in_place_of_the_generator_is_refused(tmp_path, networks):
    save_snapshot(tmp_path / "x.pkl", {"G_ema": networks[1]})
    assert "G_ema" in refused(tmp_path / "x.pkl")


def rebuilt(network, change=lambda state: state, **config):
    import safetensors.torch

    weights = safetensors.torch.save(change({k: v.contiguous() for k, v in network.state_dict().items()}))
    return Calls(rebuild_network, "generator", json.dumps({**network.config, **config}), weights)


def test_weights_and_configuration_that_do_not_fit_are_refused(tmp_path, networks):
    G = networks[0]
    wrong = {
        "missing": rebuilt(G, lambda state: dict(list(state.items())[1:])),
        "surplus": rebuilt(G, lambda state: {**state, "more": torch.zeros(1)}),
        "shape": rebuilt(G, lambda state: {k: v[..., :1].clone() if v.ndim else v for k, v in state.items()}),
        "resolution": rebuilt(G, resolution=16),
        "impossible": rebuilt(G, resolution=17),
        "unknown": rebuilt(G, colour="red"),
        "kind": Calls(rebuild_network, "transformer", json.dumps(G.config), b""),
        "few": Calls(rebuild_network, "generator"),
        "json": Calls(rebuild_network, "generator", "{", b""),
    }
    for what, content in wrong.items():
        assert refused(write(tmp_path / f"{what}.pkl", {"G_ema": content}))


def test_a_flipped_byte_never_crashes_the_reader(snapshot):
    """Weights carry no digest, so a flipped byte may pass as another weight; anything else is refused."""
    whole, refusals = snapshot.read_bytes(), []
    places = np.random.default_rng(0).integers(0, len(whole), 60)
    for place in [*range(40), *places]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        snapshot.write_bytes(damaged)
        try:
            loaded = load_generator(snapshot)
        except SnapshotError as error:
            refusals.append(str(error))
        else:
            assert isinstance(loaded, Generator)
    assert len(refusals) > 20
    assert all(str(snapshot) in message for message in refusals)


def test_reading_touches_neither_the_shell_nor_the_import_system(snapshot, monkeypatch):
    for module, name in ((builtins, "eval"), (builtins, "exec"), (os, "system"), (io, "open_code")):
        monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail("executed something"))
    load_generator(snapshot)
