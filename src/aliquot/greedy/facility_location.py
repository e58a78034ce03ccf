"""Greedy facility location, exact, at the cost of a few matrix products and without the n x n matrix.

With similarities w_ij in [0, 1], the set function and the gain of a candidate j are

    f(S) = sum_i max_{s in S} w_is        gain(j) = sum_i max(0, w_ij - cover_i),  cover_i = max_{s in S} w_is

Greedy reaches 1 - 1/e of the best f (Nemhauser, Wolsey, Fisher 1978). Covers only rise, so gains only fall and an old
gain is an upper bound (lazy greedy, Minoux 1978). Three things make it fast:

1. The first gains of all candidates come from one pass over the upper triangle of the tiles of Z Z^T.
2. Outdated candidates are refreshed in batches: one product with the pool, of which only the pairs that beat the
   cover (compared as exponents, a few per cent) are looked at.
3. Those pairs are kept as the candidate's *list*. A pair once overtaken by the cover stays so: every later refresh
   walks the list, which only shrinks. A budget bounds the lists; who loses its list is refreshed by a product again.

Similarities are counted in integer quanta of 2^-30, so that sums are exact in any order: the number of threads cannot
change a pick, and equal candidates tie exactly. Ties go to the lower row.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Int64

from aliquot.greedy import loops
from aliquot.kernels import Embedding
from aliquot.progress import Progress
from aliquot.types import Selection

_TILE = 1024  # rows and columns of a tile of the first pass
_UNIT = 128  # candidates of one product of a refresh
_WIDTH = 4096  # pool rows of one product of a refresh: 2 MB, the second-level cache
_LARGEST_BATCH = 512  # candidates refreshed together
_SCRATCH = 1 << 24  # list entries one batch may find
_ENTRIES_PER_ROW = 500  # default budget of kept list entries, per row of the pool


def facility_location(embedding: Embedding, k: int, cache_entries: int | None = None) -> Selection:
    """Choose k rows by greedy maximisation of facility location.

    Args:
        embedding: the features as a kernel sees them.
        k: rows to choose, 1..n.
        cache_entries: budget of list entries (8 bytes each), 500 n if None. It changes the time, never the result.

    Returns:
        The rows in the order picked; gains are marginal gains, exact to about 1e-5, and sum to f of the whole set.
    """
    greedy = _Greedy(embedding, k, _ENTRIES_PER_ROW * len(embedding) if cache_entries is None else cache_entries)
    with _one_thread_per_product(), ThreadPoolExecutor(_num_cores()) as workers:
        return greedy.run(workers)


class _Greedy:
    """State of one maximisation. Bounds, covers and gains are in quanta; `picked` counts the picks made."""

    def __init__(self, embedding: Embedding, k: int, cache_entries: int) -> None:
        n = len(embedding)
        self.z = torch.from_numpy(np.ascontiguousarray(embedding.vectors))
        self.bias, self.exponential = embedding.bias, embedding.exponential
        self.indices, self.gains = np.empty(k, dtype=np.int64), np.empty(k, dtype=np.int64)
        self.picked = 0
        self.bound = np.zeros(n, dtype=np.int64)
        self.stamp = np.zeros(n, dtype=np.int64)  # picks made when the bound was exact; -1 once picked itself
        self.cover = loops.Cover(np.zeros(n, dtype=np.int32), np.empty(n, dtype=np.float32))
        self.cover.threshold[:] = loops.lowest_threshold(self.exponential)
        self.lists = loops.Lists(
            start=np.zeros(n, dtype=np.int64),
            length=np.full(n, -1, dtype=np.int64),
            rows=np.empty(cache_entries, dtype=np.int32),
            quanta=np.empty(cache_entries, dtype=np.int32),
        )
        self.scratch = np.empty((2, max(_SCRATCH, n)), dtype=np.int32)  # rows and quanta of a batch's lists
        self.used = 0  # entries of the lists; those behind are free
        self.smallest_batch = self.batch_size = _UNIT * _num_cores()

    def run(self, workers: ThreadPoolExecutor) -> Selection:
        budget = len(self.indices)
        with Progress("facility location: first gains", len(self.bound), "prompt") as progress:
            self._first_gains(workers, progress)
        # Picks come in a rush at the end. Before, prompts are compared with the pool, most of them one to three times.
        with Progress("facility location", None, "comparison") as progress:
            while self.picked < budget:
                row = self._pick_from_lists()
                if row is not None and self.stamp[row] == self.picked:
                    self._pick_without_list(row, workers)
                elif row is not None:
                    progress.update(self._refresh_batch(workers), picked=f"{self.picked:,}/{budget:,}")
            progress.update(0, picked=f"{budget:,}/{budget:,}")
        return Selection(self.indices, self.gains / float(loops.ONE))

    def _pick_from_lists(self) -> int | None:
        """Pick for as long as lists suffice; return the best row, which has none, or None when all is picked."""
        heap = np.flatnonzero(self.stamp >= 0)
        self.picked, row = loops.pick_from_lists(
            heap,
            self.bound,
            self.stamp,
            self.lists,
            self.cover,
            self.indices,
            self.gains,
            self.picked,
            self.exponential,
        )
        return row if row >= 0 else None

    def _first_gains(self, workers: ThreadPoolExecutor, progress: Progress) -> None:
        """Sum the similarities of every column, computing each pair of tiles once."""
        n = len(self.bound)

        def strip(first: int) -> Int64[np.ndarray, " m"]:
            sums = np.zeros(n - first, dtype=np.int64)
            row_bias, column_bias = self.bias[first : first + _TILE], self.bias[first:]
            for a, product in _products(self.z[first : first + _TILE], self.z[first:], _TILE):
                below = np.zeros(product.shape[1], dtype=np.int64)
                loops.sum_tile(product, row_bias, column_bias[a : a + _TILE], sums, below, self.exponential)
                if a > 0:  # the diagonal tile holds both of its triangles
                    sums[a : a + _TILE] += below
            return sums

        starts = range(0, n, _TILE)
        for first, sums in zip(starts, workers.map(strip, starts), strict=True):
            self.bound[first:] += sums
            progress.update(min(_TILE, n - first))

    def _refresh_batch(self, workers: ThreadPoolExecutor) -> int:
        """Make the most promising candidates that have no list exact by a product, and keep what it finds.

        Returns how many these are.
        """
        waiting = np.flatnonzero((self.lists.length < 0) & (self.stamp >= 0) & (self.stamp != self.picked))
        size = min(self.batch_size, len(waiting))
        batch = np.sort(waiting[np.argpartition(-self.bound[waiting], size - 1)[:size]])
        gains, found = self._gains_of(batch, _SCRATCH // size, workers)
        self.bound[batch], self.stamp[batch] = gains, self.picked
        kept = np.flatnonzero(found.length >= 0)
        if self.used + found.length[kept].sum() > len(self.lists.rows):
            self._make_room()
        kept = kept[np.argsort(-gains[kept], kind="stable")]
        kept = kept[self.used + np.cumsum(found.length[kept]) <= len(self.lists.rows)]
        self.used = loops.store(found, kept, batch, self.lists, self.used)
        # The next batch is as large as lists twice as long as these leave room for.
        capacity = _SCRATCH // size
        mean = np.where(found.length < 0, capacity, found.length).mean()
        fitting = int(_SCRATCH / max(2 * mean, 1)) // _UNIT * _UNIT
        self.batch_size = max(self.smallest_batch, min(fitting, _LARGEST_BATCH))
        return size

    def _pick_without_list(self, row: int, workers: ThreadPoolExecutor) -> None:
        """Pick a row whose gain is exact but whose list was too long to keep."""
        _, found = self._gains_of(np.array([row]), len(self.bound), workers)
        loops.raise_cover(found.rows[: found.length[0]], found.quanta, self.cover, self.exponential)
        self.indices[self.picked], self.gains[self.picked] = row, self.bound[row]
        self.stamp[row] = -1
        self.picked += 1

    def _gains_of(
        self, batch: Int64[np.ndarray, " b"], capacity: int, workers: ThreadPoolExecutor
    ) -> tuple[Int64[np.ndarray, " b"], loops.Lists]:
        """Return the gains of a batch and its lists, of at most `capacity` entries each (length -1: it has more).

        The lists are in the scratch memory, until the next call.
        """
        size = len(batch)
        capacity = min(capacity, len(self.bound))
        gains = np.zeros(size, dtype=np.int64)
        found = loops.Lists(capacity * np.arange(size), np.zeros(size, dtype=np.int64), *self.scratch)

        def unit(first: int) -> None:
            part = batch[first : first + _UNIT]
            # Always _UNIT rows: products of another shape round differently, and equal candidates would not tie.
            filled = np.resize(part, _UNIT)
            for a, product in _products(self.z[torch.from_numpy(filled)], self.z, _WIDTH):
                loops.scan_tile(
                    product[: len(part)], a, self.bias[part], self.bias, self.cover, self.exponential,
                    gains[first:], found, first, capacity,
                )  # fmt: skip

        list(workers.map(unit, range(0, size, _UNIT)))
        return gains, found

    def _make_room(self) -> None:
        """Drop overtaken entries of all lists; if still over half the budget, whole lists of the least promising."""
        length = self.lists.length
        length[self.stamp < 0] = -1
        listed = np.flatnonzero(length >= 0)
        listed = listed[np.argsort(self.lists.start[listed], kind="stable")]
        loops.shrink_all(listed, self.bound, self.lists, self.cover)
        self.stamp[listed] = self.picked
        promising = listed[np.argsort(-self.bound[listed], kind="stable")]
        length[promising[np.cumsum(length[promising]) > len(self.lists.rows) // 2]] = -1
        self.used = loops.close_gaps(listed[length[listed] >= 0], self.lists)


def _products(left: torch.Tensor, right: torch.Tensor, width: int) -> Generator[tuple[int, np.ndarray]]:
    """Yield left . right^T in tiles of `width` columns with the first column of each; the memory is used again."""
    buffer = torch.empty(len(left) * width)
    for a in range(0, len(right), width):
        part = right[a : a + width]
        product = buffer[: len(left) * len(part)].view(len(left), len(part))
        torch.mm(left, part.T, out=product)
        yield a, product.numpy()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _one_thread_per_product() -> Generator[None]:
    """Products run side by side on threads of our own, so each of them gets one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
