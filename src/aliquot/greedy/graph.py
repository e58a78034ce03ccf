"""Greedy facility location on a neighbour graph: every prompt has its list from the beginning, and no product is taken.

Only the pairs of the graph count: f_G(S) = sum_i max_{s in S, s among the neighbours of i} w_is, at most f(S). Sums are
of integers, so exact in any order; ties go to the lower row. A prompt that nothing chosen covers gains its own 1, so no
candidate gains anything only when each is a duplicate of a chosen one; those follow in the order of their rows.
"""

from __future__ import annotations

import numpy as np

from aliquot.greedy import loops, tiles
from aliquot.greedy.graph_loops import transposed
from aliquot.greedy.neighbors import Neighbors
from aliquot.progress import Progress
from aliquot.types import Selection

_PATIENCE = 1 << 26  # list entries read between two words on the progress


def greedy_on_graph(neighbors: Neighbors, start: Selection, k: int) -> Selection:
    """Choose k rows by greedy maximisation on the graph of neighbours.

    Args:
        neighbors: of every row of the pool.
        start: rows chosen earlier, which stay and come first with the gains they have.
        k: rows to choose, those of `start` included.

    Returns:
        The rows in the order picked; gains are marginal gains in f_G.
    """
    n, picked = len(neighbors.rows), len(start)
    lists = transposed(neighbors.rows, neighbors.quanta)
    cover = tiles.no_cover(np.zeros(n, dtype=np.float32), exponential=True)
    for row in start.indices:
        listed = slice(lists.start[row], lists.start[row] + lists.length[row])
        tiles.raise_all(lists.rows[listed], lists.quanta[listed], cover)
    indices, gains = np.empty(k, dtype=np.int64), np.empty(k, dtype=np.int64)
    indices[:picked] = start.indices
    bound, stamp = np.empty(n, dtype=np.int64), np.full(n, picked)
    loops.shrink_all(np.arange(n), bound, lists, cover.quanta, None)
    stamp[start.indices] = loops.OUT
    with Progress("facility location", k, "pick", done=picked) as progress:
        while picked < k:
            before, heap = picked, np.flatnonzero(stamp != loops.OUT)
            picked, _ = loops.pick_from_lists(
                heap, bound, stamp, lists, cover, None, indices, gains, picked, _PATIENCE
            )  # fmt: skip
            progress.update(picked - before, gain=f"{gains[picked - 1] / float(tiles.ONE):.4g}")
    return Selection(indices, np.concatenate([start.gains, gains[len(start) :] / float(tiles.ONE)]))
