"""How long the signals of the first model stay valid: the pass of the first round, compared with that of the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from aliquot.experiment.rounds import Round
from aliquot.selection.strategies.uncertainty import largest
from aliquot.selection.uncertainty import ResponseUncertainty, Score
from aliquot.store.store import Store

#: The uncertainties with a strategy of their own.
SIGNALS = {
    "mean_entropy": ResponseUncertainty("entropy"),
    "max_entropy": ResponseUncertainty("entropy", "max"),
    "least_confidence": ResponseUncertainty("confidence"),
    "mean_margin": ResponseUncertainty("margin"),
    "min_margin": ResponseUncertainty("margin", "max"),
}


@dataclass(frozen=True)
class Stability:
    """How far one signal stayed the same.

    Args:
        correlation: Spearman's rank correlation over the pool; None if the signal is the same for all prompts.
        overlap: the share of the prompts that both models would choose by it, of the budget.
    """

    correlation: float | None
    overlap: float


def stability_of(rounds: Sequence[Round], store: Store) -> Mapping[str, Stability]:
    """Return signal -> stability from the first round to the last; empty unless both read signals of their own."""
    if len(rounds) < 2:
        return {}
    first, last = rounds[0].select.score, rounds[-1].select.score
    if first is None or last is None or first.key == last.key:
        return {}
    if store.record(first) is None or store.record(last) is None:  # the run stopped before
        return {}
    before, after = store.get(first), store.get(last)
    if before.tokens is None or after.tokens is None:
        return {}
    budget = rounds[-1].annotate.num_rows(store)
    return {name: _compare(signal.score(before), signal.score(after), budget) for name, signal in SIGNALS.items()}


def _compare(before: Score, after: Score, budget: int) -> Stability:
    from scipy.stats import spearmanr  # importing it takes a second

    varies = np.ptp(before) > 0 and np.ptp(after) > 0
    correlation = float(cast(Any, spearmanr(before, after)).statistic) if varies else None
    both = np.intersect1d(largest(before, budget).indices, largest(after, budget).indices)
    return Stability(correlation, len(both) / budget)
