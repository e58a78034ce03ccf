"""The quality of an approximate ranking: its value of f, and its share of exact greedy's gain on a sample."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from aliquot.runtime.progress import silenced
from aliquot.selection.greedy.certificate import objective
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.greedy.modes import Exact, Mode
from aliquot.selection.kernels import Embedding
from aliquot.types import Selection

_SAMPLE = 4000  # prompts of the small pool that exact greedy is run on
_PAIRS = 1 << 28  # maximum similarities for estimating f: a second or two


def mean_cover(embedding: Embedding, rows: Int64[np.ndarray, " m"], chosen: Int64[np.ndarray, " k"]) -> float:
    """Return the mean similarity of the prompts in `rows` to the most similar selected one; over all rows, f / n."""
    return objective(embedding, chosen, rows=rows) / len(rows)


def describe(mode: Mode, embedding: Embedding, selection: Selection, device: str) -> str:
    """Describe in one line the quality of a selection by an approximate mode.

    The objective is that of the pool, or an estimate from a fixed sample of rows if that takes too long. In addition,
    the mode and exact greedy select the same share of a small fixed sample of the pool. *Recovered* is
    (f - f_random) / (f_exact - f_random): plain ratios flatter, because random prompts reach most of f.
    """
    n, k = len(embedding), len(selection)
    rows = _sample(n, max(_SAMPLE, _PAIRS // k))
    f = n * mean_cover(embedding, rows, selection.indices)
    pool = "" if len(rows) == n else f", estimated on {len(rows):,} prompts"
    ratio, recovered, size, depth = against_exact(mode, embedding, k, device)
    return (
        f"{mode}: f = {f:,.2f} of at most {n:,}{pool}. Choosing {depth:,} of {'all' if size == n else 'a sample of'} "
        f"{size:,} prompts, it reaches {ratio:.5f} of exact greedy's f and recovers {recovered:.4f} of its gain over "
        "random"
    )


def against_exact(mode: Mode, embedding: Embedding, k: int, device: str) -> tuple[float, float, int, int]:
    """Return f / f_exact and recovered on a sample, the size of the sample, and the number selected."""
    n = len(embedding)
    rows = _sample(n, _SAMPLE)
    small, everything, depth = embedding.take(rows), np.arange(len(rows)), max(1, round(k * len(rows) / n))

    def reached(mode: Mode) -> float:
        chosen = mode.maximize(small, Selection.none(), depth, Workspace(device=device))
        return mean_cover(small, everything, chosen.indices)

    with silenced():
        f, exact = reached(mode), reached(Exact())
    random = mean_cover(small, everything, np.random.default_rng(0).permutation(len(rows))[:depth])
    recovered = (f - random) / (exact - random) if exact > random else 1.0
    return f / exact, recovered, len(rows), depth


def _sample(n: int, size: int) -> Int64[np.ndarray, " m"]:
    """Return a fixed sample of rows in ascending order, or all if there are no more than `size`."""
    return np.arange(n) if n <= size else np.sort(np.random.default_rng(0).choice(n, size, replace=False))
