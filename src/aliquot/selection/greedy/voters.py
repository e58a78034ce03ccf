"""Greedy selection by votes on the graph of neighbors, compiled by numba (vote-k: Su et al. 2022, arXiv 2209.01975)."""

from __future__ import annotations

import numpy as np

from aliquot.runtime.progress import Progress
from aliquot.selection.greedy.candidate_lists import sift_down
from aliquot.selection.greedy.neighbors import Neighbors
from aliquot.selection.greedy.numba_simd import compiled
from aliquot.selection.greedy.set_cover import Sets
from aliquot.types import Selection

_PATIENCE = 1 << 26  # votes read between two progress updates


def voters_of(neighbors: Neighbors) -> Sets:
    """Return for each row those that have it among their neighbors; a row does not vote for itself."""
    n, m = neighbors.rows.shape
    voter = np.repeat(np.arange(n, dtype=np.int32), m)
    valid = (neighbors.quanta.ravel() > 0) & (neighbors.rows.ravel() != voter)
    voted = neighbors.rows.ravel()[valid]
    start = np.concatenate([[0], np.cumsum(np.bincount(voted, minlength=n))])
    return Sets(start, voter[valid][np.argsort(voted, kind="stable")])


def greedy_by_votes(voters: Sets, start: Selection, k: int) -> Selection:
    """Select k rows, each with the highest score at its turn; ties go to the lower row.

    The score of a row is the sum over its voters u that are not selected of 10^-c, with c the selected rows that u
    votes for. Scores only fall, so old ones are upper bounds and few are computed anew.

    Args:
        voters: of each row.
        start: rows selected earlier, which stay and come first with the gains they have.
        k: rows to select, including those of `start`.

    Returns:
        The rows in the order picked; gains are scores.
    """
    n, picked = len(voters.start) - 1, len(start)
    indices, gains = np.empty(k, dtype=np.int64), np.empty(k)
    indices[:picked], gains[:picked] = start.indices, start.gains
    chosen, count = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.int64)
    for row in start.indices:
        _choose(row, voters, chosen, count)
    bound, stamp = np.diff(voters.start).astype(np.float64), np.full(n, -1)
    with Progress("votes", k, "pick", done=picked) as progress:
        while picked < k:
            before, heap = picked, np.flatnonzero(~chosen)
            picked = _pick(heap, bound, stamp, voters, chosen, count, indices, gains, picked, _PATIENCE)
            progress.update(picked - before, score=f"{gains[picked - 1]:.3g}")
    return Selection(indices, gains)


@compiled
def _choose(row: int, voters: Sets, chosen: np.ndarray, count: np.ndarray) -> None:
    chosen[row] = True
    for p in range(voters.start[row], voters.start[row + 1]):
        count[voters.rows[p]] += 1


@compiled
def _score(row: int, voters: Sets, chosen: np.ndarray, count: np.ndarray, voters_with: np.ndarray) -> float:
    """Return the score of a row; `voters_with[c]` is 0 for all c, before and after."""
    highest = -1
    for p in range(voters.start[row], voters.start[row + 1]):
        u = voters.rows[p]
        if not chosen[u]:
            voters_with[count[u]] += 1
            highest = max(highest, count[u])
    score = 0.0
    for c in range(highest, -1, -1):  # from the smallest terms on: rounds alike for the same numbers of voters
        score = score / 10.0 + voters_with[c]
        voters_with[c] = 0
    return score


@compiled
def _pick(
    heap: np.ndarray,
    bound: np.ndarray,
    stamp: np.ndarray,
    voters: Sets,
    chosen: np.ndarray,
    count: np.ndarray,
    indices: np.ndarray,
    gains: np.ndarray,
    picked: int,
    patience: int,
) -> int:
    """Run lazy greedy until all rows are picked or `patience` votes have been read; return the number of picks."""
    size, voters_with = len(heap), np.zeros(len(indices) + 1, dtype=np.int64)
    for position in range(size // 2 - 1, -1, -1):
        sift_down(heap, size, position, bound)
    while picked < len(indices) and patience > 0:
        j = heap[0]
        if stamp[j] != picked:
            patience -= 1 + int(voters.start[j + 1] - voters.start[j])
            bound[j], stamp[j] = _score(j, voters, chosen, count, voters_with), picked
        else:
            _choose(j, voters, chosen, count)
            indices[picked], gains[picked] = j, bound[j]
            picked += 1
            size -= 1
            heap[0] = heap[size]
        if size > 0:
            sift_down(heap, size, 0, bound)
    return picked
