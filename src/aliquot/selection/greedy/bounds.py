"""What all candidates may gain, from one pass over the pairs of rows; and a guess which of them gains most.

The pass takes the upper triangle of the tiles of Z Z^T strip by strip, and every pair counts for both its rows. Its
sums are float32, so what rounding may do is added to them: they are bounds.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from aliquot.selection.greedy.fixed_point import ONE, rounding
from aliquot.selection.greedy.passes import STRIP, UNIT
from aliquot.selection.kernels import Embedding

_SAMPLE = 512  # rows of the pool by which the gains of all are guessed


class Bounds:
    """The sums of a pass, as far as it has come, and the bounds they make.

    Args:
        embedding: of the pool.
        weight: of its rows, in integers; None for 1.
    """

    def __init__(self, embedding: Embedding, weight: np.ndarray | None) -> None:
        n = len(embedding)
        self.weight = np.ones(n, dtype=np.float32) if weight is None else weight.astype(np.float32)
        self._most = float(n if weight is None else weight.sum())
        self._rounding = self._most * rounding(embedding)
        self.sums = np.zeros((2, n))  # gains without a cover, and those above it
        self.done = n  # rows whose pairs with all behind them are in the sums

    def begin(self) -> None:
        """Forget the last pass."""
        self.sums[:], self.done = 0, 0

    def add(self, sums: np.ndarray) -> int:
        """Add what the next strip of rows adds; return how many rows it has."""
        self.sums[:, self.done :] += sums
        size = min(STRIP, self.sums.shape[1] - self.done)
        self.done += size
        return size

    def in_quanta(self, above_cover: bool) -> Int64[np.ndarray, " n"]:
        """Return bounds on the gains without a cover, or above the one that the pass was given."""
        most = np.minimum(self.sums[int(above_cover)] * (1 + 2**-10) + self._rounding, self._most)
        return np.ceil(most * float(ONE)).astype(np.int64)


def promising(embedding: Embedding, weight: np.ndarray | None, candidates: np.ndarray) -> np.ndarray:
    """Return the `UNIT` candidates that gain most, without a cover, on a sample of the pool."""
    sample = np.arange(0, len(embedding), -(-len(embedding) // _SAMPLE))
    weights = np.ones(len(sample)) if weight is None else weight[sample]
    blocks = np.array_split(candidates, -(-len(candidates) // UNIT))
    gains = np.concatenate([weights @ _roughly(embedding, sample, block) for block in blocks])
    return candidates[np.argsort(-gains, kind="stable")[:UNIT]]


def _roughly(embedding: Embedding, rows: np.ndarray, columns: np.ndarray) -> Float32[np.ndarray, "m k"]:
    """Return w for all pairs of some rows with others, as their products say; with far rows, at least w."""
    s = embedding.vectors[rows] @ embedding.vectors[columns].T
    s += embedding.bias[rows, None] + embedding.bias[columns]
    return np.exp2(np.minimum(s, 0, out=s), out=s) if embedding.exponential else np.clip(s, 0, 1, out=s)
