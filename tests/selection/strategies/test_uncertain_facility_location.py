"""Both hybrids of uncertainty and facility location against naive greedy on the similarity matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.kernels import RBF
from aliquot.selection.strategies.facility_location import FacilityLocation
from aliquot.selection.strategies.uncertain_facility_location import UncertainFacilityLocation
from aliquot.selection.strategies.uncertainty import Uncertainty
from aliquot.selection.strategies.weighted_facility_location import WeightedFacilityLocation, percentile
from aliquot.selection.strategy import Greedy, rank
from aliquot.selection.uncertainty import ResponseUncertainty
from aliquot.types import Pool, Scores, Selection, TokenStats

HYBRIDS = [
    UncertainFacilityLocation(share=0.3),
    UncertainFacilityLocation(share=0.3, cover="candidates"),
    WeightedFacilityLocation(uncertainty=ResponseUncertainty("margin", "max")),
]


def make_pool(n: int, seed: int = 0) -> tuple[Pool, Scores]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, 3))[rng.integers(5, size=n)] + 0.5 * rng.normal(size=(n, 3))
    top1 = rng.uniform(0.3, 1.0, size=n).astype(np.float32)
    tokens = TokenStats(np.ones(n, dtype=np.int64), rng.gamma(1.0, size=n).astype(np.float32), top1, top1 / 3)
    return Pool("test", [str(i) for i in range(n)], ["x"] * n), Scores(x.astype(np.float32), tokens.lengths, tokens)


def naive_greedy(
    scores: Scores, k: int, weights: np.ndarray, candidates: np.ndarray, start: list[int] | None = None
) -> tuple[list[int], list[float]]:
    embedding = RBF().embed(scores.features)
    rows, columns = (a.ravel() for a in np.indices((len(scores), len(scores))))
    w = embedding.similarity(rows, columns).reshape(len(scores), len(scores))
    chosen, gains = list(start or []), [0.0] * len(start or [])
    while len(chosen) < k:
        cover = w[:, chosen].max(axis=1, initial=0)
        gain = np.full(len(scores), -1.0)
        gain[candidates] = (weights[:, None] * np.maximum(w[:, candidates] - cover[:, None], 0)).sum(axis=0)
        gain[chosen] = -1
        chosen.append(int(np.argmax(gain >= gain.max() * (1 - 1e-9))))  # mutual nearest pairs tie
        gains.append(float(gain.max()))
    return chosen, gains


@pytest.mark.parametrize("cover", ["pool", "candidates"])
def test_picks_are_those_of_naive_greedy_among_the_most_uncertain(cover: str) -> None:
    pool, scores = make_pool(80)
    by_uncertainty = rank(Uncertainty(), pool, scores, 80).indices
    candidates = by_uncertainty[:24]
    weights = np.isin(np.arange(80), candidates) if cover == "candidates" else np.ones(80)
    expected, gains = naive_greedy(scores, 20, weights, np.sort(candidates))
    selection = rank(UncertainFacilityLocation(share=0.3, cover=cover), pool, scores, 20)
    assert selection.indices.tolist() == expected
    np.testing.assert_allclose(selection.gains, gains, atol=1e-4)


def test_the_rest_follows_by_uncertainty() -> None:
    pool, scores = make_pool(80)
    by_uncertainty = rank(Uncertainty(), pool, scores, 80).indices
    selection = rank(UncertainFacilityLocation(share=0.3), pool, scores, 80)
    assert set(selection.indices[:24]) == set(by_uncertainty[:24])
    assert selection.indices[24:].tolist() == by_uncertainty[24:].tolist()
    assert (selection.gains[24:] == 0).all()


def test_a_whole_share_is_facility_location_and_so_is_power_zero() -> None:
    pool, scores = make_pool(80)
    expected = rank(FacilityLocation(), pool, scores, 30)
    for strategy in (UncertainFacilityLocation(share=1.0), WeightedFacilityLocation(power=0.0)):
        selection = rank(strategy, pool, scores, 30)
        np.testing.assert_array_equal(selection.indices, expected.indices)
        np.testing.assert_allclose(selection.gains, expected.gains, atol=1e-4)


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_picks_are_those_of_naive_greedy_with_ranks_for_weights(power: float) -> None:
    pool, scores = make_pool(70)
    uncertainty = ResponseUncertainty("confidence")
    position = np.argsort(np.argsort(uncertainty.score(scores)))
    expected, gains = naive_greedy(scores, 25, ((position + 1) / 70) ** power, np.arange(70))
    selection = rank(WeightedFacilityLocation(uncertainty=uncertainty, power=power), pool, scores, 25)
    assert selection.indices.tolist() == expected
    np.testing.assert_allclose(selection.gains, gains, atol=1e-4)


def test_equal_scores_have_equal_percentiles_and_the_largest_has_one() -> None:
    assert percentile(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [1.0, 0.25, 1.0, 0.5]


@pytest.mark.parametrize("strategy", HYBRIDS, ids=repr)
@pytest.mark.parametrize("done", [1, 17, 50])  # 17 and 50: before and after the candidates are used up
def test_going_on_from_its_own_picks_gives_what_it_would_have_picked_at_once(strategy: Greedy, done: int) -> None:
    pool, scores = make_pool(100)
    whole = rank(strategy, pool, scores, 90)
    again = rank(strategy, pool, scores, 90, whole.head(done))
    np.testing.assert_array_equal(again.indices, whole.indices)
    np.testing.assert_array_equal(again.gains, whole.gains)


def test_goes_on_from_what_anybody_chose_outside_the_candidates_too() -> None:
    pool, scores = make_pool(80)
    by_uncertainty = rank(Uncertainty(), pool, scores, 80).indices
    start = [int(by_uncertainty[70]), int(by_uncertainty[3])]
    expected, _ = naive_greedy(scores, 15, np.ones(80), np.sort(by_uncertainty[:24]), start)
    begun = Selection(np.array(start), np.array([5.0, 4.0]))
    assert rank(UncertainFacilityLocation(share=0.3), pool, scores, 15, begun).indices.tolist() == expected
    all_of_them = rank(UncertainFacilityLocation(share=0.3), pool, scores, 80, begun)
    assert all_of_them.indices[25:].tolist() == [i for i in by_uncertainty[24:].tolist() if i not in start]


@pytest.mark.parametrize("strategy", HYBRIDS, ids=repr)
def test_runs_in_a_workspace(strategy: Greedy, tmp_path: Path) -> None:
    pool, scores = make_pool(60)
    expected = rank(strategy, pool, scores, 40).indices
    np.testing.assert_array_equal(rank(strategy, pool, scores, 40, None, Workspace(tmp_path)).indices, expected)


@pytest.mark.parametrize(
    ("kind", "bad", "remedy"),
    [
        (UncertainFacilityLocation, {"share": 0.0}, "such as 0.5"),
        (UncertainFacilityLocation, {"share": 1.5}, "such as 0.5"),
        (UncertainFacilityLocation, {"cover": "all"}, "use pool or candidates"),
        (WeightedFacilityLocation, {"power": -1.0}, "use 0 or more"),
        (WeightedFacilityLocation, {"power": np.inf}, "use 0 or more"),
    ],
)
def test_choices_that_mean_nothing_are_refused_with_the_remedy(kind: type, bad: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        kind(**bad)
