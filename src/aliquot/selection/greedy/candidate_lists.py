"""The candidates' lists of pool rows on which they gain, and lazy greedy along the lists; compiled by numba.

A pair once overtaken by the cover stays so. Code that walks a list drops such entries, so lists only shrink.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from aliquot.selection.greedy.cover import Cover, raise_all
from aliquot.selection.greedy.numba_simd import compiled
from aliquot.selection.greedy.passes import Pieces

#: Stamps of rows that may not (or no longer) be picked, and of rows whose bound was never exact.
OUT, INEXACT = -2, -1


class Lists(NamedTuple):
    """List j is rows[start[j] : start[j] + length[j]] with the similarities `quanta`; length -1 means no list."""

    start: np.ndarray
    length: np.ndarray
    rows: np.ndarray
    quanta: np.ndarray


class ListStore:
    """The lists that fit in a budget; empty at the beginning.

    Args:
        n: rows of the pool.
        budget: maximum number of list entries.
    """

    def __init__(self, n: int, budget: int) -> None:
        self.lists = Lists(
            start=np.zeros(n, dtype=np.int64),
            length=np.full(n, -1, dtype=np.int64),
            rows=np.empty(budget, dtype=np.int32),
            quanta=np.empty(budget, dtype=np.int32),
        )
        self._used = 0  # entries; later ones are free

    def __len__(self) -> int:
        return int(np.count_nonzero(self.lists.length >= 0))

    def missing(self) -> np.ndarray:
        """Return, for each row, whether it has no list."""
        return self.lists.length < 0

    def has_room(self, found: Pieces) -> bool:
        """Tell whether all lists of a batch fit after those in use."""
        return self._used + int(found.lengths[_whole(found)].sum()) <= len(self.lists.rows)

    def keep(self, found: Pieces, batch: np.ndarray) -> None:
        """Keep the lists of a batch, or those of the largest gains if there is not enough room for all."""
        kept, length = _whole(found), found.lengths.sum(axis=1)
        kept = kept[np.argsort(-found.gains[kept], kind="stable")]
        kept = kept[self._used + np.cumsum(length[kept]) <= len(self.lists.rows)]
        self._used = _store(found, kept, batch, self.lists, self._used)

    def make_room(
        self, wanted: np.ndarray, bound: np.ndarray, covered: np.ndarray, weight: np.ndarray | None
    ) -> np.ndarray:
        """Drop rows that are not `wanted` and overtaken entries; return the rows whose bounds are now exact.

        If they still take over half the budget, the lists of the smallest bounds are dropped too.
        """
        length = self.lists.length
        length[~wanted] = -1
        listed = np.flatnonzero(length >= 0)
        listed = listed[np.argsort(self.lists.start[listed], kind="stable")]
        shrink_all(listed, bound, self.lists, covered, weight)
        promising = listed[np.argsort(-bound[listed], kind="stable")]
        length[promising[np.cumsum(length[promising]) > len(self.lists.rows) // 2]] = -1
        self._used = _close_gaps(listed[length[listed] >= 0], self.lists)
        return listed

    def state(self) -> dict[str, np.ndarray]:
        """Return the arguments of `restore`."""
        return {
            "list_start": self.lists.start,
            "list_length": self.lists.length,
            "list_rows": self.lists.rows[: self._used],
            "list_quanta": self.lists.quanta[: self._used],
        }

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Restore saved lists, or none if they exceed the budget."""
        used = len(saved["list_rows"])
        if used <= len(self.lists.rows):
            self.lists.start[:], self.lists.length[:] = saved["list_start"], saved["list_length"]
            self.lists.rows[:used], self.lists.quanta[:used] = saved["list_rows"], saved["list_quanta"]
            self._used = used


def _whole(found: Pieces) -> np.ndarray:
    """Return the candidates of a batch whose list is complete."""
    return np.flatnonzero((found.lengths >= 0).all(axis=1))


@compiled
def _shrink(j: int, bound: np.ndarray, lists: Lists, covered: np.ndarray, weight: np.ndarray | None) -> None:
    """Make the bound of j exact by walking its list, and drop entries that the cover has overtaken."""
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
def _close_gaps(listed: np.ndarray, lists: Lists) -> int:
    """Compact lists, given in the order of their starts; return the number of entries in use."""
    used = 0
    for j in listed:
        first, length = lists.start[j], int(lists.length[j])
        for p in range(length):
            lists.rows[used + p], lists.quanta[used + p] = lists.rows[first + p], lists.quanta[first + p]
        lists.start[j] = used
        used += length
    return used


@compiled
def _store(found: Pieces, kept: np.ndarray, batch: np.ndarray, lists: Lists, used: int) -> int:
    """Copy the `kept` ones of a batch's lists after those in use; return the number of entries then in use."""
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
def sift_down(heap: np.ndarray, size: int, position: int, bound: np.ndarray) -> None:
    """Restore the heap property below `position`: larger bounds first, then lower rows."""
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
    worth: np.ndarray,
    stamp: np.ndarray,
    lists: Lists,
    cover: Cover,
    weight: np.ndarray | None,
    costs: np.ndarray | None,
    divisor: np.ndarray | None,
    left: np.ndarray,
    indices: np.ndarray,
    gains: np.ndarray,
    picked: int,
    patience: int,
) -> tuple[int, int]:
    """Run lazy greedy until the best row has no list, no row is left, or `patience` list entries have been read.

    Args:
        heap: the rows that may be picked.
        bound: on the gain of each row.
        worth: what orders the rows: `bound` itself or, of the same length, bound / divisor.
        stamp: the number of picks at which each bound was exact.
        lists: of the rows.
        cover: by the picks so far.
        weight: of the pool rows; None if all are 1.
        costs: of the rows; None if any number can be picked. A row that costs more than what is left is `OUT`.
        divisor: the costs if gains are compared per cost, else None.
        left: one number: what is left to spend.
        indices, gains: of the picks, from `picked` on.
        picked: the number of picks.
        patience: list entries.

    Returns:
        The number of picks, and the best row if it has no list, else -1.
    """
    size = len(heap)
    for position in range(size // 2 - 1, -1, -1):
        sift_down(heap, size, position, worth)
    while picked < len(indices) and patience > 0 and size > 0:
        j = heap[0]
        if costs is not None and costs[j] > left[0]:  # what is left only falls
            stamp[j] = OUT
            size -= 1
            heap[0] = heap[size]
        elif bound[j] > 0 and lists.length[j] < 0:
            return picked, j
        elif bound[j] > 0 and stamp[j] != picked:
            patience -= int(lists.length[j])
            _shrink(j, bound, lists, cover.quanta, weight)
            stamp[j] = picked
            if divisor is not None:
                worth[j] = bound[j] / divisor[j]
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
            if costs is not None:
                left[0] -= costs[j]
        if size > 0:
            sift_down(heap, size, 0, worth)
    return picked, -1
