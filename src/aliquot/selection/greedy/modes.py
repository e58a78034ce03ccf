"""The ways to maximize facility location: exactly, or approximately in less time and memory.

Each mode is a value whose fields are its hyperparameters. The algorithms are in files of their own, imported when
needed, so that composing a config does not import numba and torch.
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.kernels import Embedding
from aliquot.selection.purse import Purse
from aliquot.types import Selection


class Mode(ABC):
    """A way to maximize facility location over the rows of an embedding.

    Attributes:
        nested: True if a smaller k gives a prefix of the result for a larger one.
        cost_aware: True if it can spend from a purse.
    """

    nested: ClassVar[bool]
    cost_aware: ClassVar[bool] = False

    @abstractmethod
    def maximize(
        self, embedding: Embedding, start: Selection, k: int, workspace: Workspace, purse: Purse | None = None
    ) -> Selection:
        """Return k distinct rows that begin with `start`, in the order picked, with the gain of each at its turn.

        With a purse, which only a `cost_aware` mode takes, k is the most rows.
        """

    def objection(self, num_prompts: int, k: int) -> str | None:
        """Return why this mode does not suit such a selection, and the remedy; None if it does."""
        return None


@dataclass(frozen=True)
class Exact(Mode):
    """Greedy on all pairs: every pick is the best at its turn. About n^2 d operations, memory O(n d)."""

    nested: ClassVar[bool] = True
    cost_aware: ClassVar[bool] = True

    def maximize(
        self, embedding: Embedding, start: Selection, k: int, workspace: Workspace, purse: Purse | None = None
    ) -> Selection:
        from aliquot.selection.greedy.facility_location import facility_location

        return facility_location(embedding, k, start=start, workspace=workspace, purse=purse)


@dataclass(frozen=True)
class Sparse(Mode):
    """Greedy on the graph in which each prompt keeps its m most similar prompts, itself included.

    Every other similarity counts as 0, so the f that it maximizes is a lower bound of f. If k is small, the most
    similar selected prompt is often not one of the m: max(32, 6 n / k) or more are needed, and a smaller m gives a
    warning. Memory is O(n m). Most of the time goes into finding neighbors: n^2 d operations, a small share of it if
    approximate.

    Args:
        m: number of neighbors kept per prompt.
        neighbors: "exact" compares all pairs; "approximate" those of nearby clusters, by faiss, for n near a million.
    """

    nested: ClassVar[bool] = True
    cost_aware: ClassVar[bool] = True

    m: int = 64
    neighbors: str = "exact"

    def __post_init__(self) -> None:
        if self.m < 1:
            raise ValueError(f"m={self.m} keeps no neighbor of a prompt, not even itself; use 32 or more")
        if self.neighbors not in ("exact", "approximate"):
            raise ValueError(f"neighbors '{self.neighbors}' is unknown; use exact or approximate")
        if self.neighbors == "approximate" and importlib.util.find_spec("faiss") is None:
            raise ValueError(
                "neighbors 'approximate' needs faiss, which is not installed: pip install 'aliquot[ann]', "
                "or use neighbors exact"
            )

    def maximize(
        self, embedding: Embedding, start: Selection, k: int, workspace: Workspace, purse: Purse | None = None
    ) -> Selection:
        from aliquot.selection.greedy.graph import greedy_on_graph
        from aliquot.selection.greedy.neighbors import nearest

        neighbors = nearest(embedding, self.m, self.neighbors == "approximate", workspace)
        return greedy_on_graph(neighbors, start, k, purse)

    def objection(self, num_prompts: int, k: int) -> str | None:
        enough = min(num_prompts, max(32, math.ceil(6 * num_prompts / k)))
        if self.m >= enough:
            return None
        return (
            f"m={self.m} neighbors are too few to choose {k} of {num_prompts} prompts well: most would have no chosen "
            f"one among theirs; use strategy.mode.m={enough} or more, or strategy/mode=exact"
        )


@dataclass(frozen=True)
class Stochastic(Mode):
    """Picks at each turn the best of a random sample of n/k log(1/eps) prompts (Mirzasoleiman et al. 2015).

    On average within 1 - 1/e - eps of the best set. It takes n^2 log(1/eps) similarities for any k, which is more than
    Exact takes if its lists fit in memory. The sample depends on k, so a smaller budget is ranked separately.
    It runs on the CPU, regardless of the device.

    Args:
        eps: allowed loss of the guarantee, above 0 and below 1; smaller values sample more.
        seed: of the samples.
    """

    nested: ClassVar[bool] = False

    eps: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.eps < 1:
            raise ValueError(f"eps={self.eps} is outside (0, 1); use a small share, such as 0.01")
        _check_seed(self.seed)

    def maximize(
        self, embedding: Embedding, start: Selection, k: int, workspace: Workspace, purse: Purse | None = None
    ) -> Selection:
        from aliquot.selection.greedy.stochastic import stochastic_greedy

        assert purse is None
        size = math.ceil(len(embedding) / k * math.log(1 / self.eps))
        return stochastic_greedy(embedding, start, k, size, self.seed, workspace)


@dataclass(frozen=True)
class Distributed(Mode):
    """Two rounds of exact greedy (GreeDi): in each of several random parts of the pool, then among their picks.

    Mirzasoleiman et al. 2013; random parts: Barbosa et al. 2015. The first round sees only one part of the pool at a
    time, and nothing of the start, so parts can run in parallel, as jobs. It goes to depth k in each part, so a smaller
    budget is ranked separately. The published guarantee, (1 - 1/e) / 2 on average, is for the better of the second
    round and the best part; the second round is returned.

    Args:
        parts: number of parts, whose sizes differ by at most one.
        seed: of the assignment to parts.
    """

    nested: ClassVar[bool] = False

    parts: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.parts < 1:
            raise ValueError(f"parts={self.parts} is not a number of parts; use 2 or more")
        _check_seed(self.seed)

    def rows_of(self, part: int, num_prompts: int) -> Int64[np.ndarray, " m"]:
        """Return the rows of one part, in ascending order; empty if there are more parts than prompts."""
        order = np.random.default_rng(self.seed).permutation(num_prompts)
        return np.sort(np.array_split(order, self.parts)[part])

    def objection(self, num_prompts: int, k: int) -> str | None:
        if self.parts == 1 or k * self.parts < num_prompts:
            return None
        return (
            f"each of {self.parts} parts has {num_prompts // self.parts} prompts or one more, no more than the {k} to "
            "choose: the first round leaves none out, and the second is exact greedy on all; use strategy/mode=exact"
        )

    def maximize(
        self, embedding: Embedding, start: Selection, k: int, workspace: Workspace, purse: Purse | None = None
    ) -> Selection:
        from aliquot.selection.greedy.distributed import two_rounds

        assert purse is None
        rows = [self.rows_of(part, len(embedding)) for part in range(self.parts)]
        return two_rounds(embedding, rows, start, k, workspace)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")
