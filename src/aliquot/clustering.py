"""k-means clusters of features (Lloyd 1982, by scikit-learn), the same on every run."""

from __future__ import annotations

import logging
import warnings
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float32, Int64

from aliquot.kernels import Features

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


def k_means(features: Features, num_clusters: int, passes: int, seed: int) -> Clusters:
    """Partition the rows into at most `num_clusters` clusters, fewer where fewer rows differ or clusters run empty.

    Starts from distinct rows drawn at random: a start that spreads them (k-means++) costs more than all passes where
    there are tens of thousands of clusters. One thread does it all, for more of them add up the means in any order.

    Args:
        features: one row per prompt.
        num_clusters: 1..n.
        passes: how often all rows are dealt to the nearest centre and the centres moved, at most; one more deals them
            for good. A pass takes 2 n d num_clusters operations.
        seed: of the start.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    x = np.ascontiguousarray(features, dtype=np.float32)
    n, d = x.shape
    equal = _numbered(x)
    _, distinct = np.unique(equal, return_index=True)
    if num_clusters >= len(distinct):
        return Clusters(equal, np.zeros(n, dtype=np.float32))
    first = np.random.default_rng(seed).choice(distinct, num_clusters, replace=False)
    work = 2e-12 * n * d * num_clusters * (passes + 1)
    log.info("k-means: %s rows into %s clusters, up to %.2g TFLOP on one core", f"{n:,}", f"{num_clusters:,}", work)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # empty clusters are left out below
        solver = cast(Any, KMeans)(num_clusters, init=x[first], n_init=1, max_iter=passes, tol=0.0, random_state=seed)
        found = solver.fit(x)
    _, labels = np.unique(found.labels_, return_inverse=True)
    blocks = np.array_split(np.arange(n), -(-n // 4096))
    centres = found.cluster_centers_
    squared = np.concatenate([np.square(x[rows] - centres[found.labels_[rows]]).sum(axis=1) for rows in blocks])
    log.info("k-means: %d passes, mean squared distance to a centre %.4g", found.n_iter_, squared.mean())
    return Clusters(labels.astype(np.int64), squared)


def _numbered(x: Features) -> Int64[np.ndarray, " n"]:
    """Give every row a number, equal rows the same."""
    positive = x + np.float32(0)  # of the two zeros, whose bytes differ
    rows = positive.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)
