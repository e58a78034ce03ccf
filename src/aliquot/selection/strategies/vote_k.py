"""Prompts for which many prompts vote that no selected prompt represents yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.kernels import Cosine
from aliquot.selection.strategy import Greedy, OnFeatures
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class VoteK(OnFeatures, Greedy):
    """Greedily pick the prompts with the most votes, each vote discounted by what its voter has already.

    Fast vote-k (Su et al. 2022, arXiv 2209.01975): every prompt votes for its `num_neighbors` most similar prompts by
    cosine. A prompt's score is the sum of 10^-c over its voters that are not selected, with c the number of selected
    prompts that the voter votes for. The full vote-k has a second step, which spreads the picks over the confidence of
    a model that has the first picks as examples; it is not here. A pick's gain is its score. *Ours*: ties go to the
    lower row, and prompts with a cosine of 0 or less get no vote.

    Args:
        num_neighbors: votes of each prompt; 150 in the paper.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    nested: ClassVar[bool] = True

    features: str | None = field(default="weighted", kw_only=True)
    num_neighbors: int = 150

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_neighbors < 1:
            raise ValueError(f"with {self.num_neighbors} neighbors nobody has a vote; use 1 or more, such as 150")

    def extend(self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace) -> Selection:
        from aliquot.selection.greedy.neighbors import nearest  # imports numba and torch
        from aliquot.selection.greedy.voters import greedy_by_votes, voters_of

        assert scores is not None
        embedding = Cosine().embed(scores.features)
        neighbors = nearest(embedding, 1 + self.num_neighbors, False, workspace)  # the prompt itself is the first
        return greedy_by_votes(voters_of(neighbors), start, k)
