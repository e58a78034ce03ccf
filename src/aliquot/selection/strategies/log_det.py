"""Span a large volume: prompts whose features point in many directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aliquot.scoring.features import gaussian_projection, project, squared_norms
from aliquot.selection.cost_aware import CostAwareGreedy
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.purse import Purse
from aliquot.selection.strategies.information_gain import check_sigma, noise
from aliquot.selection.strategy import OnView
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class LogDet(OnView, CostAwareGreedy):
    """Greedily pick what most increases f(S) = log det(sigma^2 I + sum_{i in S} x_i x_i^T) over the features x.

    The most probable set of a determinantal point process with kernel x_i . x_j / sigma^2 + 1[i = j], found greedily
    (Chen, Zhang, Zhou 2018, arXiv 1709.05135); information gain with one token per prompt. Within 1 - 1/e of the best
    increase of f (Nemhauser, Wolsey, Fisher 1978). A pick's gain is its marginal gain in nats; zero vectors gain none.

    Args:
        sigma: the smaller, the less a second prompt in the same direction is worth. In units of u.
        unit: "rms" for u = the root mean square length of the vectors, "absolute" for u = 1.
        normalize: True uses directions only: every vector is scaled to length 1.
        projection: wider features are first projected to this many dimensions, because the cost of a gain grows with
            their square; None leaves them as they are.
        projection_seed: of that projection.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    nested: ClassVar[bool] = True

    sigma: float = 1.0
    unit: str = "rms"
    normalize: bool = False
    projection: int | None = 256
    projection_seed: int = 0

    def __post_init__(self) -> None:
        check_sigma(self.sigma, self.unit)
        if self.projection is not None and self.projection < 1:
            raise ValueError(f"projection {self.projection} leaves no dimension; use 1 or more, or null for none")
        if self.projection_seed < 0:
            raise ValueError(f"projection_seed {self.projection_seed} is negative; use 0 or more")

    def extend(
        self,
        pool: Pool,
        scores: Scores | None,
        start: Selection,
        k: int,
        workspace: Workspace,
        purse: Purse | None = None,
    ) -> Selection:
        from aliquot.selection.greedy.information import Blocks, information_gain  # imports torch

        assert scores is not None
        x = np.asarray(scores.features, dtype=np.float32)
        if self.projection is not None and self.projection < x.shape[1]:
            x = project(x, gaussian_projection(x.shape[1], self.projection, self.projection_seed))
        if self.normalize:  # every nonzero length is then 1
            norms = np.sqrt(squared_norms(x))
            scale = np.where(norms > 0, 1 / self.sigma / np.where(norms > 0, norms, 1), 0.0)
        else:
            scale = np.full(len(x), 1 / noise(self.sigma, self.unit, x))
        rows = np.arange(len(x))
        return information_gain(Blocks(x, rows, np.ones_like(rows), scale), start, k, workspace, "log det", purse)
