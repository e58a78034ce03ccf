"""How well each row of the pool is covered by the selected rows, compiled by numba."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aliquot.selection.greedy.exact_similarities import for_loops, no_exact
from aliquot.selection.greedy.fixed_point import ONE, comparison_margin, s_of
from aliquot.selection.greedy.numba_simd import compiled
from aliquot.selection.kernels import Differences, Embedding


class Cover(NamedTuple):
    """The similarity of each pool row to its most similar selected row, and the least `s - bias` that can exceed it.

    Args:
        quanta: the similarity, at most `cap`.
        limit: a pair of candidate j and row i gains nothing unless z_i . z_j + b_j exceeds limit[i].
        bias: b.
        exponential: of the embedding.
        exact: source of the similarity of a pair if the product is too inaccurate.
        cap: how much similarity counts, in quanta; `ONE` for all of it.
    """

    quanta: np.ndarray
    limit: np.ndarray
    bias: np.ndarray
    exponential: bool
    exact: Differences
    cap: np.ndarray


def no_cover(embedding: Embedding, cap: np.ndarray | None = None) -> Cover:
    """Return the cover by no rows; a row counts similarities up to its cap, in quanta."""
    cover = _no_cover(embedding.bias, embedding.exponential, for_loops(embedding.exact))
    if cap is None:
        return cover
    cover.limit[cap <= 0] = np.inf  # such a row is covered as it is
    return cover._replace(cap=np.ascontiguousarray(cap, dtype=np.int32))


def no_cover_on_graph(n: int) -> Cover:
    """Return the cover by no rows, for use when no more similarities are computed."""
    return _no_cover(np.zeros(n, dtype=np.float32), True, no_exact())


def _no_cover(bias: np.ndarray, exponential: bool, exact: Differences) -> Cover:
    lowest = s_of(np.float32(1 if exponential else 0), exponential) - comparison_margin(bias)
    cap = np.full(len(bias), ONE, dtype=np.int32)
    return Cover(np.zeros(len(bias), dtype=np.int32), lowest - bias, bias, exponential, exact, cap)


def levels(cover: Cover) -> np.ndarray:
    """Return the cover as float32 similarities."""
    return cover.quanta.astype(np.float32) / np.float32(ONE)


@compiled
def raise_one(i: int, quanta: np.int32, cover: Cover) -> None:
    """Raise the cover of row i to a similarity if that is larger."""
    quanta = min(quanta, cover.cap[i])
    if quanta > cover.quanta[i]:
        cover.quanta[i] = quanta
        if quanta >= cover.cap[i]:
            cover.limit[i] = np.inf
        else:
            s = s_of(np.float32(quanta), cover.exponential)
            cover.limit[i] = s - comparison_margin(cover.bias[i]) - cover.bias[i]


@compiled
def raise_all(rows: np.ndarray, quanta: np.ndarray, cover: Cover) -> None:
    """Raise the cover of `rows` to the corresponding similarities where these are larger."""
    for p in range(len(rows)):
        raise_one(rows[p], quanta[p], cover)
