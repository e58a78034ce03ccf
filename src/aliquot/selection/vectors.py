"""Feature vectors of any magnitude: their lengths, their directions, and a center that is robust to outliers."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float32, Float64

Features = Float32[np.ndarray, "n d"]

_TINY = 2.0**-100  # smaller features are rescaled, and those larger than its inverse
_NUM_CENTRAL = 1024  # rows whose median is a robust center


def unit_rows(features: Features) -> Features:
    """Scale every row to length 1; zero rows share one extra axis, at a right angle to all others."""
    norms = np.sqrt(2 * half_squared_norms(features))
    zero = norms == 0
    unit = features / np.where(zero, 1.0, norms).astype(np.float32)[:, None]
    if (tiny := ~zero & (norms < _TINY)).any():  # float32 has a few digits of these, or none
        unit[tiny] = features[tiny] / norms[tiny, None]
    return np.column_stack([unit, zero.astype(np.float32)]) if zero.any() else unit


def exact_unit_rows(features: Features) -> Float64[np.ndarray, "n d"]:
    """Do what `unit_rows` does in float64, where nearly equal directions still differ."""
    factor = per_length(features)
    unit, zero = factor[:, None] * features, factor == 0
    return np.column_stack([unit, zero]) if zero.any() else unit


def per_length(features: Features) -> Float64[np.ndarray, " n"]:
    """Return 1 / |x| of every row, 0 for rows of zeros."""
    norms = np.sqrt(2 * half_squared_norms(features))
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)


def half_squared_norms(vectors: Features) -> Float64[np.ndarray, " n"]:
    return 0.5 * np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)


def rescaled(features: Features, tiny: float = _TINY) -> tuple[Features, int]:
    """Return the features times 2^p, and p, which is 0 unless the largest is below `tiny` or above its inverse.

    Nothing is rounded, except numbers 2^126 times smaller than the largest.
    """
    largest = float(np.abs(features).max(initial=0.0))
    if largest == 0 or tiny < largest < 1 / tiny:
        return features, 0
    power = -math.frexp(largest)[1]
    return np.ldexp(features, power), power


def central(features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, " d"]:
    """Return the median of a sample in each dimension: a center robust to a few far rows, or a minority of them."""
    rows = np.random.default_rng(0).permutation(len(features))[:_NUM_CENTRAL]
    return np.median(features[rows], axis=0).astype(np.float32)
