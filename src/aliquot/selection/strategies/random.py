"""The reference that every other strategy has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class Random:
    """Pick prompts uniformly without replacement; every gain is 0.

    Args:
        seed: of the permutation; the same seed orders a pool of n prompts the same way.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    nested: ClassVar[bool] = True

    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        order = np.random.default_rng(self.seed).permutation(len(pool))
        return Selection(order[:k].astype(np.int64), np.zeros(k))
