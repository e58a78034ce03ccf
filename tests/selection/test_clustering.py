"""Clusters: what Lloyd's algorithm ends in, none empty, the same on every run."""

from __future__ import annotations

import numpy as np
import pytest

from aliquot.selection.clustering import k_means, nearest_centers
from extreme_pools import EXTREME


def blobs(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(7, 4))[rng.integers(7, size=n)] * 5 + 0.3 * rng.normal(size=(n, 4))).astype(np.float32)


def test_every_row_is_in_the_cluster_of_its_nearest_center() -> None:
    x = blobs(300)
    clusters = k_means(x, 12, passes=100, seed=0)
    centers = np.array([x[clusters.labels == c].mean(axis=0) for c in range(12)])
    squared = np.square(x[:, None] - centers[None]).sum(axis=2)
    np.testing.assert_array_equal(squared.argmin(axis=1), clusters.labels)
    np.testing.assert_allclose(clusters.squared, squared.min(axis=1), rtol=1e-3, atol=1e-5)
    assert clusters.sizes.sum() == 300 and clusters.sizes.min() > 0


@pytest.mark.parametrize("num_clusters", [1, 5, 19, 20, 60])
def test_equal_rows_are_in_one_cluster_and_none_is_empty(num_clusters: int) -> None:
    x = np.tile(blobs(20), (3, 1))
    x[0], x[20], x[40] = 0.0, -0.0, 0.0
    clusters = k_means(x, num_clusters, passes=10, seed=0)
    assert clusters.sizes.min() > 0
    assert len(clusters.sizes) <= min(num_clusters, 20)
    np.testing.assert_array_equal(clusters.labels[:20], clusters.labels[20:40])


def test_as_many_clusters_as_different_rows_lose_nothing() -> None:
    clusters = k_means(np.tile(blobs(20), (2, 1)), 33, passes=1, seed=0)
    assert (clusters.sizes == 2).all() and (clusters.squared == 0).all()


def test_the_seed_decides_and_nothing_else_does() -> None:
    x = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    one, again, other = (k_means(x, 90, passes=5, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.labels, again.labels)
    np.testing.assert_array_equal(one.squared, again.squared)
    assert (one.squared != other.squared).any()


@pytest.mark.slow
@pytest.mark.parametrize("num_clusters", [5, 60])
@pytest.mark.parametrize("pool", EXTREME)
def test_every_row_is_in_its_nearest_cluster_however_extreme_the_features(pool: str, num_clusters: int) -> None:
    x = EXTREME[pool].astype(np.float64)
    clusters = k_means(EXTREME[pool], num_clusters, passes=100, seed=0)
    centers = np.array([x[clusters.labels == c].mean(axis=0) for c in range(len(clusters.sizes))])
    squared = np.array([np.square(x - center).sum(axis=1) for center in centers]).T
    own = squared[np.arange(len(x)), clusters.labels]
    assert (own <= squared.min(axis=1) * (1 + 1e-3)).all()
    np.testing.assert_allclose(clusters.squared, own, rtol=1e-3, atol=1e-6 * own.max())


@pytest.mark.parametrize("far", [0.0, 1e9])
def test_the_nearest_center_is_that_of_differences(far: float) -> None:
    rng = np.random.default_rng(0)
    x = (1 + 1e-5 * rng.normal(size=(3000, 8))).astype(np.float32)
    x[::500] += np.float32(far)
    centers = x[rng.permutation(3000)[:40]]
    exact = np.array([np.square(x.astype(np.float64) - center).sum(axis=1) for center in centers.astype(np.float64)])
    np.testing.assert_array_equal(nearest_centers(x, centers), exact.argmin(axis=0))
