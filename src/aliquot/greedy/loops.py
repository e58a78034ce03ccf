"""The lists of `facility_location` and its heap of bounds, compiled by numba."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aliquot.greedy.products import Pieces
from aliquot.greedy.tiles import Cover, compiled, raise_all

#: Stamps of rows that are not to be picked (any more), and of rows whose bound was never exact.
OUT, INEXACT = -2, -1


class Lists(NamedTuple):
    """List j is rows[start[j] : start[j] + length[j]] with the similarities `quanta` beside; length -1 is no list."""

    start: np.ndarray
    length: np.ndarray
    rows: np.ndarray
    quanta: np.ndarray


@compiled
def _shrink(j: int, bound: np.ndarray, lists: Lists, covered: np.ndarray, weight: np.ndarray | None) -> None:
    """Make the bound of j exact by walking its list, and drop what the cover has overtaken."""
    first = lists.start[j]
    kept = first
    gain = np.int64(0)
    for p in range(first, first + lists.length[j]):
        i, q = lists.rows[p], lists.quanta[p]
        over = q - covered[i]
        lists.rows[kept], lists.quanta[kept] = i, q
        if over > 0:
            gain += over if weight is None else over * weight[i]
            kept += 1
    lists.length[j] = kept - first
    bound[j] = gain


@compiled
def shrink_all(
    listed: np.ndarray, bound: np.ndarray, lists: Lists, covered: np.ndarray, weight: np.ndarray | None
) -> None:
    """Make the bounds of all `listed` exact."""
    for j in listed:
        _shrink(j, bound, lists, covered, weight)


@compiled
def close_gaps(listed: np.ndarray, lists: Lists) -> int:
    """Move lists, given in the order of their starts, together; return the number of entries in use."""
    used = 0
    for j in listed:
        first, length = lists.start[j], int(lists.length[j])
        for p in range(length):
            lists.rows[used + p], lists.quanta[used + p] = lists.rows[first + p], lists.quanta[first + p]
        lists.start[j] = used
        used += length
    return used


@compiled
def store(found: Pieces, kept: np.ndarray, batch: np.ndarray, lists: Lists, used: int) -> int:
    """Copy the `kept` ones of a batch's lists behind those in use; return the number of entries then in use."""
    for c in kept:
        j = batch[c]
        lists.start[j] = used
        for tile in range(found.lengths.shape[1]):
            first, length = found.starts[c, tile], int(found.lengths[c, tile])
            for p in range(length):
                lists.rows[used + p], lists.quanta[used + p] = found.rows[first + p], found.quanta[first + p]
            used += length
        lists.length[j] = used - lists.start[j]
    return used


@compiled
def _sift_down(heap: np.ndarray, size: int, position: int, bound: np.ndarray) -> None:
    """Restore the heap below `position`: larger bounds first, then lower rows."""
    row = heap[position]
    while True:
        child = 2 * position + 1
        if child >= size:
            break
        if child + 1 < size:
            left, right = heap[child], heap[child + 1]
            if bound[right] > bound[left] or (bound[right] == bound[left] and right < left):
                child += 1
        below = heap[child]
        if bound[row] > bound[below] or (bound[row] == bound[below] and row < below):
            break
        heap[position] = below
        position = child
    heap[position] = row


@compiled
def pick_from_lists(
    heap: np.ndarray,
    bound: np.ndarray,
    stamp: np.ndarray,
    lists: Lists,
    cover: Cover,
    weight: np.ndarray | None,
    indices: np.ndarray,
    gains: np.ndarray,
    picked: int,
    patience: int,
) -> tuple[int, int]:
    """Run lazy greedy until the best row has no list, all is picked, or `patience` list entries have been read.

    Returns:
        The number of picks, and the best row if it has no list, else -1.
    """
    size = len(heap)
    for position in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, position, bound)
    while picked < len(indices) and patience > 0:
        j = heap[0]
        if bound[j] > 0 and lists.length[j] < 0:
            return picked, j
        if bound[j] > 0 and stamp[j] != picked:
            patience -= int(lists.length[j])
            _shrink(j, bound, lists, cover.quanta, weight)
            stamp[j] = picked
        else:  # exact: a bound of 0 cannot fall
            if bound[j] > 0:
                first, end = lists.start[j], lists.start[j] + lists.length[j]
                patience -= int(end - first)
                raise_all(lists.rows[first:end], lists.quanta[first:end], cover)
            indices[picked], gains[picked] = j, bound[j]
            stamp[j] = OUT
            picked += 1
            size -= 1
            heap[0] = heap[size]
        if size > 0:
            _sift_down(heap, size, 0, bound)
    return picked, -1
