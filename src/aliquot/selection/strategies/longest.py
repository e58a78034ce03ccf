"""A control: if uncertainty beats random only because it prefers long prompts, this strategy beats random too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aliquot.selection.strategies.uncertainty import largest
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class Longest:
    """Pick the longest prompts first, counted in characters of the text, so that no scoring pass is needed."""

    requires: ClassVar[frozenset[str]] = frozenset()
    nested: ClassVar[bool] = True

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        return largest(np.array([len(prompt) for prompt in pool.prompts], dtype=np.float64), k)
