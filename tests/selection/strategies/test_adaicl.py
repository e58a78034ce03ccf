"""Coverage of the uncertain prompts on the graph of neighbors, against a slow implementation."""

from __future__ import annotations

import numpy as np
import pytest
from test_vote_k import votes

from aliquot.selection.strategies.adaicl import AdaICL
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, Selection, TokenStats


def naive(
    ballots: list[list[int]], uncertainty: np.ndarray, k: int, start: list[int], share: float, hops: int
) -> tuple[list[int], list[float]]:
    n = len(ballots)
    order = sorted(range(n), key=lambda i: (-uncertainty[i], i))
    hard = set(order[: max(1, round(share * n))])
    voters = [{u for u in range(n) if i in ballots[u]} for i in range(n)]
    near = [({i} | voters[i]) & hard for i in range(n)]
    if hops == 2:
        near = [near[i] | {v for u in voters[i] & hard for v in voters[u] & hard} for i in range(n)]
    chosen, gains, uncovered = [], [], set(hard)
    while len(chosen) < k:
        if not uncovered:
            uncovered = hard - set(chosen)
        left = sorted(hard - set(chosen))
        if len(chosen) < len(start):
            row, gain = start[len(chosen)], 0.0
        elif left:
            row = max(left, key=lambda i: len(near[i] & uncovered))  # the first of equal ones
            gain = float(len(near[row] & uncovered))
        else:
            row, gain = next(i for i in order if i not in chosen), 0.0
        chosen.append(row)
        gains.append(gain)
        uncovered -= near[row]
    return chosen, gains


@pytest.mark.parametrize("m", [1, 3, 9])
@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("start", [[], [50, 2, 17]])
@pytest.mark.parametrize(("share", "distinct"), [(0.5, 70), (0.3, 40), (1.0, 40)])
def test_equals_a_naive_implementation_pick_by_pick(
    m: int, hops: int, start: list[int], share: float, distinct: int
) -> None:
    rng = np.random.default_rng(m)
    x = (1 + rng.normal(size=(distinct, 6)))[np.arange(70) % distinct].astype(np.float32)
    ones, half = np.ones(70, dtype=np.int64), np.full(70, 0.5, dtype=np.float32)
    tokens = TokenStats(ones, rng.gamma(1.0, size=70).round(1).astype(np.float32), half, half)
    pool, scores = Pool("test", [str(i) for i in range(70)], ["x"] * 70), Scores(x, ones, tokens)
    chosen = Selection(np.array(start, dtype=np.int64), np.zeros(len(start)))
    selection = rank(AdaICL(features=None, num_neighbors=m, hops=hops, share=share), pool, scores, 70, chosen)
    indices, gains = naive(votes(x, m), tokens.entropy, 70, start, share, hops)
    assert selection.indices.tolist() == indices
    assert selection.gains.tolist() == gains


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [({"share": 0.0}, "such as 0.5"), ({"num_neighbors": 0}, "such as 5"), ({"hops": 3}, "use 1 or 2")],
)
def test_numbers_that_mean_nothing_are_refused(bad: dict[str, float], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        AdaICL(**bad)  # pyright: ignore
