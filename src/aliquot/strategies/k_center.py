"""Spread out: no prompt of the pool should be far from all chosen ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aliquot.kernels import Features, unit_rows
from aliquot.progress import Progress
from aliquot.types import Pool, Scores, Selection

_FRONT = 2048  # points one round looks at
_BLOCK, _TILE = 128, 1024  # points and centres of one product


@dataclass(frozen=True)
class KCenter:
    """Pick the prompt farthest from all chosen ones, again and again (Gonzalez 1985).

    The largest distance of any prompt to its nearest chosen one is at most twice the best possible. A pick's gain is
    its distance to the nearest prompt chosen before; the first pick has none before it and gets the distance to its
    farthest prompt, so that gains never rise.

    Args:
        metric: "euclidean", or "cosine" for 1 - cos (a vector of zeros is at 1 from all others).
        first: "medoid" for the row nearest to the mean, "random", or a row of the pool.
        seed: of first="random".
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    nested: ClassVar[bool] = True

    metric: str = "euclidean"
    first: str | int = "medoid"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric '{self.metric}' is unknown; use euclidean or cosine")
        if isinstance(self.first, str) and self.first not in ("medoid", "random"):
            raise ValueError(f"first pick '{self.first}' is unknown; use medoid, random or a row of the pool")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        assert scores is not None
        cosine = self.metric == "cosine"
        points = unit_rows(scores.features) if cosine else np.asarray(scores.features, dtype=np.float32)
        points = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
        indices, squared = farthest_first(points, self._first_row(points), k)
        # On unit vectors, d^2 = 2 (1 - cos).
        return Selection(indices, squared / 2 if cosine else np.sqrt(squared))

    def _first_row(self, centred: Features) -> int:
        n = len(centred)
        if self.first == "medoid":
            return int(np.argmin(np.einsum("nd,nd->n", centred, centred, dtype=np.float64)))
        if self.first == "random":
            return int(np.random.default_rng(self.seed).integers(n))
        if not 0 <= int(self.first) < n:
            raise ValueError(f"first pick {self.first} is outside 0..{n - 1}, the rows of the pool; choose one of them")
        return int(self.first)


def farthest_first(points: Features, first: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return k rows by farthest-first traversal and their squared distances, ties to the lower row.

    Distances to the nearest chosen row only fall, so an old one is an upper bound. Each round brings only a front, the
    points with the largest bounds, up to date with the centres they have missed, by one matrix product, and picks
    inside it for as long as its farthest point beats every bound outside. All other points stay parked, most of them
    for good: the traversal never comes down to their bound.
    """
    state = _Traversal(points, k)
    state.pick(first, 0.0)
    state.refresh(np.arange(len(points)))
    state.squared[0] = state.bound.max(initial=0)
    with Progress("k-center", k, "pick", done=1) as progress:
        while state.picked < k:
            before = state.picked
            state.round(min(_FRONT, len(points) - before))
            progress.update(state.picked - before)
    return state.indices, state.squared


class _Traversal:
    """Bounds on squared distances, and how many of the picks each of them has seen. Rows of the pool throughout."""

    def __init__(self, points: Features, k: int) -> None:
        import torch

        n = len(points)
        norms = np.einsum("nd,nd->n", points, points, dtype=np.float64).astype(np.float32)
        self.norms = norms
        # (1, x) . (|c|^2, -2c) + |x|^2 = |x - c|^2
        self.points = torch.from_numpy(np.column_stack([np.ones(n, dtype=np.float32), points]))
        self.centres = torch.empty((k, self.points.shape[1]))
        self.rounding = np.float32(8 * np.finfo(np.float32).eps * norms.max())
        self.bound = np.full(n, np.inf, dtype=np.float32)  # -1 once picked
        self.seen = np.zeros(n, dtype=np.int64)
        self.indices, self.squared = np.empty(k, dtype=np.int64), np.empty(k)
        self.picked = 0

    def pick(self, row: int, squared: float) -> None:
        self.indices[self.picked], self.squared[self.picked] = row, squared
        self.centres[self.picked] = -2 * self.points[row]
        self.centres[self.picked, 0] = float(self.norms[row])
        self.bound[row] = -1
        self.picked += 1

    def refresh(self, rows: np.ndarray) -> None:
        """Bring the bounds of `rows` up to date, those that missed about as many picks together."""
        rows = rows[self.seen[rows] < self.picked]
        rows = rows[np.argsort(self.seen[rows], kind="stable")]
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            # Always _BLOCK rows: products of another shape round differently, and equal points would not tie.
            points, nearest = self.points[np.resize(block, _BLOCK)], self.bound[block]
            for centres in self.centres[int(self.seen[block[0]]) : self.picked].split(_TILE):
                squared = (points @ centres.T).amin(dim=1).numpy()[: len(block)] + self.norms[block]
                np.minimum(nearest, self.snap(squared), out=nearest)
            self.bound[block] = nearest
        self.seen[rows] = self.picked

    def round(self, size: int) -> None:
        """Bring the `size` points with the largest bounds up to date and pick among them while that is safe."""
        order = _order_of(self.bound, np.arange(len(self.bound)))
        partition = np.argpartition(order, len(order) - size)
        front, outside = partition[len(order) - size :], partition[: len(order) - size]
        self.refresh(front)
        best_outside = order[outside].max(initial=-1)
        order = _order_of(self.bound[front], front)
        # Who has fallen behind a point outside cannot be picked now, and is left to a later round.
        live = np.sort(front[order > best_outside])
        bound, between = self.bound[live], self.squared_distances(live)
        while len(live) and self.picked < len(self.indices):
            p = int(bound.argmax())
            if bound[p] < 0 or _order_of(bound[p], live[p]) < best_outside:
                break
            self.pick(int(live[p]), float(bound[p]))
            np.minimum(bound, between[p], out=bound)
            bound[p] = -1
        self.bound[live], self.seen[live] = bound, self.picked

    def squared_distances(self, rows: np.ndarray) -> np.ndarray:
        points, norms = self.points[rows, 1:], self.norms[rows]
        squared = (points @ points.T).numpy()
        squared *= -2
        squared += norms
        squared += norms[:, None]
        return self.snap(squared)

    def snap(self, squared: np.ndarray) -> np.ndarray:
        """Closer than rounding is the same point: duplicates are at exactly 0."""
        squared[squared < self.rounding] = 0
        return squared


def _order_of(bound: np.ndarray | np.float32, row: np.ndarray | np.int64) -> np.ndarray:
    """One integer per point that orders by bound, then by lower row; picked points (-1) come last."""
    # The bits of a float32 that is not negative order like the float.
    return np.where(bound < 0, -1, (bound.view(np.int32).astype(np.int64) << 32) + (2**32 - 1 - row))
