"""k-means clusters of features (Lloyd 1982), reproducible on every run.

scikit-learn assigns rows to centers by float32 products, whose errors are proportional to squared norms. Rows too
close to their center for that are reassigned in float64. If there are many such rows, all passes use float64 instead.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from aliquot.runtime.progress import Progress
from aliquot.selection.greedy.checkpoint import Checkpoint
from aliquot.selection.vectors import Features, central, half_squared_norms, rescaled

log = logging.getLogger(__name__)

_TINY = 2.0**-40  # features; smaller ones are rescaled, because scikit-learn squares them in float32
_DOUBTFUL = 2.0**-10  # of a squared norm; float32 products give smaller squared distances to three digits or less
_MANY = 0.25  # share of doubtful rows at which everything switches to float64
_PAIRS = 1 << 22  # row-center pairs whose distances are held at once
_ROUNDING = 1e-15  # of a float64 product, relative to the squared lengths of its vectors
_EMPTY = np.zeros(0, dtype=np.int32)


class Clusters(NamedTuple):
    """A partition of the pool.

    Args:
        labels: the cluster of each row, 0..c-1; none is empty.
        squared: the squared distance of each row to the center of its cluster.
    """

    labels: Int64[np.ndarray, " n"]
    squared: Float64[np.ndarray, " n"]

    @property
    def sizes(self) -> Int64[np.ndarray, " c"]:
        """The number of rows in each cluster."""
        return np.bincount(self.labels)


def check_k_means(passes: int, seed: int) -> None:
    """Raise ValueError unless k-means can run with these settings."""
    if passes < 1:
        raise ValueError(f"{passes} passes of k-means move no center; use 1 or more, such as 5")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")


def number_rows(x: Features) -> Int64[np.ndarray, " n"]:
    """Number the rows: 0..c-1 for c distinct rows, equal rows getting the same number."""
    positive = x + np.float32(0)  # merges the two zeros, whose bytes differ
    rows = positive.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def k_means(features: Features, num_clusters: int, passes: int, seed: int, directory: Path | None = None) -> Clusters:
    """Partition the rows into at most `num_clusters` clusters, fewer if there are fewer distinct rows.

    Starts from distinct rows drawn at random: a start that spreads them (k-means++) costs more than all passes when
    there are tens of thousands of clusters. It runs in one thread, because several would sum the means in any order.

    Args:
        features: one row per prompt.
        num_clusters: 1..n.
        passes: maximum number of times that all rows are assigned to the nearest center and the centers are moved. A
            pass takes 4 n d num_clusters operations: scikit-learn assigns the rows once more at its end.
        seed: for the start.
        directory: where the centers are saved, and restored from after a kill; None saves nothing.
    """
    x, power = rescaled(np.ascontiguousarray(features, dtype=np.float32), _TINY)
    equal = number_rows(x)
    _, distinct = np.unique(equal, return_index=True)
    if num_clusters >= len(distinct):
        return Clusters(equal, np.zeros(len(x)))
    checkpoint = Checkpoint(directory, x, num_clusters, seed)
    saved = checkpoint.load()
    first = x[np.random.default_rng(seed).choice(distinct, num_clusters, replace=False)]
    done, centers = int(saved.get("passes", 0)), saved.get("centers", first)
    labels = saved.get("labels", _EMPTY)
    with Progress("k-means", passes, "round", done=done) as progress:
        while done < passes:
            before = labels
            centers, labels = _pass(x, centers) if centers.dtype == np.float32 else _exact_pass(x, centers)
            if done == 0 and centers.dtype == np.float32 and _doubtful(x, centers, labels).mean() > _MANY:
                centers, labels = first.astype(np.float64), _EMPTY
                continue
            done += 1
            progress.update()
            if np.array_equal(labels, before):
                break  # the centers no longer move
            if checkpoint.due():
                checkpoint.save({"passes": np.array(done), "centers": centers, "labels": labels})
    again = np.arange(len(x)) if centers.dtype == np.float64 else np.flatnonzero(_doubtful(x, centers, labels))
    labels = labels.copy()
    labels[again] = nearest_centers(x[again], centers)
    squared = np.ldexp(_squared_distances(x, centers, labels).astype(np.float64), -2 * power)
    log.info("k-means: %d passes, mean squared distance to a center %.4g", done, squared.mean())
    _, labels = np.unique(labels, return_inverse=True)
    return Clusters(labels.astype(np.int64), squared)


def nearest_centers(x: Features, centers: Float[np.ndarray, "c d"]) -> Int64[np.ndarray, " n"]:
    """Return the nearest center of each row, the first among equals, in float64; from differences where that errs."""
    middle = central(centers)
    right = centers.astype(np.float64) - middle
    right_squares, nearest = np.einsum("nd,nd->n", right, right), np.empty(len(x), dtype=np.int64)
    size = max(1, _PAIRS // len(centers))
    for start in range(0, len(x), size):
        left = x[start : start + size].astype(np.float64) - middle
        left_squares = np.einsum("nd,nd->n", left, left)
        squared = right_squares - 2 * left @ right.T  # without |x|^2
        room = _ROUNDING * (left_squares[:, None] + right_squares)
        highest = (squared + room).min(axis=1)
        rows, columns = (squared - room <= highest[:, None]).nonzero()  # possible nearest, at least one per row
        exact = np.square(x[start + rows] - centers[columns].astype(np.float64)).sum(axis=1)
        order = np.lexsort((columns, exact, rows))
        nearest[start : start + size] = columns[order[np.unique(rows[order], return_index=True)[1]]]
    return nearest


def _squared_distances(x: Features, centers: Float[np.ndarray, "c d"], labels: np.ndarray) -> np.ndarray:
    blocks = np.array_split(np.arange(len(x)), -(-len(x) // 4096))
    return np.concatenate([np.square(x[block] - centers[labels[block]]).sum(axis=1) for block in blocks])


def _doubtful(x: Features, centers: Float[np.ndarray, "c d"], labels: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Tell which rows are so close to their center that in float32 products another might be as close."""
    squared = _squared_distances(x, centers, labels)
    # scikit-learn computes norms from the mean.
    norms = 2 * half_squared_norms(x - x.mean(axis=0, dtype=np.float64).astype(np.float32))
    return (squared > 0) & (squared < _DOUBTFUL * norms)


def _exact_pass(x: Features, centers: Float64[np.ndarray, "c d"]) -> tuple[np.ndarray, np.ndarray]:
    """Do what `_pass` does in float64, except that centers without rows stay; labels are those before the move."""
    labels = nearest_centers(x, centers)
    order = np.argsort(labels, kind="stable")
    kept, first = np.unique(labels[order], return_index=True)
    moved = centers.copy()
    moved[kept] = np.add.reduceat(x[order].astype(np.float64), first, axis=0) / np.bincount(labels)[kept, None]
    return moved, labels


def _pass(x: Features, centers: Float[np.ndarray, "c d"]) -> tuple[np.ndarray, np.ndarray]:
    """Assign the rows to the centers and move these; return the new centers and the label of each row."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    solver = cast(Any, KMeans)(len(centers), init=centers, n_init=1, max_iter=1, tol=0.0)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that one pass has not converged
        solver.fit(x)
    return solver.cluster_centers_, solver.labels_
