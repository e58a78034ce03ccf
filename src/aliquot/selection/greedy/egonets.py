"""The rows around each row on the graph of votes, one or two steps away; compiled by numba."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from aliquot.selection.greedy.numba_simd import compiled
from aliquot.selection.greedy.set_cover import Sets


def egonets(voters: Sets, targets: Bool[np.ndarray, " n"], hops: int) -> Sets:
    """Return for each row the targets among itself, its voters and, with two hops, the voters of its target voters.

    Args:
        voters: of each row (see `aliquot.selection.greedy.voters`).
        targets: the rows that count.
        hops: 1 or 2.
    """
    n = len(targets)
    size, seen = np.zeros(n, dtype=np.int64), np.full(n, -1)
    _walk(voters, targets, hops, seen, size, np.zeros(n, dtype=np.int64), np.empty(0, dtype=np.int32))
    start = np.concatenate([[0], np.cumsum(size)])
    rows = np.empty(start[-1], dtype=np.int32)
    seen[:] = -1
    _walk(voters, targets, hops, seen, np.zeros_like(size), start, rows)
    return Sets(start, rows)


@compiled
def _walk(
    voters: Sets,
    targets: np.ndarray,
    hops: int,
    seen: np.ndarray,
    size: np.ndarray,
    start: np.ndarray,
    rows: np.ndarray,
) -> None:
    """Count the rows around each row in `size`, and write them, if `rows` has room, from `start` on."""
    for i in range(len(targets)):
        _add(i, i, targets, seen, size, start, rows)
        for p in range(voters.start[i], voters.start[i + 1]):
            u = voters.rows[p]
            _add(i, u, targets, seen, size, start, rows)
            if hops == 2 and targets[u]:
                for q in range(voters.start[u], voters.start[u + 1]):
                    _add(i, voters.rows[q], targets, seen, size, start, rows)


@compiled
def _add(
    i: int,
    row: int,
    targets: np.ndarray,
    seen: np.ndarray,
    size: np.ndarray,
    start: np.ndarray,
    rows: np.ndarray,
) -> None:
    """Add a target to the rows around i, unless it is there already."""
    if targets[row] and seen[row] != i:
        seen[row] = i
        if len(rows) > 0:
            rows[start[i] + size[i]] = row
        size[i] += 1
