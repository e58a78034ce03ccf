"""Pools whose features are hard for float32, and what greedy does on them in float64."""

from collections.abc import Iterator

import numpy as np


def extreme_pools(n: int, d: int = 16, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield pools with their names: tight clusters beside wide ones, outliers, numbers that float32 hardly holds."""
    rng = np.random.default_rng(seed)
    plain, center, third = rng.normal(size=(n, d)), rng.normal(size=d), n // 3
    for spread in (1e-2, 1e-4, 1e-5):
        x = plain.copy()
        tight = rng.permutation(n)[: n * 4 // 5]
        x[tight] = center + spread * plain[tight]
        yield f"80 % in a cluster of spread {spread:.0e}", x.astype(np.float32)
    for size in (1e3, 1e5, 1e7, 1e9):
        row, entry = plain.copy(), plain.copy()
        row[third] *= size
        entry[third, 0] = size
        yield f"a row of {size:.0e}", row.astype(np.float32)
        yield f"an entry of {size:.0e}", entry.astype(np.float32)
    x = plain.copy()
    x[np.arange(0, n, 20), rng.integers(d, size=-(-n // 20))] = 3e3
    yield "5 % with an entry of 3e3", x.astype(np.float32)
    x = plain.copy()
    x[::20, 0] = 3e3
    yield "5 % far out together", x.astype(np.float32)
    cluster, spreads = rng.integers(20, size=n), 10 ** rng.uniform(-5, 0, size=20)
    yield "clusters of many spreads", (rng.normal(size=(20, d))[cluster] + spreads[cluster, None] * plain).astype("f4")
    side = np.where(rng.random(n) < 0.6, 1.0, -1.0)[:, None]
    yield "two tight clusters far apart", (side * center + 1e-4 * plain).astype(np.float32)
    yield "heavy tails", (rng.pareto(0.5, size=(n, 1)) * plain).astype(np.float32)
    yield "subnormal", (1e-40 * plain).astype(np.float32)
    yield "huge", (1e14 * plain).astype(np.float32)


EXTREME = dict(extreme_pools(500))


def squared_distances(x: np.ndarray) -> np.ndarray:
    """From differences, in float64."""
    x = x.astype(np.float64)
    return np.array([np.square(x - row).sum(axis=1) for row in x])


def rbf(x: np.ndarray, gamma: float) -> np.ndarray:
    """The similarities of RBF(gamma) by its formula, in units of the median over the pairs that it samples."""
    squared, rng = squared_distances(x), np.random.default_rng(0)
    rows = rng.integers(len(x), size=100_000)
    of_pairs = squared[rows, (rows + rng.integers(1, len(x), size=100_000)) % len(x)]
    return np.exp(-squared / (gamma * np.median(of_pairs[of_pairs > 0])))


def cosine(x: np.ndarray) -> np.ndarray:
    """The cosines, negative ones as 0, of rows none of which is 0."""
    x = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return np.clip(x @ x.T, 0, 1)


def worst_loss(w: np.ndarray, picks: np.ndarray) -> float:
    """By how much, relative to the best gain at its turn, a pick gained less than another row would have."""
    cover, worst = np.zeros(len(w)), 0.0
    for turn, pick in enumerate(picks):
        gains = np.maximum(w - cover[:, None], 0).sum(axis=0)
        gains[picks[:turn]] = 0
        worst = max(worst, float((gains.max() - gains[pick]) / gains.max()))
        cover = np.maximum(cover, w[:, pick])
    return worst
