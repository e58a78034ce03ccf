"""The rounds of an experiment: the budget in parts, each chosen with what the parts before taught.

    round 1: Score -> Select -> Annotate -> Finetune -> Evaluate        as for a run with this budget
    round r: Score, with the adapter of round r - 1 -> Select, continued from round r - 1 -> Annotate -> ...

Every round finetunes the base model on everything bought so far. A strategy that reads no signals of the model has
nothing new to read, so its rounds are the prefixes of one ranking. With a teacher that is shown what earlier rounds
annotated, they continue each other too: the responses depend on the rounds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from aliquot.annotation.annotator import Annotator
from aliquot.annotation.teachers.teacher import Teacher
from aliquot.config.schema import Until, parse_budget
from aliquot.experiment.arm import equal_parts
from aliquot.experiment.prospect import Prospect
from aliquot.selection.strategies.allocation import Allocation
from aliquot.selection.strategy import Learner, Partitioned, Strategy
from aliquot.selection.upper_reference import UpperReference
from aliquot.stages import Annotate, Evaluate, Finetune, ReadBought, Score, Select
from aliquot.store.store import Stage, Store
from aliquot.terms import Terms

MOST_ROUNDS = 100  # rounds; each finetunes the model


@dataclass(frozen=True)
class Round:
    """One round, by its stages; the budget counts the prompts of all rounds up to it.

    Args:
        annotate: asks for the prompts of all rounds so far; only the new ones are not answered yet.
        finetune: trains on all of them.
        evaluate: scores the result.
        bought: reads the new responses before training; None in an experiment of one round.
    """

    annotate: Annotate
    finetune: Finetune
    evaluate: Evaluate
    bought: ReadBought | None = None

    @property
    def select(self) -> Select:
        return self.annotate.select

    @property
    def budget(self) -> int:
        """Prompts, or an estimate of them for a budget in money or tokens."""
        return self.annotate.budget

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        """Its stages; another round may share the pass or the ranking."""
        own = (self.select.score, self.select, self.annotate, self.bought, self.finetune, self.evaluate)
        return tuple(stage for stage in own if stage)

    def goals(self, until: Until) -> tuple[Stage[Any], ...]:
        """Return the stages that a run needs of this round if it is not the last."""
        if until == Until.evaluate:
            return (*([self.bought] if self.bought else []), self.evaluate)
        return ()


def parse_rounds(rounds: object, budget: int, typed: str, pool: str) -> tuple[int, ...]:
    """Turn `4` into four equal parts of the budget, and `[10%, 1k, 100%]` into these numbers of prompts, cumulative.

    Args:
        rounds: as configured, after `check_rounds`; shares are of the budget.
        budget: prompts in all.
        typed: the budget as typed, for messages.
        pool: its name, for messages.

    Returns:
        The number of prompts after each round; the last one is the budget.

    Raises:
        ValueError: a round would buy nothing, or the last round does not end at the budget.
    """
    if isinstance(rounds, int):
        if not 1 <= rounds <= min(budget, MOST_ROUNDS):
            raise ValueError(
                f"rounds={rounds} cannot divide a budget of {budget:,} prompts (budget={typed}): every round buys at "
                f"least one, and each finetunes the model; use 1 to {min(budget, MOST_ROUNDS)}"
            )
        return equal_parts(budget, rounds)
    given = cast(Sequence[object], rounds)
    numbers = [_part(text, budget, pool) for text in given]
    shown = f"rounds=[{','.join(map(str, given))}] is {', '.join(f'{number:,}' for number in numbers)} prompts"
    if any(after <= before for before, after in zip([0, *numbers], numbers, strict=False)):
        raise ValueError(f"{shown}: they are counted from the start, so each must exceed the one before; correct them")
    if numbers[-1] != budget:
        raise ValueError(f"{shown}, and the budget is {budget:,}: the last round must end at it; write 100% for it")
    if len(numbers) > MOST_ROUNDS:
        raise ValueError(f"{shown}: more than {MOST_ROUNDS} rounds; use fewer")
    return tuple(numbers)


def _part(text: object, budget: int, pool: str) -> int:
    try:
        return parse_budget(str(text), budget, pool)
    except ValueError:
        raise ValueError(
            f"rounds: {text} is not a part of a budget of {budget:,} prompts; give shares of it such as 10%, or "
            "numbers of prompts such as 500 or 2k, up to it"
        ) from None


def check_rounds(strategy: Strategy | UpperReference, rounds: object, stop_below: float | None) -> None:
    """Raise ValueError if rounds are not a number or a list, or a strategy cannot choose in them."""
    whole = isinstance(rounds, int) and not isinstance(rounds, bool)
    if not whole and (not isinstance(rounds, Sequence) or isinstance(rounds, str) or not rounds):
        raise ValueError(
            f"rounds={rounds!r} is neither a whole number nor a list; write rounds=4 or rounds=[10%,50%,100%], without "
            "quotes around the whole"
        )
    if stop_below is not None and not math.isfinite(stop_below):
        raise ValueError(f"stop_below={stop_below} is not a number of points; write stop_below=0.5, or leave it out")
    num_rounds = rounds if isinstance(rounds, int) else len(cast(Sequence[object], rounds))
    if num_rounds == 1:
        if stop_below is not None:
            raise ValueError(
                f"stop_below={stop_below:g} ends the rounds when the next one is projected to gain less, and rounds=1 "
                "has no next one; set rounds=4, or leave stop_below out"
            )
        return
    name = type(strategy).__name__
    if isinstance(strategy, UpperReference):
        raise ValueError(
            f"rounds={num_rounds}: {name} reads the responses of the whole pool before it chooses, so later rounds "
            "would teach it nothing; set rounds=1"
        )
    if isinstance(strategy, Allocation) and strategy.learns and not strategy.offset:
        raise ValueError(
            f"rounds={num_rounds}: allocation learns from losses before any annotation, which have no place on a curve "
            "with strategy.offset=0; set a number above 0, such as 1, or strategy.learn=false"
        )
    if isinstance(strategy, Partitioned) and strategy.num_parts > 1:
        raise ValueError(
            f"rounds={num_rounds}: {name} in {strategy.num_parts} parts cannot continue a selection; leave "
            "strategy/mode out, or set rounds=1"
        )


def shows_examples(annotator: Annotator) -> bool:
    """Tell whether an annotator is shown what earlier rounds annotated."""
    return isinstance(annotator, Teacher) and annotator.examples > 0


def check_examples(annotator: Annotator, num_rounds: int) -> None:
    """Raise ValueError if an annotator is to be shown examples from earlier rounds, and there are none."""
    if isinstance(annotator, Teacher) and annotator.examples and num_rounds == 1:
        raise ValueError(
            f"annotator.examples={annotator.examples} shows a teacher what earlier rounds annotated, and rounds=1 has "
            "no earlier round; set rounds=2 or more, or annotator.examples=0"
        )


def annotate_in_round(select: Select, annotator: Annotator, budget: int, num_before: int, base: Score) -> Annotate:
    """Return the stage that buys the responses of a round, with examples where there are any to show.

    Args:
        select: its ranking.
        annotator: who answers.
        budget: the prompts of all rounds so far.
        num_before: how many of them earlier rounds asked for.
        base: the base model's pass over the pool.
    """
    if not isinstance(annotator, Teacher) or not annotator.examples:
        return Annotate(select, annotator, budget, num_before=num_before)
    if select.before is None:  # the first round is that of a teacher without examples, under the same key
        return Annotate(select, replace(annotator, examples=0), budget)
    return Annotate(select, annotator, budget, num_before=num_before, score=base)


def make_rounds(
    whole: Select,
    budgets: Sequence[int],
    terms: Sequence[Terms],
    rest: Callable[[Select, int, int, bool], Round],
    tokens_per_batch: int,
    examples: bool = False,
) -> tuple[Round, ...]:
    """Return the rounds with these budgets.

    Args:
        whole: the selection of all prompts in a single round.
        budgets: prompts after each round.
        terms: of each round, if the budget is in money or tokens; else empty.
        rest: returns the stages after a selection; it is told the budget, that of the round before (0 in the first),
            and whether another round follows.
        tokens_per_batch: for reading what was bought.
        examples: whether the annotator is shown what earlier rounds annotated.
    """
    rounds: list[Round] = []
    for number, budget in enumerate(budgets):
        last = rounds[-1] if rounds else None
        select = _continued(last, budget, examples) if last else replace(whole, budget=budget)
        select = replace(select, terms=terms[number]) if terms else select
        one = rest(select, budget, last.budget if last else 0, number + 1 < len(budgets))
        if len(budgets) > 1:
            model, trainer = one.finetune.model, one.finetune.trainer
            trained, earlier = (last.finetune, last.bought) if last else (None, None)
            one = replace(one, bought=ReadBought(model, one.annotate, trained, earlier, trainer, tokens_per_batch))
        rounds.append(one)
    return tuple(rounds)


def _continued(last: Round, budget: int, examples: bool) -> Select:
    """Return the selection of the next round."""
    select, strategy = last.select, last.select.strategy
    if isinstance(strategy, Learner) and strategy.learns:
        return replace(select, budget=budget, before=last.annotate, bought=last.bought)
    if select.score is None and strategy.nested and not examples and select.terms is None:
        return replace(select, budget=budget)  # it reads nothing that a round changes
    score, target = (part and replace(part, adapter=last.finetune) for part in (select.score, select.target))
    return replace(select, budget=budget, before=last.annotate, score=score, target=target)


def known_rounds(
    rounds: Sequence[Round], planned: Sequence[float], stop_below: float | None, num_prompts: int, store: Store
) -> tuple[Sequence[Round], bool]:
    """Return the rounds that are certain to be run, and whether later ones may follow.

    Args:
        rounds: all that are configured.
        planned: their budgets, in prompts or as amounts of a limit.
        stop_below: the points that the next round must be projected to gain; None runs all.
        num_prompts: in the pool.
        store: where earlier rounds are.
    """
    for number, one in enumerate(rounds[:-1] if stop_below is not None else (), start=1):
        assert one.bought is not None and stop_below is not None
        if store.record(one.bought) is None:
            return rounds[:number], True
        following = next_budget(one, planned, number - 1, num_prompts, store)
        prospect = Prospect.after(one.bought, following, store)
        if prospect and prospect.points < stop_below:
            return rounds[:number], False
    return rounds, False


def name_rounds(planned: Sequence[float], stop_below: float | None) -> str:
    """Return what the id of a run says about its rounds; "" for a single one."""
    if len(planned) == 1:
        return ""
    budget, number = planned[-1], len(planned)
    if tuple(planned) == equal_parts(budget, number):
        text = f"-in{number}"
    else:
        text = f"-in{number}x{hashlib.sha256(repr(tuple(planned)).encode()).hexdigest()[:6]}"
    stopped = "" if stop_below is None else f"stop{stop_below:g}"
    return text + stopped


def next_budget(one: Round, planned: Sequence[float], number: int, num_prompts: int, store: Store) -> int:
    """Return the prompts after the round that follows round `number` (0, 1, ...); after the last one, of its size.

    With a budget in money or tokens, the next prompts are expected to cost as much as those that were bought.
    """
    if number + 1 < len(planned):
        following = planned[number + 1]
    else:
        following = 2 * planned[number] - (planned[number - 1] if number else 0)
    return min(round(one.annotate.num_rows(store) * following / planned[number]), num_prompts)
