"""Rank a pool within a budget in money or tokens, and continue beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from aliquot.selection.cost_aware import CostAware
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.purse import Purse
from aliquot.selection.strategy import Strategy, as_read, check_asked, rank
from aliquot.types import Pool, Scores, Selection

_TRIES = 16  # selections made to find the largest one of a strategy that is not nested
_FIXED_POINT = 6  # of these, by the mean cost of the last; the others halve what is left to search
#: The strategies that can weigh gains against costs, as `strategy=` names them.
COST_AWARE = (
    *("mean_entropy", "max_entropy", "least_confidence", "mean_margin", "min_margin", "facility_location", "herding"),
    *("weighted_facility_location", "uncertain_facility_location", "targeted_facility_location", "prob_cover"),
    *("adaicl", "log_det", "information_gain", "allocation"),
)


def rank_within(
    strategy: Strategy,
    pool: Pool,
    scores: Scores | None,
    costs: Float64[np.ndarray, " n"],
    limit: float,
    cost_aware: bool = False,
    start: Selection | None = None,
    workspace: Workspace | None = None,
) -> Selection:
    """Let `strategy` order the pool as deep as a budget in money or tokens goes.

    A nested strategy gives the longest prefix of its ranking that fits. Of a strategy that is not nested, the selection
    of the largest k that fits is looked for: k follows from the mean cost of the selection before, until k fits and
    k + 1 does not. The cost need not rise with k, so a larger k may fit too. After 16 selections the largest that
    fits is taken. With `cost_aware`, gains are weighed against costs; see `aliquot.selection.cost_aware`. If all
    costs are equal, that is the ranking without it.

    Args:
        strategy: orders the pool.
        pool: the prompts.
        scores: the signals; None for a strategy that does not require any.
        costs: the expected cost of each row, positive.
        limit: what the rows may cost in all, including those of `start`, in the unit of `costs`.
        cost_aware: maximize the gain within the limit.
        start: rows selected earlier, which stay and come first. If they do not all fit, only as many as do, from the
            first on, are returned.
        workspace: the directory and device of a long ranking.

    Raises:
        ValueError: costs are not positive and finite, nothing fits, `cost_aware` is asked of a strategy without such
            gains, or what `rank` refuses.
    """
    start, workspace = start or Selection.none(), workspace or Workspace()
    check_asked(pool, len(pool), start)
    _check_costs(pool, costs)
    _check_limit(pool, costs, limit, start)
    aware, purse = as_cost_aware(strategy) if cost_aware else None, Purse(costs, limit)
    if (fitting := purse.fitting(start.indices)) < len(start):
        return start.head(fitting)
    if (most := purse.most(start)) == len(start):
        return start

    def ranked(start: Selection, k: int) -> Selection:
        return rank(strategy, pool, scores, k, start, workspace)

    if aware and np.ptp(costs) > 0:
        chosen = aware.spend(pool, as_read(strategy, pool, scores), start, most, workspace, purse)
    elif strategy.nested:
        chosen = purse.longest_prefix(ranked, start, most)
    else:
        chosen = _largest(purse, ranked, start, most)
    assert len(np.unique(chosen.indices)) == len(chosen) == purse.fitting(chosen.indices), f"{strategy!r} overspent"
    if len(chosen) == 0:
        raise ValueError(
            f"a budget of {limit:.6g} does not pay the first prompt that {type(strategy).__name__} chooses from pool "
            f"'{pool.name}', and {int((costs <= limit).sum())} of {len(pool)} prompts cost no more than that; raise "
            f"the budget to {costs.max():.6g}, the cost of the dearest prompt, or choose another strategy"
        )
    return chosen


def with_reserve(
    strategy: Strategy,
    pool: Pool,
    scores: Scores | None,
    within: Selection,
    costs: Float64[np.ndarray, " n"],
    depth: int,
    cost_aware: bool = False,
    workspace: Workspace | None = None,
) -> Selection:
    """Return `within` and, after it, the rows to buy next if it turns out cheaper than expected, `depth` in all.

    They continue the same strategy without a limit: in its order or, with `cost_aware`, by gain per cost. Rows that did
    not fit before come at their turn.

    Args:
        strategy, pool, scores, costs, cost_aware, workspace: as in `rank_within`.
        within: what that returned.
        depth: rows in all, 1 to n.
    """
    workspace = workspace or Workspace()
    check_asked(pool, depth, within)
    _check_costs(pool, costs)
    aware = as_cost_aware(strategy) if cost_aware else None
    if aware is None or np.ptp(costs) == 0 or depth <= len(within):
        return rank(strategy, pool, scores, depth, within, workspace)
    return aware.spend(pool, as_read(strategy, pool, scores), within, depth, workspace, Purse(costs))


def _largest(purse: Purse, ranked: Callable[[Selection, int], Selection], start: Selection, most: int) -> Selection:
    """Return the selection of the largest k found that fits, at most `most`; `start` if none does."""
    costs, left = purse.costs, purse.left(start.indices)
    chosen, too_many = start, most + 1
    k = len(start) + int(left / np.delete(costs, start.indices).mean())
    for tries in range(_TRIES):
        k = min(max(k, len(chosen) + 1), too_many - 1)
        found = ranked(start, k)
        if purse.fitting(found.indices) == k:
            chosen = found
        else:
            too_many = k
        if too_many - len(chosen) == 1:
            break
        k = (len(chosen) + too_many) // 2
        if tries < _FIXED_POINT:
            k = len(start) + int(left / costs[found.indices[len(start) :]].mean())
    return chosen


def as_cost_aware(strategy: Strategy) -> CostAware:
    """Return a strategy that can weigh gains against costs, as one.

    Raises:
        ValueError: it cannot.
    """
    if isinstance(strategy, CostAware) and strategy.cost_aware:
        return strategy
    if isinstance(strategy, CostAware):
        raise ValueError(
            f"cost_aware=true needs exact gains, and {strategy!r} draws samples or parts; use strategy/mode=exact or "
            "strategy/mode=sparse"
        )
    raise ValueError(
        f"cost_aware=true weighs gains against costs, and {type(strategy).__name__} has no gains that add up to a "
        f"value; use cost_aware=false, or one of {', '.join(COST_AWARE)}"
    )


def _check_costs(pool: Pool, costs: Float64[np.ndarray, " n"]) -> None:
    if costs.shape != (len(pool),):
        raise ValueError(
            f"costs of shape {costs.shape} do not belong to the {len(pool)} prompts of pool '{pool.name}'; give one "
            "for each"
        )
    bad = np.flatnonzero(~((costs > 0) & np.isfinite(costs)))
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"the expected cost of {len(bad)} of {len(pool)} prompts is not a positive number: {costs[row]} for row "
            f"{row} (id '{pool.ids[row]}'); correct the price, or leave those prompts out"
        )


def _check_limit(pool: Pool, costs: Float64[np.ndarray, " n"], limit: float, start: Selection) -> None:
    cheapest = int(costs.argmin())
    first = int(start.indices[0]) if len(start) else cheapest
    if not math.isfinite(limit):
        raise ValueError(f"a budget of {limit} is no amount to spend; use a number, {costs[first]:.6g} or more")
    if Purse(costs, limit).left(np.array([first])) < 0:
        needed = "the first of the prompts chosen before" if len(start) else "the cheapest prompt"
        raise ValueError(
            f"a budget of {limit:.6g} does not pay {needed} of pool '{pool.name}', row {first} (id "
            f"'{pool.ids[first]}'), whose expected cost is {costs[first]:.6g}; raise the budget to that or more"
        )
