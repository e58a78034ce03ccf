"""The inner loops over tiles of inner products, compiled by numba.

A tile holds inner products of some candidates (its rows) with some rows of the pool (its columns). With the biases
added it is `s` (see `kernels`), of which few pairs beat the cover; only these are turned into similarities.
"""

from __future__ import annotations

import numba
import numpy as np

from aliquot.greedy.compiled import compiled, exceeding
from aliquot.greedy.cover import Cover, raise_one
from aliquot.greedy.quanta import quanta_of, similarity_of


@compiled
def scan_tile(
    product: np.ndarray,
    first_row: int,
    candidate_bias: np.ndarray,
    cover: Cover,
    weight: np.ndarray | None,
    gains: np.ndarray,
    lengths: np.ndarray,
    rows: np.ndarray,
    quanta: np.ndarray,
) -> int:
    """Find what each candidate, a row of the product, gains on the pool rows of the tile, and where.

    Args:
        product: inner products of the candidates with the pool rows from `first_row` on.
        first_row: the first row of the pool in this tile.
        candidate_bias: b of the candidates.
        cover: of the whole pool.
        weight: of the pool rows; None where all are 1.
        gains: of the candidates so far, added to.
        lengths: how many pairs each candidate has in this tile.
        rows, quanta: these pairs, candidate after candidate; room for the whole tile and one more.

    Returns:
        The number of pairs.
    """
    width = product.shape[1]
    bias, limit = cover.bias[first_row : first_row + width], cover.limit[first_row : first_row + width]
    covered = cover.quanta[first_row : first_row + width]
    # Unsigned: numba would check signed indices for being counted from the end, and not use vector registers.
    found = np.empty(width, dtype=np.uint32)
    value, similarity = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.int32)
    end = np.uint64(0)
    for r in range(product.shape[0]):
        s, b = product[r], candidate_bias[r]
        num_found = exceeding(s, limit, b, found)
        for p in range(num_found):
            value[p] = s[found[p]] + (b + bias[found[p]])
        for p in range(num_found):
            similarity[p] = quanta_of(value[p], cover.exponential)
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
def raise_tile(product: np.ndarray, first_row: int, candidate_bias: np.ndarray, cover: Cover) -> None:
    """Raise the cover of the tile's pool rows to their similarities with the rows of the product."""
    width = product.shape[1]
    limit = cover.limit[first_row : first_row + width]
    found = np.empty(width, dtype=np.uint32)
    for r in range(product.shape[0]):
        num_found = exceeding(product[r], limit, candidate_bias[r], found)
        for p in range(num_found):
            i = first_row + found[p]
            quanta = quanta_of(product[r, found[p]] + (candidate_bias[r] + cover.bias[i]), cover.exponential)
            raise_one(i, quanta, cover)


@compiled
def count_pairs(
    candidates: np.ndarray,
    pool_rows: np.ndarray,
    s: np.ndarray,
    cover: Cover,
    weight: np.ndarray | None,
    gains: np.ndarray,
    lengths: np.ndarray,
    rows: np.ndarray,
    quanta: np.ndarray,
) -> int:
    """Do what `scan_tile` does with pairs found elsewhere, given candidate after candidate.

    Where `rows` has no room for all of them, every candidate with pairs gets length -1.
    """
    fits = len(s) <= len(rows)
    end = 0
    for p in range(len(s)):
        i, c = pool_rows[p], candidates[p]
        similarity = quanta_of(s[p], cover.exponential)
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


@numba.njit(cache=True, nogil=True, fastmath=True)  # sums in any order: they are bounds, with room for rounding
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
    """Add what the rows of a tile gain on its columns and the columns on its rows, all float32, within 1e-6 a pair.

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
        for c in range(width):  # apart: of more arrays at a time, numba does not see that none overlap
            total += column_weight[c] * similarity[c]
            above += column_weight[c] * max(similarity[c] - column_cover[c], np.float32(0))
            plain_sums[c] += weight * similarity[c]
        for c in range(width):
            above_sums[c] += weight * max(similarity[c] - cover, np.float32(0))
        row_sums[0, r] += total
        row_sums[1, r] += above
