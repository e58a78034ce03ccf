"""vote-k against a slow implementation with exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from aliquot.selection.strategies.vote_k import VoteK
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, Selection


def votes(x: np.ndarray, m: int) -> list[list[int]]:
    """The m most similar other rows of each row by cosine; of equal ones, the lower."""
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    cosine = np.round(unit @ unit.T, 9)
    ballots = []
    for i in range(len(x)):
        others = sorted((j for j in range(len(x)) if j != i and cosine[i, j] > 0), key=lambda j: (-cosine[i, j], j))
        ballots.append(others[:m])
    return ballots


def naive(x: np.ndarray, k: int, start: list[int], m: int) -> tuple[list[int], list[float]]:
    ballots, chosen, gains = votes(x, m), list(start), [0.0] * len(start)
    while len(chosen) < k:
        score = dict.fromkeys((i for i in range(len(x)) if i not in chosen), Fraction(0))
        for voter, ballot in enumerate(ballots):
            if voter not in chosen:
                for row in set(ballot) - set(chosen):
                    score[row] += Fraction(1, 10 ** len(set(ballot) & set(chosen)))
        best = max(score.values())
        chosen.append(min(row for row, value in score.items() if value == best))
        gains.append(float(best))
    return chosen, gains


@pytest.mark.parametrize("m", [1, 5, 12])
@pytest.mark.parametrize("start", [[], [50, 2, 17]])
@pytest.mark.parametrize("distinct", [70, 40])
def test_equals_a_naive_implementation_pick_by_pick(m: int, start: list[int], distinct: int) -> None:
    rng = np.random.default_rng(m)
    x = (1 + rng.normal(size=(distinct, 6)))[np.arange(70) % distinct].astype(np.float32)
    pool, scores = Pool("test", [str(i) for i in range(70)], ["x"] * 70), Scores(x, np.ones(70, dtype=np.int64))
    chosen = Selection(np.array(start, dtype=np.int64), np.zeros(len(start)))
    selection = rank(VoteK(features=None, num_neighbors=m), pool, scores, 70, chosen)
    indices, gains = naive(x, 70, start, m)
    assert selection.indices.tolist() == indices
    np.testing.assert_allclose(selection.gains, gains, rtol=1e-12)


def test_nobody_without_a_vote_is_accepted() -> None:
    with pytest.raises(ValueError, match="such as 150"):
        VoteK(num_neighbors=0)
