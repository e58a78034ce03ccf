"""Shift, whiten and scale vectors, on the host: what is subtracted and whitened by needs the whole pool."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

NORMALIZATIONS = ("raw", "centered", "unit", "centered_unit", "whitened", "whitened_unit")
_BLOCK = 8192  # rows held in memory at once
_ROUNDING = 1e-6  # share of the largest variance


@dataclass(frozen=True)
class Normalization:
    """A shift, a linear map and a scaling of vectors, in this order, each optional.

    Args:
        mean: what is subtracted.
        whitening: a symmetric matrix that gives every direction of the fitted vectors variance 1, or 0.
        unit: whether every vector is then scaled to Euclidean length 1. A zero vector has no direction and stays zero.
    """

    mean: Float64[np.ndarray, " d"] | None = None
    whitening: Float64[np.ndarray, "d d"] | None = None
    unit: bool = False

    @classmethod
    def fit(cls, features: Float32[np.ndarray, "n d"], how: str, block: int = _BLOCK) -> Normalization:
        """Fit what `how`, one of `NORMALIZATIONS`, means for these vectors, a block of rows at a time.

        Hidden states of language models have a few directions of large variance that dominate distances; `whitened`
        gives all directions the same (CRDS-W, 2026, arXiv 2602.13773, whitens before it measures distances; its exact
        formula is unknown to us). Directions with less than 1e-6 of the largest variance are dropped as rounding.
        """
        if how not in NORMALIZATIONS:
            raise ValueError(f"normalize '{how}' is unknown; use one of {', '.join(NORMALIZATIONS)}")
        unit = how.endswith("unit")
        if how in ("raw", "unit"):
            return cls(unit=unit)
        blocks = [features[start : start + block] for start in range(0, len(features), block)]
        mean = _sum(rows.sum(axis=0, dtype=np.float64) for rows in blocks) / len(features)
        if not how.startswith("whitened"):
            return cls(mean, unit=unit)
        centered = (rows - mean for rows in blocks)
        covariance = _sum(rows.T @ rows for rows in centered) / len(features)
        variances, directions = np.linalg.eigh(covariance)
        kept = variances > _ROUNDING * variances[-1]
        scales = np.divide(
            1.0, np.sqrt(variances, where=kept, out=np.ones_like(variances)), where=kept, out=0 * variances
        )
        return cls(mean, (directions * scales) @ directions.T, unit)

    def apply(self, features: Float[np.ndarray, "m d"]) -> Float32[np.ndarray, "m d"]:
        """Return the normalized vectors, in float32, a block of rows at a time."""
        found = np.empty(features.shape, dtype=np.float32)
        for start in range(0, len(features), _BLOCK):
            found[start : start + _BLOCK] = self._block(features[start : start + _BLOCK])
        return found

    def _block(self, features: Float[np.ndarray, "m d"]) -> Float32[np.ndarray, "m d"]:
        moved = features if self.mean is None else features - self.mean
        if self.whitening is not None:
            moved = moved @ self.whitening
        moved = moved.astype(np.float32, copy=False)
        if not self.unit:
            return moved
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        return moved / np.where(norms == 0, 1, norms)


def normalized(features: Float32[np.ndarray, "n d"], how: str) -> Float32[np.ndarray, "n d"]:
    """Return vectors normalized by what is fitted on them; the same array if `how` is raw."""
    return features if how == "raw" else Normalization.fit(features, how).apply(features)


def normalize_in_place(features: Float32[np.ndarray, "n d"], how: str, block: int = _BLOCK) -> Normalization:
    """Normalize vectors by what is fitted on them, and return it.

    Args:
        features: one row per prompt or token; may be memory-mapped.
        how: one of `NORMALIZATIONS`.
        block: rows held in memory at once.
    """
    fitted = Normalization.fit(features, how, block)
    if how != "raw":
        for start in range(0, len(features), block):
            features[start : start + block] = fitted.apply(features[start : start + block])
    return fitted


def _sum(parts: Iterable[np.ndarray]) -> np.ndarray:
    return functools.reduce(operator.add, parts)
