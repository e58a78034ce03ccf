"""Strategies that weigh gains against costs, by the better of two greedy rules."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.purse import Purse
from aliquot.selection.strategy import Greedy
from aliquot.types import Pool, Scores, Selection


class CostAware(ABC):
    """A strategy that can maximize what it gains by a budget in money or tokens."""

    @property
    def cost_aware(self) -> bool:
        """Whether it can, with its hyperparameters."""
        return True

    @abstractmethod
    def spend(
        self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace, purse: Purse
    ) -> Selection:
        """Return `start`, which fits, and at most k rows in all that fit into the purse.

        Without a limit it returns k rows, by gain per cost.
        """


class CostAwareGreedy(CostAware, Greedy):
    """A greedy strategy of a monotone and submodular f whose gains sum to f; see `better_rule`."""

    @abstractmethod
    def extend(
        self,
        pool: Pool,
        scores: Scores | None,
        start: Selection,
        k: int,
        workspace: Workspace,
        purse: Purse | None = None,
    ) -> Selection:
        """Return what `Greedy.extend` does; with a purse, at most k rows, by its rule and within its limit."""

    def spend(
        self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace, purse: Purse
    ) -> Selection:
        def by(rule: Purse) -> Selection:
            name = "per_cost" if rule.per_cost else "by_gain"
            place = Workspace(workspace.directory and workspace.directory / name, workspace.device)
            return self.extend(pool, scores, start, k, place, rule)

        return better_rule(by, purse, len(start))


def better_rule(by: Callable[[Purse], Selection], purse: Purse, num_given: int) -> Selection:
    """Return the better of two greedy selections: by gain per cost, and by gain; both skip rows that do not fit.

    For a monotone and submodular f with f of nothing 0, the better one reaches (1 - 1/e) / 2 = 0.316 of the largest f
    of any rows that fit (Leskovec et al. 2007, CELF). One rule alone has no such bound: by gain per cost, a cheap row
    with little gain can leave no room for a dear one with nearly all of it; by gain, dear rows crowd out many cheap
    ones. After a start, the same holds for what is added to f by the money that is left. Costs count as they are
    given: with estimates, "what fits" is what fits by the estimates.

    Args:
        by: selects by the rule of a purse; the gains of its picks sum to f.
        purse: the costs and the limit; without a limit there is nothing to compare, and gain per cost is the rule.
        num_given: rows of the start, whose gains do not count.
    """
    per_cost = by(dataclasses.replace(purse, per_cost=True))
    if math.isinf(purse.limit):
        return per_cost
    by_gain = by(dataclasses.replace(purse, per_cost=False))
    of_two = (math.fsum(selection.gains[num_given:].tolist()) for selection in (per_cost, by_gain))
    return by_gain if next(of_two) < next(of_two) else per_cost
