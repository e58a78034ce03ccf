"""Similarities from the differences of features, in float64, for pairs whose float32 product is too inaccurate.

Inner loops use it if a row is far or a cosine is close to 1 (see `aliquot.selection.kernels`), and only for pairs
that the product, an upper bound there, does not rule out. Compiled by numba.
"""

from __future__ import annotations

import math

import numpy as np

from aliquot.selection.greedy.numba_simd import compiled
from aliquot.selection.kernels import Differences

_ONE = float(1 << 30)  # similarity 1 in quanta


def for_loops(exact: Differences) -> Differences:
    """Return the arguments for loops: no features if no pair needs them, or features that need no recompilation."""
    if exact.far == -math.inf and exact.close == math.inf:
        return exact._replace(features=np.empty((0, 0), dtype=np.float32))
    return exact._replace(features=np.require(exact.features, np.float32, ["C", "W"]))


def no_exact() -> Differences:
    """Return the arguments for loops whose similarities do not come from features."""
    empty = np.empty(0)
    return Differences(np.empty((0, 0), dtype=np.float32), empty, 0.0, empty, -math.inf, math.inf)


@compiled
def squared_distance(i: int, j: int, exact: Differences) -> float:
    """Return |f_i x_i - f_j x_j|^2 in float64, with the same bits on every call."""
    x, y, f, g = exact.features[i], exact.features[j], exact.factor[i], exact.factor[j]
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    whole = len(x) // 4 * 4
    for t in range(0, whole, 4):  # four sums, because a single one depends on its previous value
        d0, d1 = f * np.float64(x[t]) - g * np.float64(y[t]), f * np.float64(x[t + 1]) - g * np.float64(y[t + 1])
        d2, d3 = (
            f * np.float64(x[t + 2]) - g * np.float64(y[t + 2]),
            f * np.float64(x[t + 3]) - g * np.float64(y[t + 3]),
        )
        s0, s1, s2, s3 = s0 + d0 * d0, s1 + d1 * d1, s2 + d2 * d2, s3 + d3 * d3
    for t in range(whole, len(x)):
        d0 = f * np.float64(x[t]) - g * np.float64(y[t])
        s0 += d0 * d0
    return (s0 + s1) + (s2 + s3)


@compiled
def exact_s(i: int, j: int, exponential: bool, exact: Differences) -> float:
    """Return `s` of two rows."""
    s = -exact.scale * squared_distance(i, j, exact)
    return s if exponential else 1.0 + s


@compiled
def exact_quanta(i: int, j: int, exponential: bool, exact: Differences) -> np.int32:
    """Return the similarity of two rows in quanta."""
    s = exact_s(i, j, exponential, exact)
    if exponential:
        return np.int32(2.0 ** max(s, -40.0) * _ONE)
    return np.int32(min(max(s, 0.0), 1.0) * _ONE)


@compiled
def is_doubtful(s: np.float32, bias: np.float32, other: np.float32, exact: Differences) -> bool:
    """Tell whether a pair with these biases and this `s` from a product must be computed from differences."""
    return bool(bias < exact.far or other < exact.far or s > exact.close)


@compiled
def needs_exact(bias: np.float32, others: np.ndarray, exact: Differences) -> bool:
    """Tell whether pairs of a row with others may be doubtful."""
    if bias < exact.far or exact.close < np.inf:
        return True
    return exact.far > -np.inf and bool(others.min() < exact.far)


@compiled
def exact_s_of_pairs(rows: np.ndarray, columns: np.ndarray, exponential: bool, exact: Differences) -> np.ndarray:
    """Return `s` of the pairs (rows[p], columns[p])."""
    s = np.empty(len(rows))
    for p in range(len(rows)):
        s[p] = exact_s(rows[p], columns[p], exponential, exact)
    return s
