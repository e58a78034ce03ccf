"""How typical each row is of its group: near to its neighbors there (Hacohen, Dekel, Weinshall 2022).

Products in float64 find the possible neighbors of a row; their distances then come from differences. So equal rows tie
exactly, and neither blocks nor threads change a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.selection.clustering import number_rows
from aliquot.selection.distances import squared_distances
from aliquot.selection.greedy.workers import numpy_workers
from aliquot.selection.vectors import Features

_PAIRS = 1 << 21  # products of a block
_ROUNDING = float(np.finfo(np.float64).eps)  # of one operation


def typicality(
    features: Features, labels: Int64[np.ndarray, " n"], num_neighbors: int = 20
) -> Float64[np.ndarray, " n"]:
    """Return the mean distance of each row to its nearest neighbors in its own group: the smaller, the more typical.

    The paper's typicality is the inverse of this distance. A row counts min(num_neighbors, size - 1) neighbors, and has
    distance 0 in a group of one. Equal rows are neighbors at distance 0.

    Args:
        features: of the rows.
        labels: the group of each row, any integers.
        num_neighbors: 1 or more; 20 in the paper.
    """
    x = np.ascontiguousarray(features, dtype=np.float32)
    equal, mean = number_rows(x), np.zeros(len(x))
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    with numpy_workers() as workers:
        for group in (group for group in groups if len(group) > 1):
            points, number = _distinct(x, group, equal)
            found = workers.map(partial(points.mean_distances, num_neighbors), points.blocks())
            mean[group] = np.concatenate(list(found))[number]
    return mean


@dataclass(frozen=True)
class _Points:
    """The distinct rows of a group.

    Args:
        x: the features.
        rows: one of the equal rows each.
        counts: how many equal rows each stands for.
        centered: their features around their mean, where products are the most accurate.
        squares: the squared lengths of these.
    """

    x: Features
    rows: Int64[np.ndarray, " m"]
    counts: Int64[np.ndarray, " m"]
    centered: Float64[np.ndarray, "m d"]
    squares: Float64[np.ndarray, " m"]

    def blocks(self) -> Iterator[slice]:
        """Yield slices of the distinct rows that cover them all."""
        size = max(1, _PAIRS // len(self.rows))
        return (slice(first, first + size) for first in range(0, len(self.rows), size))

    def mean_distances(self, num_neighbors: int, block: slice) -> Float64[np.ndarray, " b"]:
        """Return the mean distance of the rows of a block to their neighbors, equal rows included."""
        points = np.arange(len(self.rows))[block]
        wanted = np.minimum(num_neighbors, self.counts.sum() - 1)
        position, nearest = self._possible(block, min(int(wanted), len(self.rows) - 1))
        distances = np.sqrt(squared_distances(self.x, self.rows[points[position]], self.rows[nearest]))
        left = np.maximum(wanted - (self.counts[points] - 1), 0)  # after the equal rows, at distance 0
        return _sums_of_first(position, distances, self.counts[nearest], left) / wanted

    def _possible(self, block: slice, m: int) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
        """Return pairs (row of the block, other row) that hold the m nearest others of each row of the block."""
        if m == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        squares = self.squares[block]
        squared = squares[:, None] + self.squares - 2 * self.centered[block] @ self.centered.T
        squared[np.arange(len(squares)), np.arange(len(self.rows))[block]] = np.inf
        error = _ROUNDING * (self.x.shape[1] + 8) * (squares + self.squares.max())
        limit = np.partition(squared, m - 1, axis=1)[:, m - 1] + 2 * error
        return (squared <= limit[:, None]).nonzero()


def _distinct(
    x: Features, group: Int64[np.ndarray, " g"], equal: Int64[np.ndarray, " n"]
) -> tuple[_Points, Int64[np.ndarray, " g"]]:
    """Return the distinct rows of a group, and for each row of the group which one it equals."""
    _, first, number, counts = np.unique(equal[group], return_index=True, return_inverse=True, return_counts=True)
    rows = group[first]
    centered = x[rows].astype(np.float64)
    centered -= centered.mean(axis=0)
    return _Points(x, rows, counts, centered, np.einsum("md,md->m", centered, centered)), number


def _sums_of_first(
    position: Int64[np.ndarray, " p"],
    values: Float64[np.ndarray, " p"],
    counts: Int64[np.ndarray, " p"],
    wanted: Int64[np.ndarray, " b"],
) -> Float64[np.ndarray, " b"]:
    """Return the sum of the `wanted` smallest values at each position, a value occurring `counts` times."""
    order = np.lexsort((values, position))
    position, values, counts = position[order], values[order], counts[order]
    end = np.cumsum(counts)
    before = end - counts
    first = np.searchsorted(position, np.arange(len(wanted)))
    base = np.concatenate([before, end[-1:]])[first] if len(before) else np.zeros(len(wanted), dtype=np.int64)
    used = np.clip(wanted[position] - (before - base[position]), 0, counts)
    return np.bincount(position, weights=used * values, minlength=len(wanted))
