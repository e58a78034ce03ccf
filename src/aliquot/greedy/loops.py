"""The inner loops of `facility_location`, compiled by numba: tiles of similarities, lists of pairs, and the heap.

A similarity is an int32 number of quanta of 2^-30, and `s` the value of a product with its biases (see `kernels`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import numba
import numpy as np

Function = TypeVar("Function", bound=Callable[..., object])

ONE = np.int32(1 << 30)  # similarity 1 in quanta
_LOG_ONE = np.float32(30)
_SCALE = np.float32(1 << 30)
# Taylor series of 2^x, for |x| <= 1/2 as exact as float32.
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(math.log(2) ** i / math.factorial(i)) for i in range(8))
_MARGIN = np.float32(1e-5)


class Cover(NamedTuple):
    """How similar each pool row is to its most similar chosen row, and the `s` a pair has to exceed to be looked at."""

    quanta: np.ndarray
    threshold: np.ndarray


class Lists(NamedTuple):
    """List j is rows[start[j] : start[j] + length[j]] with the similarities `quanta` beside; length -1 is no list."""

    start: np.ndarray
    length: np.ndarray
    rows: np.ndarray
    quanta: np.ndarray


def lowest_threshold(exponential: bool) -> np.float32:
    """Return the threshold of a row without cover: below it, a similarity is less than a quantum."""
    return (-_LOG_ONE if exponential else np.float32(0)) - _MARGIN


def _compiled(function: Function) -> Function:
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


@_compiled
def _quanta_of(s: np.float32, exponential: bool) -> np.int32:
    if not exponential:
        return np.int32(min(max(s, np.float32(0)), np.float32(1)) * _SCALE)
    x = min(max(s, np.float32(-31)), np.float32(0))
    whole = np.floor(x + np.float32(0.5))
    f = x - whole
    power = _C0 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * (_C6 + f * _C7))))))
    return np.int32(np.int32(power * _SCALE) >> np.int32(-whole))


@_compiled
def sum_tile(
    product: np.ndarray,
    row_bias: np.ndarray,
    column_bias: np.ndarray,
    row_sums: np.ndarray,
    column_sums: np.ndarray,
    exponential: bool,
) -> None:
    """Add the similarities of a tile to the sums of its rows and of its columns."""
    for r in range(product.shape[0]):
        total = np.int64(0)
        for c in range(product.shape[1]):
            quanta = _quanta_of(product[r, c] + (row_bias[r] + column_bias[c]), exponential)
            total += quanta
            column_sums[c] += quanta
        row_sums[r] += total


@_compiled
def scan_tile(
    product: np.ndarray,
    first_row: int,
    candidate_bias: np.ndarray,
    bias: np.ndarray,
    cover: Cover,
    exponential: bool,
    gains: np.ndarray,
    lists: Lists,
    first_list: int,
    capacity: int,
) -> None:
    """Add to gains and lists what each candidate, a row of the product, gains on the pool rows of the tile."""
    width = product.shape[1]
    end_row = first_row + width
    tile_bias, threshold = bias[first_row:end_row], cover.threshold[first_row:end_row]
    covered = cover.quanta[first_row:end_row]
    beats = np.zeros(width + 8, dtype=np.uint8)
    eights = beats[: (width + 7) // 8 * 8].view(np.uint64)
    # Unsigned: numba would check signed indices for being counted from the end, and not use vector registers.
    found = np.empty(width + 8, dtype=np.uint32)
    value, quanta = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.int32)
    for r in range(product.shape[0]):
        s, b = product[r], candidate_bias[r]
        for c in range(width):
            beats[c] = s[c] + (b + tile_bias[c]) > threshold[c]
        num_found = np.uint64(0)
        for word in range(len(eights)):
            if eights[word]:  # few pairs beat the cover, so eight misses at a time are skipped
                for c in range(8 * word, 8 * word + 8):  # no branch: written always, kept where it beats
                    found[num_found] = c
                    num_found += np.uint64(beats[c])
        for p in range(num_found):
            value[p] = s[found[p]] + (b + tile_bias[found[p]])
        for p in range(num_found):
            quanta[p] = _quanta_of(value[p], exponential)
        list_ = first_list + r
        length = lists.length[list_]
        fits = length >= 0 and length + num_found <= capacity
        start = lists.start[list_]
        list_rows, list_quanta = lists.rows[start : start + capacity], lists.quanta[start : start + capacity]
        end = np.uint64(length)
        gain = np.int64(0)
        for p in range(num_found):
            over = max(quanta[p] - covered[found[p]], 0)
            gain += over
            if fits:
                list_rows[end], list_quanta[end] = first_row + found[p], quanta[p]
                end += np.uint64(over > 0)
        gains[r] += gain
        lists.length[list_] = end if fits else -1


@_compiled
def raise_cover(rows: np.ndarray, quanta: np.ndarray, cover: Cover, exponential: bool) -> None:
    """Raise the cover of `rows` to the similarities beside them, where these are larger."""
    for p in range(len(rows)):
        i, q = rows[p], quanta[p]
        if q > cover.quanta[i]:
            cover.quanta[i] = q
            if q >= ONE:
                cover.threshold[i] = np.inf
            elif exponential:
                cover.threshold[i] = np.log2(np.float32(q)) - _LOG_ONE - _MARGIN
            else:
                cover.threshold[i] = np.float32(q) / _SCALE - _MARGIN


@_compiled
def _shrink(j: int, bound: np.ndarray, lists: Lists, cover: Cover) -> None:
    """Make the bound of j exact by walking its list, and drop what the cover has overtaken."""
    first = lists.start[j]
    kept = first
    gain = np.int64(0)
    for p in range(first, first + lists.length[j]):
        i, q = lists.rows[p], lists.quanta[p]
        over = q - cover.quanta[i]
        lists.rows[kept], lists.quanta[kept] = i, q
        if over > 0:
            gain += over
            kept += 1
    lists.length[j] = kept - first
    bound[j] = gain


@_compiled
def shrink_all(listed: np.ndarray, bound: np.ndarray, lists: Lists, cover: Cover) -> None:
    """Make the bounds of all `listed` exact."""
    for j in listed:
        _shrink(j, bound, lists, cover)


@_compiled
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


@_compiled
def store(found: Lists, kept: np.ndarray, batch: np.ndarray, lists: Lists, used: int) -> int:
    """Copy the `kept` ones of a batch's lists behind those in use; return the number of entries then in use."""
    for c in kept:
        j, first, length = batch[c], found.start[c], int(found.length[c])
        lists.start[j], lists.length[j] = used, length
        for p in range(length):
            lists.rows[used + p], lists.quanta[used + p] = found.rows[first + p], found.quanta[first + p]
        used += length
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
def pick_from_lists(
    heap: np.ndarray,
    bound: np.ndarray,
    stamp: np.ndarray,
    lists: Lists,
    cover: Cover,
    indices: np.ndarray,
    gains: np.ndarray,
    picked: int,
    exponential: bool,
) -> tuple[int, int]:
    """Run lazy greedy until the best row has no list; return the number of picks and that row, -1 for none."""
    size = len(heap)
    for position in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, position, bound)
    while picked < len(indices):
        j = heap[0]
        if bound[j] > 0 and lists.length[j] < 0:
            return picked, j
        if bound[j] > 0 and stamp[j] < picked:
            _shrink(j, bound, lists, cover)
            stamp[j] = picked
        else:  # exact: a bound of 0 cannot fall
            if bound[j] > 0:
                first, end = lists.start[j], lists.start[j] + lists.length[j]
                raise_cover(lists.rows[first:end], lists.quanta[first:end], cover, exponential)
            indices[picked], gains[picked] = j, bound[j]
            stamp[j] = -1
            picked += 1
            size -= 1
            heap[0] = heap[size]
        if size > 0:
            _sift_down(heap, size, 0, bound)
    return picked, -1
