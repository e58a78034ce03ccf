"""k-means clusters of features (Lloyd 1982, by scikit-learn), the same on every run."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float32, Int64

from aliquot.geometry import Features
from aliquot.greedy.checkpoint import Checkpoint
from aliquot.progress import Progress

log = logging.getLogger(__name__)


class Clusters(NamedTuple):
    """A partition of the pool.

    Args:
        labels: the cluster of each row, 0..c-1; none is empty.
        squared: the squared distance of each row to the centre of its cluster.
    """

    labels: Int64[np.ndarray, " n"]
    squared: Float32[np.ndarray, " n"]

    @property
    def sizes(self) -> Int64[np.ndarray, " c"]:
        """How many rows each cluster has."""
        return np.bincount(self.labels)


def number_rows(x: Features) -> Int64[np.ndarray, " n"]:
    """Give every row a number: 0..c-1 for c rows that differ, equal rows the same."""
    positive = x + np.float32(0)  # of the two zeros, whose bytes differ
    rows = positive.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def k_means(features: Features, num_clusters: int, passes: int, seed: int, directory: Path | None = None) -> Clusters:
    """Partition the rows into at most `num_clusters` clusters, fewer where fewer rows differ.

    Starts from distinct rows drawn at random: a start that spreads them (k-means++) costs more than all passes where
    there are tens of thousands of clusters. One thread does it all, for more of them add up the means in any order.

    Args:
        features: one row per prompt.
        num_clusters: 1..n.
        passes: how often all rows are dealt to the nearest centre and the centres moved, at most. A pass takes
            4 n d num_clusters operations: scikit-learn deals the rows once more at its end.
        seed: of the start.
        directory: where the centres are saved, and taken up after a kill; None saves nothing.
    """
    x = np.ascontiguousarray(features, dtype=np.float32)
    equal = number_rows(x)
    _, distinct = np.unique(equal, return_index=True)
    if num_clusters >= len(distinct):
        return Clusters(equal, np.zeros(len(x), dtype=np.float32))
    checkpoint = Checkpoint(directory, x, num_clusters, seed)
    saved = checkpoint.load()
    first = np.random.default_rng(seed).choice(distinct, num_clusters, replace=False)
    done, centres = int(saved.get("done", 0)), saved.get("centres", x[first])
    labels = saved.get("labels", np.zeros(0, dtype=np.int32))
    with Progress("k-means", passes, "round", done=done) as progress:
        while done < passes:
            before = labels
            centres, labels = _pass(x, centres)
            done += 1
            progress.update()
            if np.array_equal(labels, before):
                break  # the centres stay where they are
            if checkpoint.due():
                checkpoint.save({"done": np.array(done), "centres": centres, "labels": labels})
    blocks = np.array_split(np.arange(len(x)), -(-len(x) // 4096))
    squared = np.concatenate([np.square(x[block] - centres[labels[block]]).sum(axis=1) for block in blocks])
    log.info("k-means: %d passes, mean squared distance to a centre %.4g", done, squared.mean())
    _, labels = np.unique(labels, return_inverse=True)
    return Clusters(labels.astype(np.int64), squared)


def _pass(x: Features, centres: Float32[np.ndarray, "c d"]) -> tuple[np.ndarray, np.ndarray]:
    """Deal the rows to the centres and move these; return the new centres and which is now nearest to each row."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    solver = cast(Any, KMeans)(len(centres), init=centres, n_init=1, max_iter=1, tol=0.0)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one pass has not converged
        solver.fit(x)
    return solver.cluster_centers_, solver.labels_
