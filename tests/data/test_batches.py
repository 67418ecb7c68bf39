"""The stream of batches depends on seed, position and count alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infostylegan.data import loading
from infostylegan.data.errors import DataError
from infostylegan.data.loading import ArrayDataset, BatchStream, permutation
from infostylegan.data.pyramid import box_sums, to_float


class Numbered:
    """N images whose first pixel is their number; decoded per batch, as far as the stream can tell."""

    name, resolution, channels = "numbered", 8, 1
    label_names = factors = None
    digest = ""

    def __init__(self, size: int) -> None:
        self.array = np.random.default_rng(size).integers(0, 256, (size, 1, 8, 8), dtype=np.uint8)
        self.labels: np.ndarray | None = np.arange(size)
        self.skipped: list[tuple[str, str]] = []
        self.calls: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.array)

    def images(self, indices: np.ndarray) -> np.ndarray:
        self.calls.append(list(indices))
        return self.array[indices]


def in_memory(size: int, resolution: int = 8, channels: int = 1) -> ArrayDataset:
    shape = (size, channels, resolution, resolution)
    array = np.random.default_rng(size).integers(0, 256, shape, dtype=np.uint8)
    return ArrayDataset("numbered", array, np.arange(size))


def served(stream: BatchStream, position: int, count: int) -> list[int]:
    labels = stream.batch(position, count)[1]
    assert labels is not None
    return labels.tolist()


def test_a_batch_is_float_in_minus_one_to_one_with_its_labels() -> None:
    dataset = in_memory(10, channels=3)
    images, labels = BatchStream(dataset, 0).batch(0, 4)
    assert images.dtype == torch.float32
    assert images.shape == (4, 3, 8, 8)
    assert labels is not None
    assert labels.dtype == torch.int64
    expected = dataset.array[labels.numpy()].astype(np.float64) / 127.5 - 1
    assert np.abs(images.numpy() - expected).max() < 1e-6


def test_black_and_white_are_exactly_minus_one_and_one_at_every_resolution() -> None:
    array = np.stack([np.zeros((1, 64, 64), np.uint8), np.full((1, 64, 64), 255, np.uint8)])
    stream = BatchStream(ArrayDataset("two", array), 0)
    for resolution in (64, 32, 16, 8, 4, 1):
        values = stream.batch(0, 2, resolution)[0]
        assert sorted(values.unique().tolist()) == [-1.0, 1.0]


def test_a_set_without_labels_gives_none() -> None:
    dataset = in_memory(5)
    dataset.labels = None
    assert BatchStream(dataset, 0).batch(0, 3)[1] is None


@given(size=st.integers(1, 30), seed=st.integers(0, 2**40), count=st.integers(1, 17))
@settings(max_examples=40, deadline=None)
def test_each_image_is_served_once_an_epoch(size: int, seed: int, count: int) -> None:
    stream = BatchStream(in_memory(size), seed)
    sequence: list[int] = []
    while len(sequence) < 3 * size:
        sequence += served(stream, len(sequence), count)
    for epoch in range(3):
        assert sorted(sequence[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(size=st.integers(1, 30), start=st.integers(0, 200), count=st.integers(1, 17), split=st.integers(0, 17))
@settings(max_examples=40, deadline=None)
def test_any_position_can_be_reached_at_once(size: int, start: int, count: int, split: int) -> None:
    walked = BatchStream(in_memory(size), 7)
    whole = served(walked, start, count)
    split = min(split, count)
    fresh = BatchStream(in_memory(size), 7)
    assert served(fresh, start + split, count - split) == whole[split:]
    assert served(fresh, start, split) == whole[:split]


@given(size=st.integers(1, 30), start=st.integers(0, 99), count=st.integers(1, 6), world=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_ranks_share_the_global_batch_out(size: int, start: int, count: int, world: int) -> None:
    whole = served(BatchStream(in_memory(size), 3), start, count * world)
    for rank in range(world):
        stream = BatchStream(in_memory(size), 3, rank=rank, world_size=world)
        assert served(stream, start, count) == whole[rank::world]


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = {tuple(permutation(seed, epoch, 20)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_the_order_is_the_same_on_every_machine() -> None:
    assert permutation(1, 2, 8).tolist() == [0, 2, 1, 6, 4, 3, 5, 7]


def test_asking_twice_gives_the_same_twice() -> None:
    for dataset in (in_memory(9), Numbered(9)):
        stream = BatchStream(dataset, 1)
        assert torch.equal(stream.batch(4, 5, 4)[0], stream.batch(4, 5, 4)[0])


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
def test_looking_ahead_never_changes_a_batch(prefetch: int) -> None:
    plain = BatchStream(in_memory(11), 5)
    ahead = BatchStream(Numbered(11), 5, prefetch=prefetch)
    jumps = [
        (0, 4, 8),
        (4, 4, 8),
        (8, 4, 8),
        (12, 4, 4),
        (16, 4, 4),
        (3, 2, 4),
        (90, 6, 8),
        (96, 6, 8),
        (0, 4, 8),
    ]
    for position, count, resolution in jumps:
        assert torch.equal(
            ahead.batch(position, count, resolution)[0], plain.batch(position, count, resolution)[0]
        )
    ahead.close()
    assert torch.equal(ahead.batch(40, 3)[0], plain.batch(40, 3)[0])
    ahead.close()


def test_a_batch_decoded_ahead_is_not_decoded_again() -> None:
    dataset = Numbered(100)
    stream = BatchStream(dataset, 0, prefetch=1)
    for step in range(5):
        stream.batch(4 * step, 4)
    stream.close()
    assert len({tuple(call) for call in dataset.calls}) == len(dataset.calls)


def test_a_thread_that_reads_ahead_asks_torch_for_no_threads() -> None:
    """Else libgomp, with more threads than cores, puts the training step's to sleep between its tasks."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are counted where there is a /proc")

    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    large = np.zeros((64, 3, 64, 64), dtype=np.uint8)
    try:
        with ThreadPoolExecutor(1) as reader:
            reader.submit(int).result()
            started = count()
            reader.submit(to_float, large, 1).result()
            assert count() <= started
            reader.submit(lambda: torch.from_numpy(large).float().div_(2.0)).result()
            assert count() > started  # what is looked out for here is there to be seen
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("resolution", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("memory", [True, False])
def test_lower_resolutions_are_means_of_blocks(resolution: int, memory: bool) -> None:
    dataset = in_memory(6, 32, 3)
    shown = dataset if memory else _OnDemand(dataset)
    images, labels = BatchStream(shown, 0).batch(2, 4, resolution)
    assert labels is not None
    factor = 32 // resolution
    blocks = dataset.array[labels.numpy()].reshape(4, 3, resolution, factor, resolution, factor)
    expected = blocks.astype(np.float64).mean(axis=(3, 5)) / 127.5 - 1
    assert np.abs(images.numpy() - expected).max() < 1e-6


class _OnDemand:
    """The same images, with no array in sight."""

    def __init__(self, inner: ArrayDataset) -> None:
        self.name, self.resolution, self.channels = inner.name, inner.resolution, inner.channels
        self.labels, self.label_names, self.factors = inner.labels, None, None
        self.skipped, self.digest, self.images = inner.skipped, inner.digest, inner.images
        self._size = len(inner)

    def __len__(self) -> int:
        return self._size


@pytest.mark.parametrize("full", [32, 512])
def test_block_sums_are_exact_integers_however_large_the_block(full: int) -> None:
    images = np.full((1, 1, full, full), 255, np.uint8)
    resolution = 1
    while resolution <= full:
        sums = box_sums(images, resolution)
        assert sums.shape == (1, 1, resolution, resolution)
        assert (sums == 255 * (full // resolution) ** 2).all()
        resolution *= 2


def test_a_batch_may_be_changed_in_place_without_harm() -> None:
    stream = BatchStream(in_memory(4), 0)
    for resolution in (8, 4):
        first = stream.batch(0, 4, resolution)[0]
        kept = first.clone()
        first.zero_()
        assert torch.equal(stream.batch(0, 4, resolution)[0], kept)


@pytest.mark.parametrize("resolution", [3, 16, 0, 5])
def test_a_resolution_that_halving_cannot_reach_is_refused(resolution: int) -> None:
    with pytest.raises(DataError, match=f"cannot give {resolution}x{resolution} images of 8x8 ones"):
        BatchStream(in_memory(4), 0).batch(0, 2, resolution)


def test_an_empty_set_and_a_rank_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="holds no images"):
        BatchStream(in_memory(0), 0)
    with pytest.raises(ValueError, match="rank 2 is not in"):
        BatchStream(in_memory(4), 0, rank=2, world_size=2)
    with pytest.raises(ValueError, match="must not be negative"):
        BatchStream(in_memory(4), 0).batch(-1, 2)


def test_the_time_spent_on_a_batch_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.25, 20.0, 20.5])
    monkeypatch.setattr(loading.time, "perf_counter", lambda: next(clock))
    stream = BatchStream(in_memory(4), 0)
    assert stream.waited == 0
    stream.batch(0, 2)
    stream.batch(2, 2)
    assert stream.waited == 0.75
