"""What a strategy is, and the only place where strategies are called and checked.

A strategy is a frozen dataclass: its fields are its hyperparameters, and `select` orders rows. All preconditions and
postconditions (budgets, finite features, distinct rows) are checked in `rank`, once for all strategies.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32

from aliquot.scoring.normalization import NORMALIZATIONS, Normalization
from aliquot.scoring.spec import Scorer
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.types import Bought, Pool, Scores, Selection

#: The signals that a strategy may require from the scoring pass (for "tasks", from the pool; "target" is the user's).
SIGNALS = ("features", "tokens", "token_features", "tasks", "target")
_BLOCK = 1 << 16  # vectors checked together
_LARGEST = 1e15  # sums of squares of such numbers stay finite in float32


@runtime_checkable
class Strategy(Protocol):
    """Orders the rows of a pool by how worthwhile they are to annotate.

    Attributes:
        requires: the signals it reads, a subset of `SIGNALS`; empty means that no scoring pass is needed.
        nested: True if `select(.., k)` starts with `select(.., j)` for every j < k, so that one ranking serves every
            budget. False if quotas depend on the budget.

    Both are class variables, or properties if they depend on a hyperparameter.
    """

    @property
    def requires(self) -> frozenset[str]: ...

    @property
    def nested(self) -> bool: ...

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        """Return k distinct rows in the order picked. The same inputs give the same rows, bit for bit."""
        ...


@dataclass(frozen=True, kw_only=True)
class OnView:
    """The view of the prompts that a strategy reads: `rank` puts it in the place of `Scores.features`.

    Args:
        features: the view, one that the scorer keeps: last, mean or weighted, or one of these at a layer, such as
            weighted@12; None is the scorer's first.
    """

    features: str | None = field(default=None, metadata={"absent": None})


@dataclass(frozen=True, kw_only=True)
class OnFeatures(OnView):
    """The same, normalized.

    Args:
        normalize: what is done to the view, on top of `scorer.normalize`: one of
            `aliquot.scoring.normalization.NORMALIZATIONS`.
    """

    normalize: str = field(default="raw", metadata={"absent": "raw"})

    def __post_init__(self) -> None:
        if self.normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize '{self.normalize}' is unknown; use one of {', '.join(NORMALIZATIONS)}")


def view_of(strategy: Strategy) -> str | None:
    """Return the view of the prompts that a strategy reads; None is the scorer's first."""
    return strategy.features if isinstance(strategy, OnView) else None


def on_kept_view(strategy: Strategy, scorer: Scorer) -> Strategy:
    """Return the strategy with its view named as in the scores of this scorer."""
    if not isinstance(strategy, OnView):
        return strategy
    name = scorer.view(strategy.features)
    return dataclasses.replace(strategy, features=None if name == scorer.view(None) else name)


class Greedy(ABC):
    """A strategy whose picks each depend on the earlier ones, so that it can continue from prompts already selected."""

    def select(self, pool: Pool, scores: Scores | None, k: int) -> Selection:
        """Return k distinct rows, without any rows selected before."""
        return self.extend(pool, scores, Selection.none(), k, Workspace())

    @abstractmethod
    def extend(self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace) -> Selection:
        """Return k distinct rows that begin with `start`, from any source; k is larger than its length.

        Extending the strategy's own selection gives the same result as selecting at once. An interrupted ranking in the
        same workspace is resumed.
        """


@runtime_checkable
class Learner(Strategy, Protocol):
    """A strategy that can learn from what was bought in earlier rounds: see `aliquot.types.Bought`.

    Attributes:
        learns: whether it does. Then it reads the base model's signals in every round.
    """

    @property
    def learns(self) -> bool: ...

    def after(self, bought: Bought) -> Strategy:
        """Return the strategy that has seen these losses; it only continues from what was bought."""
        ...


@runtime_checkable
class Checked(Strategy, Protocol):
    """A strategy that can detect from the prompts alone that it cannot order them."""

    def check(self, pool: Pool) -> None:
        """Raise ValueError if it cannot, before the scoring pass."""
        ...


@runtime_checkable
class Partitioned(Strategy, Protocol):
    """A strategy of two rounds: the first processes parts of the pool, one by one, the second the picks from them.

    Attributes:
        num_parts: 1 if there is no first round.
    """

    @property
    def num_parts(self) -> int: ...

    def select_part(self, pool: Pool, scores: Scores | None, part: int, k: int, workspace: Workspace) -> Selection:
        """Return k rows of the pool from one part, or the whole part if it has fewer."""
        ...


def rank(
    strategy: Strategy,
    pool: Pool,
    scores: Scores | None,
    k: int,
    start: Selection | None = None,
    workspace: Workspace | None = None,
) -> Selection:
    """Let `strategy` order the pool to depth `k`, checked before and after.

    Args:
        strategy: orders the pool.
        pool: the prompts.
        scores: the signals; None for a strategy that does not require any.
        k: rows to select, including those of `start`.
        start: rows selected earlier, which stay and come first. A `Greedy` strategy takes them into account, any other
            leaves them out of its order.
        workspace: the directory and device of a long ranking.

    Raises:
        ValueError: k is outside 1..n, `start` holds a row twice or one not in the pool, a required signal is missing,
            or the signals hold NaN, infinity or numbers too large to square.
    """
    start = start or Selection.none()
    check_asked(pool, k, start)
    scores = as_read(strategy, pool, scores)
    selection = _extend(strategy, pool, scores, k, start, workspace or Workspace())
    assert selection.indices.shape == selection.gains.shape == (k,), (selection.indices.shape, k)
    assert len(np.unique(selection.indices)) == k, f"{strategy!r} picked a row twice"
    assert selection.indices.min() >= 0 and selection.indices.max() < len(pool), f"{strategy!r} left the pool"
    return selection


def as_read(strategy: Strategy, pool: Pool, scores: Scores | None) -> Scores | None:
    """Return the scores as the strategy reads them: its features, normalized, in float32, of the target too.

    Raises:
        ValueError: a signal that the strategy requires is missing, or holds NaN, infinity or too large numbers.
    """
    if scores is None:
        check_signals(strategy, pool, scores)
        return None
    target = scores.target
    scores = _with_features(scores, _view(strategy, scores))
    of_target = _with_features(target.scores, _view(strategy, target.scores)) if target else None
    check_signals(strategy, pool, scores)
    if of_target:
        check_finite("target features", _finite_rows(of_target.features))
    if isinstance(strategy, OnFeatures) and strategy.normalize != "raw" and "features" in strategy.requires:
        fitted = Normalization.fit(scores.features, strategy.normalize)
        scores = _with_features(scores, fitted.apply(scores.features))
        of_target = of_target and _with_features(of_target, fitted.apply(of_target.features))
    if target is None or of_target is None:
        return scores
    return dataclasses.replace(scores, target=dataclasses.replace(target, scores=of_target))


def _view(strategy: Strategy, scores: Scores) -> Float[np.ndarray, "n d"]:
    name = view_of(strategy)
    if name is not None and name not in scores.views:
        raise ValueError(
            f"strategy.features={name}: these scores hold the view {', '.join(scores.views) or 'of the scorer alone'}; "
            "keep it with scorer.position and scorer.layer"
        )
    return scores.features if name is None else scores.views[name]


def _with_features(scores: Scores, features: Float[np.ndarray, "n d"]) -> Scores:
    return dataclasses.replace(scores, features=features if features.dtype == np.float32 else _as_float32(features))


def _as_float32(features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    with np.errstate(over="ignore"):  # overflow gives infinity, which is reported as such
        return features.astype(np.float32)


def check_asked(pool: Pool, k: int, start: Selection) -> None:
    """Raise ValueError if a budget is outside the pool, or rows selected earlier are outside it or come twice."""
    if not 1 <= k <= len(pool):
        raise ValueError(
            f"budget {k} is outside 1..{len(pool)}, the prompts of pool '{pool.name}'; lower it, or use budget=all"
        )
    rows, counts = np.unique(start.indices, return_counts=True)
    outside, twice = rows[(rows < 0) | (rows >= len(pool))], rows[counts > 1]
    if len(outside) or len(twice):
        raise ValueError(
            f"of the {len(start)} prompts chosen before, {len(outside)} are not rows of pool '{pool.name}' "
            f"(0..{len(pool) - 1}) and {len(twice)} come twice; start from distinct rows"
        )


def _extend(
    strategy: Strategy, pool: Pool, scores: Scores | None, k: int, start: Selection, workspace: Workspace
) -> Selection:
    if len(start) >= k:
        return start.head(k)
    if isinstance(strategy, Greedy):
        return strategy.extend(pool, scores, start, k, workspace)
    # At most len(start) of its first picks have already been selected.
    return leave_out(start, strategy.select(pool, scores, min(k + len(start), len(pool))), k)


def leave_out(start: Selection, order: Selection, k: int) -> Selection:
    """Return `start`, followed by the rows of `order` that are not in it, k in all."""
    new = np.flatnonzero(~np.isin(order.indices, start.indices))[: k - len(start)]
    return Selection(
        np.concatenate([start.indices, order.indices[new]]), np.concatenate([start.gains, order.gains[new]])
    )


def check_target(strategy: Strategy, has_target: bool) -> None:
    """Raise ValueError if the strategy needs a target and there is none."""
    if "target" in strategy.requires and not has_target:
        raise ValueError(
            f"{type(strategy).__name__} chooses toward prompts of the kind that the model will be asked, and none were "
            "given; name a file with a few dozen of them, without responses: target=prompts.jsonl"
        )


def check_requirements(strategy: Strategy, pool: Pool, scorer: Scorer) -> None:
    """Raise ValueError, before the pass, if the strategy needs what the scorer or the pool will not provide."""
    if "features" in strategy.requires:
        scorer.view(view_of(strategy))
    if isinstance(strategy, Checked):
        strategy.check(pool)
    if "token_features" in strategy.requires and scorer.token_features is None:
        raise ValueError(
            f"{type(strategy).__name__} needs vectors of single tokens, and this scorer keeps none; "
            "set scorer=token_features"
        )
    if "tokens" in strategy.requires and scorer.max_new_tokens == 0:
        raise ValueError(
            f"{type(strategy).__name__} needs token statistics of the own response, and scorer.max_new_tokens=0 "
            "generates none; set scorer.max_new_tokens=8 or more"
        )
    if "tasks" in strategy.requires and pool.tasks is None:
        raise ValueError(
            f"{type(strategy).__name__} needs task labels, and pool '{pool.name}' has none; set "
            "strategy.groups=clusters, which groups prompts by their features"
        )


def check_signals(strategy: Strategy, pool: Pool, scores: Scores | None) -> None:
    """Raise ValueError unless every signal that the strategy requires is present and finite."""
    name = type(strategy).__name__
    for signal in sorted(strategy.requires - {"tasks"}):
        if scores is None or getattr(scores, signal) is None:
            raise ValueError(f"{name} needs '{signal}', which these scores do not hold; keep it in the scorer")
    if scores is None:
        return
    if len(scores) != len(pool):
        raise ValueError(f"scores of {len(scores)} prompts do not belong to pool '{pool.name}' of {len(pool)}")
    if "features" in strategy.requires:
        check_finite("features", _finite_rows(scores.features))
    if "tokens" in strategy.requires and scores.tokens is not None:
        stats = scores.tokens
        finite = np.isfinite(stats.entropy) & np.isfinite(stats.top1) & np.isfinite(stats.top2)
        check_finite("token statistics", np.logical_and.reduceat(finite, stats.starts))
    if "token_features" in strategy.requires and scores.token_features is not None:
        finite = _finite_rows(scores.token_features.vectors)
        check_finite("token features", np.logical_and.reduceat(finite, scores.token_features.starts))


def _finite_rows(vectors: Float[np.ndarray, "m d"]) -> Bool[np.ndarray, " m"]:
    """Tell which rows can be squared, by blocks: the array may be larger than memory."""
    blocks = (vectors[first : first + _BLOCK] for first in range(0, len(vectors), _BLOCK))
    return np.concatenate([(np.abs(block) <= _LARGEST).all(axis=1) for block in blocks])


def check_finite(what: str, row_is_finite: Bool[np.ndarray, " n"]) -> None:
    """Raise ValueError if a signal of some rows is not finite."""
    bad = np.flatnonzero(~row_is_finite)
    if len(bad):
        rows = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(
            f"{what} of {len(bad)} of {len(row_is_finite)} prompts hold NaN or infinity (rows {rows}), or "
            f"numbers beyond {_LARGEST:.0e}; score again with model.dtype=float32, or leave those prompts out"
        )
