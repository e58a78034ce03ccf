"""Upper references: orders that read the responses of the whole pool, which a strategy never may.

They say what choosing could gain if every response were known before it is paid for. An upper reference is no
`Strategy`: it has no `select`, and `rank` cannot call it. Its one input is `ResponseSignals`, and every result of it
says that it reads responses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from aliquot.selection.strategy import check_asked, check_finite, leave_out
from aliquot.types import Pool, ResponseSignals, Selection

#: What stands behind the name of an upper reference wherever it is shown.
READS_RESPONSES = "(reads responses)"


@dataclass(frozen=True, kw_only=True)
class UpperReference(ABC):
    """Orders a pool by what the base model makes of its responses.

    Args:
        uses_response: always true; it has no default, so that every config and every record of a result says it.
    """

    #: No signal of the scoring pass.
    requires: ClassVar[frozenset[str]] = frozenset()
    #: Rows are sorted once, so one ranking serves every budget.
    nested: ClassVar[bool] = True

    uses_response: bool

    def __post_init__(self) -> None:
        if not self.uses_response:
            raise ValueError(
                f"strategy.uses_response=false: {type(self).__name__} reads the response of every prompt in the pool, "
                "and its results have to say so; leave it true, or choose a strategy that reads prompts only"
            )

    @abstractmethod
    def worth(self, signals: ResponseSignals) -> Float64[np.ndarray, " n"]:
        """Return how worthwhile it is to train on each row; finite."""


def rank_with_responses(
    reference: UpperReference, pool: Pool, signals: ResponseSignals, k: int, start: Selection | None = None
) -> Selection:
    """Order the pool to depth k by worth, the largest first; the lower row of two equal ones goes first.

    Args:
        reference: says what a row is worth.
        pool: the prompts.
        signals: of the pool's responses.
        k: rows to select, including those of `start`.
        start: rows selected earlier, which stay and come first.

    Raises:
        ValueError: k is outside 1..n, `start` holds a row twice or one not in the pool, or the signals belong to
            another pool or hold NaN or infinity.
    """
    start = start or Selection.none()
    check_asked(pool, k, start)
    if len(signals) != len(pool):
        raise ValueError(f"signals of {len(signals)} responses do not belong to pool '{pool.name}' of {len(pool)}")
    check_finite("losses of responses", np.isfinite(signals.loss) & np.isfinite(signals.loss_alone))
    worth = reference.worth(signals)
    assert worth.shape == (len(pool),) and np.isfinite(worth).all(), f"{reference!r} leaves a row without a worth"
    if len(start) >= k:
        return start.head(k)
    order = np.argsort(-worth, kind="stable").astype(np.int64)
    return leave_out(start, Selection(order, worth[order]), k)
