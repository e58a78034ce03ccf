"""Budgets in money and tokens: which of them can be spent, and the limit of each round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from aliquot.annotation.annotator import Annotator
from aliquot.annotation.teachers.teacher import Teacher
from aliquot.config.schema import Limit, Until
from aliquot.experiment.rounds import MOST_ROUNDS
from aliquot.selection.cost import as_cost_aware
from aliquot.selection.strategy import Partitioned, Strategy
from aliquot.selection.upper_reference import UpperReference


def check_limit(
    limit: Limit | None, cost_aware: bool, strategy: Strategy | UpperReference, annotator: Annotator, until: Until
) -> None:
    """Raise ValueError for a budget in money or tokens that cannot be spent, and for costs that nothing reads."""
    if until == Until.score:
        return
    if limit is None:
        if cost_aware:
            raise ValueError(
                "cost_aware=true weighs gains against costs, and with a budget in prompts there is nothing to weigh: "
                "every prompt counts as one; give the budget in money or tokens (budget=200usd, budget=500k_tokens), "
                "or leave cost_aware out"
            )
        return
    name = type(strategy).__name__
    if isinstance(strategy, UpperReference):
        raise ValueError(
            f"budget={limit}: {name} reads responses to choose a given number of prompts; give one, such as budget=10k"
        )
    if isinstance(strategy, Partitioned) and strategy.num_parts > 1:
        raise ValueError(
            f"budget={limit}: {name} in {strategy.num_parts} parts needs to know the number of prompts; leave "
            "strategy/mode out, or give a number, such as budget=10k"
        )
    if cost_aware:
        as_cost_aware(strategy)
    _check_annotator(limit, annotator)


def _check_annotator(limit: Limit, annotator: Annotator) -> None:
    if isinstance(annotator, Teacher) and annotator.examples:
        raise ValueError(
            f"budget={limit}: what examples cost is not known before they are chosen, so annotator.examples="
            f"{annotator.examples} cannot be kept within it; give the budget in prompts, or set annotator.examples=0"
        )
    if limit.in_tokens and annotator.waits:
        raise ValueError(
            f"budget={limit}: nobody knows how long the responses of people will be before they are written, so it is "
            f"not known what to ask {annotator.name}; give the budget in prompts or in money (budget=1k, budget=200usd)"
        )
    if not limit.in_tokens and annotator.tariff.is_free:
        setting = (
            "annotator.price to that of one response"
            if annotator.waits
            else "annotator.price_per_million.input and .output"
        )
        remedy = (
            "the responses in the pool cost nothing: choose an annotator that has one"
            if annotator.at_once
            else f"set {setting}"
        )
        raise ValueError(
            f"budget={limit} needs the price of a response, and {annotator.name} has none (it is 0); {remedy}, or give "
            "the budget in prompts or tokens (budget=1k, budget=500k_tokens)"
        )


def limits_of(rounds: object, limit: Limit, typed: str) -> tuple[Limit, ...]:
    """Return the limit after each round: equal parts of `limit` for a number, or its shares, such as [10%, 100%].

    Raises:
        ValueError: `rounds` is neither, or the last round does not end at the limit.
    """
    if isinstance(rounds, int) and not isinstance(rounds, bool) and 1 <= rounds <= MOST_ROUNDS:
        return tuple(limit.of(number / rounds) for number in range(1, rounds + 1))
    if isinstance(rounds, Sequence) and not isinstance(rounds, str):
        shares = [_share(text) for text in cast(Sequence[object], rounds)]
        if shares and len(shares) <= MOST_ROUNDS and shares[-1] == 1 and None not in shares:
            known = [share for share in shares if share is not None]
            if all(before < after for before, after in zip([0.0, *known], known, strict=False)):
                return tuple(limit.of(share) for share in known)
    raise ValueError(
        f"rounds={rounds} is no division of budget={typed}; give a number of equal rounds, 1 to {MOST_ROUNDS}, or "
        "rising shares of the budget that end with all of it: rounds=[10%,50%,100%]"
    )


def _share(text: object) -> float | None:
    try:
        return float(str(text).removesuffix("%")) / 100 if str(text).endswith("%") else None
    except ValueError:
        return None
