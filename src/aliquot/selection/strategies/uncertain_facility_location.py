"""Representative prompts among those that the model is least sure of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from aliquot.selection.cost_aware import CostAwareGreedy
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.kernels import RBF, Kernel, embed_for_coverage
from aliquot.selection.purse import Purse
from aliquot.selection.strategies.uncertainty import largest
from aliquot.selection.strategy import OnFeatures, leave_out
from aliquot.selection.uncertainty import ResponseUncertainty
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class UncertainFacilityLocation(OnFeatures, CostAwareGreedy):
    """Greedily pick by facility location, but only among the most uncertain prompts.

    The candidates are the round(share n) most uncertain prompts, for any budget, so a ranking is nested. Once all of
    them are selected, the other prompts follow by uncertainty. Uncertainty alone picks many prompts that are alike;
    facility location alone picks many that are easy for the model. A pick's gain is its marginal gain in f, and 0 for
    prompts that follow by uncertainty.

    Args:
        kernel: the similarity w of `aliquot.selection.kernels`.
        uncertainty: the score by which candidates are selected.
        share: of the pool, in (0, 1].
        cover: the rows that f(S) = sum_i max_{s in S} w_is sums over: the whole "pool", or the "candidates".
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features", "tokens"})
    nested: ClassVar[bool] = True
    version: ClassVar[int] = 2

    kernel: Kernel = field(default_factory=RBF)
    uncertainty: ResponseUncertainty = field(default_factory=ResponseUncertainty)
    share: float = 0.5
    cover: str = "pool"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"share {self.share} is not a share of the pool; use a fraction in (0, 1], such as 0.5")
        if self.cover not in ("pool", "candidates"):
            raise ValueError(f"cover '{self.cover}' is unknown; use pool or candidates")

    def extend(
        self,
        pool: Pool,
        scores: Scores | None,
        start: Selection,
        k: int,
        workspace: Workspace,
        purse: Purse | None = None,
    ) -> Selection:
        from aliquot.selection.greedy.facility_location import facility_location  # imports numba

        assert scores is not None
        n = len(pool)
        order = largest(self.uncertainty.score(scores), n).indices
        candidates = np.sort(order[: max(1, round(self.share * n))])
        embedding = embed_for_coverage(self.kernel, scores.features)
        weights = None
        if self.cover == "candidates":
            weights = np.zeros(n, dtype=np.float32)
            weights[candidates] = 1
        depth = min(k, len(start) + len(np.setdiff1d(candidates, start.indices)))
        chosen = facility_location(
            embedding, depth, start=start, weights=weights, candidates=candidates, workspace=workspace, purse=purse
        )
        rest = Selection(order, np.zeros(n))
        return purse.fill(chosen, rest, k) if purse else leave_out(chosen, rest, k)
