"""The most typical prompt of each cluster, against a naive implementation."""

from __future__ import annotations

import numpy as np
import pytest

from aliquot.selection.clustering import k_means
from aliquot.selection.strategies.typiclust import TypiClust
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, Selection


def select(x: np.ndarray, k: int, start: list[int] | None = None, **fields: int) -> Selection:
    n = len(x)
    pool = Pool("test", [str(i) for i in range(n)], ["x"] * n)
    chosen = Selection(np.array(start or [], dtype=np.int64), np.zeros(len(start or [])))
    return rank(
        TypiClust(features=None, normalize="raw", **fields),
        pool,
        Scores(x.astype(np.float32), np.ones(n, dtype=np.int64)),
        k,
        chosen,
    )


def naive(x: np.ndarray, k: int, start: list[int], num_neighbors: int) -> tuple[list[int], list[float]]:
    """Take turns among the clusters, the largest first, one prompt each."""
    labels = k_means(x, k, TypiClust().passes, 0).labels.tolist()
    members = {label: [i for i, other in enumerate(labels) if other == label] for label in set(labels)}

    def distance(i: int) -> float:
        others = [j for j in members[labels[i]] if j != i]
        distances = sorted(float(np.sqrt(np.square(x[i].astype(np.float64) - x[j]).sum())) for j in others)
        nearest = distances[:num_neighbors]
        return sum(nearest) / len(nearest) if nearest else 0.0

    waiting = {label: sorted(set(rows) - set(start), key=lambda i: (distance(i), i)) for label, rows in members.items()}
    picks, gains = list(start), [0.0] * len(start)
    for turn in range(len(x)):
        offers = []
        for label, rows in members.items():
            place = turn - len(set(rows) & set(start))
            if 0 <= place < len(waiting[label]):
                offers.append((-len(rows), waiting[label][place]))
        for size, row in sorted(offers):
            picks.append(row)
            gains.append(float(-size) if turn == 0 else 0.0)
    return picks[:k], gains[:k]


@pytest.mark.parametrize("k", [5, 6, 30, 80])
@pytest.mark.parametrize("start", [[], [7, 3], [0, 1, 2, 40, 41]])
@pytest.mark.parametrize("distinct", [80, 12])
@pytest.mark.parametrize("num_neighbors", [2, 20])
def test_equals_a_naive_implementation(k: int, start: list[int], distinct: int, num_neighbors: int) -> None:
    rng = np.random.default_rng(k + distinct)
    x = rng.normal(size=(distinct, 3))[rng.permutation(np.arange(80) % distinct)].astype(np.float32)
    selection = select(x, k, start, num_neighbors=num_neighbors)
    indices, gains = naive(x, k, start, num_neighbors)
    assert selection.indices.tolist() == indices
    assert selection.gains.tolist() == gains


def test_clusters_that_hold_a_prompt_chosen_before_are_skipped() -> None:
    rng = np.random.default_rng(0)
    heap = np.repeat(np.arange(4), [30, 20, 10, 5])
    x = np.eye(4)[heap] * 100 + rng.normal(size=(65, 4))
    found = {tuple(heap[select(x, 4, start=[31], seed=seed).indices].tolist()) for seed in range(20)}
    assert (1, 0, 2, 3) in found  # k-means may end in a worse optimum


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [({"num_neighbors": 0}, "such as 20"), ({"passes": 0}, "such as 5"), ({"seed": -1}, "use 0 or more")],
)
def test_numbers_that_mean_nothing_are_refused(bad: dict[str, int], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        TypiClust(**bad)
