"""What the numbers of a benchmark are called: a likelihood must not be read as an accuracy."""

from __future__ import annotations

from aliquot.evaluation.held_out.spec import LIKELIHOOD, TOKEN_F1
from aliquot.evaluation.judge.spec import WIN_RATE
from aliquot.evaluation.validation_loss import LIKELIHOOD as VALIDATION_LIKELIHOOD
from aliquot.evaluation.weightings import POOL, TARGET, TASKS

_NAMES = {VALIDATION_LIKELIHOOD: "likelihood", LIKELIHOOD: "likelihood", TOKEN_F1: "F1", WIN_RATE: "win rate"}
#: What a weighting of held-out rows is called.
WEIGHED = {POOL: "by the pool's task shares", TASKS: "tasks alike", TARGET: "by the target's task shares"}


def measured(*benchmarks: str) -> str:
    """Return what the benchmarks of one study measure; "score" where they measure different things."""
    names = {_NAMES.get(name, "accuracy") for name in benchmarks}
    return names.pop() if len(names) == 1 else "score" if names else "accuracy"
