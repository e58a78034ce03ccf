"""Cover the prompts that the model will be asked, or what of the pool is like them (Kothawade et al. 2022)."""

from __future__ import annotations

import heapq
import math
import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Int32, Int64

from aliquot.runtime.progress import Progress
from aliquot.selection.clustering import number_rows
from aliquot.selection.cost_aware import CostAwareGreedy
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.kernels import Cosine, Kernel, is_degenerate
from aliquot.selection.purse import Purse
from aliquot.selection.strategy import OnFeatures, leave_out
from aliquot.types import Pool, Scores, Selection

_ONE = 1 << 30  # similarity 1 in quanta
_PAIRS = 1 << 16  # similarities computed together
_LARGEST_ETA = 1e6


@dataclass(frozen=True)
class TargetedFacilityLocation(OnFeatures, CostAwareGreedy):
    """Greedily maximize the facility location mutual information of the picks and the target prompts.

    PRISM (Kothawade et al. 2022, arXiv 2103.00128). With similarities w of a pool of prompts i, picks S and target T:

        flqmi    f(S) = sum_{t in T} max_{s in S} w_ts + eta sum_{s in S} max_{t in T} w_st
        flvmi    f(S) = sum_{i in pool} min(max_{s in S} w_is, eta max_{t in T} w_it)

    Both are monotone and submodular, so greedy is within 1 - 1/e of the best set of its size. FLQMI covers the target;
    a larger eta prefers picks that are similar to any target prompt, and once the target is covered, that alone counts.
    FLVMI covers the part of the pool that is like the target; a larger eta counts more of the pool. When no prompt adds
    to f any more, those most similar to any target prompt follow (ours). A pick's gain is its marginal gain in f.
    Similarities are counted in quanta of 2^-30, so equal prompts tie; ties go to the lower row.

    Args:
        function: "flqmi" or "flvmi".
        eta: of the equations, 0 or more.
        kernel: the similarity w of `aliquot.selection.kernels`, of pool and target together.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features", "target"})
    nested: ClassVar[bool] = True

    features: str | None = field(default="weighted", kw_only=True)
    function: str = "flqmi"
    eta: float = 1.0
    kernel: Kernel = field(default_factory=Cosine)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.function not in ("flqmi", "flvmi"):
            raise ValueError(f"function '{self.function}' is unknown; use flqmi or flvmi")
        if not 0 <= self.eta <= _LARGEST_ETA or (self.function == "flvmi" and self.eta == 0):
            raise ValueError(
                f"eta {self.eta} is not a weight of the target: use a number up to {_LARGEST_ETA:g}, such as 1 (with "
                "flvmi, 0 counts nothing)"
            )

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

        assert scores is not None and scores.target is not None
        target = scores.target.scores.features
        similar = similarities(self.kernel, scores.features, target)
        _warn_if_degenerate(float(similar.mean()) / _ONE, self.kernel)
        if self.function == "flqmi":
            more = () if purse is None else (purse,)
            checkpoint = Checkpoint(workspace.directory, similar, self.eta, start.indices, *more)
            covered = greedy_flqmi(similar, self.eta, start, k, checkpoint, purse)
            return _then_most_similar(covered, len(start), similar.max(axis=1), k, purse)
        embedding = self.kernel.embed(np.concatenate([scores.features, target])).take(np.arange(len(pool)))
        cap = np.minimum(np.floor(self.eta * similar.max(axis=1).astype(np.float64)), _ONE).astype(np.int32)
        covered = facility_location(embedding, k, start=start, cap=cap, workspace=workspace, purse=purse)
        return _then_most_similar(covered, len(start), similar.max(axis=1), k, purse)


def _then_most_similar(
    covered: Selection, num_given: int, similarity: Int32[np.ndarray, " n"], k: int, purse: Purse | None
) -> Selection:
    """Replace the picks that add nothing to f by the most similar prompts that are left, and that fit."""
    adding = np.arange(len(covered)) < num_given
    head = covered.head(int(np.count_nonzero(adding | (covered.gains > 0))))
    order = np.argsort(-similarity.astype(np.int64), kind="stable")
    rest = Selection(order, np.zeros(len(order)))
    return purse.fill(head, rest, k) if purse else leave_out(head, rest, k)


def _warn_if_degenerate(mean: float, kernel: Kernel) -> None:
    if is_degenerate(mean):
        warnings.warn(
            f"degenerate kernel: the mean similarity of a prompt of the pool with one of the target is {mean:.2g}, "
            "outside 1e-3..0.99, so the choice says little; try another strategy/kernel or strategy.kernel.gamma than "
            f"{kernel}",
            stacklevel=3,
        )


def similarities(
    kernel: Kernel, pool: Float32[np.ndarray, "n d"], target: Float32[np.ndarray, "q d"]
) -> Int32[np.ndarray, "n q"]:
    """Return the similarities of pool rows with target rows, in quanta; equal rows have equal ones."""
    embedding = kernel.embed(np.concatenate([pool, target]))
    number = number_rows(pool)
    distinct = np.unique(number, return_index=True)[1]
    of_distinct = np.empty((len(distinct), len(target)), dtype=np.int32)
    size = max(1, _PAIRS // len(target))
    for first in range(0, len(distinct), size):
        rows = distinct[first : first + size]
        pairs = np.repeat(rows, len(target)), np.tile(np.arange(len(target)) + len(pool), len(rows))
        of_distinct[first : first + size] = (embedding.similarity(*pairs) * _ONE).reshape(len(rows), -1)
    return of_distinct[number]


def greedy_flqmi(
    similar: Int32[np.ndarray, "n q"],
    eta: float,
    start: Selection,
    k: int,
    checkpoint: Checkpoint,
    purse: Purse | None = None,
) -> Selection:
    """Maximize FLQMI by lazy greedy (Minoux 1978): gains only fall, so an old gain is an upper bound.

    Args:
        similar: of pool rows with target rows, in quanta.
        eta: of the equation.
        start: rows selected earlier, which stay and come first with the gains they have.
        k: rows to select, including those of `start`.
        checkpoint: where the ranking saves its picks.
        purse: what rows cost and may cost, or None. With one, k is the most rows.
    """
    own = np.rint(eta * similar.max(axis=1).astype(np.float64)).astype(np.int64)
    saved = checkpoint.load()
    chosen: list[int] = saved["indices"][:k].tolist() if saved else start.indices.tolist()
    gains: list[float] = saved["gains"][:k].tolist() if saved else start.gains.tolist()
    cover = _cover(similar, np.array(chosen, dtype=np.int64))
    free = np.setdiff1d(np.arange(len(similar)), chosen)
    bounds = np.maximum(similar[free] - cover, 0).sum(axis=1, dtype=np.int64) + own[free]
    costs = None if purse is None else purse.costs.tolist()
    left = math.inf if purse is None else purse.left(np.array(chosen, dtype=np.int64))
    divisor = costs if purse is not None and purse.per_cost else None

    def entry(gain: int, row: int) -> tuple[float, int, int, int]:
        return -float(gain) if divisor is None else -gain / divisor[row], row, len(chosen), gain

    heap = [entry(bound, row) for bound, row in zip(bounds.tolist(), free.tolist(), strict=True)]
    heapq.heapify(heap)
    with Progress("targeted facility location", k, "pick", done=len(chosen)) as progress:
        while len(chosen) < k and heap:
            _, row, picked, gain = heap[0]
            if costs is not None and costs[row] > left:
                heapq.heappop(heap)
                continue
            if picked < len(chosen):
                gain = int(np.maximum(similar[row] - cover, 0).sum(dtype=np.int64)) + int(own[row])
                heapq.heapreplace(heap, entry(gain, row))
                continue
            heapq.heappop(heap)
            np.maximum(cover, similar[row], out=cover)
            chosen.append(row)
            gains.append(gain / _ONE)
            left -= 0 if costs is None else costs[row]
            progress.update()
            if checkpoint.due():
                checkpoint.save({"indices": np.array(chosen), "gains": np.array(gains)})
    return Selection(np.array(chosen, dtype=np.int64), np.array(gains))


def _cover(similar: Int32[np.ndarray, "n q"], chosen: Int64[np.ndarray, " m"]) -> Int32[np.ndarray, " q"]:
    return similar[chosen].max(axis=0, initial=0).astype(np.int32)
