"""Is the next batch worth buying? What it is projected to gain, from the losses of what was bought so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.runtime.progress import unheard
from aliquot.selection.groups import by_task
from aliquot.selection.learning_curves import LearningCurves
from aliquot.selection.strategies.allocation import Allocation
from aliquot.selection.strategy import Strategy, as_read, rank
from aliquot.stages import Annotate, ReadBought
from aliquot.store.store import Store
from aliquot.types import Bought, Pool

_DRAWS = 2000
_OFFSET, _EXPONENT = 1.0, 0.5  # of strategies that have no curves of their own


@dataclass(frozen=True)
class Prospect:
    """The projected gain of one more batch.

    The gain is that of exp(-loss), the geometric mean probability of the tokens of a response, averaged over the groups
    of the pool; it is not the accuracy of a benchmark.

    Args:
        num_prompts: of the batch.
        points: the mean of the gain, in percentage points.
        low: the 2.5 % quantile of the gain.
        high: its 97.5 % quantile.
        cost: of the batch, at the mean cost of the prompts asked so far.
        toward: how groups are weighed: "pool" for their shares in it, or as the allocation does.
    """

    num_prompts: int
    points: float
    low: float
    high: float
    cost: float
    toward: str

    @classmethod
    def after(cls, read: ReadBought, budget: int, store: Store) -> Prospect | None:
        """Return what the prompts after a round, up to a budget, are projected to gain; `read` is done.

        The prompts of a learning allocation are the ones that it would choose next; those of any other strategy are
        divided among groups like the ones of this round. None if this round bought nothing of use.
        """
        annotate, bought = read.annotate, store.get(read)
        size, select = budget - annotate.num_rows(store), annotate.select
        if size <= 0 or not len(bought):
            return None
        pool, strategy = store.get(select.pool), select.strategy
        if isinstance(strategy, Allocation) and strategy.learns:
            group, weights, offset, exponent, added, toward = _of_allocation(annotate, bought, budget, pool, store)
        else:
            group = by_task(pool) if pool.tasks else np.zeros(len(pool), dtype=np.int64)
            weights, offset, exponent, toward = np.bincount(group) / len(pool), _OFFSET, _EXPONENT, "pool"
            newest = group[bought.rows[bought.round == bought.round.max()]]
            added = np.bincount(newest, minlength=len(weights)) * (size / len(newest))
        curves = LearningCurves.fit(bought, group, offset, exponent)
        drawn = curves.draws(_DRAWS)
        now, then = (np.exp(-curves.losses(curves.trained + more, drawn)) @ weights for more in (0 * added, added))
        gain = 100 * (then - now)
        low, high = np.quantile(gain, [0.025, 0.975])
        bill = annotate.bill(store)
        cost = bill.cost / bill.num_asked * size if bill else 0.0
        return cls(size, float(gain.mean()), float(low), float(high), cost, toward)

    def __str__(self) -> str:
        cost = f", at a cost of about {self.cost:,.2f}" if self.cost else ""
        return (
            f"the next {self.num_prompts:,} are projected to gain {self.points:.1f} points of likelihood "
            f"({self.low:.1f} to {self.high:.1f}){cost}"
        )


def _of_allocation(
    annotate: Annotate, bought: Bought, budget: int, pool: Pool, store: Store
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " g"], float, float, Int64[np.ndarray, " g"], str]:
    read, scores = annotate.select.signals(store)
    strategy, start = cast(Allocation, read), store.get(annotate.select).head(annotate.num_rows(store))
    with unheard("aliquot.selection"):  # the round that makes this selection reports it
        order = rank(cast(Strategy, strategy.after(bought)), pool, scores, budget, start)
    scores = as_read(read, pool, scores) if scores else None
    group = strategy.group(pool, scores)
    weights = strategy.weights(group, pool, scores)
    added = np.bincount(group[order.indices[len(start) :]], minlength=len(weights))
    return group, weights, strategy.offset, strategy.exponent, added, str(strategy.toward)
