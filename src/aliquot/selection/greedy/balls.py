"""The rows inside a ball around each row, without the n x n matrix.

Products in float32 decide about most pairs. Those too close to the radius for that are decided in float64, from the
differences of the features, so that equal rows have the same balls. Compiled by numba.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from aliquot.runtime.progress import Progress
from aliquot.selection.distances import squared_distances
from aliquot.selection.greedy.numba_simd import compiled, exceeding
from aliquot.selection.greedy.set_cover import Sets
from aliquot.selection.greedy.workers import numpy_workers
from aliquot.selection.vectors import Features, central, half_squared_norms

_UNIT, _WIDTH = 256, 2048  # rows and columns of one product: 2 MB, the second-level cache
_SAMPLE = 256  # rows whose balls tell how large all are
_ENTRIES = 1 << 29  # of all balls together: 2 GB


def balls(x: Features, squared_radius: float) -> Sets:
    """Return for each row the rows at a distance smaller than the radius, in order, and always the row itself.

    Raises:
        ValueError: together, the balls hold about 5e8 rows or more, by those around a sample of the rows.
    """
    search = _Search.of(x, squared_radius)
    _check_size(search)
    rows, sizes = list[Int64[np.ndarray, " p"]](), list[Int64[np.ndarray, " u"]]()
    units = [np.arange(len(x))[first : first + _UNIT] for first in range(0, len(x), _UNIT)]
    with numpy_workers() as workers, Progress("balls", len(x), "prompt") as progress:
        for unit, (size, found) in zip(units, workers.map(search.around, units), strict=True):
            sizes.append(size)
            rows.append(found)
            progress.update(len(unit))
    return Sets(np.concatenate([[0], np.cumsum(np.concatenate(sizes))]), np.concatenate(rows))


@dataclass(frozen=True)
class _Search:
    """The search for rows inside the balls of some rows.

    Args:
        x: the features.
        centered: the same around a center that a few far rows do not move, where products are accurate.
        half: half the squared lengths of these.
        squared_radius: of all balls.
        rounding: of a product, relative to the sum of its `half`.
    """

    x: Features
    centered: Features
    half: Float64[np.ndarray, " n"]
    squared_radius: float
    rounding: float

    @classmethod
    def of(cls, x: Features, squared_radius: float) -> _Search:
        centered = x - central(x)
        rounding = (x.shape[1] + 16) * float(np.finfo(np.float32).eps)
        return cls(x, centered, half_squared_norms(centered), squared_radius, rounding)

    def around(self, rows: Int64[np.ndarray, " u"]) -> tuple[Int64[np.ndarray, " u"], Int64[np.ndarray, " p"]]:
        """Return the sizes of the balls around at most _UNIT rows, and the rows in these balls, one after the other."""
        found = [self._in_tile(rows, first) for first in range(0, len(self.x), _WIDTH)]
        positions, columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(positions, kind="stable")
        return np.bincount(positions, minlength=len(rows)), columns[order].astype(np.int32)

    def _in_tile(self, rows: Int64[np.ndarray, " u"], first: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs (position in rows, row of the pool from `first` on) whose distance is below the radius."""
        part = slice(first, first + _WIDTH)
        product = self.centered[rows] @ self.centered[part].T
        kept = 1 - self.rounding  # of the lengths, so that no pair inside is missed, whatever is rounded
        limits = (kept * self.half[part] - 0.5 * self.squared_radius).astype(np.float32)
        positions, offsets = _exceeding_pairs(product, (-kept * self.half[rows]).astype(np.float32), limits)
        columns = first + offsets
        lengths = (1 + self.rounding) * (self.half[rows[positions]] + self.half[columns])
        certain = product[positions, offsets] - lengths
        doubtful = np.flatnonzero(certain <= -0.5 * self.squared_radius)
        squared = squared_distances(self.x, rows[positions[doubtful]], columns[doubtful])
        inside = np.ones(len(columns), dtype=np.bool_)
        inside[doubtful] = (squared < self.squared_radius) | (rows[positions[doubtful]] == columns[doubtful])
        return positions[inside], columns[inside]


@compiled
def _exceeding_pairs(product: np.ndarray, addend: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions (r, c) at which product + addend[r] > limits[c], row by row."""
    rows, columns = np.empty(product.size, dtype=np.int64), np.empty(product.size, dtype=np.int64)
    found, total = np.empty(len(limits), dtype=np.uint32), 0
    for r in range(len(product)):
        num_found = exceeding(product[r], limits, addend[r], found)
        for p in range(num_found):
            rows[total], columns[total] = r, found[p]
            total += 1
    return rows[:total].copy(), columns[:total].copy()


def _check_size(search: _Search) -> None:
    """Raise ValueError if the balls around a sample of the rows are so large that all would exceed the memory."""
    n = len(search.x)
    sample = np.sort(np.random.default_rng(0).permutation(n)[:_SAMPLE])
    mean = float(search.around(sample)[0].mean())
    if mean * n <= _ENTRIES:
        return
    fitting = _ENTRIES / n
    raise ValueError(
        f"the balls of radius {search.squared_radius**0.5:.4g} hold {mean:,.0f} of {n:,} prompts on average: all "
        f"together take {4e-9 * mean * n:.1f} GB, and {4e-9 * _ENTRIES:.1f} GB are allowed; choose a smaller "
        f"radius: with {_radius_for(search, sample, fitting):.4g} they hold {fitting:,.0f}"
    )


def _radius_for(search: _Search, sample: Int64[np.ndarray, " s"], size: float) -> float:
    """Return the radius at which the balls around the sample hold `size` rows on average."""
    product = search.centered[sample] @ search.centered.T
    squared: Float32[np.ndarray, "s n"] = 2 * (search.half[sample, None] + search.half - product)
    return float(np.sqrt(max(0.0, float(np.quantile(squared, size / len(search.x))))))
