"""From a configuration to an experiment, and from an experiment to its results.

`build` turns the config into stages, checking all that can be checked before anything expensive starts.
`run` shows the plan, does what is not done yet, and shows the results.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from aliquot import console
from aliquot.annotators.people import People
from aliquot.config import Until, create, parse_budget
from aliquot.pools.clean import EVALUATE
from aliquot.results import RunRecord, save_config, write_selection
from aliquot.stages import Annotate, Evaluate, Finetune, Prepare, Score, Select
from aliquot.store import Pending, Stage, Store, check_all, ignore, upstream_first, write_atomic
from aliquot.strategies.base import Strategy, check_requirements
from aliquot.tracker import NoTracker, Tracked, Tracker
from aliquot.types import Pool


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

    @property
    def arm(self) -> str:
        """The strategy, with the settings of it and of the scorer that the command line changed, but for seeds."""
        changed = [o for o in self.overrides if o.startswith(("strategy.", "strategy/", "scorer"))]
        shown = [o.removeprefix("strategy.").removeprefix("strategy/") for o in changed if "seed=" not in o]
        return " ".join([self.strategy, *shown])

    @property
    def waiting(self) -> Annotate | None:
        """The stage that people have to answer before it can be done, or None."""
        return next((stage for stage in self.stages if isinstance(stage, Annotate) and stage.waits()), None)

    @property
    def ready(self) -> tuple[Stage[Any], ...]:
        """The stages that need no answers of people, or have them."""
        waiting = self.waiting
        return tuple(stage for stage in self.stages if not any(up is waiting for up in upstream_first([stage])))


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
    draft, assists = partial(_stages, parts, prepare, cfg.until), parts["trainer"].place().rank > 0
    pool, prepare = _prepared(prepare, Store(Path(cfg.store)), draft, silent=assists)
    budget = parse_budget(cfg.budget, len(pool), pool.name)
    check_requirements(strategy, pool, parts["scorer"])
    return Experiment(
        stages=_stages(parts, prepare, cfg.until, budget, len(pool), Store(Path(cfg.store))),
        strategy=choice,
        pool=pool.name,
        num_prompts=len(pool),
        budget=budget,
        seed=cfg.seed,
        overrides=overrides,
    )


def _stages(
    parts: dict[str, Any],
    prepare: Prepare,
    until: Until,
    budget: int = 1,
    num_prompts: int = 1,
    store: Store | None = None,
) -> tuple[Stage[Any], ...]:
    """Return the stages up to the goal, upstream first; drafted without a store, which knows what people returned."""
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
    )  # parts of a ranking share a scoring pass
    if until == Until.evaluate:
        chain.insert(-2, base)  # before finetuning: what keeps an evaluation from working shows early
    return tuple(chain)


def _prepared(
    prepare: Prepare, store: Store, draft: Callable[[], Sequence[Stage[Any]]], silent: bool
) -> tuple[Pool, Prepare]:
    """Return the pool, and the stage that knows what is in it; read and cleaned now if it was not before.

    That may take long, so what can be known to fail without it is looked at first. `draft` makes the stages of the
    experiment before the pool is known: their keys are not the final ones, and whatever reads the pool is to do.
    """
    if store.record(prepare) is None:
        check_all(stage for stage in draft() if store.record(stage) is None)
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
    fetch([cfg])
    experiment = build(cfg)
    store = Store(Path(cfg.store))
    todo = [stage for stage in experiment.stages if store.record(stage) is None]
    if not assists:
        console.show_plan(experiment, store)
    store.check_writable()
    check_all(todo)
    for stage in todo:
        stage.check_devices()
    if cfg.check:
        if not assists:
            console.show_checked()
        return math.nan
    if experiment.waiting:
        _choose(experiment.waiting, experiment, store, silent=assists)
        experiment = build(cfg)  # what was chosen may have been answered before
        if experiment.waiting:
            if not assists:
                ask([experiment], store, shlex.join(["python", *sys.argv]))
            return math.nan
    if assists:  # one of several processes, the first of which does what only one can do
        for stage in experiment.stages:
            store.assist(stage)
        return math.nan
    record = execute(experiment, store, cfg, tracker if todo else NoTracker())
    console.show_results(record, store.root / "runs" / experiment.id, computed=len(todo))
    return record.mean_score()


def fetch(cfgs: Sequence[DictConfig]) -> None:
    """Bring in what people have answered on labelling servers, each batch once: keys depend on it."""
    seen: list[People] = []
    for cfg in cfgs:
        annotator = create(cfg, "annotator") if cfg.until not in (Until.score, Until.select) else None
        if isinstance(annotator, People) and annotator not in seen:
            seen.append(annotator)
            annotator.fetch()


def _choose(waiting: Annotate, experiment: Experiment, store: Store, silent: bool) -> None:
    """Choose the prompts, without a run to record: it begins when people have answered."""
    numbers = {stage.key: number for number, stage in enumerate(experiment.stages, start=1)}
    for stage in upstream_first([waiting.select]):
        if store.record(stage) is None:
            if not silent:
                console.say(f"[{numbers.get(stage.key, '-')}/{len(experiment.stages)}] {stage.title()}")
            store.ensure(stage)


def ask(experiments: Sequence[Experiment], store: Store, command: str) -> None:
    """Ask people for all that experiments wait for, and say so, once for each batch.

    Args:
        experiments: whose prompts are chosen.
        store: where the choices are.
        command: what to type when the responses are back.
    """
    batches: dict[People, list[Annotate]] = {}
    for experiment in experiments:
        stage = experiment.waiting
        if stage and isinstance(stage.annotator, People) and store.record(stage.select):  # else choosing failed
            batches.setdefault(stage.annotator, []).append(stage)
    for annotator, stages in batches.items():
        requests = [stage.request(store) for stage in stages]
        union = {row_id: prompt for ids, prompts in requests for row_id, prompt in zip(ids, prompts, strict=True)}
        for ids, prompts in ((list(union), list(union.values())), *requests):
            try:
                annotator.annotate(stages[0].source, ids, prompts, store.root)
            except Pending as pending:
                console.say(f"{pending}\n  {command}")
                break


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
    with _mirrored(experiment, store, cfg, tracker, sweep) as tracked:
        record = _execute(experiment, store, directory, tracked)
        tracked.results(record.summary())
    return record


def build_stage(
    stage: Stage[Any], experiment: Experiment, store: Store, cfg: DictConfig, tracker: Tracker, sweep: dict[str, str]
) -> None:
    """Build one stage of an experiment, whose losses show in the mirror as they come, where the mirror is live.

    Whoever finishes the experiment goes on with the same run of the mirror.
    """
    if not (isinstance(stage, Finetune) and tracker.live):
        store.ensure(stage)
        return
    with _mirrored(experiment, store, cfg, tracker, sweep) as tracked:
        for line in _losses(stage, store):  # of a worker that was cut off
            tracked.log(line)
        store.ensure(stage)


@contextlib.contextmanager
def _mirrored(
    experiment: Experiment, store: Store, cfg: DictConfig, tracker: Tracker, sweep: dict[str, str] | None
) -> Generator[Tracked]:
    """Mirror what the store logs meanwhile in the experiment's run of the tracker."""
    directory = store.root / "runs" / experiment.id
    config = save_config(cfg, directory)
    about = {name: getattr(experiment, name) for name in ("strategy", "arm", "budget", "pool", "num_prompts")}
    config["experiment"] = about | {"model": Path(config["model"]["path"]).name}
    config["stages"] = {stage.name: stage.key for stage in experiment.stages}
    if sweep:
        config["sweep"] = sweep
    tracked, failed = tracker.start(experiment.id, config, directory), True
    try:
        store.on_metrics = tracked.log
        yield tracked
        failed = False
    finally:
        store.on_metrics = ignore
        tracked.finish(failed)


def _execute(experiment: Experiment, store: Store, directory: Path, tracked: Tracked) -> RunRecord:
    """Do what is not done yet, stage by stage, and record the run."""
    for number, stage in enumerate(experiment.stages, start=1):
        if isinstance(stage, Finetune):
            for line in _losses(stage, store):  # of a run that was cut off, or of a worker of a sweep
                tracked.log(line)
        if store.record(stage) is None:
            console.say(f"[{number}/{len(experiment.stages)}] {stage.title()}")
            store.ensure(stage)
        if isinstance(stage, Select):
            file = directory / "selected.jsonl"
            tracked.selection(write_selection(store.get(stage.pool), store.get(stage), file), file)
        if isinstance(stage, Annotate) and (page := stage.quality(store)):
            write_atomic(directory / "quality.html", page)
        if isinstance(stage, Finetune):
            tracked.adapter(store.get(stage).path)
    logged = [store.directory(stage) / "metrics.jsonl" for stage in experiment.stages if isinstance(stage, Finetune)]
    record = RunRecord.of(experiment, store)
    record.write(directory, losses="".join(path.read_text() for path in logged))
    return record


def _losses(stage: Finetune, store: Store) -> Iterator[dict[str, Any]]:
    """Yield what finetuning has logged so far; a crash may have cut the last line in half."""
    path = store.directory(stage) / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        yield json.loads(line)
