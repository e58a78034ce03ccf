"""From a configuration to an experiment, and from an experiment to its results.

`build` turns the config into stages, checking all that can be checked before anything expensive starts.
`run` shows the plan, does what is not done yet, and shows the results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from aliquot import console
from aliquot.config import Until, create, parse_budget
from aliquot.pools.clean import EVALUATE
from aliquot.results import RunRecord, save_config, write_selection
from aliquot.stages import Annotate, Evaluate, Finetune, Prepare, Score, Select
from aliquot.store import Stage, Store, ignore, upstream_first
from aliquot.strategies.base import Strategy, check_requirements
from aliquot.tracker import NoTracker, Tracked, Tracker
from aliquot.types import Pool

#: Rows of the selection that the tracker shows; selected.jsonl has them all.
TABLE_ROWS = 1000


@dataclass(frozen=True)
class Experiment:
    """Everything one run is about: the stages in the order they are done, and what to call it.

    Args:
        stages: upstream first; the last one is the goal.
        strategy: the name of the choice.
        pool: the name of the pool.
        num_prompts: its size.
        budget: prompts to annotate.
        seed: of this run.
        overrides: what the command line changed, to suggest the next command.
    """

    stages: tuple[Stage[Any], ...]
    strategy: str
    pool: str
    num_prompts: int
    budget: int
    seed: int
    overrides: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The identity of the run: its goal's key and, since a ranking serves many, its budget."""
        goal = self.stages[-1]
        return goal.key if isinstance(goal, Score) else f"{goal.key}-{self.budget}"


def build(cfg: DictConfig, choice: str | None = None, overrides: tuple[str, ...] = ()) -> Experiment:
    """Turn a composed config into an experiment.

    The pool is prepared on the way, unless it is already: its size decides the budget and the plan.

    Args:
        cfg: without Hydra's own node.
        choice: the name of the strategy; None asks Hydra for it, and for the overrides.
        overrides: what the command line changed.

    Raises:
        ValueError: a field is wrong, the pool cannot be read, or the strategy needs what the scorer does not keep.
    """
    if choice is None:
        choice, overrides = _command_line(cfg)
    parts = {group: create(cfg, group) for group in ("model", "pool", "scorer", "strategy", "annotator")}
    parts |= {group: create(cfg, group) for group in ("finetune", "evaluate", "trainer")}
    spec, strategy = parts["pool"], parts["strategy"]
    if not isinstance(strategy, Strategy):
        raise ValueError(
            f"strategy._target_={cfg.strategy._target_} is no strategy: it lacks requires, nested or select"
        )
    prepare = Prepare(spec, parts["evaluate"].bare() if EVALUATE in spec.clean.decontaminate else None)
    drafted, assists = _stages(parts, prepare, cfg.until), parts["trainer"].place().rank > 0
    pool, prepare = _prepared(prepare, Store(Path(cfg.store)), drafted, silent=assists)
    budget = parse_budget(cfg.budget, len(pool), pool.name)
    check_requirements(strategy, pool, parts["scorer"])
    return Experiment(
        stages=_stages(parts, prepare, cfg.until, budget, len(pool)),
        strategy=choice,
        pool=pool.name,
        num_prompts=len(pool),
        budget=budget,
        seed=cfg.seed,
        overrides=overrides,
    )


def _stages(
    parts: dict[str, Any], prepare: Prepare, until: Until, budget: int = 1, num_prompts: int = 1
) -> tuple[Stage[Any], ...]:
    """Return the stages up to the goal, upstream first."""
    model, strategy, trainer = parts["model"], parts["strategy"], parts["trainer"]
    score = Score(model, prepare, parts["scorer"], trainer, num_prompts)
    needs_scores = bool(strategy.requires - {"tasks"})
    select = Select(prepare, strategy, score if needs_scores else None, budget, trainer)
    annotate = Annotate(select, parts["annotator"], budget)
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
    )  # parts of a ranking share a scoring pass
    if until == Until.evaluate:
        chain.insert(-2, base)  # before finetuning: what keeps an evaluation from working shows early
    return tuple(chain)


def _prepared(prepare: Prepare, store: Store, drafted: Sequence[Stage[Any]], silent: bool) -> tuple[Pool, Prepare]:
    """Return the pool, and the stage that knows what is in it; read and cleaned now if it was not before.

    That may take long, so what can be known to fail without it is looked at first. `drafted` are the stages of the
    experiment before the pool is known: their keys are not the final ones, and whatever reads the pool is to do.
    """
    if store.record(prepare) is None:
        for stage in drafted:
            if store.record(stage) is None:
                stage.check()
        store.check_writable()
        if not silent:
            console.say(prepare.title())
        store.ensure(prepare)
        if (lost := prepare.report(store).line(prepare.source.name)) and not silent:
            console.say(f"{lost}: {store.directory(prepare)}")
    return store.get(prepare), prepare.settled(store)


def _command_line(cfg: DictConfig) -> tuple[str, tuple[str, ...]]:
    """Return the strategy's name and the overrides as typed; composed without a command line, by its module."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return str(cfg.strategy._target_).split(".")[-2], ()
    hydra = HydraConfig.get()
    return str(hydra.runtime.choices["strategy"]), tuple(hydra.overrides.task)


def run(cfg: DictConfig) -> float:
    """Run the experiment the config describes; return the mean score of its benchmarks (NaN without any)."""
    assists = create(cfg, "trainer").place().rank > 0
    console.set_up_logging(silent=assists)
    tracker: Tracker = create(cfg, "tracker")
    experiment = build(cfg)
    store = Store(Path(cfg.store))
    todo = [stage for stage in experiment.stages if store.record(stage) is None]
    if not assists:
        console.show_plan(experiment, store)
    store.check_writable()
    for stage in todo:
        stage.check()
        stage.check_devices()
    if assists:  # one of several processes, the first of which does what only one can do
        for stage in () if cfg.check else todo:
            store.assist(stage)
        return math.nan
    if cfg.check:
        console.say("Checked: everything is in order. Nothing was done, except that the pool was read.")
        return math.nan
    record = execute(experiment, store, cfg, tracker if todo else NoTracker())
    console.show_results(record, store.root / "runs" / experiment.id, computed=len(todo))
    return record.mean_score()


def execute(
    experiment: Experiment, store: Store, cfg: DictConfig, tracker: Tracker, sweep: dict[str, str] | None = None
) -> RunRecord:
    """Do what is not done yet, write what the run leaves for people, and mirror it.

    Args:
        experiment: what to do.
        store: where results live.
        cfg: what the experiment was built from.
        tracker: of the mirror.
        sweep: id and command of the sweep that the experiment belongs to.
    """
    directory = store.root / "runs" / experiment.id
    tracked = _track(save_config(cfg, directory), tracker, experiment, directory, sweep)
    summary: dict[str, Any] | None = None
    try:
        store.on_metrics = tracked.log
        record = _execute(experiment, store, directory, tracked)
        summary = record.summary()
    finally:
        store.on_metrics = ignore
        tracked.finish(summary)
    return record


def _track(
    config: dict[str, Any], tracker: Tracker, experiment: Experiment, directory: Path, sweep: dict[str, str] | None
) -> Tracked:
    config = {**config, "stages": {stage.name: stage.key for stage in experiment.stages}}
    if sweep:
        config["sweep"] = sweep
    tags = (experiment.strategy, f"{experiment.budget}", experiment.pool, Path(config["model"]["path"]).name)
    return tracker.start(experiment.id, config, tags, directory, sweep["id"] if sweep else None)


def _execute(experiment: Experiment, store: Store, directory: Path, tracked: Tracked) -> RunRecord:
    """Do what is not done yet, stage by stage, and record the run."""
    for number, stage in enumerate(experiment.stages, start=1):
        if store.record(stage) is None:
            console.say(f"[{number}/{len(experiment.stages)}] {stage.title()}")
            store.ensure(stage)
        elif isinstance(stage, Finetune):  # by a run that was cut off, or by a worker of a sweep
            for line in (store.directory(stage) / "metrics.jsonl").read_text().splitlines():
                tracked.log(json.loads(line))
        if isinstance(stage, Select):
            rows = write_selection(store.get(stage.pool), store.get(stage), directory / "selected.jsonl")
            tracked.table("selection", rows[:TABLE_ROWS])
    logged = [store.directory(stage) / "metrics.jsonl" for stage in experiment.stages if isinstance(stage, Finetune)]
    record = RunRecord.of(experiment, store)
    record.write(directory, losses="".join(path.read_text() for path in logged))
    return record
