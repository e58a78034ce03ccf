"""The inner loops over tiles of inner products, compiled by numba.

A tile holds inner products of some candidates (its rows) with some rows of the pool (its columns). With the biases
added it is `s` (see `kernels`), of which few pairs beat the cover. Only these are turned into similarities, and the
doubtful ones among them into exact ones (see `exact`).
"""

from __future__ import annotations

import numba
import numpy as np

from aliquot.selection.greedy.cover import Cover, raise_one
from aliquot.selection.greedy.exact_similarities import exact_quanta, is_doubtful, needs_exact
from aliquot.selection.greedy.fixed_point import quanta_of, similarity_of
from aliquot.selection.greedy.numba_simd import compiled, exceeding


@compiled
def scan_tile(
    product: np.ndarray,
    first_row: int,
    candidates: np.ndarray,
    cover: Cover,
    weight: np.ndarray | None,
    gains: np.ndarray,
    lengths: np.ndarray,
    rows: np.ndarray,
    quanta: np.ndarray,
) -> int:
    """Find the gain of each candidate, a row of the product, on the pool rows of the tile, and the rows where it gains.

    Args:
        product: inner products of the candidates with the pool rows from `first_row` onward.
        first_row: the first row of the pool in this tile.
        candidates: their rows of the pool.
        cover: of the whole pool.
        weight: of the pool rows; None if all are 1.
        gains: of the candidates so far; increased in place.
        lengths: number of pairs of each candidate in this tile.
        rows, quanta: these pairs, candidate by candidate; with room for the whole tile and one more.

    Returns:
        The number of pairs.
    """
    width = product.shape[1]
    bias, limit = cover.bias[first_row : first_row + width], cover.limit[first_row : first_row + width]
    covered, cap = cover.quanta[first_row : first_row + width], cover.cap[first_row : first_row + width]
    # Unsigned: numba would check signed indices for wraparound, and not use vector registers.
    found = np.empty(width, dtype=np.uint32)
    value, similarity = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.int32)
    end = np.uint64(0)
    for r in range(product.shape[0]):
        s, j = product[r], int(candidates[r])
        b = cover.bias[j]
        num_found = exceeding(s, limit, b, found)
        for p in range(num_found):
            value[p] = s[found[p]] + (b + bias[found[p]])
        for p in range(num_found):
            similarity[p] = quanta_of(value[p], cover.exponential)
        if num_found and needs_exact(b, bias, cover.exact):
            for p in range(num_found):
                c = int(found[p])
                if similarity[p] > covered[c] and is_doubtful(value[p], b, bias[c], cover.exact):
                    similarity[p] = exact_quanta(first_row + c, j, cover.exponential, cover.exact)
        for p in range(num_found):
            similarity[p] = min(similarity[p], cap[found[p]])
        gain, start = np.int64(0), end
        for p in range(num_found):
            over = max(similarity[p] - covered[found[p]], 0)
            gain += over if weight is None else over * weight[first_row + found[p]]
            rows[end], quanta[end] = first_row + found[p], similarity[p]
            end += np.uint64(over > 0)
        gains[r] += gain
        lengths[r] = end - start
    return int(end)


@compiled
def raise_tile(product: np.ndarray, first_row: int, chosen: np.ndarray, cover: Cover) -> None:
    """Raise the cover of the tile's pool rows to their similarities with the selected ones, the rows of the product."""
    width = product.shape[1]
    limit = cover.limit[first_row : first_row + width]
    found = np.empty(width, dtype=np.uint32)
    for r in range(product.shape[0]):
        j = int(chosen[r])
        b = cover.bias[j]
        num_found = exceeding(product[r], limit, b, found)
        for p in range(num_found):
            i = first_row + int(found[p])
            raise_one(i, _quanta(i, j, product[r, found[p]] + (b + cover.bias[i]), cover), cover)


@compiled
def raise_pairs(chosen: np.ndarray, pool_rows: np.ndarray, s: np.ndarray, cover: Cover) -> None:
    """Do what `raise_tile` does, for pairs found elsewhere."""
    for p in range(len(s)):
        raise_one(pool_rows[p], _quanta(pool_rows[p], chosen[p], s[p], cover), cover)


@compiled
def _quanta(i: int, j: int, s: np.float32, cover: Cover) -> np.int32:
    """Return the similarity of row i with candidate j; if it does not exceed the cover, any value that does not."""
    quanta = quanta_of(s, cover.exponential)
    if quanta > cover.quanta[i] and is_doubtful(s, cover.bias[j], cover.bias[i], cover.exact):
        return exact_quanta(i, j, cover.exponential, cover.exact)
    return quanta


@compiled
def count_pairs(
    places: np.ndarray,
    pool_rows: np.ndarray,
    s: np.ndarray,
    candidates: np.ndarray,
    cover: Cover,
    weight: np.ndarray | None,
    gains: np.ndarray,
    lengths: np.ndarray,
    rows: np.ndarray,
    quanta: np.ndarray,
) -> int:
    """Do what `scan_tile` does, for pairs found elsewhere, given by the candidate's place, in order of places.

    If `rows` does not have room for all of them, every candidate with pairs gets length -1.
    """
    fits = len(s) <= len(rows)
    end = 0
    for p in range(len(s)):
        i, c = pool_rows[p], places[p]
        similarity = min(_quanta(i, int(candidates[c]), s[p], cover), cover.cap[i])
        over = similarity - cover.quanta[i]
        if over > 0:
            gains[c] += over if weight is None else over * weight[i]
            if fits:
                rows[end], quanta[end] = i, similarity
                end += 1
                lengths[c] += 1
            else:
                lengths[c] = -1
    return end


@numba.njit(cache=True, nogil=True, fastmath=True)  # sums in any order: they are bounds, with a margin for rounding
def sum_tile(
    product: np.ndarray,
    row_bias: np.ndarray,
    column_bias: np.ndarray,
    row_cover: np.ndarray,
    column_cover: np.ndarray,
    row_weight: np.ndarray,
    column_weight: np.ndarray,
    row_sums: np.ndarray,
    column_sums: np.ndarray,
    exponential: bool,
) -> None:
    """Add the gains of a tile's rows on its columns and of its columns on its rows, all float32, within 1e-6 per pair.

    Covers are similarities here. The sums (2, any) are those without a cover and those above it.
    """
    width = product.shape[1]
    plain_sums, above_sums = column_sums
    similarity = np.empty(width, dtype=np.float32)
    for r in range(product.shape[0]):
        s, b, cover, weight = product[r], row_bias[r], row_cover[r], row_weight[r]
        for c in range(width):
            similarity[c] = similarity_of(s[c] + (b + column_bias[c]), exponential)
        total, above = np.float32(0), np.float32(0)
        for c in range(width):  # separate loops: with more arrays, numba cannot prove that they do not overlap
            total += column_weight[c] * similarity[c]
            above += column_weight[c] * max(similarity[c] - column_cover[c], np.float32(0))
            plain_sums[c] += weight * similarity[c]
        for c in range(width):
            above_sums[c] += weight * max(similarity[c] - cover, np.float32(0))
        row_sums[0, r] += total
        row_sums[1, r] += above
