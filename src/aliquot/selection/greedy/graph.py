"""Greedy facility location on a neighbor graph: every prompt has its list from the start, and no products are needed.

Only the pairs of the graph count: f_G(S) = sum_i max_{s in S, s among the neighbors of i} w_is, at most f(S). Sums are
over integers, so they are exact in any order; ties go to the lower row. A prompt that no selected one covers gains its
own 1, so all gains are 0 only if each candidate duplicates a selected one; these follow in row order.
"""

from __future__ import annotations

import numpy as np

from aliquot.runtime.progress import Progress
from aliquot.selection.greedy.candidate_lists import OUT, Lists, pick_from_lists, shrink_all
from aliquot.selection.greedy.cover import no_cover_on_graph, raise_all
from aliquot.selection.greedy.fixed_point import ONE
from aliquot.selection.greedy.neighbors import Neighbors
from aliquot.selection.greedy.numba_simd import compiled
from aliquot.selection.purse import Purse, spending
from aliquot.types import Selection

_PATIENCE = 1 << 26  # list entries read between two progress updates


def greedy_on_graph(neighbors: Neighbors, start: Selection, k: int, purse: Purse | None = None) -> Selection:
    """Select k rows by greedy maximization on the graph of neighbors.

    Args:
        neighbors: of every row of the pool.
        start: rows selected earlier, which stay and come first with the gains they have.
        k: rows to select, including those of `start`.
        purse: what rows cost and may cost, or None. With one, k is the most rows.

    Returns:
        The rows in the order picked; gains are marginal gains in f_G.
    """
    n, picked = len(neighbors.rows), len(start)
    lists = _transposed(neighbors.rows, neighbors.quanta)
    cover = no_cover_on_graph(n)
    for row in start.indices:
        listed = slice(lists.start[row], lists.start[row] + lists.length[row])
        raise_all(lists.rows[listed], lists.quanta[listed], cover)
    indices, gains = np.empty(k, dtype=np.int64), np.empty(k, dtype=np.int64)
    indices[:picked] = start.indices
    bound, stamp = np.empty(n, dtype=np.int64), np.full(n, picked)
    shrink_all(np.arange(n), bound, lists, cover.quanta, None)
    stamp[start.indices] = OUT
    spent = spending(purse, start.indices)
    with Progress("facility location", k, "pick", done=picked) as progress:
        while picked < k and len(heap := np.flatnonzero(stamp != OUT)):
            before, worth = picked, bound if purse is None else purse.worth(bound)
            picked, _ = pick_from_lists(
                heap, bound, worth, stamp, lists, cover, None, *spent, indices, gains, picked, _PATIENCE
            )
            progress.update(picked - before, gain=f"{gains[picked - 1] / float(ONE):.4g}")
    return Selection(indices[:picked], np.concatenate([start.gains, gains[len(start) : picked] / float(ONE)]))


@compiled
def _transposed(rows: np.ndarray, quanta: np.ndarray) -> Lists:
    """Return a list for each prompt: the prompts whose neighbor it is, and their similarities."""
    n, m = rows.shape
    length = np.zeros(n, dtype=np.int64)
    for i in range(n):
        for p in range(m):
            if quanta[i, p] > 0:
                length[rows[i, p]] += 1
    end = np.cumsum(length)
    total = end[n - 1]
    start = end - length
    end[:] = start
    lists = Lists(start, length, np.empty(total, dtype=np.int32), np.empty(total, dtype=np.int32))
    for i in range(n):
        for p in range(m):
            if quanta[i, p] > 0:
                j = rows[i, p]
                lists.rows[end[j]], lists.quanta[end[j]] = i, quanta[i, p]
                end[j] += 1
    return lists
