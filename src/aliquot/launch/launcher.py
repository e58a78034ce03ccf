"""From the jobs that Hydra composed to a planned sweep: the common start of both launchers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from aliquot.config.create import create
from aliquot.experiment import console
from aliquot.experiment.build import Experiment, Parts, build
from aliquot.experiment.next_command import after_sweep
from aliquot.experiment.pool import prepare_pool
from aliquot.experiment.quote import quote
from aliquot.experiment.record import RunRecord, find_run, save_config
from aliquot.experiment.run import ask, fetch, try_models
from aliquot.launch import display
from aliquot.launch.local import TaskBoard, Workers, run_tasks
from aliquot.launch.plan import make_plan
from aliquot.launch.shared_store import doubt
from aliquot.launch.slurm import Cluster, submit
from aliquot.launch.status import show_status, wait_for_end
from aliquot.launch.sweep import Sweep, stage_directory
from aliquot.launch.worker import finish
from aliquot.runtime import logs, terminal
from aliquot.store.store import Store, check_all, read_record


@dataclass(frozen=True)
class ComposedJob:
    """One composed job of a sweep.

    Args:
        cfg: the configuration, without Hydra's own node.
        overrides: what the command line and the sweep changed.
    """

    cfg: DictConfig
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Planned:
    """A sweep, saved, after all checks that are possible before it starts.

    Args:
        store: the store of results.
        sweep: the planned sweep.
        experiments: one per job.
        waiting: the jobs that need answers from people first: only their prompts are selected.
        open: the jobs whose next round depends on what it is projected to gain after those that are planned.
    """

    store: Store
    sweep: Sweep
    experiments: Sequence[Experiment]
    waiting: Sequence[ComposedJob]
    open: Sequence[ComposedJob]


def prepare(jobs: Sequence[ComposedJob], elsewhere: bool = False) -> Planned | None:
    """Plan the jobs as one sweep, show the plan and check every stage; return None if only that was requested.

    Args:
        jobs: one or more.
        elsewhere: the stages will be built on other machines, whose devices cannot be checked from here.

    Raises:
        ValueError: a job is wrong, or a stage is certain to fail.
    """
    logs.set_up_logging()
    store = Store(Path(jobs[0].cfg.store))
    store.check_writable()
    fetch(job.cfg for job in jobs)
    experiments = [_experiment(job) for job in jobs]
    plan = make_plan((stage for experiment in experiments for stage in experiment.ready), store)
    sweep = Sweep.of(experiments, plan, shlex.join(["python", *sys.argv]))
    display.show_plan(sweep, plan, quote(experiments, store))
    console.show_models(experiments)
    console.show_libraries((stage for experiment in experiments for stage in experiment.stages), store)
    waiting = [stage for experiment in experiments if experiment.waiting for stage in experiment.stages]
    trials = list({trial.key: trial for e in experiments if (trial := e.untried(store))}.values())
    check_all([*trials, *plan.todo, *(stage for stage in waiting if store.record(stage) is None)])
    checking = bool(jobs[0].cfg.check)
    for stage in () if elsewhere or (checking and not all(trial.trainer.is_here() for trial in trials)) else plan.todo:
        stage.check_devices()
    if checking:
        console.show_checked(try_models(trials, store, elsewhere))
        return None
    for job, experiment in zip(jobs, experiments, strict=True):
        create(job.cfg, "tracker")
        save_config(job.cfg, store.run_directory(experiment.id))
    sweep.save(store)
    both = list(zip(jobs, experiments, strict=True))
    waiting, undecided = [job for job, e in both if e.waiting], [job for job, e in both if e.open and not e.waiting]
    return Planned(store, sweep, experiments, waiting, undecided)


def _experiment(job: ComposedJob) -> Experiment:
    parts = Parts.of(job.cfg, job.overrides)
    prepare_pool(parts)
    return build(parts)


def launch_here(jobs: Sequence[ComposedJob], workers: Workers) -> list[RunRecord | None]:
    """Run a sweep on this machine and show its results; return the record of each job, None for failed ones."""
    environments = workers.environments(int(jobs[0].cfg.trainer.devices))
    planned = prepare(jobs)
    if planned is None:
        return [None for _ in jobs]
    store, sweep = planned.store, planned.sweep
    if sweep.tasks:
        with display.Dashboard(store, sweep, len(environments)) as dashboard:
            board = run_tasks(store, sweep, environments, dashboard.show)
    else:
        board = TaskBoard(())
    progressed = not sweep.tasks or any(read_record(stage_directory(store, task.name)) for task in sweep.tasks)
    if progressed and any(_continues(job, store) for job in (*planned.waiting, *planned.open)):
        return launch_here(jobs, workers)
    for run in sweep.runs:
        finish(store, sweep, run)
    records = _records(planned)
    display.show_results(store, sweep, board, records)
    ask(planned.experiments, store, sweep.command)
    if board.failed:
        sys.exit(1)
    if len(records) == len(planned.experiments):
        terminal.say(f"Next          {after_sweep(sweep.id, sweep.command, records, jobs[0].cfg)}")
    return [find_run(store.run_directory(experiment.id)) for experiment in planned.experiments]


def _continues(job: ComposedJob, store: Store) -> bool:
    """Tell whether there is more to do now: people had already answered, or it is known whether a round follows."""
    experiment = _experiment(job)
    return experiment.waiting is None or store.record(experiment.waiting.select) is None


def launch_on_cluster(jobs: Sequence[ComposedJob], cluster: Cluster) -> None:
    """Submit a sweep to SLURM and say how to watch it; the jobs do not need this process, which may wait for them."""
    cluster.check()
    if reason := doubt(Store(Path(jobs[0].cfg.store)).root):
        terminal.say(f"warning: {reason}")
    planned = prepare(jobs, elsewhere=True)
    if planned is None:
        return
    store, sweep = planned.store, planned.sweep
    for run in sweep.runs:
        finish(store, sweep, run)
    if not sweep.tasks:
        display.show_results(store, sweep, TaskBoard(()), _records(planned))
        ask(planned.experiments, store, sweep.command)
        return
    if planned.waiting:
        terminal.say(
            f"{len(planned.waiting):,} of {len(jobs):,} experiments wait for people: these jobs choose their prompts; "
            "when they have ended, run the same command again, which asks for the responses"
        )
    if planned.open:
        terminal.say(
            f"{len(planned.open):,} of {len(jobs):,} experiments may have another round (stop_below): when these jobs "
            "have ended, run the same command again, which continues or reports"
        )
    display.show_submitted(store, sweep, submit(store, sweep, cluster))
    if cluster.wait:
        succeeded = wait_for_end(store, sweep)
        show_status(store, sweep)
        if not succeeded:
            sys.exit(1)
        if planned.open:
            launch_on_cluster(jobs, cluster)


def _records(planned: Planned) -> list[RunRecord]:
    """Return the finished runs."""
    found = (find_run(planned.store.run_directory(experiment.id)) for experiment in planned.experiments)
    return [record for record in found if record]
