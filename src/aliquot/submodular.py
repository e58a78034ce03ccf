"""Greedy facility location, exact, at the speed of a few matrix products and without the n x n matrix.

With similarities w_ij in [0, 1], the set function and the gain of a candidate j are

    f(S) = sum_i max_{s in S} w_is        gain(j) = sum_i max(0, w_ij - cover_i),  cover_i = max_{s in S} w_is

Greedy reaches 1 - 1/e of the best f (Nemhauser, Wolsey, Fisher 1978). Covers only rise, so gains only fall and an old
gain is an upper bound (lazy greedy, Minoux 1978). Three things make it fast:

1. The first gains of all candidates come from one pass over the upper triangle of the tiles of Z Z^T.
2. Outdated candidates are refreshed in batches: one product with the pool, of which only the pairs that beat the cover
   (compared as exponents, a few per cent) are looked at.
3. Those pairs are kept as the candidate's *list*. A pair once overtaken by the cover stays so: every later refresh
   walks the list, which only shrinks. A budget bounds the lists; who loses its list is refreshed by a product again.

Similarities are counted in integer quanta of 2^-30, so sums are exact in any order: neither tiles nor threads can change
a pick, and equal candidates tie exactly. Ties go to the lower row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, cast

import numba
import numpy as np
import torch

from aliquot.kernels import Embedding
from aliquot.progress import Progress
from aliquot.types import Selection

Function = TypeVar("Function", bound=Callable[..., object])

ONE = np.int32(1 << 30)  # similarity 1 in quanta
_LOG_ONE = np.float32(30)
_MARGIN = np.float32(1e-5)
_SCALE = np.float32(1 << 30)
_POW2 = tuple(np.float32(math.log(2) ** i / math.factorial(i)) for i in range(8))  # Taylor series of 2^x
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7 = _POW2

_TILE = 1024  # rows and columns of a tile of the first pass
_UNIT = 128  # candidates per product of a refresh; fixed, so that the number of threads changes nothing
_TILE_ENTRIES = 1 << 19  # of a product of a refresh: 2 MB, the second-level cache
_LARGEST_BATCH = 1024
_SCRATCH = 1 << 24  # list entries one batch may find
_ENTRIES_PER_ROW = 500  # default budget of kept list entries, per row of the pool


def facility_location(embedding: Embedding, k: int, cache_entries: int | None = None) -> Selection:
    """Choose k rows by greedy maximisation of facility location.

    Args:
        embedding: the features as a kernel sees them.
        k: rows to choose, 1..n.
        cache_entries: budget of list entries (8 bytes each), 500 n if None. Changes time, never the result.

    Returns:
        The rows in the order picked; gains are marginal gains and sum to f of the whole set.
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
        self.picked = 0
        self.indices, self.gains = np.full(k, -1, dtype=np.int64), np.zeros(k, dtype=np.int64)
        self.cover = np.zeros(n, dtype=np.int32)
        # What a pair has to exceed to be looked at: the cover, in the units of s, and a little less for rounding.
        self.threshold = np.full(n, -_LOG_ONE if self.exponential else 0, dtype=np.float32) - _MARGIN
        self.bound = np.zeros(n, dtype=np.int64)
        self.stamp = np.zeros(n, dtype=np.int64)  # picks made when the bound was exact; -1 once chosen
        # The list of j is rows[start[j] : start[j] + length[j]] with their quanta; length -1 means none.
        self.rows, self.quanta = np.empty(cache_entries, dtype=np.int32), np.empty(cache_entries, dtype=np.int32)
        self.start, self.length = np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64)
        self.used = 0
        self.smallest_batch = self.batch_size = _UNIT * _num_cores()
        self.dense_rows = 0

    def run(self, workers: ThreadPoolExecutor) -> Selection:
        self._first_gains(workers)
        with Progress("facility location", len(self.indices), "pick") as progress:
            while True:
                before = self.picked
                row = self._advance()
                progress.update(self.picked - before)
                if self.picked == len(self.indices):
                    break
                if self.stamp[row] == self.picked:
                    self._pick_without_list(row, workers)
                else:
                    self._refresh_batch(workers)
        return Selection(self.indices, self.gains / float(ONE))

    def _advance(self) -> int:
        """Pick while lists suffice; return the row at the top that needs a product."""
        heap = np.flatnonzero(self.stamp >= 0)
        self.picked, row = _pick_from_lists(
            heap, self.bound, self.stamp, self.start, self.length, self.rows, self.quanta, self.cover,
            self.threshold, self.indices, self.gains, self.picked, self.exponential,
        )  # fmt: skip
        return row

    def _first_gains(self, workers: ThreadPoolExecutor) -> None:
        """Sum the similarities of every column, taking each pair of tiles once."""
        n = len(self.bound)

        def strip(a: int) -> tuple[int, np.ndarray]:
            sums = np.zeros(n - a, dtype=np.int64)
            for b in range(a, n, _TILE):
                product = torch.mm(self.z[a : a + _TILE], self.z[b : b + _TILE].T).numpy()
                rows, columns = slice(a, a + _TILE), slice(b, b + _TILE)
                across = np.zeros(product.shape[1], dtype=np.int64)
                _sum_tile(product, self.bias[rows], self.bias[columns], sums, across, self.exponential)
                if b > a:
                    sums[b - a : b - a + len(across)] += across
            return a, sums

        for a, sums in workers.map(strip, range(0, n, _TILE)):
            self.bound[a:] += sums

    def _refresh_batch(self, workers: ThreadPoolExecutor) -> None:
        """Make the most promising candidates that have no list exact by a product, and keep what it finds."""
        waiting = np.flatnonzero((self.length < 0) & (self.stamp >= 0) & (self.stamp != self.picked))
        size = min(self.batch_size, len(waiting))
        top = np.argpartition(-self.bound[waiting], size - 1)[:size]
        batch = np.sort(waiting[top])
        gains, lengths, rows, quanta = self._beating_cover(batch, _SCRATCH // size, workers)
        self.bound[batch], self.stamp[batch] = gains, self.picked
        kept = np.flatnonzero(lengths <= rows.shape[1])
        if self.used + lengths[kept].sum() > len(self.rows):
            self._make_room()
        kept = kept[np.argsort(-gains[kept], kind="stable")]
        kept = kept[self.used + np.cumsum(lengths[kept]) <= len(self.rows)]
        self.used = _store(batch, kept, lengths, rows, quanta, self.start, self.length, self.rows, self.quanta, self.used)
        fitting = int(_SCRATCH / max(2.0 * lengths.mean(), 1.0))
        self.batch_size = max(self.smallest_batch, min(fitting // _UNIT * _UNIT, _LARGEST_BATCH))

    def _pick_without_list(self, row: int, workers: ThreadPoolExecutor) -> None:
        """Pick a row that is exact but has no list: the cover rises by a product with this row alone."""
        _, lengths, rows, quanta = self._beating_cover(np.array([row]), len(self.bound), workers)
        size = lengths[0]
        _raise_cover(rows[0, :size], quanta[0, :size], self.cover, self.threshold, self.exponential)
        self.indices[self.picked], self.gains[self.picked] = row, self.bound[row]
        self.stamp[row] = -1
        self.picked += 1

    def _beating_cover(
        self, batch: np.ndarray, capacity: int, workers: ThreadPoolExecutor
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return gain, number, rows and quanta of the pairs that beat the cover, the latter two up to capacity."""
        n, size = len(self.bound), len(batch)
        capacity = min(capacity, n)
        gains, lengths = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        rows, quanta = np.empty((size, capacity), dtype=np.int32), np.empty((size, capacity), dtype=np.int32)
        step = _TILE_ENTRIES // _UNIT

        def unit(first: int) -> None:
            part = slice(first, min(first + _UNIT, size))
            z, bias = self._candidates(batch[part]), self.bias[batch[part]]
            for a in range(0, n, step):
                product = torch.mm(z, self.z[a : a + step].T).numpy()
                _scan_tile(
                    product, a, bias, self.bias, self.threshold, self.cover, self.exponential,
                    gains[part], lengths[part], rows[part], quanta[part],
                )  # fmt: skip

        list(workers.map(unit, range(0, size, _UNIT)))
        self.dense_rows += size
        return gains, lengths, rows, quanta

    def _candidates(self, rows: np.ndarray) -> torch.Tensor:
        """Vectors of up to _UNIT rows, filled up: products round by their shape, so every one has the same."""
        return self.z[torch.from_numpy(np.resize(rows, _UNIT))]

    def _make_room(self) -> None:
        """Drop overtaken entries of all lists; if still over half the budget, whole lists of the least promising."""
        listed = np.flatnonzero((self.length >= 0) & (self.stamp >= 0))
        self.length[self.stamp < 0] = -1
        listed = listed[np.argsort(self.start[listed], kind="stable")]
        _shrink_all(listed, self.bound, self.start, self.length, self.rows, self.quanta, self.cover)
        self.stamp[listed] = self.picked
        by_promise = listed[np.argsort(-self.bound[listed], kind="stable")]
        self.length[by_promise[np.cumsum(self.length[by_promise]) > len(self.rows) // 2]] = -1
        listed = listed[self.length[listed] >= 0]
        self.used = _slide_down(listed, self.start, self.length, self.rows, self.quanta)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _one_thread_per_product() -> Iterator[None]:
    """Products run side by side on our own threads, so each of them gets one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compiled(function: Function) -> Function:
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


@_compiled
def _quanta_of(s: np.float32, exponential: bool) -> np.int32:
    if not exponential:
        return np.int32(min(max(s, np.float32(0)), np.float32(1)) * _SCALE)
    x = min(max(s, np.float32(-31)), np.float32(0))
    whole = np.floor(x + np.float32(0.5))
    f = x - whole
    p = _C0 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * (_C6 + f * _C7))))))
    return np.int32(np.int32(p * _SCALE) >> np.int32(-whole))


@_compiled
def _sum_tile(
    product: np.ndarray, row_bias: np.ndarray, column_bias: np.ndarray, row_sums: np.ndarray,
    column_sums: np.ndarray, exponential: bool,
) -> None:  # fmt: skip
    for r in range(product.shape[0]):
        total = np.int64(0)
        for c in range(product.shape[1]):
            quanta = _quanta_of(product[r, c] + (row_bias[r] + column_bias[c]), exponential)
            total += quanta
            column_sums[c] += quanta
        row_sums[r] += total


@_compiled
def _scan_tile(
    product: np.ndarray, first: int, candidate_bias: np.ndarray, bias: np.ndarray, threshold: np.ndarray,
    cover: np.ndarray, exponential: bool, gains: np.ndarray, lengths: np.ndarray, rows: np.ndarray,
    quanta: np.ndarray,
) -> None:  # fmt: skip
    """Add what each candidate (a row of the product) gains on pool rows first, first + 1, ..."""
    width, capacity = product.shape[1], rows.shape[1]
    found = np.empty(width, dtype=np.int32)
    value = np.empty(width, dtype=np.float32)
    found_quanta = np.empty(width, dtype=np.int32)
    for r in range(len(gains)):
        num_found = 0
        b = candidate_bias[r]
        for c in range(width):  # no branch: the slot is written always, and kept where the pair is worth a look
            s = product[r, c] + (b + bias[first + c])
            found[num_found] = first + c
            value[num_found] = s
            num_found += s > threshold[first + c]
        for p in range(num_found):
            found_quanta[p] = _quanta_of(value[p], exponential)
        gain, length = gains[r], lengths[r]
        for p in range(num_found):
            i, q = found[p], found_quanta[p]
            over = q - cover[i]
            if over > 0:
                gain += over
                if length < capacity:
                    rows[r, length] = i
                    quanta[r, length] = q
                length += 1
        gains[r], lengths[r] = gain, length


@_compiled
def _raise_cover(
    rows: np.ndarray, quanta: np.ndarray, cover: np.ndarray, threshold: np.ndarray, exponential: bool,
) -> None:  # fmt: skip
    for p in range(len(rows)):
        i, q = rows[p], quanta[p]
        if q > cover[i]:
            cover[i] = q
            if q >= ONE:
                threshold[i] = np.inf
            elif exponential:
                threshold[i] = np.log2(np.float32(q)) - _LOG_ONE - _MARGIN
            else:
                threshold[i] = np.float32(q) / _SCALE - _MARGIN


@_compiled
def _shrink(
    j: int, bound: np.ndarray, start: np.ndarray, length: np.ndarray, rows: np.ndarray, quanta: np.ndarray,
    cover: np.ndarray,
) -> None:  # fmt: skip
    """Make the bound of j exact by walking its list, and drop what the cover has overtaken."""
    kept = start[j]
    gain = np.int64(0)
    for p in range(start[j], start[j] + length[j]):
        i, q = rows[p], quanta[p]
        over = q - cover[i]
        rows[kept], quanta[kept] = i, q
        if over > 0:
            gain += over
            kept += 1
    length[j] = kept - start[j]
    bound[j] = gain


@_compiled
def _shrink_all(
    listed: np.ndarray, bound: np.ndarray, start: np.ndarray, length: np.ndarray, rows: np.ndarray,
    quanta: np.ndarray, cover: np.ndarray,
) -> None:  # fmt: skip
    for j in listed:
        _shrink(j, bound, start, length, rows, quanta, cover)


@_compiled
def _slide_down(
    listed: np.ndarray, start: np.ndarray, length: np.ndarray, rows: np.ndarray, quanta: np.ndarray
) -> int:
    """Close the gaps between lists given in the order of their starts; return the entries in use."""
    used = 0
    for j in listed:
        for p in range(length[j]):
            rows[used + p], quanta[used + p] = rows[start[j] + p], quanta[start[j] + p]
        start[j] = used
        used += length[j]
    return used


@_compiled
def _store(
    batch: np.ndarray, kept: np.ndarray, lengths: np.ndarray, new_rows: np.ndarray, new_quanta: np.ndarray,
    start: np.ndarray, length: np.ndarray, rows: np.ndarray, quanta: np.ndarray, used: int,
) -> int:  # fmt: skip
    for c in kept:
        j = batch[c]
        start[j], length[j] = used, lengths[c]
        rows[used : used + lengths[c]] = new_rows[c, : lengths[c]]
        quanta[used : used + lengths[c]] = new_quanta[c, : lengths[c]]
        used += lengths[c]
    return used


@_compiled
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


@_compiled
def _pick_from_lists(
    heap: np.ndarray, bound: np.ndarray, stamp: np.ndarray, start: np.ndarray, length: np.ndarray,
    rows: np.ndarray, quanta: np.ndarray, cover: np.ndarray, threshold: np.ndarray, indices: np.ndarray, gains: np.ndarray, picked: int, exponential: bool,
) -> tuple[int, int]:  # fmt: skip
    size = len(heap)
    for position in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, position, bound)
    while picked < len(indices):
        j = heap[0]
        if stamp[j] == picked or bound[j] == 0:  # a bound of 0 cannot fall
            if bound[j] > 0:
                if length[j] < 0:
                    return picked, j
                rows_of_j, quanta_of_j = rows[start[j] :], quanta[start[j] :]
                _raise_cover(
                    rows_of_j[: length[j]], quanta_of_j[: length[j]], cover, threshold, exponential
                )
            indices[picked], gains[picked] = j, bound[j]
            stamp[j] = -1
            picked += 1
            size -= 1
            heap[0] = heap[size]
        elif length[j] >= 0:
            _shrink(j, bound, start, length, rows, quanta, cover)
            stamp[j] = picked
        else:
            return picked, j
        if size > 0:
            _sift_down(heap, size, 0, bound)
    return picked, -1
