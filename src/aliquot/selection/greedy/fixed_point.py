"""Similarities as integers: sums of quanta of 2^-30, and of weights in integers, are exact in any order.

A product with the biases added is `s` (see `kernels`). It determines the similarity in float32, where a bound is
enough, and the similarity as an int32 number of quanta, where sums have to be exact.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from aliquot.selection.greedy.exact_similarities import exact_quanta, is_doubtful, needs_exact
from aliquot.selection.greedy.numba_simd import compiled
from aliquot.selection.kernels import Differences, Embedding

ONE = np.int32(1 << 30)  # similarity 1 in quanta
_LOG_ONE = np.float32(30)
_SCALE = np.float32(1 << 30)
# Taylor series of 2^x, as exact as float32 for |x| <= 1/2.
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(math.log(2) ** i / math.factorial(i)) for i in range(8))
_LEAST_MARGIN, _OF_BIAS = np.float32(1e-5), np.float32(8 * float(np.finfo(np.float32).eps))
_SUM = 1 << 32  # of the integer weights: with 2^30 quanta, sums stay below 2^62


@compiled
def quanta_of(s: np.float32, exponential: bool) -> np.int32:
    """Return the similarity of `s` in quanta."""
    if not exponential:
        return np.int32(min(max(s, np.float32(0)), np.float32(1)) * _SCALE)
    x = min(max(s, np.float32(-31)), np.float32(0))
    whole = np.floor(x + np.float32(0.5))
    f = x - whole
    power = _C0 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * (_C6 + f * _C7))))))
    return np.int32(np.int32(power * _SCALE) >> np.int32(-whole))


@compiled
def s_of(quanta: np.float32, exponential: bool) -> np.float32:
    """Return the `s` of a similarity in quanta, up to rounding; if exponential, minus infinity for 0 quanta."""
    return np.log2(quanta) - _LOG_ONE if exponential else quanta / _SCALE


@numba.njit(cache=True, nogil=True, fastmath=True)  # a bound, with a margin for rounding
def similarity_of(s: np.float32, exponential: bool) -> np.float32:
    """Return the similarity of `s` in float32, within 1e-6."""
    if not exponential:
        return max(min(s, np.float32(1)), np.float32(0))
    x = max(min(s, np.float32(0)), np.float32(-60))
    whole = np.floor(x + np.float32(0.5))
    f = x - whole
    power = np.float32(_C0 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * _C5)))))
    return np.int32(power.view(np.int32) + (np.int32(whole) << np.int32(23))).view(np.float32)


@compiled
def quanta_of_tile(
    product: np.ndarray,
    rows: np.ndarray,
    first_column: int,
    bias: np.ndarray,
    exponential: bool,
    exact: Differences,
    quanta: np.ndarray,
) -> None:
    """Write the similarities of a tile of products of `rows` with the rows of the pool from `first_column` onward.

    Rows of the product beyond those of `quanta` are padding.
    """
    column_bias = bias[first_column : first_column + quanta.shape[1]]
    for r in range(quanta.shape[0]):
        row = int(rows[r])
        b = bias[row]
        for c in range(quanta.shape[1]):
            quanta[r, c] = quanta_of(product[r, c] + (b + column_bias[c]), exponential)
        if needs_exact(b, column_bias, exact):
            for c in range(quanta.shape[1]):
                if quanta[r, c] > 0 and is_doubtful(product[r, c] + (b + column_bias[c]), b, column_bias[c], exact):
                    quanta[r, c] = exact_quanta(row, first_column + c, exponential, exact)


def integer_weights(weights: np.ndarray | None) -> tuple[np.ndarray | None, float]:
    """Return the weights as integers, and f per quantum.

    Raises:
        ValueError: weights are negative, not finite or all 0.
    """
    if weights is None:
        return None, 1 / float(ONE)
    total = float(weights.sum(dtype=np.float64))
    if not (np.isfinite(total) and total > 0 and weights.min() >= 0):
        raise ValueError(
            f"weights from {weights.min():.4g} to {weights.max():.4g} with sum {total:.4g} cannot be used; use finite "
            "ones of 0 or more, not all 0"
        )
    scale = _SUM / total
    return np.floor(weights.astype(np.float64) * scale).astype(np.int64), 1 / (scale * float(ONE))


def rounding(embedding: Embedding) -> float:
    """Return how far a similarity from one product may exceed that of another with other rounding, or with none."""
    near = embedding.bias[embedding.bias >= embedding.exact.far]  # products of far rows are upper bounds
    squared = max(1.0, 2 * float(np.abs(near).max(initial=0)))
    s = 8 * float(np.finfo(np.float32).eps) * squared
    return min(1.0, 2**-20 + (2 ** min(s, 1.0) - 1 if embedding.exponential else s))


@compiled
def comparison_margin(bias: Any) -> Any:
    """Return by how far a limit on `s - bias` must stay below its nominal value, because of the rounding of sums.

    Rows whose biases differ much have no similarity, so the bias of one of them suffices; an array of it is allowed.
    """
    return _LEAST_MARGIN + _OF_BIAS * np.abs(bias)
