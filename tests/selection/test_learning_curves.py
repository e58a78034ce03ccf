"""Curves of groups against one dense Gaussian for all of them, and allocation by curves against every alternative."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from aliquot.selection.learning_curves import SLOPE_SPREAD, LearningCurves, _fit, _moments
from aliquot.selection.strategies.allocation import Allocation
from aliquot.selection.strategy import rank
from aliquot.types import Bought, Pool, Selection


def bought_from(scale, exponents, rounds, seed=0, noise=0.5, offset=1.0):
    """Draw losses of groups of 1,000 prompts; `rounds` has the responses of each group in each round."""
    rng, taken = np.random.default_rng(seed), np.zeros(len(scale), dtype=np.int64)
    bought = None
    for counts in rounds:
        rows, losses = [], []
        for group, count in enumerate(counts):
            mean = scale[group] * (taken[group] + offset) ** -exponents[group]
            rows += [1000 * group + taken[group] + i for i in range(count)]
            losses += (mean * np.exp(rng.normal(-(noise**2) / 2, noise, count))).tolist()
        bought = Bought.joined(bought, np.array(rows, dtype=np.int64), np.array(losses))
        taken += np.array(counts)
    assert bought is not None
    return bought, np.repeat(np.arange(len(scale)), 1000)


def observations(bought, group, offset):
    """The log mean losses as the module docstring has them, cell by cell: group, position, value, variance."""
    cells = sorted({(int(group[row]), int(r)) for row, r in zip(bought.rows, bought.round, strict=True)})
    of = {cell: [] for cell in cells}
    for row, loss, r in zip(bought.rows, bought.loss, bought.round, strict=True):
        of[int(group[row]), int(r)].append(max(loss, 1e-4))
    squares = sum(((np.array(v) / np.mean(v) - 1) ** 2).sum() for v in of.values())
    free = sum(len(v) - 1 for v in of.values())
    cv2 = squares / free if free else 1.0
    for c, r in cells:
        before = sum(group[row] == c and at < r for row, at in zip(bought.rows, bought.round, strict=True))
        s2 = np.log1p(max(cv2, 1e-6) / len(of[c, r]))
        yield c, np.log(before + offset), np.log(np.mean(of[c, r])) + s2 / 2, s2


@pytest.mark.parametrize("spreads", [(0.5, 0.2), (0.05, 1.0), (2.0, 0.01)])
@pytest.mark.parametrize("rounds", [[(4, 0, 3), (2, 5, 0), (1, 1, 0)], [(3, 2, 0)]])
def test_the_posterior_is_that_of_one_dense_gaussian(spreads, rounds):
    bought, group = bought_from([2.0, 5.0, 1.0], [0.3, 0.6, 0.1], rounds)
    _, shrink, shift, spread, mean, covariance = _fit(_moments(bought, group, 1.0), np.log(spreads), 0.5)
    seen = list(observations(bought, group, 1.0))
    # unknowns: the two means of the pool, then alpha and beta of each of three groups
    prior_mean = np.tile([0.0, 0.5], 4)
    pool = np.diag([1e4, SLOPE_SPREAD**2])  # a flat prior of the mean of alpha, nearly
    prior = np.tile(pool, (4, 4))
    for g in range(3):
        prior[2 + 2 * g : 4 + 2 * g, 2 + 2 * g : 4 + 2 * g] += np.diag(np.square(spreads))
    design = np.zeros((len(seen), 8))
    for i, (c, x, _, _) in enumerate(seen):
        design[i, 2 + 2 * c : 4 + 2 * c] = 1, -x
    y, noise = np.array([v for *_, v, _ in seen]), np.diag([s2 for *_, s2 in seen])
    gain = prior @ design.T @ np.linalg.inv(design @ prior @ design.T + noise)
    wanted, left = prior_mean + gain @ (y - design @ prior_mean), prior - gain @ design @ prior
    np.testing.assert_allclose(mean, wanted[:2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(covariance, left[:2, :2], rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose((shrink @ mean + shift).ravel(), wanted[2:], rtol=1e-3, atol=1e-3)
    for g in range(3):
        both = spread[g] + shrink[g] @ covariance @ shrink[g].T
        np.testing.assert_allclose(both, left[2 + 2 * g : 4 + 2 * g, 2 + 2 * g : 4 + 2 * g], rtol=2e-2, atol=1e-3)


def test_the_likelihood_of_the_spreads_is_that_of_the_observations_up_to_a_constant():
    bought, group = bought_from([2.0, 5.0, 1.0], [0.3, 0.6, 0.1], [(4, 2, 3), (2, 5, 1), (1, 1, 1)])
    moments, seen = _moments(bought, group, 1.0), list(observations(bought, group, 1.0))
    y = np.array([v for *_, v, _ in seen])

    def dense(spreads):
        pool, mean = np.diag([1e6, SLOPE_SPREAD**2]), np.zeros(len(seen))
        covariance = np.diag([s2 for *_, s2 in seen])
        for (i, (c, x, _, _)), (j, (d, z, _, _)) in itertools.product(enumerate(seen), repeat=2):
            here, there = np.array([1, -x]), np.array([1, -z])
            covariance[i, j] += here @ (pool + (c == d) * np.diag(np.square(spreads))) @ there
            mean[i] = here @ [0, 0.5]
        return -multivariate_normal(mean, covariance).logpdf(y)

    tried = [(0.5, 0.2), (0.1, 0.4), (1.5, 0.05)]
    fast, slow = ([f(np.array(s)) for s in tried] for f in (lambda s: _fit(moments, np.log(s), 0.5)[0], dense))
    np.testing.assert_allclose(np.diff(fast), np.diff(slow), rtol=1e-3, atol=1e-3)


def test_known_curves_are_recovered_and_their_uncertainty_is_honest():
    rng = np.random.default_rng(1)
    scale, exponents = np.exp(rng.normal(1, 0.4, 150)), rng.normal(0.4, 0.12, 150)
    rounds = [rng.integers(0, 12, 150) for _ in range(4)]
    bought, group = bought_from(scale, exponents, rounds, seed=2)
    curves = LearningCurves.fit(bought, group, 1.0, 0.5)
    drawn = curves.draws(1000)
    for number, truth in enumerate((np.log(scale), exponents)):
        assert np.corrcoef(curves.means[:, number], truth)[0, 1] > (0.8, 0.5)[number]
        apart = (truth - curves.means[:, number]) / drawn[..., number].std(axis=0)
        assert 0.8 < np.sqrt(np.mean(apart**2)) < 1.25
    assert abs(curves.pool_mean[1] - 0.4) < 0.1
    assert curves.trained.tolist() == sum(rounds).tolist()


def test_after_one_round_the_exponent_is_the_expected_one_and_unseen_groups_are_like_the_pool():
    bought, group = bought_from([2.0, 5.0, 1.0], [0.3] * 3, [(20, 20, 0)])
    curves = LearningCurves.fit(bought, group, 1.0, 0.7)
    np.testing.assert_allclose(curves.exponents, 0.7, atol=1e-9)
    assert curves.scale[0] < curves.scale[2] < curves.scale[1]


def test_the_same_losses_give_the_same_curves_bit_for_bit():
    bought, group = bought_from([2.0, 5.0], [0.3, 0.6], [(3, 4), (2, 2)])
    one, two = (LearningCurves.fit(bought, group, 1.0, 0.5) for _ in range(2))
    assert one.means.tobytes() == two.means.tobytes()
    assert one.draws(50).tobytes() == two.draws(50).tobytes()


@pytest.mark.parametrize(("offset", "rows", "message"), [(0.0, 2, "offset=0.0"), (1.0, 0, "no response was bought")])
def test_what_cannot_be_fitted_is_refused(offset, rows, message):
    bought = Bought(np.arange(rows), np.ones(rows), np.zeros(rows, dtype=np.int64))
    with pytest.raises(ValueError, match=message):
        LearningCurves.fit(bought, np.zeros(5, dtype=np.int64), offset, 0.5)


def pool_like(group):
    return Pool("p", [f"{i}" for i in range(len(group))], [f"prompt {i}" for i in range(len(group))],
                [f"{g}" for g in group])  # fmt: skip


def test_allocation_after_a_round_divides_what_is_new_as_the_best_of_all_divisions():
    bought, group = bought_from([3.0, 6.0, 1.0], [0.2, 0.7, 0.4], [(4, 4, 4), (3, 3, 3)])
    pool, start = pool_like(group), Selection(bought.rows, np.zeros(len(bought)))
    strategy = Allocation(toward="groups")
    curves = LearningCurves.fit(bought, group, 1.0, 0.5)
    for more in (1, 5, 12):
        found = rank(strategy.after(bought), pool, None, len(start) + more, start)
        assert found.indices[: len(start)].tolist() == start.indices.tolist()
        counts = np.bincount(group[found.indices], minlength=3)

        def loss(n):
            return float((curves.scale * (np.array(n) + 1.0) ** -curves.exponents).sum())

        divisions = [d for d in itertools.product(range(more + 1), repeat=3) if sum(d) == more]
        best = min(loss(np.array(d) + curves.trained) for d in divisions)
        assert loss(counts) <= best * 1.002


def test_a_longer_selection_begins_with_a_shorter_one():
    bought, group = bought_from([3.0, 6.0, 1.0], [0.2, 0.7, 0.4], [(4, 4, 4), (3, 3, 3)])
    pool, start = pool_like(group), Selection(bought.rows, np.zeros(len(bought)))
    strategy = Allocation(toward="pool").after(bought)
    short, long = (rank(strategy, pool, None, k, start) for k in (30, 60))
    assert long.indices[:30].tolist() == short.indices.tolist()


def test_losses_of_prompts_that_were_not_bought_are_refused():
    bought, group = bought_from([3.0, 6.0], [0.2, 0.7], [(4, 4)])
    pool, start = pool_like(group), Selection(bought.rows[1:], np.zeros(7))
    with pytest.raises(ValueError, match="1 of 8 losses are of prompts that were not bought"):
        rank(Allocation().after(bought), pool, None, 20, start)
