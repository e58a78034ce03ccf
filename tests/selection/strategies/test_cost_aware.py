"""Greedy by gain per cost and by gain, against brute force in float64, and the bound of the better one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from test_contract import make_pool, twice

from aliquot.selection.cost import rank_within
from aliquot.selection.cost_aware import CostAware, CostAwareGreedy
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.egonets import egonets
from aliquot.selection.greedy.modes import Sparse
from aliquot.selection.greedy.neighbors import nearest
from aliquot.selection.greedy.voters import voters_of
from aliquot.selection.kernels import RBF, Cosine, Kernel, embed_for_coverage
from aliquot.selection.purse import Purse
from aliquot.selection.strategies.adaicl import AdaICL
from aliquot.selection.strategies.facility_location import FacilityLocation
from aliquot.selection.strategies.information_gain import InformationGain
from aliquot.selection.strategies.log_det import LogDet
from aliquot.selection.strategies.prob_cover import ProbCover
from aliquot.selection.strategies.targeted_facility_location import TargetedFacilityLocation, similarities
from aliquot.selection.strategies.uncertain_facility_location import UncertainFacilityLocation
from aliquot.selection.strategies.uncertainty import Uncertainty
from aliquot.selection.strategies.weighted_facility_location import WeightedFacilityLocation, percentile
from aliquot.selection.strategy import Strategy, as_read
from aliquot.types import Pool, Scores, Selection

STRATEGIES: dict[str, CostAware] = {
    "facility_location": FacilityLocation(),
    "herding": FacilityLocation(kernel=RBF(gamma=1.0, unit="absolute"), normalize="unit"),
    "sparse": FacilityLocation(mode=Sparse(m=100)),
    "weighted": WeightedFacilityLocation(power=2.0),
    "uncertain": UncertainFacilityLocation(share=0.3),
    "uncertain_cover": UncertainFacilityLocation(share=0.6, cover="candidates"),
    "flqmi": TargetedFacilityLocation(eta=0.5),
    "flqmi_without_eta": TargetedFacilityLocation(eta=0.0),
    "flvmi": TargetedFacilityLocation("flvmi"),
    "prob_cover": ProbCover(delta=0.8),
    "adaicl": AdaICL(share=0.7, num_neighbors=3),
    "log_det": LogDet(),
    "information_gain": InformationGain(),
    "mean_entropy": Uncertainty("entropy"),
    "min_margin": Uncertainty("margin", "max"),
}
GREEDY = {name: one for name, one in STRATEGIES.items() if isinstance(one, CostAwareGreedy)}
every = pytest.mark.parametrize("name", STRATEGIES)


class Value:
    """A set function f of rows, without the maximizer's code; gains are differences.

    Rows that are no candidates gain -1. `tail` orders the rows that follow once no gain is above `floor`.
    """

    tail: Sequence[int] = ()
    floor = -0.5

    def of(self, rows: Sequence[int]) -> float:
        raise NotImplementedError

    def gains(self, chosen: Sequence[int], n: int) -> np.ndarray:
        before = self.of(chosen)
        return np.array([self.of([*chosen, j]) - before for j in range(n)])


class Coverage(Value):
    """sum_i a_i min(cap_i, max_s w_is) + sum_s own_s, over some candidates."""

    def __init__(self, w: np.ndarray, weight: np.ndarray, cap: np.ndarray, own: np.ndarray) -> None:
        self.w, self.weight, self.cap, self.own, self.only = w, weight, cap, own, np.ones(len(own), dtype=np.bool_)

    def of(self, rows: Sequence[int]) -> float:
        cover = self.w[:, list(rows)].max(axis=1, initial=0)
        return float(self.weight @ np.minimum(cover, self.cap) + self.own[list(rows)].sum())

    def gains(self, chosen: Sequence[int], n: int) -> np.ndarray:
        return np.where(self.only, super().gains(chosen, n), -1)


class Sets(Value):
    """How many targets the sets of the rows hold; when all are covered, coverage begins anew."""

    def __init__(self, sets: list[set[int]], targets: set[int]) -> None:
        self.sets, self.targets = sets, targets

    def of(self, rows: Sequence[int]) -> float:
        return len(set[int]().union(*(self.sets[row] for row in rows)) & self.targets)

    def gains(self, chosen: Sequence[int], n: int) -> np.ndarray:
        uncovered, before = set(self.targets), set[int]()
        for row in chosen:
            uncovered = uncovered or self.targets - before
            before.add(row)
            uncovered -= self.sets[row]
        uncovered = uncovered or self.targets - before
        return np.array([len(self.sets[j] & uncovered) if j in self.targets else -1 for j in range(n)], dtype=float)


class LogDeterminant(Value):
    def __init__(self, blocks: list[np.ndarray]) -> None:
        self.information = [block.astype(np.float64).T @ block.astype(np.float64) for block in blocks]

    def of(self, rows: Sequence[int]) -> float:
        total = np.eye(len(self.information[0])) + sum(self.information[row] for row in rows)
        return float(np.linalg.slogdet(total)[1])


class Sum(Value):
    def __init__(self, score: np.ndarray) -> None:
        self.score = score

    def of(self, rows: Sequence[int]) -> float:
        return float(self.score[list(rows)].sum())

    def gains(self, chosen: Sequence[int], n: int) -> np.ndarray:
        return self.score


def every_similarity(kernel: Kernel, features: np.ndarray) -> np.ndarray:
    embedding = embed_for_coverage(kernel, features)
    rows, columns = (a.ravel() for a in np.indices((len(features), len(features))))
    return embedding.similarity(rows, columns).reshape(len(features), -1)


def value_of(strategy: CostAware, pool: Pool, scores: Scores) -> Value:
    """The set function that a strategy maximizes."""
    n = len(pool)
    ones, nothing = np.ones(n), np.zeros(n)
    match strategy:
        case FacilityLocation():
            return Coverage(every_similarity(strategy.kernel, scores.features), ones, ones, nothing)
        case WeightedFacilityLocation():
            weight = percentile(strategy.uncertainty.score(scores)).astype(np.float64) ** strategy.power
            return Coverage(every_similarity(strategy.kernel, scores.features), weight, ones, nothing)
        case UncertainFacilityLocation():
            order = np.argsort(-strategy.uncertainty.score(scores), kind="stable")
            only = np.isin(np.arange(n), order[: round(strategy.share * n)])
            w = every_similarity(strategy.kernel, scores.features)
            found = Coverage(w, ones if strategy.cover == "pool" else only.astype(float), ones, nothing)
            found.only, found.tail = only, order.tolist()
            return found
        case TargetedFacilityLocation():
            assert scores.target is not None
            similar = similarities(strategy.kernel, scores.features, scores.target.scores.features) / 2.0**30
            nearest_target = similar.max(axis=1)
            if strategy.function == "flqmi":
                number = similar.shape[1]
                found = Coverage(similar.T, np.ones(number), np.ones(number), strategy.eta * nearest_target)
            else:
                w = every_similarity(strategy.kernel, scores.features)
                found = Coverage(w, ones, np.minimum(1, strategy.eta * nearest_target), nothing)
            found.tail, found.floor = np.argsort(-nearest_target, kind="stable").tolist(), 1e-9
            return found
        case ProbCover():
            assert strategy.delta is not None
            x = scores.features.astype(np.float64)
            near = np.linalg.norm(x[:, None] - x, axis=2) < strategy.delta
            return Sets([set(np.flatnonzero(row).tolist()) for row in near], set(range(n)))
        case AdaICL():
            order = np.argsort(-strategy.uncertainty.score(scores), kind="stable")
            only = np.isin(np.arange(n), order[: round(strategy.share * n)])
            graph = nearest(Cosine().embed(scores.features), 1 + strategy.num_neighbors, False, Workspace())
            flat = egonets(voters_of(graph), only, strategy.hops)
            sets = [set(part.tolist()) for part in np.split(flat.rows, flat.start[1:-1])]
            found = Sets(sets, set(np.flatnonzero(only).tolist()))
            found.tail = order.tolist()
            return found
        case LogDet():
            x = scores.features.astype(np.float64)
            return LogDeterminant(list(x[:, None] / np.sqrt((x**2).sum(axis=1).mean())))
        case InformationGain():
            assert scores.token_features is not None
            x = scores.token_features.vectors.astype(np.float64)
            parts = np.split(x / np.sqrt((x**2).sum(axis=1).mean()), scores.token_features.starts[1:])
            return LogDeterminant(parts)
        case Uncertainty():
            score = strategy.score(scores)
            return Sum(score - min(0, score.min()))
        case _:
            raise AssertionError(strategy)


def brute_force(
    value: Value, costs: np.ndarray, limit: float, per_cost: bool, start: Sequence[int]
) -> tuple[list[int], list[float]]:
    """Every gain anew at every pick; of gains equal up to rounding, it is the lower row's. The rows and their gains."""
    chosen, gained, n = list(start), [0.0] * len(start), len(costs)
    while True:
        free = costs <= limit - costs[chosen].sum()
        free[chosen] = False
        if not free.any():
            return chosen, gained
        gains = value.gains(chosen, n)
        worth = np.where(free, gains / costs if per_cost else gains, -np.inf)
        if gains[free].max() <= value.floor:
            chosen.append(next(row for row in value.tail if free[row]))
            gained.append(0)
        else:
            chosen.append(int(np.argmax(worth >= worth.max() - 1e-9 * abs(worth.max()) - 1e-12)))
            gained.append(float(gains[chosen[-1]]))


def read(strategy: CostAware, pool: Pool, scores: Scores) -> Scores:
    assert isinstance(strategy, Strategy)
    found = as_read(strategy, pool, scores)
    assert found is not None
    return found


def costly_pool(seed: int, twins: bool) -> tuple[Pool, Scores, np.ndarray]:
    """A pool with costs; with twins, the second half repeats the first, half of it at the same cost."""
    pool, scores = make_pool(30 if twins else 50, seed)
    costs = np.random.default_rng(seed).gamma(0.7, size=len(pool)) + 0.02
    if not twins:
        return pool, scores, costs
    again = costs * np.where(np.arange(len(pool)) % 2, 1, np.random.default_rng(seed + 9).uniform(0.5, 2, len(pool)))
    return *twice(pool, scores), np.concatenate([costs, again])


@pytest.mark.slow
@every
@pytest.mark.parametrize("twins", [False, True])
@pytest.mark.parametrize("given", [[], [7, 21, 2]])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_both_rules_pick_what_brute_force_picks(name: str, twins: bool, given: list[int], share: float) -> None:
    strategy = STRATEGIES[name]
    pool, raw, costs = costly_pool(1, twins)
    scores = read(strategy, pool, raw)
    value, start = value_of(strategy, pool, scores), Selection(np.array(given, dtype=np.int64), np.zeros(len(given)))
    limit = share * float(costs.sum()) + float(costs[given].sum())
    wanted = [brute_force(value, costs, limit, per_cost, given) for per_cost in (True, False)]
    if isinstance(strategy, CostAwareGreedy):
        for per_cost, (rows, gained) in zip((True, False), wanted, strict=True):
            purse = Purse(costs, limit, per_cost)
            found = strategy.extend(pool, scores, start, purse.most(start), Workspace(), purse)
            assert found.indices.tolist() == rows
            np.testing.assert_allclose(found.gains, gained, atol=2e-5)
    assert isinstance(strategy, Strategy)
    found = rank_within(strategy, pool, raw, costs, limit, True, start)
    best = max(sum(gained) for _, gained in wanted)
    assert found.indices.tolist() in [rows for rows, gained in wanted if sum(gained) >= best - 1e-4]


@pytest.mark.slow
@every
@pytest.mark.parametrize("seed", range(4))
def test_the_better_rule_reaches_its_share_of_the_best_value(name: str, seed: int) -> None:
    strategy, n = STRATEGIES[name], 10
    pool, scores = make_pool(n, seed)
    costs = np.random.default_rng(seed).pareto(0.7, size=n) + 0.1
    limit = max(float(costs.min()), 0.4 * float(np.sort(costs)[:-1].sum()))
    value = value_of(strategy, pool, read(strategy, pool, scores))
    assert isinstance(strategy, Strategy)
    found = rank_within(strategy, pool, scores, costs, limit, True)
    sets = (list(rows) for size in range(n + 1) for rows in itertools.combinations(range(n), size))
    best = max(value.of(rows) for rows in sets if costs[rows].sum() <= limit)
    assert value.of(found.indices.tolist()) - value.of([]) >= (1 - 1 / np.e) / 2 * (best - value.of([])) - 1e-6


def test_a_dear_row_with_nearly_all_of_the_value_is_found_by_gain_and_cheap_ones_by_gain_per_cost() -> None:
    pool, scores = make_pool(20)
    strategy = Uncertainty("entropy")
    score = strategy.score(scores)
    dearest, cheap = int(score.argmax()), np.full(20, 1.0)
    costs = np.where(np.arange(20) == dearest, 100.0, 40.0 * score / score.max() + 60.0)
    costs[score.argmin()] = 1e-6  # the best by gain per cost, and then the dear one no longer fits
    assert rank_within(strategy, pool, scores, costs, 100.0, True).indices.tolist() == [dearest]
    cheap[dearest] = 10.0
    found = rank_within(strategy, pool, scores, cheap, 10.0, True).indices.tolist()
    assert found == [row for row in np.argsort(-score).tolist() if row != dearest][:10]


@pytest.mark.slow
@pytest.mark.parametrize("name", GREEDY)
@pytest.mark.parametrize("per_cost", [True, False])
def test_equal_costs_give_the_plain_selection_bit_for_bit(name: str, per_cost: bool) -> None:
    strategy = GREEDY[name]
    pool, scores = twice(*make_pool(40))
    scores = read(strategy, pool, scores)
    start = Selection(np.array([5, 60], dtype=np.int64), np.zeros(2))
    purse = Purse(np.full(80, 0.1), 0.1 * 33, per_cost)
    found = strategy.extend(pool, scores, start, purse.most(start), Workspace(), purse)
    plain = strategy.extend(pool, scores, start, 33, Workspace())
    np.testing.assert_array_equal(found.indices, plain.indices)
    np.testing.assert_array_equal(found.gains, plain.gains)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GREEDY if name not in ("prob_cover", "adaicl", "sparse")])
def test_goes_on_where_it_was_cut_off(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, (pool, scores) = GREEDY[name], make_pool(300)
    costs, saves = np.random.default_rng(0).gamma(1.0, size=300) + 0.01, []
    assert isinstance(strategy, Strategy)
    expected = rank_within(strategy, pool, scores, costs, 60.0, True)

    def save_and_be_killed(self: Checkpoint, arrays: Mapping[str, np.ndarray]) -> None:
        save(self, arrays)
        saves.append(arrays)
        if len(saves) in (1, 2, 5):
            raise KeyboardInterrupt

    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", save_and_be_killed)
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    found = Selection.none()
    for _ in range(4):
        with suppress(KeyboardInterrupt):
            found = rank_within(strategy, pool, scores, costs, 60.0, True, workspace=Workspace(tmp_path))
    assert len(saves) > 3
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.gains, expected.gains)


def test_scores_below_zero_count_from_the_least_uncertain_prompt() -> None:
    pool, scores = make_pool(30)
    strategy = Uncertainty("margin")
    score, costs = strategy.score(scores), np.random.default_rng(2).gamma(1.0, size=30) + 0.1
    assert score.max() < 0
    found = rank_within(strategy, pool, scores, costs, 6.0, True)
    worth = score - score.min()
    by_cost = sorted(range(30), key=lambda row: -worth[row] / costs[row])
    assert found.indices[:3].tolist() == by_cost[:3]
    np.testing.assert_array_equal(found.gains, score[found.indices])
