"""Build an experiment from one configuration; everything that can be checked is checked before any expensive work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from aliquot.config.schema import Until, check_root, create, parse_budget
from aliquot.experiment.work import do
from aliquot.models.spec import Model
from aliquot.models.template import CHAT
from aliquot.pools.cleaning import EVALUATE
from aliquot.runtime import terminal
from aliquot.scoring.trial import Trial
from aliquot.selection.strategy import Strategy, check_requirements
from aliquot.stages import Annotate, Evaluate, Finetune, Prepare, Score, Select
from aliquot.store.store import Stage, Store, check_all, upstream_first
from aliquot.types import Pool

#: The stages that read the model.
READERS = (Score, Finetune, Evaluate)
_NUM_SAMPLED = 1000  # prompts of a pool that are read to estimate prompt lengths


@dataclass(frozen=True)
class Experiment:
    """Everything that one run does: its stages in execution order, and its names.

    Args:
        stages: upstream first; the last one is the goal.
        strategy: the name of the strategy's config choice.
        pool: the name of the pool.
        num_prompts: the size of the pool.
        budget: prompts to annotate.
        seed: of this run.
        trial: of the base model; it runs before any stage that reads the model.
        benchmark: names of the tasks, for the plan.
        overrides: what the command line changed; used to suggest the next command.
    """

    stages: tuple[Stage[Any], ...]
    strategy: str
    pool: str
    num_prompts: int
    budget: int
    seed: int
    trial: Trial
    benchmark: str
    overrides: tuple[str, ...] = ()

    def untried(self, store: Store) -> Trial | None:
        """Return the trial of the model if it must run first."""
        return _untried(self.trial, self.stages, store)

    @property
    def model(self) -> Model:
        """The base model."""
        return self.trial.model

    @property
    def id(self) -> str:
        """The identity of the run: the key of its goal and, since one ranking serves many budgets, its budget."""
        goal = self.stages[-1]
        return goal.key if isinstance(goal, Score) else f"{goal.key}-{self.budget}"

    @property
    def arm(self) -> str:
        """The strategy, with its settings and the scorer's that the command line changed, except seeds."""
        changed = [o for o in self.overrides if o.startswith(("strategy.", "strategy/", "scorer"))]
        shown = [o.removeprefix("strategy.").removeprefix("strategy/") for o in changed if "seed=" not in o]
        return " ".join([self.strategy, *shown])

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
        waiting = self.waiting
        return tuple(stage for stage in self.stages if not any(up is waiting for up in upstream_first([stage])))


def build(cfg: DictConfig, choice: str | None = None, overrides: tuple[str, ...] = ()) -> Experiment:
    """Turn a composed config into an experiment.

    The pool is prepared first, unless it is prepared already: its size determines the budget and the plan.

    Args:
        cfg: without Hydra's own node.
        choice: the name of the strategy; None takes it and the overrides from Hydra.
        overrides: what the command line changed.

    Raises:
        ValueError: a setting is unknown, a field is wrong, the pool cannot be read, or the strategy needs a signal that
            the scorer does not keep.
    """
    check_root(cfg)
    if choice is None:
        choice, overrides = _command_line(cfg)
    parts = {group: create(cfg, group) for group in ("model", "pool", "scorer", "strategy", "annotator")}
    parts |= {group: create(cfg, group) for group in ("finetune", "evaluate", "trainer")}
    spec, strategy = parts["pool"], parts["strategy"]
    if not isinstance(strategy, Strategy):
        raise ValueError(
            f"strategy._target_={cfg.strategy._target_} is not a strategy: it lacks requires, nested or select"
        )
    prepare = Prepare(spec, parts["evaluate"].bare() if EVALUATE in spec.clean.decontaminate else None)
    trial = Trial(parts["model"], parts["scorer"], parts["trainer"])
    draft, assists = partial(_stages, parts, prepare, cfg.until), parts["trainer"].place().rank > 0
    pool, prepare = _prepared(prepare, Store(Path(cfg.store)), draft, trial, silent=assists)
    budget = parse_budget(cfg.budget, len(pool), pool.name)
    check_requirements(strategy, pool, parts["scorer"])
    return Experiment(
        stages=_stages(parts, prepare, cfg.until, budget, len(pool), Store(Path(cfg.store))),
        strategy=choice,
        pool=pool.name,
        num_prompts=len(pool),
        budget=budget,
        seed=cfg.seed,
        trial=trial,
        benchmark=", ".join(parts["evaluate"].tasks),
        overrides=overrides,
    )


def _untried(trial: Trial, stages: Iterable[Stage[Any]], store: Store) -> Trial | None:
    """Return the trial if it is not done, and one of the stages that are not done reads the model."""
    to_read = any(isinstance(stage, READERS) and store.record(stage) is None for stage in stages)
    return trial if to_read and store.record(trial) is None else None


def quote(experiments: Iterable[Experiment], store: Store) -> float:
    """Estimate the maximum cost of the annotations still to buy, if selected prompts are like the average of the pool.

    Each ranking counts once, at its largest budget, and no annotator answers more prompts than the pool has.
    """
    rankings: dict[tuple[str, str], dict[str, Annotate]] = {}
    for experiment in experiments:
        for stage in experiment.stages:
            if isinstance(stage, Annotate) and not stage.digest and store.record(stage) is None:
                known = rankings.setdefault((repr(stage.annotator), stage.select.pool.key), {})
                if stage.select.key not in known or known[stage.select.key].budget < stage.budget:
                    known[stage.select.key] = stage
    cost = 0.0
    for stages in (list(known.values()) for known in rankings.values()):
        pool = store.get(stages[0].select.pool)
        sample = [pool.prompts[i] for i in range(0, len(pool), -(-len(pool) // _NUM_SAMPLED))]
        cost += stages[0].annotator.quote(min(len(pool), sum(stage.budget for stage in stages)), sample)
    return cost


def _stages(
    parts: dict[str, Any],
    prepare: Prepare,
    until: Until,
    budget: int = 1,
    num_prompts: int = 1,
    store: Store | None = None,
) -> tuple[Stage[Any], ...]:
    """Return the stages up to the goal, upstream first; a draft has no store, which knows what people returned."""
    model, strategy, trainer = parts["model"], parts["strategy"], parts["trainer"]
    score = Score(model, prepare, parts["scorer"], trainer, num_prompts)
    needs_scores = bool(strategy.requires - {"tasks"})
    select = Select(prepare, strategy, score if needs_scores else None, budget, trainer)
    annotate = Annotate(select, parts["annotator"], budget)
    if store is not None:
        annotate = annotate.settled(store)
    finetune = Finetune(model, annotate, parts["finetune"], trainer)
    base = Evaluate(model, None, parts["evaluate"], trainer)
    goal: Stage[Any] = {
        Until.score: score,
        Until.select: select,
        Until.annotate: annotate,
        Until.finetune: finetune,
        Until.evaluate: Evaluate(model, finetune, parts["evaluate"], trainer),
    }[until]
    chain = list(
        {stage.key: stage for stage in upstream_first([goal])}.values()
    )  # all parts of a ranking share a scoring pass
    if until == Until.evaluate:
        chain.insert(-2, base)  # before finetuning, so that an evaluation that cannot work fails early
    return tuple(chain)


def _prepared(
    prepare: Prepare, store: Store, draft: Callable[[], Sequence[Stage[Any]]], trial: Trial, silent: bool
) -> tuple[Pool, Prepare]:
    """Return the pool and the stage that describes its content; read and clean the pool now if that is not done.

    That may take long, so everything that can be known to fail without the pool is checked first. `draft` makes the
    stages of the experiment before the pool is known. Their keys are not final, and each stage that reads the pool
    counts as not done.
    """
    if store.record(prepare) is None:
        stages = [stage for stage in draft() if store.record(stage) is None]
        first = _untried(trial, stages, store)
        check_all([first, *stages] if first else stages)
        store.check_writable()
        if not silent:
            terminal.say(prepare.title())
        do(prepare, store)
        if (lost := prepare.report(store).line(prepare.source.name)) and not silent:
            terminal.say(f"{lost}: {store.directory(prepare)}")
    return store.get(prepare), prepare.settled(store)


def _command_line(cfg: DictConfig) -> tuple[str, tuple[str, ...]]:
    """Return the strategy's name and the overrides as typed; without a command line, the name is that of its module."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return str(cfg.strategy._target_).split(".")[-2], ()
    hydra = HydraConfig.get()
    return str(hydra.runtime.choices["strategy"]), tuple(hydra.overrides.task)
