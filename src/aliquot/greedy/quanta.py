"""What makes sums of similarities exact, and how far similarities may be off before they are counted."""

from __future__ import annotations

import numpy as np

from aliquot.greedy.tiles import ONE
from aliquot.kernels import Embedding

_SUM = 1 << 32  # of the integer weights: with 2^30 quanta, sums stay below 2^62


def integer_weights(weights: np.ndarray | None) -> tuple[np.ndarray | None, float]:
    """Return the weights in integers, and f per quantum."""
    if weights is None:
        return None, 1 / float(ONE)
    total = float(weights.sum(dtype=np.float64))
    if not (np.isfinite(total) and total > 0 and weights.min() >= 0):
        raise ValueError(
            f"weights from {weights.min():.4g} to {weights.max():.4g} with sum {total:.4g} weigh nothing; use finite "
            "ones of 0 or more, not all 0"
        )
    scale = _SUM / total
    return np.floor(weights.astype(np.float64) * scale).astype(np.int64), 1 / (scale * float(ONE))


def rounding(embedding: Embedding) -> float:
    """Return how far a similarity from one product may lie from that of another, of other rounding."""
    squared = max(1.0, 2 * float(np.abs(embedding.bias).max()))
    s = 8 * float(np.finfo(np.float32).eps) * squared
    return min(1.0, 2**-20 + (2 ** min(s, 1.0) - 1 if embedding.exponential else s))
