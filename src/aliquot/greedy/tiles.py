"""The inner loops over tiles of similarities, compiled by numba.

A tile holds inner products of some candidates (its rows) with some rows of the pool (its columns). With the biases
added it is `s` (see `kernels`), which becomes an int32 number of quanta of 2^-30 where it has to be exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., object])

ONE = np.int32(1 << 30)  # similarity 1 in quanta
_LOG_ONE = np.float32(30)
_SCALE = np.float32(1 << 30)
# Taylor series of 2^x, for |x| <= 1/2 as exact as float32.
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(math.log(2) ** i / math.factorial(i)) for i in range(8))
_LANES = 16


class Cover(NamedTuple):
    """How similar each pool row is to its most similar chosen row, and the least `s - bias` worth a closer look.

    Args:
        quanta: the similarity.
        limit: a pair of candidate j and row i gains nothing unless z_i . z_j + b_j exceeds limit[i].
        bias: b.
        margin: by how much the limit stays below the cover, for the rounding of its comparison.
        exponential: of the embedding.
    """

    quanta: np.ndarray
    limit: np.ndarray
    bias: np.ndarray
    margin: np.float32
    exponential: bool


def levels(cover: Cover) -> np.ndarray:
    """Return the cover as float32 similarities."""
    return cover.quanta.astype(np.float32) / np.float32(ONE)


def compiled(function: Function) -> Function:
    """Compile for all threads at once, and once for all runs."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def no_cover(bias: np.ndarray, exponential: bool) -> Cover:
    """Return the cover by no rows."""
    margin = np.float32(1e-5 + 8 * np.finfo(np.float32).eps * np.abs(bias).max())
    lowest = (-_LOG_ONE if exponential else np.float32(0)) - margin
    return Cover(np.zeros(len(bias), dtype=np.int32), lowest - bias, bias, margin, exponential)


@compiled
def _quanta_of(s: np.float32, exponential: bool) -> np.int32:
    if not exponential:
        return np.int32(min(max(s, np.float32(0)), np.float32(1)) * _SCALE)
    x = min(max(s, np.float32(-31)), np.float32(0))
    whole = np.floor(x + np.float32(0.5))
    f = x - whole
    power = _C0 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * (_C6 + f * _C7))))))
    return np.int32(np.int32(power * _SCALE) >> np.int32(-whole))


@compiled
def raise_one(i: int, quanta: np.int32, cover: Cover) -> None:
    """Raise the cover of row i to a similarity, if that is larger."""
    if quanta > cover.quanta[i]:
        cover.quanta[i] = quanta
        if quanta >= ONE:
            cover.limit[i] = np.inf
        elif cover.exponential:
            cover.limit[i] = np.log2(np.float32(quanta)) - _LOG_ONE - cover.margin - cover.bias[i]
        else:
            cover.limit[i] = np.float32(quanta) / _SCALE - cover.margin - cover.bias[i]


@compiled
def raise_all(rows: np.ndarray, quanta: np.ndarray, cover: Cover) -> None:
    """Raise the cover of `rows` to the similarities beside them, where these are larger."""
    for p in range(len(rows)):
        raise_one(rows[p], quanta[p], cover)


def _typed_sixteen_exceed(typingctx: Any, values: Any, limits: Any, first: Any, addend: Any) -> Any:
    """Return a bit mask of values[first + i] + addend > limits[first + i], i < 16, float32 and contiguous.

    Written in LLVM's own words: numba's loops test one pair at a time where what is to follow depends on the answer.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), _LANES)
        loaded: list[Any] = []
        for array, kind in zip(arguments[:2], signature.args[:2], strict=True):
            data = context.make_array(kind)(context, builder, array).data
            place = builder.bitcast(builder.gep(data, [arguments[2]]), ir.PointerType(vector))
            loaded.append(builder.load(place, align=4))
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[3], ir.Constant(ir.IntType(32), 0))
        every = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        sums = builder.fadd(loaded[0], builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), every))
        bits = builder.bitcast(builder.fcmp_ordered(">", sums, loaded[1]), ir.IntType(_LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.uint64(values, limits, first, addend), generate


def _typed_lowest_bit(typingctx: Any, mask: Any) -> Any:
    """Return the place of the lowest bit set, of a mask that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


_sixteen_exceed: Any = intrinsic(_typed_sixteen_exceed)
_lowest_bit: Any = intrinsic(_typed_lowest_bit)


@compiled
def _exceeding(values: np.ndarray, limits: np.ndarray, addend: np.float32, found: np.ndarray) -> int:
    """Write to `found` where values + addend > limits, in order; return how many these are."""
    num = np.uint64(0)
    width = len(values)
    whole = width // 16 * 16
    for first in range(0, whole, 16):
        mask = _sixteen_exceed(values, limits, first, addend)
        while mask:
            found[num] = np.uint64(first) + _lowest_bit(mask)
            num += np.uint64(1)
            mask &= mask - np.uint64(1)
    for c in range(whole, width):
        if values[c] + addend > limits[c]:
            found[num] = c
            num += np.uint64(1)
    return int(num)


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
        num_found = _exceeding(s, limit, b, found)
        for p in range(num_found):
            value[p] = s[found[p]] + (b + bias[found[p]])
        for p in range(num_found):
            similarity[p] = _quanta_of(value[p], cover.exponential)
        gain, start = np.int64(0), end
        for p in range(num_found):
            over = max(similarity[p] - covered[found[p]], 0)
            gain += over if weight is None else over * weight[first_row + found[p]]
            rows[end], quanta[end] = first_row + found[p], similarity[p]
            end += np.uint64(over > 0)
        gains[r] += gain
        lengths[r] = end - start
    return int(end)


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
            x = min(s[c] + (b + column_bias[c]), np.float32(0 if exponential else 1))
            if exponential:
                x = max(x, np.float32(-60))
                whole = np.floor(x + np.float32(0.5))
                f = x - whole
                power = np.float32(_C0 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * _C5)))))
                x = np.int32(power.view(np.int32) + (np.int32(whole) << np.int32(23))).view(np.float32)
            similarity[c] = max(x, np.float32(0))
        total, above = np.float32(0), np.float32(0)
        for c in range(width):  # apart: of more arrays at a time, numba does not see that none overlap
            total += column_weight[c] * similarity[c]
            above += column_weight[c] * max(similarity[c] - column_cover[c], np.float32(0))
            plain_sums[c] += weight * similarity[c]
        for c in range(width):
            above_sums[c] += weight * max(similarity[c] - cover, np.float32(0))
        row_sums[0, r] += total
        row_sums[1, r] += above


@compiled
def raise_tile(product: np.ndarray, first_row: int, candidate_bias: np.ndarray, cover: Cover) -> None:
    """Raise the cover of the tile's pool rows to their similarities with the rows of the product."""
    width = product.shape[1]
    limit = cover.limit[first_row : first_row + width]
    found = np.empty(width, dtype=np.uint32)
    for r in range(product.shape[0]):
        num_found = _exceeding(product[r], limit, candidate_bias[r], found)
        for p in range(num_found):
            i = first_row + found[p]
            quanta = _quanta_of(product[r, found[p]] + (candidate_bias[r] + cover.bias[i]), cover.exponential)
            raise_one(i, quanta, cover)


@compiled
def quanta_of_pairs(s: np.ndarray, exponential: bool) -> np.ndarray:
    """Return the quanta of many values at once."""
    quanta = np.empty(len(s), dtype=np.int32)
    for p in range(len(s)):
        quanta[p] = _quanta_of(s[p], exponential)
    return quanta


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
        similarity = _quanta_of(s[p], cover.exponential)
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
