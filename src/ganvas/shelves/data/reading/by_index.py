"""Encoded images that can be read by index: what shards with an index and Arrow tables on the disk have in common."""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ganvas.parts import image_spec
from ganvas.shelves.data.reading.encoded import Decoder, Encoded, spread
from ganvas.shelves.data.reading.listing import OnCorrupt
from ganvas.shelves.data.reading.names import counted
from ganvas.shelves.data.reading.options import ImageOptions
from ganvas.shelves.data.reading.store import digest_of, require_two, subset
from ganvas.types import Batch, Census, Dataset, DataSpec


class EncodedImages(Dataset):
    """A `types.Dataset` of images that are read and decoded when a batch asks for them.

    A part initialises it with what it found and overrides `_encoded`.

    Attributes
    ----------
    spec, fingerprint, class_names, flips : see `types.Dataset`.
    """

    spec: DataSpec
    fingerprint: str
    class_names: tuple[str, ...]

    def _begin(
        self,
        labels: NDArray[np.int64] | None,
        class_names: tuple[str, ...],
        facts: Mapping[str, Any],
        options: ImageOptions,
        *,
        count: int,
        where: str,
        corrupt: OnCorrupt,
    ) -> None:
        """Settle what all images are brought to, by a look at a few of them.

        Parameters
        ----------
        labels : (count,) or None.
        facts : plain values that identify the content.

        Raises
        ------
        DataError : fewer than two images, or images that do not come to one form; see `Decoder`.
        """
        require_two(count, where=where)
        self._rows = subset(count, labels, options.limit)
        self._labels = labels
        self.flips = options.flip
        self.class_names = class_names
        looked_at = self._encoded(self._rows[spread(len(self._rows))])
        self._decoder = Decoder(looked_at, options, where=where, corrupt=corrupt)
        self.spec = image_spec(self._decoder.shape, num_classes=len(class_names))
        beyond = count - len(self._rows)
        self.census = Census(
            found=count, used=len(self._rows), left_out={"beyond data.limit": beyond} if beyond else {},
            sizes=self._decoder.sizes, modes=self._decoder.modes,
            classes=counted(None if labels is None else labels[self._rows], class_names),
            notes=self._decoder.notes,
        )  # fmt: skip
        self.fingerprint = digest_of({**facts, **dataclasses.asdict(options), "corrupt": corrupt, "decoded": "late"})

    @abstractmethod
    def _encoded(self, rows: NDArray[np.int64]) -> Sequence[Encoded]:
        """The images at these rows of the whole set."""

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """See `types.Dataset`. The datum behind it stands in for one that is corrupt."""

        def instead(number: int, tries: int) -> Encoded:
            return self._encoded(self._rows[[(int(indices[number]) + tries) % len(self._rows)]])[0]

        batch = self._decoder.batch(self._encoded(self._rows[indices]), instead, rng, flip=self.flips)
        return dataclasses.replace(batch, index=torch.as_tensor(indices))

    def unflipped(self) -> EncodedImages:
        """The same images without random flips."""
        still = copy.copy(self)
        still.flips = False
        return still

    def _label(self, row: int) -> int | None:
        return None if self._labels is None else int(self._labels[row])
