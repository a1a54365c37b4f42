"""Sentences of a tiny grammar, drawn by code: texts of which it can be said exactly whether they are right."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray

from ganvas.parts import data_spec, dataset
from ganvas.shelves.data.reading.store import digest_array, digest_of
from ganvas.toys.grammar import LENGTH, NUMBERS, VOCABULARY, sentences
from ganvas.types import Batch, Dataset, DataSpec, label_of

TEST_SEED = 1_000_003  # added for the test split: far from the seeds that people choose


@dataset("grammar", tiny={"count": 64})
class Grammar(Dataset):
    """Random sentences of `ganvas.toys.grammar`, a character a token, filled up with spaces; the label is the number.

    Data are (N, length) int64. `ganvas.toys.grammar.number_of` says whether a text is a sentence of it.

    Parameters
    ----------
    count : how many sentences; there are 414,720 different ones.
    seed : chooses them.
    split : test has the same distribution, drawn independently.
    """

    def __init__(
        self,
        *,
        count: Annotated[int, Ge(2)] = 10_000,
        seed: Annotated[int, Ge(0)] = 0,
        split: Literal["train", "test"] = "train",
    ) -> None:
        texts, self.labels = sentences(count, (seed + (TEST_SEED if split == "test" else 0)) % 2**32)
        numbers = {character: number for number, character in enumerate(VOCABULARY)}
        self.tokens = np.array([[numbers[letter] for letter in text.ljust(LENGTH)] for text in texts], dtype=np.int64)
        self.spec = self.preview()
        self.class_names = NUMBERS
        self.fingerprint = digest_of({"content": digest_array(self.tokens), "labels": digest_array(self.labels)})

    @classmethod
    def preview(cls, **_: object) -> DataSpec:
        """What these keys promise."""
        return data_spec({"use": "text", "vocabulary": list(VOCABULARY)}, (LENGTH,), label_of(len(NUMBERS)))

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The sentences (n, length) at `indices` and the numbers (n,) of their subjects."""
        rows, labels = self.tokens[indices], self.labels[indices]
        return Batch.labelled(torch.from_numpy(rows), torch.from_numpy(labels), indices)
