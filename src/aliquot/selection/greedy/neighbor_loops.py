"""The inner loops of the neighbor search, compiled by numba.

A key orders neighbors: its upper half is the similarity in quanta, its lower half prefers the lower row. Keys are
distinct, so the largest m form the same set in any order of processing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aliquot.selection.greedy.exact_similarities import exact_quanta, is_doubtful
from aliquot.selection.greedy.fixed_point import ONE, comparison_margin, quanta_of, s_of
from aliquot.selection.greedy.numba_simd import compiled, exceeding
from aliquot.selection.kernels import Differences

#: The similarity of a prompt to itself: higher than any other.
SELF = int(ONE) + 1
_LOWEST = (1 << 32) - 1


class Best(NamedTuple):
    """The best neighbors of some rows so far.

    Args:
        keys: of neighbors, unordered, with room for more than m.
        length: number of keys per row.
        floor: the `s` that a pair must exceed to be examined; that of the least similarity until a row has m keys.
        margin: how far floors stay below the m-th similarity, to allow for rounding in the comparison.
    """

    keys: np.ndarray
    length: np.ndarray
    floor: np.ndarray
    margin: np.ndarray


def no_best(bias: np.ndarray, room: int, exponential: bool) -> Best:
    """Return the initial state for rows with these biases, with room for the given number of keys per row."""
    margin = comparison_margin(bias)
    floor = s_of(np.float32(1 if exponential else 0), exponential) - margin
    return Best(np.empty((len(bias), room), dtype=np.int64), np.zeros(len(bias), dtype=np.int64), floor, margin)


@compiled
def _key(quanta: int, row: int) -> int:
    return int((quanta << 32) | (_LOWEST - row))


@compiled
def _cut_back(r: int, m: int, exponential: bool, best: Best) -> None:
    """Keep the m largest keys of a row."""
    keys, length = best.keys[r], best.length[r]
    keys[:m] = np.partition(keys[:length], length - m)[length - m :]
    best.length[r] = m
    quanta = np.float32(min(keys[:m].min() >> 32, ONE))
    best.floor[r] = s_of(quanta, exponential) - best.margin[r]


@compiled
def _similarity(row: int, column: int, s: np.float32, bias: np.ndarray, exponential: bool, exact: Differences) -> int:
    """Return the similarity of two rows in quanta; `SELF` for a row with itself."""
    if column == row:
        return SELF
    quanta = quanta_of(s, exponential)
    if quanta > 0 and is_doubtful(s, bias[row], bias[column], exact):
        quanta = exact_quanta(row, column, exponential, exact)
    return int(quanta)


@compiled
def keep_best(
    product: np.ndarray,
    rows: np.ndarray,
    first_column: int,
    bias: np.ndarray,
    exponential: bool,
    exact: Differences,
    m: int,
    best: Best,
) -> None:
    """Add to the best of `rows` their possible neighbors among the pool rows from `first_column` onward.

    Args:
        product: inner products of the rows with those of the pool.
        rows: of the pool.
        first_column: the first pool row in this tile.
        bias, exponential, exact: of the embedding.
        m: number of neighbors wanted.
        best: changed in place.
    """
    column_bias = bias[first_column : first_column + product.shape[1]]
    found = np.empty(len(column_bias), dtype=np.uint32)
    limit = -column_bias
    for r in range(len(rows)):
        s, b = product[r], bias[rows[r]]
        num_found = exceeding(s, limit, b - best.floor[r], found)
        for p in range(num_found):
            value = s[found[p]] + (b + column_bias[found[p]])
            if value > best.floor[r]:  # which may have risen since
                column = first_column + int(found[p])
                quanta = _similarity(rows[r], column, value, bias, exponential, exact)
                if quanta > 0:
                    best.keys[r, best.length[r]] = _key(quanta, column)
                    best.length[r] += 1
                    if best.length[r] == best.keys.shape[1]:
                        _cut_back(r, m, exponential, best)


@compiled
def _write(keys: np.ndarray, rows: np.ndarray, quanta: np.ndarray) -> None:
    """Write the largest keys as neighbors, most similar first."""
    keys = np.sort(keys)[::-1]
    for p in range(min(len(rows), len(keys))):
        rows[p] = _LOWEST - (keys[p] & _LOWEST)
        quanta[p] = min(keys[p] >> 32, ONE)


@compiled
def write_best(best: Best, rows: np.ndarray, quanta: np.ndarray) -> None:
    """Write the best of each row as its neighbors."""
    for r in range(len(rows)):
        _write(best.keys[r, : best.length[r]], rows[r], quanta[r])


@compiled
def write_found(
    columns: np.ndarray,
    squared: np.ndarray,
    searched: np.ndarray,
    offset: np.ndarray,
    bias: np.ndarray,
    exponential: bool,
    exact: Differences,
    rows: np.ndarray,
    quanta: np.ndarray,
) -> None:
    """Write the pool rows found at the given squared distances from those searched for; -1 means nothing found."""
    keys = np.empty(columns.shape[1] + 1, dtype=np.int64)
    for r in range(len(rows)):
        keys[0] = _key(SELF, searched[r])  # which the search may have missed among many duplicates
        length = 1
        for p in range(columns.shape[1]):
            column = columns[r, p]
            if column >= 0 and column != searched[r]:
                s = offset[searched[r]] + offset[column] - np.float32(0.5) * squared[r, p]
                similar = _similarity(searched[r], column, s, bias, exponential, exact)
                if similar > 0:
                    keys[length] = _key(similar, column)
                    length += 1
        _write(keys[:length], rows[r], quanta[r])
