"""Representative of the pool, with more weight on the prompts that the model is unsure of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float32

from aliquot.selection.cost_aware import CostAwareGreedy
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.kernels import RBF, Kernel, embed_for_coverage
from aliquot.selection.purse import Purse
from aliquot.selection.strategy import OnFeatures
from aliquot.selection.uncertainty import ResponseUncertainty, Score
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class WeightedFacilityLocation(OnFeatures, CostAwareGreedy):
    """Greedily pick what most increases f(S) = sum_i a_i max_{s in S} w_is, with more weight on uncertain prompts i.

    The weight a_i is a power of the share of the pool whose uncertainty is at most that of i, in (0, 1]. It depends
    only on the order of the uncertainties, so the scale of a measure does not matter. Within 1 - 1/e of the best set of
    its size, because f is monotone and submodular for any weights. A pick's gain is its marginal gain in f.

    Args:
        kernel: the similarity w of `aliquot.selection.kernels`.
        uncertainty: the score that sets the weights.
        power: of the weights: 0 is plain facility location, larger values favor the most uncertain prompts only.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features", "tokens"})
    nested: ClassVar[bool] = True
    version: ClassVar[int] = 2

    kernel: Kernel = field(default_factory=RBF)
    uncertainty: ResponseUncertainty = field(default_factory=ResponseUncertainty)
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.power < np.inf:
            raise ValueError(f"power {self.power} is negative or not finite; use 0 or more, such as 1")

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
        embedding = embed_for_coverage(self.kernel, scores.features)
        weights = percentile(self.uncertainty.score(scores)) ** np.float32(self.power)
        return facility_location(embedding, k, start=start, weights=weights, workspace=workspace, purse=purse)


def percentile(score: Score) -> Float32[np.ndarray, " n"]:
    """Return, for each score, the share of scores that are at most as large, in (0, 1]."""
    return (np.searchsorted(np.sort(score), score, side="right") / len(score)).astype(np.float32)
