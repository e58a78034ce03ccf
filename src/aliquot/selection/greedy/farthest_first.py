"""Farthest-first traversal, exact, with most distances never computed.

The distance of a point to its nearest selected one, its *bound*, only falls while centers are selected, so an old bound
is an upper bound. Four things make it fast:

1. Each round updates only a *front*, the points with the largest bounds, with the centers they have missed, and picks
   inside it for as long as its farthest point beats every bound outside. All other points wait.
2. Points are assigned to cells (the nearest of a sample of anchors). A new center lowers the bounds of its cell at
   once, so most points with a center nearby are never part of a front.
3. The front is compared with its centers in float32 matrix products, which only *filter*: a pair that may lower a
   bound, given the rounding, is computed again as sum_j (x_j - c_j)^2 in float64, always in the same order.
4. A filter need not use all dimensions (see `sketches`): the smaller the bounds, the fewer separate most pairs. The
   number that takes the least work is chosen at intervals from a sample of pairs.

Bounds and picks are therefore those of the float64 loop over all distances, for any number of threads and any device;
ties go to the lower row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64

from aliquot.runtime.progress import Progress
from aliquot.selection.greedy import farthest_first_loops as loops
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.sketches import Sketch, cheapest, principal
from aliquot.selection.greedy.workers import num_cores, torch_workers
from aliquot.selection.vectors import central

Points = Float[np.ndarray, "n d"]  # float32 or float64

_FRONT = 2048  # points updated in one round
_BLOCK, _TILE = 1024, 512  # maximum points, and centers, of one product
_CELLS_PER_ROOT = 2  # cells, per square root of the number of points
_PAIR = 800  # cost of checking a pair that passes the filter, in dimensions of the product
_FIRST_LOOK, _GROWTH = 4096, 1.15  # picks made before the sketch is first chosen, and from one choice to the next


def farthest_first(
    points: Points, start: Int64[np.ndarray, " s"], k: int, workspace: Workspace | None = None
) -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Select k rows, `start` first, each of the others the farthest from all before it (Gonzalez 1985).

    Args:
        points: one row each; rescaled if their squares are too small or too large for float32.
        start: rows already selected, at least one.
        k: rows to select, including those of `start`.
        workspace: the directory and device of a long traversal. It keeps the bounds, so that a deeper one can continue.

    Returns:
        The rows in the order picked; for each except those of `start`, the squared distance to the nearest before it.
        If `start` has one row, that row gets the squared distance to its farthest point; otherwise the values for
        `start` have no meaning.
    """
    workspace = workspace or Workspace()
    checkpoint = Checkpoint(workspace.directory, points)
    with torch_workers() as workers:
        saved = checkpoint.load()
        traversal = _Traversal(points, k, workspace.device, saved.get("cell"))
        traversal.begin(start, saved, workers)
        begun = traversal.picked
        with Progress("k-center", k, "pick", done=begun) as progress:
            while traversal.picked < k:
                before = traversal.picked
                traversal.round(workers)
                radius = math.sqrt(traversal.squared[traversal.picked - 1])
                progress.update(traversal.picked - before, radius=f"{radius:.4g}")
                if checkpoint.due():
                    checkpoint.save(traversal.state())
        if begun < k:  # otherwise there may be a deeper one that contains this one
            checkpoint.keep(traversal.state())
    return traversal.indices, traversal.squared


def most_central(points: Points) -> int:
    """Return the row nearest to the mean of all, the lowest row in a tie, in float64."""
    return int(np.argmin(_squared_norms(points, points.mean(axis=0, dtype=np.float64))))


class _Traversal:
    """Bounds on squared distances (-1 once picked), and how many of the first picks each point has been compared with.

    The points are stored in the order of their cells, because memory is read fastest in order. `row` gives the pool row
    stored at a place, `place` the place of a row. All arrays are indexed by place, except `indices`.
    """

    def __init__(self, points: Points, k: int, device: str, cell: np.ndarray | None) -> None:
        n, d = points.shape
        # Distances do not change under a shift, rounding does: products use centered vectors, which are the shortest.
        self.center, norms = _center(points)
        cell = _cells(points, self.center, device) if cell is None else cell
        self.row = np.argsort(cell, kind="stable")
        self.place = np.argsort(self.row)
        self.points = points[self.row]
        self.cell = cell[self.row]
        self.first_of_cell = np.searchsorted(self.cell, np.arange(n + 1))
        # Reduce the squared norms by twice the maximum rounding error of a product of d terms and of its norms.
        self.norms = (norms[self.row] * (1 - 4 * (d + 8) * float(np.finfo(np.float32).eps))).astype(np.float32)
        self.bound, self.seen = np.full(n, np.inf), np.zeros(n, dtype=np.int64)
        self.indices, self.squared = np.zeros(k, dtype=np.int64), np.zeros(k)
        self.picked = self.given = 0
        # A device multiplies faster than the CPU makes sketches.
        self.sketch, self.next_look = Sketch(self.center), _FIRST_LOOK if device == "cpu" else n
        self.directions: np.ndarray | None = None  # the principal directions, once they are needed
        self.centers = torch.empty((k, d), device=device)  # as sketches

    def state(self) -> dict[str, np.ndarray]:
        """Return the state from which `begin` resumes, indexed by row of the pool."""
        made = {"indices": self.indices[: self.picked], "squared": self.squared[: self.picked]}
        of_rows = {"bound": self.bound[self.place], "seen": self.seen[self.place], "cell": self.cell[self.place]}
        return {**made, **of_rows, "given": np.array(self.given)}

    def begin(self, start: np.ndarray, saved: dict[str, np.ndarray], workers: ThreadPoolExecutor) -> None:
        """Pick `start`, or resume a saved traversal that began with it or that it continues."""
        known = _known_picks(start, saved)[: len(self.indices)]
        if len(known):
            self.indices[: len(known)], self.squared[: len(known)] = known, saved["squared"][: len(known)]
            self.bound, self.seen = saved["bound"][self.row], saved["seen"][self.row]
            self._add_centers(0, len(known))
        self.given = int(saved["given"]) if len(known) >= len(start) else len(start)
        if len(known) < len(start):
            self.indices[len(known) : len(start)] = start[len(known) :]
            self.bound[self.place[start]] = -1
            self._lower_cells(len(known), len(start))
            self._add_centers(len(known), len(start))
        if not len(known):
            self._refresh(np.flatnonzero(self.bound >= 0), min(_TILE, len(start)), workers)
            if len(start) == 1:
                self.squared[0] = self.bound.max(initial=0)

    def _add_centers(self, first: int, end: int) -> None:
        """Compare the picks from `first` onward by products."""
        self.picked = end
        for a in range(first, end, _FRONT):
            part = slice(a, min(a + _FRONT, end))
            self.centers[part] = self._on_device(self.place[self.indices[part]])

    def _lower_cells(self, first: int, end: int) -> None:
        """Lower the bounds of the cells of the picks from `first` onward."""
        places = np.sort(self.place[self.indices[first:end]])
        loops.lower_cells(self.points, places, self.cell, self.first_of_cell, self.bound)

    def _on_device(self, places: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.sketch.of(self.points[places])).to(self.centers.device)

    def _choose_sketch(self, front: np.ndarray) -> None:
        """Use the number of dimensions that takes the least work for this front."""
        self.next_look = int(_GROWTH * self.picked)
        if self.directions is None:
            self.directions = principal(self.points, self.center)
        some, centers = _evenly(front, 64), _evenly(self.place[self.indices[: self.picked]], 256)
        missed = max(1.0, float((self.picked - self.seen[front]).mean()))
        points, pair = self.points[some], _PAIR + len(self.center)
        sketch = cheapest(self.center, self.directions, points, self.bound[some], self.points[centers], missed, pair)
        if sketch.width != self.sketch.width:
            self.sketch = sketch
            self.centers = torch.empty((len(self.indices), sketch.width), device=self.centers.device)
            self._add_centers(0, self.picked)

    def round(self, workers: ThreadPoolExecutor) -> None:
        """Update the points with the largest bounds, and pick among them while that is safe."""
        front, best_outside, row_outside = self._front(min(_FRONT, len(self.points) - self.picked))
        if self.picked >= self.next_look:
            self._choose_sketch(front)
        self._refresh(front[self.bound[front] > 0], self.picked, workers)
        # A point that has fallen below one outside cannot be picked now, and is left to a later round.
        live = front[self.bound[front] >= best_outside]
        live = live[np.argsort(self.row[live])]
        norms, bound, before = self.norms[live], self.bound[live], self.picked
        vectors = torch.from_numpy(Sketch(self.center).of(self.points[live])).to(self.centers.device)
        between = torch.addmm(torch.from_numpy(norms).to(vectors.device), vectors, vectors.T, alpha=-2).cpu().numpy()
        end = loops.pick_among(
            self.points[live], self.row[live], bound, between, norms, best_outside, row_outside,
            self.indices, self.squared, before,
        )  # fmt: skip
        self.bound[live], self.seen[live] = bound, end
        self._lower_cells(before, end)
        self._add_centers(before, end)

    def _front(self, size: int) -> tuple[np.ndarray, float, int]:
        """Return the places of the `size` largest bounds, lower rows first among equals; and the best of the others."""
        least = np.partition(self.bound, len(self.bound) - size)[len(self.bound) - size]
        above, ties = np.flatnonzero(self.bound > least), np.flatnonzero(self.bound == least)
        ties = ties[np.argsort(self.row[ties])]
        num_ties = size - len(above)
        front = np.concatenate([above, ties[:num_ties]])
        if num_ties < len(ties):
            return front, least, int(self.row[ties[num_ties]])
        below = self.bound[self.bound < least]
        best = below.max(initial=-1)
        return front, best, int(self.row[self.bound == best].min(initial=len(self.row)))

    def _refresh(self, places: np.ndarray, end: int, workers: ThreadPoolExecutor) -> None:
        """Update bounds with the first `end` picks."""
        places = places[np.argsort(self.seen[places], kind="stable")]
        num_blocks = max(num_cores(), -(-len(places) // _BLOCK))
        blocks = [places[first::num_blocks] for first in range(min(num_blocks, len(places)))]  # of equal work
        list(workers.map(partial(self._refresh_block, end), blocks))
        self.seen[places] = end

    def _refresh_block(self, end: int, block: np.ndarray) -> None:
        seen, points = self.seen[block], self._on_device(block)
        buffer = np.empty(len(block) * _TILE, dtype=np.float32)
        for first in range(int(seen[0]), end, _TILE):
            part = slice(first, min(first + _TILE, end))
            missing = int(np.searchsorted(seen, part.stop))  # from here on, all points have seen these
            product = self._product(points[:missing], part, buffer)
            centers = self.place[self.indices[part]]
            loops.lower_close(self.points, self.norms, block[:missing], centers, product, self.bound)

    def _product(self, points: torch.Tensor, part: slice, buffer: Float32[np.ndarray, " b"]) -> np.ndarray:
        centers = self.centers[part]
        if centers.device.type != "cpu":
            return (points @ centers.T).cpu().numpy()
        product = buffer[: len(points) * len(centers)].reshape(len(points), len(centers))
        return np.matmul(points.numpy(), centers.numpy().T, out=product)


def _known_picks(start: np.ndarray, saved: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the saved picks; empty unless `start` begins with them or they continue it."""
    if saved and int(saved["given"]) <= len(start):
        picks = saved["indices"]
        if np.array_equal(picks[: len(start)], start[: len(picks)]):
            return picks
    return np.empty(0, dtype=np.int64)


def _evenly(rows: np.ndarray, num: int) -> np.ndarray:
    return rows[:: -(-len(rows) // num)]


def _center(points: Points) -> tuple[Float32[np.ndarray, " d"], Float64[np.ndarray, " n"]]:
    """Return the mean, or the median if outliers have moved the mean too far, and all squared distances from it."""
    mean = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    median = central(points)
    from_mean, from_median = _squared_norms(points, mean), _squared_norms(points, median)
    return (median, from_median) if np.median(from_median) < 0.5 * np.median(from_mean) else (mean, from_mean)


def _squared_norms(points: Points, center: Float[np.ndarray, " d"]) -> Float64[np.ndarray, " n"]:
    blocks = np.array_split(points, -(-len(points) // _FRONT))
    return np.concatenate([np.square(block.astype(np.float64) - center).sum(axis=1) for block in blocks])


def _cells(points: Points, center: Float32[np.ndarray, " d"], device: str) -> Int64[np.ndarray, " n"]:
    """Assign the points to the nearest of a sample of them. The sample changes the time, never the result."""
    n = len(points)
    see = Sketch(center).of
    anchors = see(points[np.random.default_rng(0).permutation(n)[: int(_CELLS_PER_ROOT * np.sqrt(n))]])
    offsets, right = torch.from_numpy(np.square(anchors).sum(axis=1)).to(device), torch.from_numpy(anchors.T).to(device)
    blocks = np.array_split(points, -(-n // _FRONT))
    left = (torch.from_numpy(see(block)).to(device) for block in blocks)
    return torch.cat([torch.addmm(offsets, block, right, alpha=-2).argmin(dim=1) for block in left]).cpu().numpy()
