"""Pools small enough for the full matrix."""

from collections.abc import Sequence

import numpy as np

from aliquot.selection.kernels import Embedding


def mixture(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    """Clusters of uneven size, with some exact duplicates."""
    rng = np.random.default_rng(seed)
    clusters = max(2, n // 20)
    x = rng.normal(size=(clusters, d))[(rng.pareto(1.0, size=n) * 3).astype(int) % clusters]
    x += 0.4 * rng.normal(size=(n, d))
    x[rng.integers(n, size=n // 20)] = x[rng.integers(n, size=n // 20)]
    return x.astype(np.float32)


def matrix(embedding: Embedding) -> np.ndarray:
    """All similarities in float64."""
    rows, columns = (a.ravel() for a in np.indices((len(embedding), len(embedding))))
    return embedding.similarity(rows, columns).reshape(len(embedding), len(embedding))


def naive_greedy(w: np.ndarray, k: int, start: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Every gain of every column anew at every pick; `start` and the picks after it, and the gains of these.

    Of gains equal up to rounding, as of mutual nearest pairs, it is the lower row's.
    """
    cover, chosen, gained = w[:, list(start)].max(axis=1, initial=0), list(start), []
    while len(chosen) < k:
        gains = np.maximum(w - cover[:, None], 0).sum(axis=0)
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains >= gains.max() * (1 - 1e-9))))
        gained.append(gains.max())
        cover = np.maximum(cover, w[:, chosen[-1]])
    return np.array(chosen), np.array(gained)


def greedy_gap(w: np.ndarray, chosen: np.ndarray | Sequence[int]) -> float:
    """How much, relative to f, any pick was worse than the best column at its turn."""
    cover, gap = np.zeros(len(w)), 0.0
    for column in chosen:
        gains = np.maximum(w - cover[:, None], 0).sum(axis=0)
        gap = max(gap, float(gains.max() - gains[column]))
        cover = np.maximum(cover, w[:, column])
    return gap / float(cover.sum())
