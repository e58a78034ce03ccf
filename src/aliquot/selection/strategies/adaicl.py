"""Cover the prompts that the model is least sure of, on the graph of nearest neighbors."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from aliquot.selection.cost_aware import CostAwareGreedy
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.kernels import Cosine
from aliquot.selection.purse import Purse
from aliquot.selection.strategies.uncertainty import largest
from aliquot.selection.strategy import OnFeatures, leave_out
from aliquot.selection.uncertainty import ResponseUncertainty
from aliquot.types import Pool, Scores, Selection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdaICL(OnFeatures, CostAwareGreedy):
    """Greedily pick the uncertain prompt whose surroundings hold the most uncertain prompts not covered yet.

    AdaICL (Mavromatis et al. 2023, arXiv 2310.20046), with one estimate of uncertainty. The candidates are the
    round(share n) most uncertain prompts. Every prompt votes for its `num_neighbors` most similar prompts by cosine. A
    candidate covers itself, the candidates that vote for it and, with two hops, the candidates that vote for these.
    The defaults are those of the authors' code (5 neighbors and two hops; their AdaICL+ has 15 and one).

    When all candidates are covered, coverage begins anew for those that are not selected. There the paper asks the
    model again, with the annotated prompts as examples; AdaICL+ instead counts a prompt covered r times 10^-r. Once all
    candidates are selected, the other prompts follow by uncertainty. A pick's gain is the number of candidates that it
    covers first, and 0 for prompts that follow by uncertainty. *Ours*: ties go to the lower row, a candidate covers
    itself, and prompts with a cosine of 0 or less get no vote.

    Args:
        uncertainty: the score by which candidates are selected.
        share: of the pool, in (0, 1].
        num_neighbors: votes of each prompt.
        hops: 1 or 2.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features", "tokens"})
    nested: ClassVar[bool] = True

    features: str | None = field(default="weighted", kw_only=True)
    uncertainty: ResponseUncertainty = field(default_factory=ResponseUncertainty)
    share: float = 0.5
    num_neighbors: int = 5
    hops: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"share {self.share} is not a share of the pool; use a fraction in (0, 1], such as 0.5")
        if self.num_neighbors < 1:
            raise ValueError(f"with {self.num_neighbors} neighbors nobody has a vote; use 1 or more, such as 5")
        if self.hops not in (1, 2):
            raise ValueError(f"{self.hops} hops are not possible; use 1 or 2")

    def extend(
        self,
        pool: Pool,
        scores: Scores | None,
        start: Selection,
        k: int,
        workspace: Workspace,
        purse: Purse | None = None,
    ) -> Selection:
        from aliquot.selection.greedy.egonets import egonets  # imports numba and torch
        from aliquot.selection.greedy.neighbors import nearest
        from aliquot.selection.greedy.set_cover import greedy_cover
        from aliquot.selection.greedy.voters import voters_of

        assert scores is not None
        n = len(pool)
        order = largest(self.uncertainty.score(scores), n).indices
        candidates = np.zeros(n, dtype=np.bool_)
        candidates[order[: max(1, round(self.share * n))]] = True
        embedding = Cosine().embed(scores.features)
        voters = voters_of(
            nearest(embedding, 1 + self.num_neighbors, False, workspace)
        )  # the first is the prompt itself
        depth = min(k, len(start) + int(candidates.sum() - candidates[start.indices].sum()))
        covered = greedy_cover(egonets(voters, candidates, self.hops), candidates, start, depth, purse)
        log.info("%.1f %% of the candidates are covered, in turn %d", 100 * covered.share, covered.turns)
        rest = Selection(order, np.zeros(n))
        return purse.fill(covered.selection, rest, k) if purse else leave_out(covered.selection, rest, k)
