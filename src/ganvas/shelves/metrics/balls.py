"""Balls around samples that reach to their k-th nearest neighbours, and which other samples lie inside.

All pairs are compared, in tiles of bounded memory. Tiles of float32 features are made in float32 with a bound on their
rounding error, and whatever the bound leaves open is computed again in float64: the answers are those of float64 at the
speed of float32. Lengths are compared in the precision of the features, so that ties fall alike on every machine: those
of float32 features are equal where they round to the same float32, as in prdc.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ganvas.errors import UsageError
from ganvas.shelves.metrics.arrays import same_width
from ganvas.stats.moments import Double, Rows

TILE = 2048  # rows and columns of a tile
SPARE = 8  # nearest neighbours kept beyond the k-th, among which rounding may have hidden it
EXACT_BYTES = 2**24  # of features that are subtracted from each other at once
_RIM = 1e-9  # squared distances of float64 features that agree to this relative size are equal

Rim = Literal["outside", "inside"]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


class Side:
    """One of the two sets: rows about the common centre, times a power of 2 that keeps their squares in range.

    Blocks are made when asked for, and never the whole set: it may be large, or a file.
    """

    def __init__(self, features: Rows, centre: Double, exponent: int, dtype: type[np.floating[Any]]) -> None:
        self.features = features
        self._centre = centre.astype(dtype)
        self._exponent = exponent
        self._dtype = dtype

    def __len__(self) -> int:
        return len(self.features)

    def slices(self) -> list[slice]:
        return [slice(start, min(start + TILE, len(self))) for start in range(0, len(self), TILE)]

    def block(self, part: slice | Indices, dtype: type[np.floating[Any]] | None = None) -> Rows:
        """Rows (n, D) in `dtype`, or in the precision of both sets."""
        block = self.features[part].astype(dtype or self._dtype)
        block -= self._centre
        return np.ldexp(block, self._exponent, out=block)

    def norms(self) -> Double:
        """Squared norms (N,) of all rows."""
        return np.concatenate([_norms(self.block(part)) for part in self.slices()]).astype(np.float64)

    def exact(self, index: Indices, other: Side, other_index: Indices) -> Double:
        """Squared distances (n,) between pairs of rows, from their differences in float64."""
        squared = np.empty(len(index))
        step = max(1, EXACT_BYTES // (8 * self.features.shape[1]))
        for start in range(0, len(index), step):
            part = slice(start, start + step)
            difference = self.features[index[part]].astype(np.float64)  # (step, D)
            difference -= other.features[other_index[part]]
            squared[part] = _norms(np.ldexp(difference, self._exponent, out=difference))
        return squared


class Inside(NamedTuple):
    """One tile: which of the fake samples `fake` lie in the balls around the real samples `real`, and the other way."""

    real: slice
    fake: slice
    in_real: Mask  # (r, f): this fake sample is in this real one's ball; empty without real radii
    in_fake: Mask  # (r, f): this real sample is in this fake one's ball; empty without fake radii


class Balls:
    """Two sets of features (N, D) and (M, D). Lengths are in a unit of their own until `length` is asked.

    Raises
    ------
    UsageError : the sets differ in D.
    """

    def __init__(self, real: Rows, fake: Rows) -> None:
        same_width(real, fake)
        centre = real.mean(axis=0, dtype=np.float64)
        # An overestimate of the largest coordinate will do: only its power of 2 is used.
        self._exponent = -math.frexp(
            max(max(features.max() - centre.min(), centre.max() - features.min()) for features in (real, fake))
        )[1]
        self._dtype = np.float32 if real.dtype == fake.dtype == np.float32 else np.float64
        self.real, self.fake = (Side(features, centre, self._exponent, self._dtype) for features in (real, fake))
        # Of a dot product of D terms, whose rounding errors have random signs, and of the terms themselves; doubled.
        self._error = (32 + 2 * math.sqrt(real.shape[1])) * float(np.finfo(self._dtype).eps)

    def length(self, squared: Double) -> Double:
        """The lengths, in the features' unit, of squared ones in the own unit."""
        return np.ldexp(np.sqrt(squared), -self._exponent)

    def radii(self, side: Side, k: int) -> Double:
        """Squared distance (N,) from each sample of a side to its k-th nearest other one.

        Raises
        ------
        UsageError : there are no k others.
        """
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        if len(side) <= k:
            raise UsageError(
                f"the {k} nearest neighbours of {len(side)} samples do not exist",
                hint=f"give at least {k + 1} samples",
            )
        near = self._nearest(side, min(k + SPARE, len(side) - 1))
        kth = np.partition(near.squared, k - 1, axis=1)[:, k - 1].astype(np.float64)
        bound = self._bound(side.norms(), kth)
        # Rounding moves the k-th smallest by no more than the bound, and each single one, too.
        nearer = near.squared < (kth - 2 * bound)[:, None]  # surely nearer than the k-th
        unsure: Mask = (near.squared <= (kth + 2 * bound)[:, None]) & ~nearer  # (N, K)
        exact = np.full(near.squared.shape, np.inf)
        row, place = np.nonzero(unsure)
        exact[row, place] = side.exact(row, side, near.index[row, place])
        exact.sort(axis=1)
        radii: Double = exact[np.arange(len(side)), k - 1 - nearer.sum(axis=1)]
        full = np.flatnonzero((nearer | unsure).all(axis=1))  # there may be more at this distance than are kept: copies
        if near.squared.shape[1] < len(side) - 1 and len(full):
            radii[full] = self._crowded_radii(side, full, k)
        return radii

    def inside(self, real_radii: Double | None, fake_radii: Double | None, *, rim: Rim) -> Iterator[Inside]:
        """Tiles that cover all pairs, for squared radii of balls around either or both sides.

        `rim` says where a sample on the rim of a ball, within rounding, belongs.
        """
        of_real, of_fake = _Limits(self, self.real, real_radii), _Limits(self, self.fake, fake_radii)
        for real_part in self.real.slices():
            left = _left(self.real.block(real_part))
            for fake_part in self.fake.slices():
                squared = left @ _right(self.fake.block(fake_part)).T  # (r, f)
                yield Inside(
                    real_part,
                    fake_part,
                    self._below(squared, *of_real.column(real_part), real_part, fake_part, rim),
                    self._below(squared, *of_fake.row(fake_part), real_part, fake_part, rim),
                )

    def squared(self) -> Iterator[tuple[slice, slice, Double]]:
        """(real rows, fake rows, squared distances between them (r, f) in float64); copies are at distance 0."""
        for real_part in self.real.slices():
            block = self.real.block(real_part, np.float64)
            for fake_part in self.fake.slices():
                yield real_part, fake_part, _squared64(block, self.fake.block(fake_part, np.float64))

    def _bound(self, norms: Double, squared: Double) -> Double:
        """How far rounding can move a squared distance of this size from a row of squared norm `norms`.

        It is relative to |x|^2 + |y|^2, and |y| <= |x| + |x - y|.
        """
        bound: Double = self._error * (norms + (np.sqrt(norms) + np.sqrt(np.maximum(squared, 0))) ** 2)
        return bound

    def _below(self, squared: Rows, limit: Double, bound: Double, real_part: slice, fake_part: slice, rim: Rim) -> Mask:
        """Which pairs of a tile are nearer than a squared radius (r, 1) or (1, f), as far as `_holds` can tell."""
        if not limit.size:
            return np.zeros((0, 0), dtype=bool)
        below: Mask = squared < (limit - bound).astype(squared.dtype)
        at_most = squared <= (limit + bound).astype(squared.dtype)
        unsure = np.count_nonzero(at_most) - np.count_nonzero(below)
        if unsure * 64 > squared.size:  # copies: the whole tile is cheaper
            exact = _squared64(self.real.block(real_part, np.float64), self.fake.block(fake_part, np.float64))
            return self._holds(exact, limit, rim)
        if unsure:
            row, column = np.divmod(np.flatnonzero(at_most ^ below), squared.shape[1])
            exact = self.real.exact(row + real_part.start, self.fake, column + fake_part.start)
            limits = np.broadcast_to(limit, squared.shape)[row, column]
            below[row, column] = self._holds(exact, limits, rim)
        return below

    def _holds(self, squared: Double, limit: Double, rim: Rim) -> Mask:
        """Whether a ball of squared radius `limit` holds what is at this squared distance, both in float64."""
        if self._dtype is np.float32:
            distance, radius = (np.sqrt(values.astype(np.float32)) for values in (squared, limit))
            holds: Mask = distance <= radius if rim == "inside" else distance < radius
        else:
            holds = squared <= limit * (1 + _RIM) if rim == "inside" else squared < limit * (1 - _RIM)
        return holds

    def _nearest(self, side: Side, k: int) -> _Nearest:
        """The k nearest others of each row, up to rounding; each pair of blocks is multiplied once."""
        near = _Nearest(len(side), k, self._dtype)
        slices = side.slices()
        for first in slices:  # these first: then most of the rest is seen to be farther at once
            block = side.block(first)
            squared = _left(block) @ _right(block).T
            np.fill_diagonal(squared, np.inf)
            near.add(squared, first, first)
        for i, first in enumerate(slices[:-1]):
            left = _left(side.block(first))
            for second in slices[i + 1 :]:
                squared = left @ _right(side.block(second)).T
                near.add(squared, first, second)
                near.add_transposed(squared, first, second)
        return near

    def _crowded_radii(self, side: Side, index: Indices, k: int) -> Double:
        """Squared distances (n,) from the rows `index` to their k-th nearest others, in float64 from the start."""
        farthest = []
        for start in range(0, len(index), TILE):
            chosen = index[start : start + TILE]
            block, near = side.block(chosen, np.float64), _Nearest(len(chosen), k, np.float64)
            for part in side.slices():
                squared = _squared64(block, side.block(part, np.float64))
                itself = ((chosen >= part.start) & (chosen < part.stop)).nonzero()[0]
                squared[itself, chosen[itself] - part.start] = np.inf
                near.add(squared, slice(0, len(chosen)), part)
            farthest.append(near.squared.max(axis=1))
        return np.concatenate(farthest)


class _Limits:
    """Squared radii, and how near to them a squared distance has to be looked at again."""

    def __init__(self, balls: Balls, side: Side, radii: Double | None) -> None:
        self._limit = np.zeros(0) if radii is None else radii
        self._bound = np.zeros(0) if radii is None else balls._bound(side.norms(), radii) + 2 * _RIM * radii

    def column(self, part: slice) -> tuple[Double, Double]:
        return self._limit[part, None], self._bound[part, None]

    def row(self, part: slice) -> tuple[Double, Double]:
        return self._limit[None, part], self._bound[None, part]


class _Nearest:
    """The k smallest values of each row so far, in no order, and their columns."""

    def __init__(self, n: int, k: int, dtype: type[np.floating[Any]]) -> None:
        self.squared = np.full((n, k), np.inf, dtype=dtype)
        self.index = np.zeros((n, k), dtype=np.intp)
        self._farthest = np.full(n, np.inf, dtype=dtype)  # of those that are kept

    def add(self, tile: Rows, rows: slice, columns: slice) -> None:
        """Look through a tile (r, c) of these rows and columns."""
        k = self.squared.shape[1]
        if np.isinf(self._farthest[rows]).all() and k < tile.shape[1]:  # nothing is kept yet: all of it is news
            nearest = np.argpartition(tile, k - 1, axis=1)[:, :k]
            self.index[rows] = nearest + columns.start
            self.squared[rows] = np.take_along_axis(tile, nearest, axis=1)
            self._farthest[rows] = self.squared[rows].max(axis=1)
            return
        row, column = np.divmod(np.flatnonzero(tile < self._farthest[rows, None]), tile.shape[1])
        self._keep(rows, row, column + columns.start, tile[row, column])

    def add_transposed(self, tile: Rows, rows: slice, columns: slice) -> None:
        """The same with the tile turned: `columns` are rows of this table, and `rows` its columns."""
        column, row = np.divmod(np.flatnonzero(tile < self._farthest[None, columns]), tile.shape[1])
        order = np.argsort(row, kind="stable")
        row, column = row[order], column[order]
        self._keep(columns, row, column + rows.start, tile[column, row])

    def _keep(self, rows: slice, row: Indices, column: Indices, values: Rows) -> None:
        """Take in values whose rows, counted from the beginning of `rows`, ascend."""
        if not len(row):
            return
        changed, start, counts = np.unique(row, return_index=True, return_counts=True)
        where = np.repeat(np.arange(len(changed)), counts), np.arange(len(row)) - np.repeat(start, counts)
        new = np.full((len(changed), counts.max()), np.inf, dtype=values.dtype)
        index = np.zeros(new.shape, dtype=np.intp)
        new[where], index[where] = values, column
        changed += rows.start
        k = self.squared.shape[1]
        both = np.concatenate([self.squared[changed], new], axis=1)
        place = np.argpartition(both, k - 1, axis=1)[:, :k]
        self.squared[changed] = np.take_along_axis(both, place, axis=1)
        self.index[changed] = np.take_along_axis(np.concatenate([self.index[changed], index], axis=1), place, axis=1)
        self._farthest[changed] = self.squared[changed].max(axis=1)


def _norms(block: Rows) -> Rows:
    norms: Rows = np.einsum("nd,nd->n", block, block)
    return norms


def _left(block: Rows) -> Rows:
    """(n, D) -> (n, D + 2), so that the product with `_right` of another block is |x|^2 + |y|^2 - 2 x.y."""
    norms = _norms(block)[:, None]
    return np.concatenate([-2 * block, norms, np.ones_like(norms)], axis=1)


def _right(block: Rows) -> Rows:
    norms = _norms(block)[:, None]
    return np.concatenate([block, np.ones_like(norms), norms], axis=1)


def _squared64(x: Double | Rows, y: Double | Rows) -> Double:
    """Squared distances (n, m) in float64; what is below the rounding error is 0, so that copies are at distance 0."""
    squared: Double = (_left(x) @ _right(y).T).astype(np.float64, copy=False)
    noise = _norms(x)[:, None] + _norms(y)
    noise *= (16 + math.sqrt(x.shape[1])) * float(np.finfo(np.float64).eps)
    squared[squared <= noise] = 0
    return squared
