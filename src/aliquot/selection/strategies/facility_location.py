"""Cover the whole pool: every prompt should be similar to a selected one."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import ClassVar

from aliquot.selection.cost_aware import CostAwareGreedy
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.greedy.modes import Distributed, Exact, Mode
from aliquot.selection.kernels import RBF, Kernel, embed_for_coverage
from aliquot.selection.purse import Purse
from aliquot.selection.strategy import OnFeatures
from aliquot.types import Pool, Scores, Selection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FacilityLocation(OnFeatures, CostAwareGreedy):
    """Greedily pick the prompts that most increase f(S) = sum_i max_{s in S} w_is over the whole pool.

    Within 1 - 1/e of the best set of its size (Nemhauser, Wolsey, Fisher 1978). Bhatt et al. 2024 (arXiv 2401.06692)
    use it to select prompts for finetuning and sweep the kernel width; their formula and grid are unknown to us. A
    pick's gain is its marginal gain in f, so the gains sum to f(S); with mode Sparse, in the f of its graph.

    Args:
        kernel: the similarity w of `aliquot.selection.kernels`.
        mode: how f is maximized, from `aliquot.selection.greedy.modes`. All but Exact log how near to exact they are.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    version: ClassVar[int] = 2

    kernel: Kernel = field(default_factory=RBF)
    mode: Mode = field(default_factory=Exact)

    @property
    def nested(self) -> bool:
        """Whether the mode's picks do not depend on k."""
        return self.mode.nested

    @property
    def cost_aware(self) -> bool:
        """Whether the mode can spend from a purse."""
        return self.mode.cost_aware

    def extend(
        self,
        pool: Pool,
        scores: Scores | None,
        start: Selection,
        k: int,
        workspace: Workspace,
        purse: Purse | None = None,
    ) -> Selection:
        from aliquot.selection.greedy.approximation import describe  # imports numba and torch

        assert scores is not None
        embedding = embed_for_coverage(self.kernel, scores.features)
        if objection := self.mode.objection(len(embedding), k):
            log.warning(objection)
        selection = self.mode.maximize(embedding, start, k, workspace, purse)
        if not isinstance(self.mode, Exact):
            log.info(describe(self.mode, embedding, selection, workspace.device))
        return selection

    @property
    def num_parts(self) -> int:
        """The number of parts into which the mode divides the pool for a first round; 1 if it does not."""
        return self.mode.parts if isinstance(self.mode, Distributed) else 1

    def select_part(self, pool: Pool, scores: Scores | None, part: int, k: int, workspace: Workspace) -> Selection:
        """Return the first round's picks from one part: k rows of the pool, or the whole part if it has fewer."""
        from aliquot.selection.greedy.distributed import greedy_in_part

        assert scores is not None and isinstance(self.mode, Distributed)
        embedding = self.kernel.embed(scores.features)
        return greedy_in_part(embedding, self.mode.rows_of(part, len(embedding)), k, workspace)
