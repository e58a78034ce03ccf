"""Spread out: no prompt of the pool should be far from all selected ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.strategy import Greedy, OnFeatures
from aliquot.selection.vectors import exact_unit_rows, rescaled
from aliquot.types import Pool, Scores, Selection

_TINY = 2.0**-40  # features; smaller ones are rescaled, because products and filters are float32


@dataclass(frozen=True)
class KCenter(OnFeatures, Greedy):
    """Repeatedly pick the prompt farthest from all selected ones (Gonzalez 1985).

    The largest distance of any prompt to its nearest selected one is at most twice the best possible. A pick's gain is
    its distance to the nearest earlier pick. The first pick has no earlier one and gets the distance to its farthest
    prompt, so gains never rise. Picks and gains are those of distances computed in float64.

    Args:
        metric: "euclidean", or "cosine" for 1 - cos (a zero vector is at distance 1 from all others).
        first: "medoid" for the row nearest to the mean, "random", or a row of the pool.
        seed: of first="random".
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    nested: ClassVar[bool] = True
    version: ClassVar[int] = 3

    metric: str = "euclidean"
    first: str | int = "medoid"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric '{self.metric}' is unknown; use euclidean or cosine")
        if isinstance(self.first, str) and self.first not in ("medoid", "random"):
            raise ValueError(f"first pick '{self.first}' is unknown; use medoid, random or a row of the pool")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")

    def check(self, pool: Pool) -> None:
        """Raise ValueError if the first pick is not a row of the pool."""
        if isinstance(self.first, int) and not 0 <= self.first < len(pool):
            raise ValueError(
                f"strategy.first={self.first} is outside 0..{len(pool) - 1}, the rows of pool '{pool.name}'; choose "
                "one of them, or medoid or random"
            )

    def extend(self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace) -> Selection:
        from aliquot.selection.greedy.farthest_first import (
            farthest_first,  # imports numba and torch
        )

        assert scores is not None
        cosine = self.metric == "cosine"
        points, power = np.ascontiguousarray(scores.features, dtype=np.float32), 0
        if cosine:
            points = exact_unit_rows(points)
        else:
            points, power = rescaled(points, _TINY)
        begin = start.indices if len(start) else np.array([self._first_row(pool, points)])
        indices, squared = farthest_first(points, begin, k, workspace)
        gains = squared / 2 if cosine else np.ldexp(np.sqrt(squared), -power)  # on unit vectors, d^2 = 2 (1 - cos)
        gains[: len(start)] = start.gains
        return Selection(indices, gains)

    def _first_row(self, pool: Pool, points: np.ndarray) -> int:
        from aliquot.selection.greedy.farthest_first import most_central

        if self.first == "medoid":
            return most_central(points)
        if self.first == "random":
            return int(np.random.default_rng(self.seed).integers(len(pool)))
        self.check(pool)
        return int(self.first)
