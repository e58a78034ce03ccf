"""Is the next batch worth buying? What it is projected to gain, from the losses of what was bought so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from aliquot.types import Bought

_DRAWS = 2000
#: Two trainings differ by more than their data: the standard deviation of the log-loss of all groups together.
BETWEEN_TRAININGS = 0.04
#: What this process has projected: building an experiment asks again.
_KNOWN: dict[tuple[str, str, int], Prospect | None] = {}


@dataclass(frozen=True)
class Prospect:
    """The projected gain of one more batch.

    The gain is that of exp(-loss), the geometric mean probability of the tokens of a response, averaged over the groups
    of the pool; it is not the accuracy of a benchmark.

    Args:
        num_prompts: of the batch.
        points: the mean of the gain, in percentage points.
        low: the 2.5 % quantile of the gain that would be measured, with the chance of two trainings.
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
        divided among groups like the ones bought last. As many get a response of use as did so far. None if no prompt
        is left, or nothing of use was bought.
        """
        known = str(store.root), read.key, budget
        if known not in _KNOWN:
            _KNOWN[known] = cls._after(read, budget, store)
        return _KNOWN[known]

    @classmethod
    def _after(cls, read: ReadBought, budget: int, store: Store) -> Prospect | None:
        annotate, bought = read.annotate, store.get(read)
        asked = annotate.num_rows(store)
        size = budget - asked
        if size <= 0 or not len(bought):
            return None
        strategy = annotate.select.strategy
        learns = isinstance(strategy, Allocation) and strategy.learns
        batch = (_of_allocation if learns else _like_the_last)(annotate, bought, budget, store)
        curves = LearningCurves.fit(bought, batch.group, batch.offset, batch.exponent)
        drawn, added = curves.draws(_DRAWS), batch.added * (len(bought) / asked)
        now, then = (curves.losses(curves.trained + more, drawn) for more in (0 * added, added))
        gain = 100 * (np.exp(-then) - np.exp(-now)) @ batch.weights
        luck = np.exp(np.random.default_rng(0).normal(0, BETWEEN_TRAININGS, (2, _DRAWS, 1)))
        measured = 100 * (np.exp(-then * luck[1]) - np.exp(-now * luck[0])) @ batch.weights
        low, high = np.quantile(measured, [0.025, 0.975])
        bill = annotate.bill(store)
        cost = bill.cost / bill.num_asked * size if bill else 0.0
        return cls(size, float(gain.mean()), float(low), float(high), cost, batch.toward)

    def __str__(self) -> str:
        cost = f", at a cost of about {self.cost:,.2f}" if self.cost else ""
        return (
            f"the next {self.num_prompts:,} are projected to gain {self.points:.1f} points of likelihood "
            f"({self.low:.1f} to {self.high:.1f}){cost}"
        )


@dataclass(frozen=True)
class _Batch:
    """How a batch is divided among groups, and how these are weighed; offset and exponent are those of curves."""

    group: Int64[np.ndarray, " n"]
    weights: Float64[np.ndarray, " g"]
    added: Float64[np.ndarray, " g"]
    offset: float = 1.0
    exponent: float = 0.5
    toward: str = "pool"


def _of_allocation(annotate: Annotate, bought: Bought, budget: int, store: Store) -> _Batch:
    """Return the batch that an allocation would choose; the order within groups does not matter."""
    read, scores = annotate.select.signals(store)
    strategy, pool = replace(cast(Allocation, read), order="random"), store.get(annotate.select.pool)
    start = store.get(annotate.select).head(annotate.num_rows(store))
    with unheard("aliquot.selection"):  # the round that makes this selection reports it
        order = rank(cast(Strategy, strategy.after(bought)), pool, scores, budget, start)
    scores = as_read(read, pool, scores) if scores else None
    group = strategy.group(pool, scores)
    weights = strategy.weights(group, pool, scores)
    added = np.bincount(group[order.indices[len(start) :]], minlength=len(weights)).astype(np.float64)
    return _Batch(group, weights, added, strategy.offset, strategy.exponent, str(strategy.toward))


def _like_the_last(annotate: Annotate, bought: Bought, budget: int, store: Store) -> _Batch:
    """Return a batch that is divided like the responses bought last, as far as groups have prompts left."""
    pool = store.get(annotate.select.pool)
    group = by_task(pool) if pool.tasks else np.zeros(len(pool), dtype=np.int64)
    sizes = np.bincount(group).astype(np.float64)
    asked = store.get(annotate.select).head(annotate.num_rows(store)).indices
    room = sizes - np.bincount(group[asked], minlength=len(sizes))
    newest = np.bincount(group[bought.rows[bought.round == bought.round.max()]], minlength=len(sizes))
    added, left = np.zeros(len(sizes)), float(budget - len(asked))
    while left > 0.5 and (room - added > 0).any():
        open_groups = room - added > 0
        share = newest * open_groups if (newest * open_groups).any() else open_groups.astype(np.float64)
        more = np.minimum(left * share / share.sum(), room - added)
        added, left = added + more, left - float(more.sum())
    return _Batch(group, sizes / len(pool), added)
