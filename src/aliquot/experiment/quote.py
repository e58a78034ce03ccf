"""What experiments cost at most: the responses and verdicts that are still to buy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aliquot.evaluation.judge.spec import Judge, JudgeModel
from aliquot.experiment.build import Experiment
from aliquot.stages import Annotate, Evaluate
from aliquot.store.store import Store
from aliquot.types import Pool

_NUM_SAMPLED = 1000  # prompts of a pool that are read to estimate prompt lengths


def quote(experiments: Sequence[Experiment], store: Store) -> float:
    """Estimate the maximum cost of what is still to buy, if selected prompts are like the average of the pool.

    Each ranking counts once, at its largest budget, and no annotator answers more prompts than the pool has.
    """
    rankings: dict[tuple[str, str], dict[str, Annotate]] = {}
    for experiment in experiments:
        asking = [stage for stage in experiment.stages if isinstance(stage, Annotate)]
        for stage in asking[-1:]:  # the last round asks for the prompts of all
            if experiment.open:
                stage = _whole(stage, experiment)
            if not stage.digest and store.record(stage) is None:
                known = rankings.setdefault((repr(stage.annotator), stage.select.pool.key), {})
                if stage.select.key not in known or known[stage.select.key].budget < stage.budget:
                    known[stage.select.key] = stage
    cost = 0.0
    for stages in (list(known.values()) for known in rankings.values()):
        pool = store.get(stages[0].select.pool)
        sample = [pool.prompts[i] for i in range(0, len(pool), -(-len(pool) // _NUM_SAMPLED))]
        quoted = stages[0].annotator.quote(min(len(pool), sum(_most_rows(stage, pool) for stage in stages)), sample)
        limits = [stage.limit.amount for stage in stages if stage.limit and not stage.limit.in_tokens]
        cost += min(quoted, sum(limits)) if len(limits) == len(stages) else quoted
    todo = {stage.key: stage for e in experiments for stage in e.stages if store.record(stage) is None}
    questions: dict[JudgeModel, list[str]] = {}
    for stage in todo.values():
        if isinstance(stage, Evaluate) and stage.opponent and isinstance(stage.benchmark, Judge):
            questions.setdefault(stage.benchmark.judge, []).extend(stage.benchmark.longest_questions())
    return cost + sum(judge.quote(2 * len(asked), asked) for judge, asked in questions.items())


def _whole(stage: Annotate, experiment: Experiment) -> Annotate:
    """Return the stage as it is if all planned rounds are run."""
    terms, limit = stage.select.terms, experiment.whole_limit
    if terms is None or limit is None:
        return replace(stage, budget=int(experiment.planned[-1]))
    return replace(stage, select=replace(stage.select, terms=replace(terms, limit=limit)))


def _most_rows(stage: Annotate, pool: Pool) -> int:
    """Return how many prompts are asked at most; those that money buys may all be cheap, and the money is the limit."""
    return len(pool) if stage.limit and not stage.limit.in_tokens else stage.budget
