"""The values that flow from stage to stage. Read this file first.

    Pool -> Score -> Scores -> Select -> Selection -> Annotate -> AnnotatedSet
         -> Finetune -> Adapter -> Evaluate -> EvalResult

Every array is numpy, every index is a row of the pool, and larger always means more uncertain.
A `Pool` holds no responses: no strategy can look at one before annotation, because there is none to look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64


@dataclass(frozen=True)
class Pool:
    """The unlabeled prompts, one row each.

    Args:
        name: the name of this pool in messages.
        ids: unique, and stable if the source is reordered.
        prompts: the text of each prompt.
        tasks: the task label of each prompt, or None if the source has none.
    """

    name: str
    ids: Sequence[str]
    prompts: Sequence[str]
    tasks: Sequence[str] | None = None

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.prompts), (len(self.ids), len(self.prompts))
        assert self.tasks is None or len(self.tasks) == len(self.prompts)

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class TokenStats:
    """What the model thought of each token of its own greedy response y, ragged.

    Prompt i owns the next `lengths[i]` entries of the flat arrays. If the model produced an end-of-sequence token, it
    is the last entry: ending is a decision too, and therefore no response is empty.

    Args:
        lengths: tokens of each response, T in the equations; at least 1.
        entropy: H(p_t) in nats.
        top1: the largest probability, that of the greedy token itself.
        top2: the second largest probability.
    """

    lengths: Int64[np.ndarray, " n"]
    entropy: Float32[np.ndarray, " t"]
    top1: Float32[np.ndarray, " t"]
    top2: Float32[np.ndarray, " t"]

    @property
    def starts(self) -> Int64[np.ndarray, " n"]:
        """The flat position at which each prompt's tokens begin."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)


@dataclass(frozen=True)
class TokenFeatures:
    """Vectors of single tokens, ragged: prompt i owns the next `lengths[i]` rows of `vectors`.

    Args:
        lengths: tokens kept of each prompt; at least 1.
        vectors: pre-logit states, projected to r dimensions; may be memory-mapped.
    """

    lengths: Int64[np.ndarray, " n"]
    vectors: Float32[np.ndarray, "t r"]

    def __post_init__(self) -> None:
        assert self.lengths.min(initial=1) >= 1, self.lengths.min()
        assert self.lengths.sum() == len(self.vectors), (self.lengths.sum(), len(self.vectors))

    @property
    def starts(self) -> Int64[np.ndarray, " n"]:
        """The row of `vectors` at which each prompt's tokens begin."""
        return np.cumsum(self.lengths) - self.lengths


@dataclass(frozen=True)
class Scores:
    """All signals of the one inference pass; arrays may be memory-mapped from disk.

    Args:
        features: one vector per prompt, of any float type; strategies see float32.
        prompt_lengths: tokens of each prompt as the model read it.
        tokens: statistics of the model's own response, or None where the scorer generates none.
        token_features: projected vectors of single tokens, or None where the scorer keeps none.
        views: name -> features of another position or layer, if the scorer keeps several.
        target: the prompts that the model will be asked, or None where none were given.
    """

    features: Float[np.ndarray, "n d"]
    prompt_lengths: Int64[np.ndarray, " n"]
    tokens: TokenStats | None = None
    token_features: TokenFeatures | None = None
    views: Mapping[str, Float[np.ndarray, "n d"]] = field(default_factory=dict[str, np.ndarray])
    target: Target | None = None

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Target:
    """Prompts of the kind that the model will be asked, without responses, read by the same pass as the pool.

    Args:
        pool: the prompts, with their task labels if there are any.
        scores: their signals; features are normalized by what was fitted on the pool.
    """

    pool: Pool
    scores: Scores

    def __len__(self) -> int:
        return len(self.pool)


@dataclass(frozen=True)
class ResponseSignals:
    """What the base model makes of the response to each prompt of the pool: only an `UpperReference` is given this.

    Neither `Pool` nor `Scores` holds one, so no `Strategy` can see it.

    Args:
        loss: mean nats per token of the response after its prompt, with the token that ends it.
        loss_alone: the same of the same tokens after an empty prompt.
        correct: whether the model's own greedy response equals the response.
    """

    loss: Float64[np.ndarray, " n"]
    loss_alone: Float64[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]

    def __post_init__(self) -> None:
        assert self.loss.shape == self.loss_alone.shape == self.correct.shape, (self.loss.shape, self.correct.shape)

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True)
class Bought:
    """How well the responses bought so far were predicted, each by the model before it was trained on it.

    This is prequential evaluation (Dawid 1984): nothing is held out. It has a loss for bought responses only, so a
    strategy that is given this still sees no response before it is paid for.

    Args:
        rows: of the pool, in the order bought.
        loss: mean nats per token of the response after its prompt, with the token that ends it.
        round: 0, 1, ...; the model that read a response was trained on the responses of all earlier rounds.
    """

    rows: Int64[np.ndarray, " m"]
    loss: Float64[np.ndarray, " m"]
    round: Int64[np.ndarray, " m"]

    def __post_init__(self) -> None:
        assert self.rows.shape == self.loss.shape == self.round.shape, (self.rows.shape, self.loss.shape)

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def joined(cls, earlier: Bought | None, rows: Int64[np.ndarray, " m"], loss: Float64[np.ndarray, " m"]) -> Bought:
        """Return what was bought earlier, followed by the rows of one more round."""
        if earlier is None:
            return cls(rows, loss, np.zeros_like(rows))
        number = np.full_like(rows, earlier.round.max(initial=-1) + 1)
        return cls(
            np.concatenate([earlier.rows, rows]),
            np.concatenate([earlier.loss, loss]),
            np.concatenate([earlier.round, number]),
        )


@dataclass(frozen=True)
class Selection:
    """Rows of the pool in the order selected: `indices[:b]` is the selection at budget b.

    Args:
        indices: distinct rows of the pool.
        gains: what each row added when it was selected, in the units of its strategy.
    """

    indices: Int64[np.ndarray, " k"]
    gains: Float64[np.ndarray, " k"]

    def __len__(self) -> int:
        return len(self.indices)

    @classmethod
    def none(cls) -> Selection:
        """Return an empty selection."""
        return cls(np.empty(0, dtype=np.int64), np.empty(0))

    def head(self, budget: int) -> Selection:
        """Return the first `budget` rows, as a selection."""
        assert budget <= len(self), (budget, len(self))
        return Selection(self.indices[:budget], self.gains[:budget])


@dataclass(frozen=True)
class AnnotatedSet:
    """Prompts with the responses that an annotator gave, in the order selected."""

    ids: Sequence[str]
    prompts: Sequence[str]
    responses: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, rows: Sequence[int]) -> AnnotatedSet:
        """Return some of the rows."""
        return AnnotatedSet(*([values[i] for i in rows] for values in (self.ids, self.prompts, self.responses)))


@dataclass(frozen=True)
class Adapter:
    """A finetuned LoRA adapter on disk.

    Args:
        path: peft directory (adapter_config.json, adapter_model.safetensors).
        base: identity of the model it was trained on.
        steps: optimizer steps taken.
        loss: mean training loss over the last tenth of the steps, in nats per response token.
    """

    path: Path
    base: str
    steps: int
    loss: float


@dataclass(frozen=True)
class Metric:
    """One benchmark score: a fraction in [0, 1] with its standard error over questions.

    Args:
        name: of the benchmark.
        value: the mean over questions, each counted once.
        stderr: its standard error.
        num_questions: how many there are.
        weighted: weighting -> the mean and its standard error, where questions can be weighted otherwise.
    """

    name: str
    value: float
    stderr: float
    num_questions: int
    weighted: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])


@dataclass(frozen=True)
class EvalResult:
    """Benchmark scores, and the correctness of every question for paired tests.

    Args:
        metrics: one per benchmark (a task group).
        correct: task -> one float per question, 1.0 right and 0.0 wrong, in the order of the task's file.
    """

    metrics: Sequence[Metric]
    correct: dict[str, list[float]]
