"""Cover the whole pool: every prompt should be similar to a chosen one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from aliquot.kernels import RBF, Kernel, warn_if_degenerate
from aliquot.types import Pool, Scores, Selection


@dataclass(frozen=True)
class FacilityLocation:
    """Pick greedily what most raises f(S) = sum_i max_{s in S} w_is over the whole pool.

    Within 1 - 1/e of the best set of its size (Nemhauser, Wolsey, Fisher 1978). Bhatt et al. 2024 (arXiv 2401.06692)
    use it to choose prompts for finetuning and sweep the kernel width; their formula and grid are unknown to us. A
    pick's gain is its marginal gain in f, so the gains sum to f(S).

    Args:
        kernel: the similarity w of `aliquot.kernels`.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    nested: ClassVar[bool] = True

    kernel: Kernel = field(default_factory=RBF)

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        from aliquot.greedy.facility_location import facility_location  # numba and torch: not for composing a config

        assert scores is not None
        embedding = self.kernel.embed(scores.features)
        warn_if_degenerate(embedding, f"try another strategy.kernel.gamma or strategy/kernel than {self.kernel}")
        return facility_location(embedding, k)
