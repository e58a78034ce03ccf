"""How far the picks of facility location are from float64 greedy on pools whose features are hard for float32.

    python benchmarks/extreme_features.py                  # 1,000 prompts, 50 picks, every pool
    python benchmarks/extreme_features.py --n 20000 --k 100
    python benchmarks/extreme_features.py --pools "outlier 1e9" --mode sparse

Printed is, for each pool, the largest loss of a pick: (most any prompt gains - what the pick gains) / most, gains in
float64 from the features and above the cover by the picks before, at every turn, or at 12 of them where n > 2,000.
Nothing of it is computed by aliquot: the distances are SciPy's, from differences. f and seconds stand beside, and f of
random picks.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator

import numba
import numpy as np
from scipy.spatial.distance import cdist

from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.greedy.modes import Distributed, Exact, Mode, Sparse, Stochastic
from aliquot.selection.kernels import RBF
from aliquot.types import Selection

_MODES: dict[str, Callable[[], Mode]] = {
    "exact": Exact,
    "sparse": lambda: Sparse(m=10**9),
    "stochastic": lambda: Stochastic(eps=1e-30),
    "distributed": lambda: Distributed(parts=1),
}
_SPREADS, _OUTLIERS = ("1e-2", "1e-3", "1e-4", "1e-5"), ("1e3", "1e5", "1e7", "1e9")


def make_pools(n: int, d: int, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the pools and their names; rows come in a random order."""
    rng = np.random.default_rng(seed)
    plain, center = rng.normal(size=(n, d)), rng.normal(size=d)
    yield "plain", plain.astype(np.float32)
    for spread in _SPREADS:
        x = plain.copy()
        tight = rng.permutation(n)[: n * 4 // 5]
        x[tight] = center + float(spread) * plain[tight]
        yield f"cluster {spread}", x.astype(np.float32)
    for size in _OUTLIERS:
        x = plain.copy()
        x[n // 3] *= float(size)
        yield f"outlier {size}", x.astype(np.float32)
        x = plain.copy()
        x[n // 3, 0] = float(size)
        yield f"entry {size}", x.astype(np.float32)
    for name, column in (("entries 3e3", rng.integers(d, size=n)), ("one column 3e3", np.zeros(n, dtype=int))):
        x = plain.copy()
        rows = rng.permutation(n)[: n // 20]
        x[rows, column[rows]] = 3e3
        yield name, x.astype(np.float32)
    cluster = rng.integers(50, size=n)
    spreads = 10 ** rng.uniform(-5, 0, size=50)
    yield "50 clusters", (rng.normal(size=(50, d))[cluster] + spreads[cluster, None] * plain).astype(np.float32)
    halves = np.where(rng.random(n) < 0.6, 1.0, -1.0)[:, None]
    yield "two clusters", (halves * center + 1e-4 * plain).astype(np.float32)
    yield "heavy tails", (rng.pareto(0.5, size=(n, 1)) * plain).astype(np.float32)
    yield "subnormal", (plain * 1e-40).astype(np.float32)


def unit_of(x: np.ndarray) -> float:
    """The median squared distance over the pairs that RBF(unit="median", seed=0) samples."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(x), size=100_000)
    columns = (rows + rng.integers(1, len(x), size=100_000)) % len(x)
    squared = np.square(x[rows].astype(np.float64) - x[columns]).sum(axis=1)
    return float(np.median(squared[squared > 0]))


def covers(x: np.ndarray, width: float, picks: np.ndarray) -> np.ndarray:
    """Return how similar each row is to the nearest of the first 0, 1, .. k picks: exp(-d^2 / width), in float64."""
    cover = np.zeros((len(picks) + 1, len(x)))
    for turn, row in enumerate(picks):
        similar = np.exp(-cdist(x, x[row : row + 1], "sqeuclidean")[:, 0] / width)
        cover[turn + 1] = np.maximum(cover[turn], similar)
    return cover


@numba.njit(cache=True)
def gains_above(w: np.ndarray, covers: np.ndarray) -> np.ndarray:
    """Return what each row of `w` gains above each of the covers."""
    gains = np.zeros((len(covers), len(w)))
    for turn in range(len(covers)):
        for row in range(len(w)):
            for i in range(w.shape[1]):
                gains[turn, row] += max(w[row, i] - covers[turn, i], 0.0)
    return gains


def losses(x: np.ndarray, width: float, picks: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Return the loss of the picks at the turns looked at."""
    turns = np.arange(len(picks)) if len(x) <= 2000 else np.linspace(0, len(picks) - 1, 12).astype(int)
    most, own = np.zeros(len(turns)), np.zeros(len(turns))
    for block in np.array_split(np.arange(len(x)), math.ceil(len(x) / 256)):
        w = np.exp(-cdist(x[block], x, "sqeuclidean") / width)
        for place, (turn, gains) in enumerate(zip(turns, gains_above(w, cover[turns]), strict=True)):
            gains[np.isin(block, picks[:turn])] = 0
            most[place] = max(most[place], gains.max())
            if picks[turn] in block:
                own[place] = gains[picks[turn] - block[0]]
    return (most - own) / np.maximum(most, 1e-300)


def measure(x: np.ndarray, k: int, gamma: float, mode: Mode) -> str:
    """Select from a pool and say in a line how good that was."""
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    try:
        embedding = RBF(gamma).embed(x)
        chosen = mode.maximize(embedding, Selection.none(), k, Workspace())
    except ValueError as error:
        return f"refused: {error}"
    seconds = time.perf_counter() - started
    width, x = gamma * unit_of(x), x.astype(np.float64)
    cover = covers(x, width, chosen.indices)
    random = covers(x, width, np.random.default_rng(0).permutation(len(x))[:k])[-1].sum()
    loss = losses(x, width, chosen.indices, cover).max()
    return f"{loss:10.1e}{cover[-1].sum():12.3f}{chosen.gains.sum():12.3f}{random:12.3f}{seconds:9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--d", type=int, default=32)
    parser.add_argument("--gamma", type=float, default=0.25)
    parser.add_argument(
        "--mode", choices=_MODES, default="exact", help="the others in a setting in which they are exact"
    )
    parser.add_argument("--pools", nargs="+", help="names of pools; all if left out")
    args = parser.parse_args()
    logging.disable()
    measure(next(make_pools(200, args.d))[1], 3, args.gamma, _MODES[args.mode]())  # loads what is compiled
    print(f"n={args.n} k={args.k} d={args.d} gamma={args.gamma} mode={args.mode}")
    print(f"{'pool':18}{'worst loss':>10}{'f':>12}{'sum of gains':>13}{'f, random':>11}{'seconds':>9}")
    for name, x in make_pools(args.n, args.d):
        if not args.pools or name in args.pools:
            print(f"{name:18}{measure(x, args.k, args.gamma, _MODES[args.mode]())}", flush=True)


if __name__ == "__main__":
    main()
