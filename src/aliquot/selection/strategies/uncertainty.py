"""Annotate first the prompts that the model is least sure of (Bhatt et al. 2024, arXiv 2401.06692)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aliquot.selection.cost_aware import CostAware, better_rule
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.purse import Purse
from aliquot.selection.uncertainty import ResponseUncertainty, Score
from aliquot.types import Pool, Scores, Selection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Uncertainty(ResponseUncertainty, CostAware):
    """Order prompts by a score of `aliquot.selection.uncertainty`, the most uncertain first; the gain is the score."""

    requires: ClassVar[frozenset[str]] = frozenset({"tokens"})
    nested: ClassVar[bool] = True

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        assert scores is not None and scores.tokens is not None
        score = self.score(scores)
        of_response, of_prompt = (_correlation(score, n) for n in (scores.tokens.lengths, scores.prompt_lengths))
        log.info("%s correlates %.2f with the length of the response, %.2f of the prompt", self, of_response, of_prompt)
        return largest(score, k)

    def spend(
        self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace, purse: Purse
    ) -> Selection:
        """Return at most k rows that fit, with the largest sum of scores.

        Scores below 0, as of margins, count from that of the least uncertain prompt of the pool.
        """
        assert scores is not None
        score = self.score(scores)
        worth = score - min(0.0, float(score.min()))

        def by(rule: Purse) -> Selection:
            order = largest(rule.worth(worth), len(pool)).indices
            return rule.fill(start, Selection(order, worth[order]), k)

        chosen = better_rule(by, purse, len(start))
        return Selection(chosen.indices, np.concatenate([start.gains, score[chosen.indices[len(start) :]]]))


def largest(score: Score, k: int) -> Selection:
    """Return the k rows with the largest scores, ties going to the lower row; a pick's gain is its score."""
    indices = np.argsort(-score, kind="stable")[:k]
    return Selection(indices.astype(np.int64), score[indices].astype(np.float64))


def _correlation(score: Score, lengths: np.ndarray) -> float:
    """Return Pearson's correlation; 0 if one of the two is constant."""
    if np.ptp(score) == 0 or np.ptp(lengths) == 0:
        return 0.0
    return float(np.corrcoef(score, lengths)[0, 1])
