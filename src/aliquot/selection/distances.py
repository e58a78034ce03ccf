"""Exact squared distances of pairs of rows: in float64 from differences, the same bits on every call."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.selection.vectors import Features

_NUMBERS = 1 << 20  # features of all pairs that are subtracted at once


def squared_distances(
    x: Features, rows: Int64[np.ndarray, " p"], columns: Int64[np.ndarray, " p"]
) -> Float64[np.ndarray, " p"]:
    """Return |x_i - x_j|^2 of the pairs (rows[p], columns[p]); a pair has the same bits in either order."""
    size = max(1, _NUMBERS // max(1, x.shape[1]))
    squared = np.empty(len(rows))
    for first in range(0, len(rows), size):
        part = slice(first, first + size)
        squared[part] = np.square(x[rows[part]].astype(np.float64) - x[columns[part]]).sum(axis=1)
    return squared
