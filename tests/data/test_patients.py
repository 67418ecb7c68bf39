"""Splits by patient: nobody is on both sides, whatever the set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from infostylegan.__main__ import main
from infostylegan.data import ArrayDataset, BatchStream, DataError
from infostylegan.data.packing import pack_dataset
from infostylegan.data.patients import hold_out, patient_folds, split_by_patient

PATIENTS = st.lists(st.integers(0, 30).map(str), min_size=2).filter(lambda names: len(set(names)) > 1)
SHARES = st.floats(0.01, 0.99)


@given(PATIENTS, SHARES, st.integers(0, 5))
def test_no_patient_is_on_both_sides_and_neither_side_is_empty(
    names: list[str], share: float, seed: int
) -> None:
    held = hold_out(names, share, seed)
    patients = np.array(names)
    inside, outside = set(patients[held]), set(patients[~held])
    assert inside
    assert outside
    assert not inside & outside
    count = len(inside | outside)
    assert len(inside) == min(count - 1, max(1, round(share * count)))


@given(PATIENTS, SHARES, st.randoms())
def test_the_order_of_the_images_has_no_say(names: list[str], share: float, random: object) -> None:
    before = dict(zip(names, hold_out(names, share)))
    random.shuffle(names)  # type: ignore[attr-defined]
    assert dict(zip(names, hold_out(names, share))) == before


@given(PATIENTS, SHARES, SHARES)
def test_a_larger_share_holds_out_the_same_patients_and_more(names: list[str], a: float, b: float) -> None:
    small, large = hold_out(names, min(a, b)), hold_out(names, max(a, b))
    assert not (small & ~large).any()


@given(PATIENTS, st.integers(1, 5))
def test_folds_keep_patients_whole_and_have_as_many_of_them(names: list[str], folds: int) -> None:
    count = len(set(names))
    if folds > count:
        with pytest.raises(ValueError, match="cannot be put into"):
            patient_folds(names, folds)
        return
    fold = patient_folds(names, folds)
    of = {name: set(fold[np.array(names) == name].tolist()) for name in names}
    assert all(len(found) == 1 for found in of.values())
    sizes = np.bincount([found.copy().pop() for found in of.values()], minlength=folds)
    assert sizes.max() - sizes.min() <= 1


def test_the_split_is_the_same_for_ever() -> None:
    names = [f"{i}" for i in range(1, 11)]
    held = hold_out(names, 0.3, seed=0)
    assert [name for name, out in zip(names, held) if out] == ["1", "8", "9"]  # by sha256sum
    assert hold_out(names, 0.3, seed=1).tolist() != held.tolist()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_makes_no_sense_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="cannot be held out"):
        hold_out(["1", "2"], share)


def eyes(patients: bool = True) -> ArrayDataset:
    array = np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8), dtype=np.uint8)
    names = np.repeat(np.array([str(i) for i in range(6)]), 2)
    return ArrayDataset("eyes", array, np.arange(12) % 5, attributes={"x": np.arange(12)},
                        patients=names if patients else None)  # fmt: skip


def test_both_parts_of_a_set_train_like_sets_of_their_own() -> None:
    dataset = eyes()
    rest, held = split_by_patient(dataset, 0.34)
    assert len(rest) + len(held) == 12
    assert len(held) == 4
    assert rest.digest != held.digest != dataset.digest
    assert held.attributes is not None
    assert held.labels is not None
    assert np.array_equal(held.images(range(4)), dataset.array[held.attributes["x"]])
    assert np.array_equal(held.labels, dataset.labels[held.attributes["x"]])  # type: ignore[index]
    alone = ArrayDataset("alone", held.images(range(4)), held.labels)
    ours, theirs = (BatchStream(data, seed=3).batch(2, 4, 4) for data in (held, alone))
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(ours, theirs))


def test_a_set_without_patients_cannot_be_split_by_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not say whose image is whose"):
        split_by_patient(eyes(patients=False), 0.5)


def test_the_split_command_writes_both_lists(tmp_path: Path) -> None:
    pack_dataset(eyes(), tmp_path / "eyes.zip")
    result = CliRunner().invoke(main, ["data", "split", str(tmp_path / "eyes.zip"), "--holdout", "0.34"])
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'eyes.held.txt'}: 2 patients, 4 images" in result.output
    rest, held = (set((tmp_path / f"eyes.{side}.txt").read_text().split()[1:]) for side in ("rest", "held"))
    assert rest | held == set("012345")
    assert not rest & held
    result = CliRunner().invoke(main, ["data", "split", str(tmp_path / "eyes.zip"), "--holdout", "2"])
    assert result.exit_code == 2
    assert "a share 2 of 6 patients cannot be held out" in result.output
