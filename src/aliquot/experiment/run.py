"""Run an experiment: show the plan, build what is not done yet, and show the results."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from aliquot.annotation.annotator import Annotator
from aliquot.config.create import create
from aliquot.config.schema import Until, check_hydra, check_root, name_strategy
from aliquot.experiment import console
from aliquot.experiment.build import Experiment, Parts, build
from aliquot.experiment.next_command import again, next_command, overrides_of
from aliquot.experiment.pool import prepare_pool
from aliquot.experiment.record import RoundRecord, RunRecord, save_config, write_selection
from aliquot.experiment.rounds import next_budget
from aliquot.experiment.tracker import NoTracker, Tracked, Tracker
from aliquot.experiment.work import do
from aliquot.runtime.logs import set_up_logging
from aliquot.runtime.terminal import new_console, say
from aliquot.scoring.trial import Trial
from aliquot.stages import LEDGER, Annotate, Finetune, Select
from aliquot.store.store import OnMetrics, Pending, Stage, Store, check_all, upstream_first, write_atomic
from aliquot.types import Selection

#: What a mirror is told about an experiment, besides its configuration.
_ABOUT = ("strategy", "arm", "uses_response", "budget", "pool", "num_prompts")


def run(cfg: DictConfig) -> float:
    """Run the experiment the config describes; return the mean score of its benchmarks (NaN without any).

    Several processes may run it together. Only the first prints, and does what must happen once.
    """
    check_root(cfg)
    if HydraConfig.initialized():
        check_hydra(cast(DictConfig, HydraConfig.get()))
        name_strategy(cfg, HydraConfig.get().runtime.choices["strategy"])
    assists = create(cfg, "trainer").place().rank > 0
    set_up_logging(silent=assists)
    out = new_console(silent=assists)
    tracker: Tracker = create(cfg, "tracker")
    fetch([cfg])
    parts = Parts.of(cfg, HydraConfig.get().overrides.task if HydraConfig.initialized() else ())
    prepare_pool(parts, out)
    experiment, store = build(parts), parts.store
    trial = experiment.untried(store)
    todo = [stage for stage in experiment.stages if store.record(stage) is None]
    console.show_plan(experiment, store, out)
    _check(trial, todo, store, only_checks=cfg.check)
    if cfg.check:
        if not assists:
            console.show_checked(try_models([trial] if trial else [], store))
        return math.nan
    experiment = _advance(parts, experiment, None if assists else out)
    if assists:
        if not experiment.waiting:
            for stage in experiment.stages:
                store.assist(stage)
        return math.nan
    if experiment.waiting:
        ask([experiment], store, again(cfg))
        return math.nan
    console.show_end_of_rounds(experiment, store)
    record = execute(experiment, store, cfg, tracker if todo else NoTracker())
    overrides = experiment.overrides if HydraConfig.initialized() else overrides_of(cfg)
    following = next_command(record, cfg, overrides)
    console.show_results(record, store.run_directory(experiment.id), len(todo), following)
    return record.mean_score()


def _check(trial: Trial | None, todo: Sequence[Stage[Any]], store: Store, only_checks: bool) -> None:
    """Check everything that can be known to fail; devices are not needed where other machines will do the work."""
    store.check_writable()
    check_all([trial, *todo] if trial else todo)
    if not only_checks or trial is None or trial.trainer.is_here():
        for stage in todo:
            stage.check_devices()


def _advance(parts: Parts, experiment: Experiment, out: Console | None) -> Experiment:
    """Do what later stages depend on, until all of them are known, or people must answer.

    Which prompts a later round asks depends on what people have returned, and whether there is a later round may depend
    on the projected gain. Without `out`, this process assists another, which prints.
    """
    store = parts.store
    while True:
        waiting = experiment.waiting
        if waiting is None and not experiment.open:
            return experiment
        known = _known(experiment)
        if waiting and all(store.record(stage) for stage in known):
            return experiment
        _do_known(known, experiment, store, out)
        experiment = build(parts)  # people may have answered the selected prompts already


def try_models(trials: Iterable[Trial], store: Store, elsewhere: bool = False) -> list[str]:
    """Try models that this machine can try, and return one line on each.

    Args:
        trials: of the models.
        store: where to save the results.
        elsewhere: other machines will read the models, so they are not tried on this one.
    """
    lines: list[str] = []
    for trial in trials:
        obstacle = "other machines will read it" if elsewhere else trial.obstacle()
        if obstacle:
            lines.append(f"Not tried: {trial.model.path}, because {obstacle}; its first job begins with the trial.")
        else:
            do(trial, store)
            farthest = max(store.get(trial).values())
            lines.append(f"Tried: {trial.model.path} reads prompts alone and in one batch alike, up to {farthest:.1g}.")
    return lines


def fetch(cfgs: Iterable[DictConfig]) -> None:
    """Fetch people's responses from labeling servers, once per batch: keys depend on them."""
    seen: list[Annotator] = []
    for cfg in cfgs:
        early = cfg.strategy.get("uses_response") or cfg.rounds != 1  # responses are read before the last selection
        unread = (Until.score,) if early else (Until.score, Until.select)
        annotator = create(cfg, "annotator") if cfg.until not in unread else None
        if annotator is not None and annotator not in seen:
            seen.append(annotator)
            annotator.fetch()


def _known(experiment: Experiment) -> list[Stage[Any]]:
    """Return what can be done now: the selection that people will answer and the rounds before it, or all stages."""
    waiting = experiment.waiting
    if waiting is None:
        return list(experiment.stages)
    done = [one for one in experiment.rounds if not one.annotate.waits()]
    return list(upstream_first([*(stage for one in done for stage in one.goals(experiment.until)), waiting.select]))


def _do_known(known: Sequence[Stage[Any]], experiment: Experiment, store: Store, out: Console | None) -> None:
    """Do these stages without recording a run: it begins when people have answered, or all rounds are known."""
    numbers = {stage.key: number for number, stage in enumerate(experiment.stages, start=1)}
    if out:
        try_model(experiment, store)
    for stage in known:
        if store.record(stage) is None:
            if out:
                say(f"[{numbers.get(stage.key, '-')}/{len(experiment.stages)}] {stage.title()}")
            do(stage, store)
            if out:
                tell_round(stage, experiment, store)


def tell_round(stage: Stage[Any], experiment: Experiment, store: Store) -> None:
    """After the last stage of a round, print its scores and what the next one is projected to gain."""
    for number, one in enumerate(experiment.rounds if len(experiment.planned) > 1 else ()):
        if stage is one.evaluate:
            following = next_budget(one, experiment.planned, number, experiment.num_prompts, store)
            console.show_round(number, RoundRecord.of(one, following, store))


def try_model(experiment: Experiment, store: Store) -> None:
    """Try the model before anything is paid for, unless it was tried before or no stage will read it."""
    if trial := experiment.untried(store):
        say(trial.title())
        do(trial, store)


def ask(experiments: Iterable[Experiment], store: Store, command: str) -> None:
    """Ask people for everything that the experiments wait for, and print each request once.

    Args:
        experiments: their prompts are selected.
        store: where the selections are.
        command: what to type when the responses are there.
    """
    batches: dict[Annotator, list[Annotate]] = {}
    for experiment in experiments:
        stage = experiment.waiting
        if stage and store.record(stage.select):  # else selection failed
            batches.setdefault(stage.annotator, []).append(stage)
    for annotator, stages in batches.items():
        requests = [stage.open_request(store) for stage in stages]
        union = {row_id: prompt for ids, prompts in requests for row_id, prompt in zip(ids, prompts, strict=True)}
        for ids, prompts in ((list(union), list(union.values())), *requests):
            try:
                annotator.annotate(stages[0].source, ids, prompts, store.root / LEDGER)
            except Pending as pending:
                say(f"{pending}\n  {command}")
                break


def execute(
    experiment: Experiment, store: Store, cfg: DictConfig, tracker: Tracker, sweep: dict[str, str] | None = None
) -> RunRecord:
    """Build what is not done yet, write the run's files, and mirror the run.

    Args:
        experiment: what to do.
        store: where results live.
        cfg: what the experiment was built from.
        tracker: opens the mirror of the run.
        sweep: id and command of the sweep that the experiment belongs to.
    """
    with _mirrored(experiment, store, cfg, tracker, sweep) as tracked:
        record = _execute(experiment, store, tracked)
        tracked.results(record.summary())
    return record


def build_stage(
    stage: Stage[Any], experiment: Experiment, store: Store, cfg: DictConfig, tracker: Tracker, sweep: dict[str, str]
) -> None:
    """Build one stage of an experiment; a live mirror shows its losses during training.

    The process that finishes the experiment continues the same mirrored run.
    """
    if not (isinstance(stage, Finetune) and stage.annotate.budget == experiment.budget and tracker.live):
        do(stage, store)
        return
    with _mirrored(experiment, store, cfg, tracker, sweep) as tracked:
        _finetune(stage, store, tracked.log)


@contextlib.contextmanager
def _mirrored(
    experiment: Experiment, store: Store, cfg: DictConfig, tracker: Tracker, sweep: dict[str, str] | None
) -> Generator[Tracked]:
    """Open the experiment's run of the tracker, and close it at the end of the block."""
    directory = store.run_directory(experiment.id)
    config = save_config(cfg, directory)
    about = {name: getattr(experiment, name) for name in _ABOUT}
    config["experiment"] = about | {"model": Path(config["model"]["path"]).name}
    config["stages"] = {stage.name: stage.key for stage in experiment.stages}
    if sweep:
        config["sweep"] = sweep
    tracked, failed = tracker.start(experiment.id, config, directory), True
    try:
        yield tracked
        failed = False
    finally:
        tracked.finish(failed)


def _execute(experiment: Experiment, store: Store, tracked: Tracked) -> RunRecord:
    """Build what is not done yet, stage by stage, and record the run."""
    directory = store.run_directory(experiment.id)
    try_model(experiment, store)
    for number, stage in enumerate(experiment.stages, start=1):
        if store.record(stage) is None:
            say(f"[{number}/{len(experiment.stages)}] {stage.title()}")
        is_new = store.record(stage) is None
        if isinstance(stage, Finetune) and stage.annotate.budget == experiment.budget:
            _finetune(stage, store, tracked.log)
            tracked.adapter(store.get(stage).path)
        else:
            do(stage, store)
        if is_new:
            tell_round(stage, experiment, store)
        if isinstance(stage, Select) and not stage.terms:
            _write_selection(stage, store.get(stage), directory, store, tracked)
        elif isinstance(stage, Select) and stage is experiment.stages[-1]:
            _write_selection(stage, store.get(stage).head(stage.num_fitting(store)), directory, store, tracked)
        if isinstance(stage, Annotate) and stage.limit:
            selection = store.get(stage.select).head(stage.num_rows(store))
            _write_selection(stage.select, selection, directory, store, tracked)
        if isinstance(stage, Annotate) and (page := stage.quality(store)):
            write_atomic(directory / "quality.html", page)
    logged = [store.directory(stage) / "metrics.jsonl" for stage in experiment.stages if isinstance(stage, Finetune)]
    record = RunRecord.of(experiment, store)
    record.write(directory, losses="".join(path.read_text() for path in logged[-1:]))  # of the last round
    return record


def _write_selection(stage: Select, selection: Selection, directory: Path, store: Store, tracked: Tracked) -> None:
    file = directory / "selected.jsonl"
    tracked.selection(write_selection(store.get(stage.pool), selection, file), file)


def _finetune(stage: Finetune, store: Store, on_metrics: OnMetrics) -> None:
    """Finetune unless it is done; first pass on what an interrupted run, or a worker of a sweep, has logged."""
    for line in _losses(stage, store):
        on_metrics(line)
    do(stage, store, on_metrics)


def _losses(stage: Finetune, store: Store) -> Iterator[dict[str, Any]]:
    """Yield the lines that finetuning has logged so far; a crash may have cut off the last line."""
    path = store.directory(stage) / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        yield json.loads(line)
