"""Facts about dnnlib.runs."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from dnnlib.runs import list_runs, next_run_dir


def test_numbers_go_up_from_zero_and_past_the_highest(tmp_path):
    out = tmp_path / "not" / "there yet"
    assert list_runs(out) == []
    assert next_run_dir(out, "mnist-beta1").name == "00000-mnist-beta1"
    assert next_run_dir(out, "mnist-beta1").name == "00001-mnist-beta1"
    (out / "00041-old").mkdir()
    (out / "99999").mkdir()  # not a run: no description
    (out / "00077-a-file").write_text("")
    assert next_run_dir(out, "x").name == "00042-x"
    assert [p.name[:5] for p in list_runs(out)] == ["00000", "00001", "00041", "00042"]


def test_numbers_beyond_five_digits_sort_as_numbers(tmp_path):
    for name in ("100000-b", "99999-a"):
        (tmp_path / name).mkdir()
    assert [p.name for p in list_runs(tmp_path)] == ["99999-a", "100000-b"]
    assert next_run_dir(tmp_path, "c").name == "100001-c"


@pytest.mark.parametrize(
    ("description", "name"),
    [("a b/../c", "00000-a-b-..-c"), ("..", "00000-run"), ("", "00000-run"), ("größe", "00000-größe")],
)
def test_a_description_never_leaves_the_folder(tmp_path, description, name):
    path = next_run_dir(tmp_path, description)
    assert path.parent == tmp_path
    assert path.name == name


def test_runs_that_start_at_once_get_different_numbers(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda i: next_run_dir(tmp_path, f"run{i}"), range(24)))
    assert len({path.name.split("-")[0] for path in paths}) == 24
    assert sorted(paths) == list_runs(tmp_path)
