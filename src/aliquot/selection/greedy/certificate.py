"""The value of a selection and its distance from greedy, in float64 from the features, without the maximizer's code."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from aliquot.selection.greedy.exact_similarities import exact_s_of_pairs, for_loops
from aliquot.selection.kernels import Embedding
from aliquot.types import Selection

_BLOCK = 1024  # rows and columns of a block of similarities
_ROUNDING = 1e-15  # of a float64 product, relative to the squared lengths of its vectors
_TOLERANCE = 1e-10  # of an exponent
_NO_SIMILARITY = -60.0  # an exponent


def objective(
    embedding: Embedding,
    indices: Int64[np.ndarray, " k"],
    weights: Float32[np.ndarray, " n"] | None = None,
    rows: Int64[np.ndarray, " m"] | None = None,
) -> float:
    """Return f(S) = sum_i a_i max_{s in S} w_is of the rows `indices`, in blocks.

    Args:
        embedding: the embedding from which the selection was made.
        indices: S.
        weights: a of the whole pool; None means 1.
        rows: the i of the sum, the whole pool if None.
    """
    if len(indices) == 0:
        return 0.0
    total = 0.0
    for block in _blocks(np.arange(len(embedding)) if rows is None else rows):
        cover = np.zeros(len(block))
        for chosen in _blocks(indices):
            np.maximum(cover, _highest(embedding, block, chosen), out=cover)
        total += float(cover.sum() if weights is None else weights[block].astype(np.float64) @ cover)
    return total


def certificate(
    embedding: Embedding, selection: Selection, weights: Float32[np.ndarray, " n"] | None = None, num_turns: int = 16
) -> float:
    """Return by how much a pick was worse than the best row at its turn, at the worst of `num_turns` turns.

    Greedy is exact if this is 0; rounding and near ties leave about 1e-5. It is measured relative to the gain of the
    best row, or to the mean gain of all picks if that is larger. Every row counts as a candidate. The cost is that of
    one pass over all pairs of rows, plus k/n of another.

    Args:
        embedding: the embedding from which the selection was made.
        selection: the picks to judge: at the first and the last turn, and at others evenly between.
        weights: a, as in `objective`.
        num_turns: number of turns to check.
    """
    n, k = len(embedding), len(selection)
    turns = np.unique(np.linspace(0, k - 1, min(num_turns, k)).astype(np.int64))
    covers = _covers(embedding, selection.indices, turns)
    weight = np.ones(n) if weights is None else weights.astype(np.float64)
    gains = np.zeros((len(turns), n))
    for rows in _blocks(np.arange(n)):
        for columns in _blocks(np.arange(n)):
            w = similarities(embedding, rows, columns)
            for turn, cover in enumerate(covers):
                gains[turn, columns] += weight[rows] @ np.maximum(w - cover[rows, None], 0)
    own = gains[np.arange(len(turns)), selection.indices[turns]]
    for turn, depth in enumerate(turns):
        gains[turn, selection.indices[:depth]] = 0
    best = gains.max(axis=1)
    mean = float(weight @ covers[-1]) / k
    return float(((best - own) / np.maximum(best, mean)).max())


def _covers(embedding: Embedding, chosen: np.ndarray, turns: np.ndarray) -> Float64[np.ndarray, "t n"]:
    """Return the cover of all rows before each of the turns."""
    n = len(embedding)
    covers = np.zeros((len(turns), n))
    for turn in range(1, len(turns)):
        covers[turn] = covers[turn - 1]
        for columns in _blocks(chosen[turns[turn - 1] : turns[turn]]):
            for rows in _blocks(np.arange(n)):
                covers[turn, rows] = np.maximum(covers[turn, rows], _highest(embedding, rows, columns))
    return covers


def similarities(embedding: Embedding, rows: np.ndarray, columns: np.ndarray) -> Float64[np.ndarray, "m k"]:
    """Return w for all pairs of two sets of rows."""
    s = _exponents(embedding, rows, columns)
    return np.exp2(np.minimum(s, 0, out=s), out=s) if embedding.exponential else np.clip(s, 0, 1, out=s)


def _highest(embedding: Embedding, rows: np.ndarray, columns: np.ndarray) -> Float64[np.ndarray, " m"]:
    """Return the highest w of each row in one set with any row in another."""
    s = _exponents(embedding, rows, columns).max(axis=1)
    return np.exp2(np.minimum(s, 0)) if embedding.exponential else np.clip(s, 0, 1)


def _exponents(embedding: Embedding, rows: np.ndarray, columns: np.ndarray) -> Float64[np.ndarray, "m k"]:
    exact = embedding.exact
    left, right = (exact.factor[part, None] * exact.features[part] - exact.center for part in (rows, columns))
    if not embedding.exponential:
        return left @ right.T + np.outer(exact.factor[rows] == 0, exact.factor[columns] == 0)
    row_squares, column_squares = (np.einsum("nd,nd->n", part, part) * exact.scale for part in (left, right))
    s = (left * (2 * exact.scale)) @ right.T
    s -= row_squares[:, None]
    s -= column_squares
    room = _ROUNDING * (row_squares.max() + column_squares.max())
    if room > _TOLERANCE:  # some products are inexact: far rows are computed from differences
        room = _ROUNDING * np.add.outer(row_squares, column_squares)
        at = ((room > _TOLERANCE) & (s > _NO_SIMILARITY - room)).nonzero()
        s[at] = exact_s_of_pairs(rows[at[0]], columns[at[1]], True, for_loops(exact))
    return s


def _blocks(rows: np.ndarray) -> Iterable[np.ndarray]:
    return (rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK))
