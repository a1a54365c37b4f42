"""Streams: whose turn each datum is, exactly once an epoch over all processes, and the same from any position on."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ganvas.engine.feed import Feed
from ganvas.errors import DataError
from ganvas.runtime import ranks
from ganvas.shelves.data.reading.encoded import Encoded
from ganvas.shelves.data.reading.options import PIXELS_AS_THEY_ARE, PixelOptions
from ganvas.shelves.data.reading.stream import StreamedImages
from ganvas.types import StreamedDataset


def pixel(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 1), value % 256).save(file, "PNG")
    return file.getvalue()


class Numbers:
    """Shards whose images are numbered through; the number is the label."""

    def __init__(self, counts: list[int], *, broken: frozenset[int] = frozenset(), lying: int = 0) -> None:
        self.real = counts
        self.counts = [count + lying for count in counts]
        self.names = [f"{number}.tar" for number in range(len(counts))]
        self.first = np.cumsum([0, *counts])
        self.broken = broken
        self.opened: list[tuple[int, int]] = []

    def read(self, shard: int, start: int) -> Iterator[Encoded]:
        self.opened.append((shard, start))
        for number in range(self.first[shard] + start, self.first[shard + 1]):
            yield Encoded(f"image {number}", b"?" if number in self.broken else pixel(number), int(number))


def streamed(shards: Numbers, block: int, options: PixelOptions = PIXELS_AS_THEY_ARE, **more: str) -> StreamedImages:
    classes = tuple(map(str, range(sum(shards.counts))))
    kept = {"corrupt": "stop", **more}
    return StreamedImages(shards, options, where="here", class_names=classes, fingerprint="f", block=block, **kept)


def taken(data: StreamedImages, sizes: list[int], *, seed: int = 0, rank: int = 0, world: int = 1, position: int = 0):
    stream = data.stream(seed=seed, rank=rank, world=world, position=position)
    return [int(n) for size in sizes for n in stream.take(size, np.random.default_rng(0)).label]


several = st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(lambda counts: sum(counts) > 1)


def test_it_is_a_streamed_dataset() -> None:
    data = streamed(Numbers([3, 2]), 2)
    assert isinstance(data, StreamedDataset)
    assert len(data) == 5


@settings(max_examples=60, deadline=None)
@given(counts=several, block=st.integers(1, 12), seed=st.integers(0, 2**31), world=st.integers(1, 4))
def test_every_datum_once_an_epoch_over_all_processes(counts: list[int], block: int, seed: int, world: int) -> None:
    counts += [1] * (world - len(counts))  # no fewer shards than processes
    data = streamed(Numbers(counts), block)
    for epoch in range(2):
        found: list[int] = []
        for rank in range(world):
            own = [int(data._counts[data.dealt(seed, e, rank, world)].sum()) for e in range(epoch + 1)]
            if own[epoch]:
                found += taken(data, [own[epoch]], seed=seed, rank=rank, world=world, position=sum(own[:epoch]))
        assert sorted(found) == list(range(sum(counts)))


@settings(max_examples=60, deadline=None)
@given(counts=several, block=st.integers(1, 12), world=st.integers(1, 3), position=st.integers(0, 60), data_=st.data())
def test_from_any_position_the_same_follow(
    counts: list[int], block: int, world: int, position: int, data_: st.DataObject
) -> None:
    counts += [1] * (world - len(counts))
    rank = data_.draw(st.integers(0, world - 1))
    data = streamed(Numbers(counts), block)
    share = {"seed": 5, "rank": rank, "world": world}
    whole = taken(data, [7] * 10, **share)
    assert taken(data, [5, 5], **share, position=position) == whole[position : position + 10]


def test_order_is_a_function_of_seed_epoch_and_rank() -> None:
    data = streamed(Numbers([8] * 6), 5)
    first, second = (taken(data, [48, 48], seed=seed) for seed in (0, 1))
    assert taken(data, [48, 48]) == first  # nothing else
    assert first[:48] != second[:48]  # seed
    assert first[:48] != first[48:]  # epoch
    mine, other = (taken(data, [24], rank=rank, world=2) for rank in (0, 1))
    assert not {*mine} & {*other}
    assert first[:48] != sorted(first[:48])


def test_neighbours_in_a_shard_part_as_far_as_a_block_goes() -> None:
    data = streamed(Numbers([100] * 4), 50)
    order = np.array(taken(data, [400]))
    for start in range(0, 400, 50):
        block = order[start : start + 50]
        assert len({*(block // 100)}) == 1  # blocks divide shards here
        assert (np.diff(block) == 1).mean() < 0.1


def test_going_on_reads_one_block_again_and_no_shard_before_it() -> None:
    shards = Numbers([100] * 5)
    data = streamed(shards, 30)
    shards.opened.clear()
    taken(data, [1], position=275)
    assert shards.opened[0][1] == 70  # block 9 begins at datum 270: the third shard's 70th


def test_walking_is_in_order_and_whole() -> None:
    data = streamed(Numbers([3, 0, 5, 2]), 4, PixelOptions(flip=True))
    batches = list(data.walk(4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch.label for batch in batches]).tolist() == list(range(10))
    values = torch.cat([batch.data for batch in batches])[:, 0, 0, 0]
    assert torch.allclose((values + 1) * 127.5, torch.arange(10.0), atol=1e-4)


def test_a_corrupt_image_stops_or_is_replaced_by_the_next_of_its_block() -> None:
    with pytest.raises(DataError) as caught:
        taken(streamed(Numbers([80, 80], broken=frozenset({70})), 10), [160])
    assert caught.value.where == "image 70"
    data = streamed(Numbers([80, 80], broken=frozenset({70})), 10, corrupt="skip")
    with pytest.warns(UserWarning, match="stands in for the corrupt image 70"):
        whole = taken(data, [7] * 20)
    assert 70 not in whole
    twice = {n for n in whole[:160] if whole[:160].count(n) == 2}
    assert len(twice) <= 1
    assert taken(data, [20], position=60) == whole[60:80]


def test_a_wrong_count_is_told_before_a_position_means_something_else() -> None:
    for lying, words in ((1, "holds 4 images, not 5"), (-1, "holds more than 3 images, not 3")):
        with pytest.raises(DataError, match=words):
            taken(streamed(Numbers([4, 4], lying=lying), 3), [20])


def test_more_processes_than_shards() -> None:
    with pytest.raises(DataError, match="3 processes cannot share 2 shards"):
        streamed(Numbers([4, 4]), 3).stream(seed=0, rank=0, world=3, position=0)


def test_the_feed_reads_streams_and_resumes_them() -> None:
    data = streamed(Numbers([9, 4, 6]), 4, PixelOptions(flip=True))

    def feed() -> Feed:
        return Feed(data, 5, 3, torch.device("cpu"), channels_last=False)

    whole = feed()
    batches = [next(whole) for _ in range(9)]
    read = [n for batch in batches for n in batch.label.tolist()]
    assert sorted(read[:19]) == sorted(read[19:38]) == list(range(19))
    resumed = feed()
    resumed.position = 25
    for batch in batches[5:]:
        again = next(resumed)
        assert torch.equal(again.data, batch.data)  # flips come back, too
        assert torch.equal(again.label, batch.label)


def test_processes_that_train_together_read_each_datum_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = streamed(Numbers([10, 10, 10, 10]), 4)

    def read(rank: int, batches: int, position: int = 0) -> list[int]:
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        monkeypatch.setattr(ranks, "world", lambda: 2)
        feed = Feed(data, 8, 3, torch.device("cpu"), channels_last=False)
        feed.position = position
        return [n for _ in range(batches) for n in next(feed).label.tolist()]

    both = [read(rank, 5) for rank in (0, 1)]
    assert [len(each) for each in both] == [20, 20]  # half of each batch
    assert sorted(both[0] + both[1]) == list(range(40))
    assert [read(rank, 3, position=16) for rank in (0, 1)] == [each[8:] for each in both]
