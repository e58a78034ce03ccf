"""Budgets in costs: how deep a ranking goes, what continues it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from aliquot.config.create import create
from aliquot.selection.cost import COST_AWARE, rank_within, with_reserve
from aliquot.selection.cost_aware import CostAware
from aliquot.selection.greedy.modes import Distributed, Stochastic
from aliquot.selection.strategies.coverage import Coverage
from aliquot.selection.strategies.facility_location import FacilityLocation
from aliquot.selection.strategies.k_center import KCenter
from aliquot.selection.strategies.longest import Longest
from aliquot.selection.strategies.random import Random
from aliquot.selection.strategy import Strategy, rank
from aliquot.types import Pool, Scores, Selection

CONF = Path(__file__).parents[2] / "conf"


def pool_of(n: int, seed: int = 0) -> tuple[Pool, Scores, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = [f"id {i}" for i in range(n)]
    features = rng.normal(size=(n, 4)).astype(np.float32)
    return Pool("priced", names, names), Scores(features, np.ones(n, np.int64)), rng.gamma(1.0, size=n) + 0.01


@dataclass(frozen=True)
class InOrder:
    """The rows as they come; it notes how deep it was asked to go."""

    requires: ClassVar[frozenset[str]] = frozenset()
    nested: bool = True
    order: Callable[[int, int], list[int]] = lambda n, k: list(range(k))
    asked: ClassVar[list[int]] = []

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        self.asked.append(k)
        return Selection(np.array(self.order(len(pool), k), dtype=np.int64), np.zeros(k))


@pytest.mark.parametrize("strategy", [Random(seed=1), KCenter(), FacilityLocation()])
@pytest.mark.parametrize("limit", [0.5, 7.0, 31.0, 1e6])
def test_a_nested_ranking_goes_as_deep_as_its_longest_prefix_that_fits(strategy: Strategy, limit: float) -> None:
    pool, scores, costs = pool_of(60)
    order = rank(strategy, pool, scores, 60)
    depth = int((np.cumsum(costs[order.indices]) <= limit).sum())
    if depth == 0:
        with pytest.raises(ValueError, match="does not pay the first prompt"):
            rank_within(strategy, pool, scores, costs, limit)
        return
    found = rank_within(strategy, pool, scores, costs, limit)
    np.testing.assert_array_equal(found.indices, order.indices[:depth])
    np.testing.assert_array_equal(found.gains, order.gains[:depth])


def test_a_ranking_is_not_made_much_deeper_than_the_budget() -> None:
    pool, costs = pool_of(10_000)[0], np.ones(10_000)
    costs[:300] = 0.1  # cheaper than the mean tells: it has to continue
    InOrder.asked.clear()
    assert len(rank_within(InOrder(), pool, None, costs, 100.0)) == 370
    assert max(InOrder.asked) < 1000


@pytest.mark.parametrize("cost", [0.1, 0.7, 1 / 3])
@pytest.mark.parametrize("cost_aware", [False, True])
def test_a_limit_that_is_exactly_the_sum_pays_all_and_a_little_less_one_row_less(cost: float, cost_aware: bool) -> None:
    pool, scores, _ = pool_of(50)
    costs = np.full(50, cost)
    for rows in (1, 3, 17, 49):
        assert len(rank_within(FacilityLocation(), pool, scores, costs, cost * rows, cost_aware)) == rows
        if rows > 1:
            assert len(rank_within(FacilityLocation(), pool, scores, costs, cost * rows - 1e-4, cost_aware)) == rows - 1


def test_equal_costs_give_the_plain_ranking() -> None:
    pool, scores, _ = pool_of(50)
    plain = rank(FacilityLocation(), pool, scores, 12)
    for cost_aware in (False, True):
        found = rank_within(FacilityLocation(), pool, scores, np.full(50, 0.3), 3.6, cost_aware)
        np.testing.assert_array_equal(found.indices, plain.indices)
        np.testing.assert_array_equal(found.gains, plain.gains)


@pytest.mark.parametrize("seed", range(4))
def test_of_a_strategy_that_is_not_nested_one_more_row_does_not_fit(seed: int) -> None:
    pool, scores, costs = pool_of(60, seed)
    strategy = Coverage()
    found = rank_within(strategy, pool, scores, costs, 15.0)
    k = len(found)
    np.testing.assert_array_equal(found.indices, rank(strategy, pool, scores, k).indices)
    assert costs[found.indices].sum() <= 15.0 < costs[rank(strategy, pool, scores, k + 1).indices].sum()


def test_of_a_strategy_that_is_not_nested_the_largest_k_is_found_in_few_tries() -> None:
    pool, _, costs = pool_of(20_000)
    reverse = InOrder(nested=False, order=lambda n, k: list(range(k))[::-1])
    largest = int((np.cumsum(costs) <= 777.0).sum())
    InOrder.asked.clear()
    assert len(rank_within(reverse, pool, None, costs, 777.0)) == largest
    assert len(InOrder.asked) <= 16


@pytest.mark.parametrize("nested", [True, False])
def test_a_start_stays_and_its_costs_count(nested: bool) -> None:
    pool, _, costs = pool_of(40)
    start = Selection(np.array([9, 30], dtype=np.int64), np.array([5.0, 4.0]))
    spent = float(costs[[9, 30]].sum())
    found = rank_within(InOrder(nested), pool, None, costs, spent + 4.0, start=start)
    others = [row for row in range(40) if row not in (9, 30)]
    fits = int((np.cumsum(costs[others]) <= 4.0).sum())
    assert found.indices.tolist() == [9, 30, *others[:fits]]
    assert found.gains[:2].tolist() == [5.0, 4.0]


@pytest.mark.parametrize("cost_aware", [False, True])
def test_a_start_that_uses_up_the_budget_is_cut_or_stays_alone(cost_aware: bool) -> None:
    pool, scores, costs = pool_of(40)
    start = rank(FacilityLocation(), pool, scores, 5)
    paid = float(costs[start.indices[:3]].sum())
    found = rank_within(FacilityLocation(), pool, scores, costs, paid, cost_aware, start)
    assert found.indices.tolist() == start.indices[:3].tolist()
    alone = float(costs[start.indices].sum())
    assert len(rank_within(FacilityLocation(), pool, scores, costs, alone, cost_aware, start)) == 5
    with pytest.raises(ValueError, match="the first of the prompts chosen before"):
        rank_within(FacilityLocation(), pool, scores, costs, float(costs[start.indices[0]]) / 2, cost_aware, start)


@pytest.mark.parametrize("strategy", [FacilityLocation(), KCenter(), Coverage(), Random()])
def test_a_reserve_continues_the_selection(strategy: Strategy) -> None:
    pool, scores, costs = pool_of(40)
    within = rank_within(strategy, pool, scores, costs, 12.0)
    deeper = with_reserve(strategy, pool, scores, within, costs, 35)
    assert len(deeper) == 35 == len(set(deeper.indices.tolist()))
    np.testing.assert_array_equal(deeper.indices[: len(within)], within.indices)
    if strategy.nested:
        np.testing.assert_array_equal(deeper.indices, rank(strategy, pool, scores, 35).indices)


def test_a_cost_aware_reserve_goes_on_by_gain_per_cost_without_a_limit() -> None:
    pool, scores, costs = pool_of(40)
    within = rank_within(FacilityLocation(), pool, scores, costs, 12.0, True)
    deeper = with_reserve(FacilityLocation(), pool, scores, within, costs, 40, True)
    np.testing.assert_array_equal(deeper.indices[: len(within)], within.indices)
    worth = (deeper.gains / costs[deeper.indices])[len(within) :]
    assert sorted(deeper.indices.tolist()) == list(range(40)) and (np.diff(worth) <= 1e-6).all()
    shallow = with_reserve(FacilityLocation(), pool, scores, within, costs, len(within) + 5, True)
    np.testing.assert_array_equal(shallow.indices, deeper.indices[: len(within) + 5])


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_costs_that_are_no_price_are_refused_by_row_and_id(bad: float) -> None:
    pool, _, costs = pool_of(20)
    costs[[7, 11]] = bad
    with pytest.raises(ValueError, match=r"cost of 2 of 20 prompts .* row 7 \(id 'id 7'\); correct the price"):
        rank_within(Longest(), pool, None, costs, 5.0)


def test_costs_of_another_pool_are_refused() -> None:
    with pytest.raises(ValueError, match=r"costs of shape \(19,\) do not belong to the 20 prompts"):
        rank_within(Longest(), pool_of(20)[0], None, np.ones(19), 5.0)


@pytest.mark.parametrize("limit", [0.7499, 0.0, -1.0])
@pytest.mark.parametrize("cost_aware", [False, True])
def test_a_budget_below_the_cheapest_row_is_refused_with_its_cost(limit: float, cost_aware: bool) -> None:
    pool, scores, costs = pool_of(20)
    costs += 1
    costs[13] = 0.75
    with pytest.raises(ValueError, match=r"row 13 \(id 'id 13'\), whose .* cost is 0.75; raise the budget to that"):
        rank_within(FacilityLocation(), pool, scores, costs, limit, cost_aware)


@pytest.mark.parametrize("limit", [np.nan, np.inf])
def test_a_budget_that_is_no_amount_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match=r"is no amount to spend; use a number, 0.02"):
        rank_within(Longest(), *pool_of(20), limit)


def test_a_budget_below_the_first_row_says_what_would_do() -> None:
    pool, _, costs = pool_of(20)
    costs[:] = 1.0
    costs[0] = 9.0
    for nested in (True, False):
        with pytest.raises(ValueError, match=r"first prompt that InOrder chooses .* 19 of 20 .* budget to 9, "):
            rank_within(InOrder(nested), pool, None, costs, 1.0)


def test_a_strategy_without_gains_is_refused_with_those_that_have_them() -> None:
    pool, scores, costs = pool_of(20)
    for strategy in (Random(), KCenter(), Coverage(), Longest()):
        with pytest.raises(ValueError, match=r"facility_location, herding.*allocation"):
            rank_within(strategy, pool, scores, costs, 5.0, cost_aware=True)
        with pytest.raises(ValueError, match=r"facility_location, herding.*allocation"):
            with_reserve(strategy, pool, scores, Selection.none(), costs, 5, cost_aware=True)


@pytest.mark.parametrize("mode", [Stochastic(), Distributed()])
def test_a_mode_that_draws_is_refused_with_those_that_do_not(mode: Stochastic | Distributed) -> None:
    with pytest.raises(ValueError, match="strategy/mode=exact"):
        rank_within(FacilityLocation(mode=mode), *pool_of(20), 5.0, cost_aware=True)


@pytest.mark.slow
def test_the_list_of_strategies_with_gains_is_that_of_the_configs() -> None:
    found: set[str] = set()
    for path in (CONF / "strategy").glob("*.yaml"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            made = create(compose(overrides=["+seed=0", f"+strategy={path.stem}"]), "strategy")
        if isinstance(made, CostAware):
            found.add(path.stem)
    assert found == set(COST_AWARE)
