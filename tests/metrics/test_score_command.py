"""Facts about `python -m metrics score`: codes and factors of any model, from a file."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from metrics import mig_locatello, sap
from metrics.__main__ import main


def invoke(*args):
    return CliRunner().invoke(main, ["score", *map(str, args)])


def fails(*args):
    result = invoke(*args)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    factors = rng.integers(0, [3, 4], (900, 2))
    codes = factors + rng.normal(0, 0.2, (900, 2))
    return codes, factors


def test_the_command_prints_what_the_functions_return(world, tmp_path):
    codes, factors = world
    np.savez(tmp_path / "x.npz", codes=codes, factors=factors, factor_names=["shape", "size"])
    result = invoke(tmp_path / "x.npz", "mig_locatello,sap", "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["results"]
    assert found["mig_locatello"] == mig_locatello(codes, factors, seed=3).value
    assert found["sap"] == sap(codes, factors, seed=3).value
    table = invoke(tmp_path / "x.npz", "sap,dci").stdout
    assert "900 samples, 2 codes, 2 factors (shape, size)" in table
    assert "dci_disentanglement" in table


def test_factors_may_be_arrays_of_their_own_and_words(world, tmp_path):
    codes, factors = world
    words = np.array(["red", "green", "blue"])[factors[:, 0]]
    np.savez(tmp_path / "x.npz", codes=codes, factor_colour=words, factor_size=factors[:, 1])
    found = json.loads(invoke(tmp_path / "x.npz", "mig_locatello", "--json").stdout)["results"]
    assert found["mig_locatello"] == pytest.approx(mig_locatello(codes, factors).value)


def test_categorical_codes_are_named_by_their_columns(world, tmp_path):
    codes, factors = world
    index = np.array([2, 0, 1])[factors[:, 0]].astype(float)
    np.savez(tmp_path / "x.npz", codes=np.stack([index, codes[:, 1]], 1), factors=factors, categorical=[0])
    result = invoke(tmp_path / "x.npz", "sap")
    assert "2 codes, 1 of them categorical" in result.stdout


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"factors": np.zeros(3)}, "holds no array 'codes'; it holds factors"),
        ({"codes": np.zeros((3, 1))}, "holds no factors"),
        ({"codes": np.zeros((3, 1)), "factors": np.zeros((2, 1))}, "for 3 samples of codes"),
        ({"codes": np.full((3, 1), np.nan), "factors": np.arange(3)}, "code 0 of sample 0 is nan"),
        ({"codes": np.zeros((3, 1)), "factors": np.ones(3)}, "'factor0': is 1.0 for all 3 samples"),
        ({"codes": np.array(["a", "b"]), "factors": np.arange(2)}, "could not convert"),
        ({"codes": np.zeros((3, 1)), "factors": np.arange(3), "factor_names": ["a", "b"]}, "with K names"),
    ],
)
def test_a_file_that_cannot_be_scored_is_refused_in_one_line(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    assert message in fails(tmp_path / "x.npz", "mig_locatello")


def test_a_missing_or_damaged_file_and_an_unknown_metric_are_named(world, tmp_path):
    assert "no such file" in fails(tmp_path / "no.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    assert "cannot be read as an .npz" in fails(tmp_path / "bad.npz")
    np.savez(tmp_path / "o.npz", codes=np.array([{}], dtype=object))
    assert "cannot be read as an .npz of plain arrays" in fails(tmp_path / "o.npz")
    np.savez(tmp_path / "x.npz", codes=world[0], factors=world[1])
    assert "metric 'fid': there is none of that name for arrays" in fails(tmp_path / "x.npz", "fid")
