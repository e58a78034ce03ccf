"""One prompt per cluster, against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from aliquot.selection.clustering import k_means
from aliquot.selection.strategies.coverage import Coverage
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, Selection


def select(x: np.ndarray, k: int, **fields: int) -> Selection:
    n = len(x)
    pool = Pool("test", [str(i) for i in range(n)], ["x"] * n)
    return rank(Coverage(**fields), pool, Scores(x.astype(np.float32), np.ones(n, dtype=np.int64)), k)


@pytest.mark.slow
def test_separate_heaps_give_their_middles_the_largest_first() -> None:
    rng = np.random.default_rng(0)
    sizes = [5, 40, 11, 23]
    heap = np.repeat(np.arange(4), sizes)
    x = np.eye(4)[heap] * 100 + rng.normal(size=(len(heap), 4))
    found = [select(x, 4, seed=seed) for seed in range(20)]
    complete = [s for s in found if sorted(s.gains) == sorted(sizes)]  # k-means may end in a worse optimum
    assert complete
    for selection in complete:
        assert selection.gains.tolist() == [40, 23, 11, 5]
        for row, size in zip(selection.indices, [40, 23, 11, 5], strict=True):
            mine = np.flatnonzero(heap == sizes.index(size))
            middle = x[mine].astype(np.float32).mean(axis=0)
            assert row == mine[np.square(x[mine] - middle).sum(axis=1).argmin()]


@pytest.mark.parametrize("k", [1, 3, 50, 199, 200])
def test_each_cluster_is_picked_once_at_its_center(k: int) -> None:
    x = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    selection = select(x, k)
    clusters = k_means(x, k, Coverage().passes, 0)
    assert len(set(clusters.labels[selection.indices].tolist())) == len(clusters.sizes) == k
    for row, gain in zip(selection.indices, selection.gains, strict=True):
        mine = np.flatnonzero(clusters.labels == clusters.labels[row])
        assert gain == len(mine)
        assert row == mine[clusters.squared[mine].argmin()]
    assert (np.diff(selection.gains) <= 0).all()


def test_where_rows_are_equal_the_rest_follows_in_order() -> None:
    x = np.tile(np.random.default_rng(0).normal(size=(10, 2)), (4, 1))
    selection = select(x, 33)
    assert selection.indices.tolist() == list(range(33))
    assert selection.gains.tolist() == [4.0] * 10 + [0.0] * 23
    assert select(np.ones((6, 2)), 4).indices.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("bad", "remedy"), [({"passes": 0}, "use 1 or more"), ({"seed": -1}, "use 0 or more")])
def test_numbers_that_mean_nothing_are_refused(bad: dict[str, int], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        Coverage(**bad)


def test_rows_that_differ_by_the_last_digit_have_clusters_of_their_own() -> None:
    x = np.tile(np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32), (8, 1))
    x *= 1 + np.arange(80, dtype=np.float32)[:, None] * np.float32(1e-7)
    selection = select(x, 40)
    assert len(set(selection.indices.tolist())) == 40
    assert (selection.gains > 0).all()  # float32 products see ten points here, and 30 clusters would run empty
