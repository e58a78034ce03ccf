"""A budget in money or tokens: what prompts are expected to cost, and how far down a ranking it buys.

Select: expected costs -> the ranking that fits, and more in case it turns out cheaper
Annotate: the ranking -> waves that cannot exceed what is left -> what they really cost -> the next wave
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.annotation.annotator import Annotator
from aliquot.annotation.bill import BYTES_PER_TOKEN, Tariff
from aliquot.config.schema import Limit
from aliquot.models.spec import Model
from aliquot.pools.spec import PoolSpec
from aliquot.runtime.progress import unheard
from aliquot.types import AnnotatedSet, Pool, Scores

#: Tokens expected of a response where no pass over the pool says more. Waves and the reserve correct it.
_RESPONSE_TOKENS = 128.0
_NUM_SAMPLED = 1000  # prompts of a pool that are read to estimate their mean cost
_ROUNDING = 1e-9  # of a limit: costs that sum to it exactly may exceed it by the rounding of their sum
_LOUD = 32  # rows of a wave that says in the log what it asks
_FIRST, _LATER = 8, 2  # a wave paid in tokens is expected to take one part in so many of what is left
#: Why a response that was bought is not trained on: the example would exceed the tokens.
BEYOND = "beyond the budget"


@dataclass(frozen=True)
class Terms:
    """A budget in money or tokens, and what the expected costs depend on.

    Args:
        limit: the budget.
        cost_aware: weigh gains against costs.
        tariff: of the annotator, for money.
        model: whose tokens are counted, for tokens; else None.
    """

    limit: Limit
    cost_aware: bool
    tariff: Tariff
    model: Model | None = None

    def as_key(self) -> dict[str, object]:
        """Return what a ranking depends on."""
        costs = {"model": self.model} if self.model else {"tariff": asdict(self.tariff)}
        return {"limit": str(self.limit), "cost_aware": self.cost_aware, **costs}

    def expected_costs(self, pool: Pool, scores: Scores | None) -> Float64[np.ndarray, " n"]:
        """Return the expected cost of each row, with the lengths of the model's own responses where there are some."""
        responses = np.full(len(pool), _RESPONSE_TOKENS)
        if scores and scores.tokens:
            responses = scores.tokens.lengths.astype(np.float64)
        if self.model is None:
            num_bytes = np.array([len(prompt.encode()) for prompt in pool.prompts])
            return self.tariff.expected(num_bytes, responses)
        if scores:
            prompts = scores.prompt_lengths
        else:
            encoded = self.model.encode_prompts(self.model.load_tokenizer(), pool.prompts)
            prompts = np.array([len(ids) for ids in encoded])
        return np.minimum(prompts + responses, self.model.max_tokens).astype(np.float64)

    def buy(
        self,
        annotator: Annotator,
        source: PoolSpec,
        ids: Sequence[str],
        prompts: Sequence[str],
        ledger: Path,
        expected: Float64[np.ndarray, " k"],
    ) -> Purchase:
        """Buy down a ranking as far as the limit goes; `expected` are the costs of its rows."""
        if annotator.waits:
            return pay_people(annotator, ids, prompts, self.limit)
        if self.model is None:
            return buy_for_money(annotator, ids, prompts, ledger, self.limit)
        from aliquot.finetuning.examples import encode_examples  # importing torch takes seconds

        model, tokenizer = self.model, self.model.load_tokenizer()

        def count(rows: AnnotatedSet) -> Int64[np.ndarray, " m"]:
            return encode_examples(model, tokenizer, rows).lengths

        return buy_for_tokens(annotator, source, ids, prompts, ledger, self.limit, expected, count)

    def expected_rows(self, pool: Pool, response_tokens: int) -> int:
        """Return about how many rows the limit buys, before any pass, if responses have so many tokens at most."""
        sample = [pool.prompts[i] for i in range(0, len(pool), -(-len(pool) // _NUM_SAMPLED))]
        num_bytes = np.array([len(prompt.encode()) for prompt in sample])
        responses = np.full(len(sample), min(_RESPONSE_TOKENS, response_tokens))
        costs = self.tariff.expected(num_bytes, responses)
        if self.model:
            costs = np.minimum(num_bytes / BYTES_PER_TOKEN + responses, self.model.max_tokens)
        return max(1, min(len(pool), int(self.limit.amount / costs.mean())))


@dataclass(frozen=True)
class Purchase:
    """How far down a ranking the budget went.

    Args:
        num_rows: bought, from the first on.
        num_trained: of these, from the first on, the rows that are trained on, if their responses are of use.
        spent: by these.
        why: the next row is not bought; "" if the ranking ended first.
    """

    num_rows: int
    num_trained: int
    spent: float
    why: str


def affordable(costs: Float64[np.ndarray, " k"], limit: float) -> int:
    """Return how many rows can be paid, from the first on."""
    return int(np.searchsorted(np.cumsum(costs), limit * (1 + _ROUNDING), side="right"))


def buy_for_money(
    annotator: Annotator, ids: Sequence[str], prompts: Sequence[str], ledger: Path, limit: Limit
) -> Purchase:
    """Buy down a ranking in waves, none of which can exceed what is left.

    Row i is bought if what the rows before it really cost, and the most that it can cost, fit into the limit. That does
    not depend on the waves, nor on which answers existed before: a run that is killed ends with the same rows. A row
    that got no answer keeps the most that it can cost, because it may be asked again.

    Raises:
        ValueError: not even the first row fits, or prompts got no answer that the annotator may not leave out.
    """
    most, asked = np.array(annotator.most(ids, prompts)), 0
    while True:
        paid = annotator.paid(ids, prompts, ledger)
        costs = np.array([high if cost is None else cost for high, cost in zip(most, paid, strict=True)])
        before = np.cumsum(costs) - costs
        too_dear = before + np.maximum(most, costs) > limit.amount * (1 + _ROUNDING)
        num_rows = int(too_dear.argmax()) if too_dear.any() else len(ids)
        asked = next((i for i in range(asked, num_rows) if paid[i] is None), num_rows)
        if asked == num_rows:
            break
        end = asked + affordable(most[asked:], limit.amount - before[asked])
        with unheard("aliquot.annotation") if end - asked < _LOUD else nullcontext():
            annotator.buy(ids[asked:end], prompts[asked:end], ledger)
        asked = end
    if num_rows == 0:
        raise ValueError(
            f"budget={limit} does not pay one response of {annotator.name}: that to the first prompt (id '{ids[0]}') "
            f"can cost up to {most[0]:.6g}; raise the budget to that or more, or lower what it can cost (a shorter "
            "annotator.max_tokens, annotator.attempts=1)"
        )
    return Purchase(num_rows, num_rows, float(costs[:num_rows].sum()), _next(most[num_rows:]))


def pay_people(annotator: Annotator, ids: Sequence[str], prompts: Sequence[str], limit: Limit) -> Purchase:
    """Return how far down a ranking people can be paid: what each response costs is known before.

    Raises:
        ValueError: not even the first row fits.
    """
    costs = np.array(annotator.most(ids, prompts))
    num_rows = affordable(costs, limit.amount)
    if num_rows == 0:
        raise ValueError(
            f"budget={limit} does not pay one response: that to the first prompt (id '{ids[0]}') costs {costs[0]:.6g}; "
            "raise the budget to that or more"
        )
    return Purchase(num_rows, num_rows, float(costs[:num_rows].sum()), _next(costs[num_rows:]))


def _next(most: Float64[np.ndarray, " k"]) -> str:
    return f"the next response can cost up to {most[0]:.6g}" if len(most) else ""


def buy_for_tokens(
    annotator: Annotator,
    source: PoolSpec,
    ids: Sequence[str],
    prompts: Sequence[str],
    ledger: Path,
    limit: Limit,
    expected: Float64[np.ndarray, " k"],
    count: Callable[[AnnotatedSet], Int64[np.ndarray, " m"]],
) -> Purchase:
    """Buy down a ranking until the examples that are trained on take the tokens of the limit.

    Only what is there can be counted, so a wave takes half of what is left by its expected tokens, which follow what
    rows have really taken; the last rows are bought one by one. An annotator that answers at once gives all.

    Args:
        expected: tokens of each row.
        count: returns the tokens of each example as it is trained on.

    Raises:
        ValueError: the first example takes more than the limit, or prompts got no answer.
    """
    num_rows, spent, ratio = 0, 0, 1.0
    while num_rows < len(ids) and spent < limit.amount:
        part = (limit.amount - spent) / (_LATER if num_rows else _FIRST)
        wave = max(1, affordable(ratio * expected[num_rows:], part))
        wave = len(ids) if annotator.at_once else min(wave, len(ids) - num_rows)
        new_ids, new_prompts = ids[num_rows : num_rows + wave], prompts[num_rows : num_rows + wave]
        with unheard("aliquot.annotation") if wave < _LOUD else nullcontext():
            annotator.buy(new_ids, new_prompts, ledger)
        answers = annotator.answered(source, new_ids, new_prompts, ledger)
        kept = [i for i, row_id in enumerate(new_ids) if row_id in answers]
        rows = AnnotatedSet(
            [new_ids[i] for i in kept], [new_prompts[i] for i in kept], [answers[new_ids[i]] for i in kept]
        )
        lengths: list[int] = count(rows).tolist() if kept else []
        for i, length in zip(kept, lengths, strict=True):
            if spent + length > limit.amount:
                return _tokens_end(num_rows + i, num_rows + wave, spent, length, ids, annotator, limit)
            spent += length
        num_rows += wave
        ratio = spent / float(expected[:num_rows].sum()) or 1.0
    return Purchase(num_rows, num_rows, spent, "all of them are used" if spent == limit.amount else "")


def _tokens_end(
    trained: int, bought: int, spent: int, length: int, ids: Sequence[str], annotator: Annotator, limit: Limit
) -> Purchase:
    if spent == 0:
        raise ValueError(
            f"budget={limit} does not hold one example: the first one with a response (id '{ids[trained]}') takes "
            f"{length} tokens; raise the budget to that or more"
        )
    return Purchase(
        trained if annotator.at_once else bought, trained, spent, f"the next example takes {length:,} tokens"
    )
