"""Pools that consist of islands: groups of rows that are similar to nothing outside.

f is then a sum over islands, and a pick on one does not change a gain on another. Greedy on the pool merges the
rankings of all islands by their gains. Each island has its own center, so its rows are not far from it and products
suffice; with one center for all, every pair would have to be computed from differences (see `kernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.selection.kernels import Embedding, embed_around
from aliquot.types import Selection

Rows = Int64[np.ndarray, " m"]

_SHARE = 0.005  # minimum share of the pool in an island; smaller ones have few pairs
_TRIES = 32  # rows tried as the center of an island
_RADIUS = 8.0  # of an island, as the root of an exponent of 2
_NOTHING = 5.7  # exponents beyond its square are no similarity in quanta
_BLOCK = 8192  # rows held in float64 at once


def islands(embedding: Embedding) -> list[tuple[Rows, Embedding]]:
    """Return the islands, the sea of all other rows first; empty if most rows are near the center, or isolated."""
    n, exact, found = len(embedding), embedding.exact, list[tuple[Rows, Embedding]]()
    left = np.flatnonzero(embedding.bias < exact.far)
    rng = np.random.default_rng(0)
    for _ in range(_TRIES):
        if len(left) < _SHARE * n:
            break
        middle = exact.features[rng.choice(left)]
        beside = np.sqrt(exact.scale * _squared_distances(embedding, middle)) <= _RADIUS
        if np.count_nonzero(beside) < _SHARE * n:
            continue
        middle = exact.features[beside].mean(axis=0, dtype=np.float64).astype(np.float32)
        away = np.sqrt(exact.scale * _squared_distances(embedding, middle))
        rows = np.flatnonzero(away <= _RADIUS)
        if len(rows) >= _SHARE * n and not ((away > _RADIUS) & (away < _RADIUS + _NOTHING)).any():
            found.append((rows, embed_around(embedding, rows, middle)))
            left = np.setdiff1d(left, rows)
    if not found:
        return []
    sea = np.setdiff1d(np.arange(n), np.concatenate([rows for rows, _ in found]))
    return [(sea, embedding.take(sea)), *found] if len(sea) else found


def merged(
    parts: Sequence[Rows],
    rank: Callable[[int, Selection, int], Selection],
    start: Selection,
    k: int,
    candidates: Rows,
) -> Selection:
    """Return greedy's picks in the whole pool.

    Args:
        parts: the rows of each island.
        rank: ranks an island, given its number, the rows already selected from it, and how many to select; input and
            output are places in the island.
        start: rows selected before.
        k: rows to select.
        candidates: the rows that may be selected, excluding `start`.
    """
    rows, gains = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for number, part in enumerate(parts):
        before = np.flatnonzero(np.isin(start.indices, part))
        given = Selection(np.searchsorted(part, start.indices[before]), start.gains[before])
        depth = len(given) + min(k - len(start), int(np.isin(part, candidates).sum()))
        chosen = rank(number, given, depth)
        rows.append(part[chosen.indices[len(given) :]])
        gains.append(chosen.gains[len(given) :])
    new, gained = np.concatenate(rows), np.concatenate(gains)
    order = np.lexsort((new, -gained))[: k - len(start)]
    return Selection(np.concatenate([start.indices, new[order]]), np.concatenate([start.gains, gained[order]]))


def _squared_distances(embedding: Embedding, point: np.ndarray) -> Float64[np.ndarray, " n"]:
    x = embedding.exact.features
    blocks = (x[first : first + _BLOCK].astype(np.float64) - point for first in range(0, len(x), _BLOCK))
    return np.concatenate([np.einsum("nd,nd->n", block, block) for block in blocks])
