"""Upper bounds on all gains, from one pass over the pairs of rows; and a guess which candidate gains most.

The pass takes the upper triangle of the tiles of Z Z^T strip by strip, and every pair counts for both its rows. Its
sums are float32, so the possible rounding error is added to them to make them bounds.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from aliquot.selection.greedy.fixed_point import ONE, rounding
from aliquot.selection.greedy.passes import STRIP, UNIT
from aliquot.selection.kernels import Embedding

_SAMPLE = 512  # rows of the pool from which all gains are guessed


class Bounds:
    """The sums of a pass so far, and the bounds that follow from them.

    Args:
        embedding: of the pool.
        weight: of its rows, as integers; None means 1.
    """

    def __init__(self, embedding: Embedding, weight: np.ndarray | None) -> None:
        n = len(embedding)
        self.weight = np.ones(n, dtype=np.float32) if weight is None else weight.astype(np.float32)
        self._most = float(n if weight is None else weight.sum())
        self._rounding = self._most * rounding(embedding)
        self.sums = np.zeros((2, n))  # gains without a cover, and those above it
        self.done = n  # rows whose pairs with all later ones are in the sums

    def begin(self) -> None:
        """Forget the last pass."""
        self.sums[:], self.done = 0, 0

    def add(self, sums: np.ndarray) -> int:
        """Add the contribution of the next strip of rows; return how many rows it has."""
        self.sums[:, self.done :] += sums
        size = min(STRIP, self.sums.shape[1] - self.done)
        self.done += size
        return size

    def in_quanta(self, above_cover: bool) -> Int64[np.ndarray, " n"]:
        """Return bounds on the gains without a cover, or above the cover that the pass was given."""
        most = np.minimum(self.sums[int(above_cover)] * (1 + 2**-10) + self._rounding, self._most)
        return np.ceil(most * float(ONE)).astype(np.int64)


def promising(
    embedding: Embedding, weight: np.ndarray | None, candidates: np.ndarray, divisor: np.ndarray | None = None
) -> np.ndarray:
    """Return the `UNIT` candidates that gain most, per divisor if any, on a sample of the pool, without a cover."""
    sample = np.arange(0, len(embedding), -(-len(embedding) // _SAMPLE))
    weights = np.ones(len(sample)) if weight is None else weight[sample]
    blocks = np.array_split(candidates, -(-len(candidates) // UNIT))
    gains = np.concatenate([weights @ _roughly(embedding, sample, block) for block in blocks])
    gains = gains if divisor is None else gains / divisor[candidates]
    return candidates[np.argsort(-gains, kind="stable")[:UNIT]]


def _roughly(embedding: Embedding, rows: np.ndarray, columns: np.ndarray) -> Float32[np.ndarray, "m k"]:
    """Return w for all pairs of two sets of rows, from their products; with far rows, an upper bound of w."""
    s = embedding.vectors[rows] @ embedding.vectors[columns].T
    s += embedding.bias[rows, None] + embedding.bias[columns]
    return np.exp2(np.minimum(s, 0, out=s), out=s) if embedding.exponential else np.clip(s, 0, 1, out=s)
