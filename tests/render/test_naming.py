"""Facts about the names of codes: they are kept in the snapshot, which is never lost, and tools show them."""

import os

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from infostylegan import Discriminator, Generator
from infostylegan.__main__ import main
from infostylegan.codes import CodeError, shown_name
from infostylegan.export import load_snapshot, save_folder, save_snapshot
from infostylegan.naming import LONGEST, clean_name, code_names, names_in_run, rename_codes

CODES = "cat:3,bern:1,unif:2"
TINY = {"fmap_base": 64, "fmap_max": 8}


@pytest.fixture
def snapshot(tmp_path):
    torch.manual_seed(0)
    G = Generator(8, CODES, latent_dim=16, **TINY)
    path = tmp_path / "network-snapshot-000001.pkl"
    D = Discriminator(8, CODES, **TINY)
    save_snapshot(path, {"G": G, "D": D, "G_ema": G, "images": 1234, "code_names": {}})
    return path


def run(*arguments):
    return CliRunner().invoke(main, ["name", *map(str, arguments)])


def test_a_name_stands_in_brackets_behind_its_code():
    assert shown_name("unif3", {"unif3": "pigmentation"}) == "unif3 (pigmentation)"
    for names in (None, {}, {"unif2": "x"}, {"unif3": ""}, {"unif3": "unif3"}):
        assert shown_name("unif3", names) == "unif3"


def test_naming_changes_nothing_else_in_the_snapshot(snapshot):
    before = load_snapshot(snapshot)
    os.chmod(snapshot, 0o640)
    rename_codes(snapshot, {"unif1": "pigmentation"})
    after = load_snapshot(snapshot)
    assert after.pop("code_names") == {"unif1": "pigmentation"}
    assert set(after) == set(before) - {"code_names"}
    assert after["images"] == 1234
    for network in ("G", "D", "G_ema"):
        for key, value in before[network].state_dict().items():
            assert torch.equal(after[network].state_dict()[key], value), key
    assert snapshot.stat().st_mode & 0o777 == 0o640
    rename_codes(snapshot, {"unif1": None})
    save_snapshot(snapshot.with_name("again.pkl"), before)
    assert snapshot.read_bytes() == snapshot.with_name("again.pkl").read_bytes()


def test_a_link_to_a_snapshot_stays_a_link(snapshot):
    link = snapshot.with_name("latest.pkl")
    link.symlink_to(snapshot.name)
    rename_codes(link, {"cat0": "eye"})
    assert link.is_symlink()
    assert code_names(load_snapshot(snapshot)) == {"cat0": "eye"}


def test_a_write_that_fails_leaves_the_snapshot_as_it_was(snapshot, monkeypatch):
    before = snapshot.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = run(snapshot, "cat0", "eye")
    assert result.exit_code == 2
    assert "disk full" in result.output
    assert snapshot.read_bytes() == before
    assert [p.name for p in snapshot.parent.iterdir()] == [snapshot.name]


@pytest.mark.parametrize("bad", ["", "   ", "a" * (LONGEST + 1), "right\u202eleft", "null\0byte", "bell\x07"])
def test_names_that_cannot_be_shown_are_refused(snapshot, bad):
    with pytest.raises(CodeError):
        clean_name(bad)
    before = snapshot.read_bytes()
    assert run(snapshot, "cat0", bad).exit_code == 2
    assert snapshot.read_bytes() == before


@given(st.text(max_size=60))
def test_a_clean_name_is_one_printable_line_and_clean_already(text):
    try:
        name = clean_name(text)
    except CodeError:
        return
    assert 1 <= len(name) <= LONGEST
    assert name.isprintable()
    assert name == name.strip()
    assert clean_name(name) == name


def test_names_of_a_foreign_hand_are_left_out(snapshot):
    content = load_snapshot(snapshot)
    bad = {"cat0": 3, "bern0": "x" * 400, "unif0": "\x1b[31mred", "nonsense": "x", "unif1": " glare "}
    assert code_names({**content, "code_names": bad}) == {"unif1": "glare"}
    assert code_names({**content, "code_names": ["glare"]}) == {}
    del content["code_names"]
    assert code_names(content) == {}


def test_the_command_sets_lists_and_clears(snapshot):
    assert run(snapshot).output.split() == ["cat0", "bern0", "unif0", "unif1"]
    assert run(snapshot, "unif1", "pigmentation").output == "unif1 (pigmentation)\n"
    run(snapshot, "cat0", "which  eye")
    assert run(snapshot).output.splitlines() == ["cat0 (which eye)", "bern0", "unif0", "unif1 (pigmentation)"]
    assert run(snapshot, "unif1").output == "unif1 (pigmentation)\n"
    assert run(snapshot, "unif1", "--clear").output == "unif1\n"
    assert run(snapshot, "--clear").output.split() == ["cat0", "bern0", "unif0", "unif1"]


def test_a_run_folder_stands_for_its_newest_snapshot_and_an_exported_one_for_itself(snapshot):
    newer = snapshot.with_name("network-snapshot-000010.pkl")
    newer.write_bytes(snapshot.read_bytes())
    assert run(snapshot.parent, "unif0", "pigmentation").output == "unif0 (pigmentation)\n"
    assert code_names(load_snapshot(newer)) == {"unif0": "pigmentation"}
    assert code_names(load_snapshot(snapshot)) == {}
    save_folder(snapshot.parent, load_snapshot(snapshot))
    assert run(snapshot.parent).output.split() == ["cat0", "bern0", "unif0", "unif1"]


def test_mistakes_get_one_line(snapshot):
    for arguments, words in (
        ((snapshot, "unif9", "x"), "no code 'unif9' in this snapshot: its codes are cat0, bern0"),
        ((snapshot, "unif9"), "no code 'unif9'"),
        ((snapshot, "cat0", "x", "--clear"), "--clear takes a name away"),
        ((snapshot.with_name("no.pkl"), "cat0", "x"), "no such file"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert words in result.output
        assert "Traceback" not in result.output


def test_the_names_of_a_run_are_those_of_its_newest_readable_snapshot(snapshot, tmp_path):
    rename_codes(snapshot, {"cat0": "eye"})
    (tmp_path / "network-snapshot-000002.pkl").write_bytes(b"damaged")
    assert names_in_run(tmp_path) == {"cat0": "eye"}
    assert names_in_run(tmp_path / "none") == {}
