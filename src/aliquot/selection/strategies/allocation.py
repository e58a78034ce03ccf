"""Divide the budget among groups of prompts so that the expected loss, where the model will be used, is smallest."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.runtime.progress import Progress, silenced
from aliquot.selection.clustering import nearest_centers
from aliquot.selection.cost_aware import CostAware
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.groups import by_cluster, by_task, lottery, mean_confidence, mean_of_groups
from aliquot.selection.learning_curves import LearningCurves
from aliquot.selection.purse import Purse
from aliquot.selection.strategies.facility_location import FacilityLocation
from aliquot.selection.strategies.k_center import KCenter
from aliquot.selection.strategy import Greedy, OnFeatures
from aliquot.selection.typicality import typicality
from aliquot.selection.uncertainty import ResponseUncertainty
from aliquot.types import Bought, Pool, Scores, Selection, Target

log = logging.getLogger(__name__)

GROUPS = ("tasks", "clusters")
TOWARD = ("pool", "groups", "target")
DIFFICULTIES = ("equal", "inverse_confidence", "entropy")
ORDERS = ("random", "typical", "facility_location", "k_center", "uncertainty")
_MIXTURE = "a mixture, in quotes: 'strategy.toward={pool: 1, target: 3}'"
Groups = Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class Allocation(OnFeatures, CostAware, Greedy):
    """Give each group the number of annotations that minimizes sum_c w_c a_c (n_c + offset)^(-exponent).

    A power law for the loss of group c after n_c annotations, as in the literature on learning curves; transfer
    between groups is ignored. With a budget of k and 0 <= n_c <= N_c, the sizes, the solution is n_c + offset
    proportional to (w_c a_c)^(1 / (1 + exponent)) =: q_c, up to the caps. The j-th prompt of a group (j = 1, 2, ...)
    has its turn at time (j - 1/2 + offset) / q_c, so every prefix of the ranking is divided like that, up to rounding
    (Webster's method), and any quota that a group is too small to fill goes to the others. Groups with q_c = 0 come
    last, in equal turns. As the exponent grows, the division becomes even, whatever the weights. Our own strategy; with
    equal a_c and toward="groups" it is task diversity (Arabelly, Nemade, Nowak, Zhang 2025, arXiv 2507.21482), with
    offset 0, exponent 0 and a_c = 1 / confidence the weighted form. Every gain is 0.

    Args:
        groups: "tasks" for the labels of the pool, or "clusters" for k-means clusters of the features.
        num_clusters: for groups="clusters".
        toward: where the model will be used, which sets w: "pool" (the shares of the groups in the pool), "groups"
            (all alike) or "target" (their shares among the target prompts); or a mixture, such as {pool: 1, target: 3}.
            A target prompt belongs to the group of its own task label or, without labels or for clusters, to that of
            the nearest prompt of the pool.
        difficulty: a: "equal" for 1, "inverse_confidence" for 1 over the model's mean confidence on the group, as in
            weighted task diversity, or "entropy" for the mean entropy of its responses.
        exponent: b, how fast losses fall; 0 or more.
        offset: o, 0 or more: the annotations that the base model's knowledge of a group is worth.
        order: of the prompts of a group: "random"; "typical" (smallest mean distance to their 20 nearest neighbors in
            the group first); "facility_location" or "k_center" within the group; or "uncertainty" (highest mean entropy
            of the model's response first).
        seed: of the clusters, the random order, and of ties between groups.
        learn: in later rounds, fit a_c and b_c to the losses of what was bought (`aliquot.selection.learning_curves`).
            Groups and features stay those of the base model, and `difficulty` is not read. If false, later rounds
            read the signals of the last model, if any are read.
    """

    nested: ClassVar[bool] = True

    normalize: str = field(default="centered_unit", kw_only=True)
    groups: str = "tasks"
    num_clusters: int = 100
    toward: Any = "pool"  # str | Mapping[str, float], checked below: a command line may give anything
    difficulty: str = "equal"
    exponent: float = 0.5
    offset: float = 1.0
    order: str = "random"
    seed: int = 0
    learn: bool = field(default=True, metadata={"key": False})  # `Select.bought` is in the key

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("groups", GROUPS), ("difficulty", DIFFICULTIES), ("order", ORDERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} '{getattr(self, name)}' is unknown; use one of {', '.join(allowed)}")
        for name in ("exponent", "offset"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is negative or not finite; use 0 or more")
        if self.num_clusters < 1:
            raise ValueError(f"num_clusters {self.num_clusters} is not a number of clusters; use 1 or more")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")
        self._mixture()

    def _mixture(self) -> dict[str, float]:
        """Return the share of each way to weigh groups."""
        given = {self.toward: 1.0} if isinstance(self.toward, str) else self.toward
        if not isinstance(given, Mapping) or any(
            type(share) not in (int, float) for share in cast(Mapping[str, object], given).values()
        ):
            raise ValueError(f"toward {given} is neither {', '.join(TOWARD)} nor {_MIXTURE}")
        parts = cast(Mapping[str, float], given)
        if unknown := [name for name in parts if name not in TOWARD]:
            raise ValueError(f"toward '{unknown[0]}' is unknown; use {', '.join(TOWARD)}, or {_MIXTURE}")
        if not parts or any(not 0 <= share < math.inf for share in parts.values()) or not sum(parts.values()) > 0:
            raise ValueError(f"toward {dict(parts)} gives no shares; give numbers of 0 or more, one of them positive")
        return {name: share / sum(parts.values()) for name, share in parts.items() if share > 0}

    @property
    def requires(self) -> frozenset[str]:
        needed = {"tasks" if self.groups == "tasks" else "features"}
        if "target" in self._mixture():
            needed |= {"target", "features"}
        if self.order in ("typical", "facility_location", "k_center"):
            needed |= {"features"}
        if self.difficulty != "equal" or self.order == "uncertainty":
            needed |= {"tokens"}
        return frozenset(needed)

    @property
    def learns(self) -> bool:
        return self.learn

    def after(self, bought: Bought) -> Allocation:
        """Return the same allocation with curves fitted to these losses."""
        return _Informed(**{f.name: getattr(self, f.name) for f in fields(self)}, bought=bought)

    def extend(self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace) -> Selection:
        return self._divided(pool, scores, start, k, workspace, None)

    def spend(
        self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace, purse: Purse
    ) -> Selection:
        """Minimize the expected loss under a budget in costs: return the longest prefix that fits.

        With m_c the mean cost of group c, the loss falls per cost by b w_c a_c (n_c + offset)^(-b - 1) / m_c, b being
        the exponent. At the optimum of sum_c m_c n_c <= limit, this is the same for all groups that are neither empty
        nor used up, so n_c + offset is proportional to (w_c a_c / m_c)^(1 / (1 + b)). The loss is convex, and one row
        is a small part of a budget, so there is no second rule to compare with.
        """

        def ranked(start: Selection, k: int) -> Selection:
            return self._divided(pool, scores, start, k, workspace, purse.costs)

        return purse.longest_prefix(ranked, start, k)

    def _divided(
        self,
        pool: Pool,
        scores: Scores | None,
        start: Selection,
        k: int,
        workspace: Workspace,
        costs: Float64[np.ndarray, " n"] | None,
    ) -> Selection:
        group = self.group(pool, scores, workspace.directory)
        dearness = np.ones(group.max() + 1) if costs is None else mean_of_groups(costs, group)
        pace = self._pace(group, self.weights(group, pool, scores) / dearness, scores)
        rng = np.random.default_rng(self.seed)
        drawn, lots = lottery(group, pool.prompts, rng), rng.permutation(len(pool))
        free = np.setdiff1d(np.arange(len(pool)), start.indices)
        num_groups = len(pace.quota)
        before = np.bincount(group[start.indices], minlength=num_groups)
        by_group = free[np.lexsort((drawn[free], group[free]))]
        turns = _turns(group[by_group], before, pace, self.offset)
        last = np.partition(turns.time, k - len(start) - 1)[k - len(start) - 1]
        depth = np.bincount(group[by_group], turns.time <= last, minlength=num_groups).astype(np.int64)
        if self.order != "random":
            by_group = self._ordered(by_group, group, depth, start, pool, scores, workspace)
        # The order among groups whose turns are at the same time is drawn anew each time.
        order = by_group[np.lexsort((lots[by_group], turns.round, turns.time))][: k - len(start)]
        _tell(np.bincount(group[np.concatenate([start.indices, order])], minlength=num_groups), self)
        gains = np.concatenate([start.gains, np.zeros(len(order))])
        return Selection(np.concatenate([start.indices, order]).astype(np.int64), gains)

    def group(self, pool: Pool, scores: Scores | None, directory: Path | None = None) -> Groups:
        """Return the group of each prompt, 0..g-1; scores as `as_read` returns them."""
        if self.groups == "tasks":
            return by_task(pool)
        assert scores is not None
        return by_cluster(scores.features, self.num_clusters, self.seed, directory)

    def _pace(self, group: Groups, weights: Float64[np.ndarray, " g"], scores: Scores | None) -> _Pace:
        quota = (weights * self._difficulty(group, scores)) ** (1 / (1 + self.exponent))
        return _Pace(quota, np.ones(len(quota)))

    def weights(self, group: Groups, pool: Pool, scores: Scores | None) -> Float64[np.ndarray, " g"]:
        """Return w, the weight of each group; they sum to 1."""
        sizes = np.bincount(group).astype(np.float64)
        total = np.zeros(len(sizes))
        for toward, share in self._mixture().items():
            if toward == "pool":
                weights = sizes
            elif toward == "groups":
                weights = np.ones(len(sizes))
            else:
                assert scores is not None and scores.target is not None
                rows = self._target_groups(group, pool, scores, scores.target)
                weights = np.bincount(rows, minlength=len(sizes)).astype(np.float64)
            total += share * weights / weights.sum()
        return total

    def _target_groups(self, group: Groups, pool: Pool, scores: Scores, target: Target) -> Int64[np.ndarray, " q"]:
        """Return the group of each target prompt; prompts whose label the pool does not have are left out."""
        if self.groups == "tasks" and target.pool.tasks is not None:
            assert pool.tasks is not None
            names = {name: i for i, name in enumerate(np.unique(np.array(pool.tasks)).tolist())}
            known = [names[task] for task in target.pool.tasks if task in names]
            if not known:
                raise ValueError(
                    f"no task label of the target's {len(target)} prompts ('{target.pool.tasks[0]}' first) is one of "
                    f"the {len(names)} labels of pool '{pool.name}'; correct them, or set target.task=null to go by "
                    "similarity"
                )
            if len(known) < len(target):
                lost = len(target) - len(known)
                log.warning("%d of %d target prompts have a task label that the pool does not", lost, len(target))
            return np.array(known)
        return group[nearest_centers(target.scores.features, scores.features)]

    def _difficulty(self, group: Groups, scores: Scores | None) -> Float64[np.ndarray, " g"]:
        """Return a, the loss of each group without annotations, up to a factor."""
        if self.difficulty == "equal":
            return np.ones(group.max() + 1)
        assert scores is not None
        if self.difficulty == "inverse_confidence":
            return 1 / mean_confidence(scores, group)
        return mean_of_groups(ResponseUncertainty("entropy").score(scores), group)

    def _ordered(
        self,
        by_group: Int64[np.ndarray, " m"],
        group: Groups,
        depth: Int64[np.ndarray, " g"],
        start: Selection,
        pool: Pool,
        scores: Scores | None,
        workspace: Workspace,
    ) -> Int64[np.ndarray, " m"]:
        """Put the first `depth` rows of each group in order; the rows of a group stay together."""
        assert scores is not None
        if self.order in ("typical", "uncertainty"):
            by_row = (
                typicality(scores.features, group)
                if self.order == "typical"
                else -ResponseUncertainty("entropy").score(scores)
            )
            return by_group[np.lexsort((by_group, by_row[by_group], group[by_group]))]
        strategy = FacilityLocation() if self.order == "facility_location" else KCenter()
        ordered, begins = by_group.copy(), np.searchsorted(group[by_group], np.arange(len(depth)))
        with Progress(f"{self.order} within groups", len(depth), "group") as progress:
            for number, (begin, deep) in enumerate(zip(begins.tolist(), depth.tolist(), strict=True)):
                if deep:
                    rows = np.flatnonzero(group == number)
                    directory = workspace.directory and workspace.directory / f"group_{number}"
                    part = Workspace(directory, workspace.device)
                    with silenced(), warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # that a group's prompts are alike: then any order will do
                        ordered[begin : begin + deep] = _within(strategy, rows, start, deep, pool, scores, part)
                progress.update()
        return ordered


def _within(
    strategy: Greedy,
    rows: Int64[np.ndarray, " m"],
    start: Selection,
    k: int,
    pool: Pool,
    scores: Scores,
    workspace: Workspace,
) -> Int64[np.ndarray, " k"]:
    """Return the first k rows of a group in the order of a strategy that sees this group alone."""
    chosen = np.searchsorted(rows, start.indices[np.isin(start.indices, rows)])
    part = Pool(pool.name, [""] * len(rows), [""] * len(rows))
    signals = Scores(scores.features[rows], scores.prompt_lengths[rows])
    before = Selection(chosen.astype(np.int64), np.zeros(len(chosen)))
    return rows[strategy.extend(part, signals, before, len(chosen) + k, workspace).indices[len(chosen) :]]


@dataclass(frozen=True)
class _Pace:
    """How soon each group has its turns: the one after n others is at time (n + 1/2 + offset)^power / quota."""

    quota: Float64[np.ndarray, " g"]
    power: Float64[np.ndarray, " g"]


@dataclass(frozen=True, kw_only=True)
class _Informed(Allocation):
    """An allocation whose groups have curves fitted to what was bought: L_c(n) = a_c (n + offset)^(-b_c).

    One more annotation of a group lowers its weighted loss by about w_c a_c b_c (n_c + 1/2 + offset)^-(1 + b_c), and
    prompts are taken in the order of these gains, which is optimal for a sum of convex losses (Fox 1966).
    """

    bought: Bought

    def _divided(
        self,
        pool: Pool,
        scores: Scores | None,
        start: Selection,
        k: int,
        workspace: Workspace,
        costs: Float64[np.ndarray, " n"] | None,
    ) -> Selection:
        if strange := len(np.setdiff1d(self.bought.rows, start.indices)):
            raise ValueError(f"{strange} of {len(self.bought)} losses are of prompts that were not bought before")
        return super()._divided(pool, scores, start, k, workspace, costs)

    def _pace(self, group: Groups, weights: Float64[np.ndarray, " g"], scores: Scores | None) -> _Pace:
        curves = LearningCurves.fit(self.bought, group, self.offset, self.exponent)
        exponents = curves.exponents
        log.info(
            "allocation learned from %s responses: loss of a group at first %.2f (%.2f to %.2f), exponent %.2f "
            "(%.2f to %.2f); a loss that cannot fall shows as a small exponent",
            *(f"{len(self.bought):,}", curves.pool_scale, curves.scale.min(), curves.scale.max()),
            *(curves.pool_mean[1], exponents.min(), exponents.max()),
        )
        return _Pace(weights * curves.scale * exponents, 1 + exponents)


@dataclass(frozen=True)
class _Turns:
    """When each row of some groups has its turn: its time and, for groups without a quota, a round after all times."""

    time: Float64[np.ndarray, " m"]
    round: Int64[np.ndarray, " m"]


def _turns(group: Int64[np.ndarray, " m"], before: Int64[np.ndarray, " g"], pace: _Pace, offset: float) -> _Turns:
    """Return the turns of rows that are sorted by group; `before` rows of each group had theirs already."""
    begins = np.searchsorted(group, np.arange(len(pace.quota)))
    place = np.arange(len(group)) - begins[group] + before[group]
    quota, waited = pace.quota[group], (place + 0.5 + offset) ** pace.power[group]
    time = np.divide(waited, quota, out=np.full(len(group), np.inf), where=quota > 0)
    return _Turns(time, np.where(np.isinf(time), place, 0))


def _tell(counts: Int64[np.ndarray, " g"], strategy: Allocation) -> None:
    log.info(
        "allocation toward %s: %d of %d groups (%s), %d to %d prompts each", strategy.toward, np.count_nonzero(counts),
        len(counts), strategy.groups, counts.min(), counts.max(),
    )  # fmt: skip
