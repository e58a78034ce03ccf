"""What rows cost and what may be spent: the side of a selection that is counted in money or tokens, not in rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from aliquot.types import Selection

_ROUNDING = 1e-9  # of a limit: costs that sum to it exactly may exceed it by the rounding of their sum
_SPARE = 1.05  # rows ranked at first, relative to what the mean cost lets expect
_LEAST = 8  # rows by which a ranking that still fits is continued, and
_GROWTH = 8  # at least 1 in 8 of those it has


@dataclass(frozen=True)
class Purse:
    """The costs of all rows, and what the selected ones may cost.

    Args:
        costs: of each row of the pool, positive.
        limit: what the selected rows may cost in all, including those of a start; infinity for no limit. Sums that
            exceed it by less than a billionth count as equal to it.
        per_cost: greedy picks the largest gain per cost; if False, the largest gain. In both cases among the rows that
            fit into what is left: a row that does not fit is skipped.
    """

    costs: Float64[np.ndarray, " n"]
    limit: float = math.inf
    per_cost: bool = True

    def left(self, chosen: Int64[np.ndarray, " m"]) -> float:
        """Return what is left to spend after some rows."""
        return self.limit * (1 + _ROUNDING) - float(self.costs[chosen].sum())

    def fitting(self, chosen: Int64[np.ndarray, " m"]) -> int:
        """Return how many of the rows can be paid, from the first on."""
        return int(np.searchsorted(np.cumsum(self.costs[chosen]), self.limit * (1 + _ROUNDING), side="right"))

    def most(self, start: Selection) -> int:
        """Return how many rows fit at most, those of `start` included: the cheapest."""
        free = np.sort(np.delete(self.costs, start.indices))
        return len(start) + int(np.searchsorted(np.cumsum(free), self.left(start.indices), side="right"))

    def affordable(self, left: float) -> Bool[np.ndarray, " n"]:
        """Tell which rows fit into what is left."""
        return self.costs <= left

    def worth(self, gains: Float[np.ndarray, " m"], rows: Int64[np.ndarray, " m"] | None = None) -> np.ndarray:
        """Return what orders rows (all if None) that gain so much: the gains, or the gains per cost."""
        return gains / (self.costs if rows is None else self.costs[rows]) if self.per_cost else gains

    def fill(self, chosen: Selection, order: Selection, k: int) -> Selection:
        """Append the rows of `order` that are new and fit, one after the other, up to k rows in all."""
        left, taken = self.left(chosen.indices), list[int]()
        new = np.flatnonzero(~np.isin(order.indices, chosen.indices))
        costs, room = self.costs[order.indices[new]].tolist(), k - len(chosen)
        for place, cost in zip(new.tolist(), costs, strict=True):
            if len(taken) >= room:
                break
            if cost <= left:
                taken.append(place)
                left -= cost
        indices = np.concatenate([chosen.indices, order.indices[taken]])
        return Selection(indices, np.concatenate([chosen.gains, order.gains[taken]]))

    def longest_prefix(self, ranked: Callable[[Selection, int], Selection], start: Selection, most: int) -> Selection:
        """Return the longest prefix of a nested ranking that fits, of at most `most` rows.

        The depth is estimated from the mean cost, and the ranking is continued while all of it fits.

        Args:
            ranked: continues a selection to a given number of rows.
            start: rows selected before, which fit.
            most: at most so many rows, including those of `start`; more than these.
        """
        chosen, mean = start, float(np.delete(self.costs, start.indices).mean())
        while len(chosen) < most:
            expected = min(most, _SPARE * max(self.left(chosen.indices), 0) / mean)
            more = max(_LEAST, len(chosen) // _GROWTH, math.ceil(expected))
            chosen = ranked(chosen, min(most, len(chosen) + more))
            if (fitting := self.fitting(chosen.indices)) < len(chosen):
                return chosen.head(fitting)
            mean = float(self.costs[chosen.indices[len(start) :]].mean())
        return chosen


class Spending(NamedTuple):
    """How compiled loops spend: arguments of `pick_from_lists`, in this order."""

    costs: np.ndarray | None
    divisor: np.ndarray | None
    left: np.ndarray


def spending(purse: Purse | None, chosen: np.ndarray) -> Spending:
    """Return what is left of a purse after some rows; None stands for a purse without end."""
    if purse is None:
        return Spending(None, None, np.array([np.inf]))
    return Spending(purse.costs, purse.costs if purse.per_cost else None, np.array([purse.left(chosen)]))
