"""Allocation: the division of the budget against a convex solver, and the orders within groups against strategies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, minimize
from test_contract import make_pool, with_features

from aliquot.scoring.normalization import normalized
from aliquot.scoring.spec import Scorer
from aliquot.selection.cost import rank_within
from aliquot.selection.groups import by_cluster, by_task
from aliquot.selection.strategies.allocation import DIFFICULTIES, ORDERS, Allocation
from aliquot.selection.strategies.facility_location import FacilityLocation
from aliquot.selection.strategies.k_center import KCenter
from aliquot.selection.strategies.task_diversity import TaskDiversity
from aliquot.selection.strategy import check_requirements, rank
from aliquot.selection.typicality import typicality
from aliquot.selection.uncertainty import ResponseUncertainty
from aliquot.types import Pool, Scores, Selection, Target

SIZES = (60, 25, 10, 4, 1)


def pool_of(*sizes: int) -> Pool:
    """A pool whose tasks have these sizes."""
    tasks = [f"task {c}" for c, size in enumerate(sizes) for _ in range(size)]
    order = np.random.default_rng(0).permutation(len(tasks))
    return Pool("sized", [str(i) for i in order], [f"prompt {i}" for i in order], [tasks[i] for i in order])


def counts(pool: Pool, selection: Selection) -> list[int]:
    assert pool.tasks is not None
    tasks = np.unique(np.array(pool.tasks), return_inverse=True)[1]
    return np.bincount(tasks[selection.indices], minlength=len(set(pool.tasks))).tolist()


def optimum(
    weights: np.ndarray, sizes: np.ndarray, k: float, exponent: float, offset: float, costs: np.ndarray | None = None
) -> np.ndarray:
    """The division with the smallest expected loss, in real numbers; k is what all cost, 1 each without costs."""
    scale, costs = weights / weights.max(), np.ones(len(sizes)) if costs is None else costs

    def loss(n: np.ndarray) -> float:
        return float((scale * (n + offset) ** -exponent).sum())

    def slope(n: np.ndarray) -> np.ndarray:
        return -exponent * scale * (n + offset) ** (-exponent - 1)

    begin = k * sizes / (costs @ sizes)

    def curvature(n: np.ndarray) -> np.ndarray:
        return np.diag(exponent * (exponent + 1) * scale * (n + offset) ** (-exponent - 2))

    found = minimize(
        loss, begin, jac=slope, hess=curvature, method="trust-constr", bounds=Bounds(np.zeros(len(sizes)), sizes),
        constraints=LinearConstraint(costs, k, k),
        options={"maxiter": 20_000, "gtol": 1e-12, "xtol": 1e-14},
    )  # fmt: skip
    return found.x


@pytest.mark.slow
@pytest.mark.parametrize(("toward", "weights"), [("pool", np.array(SIZES) / sum(SIZES)), ("groups", np.ones(5) / 5)])
@pytest.mark.parametrize(("exponent", "offset"), [(0.5, 1.0), (0.2, 0.5), (2.0, 3.0)])
@pytest.mark.parametrize("k", [5, 20, 50, 90])
def test_the_budget_is_divided_as_a_convex_solver_divides_it(
    toward: str, weights: np.ndarray, exponent: float, offset: float, k: int
) -> None:
    pool = pool_of(*SIZES)
    strategy = Allocation(toward=toward, exponent=exponent, offset=offset)
    found = counts(pool, rank(strategy, pool, None, k))
    np.testing.assert_allclose(found, optimum(weights, np.array(SIZES), k, exponent, offset), atol=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("exponent", "offset"), [(0.5, 1.0), (0.2, 0.5), (2.0, 3.0)])
@pytest.mark.parametrize("limit", [40.0, 130.0, 200.0])
def test_a_budget_in_costs_is_divided_as_a_convex_solver_divides_it(
    exponent: float, offset: float, limit: float
) -> None:
    pool, of_group = pool_of(*SIZES), np.array([1.0, 5.0, 2.5, 8.0, 0.5])
    assert pool.tasks is not None
    costs = of_group[by_task(pool)]
    strategy = Allocation(exponent=exponent, offset=offset)
    found = rank_within(strategy, pool, None, costs, limit, cost_aware=True)
    assert limit - of_group.max() < costs[found.indices].sum() <= limit
    wanted = optimum(np.array(SIZES) / sum(SIZES), np.array(SIZES), limit, exponent, offset, of_group)
    np.testing.assert_allclose(counts(pool, found), wanted, atol=2.0)
    plain = rank_within(strategy, pool, None, costs, limit)
    losses = [
        float((np.array(SIZES) * (np.array(counts(pool, one)) + offset) ** -exponent).sum()) for one in (found, plain)
    ]
    assert losses[0] < losses[1]


def test_the_mean_cost_of_a_group_decides_and_a_start_counts() -> None:
    pool, rng = pool_of(*SIZES), np.random.default_rng(4)
    costs = rng.uniform(0.5, 1.5, size=sum(SIZES)) * np.array([1.0, 5.0, 2.5, 8.0, 0.5])[by_task(pool)]
    strategy = Allocation()
    whole = rank_within(strategy, pool, None, costs, 120.0, cost_aware=True)
    half = rank_within(strategy, pool, None, costs, 50.0, cost_aware=True)
    assert 0 < len(half) < len(whole)
    again = rank_within(strategy, pool, None, costs, 120.0, cost_aware=True, start=half)
    np.testing.assert_array_equal(again.indices, whole.indices)


def test_a_budget_that_does_not_pay_the_first_row_is_refused_with_cost_aware_too() -> None:
    pool, costs = pool_of(9), np.ones(9)
    costs[rank(Allocation(), pool, None, 1).indices] = 3.0
    with pytest.raises(ValueError, match="does not pay the first prompt that Allocation chooses"):
        rank_within(Allocation(), pool, None, costs, 2.0, cost_aware=True)


def test_no_other_division_of_small_pools_has_a_smaller_loss_by_much() -> None:
    """Webster's rounding against all divisions: the loss of the best is at most 1 % lower."""
    sizes, weights = (6, 5, 3), np.array([6, 5, 3]) / 14
    pool = pool_of(*sizes)
    for k in range(1, 14):
        found = np.array(counts(pool, rank(Allocation(), pool, None, k)))
        every = np.stack(np.meshgrid(*[np.arange(size + 1) for size in sizes]), axis=-1).reshape(-1, 3)
        losses = (weights * (every[every.sum(axis=1) == k] + 1.0) ** -0.5).sum(axis=1)
        assert (weights * (found + 1.0) ** -0.5).sum() <= losses.min() * 1.01


@pytest.mark.parametrize("seed", range(3))
def test_all_groups_alike_is_task_diversity(seed: int) -> None:
    pool, scores = make_pool(120, seed)
    found = rank(Allocation(toward="groups", seed=seed), pool, None, 120)
    np.testing.assert_array_equal(found.indices, rank(TaskDiversity(seed=seed), pool, None, 120).indices)
    weighted = Allocation(toward="groups", difficulty="inverse_confidence", offset=0.0, exponent=0.0, seed=seed)
    wanted = rank(TaskDiversity(quotas="inverse_confidence", seed=seed), pool, scores, 120)
    np.testing.assert_array_equal(rank(weighted, pool, scores, 120).indices, wanted.indices)


@pytest.mark.parametrize("k", [10, 33, 77])
def test_toward_the_pool_without_curve_and_offset_quotas_are_in_proportion(k: int) -> None:
    pool = pool_of(*SIZES)
    found = counts(pool, rank(Allocation(exponent=0.0, offset=0.0), pool, None, k))
    assert np.abs(np.array(found) - k * np.array(SIZES) / sum(SIZES)).max() < 1


def test_a_larger_exponent_divides_more_evenly() -> None:
    pool = pool_of(200, 100, 50, 50)
    spreads = [
        np.ptp(counts(pool, rank(Allocation(exponent=exponent), pool, None, 100))) for exponent in (0.0, 0.5, 2.0, 50.0)
    ]
    assert spreads == sorted(spreads, reverse=True) and spreads[-1] <= 1 < spreads[0]


def with_target(pool: Pool, scores: Scores, features: np.ndarray, tasks: list[str] | None) -> Scores:
    names = [f"target {i}" for i in range(len(features))]
    of_target = Scores(features.astype(np.float32), np.ones(len(features), dtype=np.int64))
    return dataclasses.replace(scores, target=Target(Pool("target", names, names, tasks), of_target))


def test_toward_the_target_its_tasks_share_the_budget_and_others_come_last() -> None:
    pool, scores = make_pool(90)
    scores = with_target(pool, scores, np.zeros((4, 5)), ["task 0", "task 0", "task 0", "task 2"])
    strategy = Allocation(toward="target", exponent=0.0, offset=0.0)
    found = counts(pool, rank(strategy, pool, scores, 20))
    assert found == [15, 0, 5]
    assert pool.tasks is not None
    whole = [pool.tasks[row] for row in rank(strategy, pool, scores, 90).indices.tolist()]
    assert "task 1" not in whole[: 90 - whole.count("task 1")]  # what the target does not have follows
    only = with_target(pool, scores, np.zeros((1, 5)), ["task 0"])
    rest = [pool.tasks[row] for row in rank(strategy, pool, only, 90).indices.tolist()][pool.tasks.count("task 0") :]
    assert abs(rest[:20].count("task 1") - 10) <= 1  # two groups without a quota take equal turns
    mixed = Allocation(toward={"target": 1.0, "groups": 1.0}, exponent=0.0, offset=0.0)
    assert counts(pool, rank(mixed, pool, scores, 24)) == [13, 4, 7]  # 3/4 and 1/3, 0 and 1/3, 1/4 and 1/3 of half each


def test_a_target_without_labels_goes_by_the_nearest_prompt() -> None:
    pool, scores = make_pool(90)
    rows = [5, 6, 40]
    scores = with_target(pool, scores, scores.features[rows] + 1e-4, None)
    found = rank(Allocation(toward="target", normalize="raw", exponent=0.0, offset=0.0), pool, scores, 9)
    assert pool.tasks is not None
    wanted = {pool.tasks[row] for row in rows}
    assert {pool.tasks[row] for row in found.indices.tolist()} == wanted


def test_labels_that_the_pool_does_not_have_are_refused() -> None:
    pool, scores = make_pool(30)
    scores = with_target(pool, scores, np.zeros((2, 5)), ["other", "another"])
    with pytest.raises(ValueError, match=r"2 prompts \('other' first\).*3 labels.*target.task=null"):
        rank(Allocation(toward="target"), pool, scores, 3)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("groups", ["tasks", "clusters"])
def test_groups_are_ordered_as_if_each_were_alone(order: str, groups: str) -> None:
    pool, scores = make_pool(120)
    strategy = Allocation(groups=groups, num_clusters=4, order=order, toward="groups")
    found = rank(strategy, pool, scores, 60)
    assert pool.tasks is not None
    features = normalized(scores.features, "centered_unit")
    labels = by_task(pool) if groups == "tasks" else by_cluster(features, 4, seed=0)
    for label in range(labels.max() + 1):
        rows, ours = np.flatnonzero(labels == label), [row for row in found.indices.tolist() if labels[row] == label]
        part = Pool("part", [str(row) for row in rows], ["x"] * len(rows))
        signals = Scores(features[rows], np.ones(len(rows), dtype=np.int64))
        if order == "typical":
            wanted = rows[np.lexsort((rows, typicality(features[rows], np.zeros(len(rows), dtype=np.int64))))]
        elif order == "uncertainty":
            wanted = rows[np.lexsort((rows, -ResponseUncertainty("entropy").score(scores)[rows]))]
        elif order == "random":
            another = rank(dataclasses.replace(strategy, seed=1), pool, scores, 60).indices.tolist()
            assert groups == "clusters" or [row for row in another if labels[row] == label] != ours
            continue
        else:
            inner = FacilityLocation() if order == "facility_location" else KCenter()
            wanted = rows[rank(inner, part, signals, len(rows)).indices]
        assert ours == wanted[: len(ours)].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_ranking_goes_on_from_its_own_beginning(order: str, difficulty: str) -> None:
    pool, scores = make_pool(150)
    strategy = Allocation(order=order, difficulty=difficulty, groups="clusters", num_clusters=7)
    whole = rank(strategy, pool, scores, 150)
    for depth in (1, 40, 149):
        np.testing.assert_array_equal(rank(strategy, pool, scores, depth).indices, whole.indices[:depth])
        again = rank(strategy, pool, scores, 150, start=whole.head(depth))
        np.testing.assert_array_equal(again.indices, whole.indices)


def test_what_was_chosen_before_counts_toward_the_quotas() -> None:
    pool = pool_of(40, 40)
    assert pool.tasks is not None
    first = [row for row in range(80) if pool.tasks[row] == "task 0"][:10]
    start = Selection(np.array(first), np.zeros(10))
    assert counts(pool, rank(Allocation(), pool, None, 20, start=start)) == [10, 10]


def test_groups_without_labels_are_refused_before_the_pass() -> None:
    pool = Pool("bare", ["a", "b"], ["x", "y"])
    with pytest.raises(ValueError, match=r"needs task labels, and pool 'bare' has none; set strategy.groups=clusters"):
        check_requirements(Allocation(), pool, Scorer())


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_groups_of_one_prompt_and_of_equal_prompts_are_divided_too(order: str) -> None:
    pool, scores = make_pool(40)
    features = scores.features.copy()
    features[:15] = features[0]
    tasks = ["same"] * 15 + ["alone"] + ["other"] * 24
    pool = Pool("odd", pool.ids, pool.prompts, tasks)
    found = rank(Allocation(order=order, toward="groups"), pool, with_features(scores, features), 40)
    assert [tasks[row] for row in found.indices[:3].tolist()].count("alone") == 1
    if order != "random":
        assert [row for row in found.indices.tolist() if row < 15] == sorted(range(15)) or order == "uncertainty"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"groups": "topics"}, "tasks, clusters"),
        ({"toward": "users"}, "pool, groups, target"),
        ({"toward": {"pool": 1.0, "users": 1.0}}, "pool, groups, target"),
        ({"toward": {}}, "one of them positive"),
        ({"toward": ["pool", "target"]}, "mixture, in quotes"),
        ({"toward": None}, "mixture, in quotes"),
        ({"toward": {"pool": "1"}}, "mixture, in quotes"),
        ({"toward": {"pool": 0.0}}, "one of them positive"),
        ({"toward": {"pool": -1.0, "groups": 2.0}}, "numbers of 0 or more"),
        ({"difficulty": "hard"}, "inverse_confidence"),
        ({"order": "best"}, "typical"),
        ({"exponent": -0.1}, "0 or more"),
        ({"offset": float("inf")}, "0 or more"),
        ({"num_clusters": 0}, "1 or more"),
        ({"normalize": "sideways"}, "centered_unit"),
        ({"seed": -1}, "0 or more"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Allocation(**fields)  # pyright: ignore
