"""Coverage by balls, and its radius, against slow implementations of the definitions."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import aliquot.selection.greedy.balls as balls_module
from aliquot.selection.clustering import k_means
from aliquot.selection.greedy.balls import balls
from aliquot.selection.strategies.prob_cover import ProbCover, pure_squared_radius
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, Selection


def squared_matrix(x: np.ndarray) -> np.ndarray:
    return np.square(x[:, None].astype(np.float64) - x).sum(axis=2)


def select(x: np.ndarray, k: int, start: list[int], strategy: ProbCover) -> Selection:
    pool = Pool("test", [str(i) for i in range(len(x))], ["x"] * len(x))
    scores = Scores(x.astype(np.float32), np.ones(len(x), dtype=np.int64))
    return rank(strategy, pool, scores, k, Selection(np.array(start, dtype=np.int64), np.zeros(len(start))))


def naive(inside: np.ndarray, k: int, start: list[int]) -> tuple[list[int], list[float]]:
    """Every gain anew at every pick; where all is covered, only the rows not selected are to be covered again."""
    n = len(inside)
    chosen, gains, uncovered = [], [], set(range(n))
    while len(chosen) < k:
        if not uncovered:
            uncovered = set(range(n)) - set(chosen)
        gain = {i: len(uncovered & set(np.flatnonzero(inside[i]))) for i in range(n) if i not in chosen}
        row = start[len(chosen)] if len(chosen) < len(start) else min(i for i in gain if gain[i] == max(gain.values()))
        gains.append(0.0 if len(chosen) < len(start) else float(gain[row]))
        chosen.append(row)
        uncovered -= set(np.flatnonzero(inside[row]))
    return chosen, gains


@pytest.mark.parametrize("delta", [0.01, 0.7, 1.5, 20.0])
@pytest.mark.parametrize("start", [[], [50, 2, 17]])
@pytest.mark.parametrize("distinct", [70, 40])
@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_equals_naive_greedy_pick_by_pick(delta: float, start: list[int], distinct: int, scale: float) -> None:
    x = (scale * np.random.default_rng(1).normal(size=(distinct, 3)))[np.arange(70) % distinct].astype(np.float32)
    inside = np.sqrt(squared_matrix(x)) < delta * scale
    selection = select(x, 70, start, ProbCover(features=None, normalize="raw", delta=delta * scale))
    assert (selection.indices.tolist(), selection.gains.tolist()) == naive(inside, 70, start)


@pytest.mark.parametrize("purity", [0.5, 0.95, 1.0])
def test_the_radius_is_the_largest_at_which_so_many_balls_are_pure(purity: float) -> None:
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    labels, squared = k_means(x, 7, 20, 0).labels, squared_matrix(x)
    radius = pure_squared_radius(x, labels, purity, seed=3)

    def pure(limit: float) -> float:
        return np.mean([(labels[squared[i] < limit] == labels[i]).all() for i in range(len(x))])

    assert pure(radius * (1 - 1e-12)) >= purity > pure(radius * (1 + 1e-12))
    by_default = ProbCover(features=None, normalize="raw", purity=purity, num_clusters=7, seed=3)
    given = ProbCover(
        features=None,
        normalize="raw",
        delta=float(np.sqrt(pure_squared_radius(x, k_means(x, 7, 20, 3).labels, purity, 3))),
    )
    np.testing.assert_array_equal(select(x, 200, [], by_default).gains, select(x, 200, [], given).gains)


def test_a_pair_exactly_at_the_radius_is_outside_and_equal_rows_share_their_ball() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([[1000.0], [1003.0], 1e3 + rng.normal(size=500)]).astype(np.float32)[:, None].repeat(4, axis=1)
    x = np.tile(x, (2, 1))
    squared = squared_matrix(x)
    for radius in (squared[0, 1], squared[5, 9], squared[100, 400]):
        sets = balls(x, float(radius))
        for i in range(len(x)):
            found = sets.rows[sets.start[i] : sets.start[i + 1]]
            assert found.tolist() == np.flatnonzero((squared[i] < radius) | (np.arange(len(x)) == i)).tolist()


def test_balls_too_large_for_memory_are_refused_with_the_radius_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balls_module, "_ENTRIES", 4000)
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=r"hold 200 of 200 prompts on average.*they hold 20") as refused:
        select(x, 5, [], ProbCover(features=None, normalize="raw", delta=20.0))
    fitting = float(str(refused.value).split("with ")[1].split()[0])
    assert len(select(x, 5, [], ProbCover(features=None, normalize="raw", delta=0.99 * fitting))) == 5


def test_the_log_says_radius_and_covered_share(caplog: pytest.LogCaptureFixture) -> None:
    x = np.repeat(np.eye(4), [4, 3, 2, 1], axis=0)
    with caplog.at_level(logging.INFO):
        selection = select(x, 2, [], ProbCover(features=None, normalize="raw", delta=1.0))
    assert selection.indices.tolist() == [0, 4]
    assert "radius 1 hold 3.0 prompts on average; 70.0 % are covered, in turn 1" in caplog.text


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [
        ({"delta": 0.0}, "positive number"),
        ({"purity": 0.0}, "such as 0.95"),
        ({"num_clusters": 1}, "such as 100"),
        ({"seed": -1}, "use 0 or more"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(bad: dict[str, float], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        ProbCover(**bad)  # pyright: ignore
