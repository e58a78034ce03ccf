"""Build an experiment: from one configuration to its parts, and from the parts and the prepared pool to its stages.

    cfg -> Parts -> (the pool is prepared: `aliquot.experiment.pool`) -> Experiment

Nothing here prints, or reads Hydra's state: only the configuration, the store, and the files that these name.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from aliquot.annotation.annotator import Annotator
from aliquot.config.create import create
from aliquot.config.schema import Limit, Until, check_root, name_target, parse_budget, parse_limit, strategy_name
from aliquot.evaluation.held_out.run import ROWS_FILE
from aliquot.evaluation.held_out.source import HeldOutSource
from aliquot.evaluation.judge.run import read_responses
from aliquot.evaluation.judge.spec import BASE, Judge
from aliquot.evaluation.run import Yardstick
from aliquot.experiment.arm import label_of, marked
from aliquot.experiment.limits import check_limit, limits_of
from aliquot.experiment.rounds import (
    Round,
    annotate_in_round,
    check_examples,
    check_rounds,
    known_rounds,
    make_rounds,
    name_rounds,
    parse_rounds,
    shows_examples,
)
from aliquot.finetuning.recipe import LoRA
from aliquot.models.spec import Model
from aliquot.models.template import CHAT
from aliquot.pools.cleaning import EVALUATE
from aliquot.pools.spec import PoolSpec
from aliquot.pools.target import TargetFile
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.spec import Scorer
from aliquot.scoring.trial import Trial
from aliquot.selection.strategy import Strategy, check_requirements, check_target
from aliquot.selection.upper_reference import UpperReference
from aliquot.stages import (
    Annotate,
    Evaluate,
    Finetune,
    Overlap,
    Prepare,
    ReadBought,
    ReadResponses,
    ReadTarget,
    Score,
    Select,
)
from aliquot.store.store import Stage, Store, read_record, upstream_first
from aliquot.terms import Terms

#: The stages that read the model.
READERS = (Score, ReadResponses, ReadBought, Finetune, Evaluate)


@dataclass(frozen=True)
class Parts:
    """Everything that one configuration names, instantiated.

    Args:
        strategy_name: the name of the strategy's config choice.
        budget: as typed: a share of the pool is a number only when the pool is known.
        rounds: as configured, a number or a list.
        stop_below: points that the next round must be projected to gain, or None.
        overrides: what the command line changed; used to suggest the next command.
        limit: the budget, if it is in money or tokens.
        cost_aware: weigh gains against costs.
    """

    model: Model
    pool: PoolSpec
    target: TargetFile
    scorer: Scorer
    strategy: Strategy | UpperReference
    annotator: Annotator
    finetune: LoRA
    benchmark: Yardstick
    trainer: TrainerSpec
    strategy_name: str
    budget: str
    seed: int
    until: Until
    store: Store
    rounds: object = 1
    stop_below: float | None = None
    overrides: tuple[str, ...] = ()
    limit: Limit | None = None
    cost_aware: bool = False

    @classmethod
    def of(cls, cfg: DictConfig, overrides: Iterable[str] = ()) -> Parts:
        """Instantiate what a composed config names; its `hydra` node is not read.

        Raises:
            ValueError: a setting is unknown, or a field is wrong.
        """
        check_root(cfg)
        name_target(cfg)
        strategy = create(cfg, "strategy")
        if not isinstance(strategy, (Strategy, UpperReference)):
            raise ValueError(
                f"strategy._target_={cfg.strategy._target_} is not a strategy: it lacks requires, nested or select"
            )
        rounds = OmegaConf.to_object(cfg.rounds) if OmegaConf.is_config(cfg.rounds) else cfg.rounds
        check_rounds(strategy, rounds, cfg.stop_below)
        target = create(cfg, "target")
        if isinstance(strategy, Strategy):
            check_target(strategy, target.path is not None)
        limit, annotator = parse_limit(cfg.budget), create(cfg, "annotator")
        check_limit(limit, cfg.cost_aware, strategy, annotator, cfg.until)
        return cls(
            model=create(cfg, "model"),
            pool=create(cfg, "pool"),
            target=target,
            scorer=create(cfg, "scorer"),
            strategy=strategy,
            annotator=annotator,
            finetune=create(cfg, "finetune"),
            benchmark=create(cfg, "evaluate"),
            trainer=create(cfg, "trainer"),
            strategy_name=strategy_name(cfg),
            budget=cfg.budget,
            seed=cfg.seed,
            until=cfg.until,
            store=Store(Path(cfg.store)),
            rounds=rounds,
            stop_below=cfg.stop_below,
            overrides=tuple(overrides),
            limit=limit,
            cost_aware=cfg.cost_aware,
        )

    @property
    def prepare(self) -> Prepare:
        """The stage that prepares the pool."""
        without = cast(Any, self.benchmark).bare() if EVALUATE in self.pool.clean.decontaminate else None
        return Prepare(self.pool, without)

    def read_target(self, prepare: Prepare) -> ReadTarget | None:
        """Return the stage that reads the target; None unless the strategy chooses toward it."""
        return ReadTarget(self.target, pool=prepare) if "target" in self.strategy.requires else None

    @property
    def trial(self) -> Trial:
        """The trial of the model."""
        return Trial(self.model, self.scorer, self.trainer)

    def base(self, prepare: Prepare) -> Evaluate:
        """Return the stage that scores the base model."""
        return Evaluate(self.model, None, self.benchmark, self.trainer, self.overlap(prepare), _opponent(self))

    def terms(self, limit: Limit) -> Terms:
        """Return what a selection within a limit depends on."""
        return Terms(limit, self.cost_aware, self.annotator.tariff, self.model if limit.in_tokens else None)

    def overlap(self, prepare: Prepare) -> Overlap | None:
        """Return the stage that looks for held-out rows in the pool; None where none are read."""
        asked = self.until == Until.evaluate and isinstance(self.benchmark, HeldOutSource)
        return Overlap(prepare, cast(HeldOutSource, self.benchmark)) if asked else None

    def draft(self) -> tuple[Stage[Any], ...]:
        """Return the stages before the pool is known, for checks.

        Their keys are not final, and each stage that reads the pool counts as not done.
        """
        target = self.read_target(self.prepare)
        base = self.base(self.prepare)
        rounds = _rounds(self, self.prepare, base, target, (1,), (), num_prompts=1, settle=False)
        return _stages(self, self.prepare, base, rounds, num_prompts=1)


@dataclass(frozen=True)
class Experiment:
    """Everything that one run does: its stages in execution order, and its names.

    Args:
        stages: upstream first.
        goal: the last stage, if all planned rounds are run.
        strategy: the name of the strategy's config choice.
        pool: the name of the pool.
        num_prompts: the size of the pool.
        budget: prompts to annotate; an estimate where `limit` is the budget.
        seed: of this run.
        trial: of the base model; it runs before any stage that reads the model.
        benchmark: names of the tasks, for the plan.
        overrides: what the command line changed; used to suggest the next command.
        uses_response: whether the strategy is an upper reference.
        until: the stage after which it stops.
        rounds: that are certain to be run, one for most experiments.
        planned: the budget after each round that is configured: prompts, or the amount of a limit.
        stop_below: points that the next round must be projected to gain, or None.
        open: whether another round may follow: its projection is not known yet.
        limit: the budget of the rounds that are certain to be run, if it is in money or tokens.
    """

    stages: tuple[Stage[Any], ...]
    goal: Stage[Any]
    strategy: str
    pool: str
    num_prompts: int
    budget: int
    seed: int
    trial: Trial
    benchmark: str
    overrides: tuple[str, ...] = ()
    uses_response: bool = False
    until: Until = Until.evaluate
    rounds: Sequence[Round] = ()
    planned: Sequence[float] = ()
    stop_below: float | None = None
    open: bool = False
    limit: Limit | None = None

    def untried(self, store: Store) -> Trial | None:
        """Return the trial of the model if it must run first."""
        return untried(self.trial, self.stages, store)

    @property
    def model(self) -> Model:
        """The base model."""
        return self.trial.model

    @property
    def id(self) -> str:
        """The identity of the run: the key of its goal and, since one ranking serves many budgets, its budget.

        It is the same before and after it is known how many rounds are worth it.
        """
        if isinstance(self.goal, Score):
            return self.goal.key
        budget = self.whole_limit or self.planned[-1]
        return f"{self.goal.key}-{budget}{name_rounds(self.planned, self.stop_below)}"

    @property
    def whole_limit(self) -> Limit | None:
        """The limit of all planned rounds together."""
        return self.limit and self.limit.of(self.planned[-1] / self.limit.amount)

    @functools.cached_property
    def arm(self) -> str:
        """The strategy and the settings that distinguish it from the plain choice of that name."""
        select = next((stage for stage in reversed(self.stages) if isinstance(stage, Select)), None)
        return (
            label_of(self.strategy, select, self.planned, self.stop_below)
            if select
            else marked(self.strategy, self.uses_response)
        )

    @property
    def waiting(self) -> Annotate | None:
        """The stage that waits for people's responses, or None."""
        return next((stage for stage in self.stages if isinstance(stage, Annotate) and stage.waits()), None)

    @property
    def unused_chat(self) -> bool:
        """Tell whether the tokenizer has a chat template that is not used; False where that is unknown."""
        if self.model.template == CHAT or not any(isinstance(stage, READERS) for stage in self.stages):
            return False
        try:
            return self.model.has_chat_template()
        except (ValueError, OSError):  # the check of the stage reports what is wrong with the model
            return False

    @property
    def ready(self) -> tuple[Stage[Any], ...]:
        """The stages that do not wait for people's responses."""
        if self.waiting is None:
            return self.stages
        waits = (any(isinstance(up, Annotate) and up.waits() for up in upstream_first([s])) for s in self.stages)
        return tuple(stage for stage, must_wait in zip(self.stages, waits, strict=True) if not must_wait)


def build(parts: Parts) -> Experiment:
    """Return the experiment of these parts; the pool is prepared if it is not yet (see `aliquot.experiment.pool`).

    Raises:
        ValueError: the pool cannot be read, the budget exceeds it, or the strategy needs a signal that the scorer does
            not keep; or held-out rows are also in the pool.
    """
    prepare = parts.prepare.settled(parts.store)
    pool = parts.store.get(prepare)
    limits: tuple[Limit, ...] = ()
    if parts.limit:
        limits = limits_of(parts.rounds, parts.limit, parts.budget)
        longest = parts.scorer.max_new_tokens
        budgets = tuple(parts.terms(limit).expected_rows(pool, longest) for limit in limits)
        planned: Sequence[float] = [limit.amount for limit in limits]
    else:
        budget = parse_budget(parts.budget, len(pool), pool.name)
        planned = budgets = parse_rounds(parts.rounds, budget, parts.budget, pool.name)
    check_examples(parts.annotator, len(planned))
    if isinstance(parts.strategy, Strategy):
        check_requirements(parts.strategy, pool, parts.scorer)
    target = parts.read_target(prepare)
    target = target and cast(ReadTarget, target.settled(parts.store))
    base = parts.base(prepare)
    if overlap := base.overlap:
        compared = parts.store.get(overlap)
        compared.check(overlap.held_out)
        if isinstance(base.opponent, str):
            file = parts.store.root / Evaluate.name / base.opponent / ROWS_FILE
            read_responses(file, compared.rows(overlap.held_out))  # before anything is paid for
    every = _rounds(parts, prepare, base, target, budgets, limits, len(pool))
    stop_below = None if parts.until == Until.score else parts.stop_below
    rounds, may_follow = known_rounds(every, planned, stop_below, len(pool), parts.store)
    return Experiment(
        stages=_stages(parts, prepare, base, rounds, len(pool), may_follow),
        goal=_goal(parts, prepare, every[-1], len(pool)),
        strategy=parts.strategy_name,
        pool=pool.name,
        num_prompts=len(pool),
        budget=rounds[-1].budget,
        seed=parts.seed,
        trial=parts.trial,
        benchmark=", ".join(parts.benchmark.tasks),
        overrides=parts.overrides,
        uses_response=isinstance(parts.strategy, UpperReference),
        until=parts.until,
        rounds=rounds,
        planned=planned,
        stop_below=parts.stop_below,
        open=may_follow,
        limit=parts.limit and limits[len(rounds) - 1],
    )


def untried(trial: Trial, stages: Iterable[Stage[Any]], store: Store) -> Trial | None:
    """Return the trial if it is not done, and one of the stages that are not done reads the model."""
    to_read = any(isinstance(stage, READERS) and store.record(stage) is None for stage in stages)
    return trial if to_read and store.record(trial) is None else None


def _rounds(
    parts: Parts,
    prepare: Prepare,
    base: Evaluate,
    target: ReadTarget | None,
    budgets: Sequence[int],
    limits: Sequence[Limit],
    num_prompts: int,
    settle: bool = True,
) -> tuple[Round, ...]:
    """Return the rounds with these budgets, or these limits; `settle` reads what people have returned."""
    model, strategy, trainer = parts.model, parts.strategy, parts.trainer
    score = Score(model, prepare, parts.scorer, trainer, num_prompts)
    needs_scores = bool(strategy.requires - {"tasks"})
    of_target = None
    if target:
        raw = replace(parts.scorer, normalize="raw")  # it is normalized by what is fitted on the pool
        size = len(parts.store.get(target)) if settle else 1
        of_target = Score(model, target, raw, trainer, size)
    responses = _responses(parts, prepare, num_prompts, settle) if isinstance(strategy, UpperReference) else None
    whole = Select(prepare, strategy, score if needs_scores else None, budgets[-1], trainer, of_target, responses)

    def rest(select: Select, budget: int, num_before: int, another_follows: bool) -> Round:
        annotate = annotate_in_round(select, parts.annotator, budget, num_before, score)
        if settle:
            annotate = annotate.settled(parts.store, another_follows)
        finetune = Finetune(model, annotate, parts.finetune, trainer)
        return Round(annotate, finetune, replace(base, finetune=finetune, opponent=base.opponent or _to_judge(base)))

    terms = [parts.terms(limit) for limit in limits]
    return make_rounds(whole, budgets, terms, rest, parts.scorer.tokens_per_batch, shows_examples(parts.annotator))


def _stages(
    parts: Parts,
    prepare: Prepare,
    base: Evaluate,
    rounds: Sequence[Round],
    num_prompts: int,
    may_follow: bool = False,
) -> tuple[Stage[Any], ...]:
    """Return the stages up to the goal, upstream first."""
    last = rounds[-1]
    goal = _goal(parts, prepare, last, num_prompts)
    if parts.until == Until.score:
        return tuple(upstream_first([goal]))
    goals = [stage for one in rounds[:-1] for stage in one.goals(parts.until)]
    goals += [*last.goals(parts.until)[:-1], goal]
    if may_follow and last.bought:  # it decides
        goals.insert(-1, last.bought)
    # The parts of a ranking share a scoring pass, and rounds of one ranking differ in depth.
    chain = list({stage.key: stage for stage in upstream_first(goals)}.values())
    if parts.until == Until.evaluate and all(stage.key != base.key for stage in chain):
        first = next(place for place, stage in enumerate(chain) if isinstance(stage, Finetune))
        chain.insert(first, base)  # before finetuning, so that an evaluation that cannot work fails early
    return tuple(chain)


def _goal(parts: Parts, prepare: Prepare, last: Round, num_prompts: int) -> Stage[Any]:
    """Return the stage that a run ends with, if this is its last round."""
    return {
        Until.score: Score(parts.model, prepare, parts.scorer, parts.trainer, num_prompts),
        Until.select: last.select,
        Until.annotate: last.annotate,
        Until.finetune: last.finetune,
        Until.evaluate: last.evaluate,
    }[parts.until]


def _responses(parts: Parts, prepare: Prepare, num_prompts: int, settle: bool) -> ReadResponses:
    """Return the stage that reads the pool's responses.

    Raises:
        ValueError: they are needed, and the annotator has not given all of them.
    """
    tokens_per_batch = parts.scorer.tokens_per_batch
    stage = ReadResponses(parts.model, prepare, parts.annotator, parts.trainer, tokens_per_batch, num_prompts)
    return stage.settled(parts.store) if settle and parts.until != Until.score else stage


def _opponent(parts: Parts) -> str | None:
    """Return the key of the evaluation of another run that a judge compares with; None for the base model's.

    Raises:
        ValueError: there is no such run, or it was not evaluated.
    """
    if not isinstance(parts.benchmark, Judge) or parts.benchmark.against == BASE:
        return None
    against, store = parts.benchmark.against, parts.store
    results, key = store.run_directory(against) / "results.json", ""
    if results.exists():
        stages = json.loads(results.read_text(encoding="utf-8"))["stages"]
        key = next((key for name, key, _ in stages if name == "evaluate finetuned"), "")
    if not key or not read_record(store.root / Evaluate.name / key):
        raise ValueError(
            f"evaluate.against={against}: {store.runs} has no evaluated run of that name; `python -m aliquot report "
            "--runs` lists them; or compare with the base model: evaluate.against=base"
        )
    return key


def _to_judge(base: Evaluate) -> Evaluate | None:
    """Return the base model's evaluation if a judge compares others with it."""
    return base if isinstance(base.benchmark, Judge) else None
