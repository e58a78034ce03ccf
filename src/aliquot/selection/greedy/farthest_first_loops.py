"""The inner loops of `farthest_first`, compiled by numba: exact distances, and the picks within a front."""

from __future__ import annotations

import numba
import numpy as np

from aliquot.selection.greedy.numba_simd import compiled, exceeding

_EPS = float(np.finfo(np.float32).eps)
_LEAST = np.float32(1e-36)  # squares below it are lost to float32


@compiled
def _squared_distance(points: np.ndarray, a: int, b: int) -> float:
    """Return the squared distance of two points in float64, with the same bits on every call."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    d = points.shape[1]
    for j in range(0, d - 3, 4):  # four sums, because a single one depends on its previous value
        d0 = np.float64(points[a, j]) - np.float64(points[b, j])
        d1 = np.float64(points[a, j + 1]) - np.float64(points[b, j + 1])
        d2 = np.float64(points[a, j + 2]) - np.float64(points[b, j + 2])
        d3 = np.float64(points[a, j + 3]) - np.float64(points[b, j + 3])
        s0, s1, s2, s3 = s0 + d0 * d0, s1 + d1 * d1, s2 + d2 * d2, s3 + d3 * d3
    for j in range(d // 4 * 4, d):
        d0 = np.float64(points[a, j]) - np.float64(points[b, j])
        s0 += d0 * d0
    return (s0 + s1) + (s2 + s3)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _roughly(points: np.ndarray, a: int, b: int) -> np.float32:
    """Return the squared distance of two points in float32, summed in any order, as fast as possible."""
    x, y = points[a], points[b]
    total = np.float32(0)
    for j in range(len(x)):
        difference = x[j] - y[j]
        total += difference * difference
    return total


@compiled
def _lower(bound: np.ndarray, i: int, points: np.ndarray, center: int) -> None:
    """Lower the bound of point i to its distance from a center, if that is smaller."""
    slack = 1.0 - 2.0 * (points.shape[1] + 8) * _EPS
    if slack * _roughly(points, i, center) < bound[i]:
        bound[i] = min(bound[i], _squared_distance(points, i, center))


@compiled
def lower_close(
    points: np.ndarray,
    norms: np.ndarray,
    places: np.ndarray,
    centers: np.ndarray,
    product: np.ndarray,
    bound: np.ndarray,
) -> None:
    """Lower the bounds of `places` to the distances from the centers that may be nearer, according to their products.

    Centers at distance sqrt(bound) have x.c = (|x|^2 + |c|^2 - bound) / 2. The norms are squared, and reduced by the
    possible rounding error.
    """
    half = np.empty(len(centers), dtype=np.float32)
    for c in range(len(centers)):
        half[c] = np.float32(0.5) * norms[centers[c]]
    found = np.empty(len(centers), dtype=np.uint32)
    for r in range(len(places)):
        i = places[r]
        room = np.float32(0.5 * (bound[i] - norms[i])) + _LEAST
        for p in range(exceeding(product[r], half, room, found)):
            c = int(found[p])
            if product[r, c] + room > half[c]:  # still true after earlier centers
                _lower(bound, i, points, centers[c])
                room = np.float32(0.5 * (bound[i] - norms[i])) + _LEAST


@compiled
def lower_cells(
    points: np.ndarray, centers: np.ndarray, cell: np.ndarray, first_of_cell: np.ndarray, bound: np.ndarray
) -> None:
    """Lower the bounds of all points in the cells of `centers`, which ascend by cell; picked points stay at -1."""
    first = 0
    while first < len(centers):
        this = cell[centers[first]]
        end = first
        while end < len(centers) and cell[centers[end]] == this:
            end += 1
        for i in range(first_of_cell[this], first_of_cell[this + 1]):
            if bound[i] > 0:
                for c in centers[first:end]:
                    _lower(bound, i, points, c)
        first = end


@compiled
def pick_among(
    points: np.ndarray,
    rows: np.ndarray,
    bound: np.ndarray,
    between: np.ndarray,
    base: np.ndarray,
    best_outside: float,
    row_outside: int,
    indices: np.ndarray,
    squared: np.ndarray,
    picked: int,
) -> int:
    """Pick the farthest of `points`, whose rows of the pool ascend, while it beats the best point outside.

    No squared distance of points p and i is below between[p, i] + base[p]. Returns the number of picks then made.
    """
    while picked < len(indices) and len(rows) > 0:
        p = int(bound.argmax())
        if bound[p] < 0 or bound[p] < best_outside or (bound[p] == best_outside and row_outside < rows[p]):
            break
        indices[picked], squared[picked] = rows[p], bound[p]
        bound[p] = -1.0
        picked += 1
        for i in range(len(rows)):
            if between[p, i] + base[p] - _LEAST < bound[i]:
                bound[i] = min(bound[i], _squared_distance(points, i, p))
    return picked
