"""An order of samples that does not depend on the order in which they came."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def in_canonical_order(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The rows of (N, D) in the order of their bytes.

    What divides samples into folds, starts clusters or takes a subset does it on this order, so that a score is a
    function of the set.
    """
    contiguous = np.ascontiguousarray(rows)
    as_one = contiguous.view(np.dtype((np.void, contiguous.dtype.itemsize * contiguous.shape[1])))[:, 0]  # (N,)
    ordered: npt.NDArray[Any] = contiguous[np.argsort(as_one, kind="stable")]
    return ordered
