"""The order of data is a pure function of (seed, epoch)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganvas.engine.feed import Feed
from ganvas.parts import image_spec
from ganvas.types import Batch, Condition, Dataset


class Indices(Dataset):
    """A data set whose datum i is i, and which shows what its random numbers were."""

    spec = image_spec((1,))
    fingerprint = "indices"

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        drawn = torch.full((len(indices),), int(rng.integers(1 << 30)))
        return Batch.labelled(torch.from_numpy(indices).float().unsqueeze(1), drawn)


def feed_of(n: int, batch: int, seed: int = 0) -> Feed:
    return Feed(Indices(n), batch, seed, torch.device("cpu"), channels_last=False)


def read(feed: Feed, batches: int) -> list[int]:
    return [int(i) for _ in range(batches) for i in next(feed).data.flatten()]


@given(n=st.integers(1, 40), batch=st.integers(1, 100), seed=st.integers(0, 2**31), epochs=st.integers(1, 3))
def test_every_epoch_is_a_permutation_though_batches_cross_it(n: int, batch: int, seed: int, epochs: int) -> None:
    stream = read(feed_of(n, batch, seed), -(-n * epochs // batch))
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(n=st.integers(2, 40), batch=st.integers(1, 50), done=st.integers(0, 6))
def test_position_alone_brings_the_stream_back(n: int, batch: int, done: int) -> None:
    whole, resumed = feed_of(n, batch), feed_of(n, batch)
    for _ in range(done):
        next(whole)
    resumed.position = whole.position
    for _ in range(3):
        one, other = next(whole), next(resumed)
        assert torch.equal(one.data, other.data)
        assert torch.equal(one.label, other.label)  # random flips and crops come back, too


def test_order_depends_on_seed_and_epoch() -> None:
    one = feed_of(100, 10, seed=1)
    first, second = one.order(0).tolist(), one.order(1).tolist()
    assert first != second
    assert first == feed_of(100, 7, seed=1).order(0).tolist()
    assert first != feed_of(100, 10, seed=2).order(0).tolist()


@pytest.mark.parametrize(("size", "pieces"), [(8, 1), (8, 2), (7, 3), (3, 5)])
def test_micro_batches_are_the_batch_cut_evenly(size: int, pieces: int) -> None:
    """Every field is cut alike, also conditions that no code knows by name."""
    given = Condition(label=torch.arange(size), low=torch.randn(size, 2, 2))
    batch = Batch(torch.arange(size).float().unsqueeze(1), given, torch.arange(size) + 100)
    cut = batch.split(pieces)
    assert len(cut) == min(size, pieces)
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    assert torch.equal(torch.cat([each.data for each in cut]), batch.data)
    assert torch.equal(torch.cat([each.label for each in cut]), batch.label)
    assert torch.equal(torch.cat([each.condition["low"] for each in cut]), given["low"])
    assert torch.equal(torch.cat([each.index for each in cut]), batch.index)
    bare = Batch(batch.data).split(pieces)
    assert all(each.label is None and each.index is None and not each.condition for each in bare)


def test_random_flips_and_crops_differ_from_batch_to_batch() -> None:
    feed = feed_of(100, 10)
    drawn = [int(next(feed).label[0]) for _ in range(20)]
    assert len(set(drawn)) == 20
