"""A sweep on disk: the plan, for workers to read and for people to query.

`<store>/sweeps/<id>/` holds sweep.json and the logs of the tasks. The id follows from the experiments, so the same
command is the same sweep: finished stages are skipped, interrupted ones are resumed, failed ones are retried.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aliquot.launch.plan import KINDS, SweepPlan, task_name
from aliquot.store.provenance import environment
from aliquot.store.store import Stage, Store, write_atomic

if TYPE_CHECKING:
    from aliquot.experiment.build import Experiment

_RECORD = "sweep.json"


@dataclass(frozen=True)
class PlannedRun:
    """One experiment of a sweep; its configuration is in `runs/<id>/config.yaml`.

    Args:
        id: the name of its directory.
        strategy: its name.
        overrides: the changes from the command line.
        stages: names of all its stages, upstream first.
    """

    id: str
    strategy: str
    overrides: Sequence[str]
    stages: Sequence[str]

    @classmethod
    def of(cls, experiment: Experiment) -> PlannedRun:
        """Describe an experiment."""
        stages = [task_name(stage) for stage in experiment.stages]
        return cls(experiment.id, experiment.strategy, experiment.overrides, stages)


@dataclass(frozen=True)
class PlannedTask:
    """One stage to build: the instructions for a worker.

    Args:
        name: the stage and its key, such as finetune-0123456789abcdef.
        kind: the kind of resources it needs.
        title: the work, and its amount.
        run: id of an experiment that has the stage; the worker makes the stage from its configuration.
        needs: names of the tasks that must be done first.
        seconds: estimated duration, or None.
        depth: for a ranking, how many prompts it must have ranked to be done.
    """

    name: str
    kind: str
    title: str
    run: str
    needs: Sequence[str]
    seconds: float | None
    depth: int = 0

    @property
    def stage(self) -> str:
        """The kind of stage."""
        return self.name.rpartition("-")[0]


@dataclass(frozen=True)
class Sweep:
    """The planned sweep.

    Args:
        id: of the set of its experiments.
        command: the command that started it, to be repeated.
        folder: the working directory, against which paths in the configurations are resolved.
        runs: the experiments.
        tasks: the stages that were unfinished, upstream first.
        environment: the code and libraries with which it was planned.
    """

    id: str
    command: str
    folder: str
    runs: Sequence[PlannedRun]
    tasks: Sequence[PlannedTask]
    environment: dict[str, Any]

    @classmethod
    def of(cls, experiments: Sequence[Experiment], plan: SweepPlan, command: str) -> Sweep:
        """Make a sweep of experiments and their plan."""
        composed: dict[str, list[tuple[str, Stage[Any]]]] = {}
        for experiment in experiments:
            for stage in experiment.stages:
                composed.setdefault(task_name(stage), []).append((experiment.id, stage))
        tasks: list[PlannedTask] = []
        for task in plan.tasks:
            # Among experiments that share a ranking, the one with the largest budget leads to the planned stage.
            run = next(run for run, stage in composed[task.name] if stage == task.stage)
            about = (task.name, task.kind, task.stage.title(), run, task.needs, task.seconds, task.stage.depth)
            tasks.append(PlannedTask(*about))
        runs = {experiment.id: PlannedRun.of(experiment) for experiment in experiments}
        return cls(sweep_id(runs), command, str(Path.cwd()), list(runs.values()), tasks, environment())

    def task(self, name: str) -> PlannedTask:
        """Return a task by its name.

        Raises:
            ValueError: the sweep has no such task.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        raise ValueError(f"sweep {self.id} has no task '{name}'; `python -m aliquot status {self.id}` lists them")

    def run(self, name: str) -> PlannedRun:
        """Return an experiment by its id."""
        return next(run for run in self.runs if run.id == name)

    def label(self) -> dict[str, str]:
        """Return what a tracker records about the sweep in each of its runs."""
        return {"id": self.id, "command": self.command}

    def by_kind(self) -> dict[str, list[PlannedTask]]:
        """Return the tasks of each kind of stage, upstream first."""
        stages = sorted({task.stage for task in self.tasks}, key=KINDS.index)
        return {stage: [task for task in self.tasks if task.stage == stage] for stage in stages}

    def save(self, store: Store) -> Path:
        """Write sweep.json and return the sweep's directory."""
        directory = sweep_directory(store, self.id)
        write_atomic(directory / _RECORD, json.dumps(dataclasses.asdict(self), indent=2) + "\n")
        return directory

    @classmethod
    def load(cls, store: Store, sweep: str) -> Sweep:
        """Read a sweep by its id, or by a prefix of it.

        Raises:
            ValueError: the store has no sweep, or several, of that name.
        """
        found = sorted(path.parent.name for path in (store.root / "sweeps").glob(f"*/{_RECORD}"))
        matching = [name for name in found if name.startswith(sweep)]
        if len(matching) != 1:
            if not found:
                raise ValueError(
                    f"no sweep is in {store.root}; `python run.py -m ...` begins one, --store names another store"
                )
            named = f" named '{sweep}...'" if sweep else ""
            raise ValueError(f"{len(matching)} sweeps{named} are in {store.root}; name one of {', '.join(found)}")
        values = json.loads((sweep_directory(store, matching[0]) / _RECORD).read_text(encoding="utf-8"))
        values["runs"] = [PlannedRun(**run) for run in values["runs"]]
        values["tasks"] = [PlannedTask(**task) for task in values["tasks"]]
        return cls(**values)


def sweep_id(runs: Iterable[str]) -> str:
    """Name a set of experiments."""
    return hashlib.sha256("\n".join(sorted(set(runs))).encode()).hexdigest()[:8]


def sweep_directory(store: Store, sweep: str) -> Path:
    """Return the directory of a sweep."""
    return store.root / "sweeps" / sweep


def stage_directory(store: Store, task: str) -> Path:
    """Return the directory of a task's stage in the store."""
    stage, _, key = task.rpartition("-")
    return store.root / stage / key


def log_file(store: Store, sweep: Sweep, task: str) -> Path:
    """Return the path of the log that a worker writes for a task."""
    return sweep_directory(store, sweep.id) / "logs" / f"{task}.log"
