"""The plan of a sweep: every stage that its experiments need and the store lacks, once, upstream first.

Three widths of a kernel, three budgets and three seeds are 27 experiments, but only one scoring pass, three rankings
and 27 finetunings and evaluations. Stages with the same key are one task, and a ranking to the largest budget serves
the smaller ones.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aliquot.store.store import Stage, Store, canonical, upstream_first

#: Every kind of stage, upstream first.
KINDS = (
    "pool", "target", "overlap", "score", "responses", "select_part", "select", "annotate", "bought", "finetune",
    "evaluate",
)  # fmt: skip
#: Number of finished stages of a kind that an estimate is based on.
_REMEMBERED = 20
_MOST_TIMES = 100  # sizes that differ more do not tell about each other's seconds


@dataclass(frozen=True)
class PlannedStage:
    """One stage that one worker builds.

    Args:
        stage: the stage to build; for a ranking that serves several budgets, the deepest.
        needs: names of the tasks that must be done first.
        seconds: estimated duration, or None if nothing similar has been done yet.
    """

    stage: Stage[Any]
    needs: tuple[str, ...]
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The name of the task within any sweep: the stage and its key."""
        return task_name(self.stage)

    @property
    def kind(self) -> str:
        """The kind of resources it needs: score, select, annotate, finetune or evaluate."""
        assert self.stage.resources is not None, "a stage that its dependents build themselves is not a task"
        return self.stage.resources


@dataclass(frozen=True)
class SweepPlan:
    """The work of a sweep.

    Args:
        todo: the unfinished stages, upstream first.
        tasks: the ones among them that a worker builds for their own sake.
        num_distinct: stage -> number of distinct ones in the experiments, upstream first.
        num_done: stage -> number of these that are already done.
    """

    todo: tuple[Stage[Any], ...]
    tasks: tuple[PlannedStage, ...]
    num_distinct: dict[str, int]
    num_done: dict[str, int]


def task_name(stage: Stage[Any]) -> str:
    """Return the name of the task that builds `stage`."""
    return f"{stage.name}-{stage.key}"


def make_plan(stages: Iterable[Stage[Any]], store: Store) -> SweepPlan:
    """Plan the stages, and everything they depend on, against the content of the store.

    Args:
        stages: of all experiments of the sweep, in any order, with repetitions.
        store: the store of results; only read.
    """
    distinct: dict[str, Stage[Any]] = {}
    for stage in upstream_first(stages):
        known = distinct.get(task_name(stage))
        if known is None or known.depth < stage.depth:  # a shallower ranking of the same key
            distinct[task_name(stage)] = stage
    todo = {name: stage for name, stage in distinct.items() if store.record(stage) is None}
    tasks = [
        PlannedStage(stage, tuple(dict.fromkeys(_needs(stage, todo))), estimate(stage, store))
        for stage in todo.values()
        if stage.resources
    ]
    kinds = sorted({stage.name for stage in distinct.values()}, key=KINDS.index)
    names = {kind: [name for name, stage in distinct.items() if stage.name == kind] for kind in kinds}
    return SweepPlan(
        todo=tuple(todo.values()),
        tasks=tuple(tasks),
        num_distinct={kind: len(names[kind]) for kind in kinds},
        num_done={kind: sum(name not in todo for name in names[kind]) for kind in kinds},
    )


def _needs(stage: Stage[Any], todo: dict[str, Stage[Any]]) -> Iterator[str]:
    """Yield the tasks that a stage waits for, looking through the stages that it builds itself."""
    for upstream in stage.upstream():
        if upstream.resources is None:  # a separate job would wait longer than it runs
            yield from _needs(upstream, todo)
        elif task_name(upstream) in todo:
            yield task_name(upstream)


def estimate(stage: Stage[Any], store: Store) -> float | None:
    """Return the estimated seconds of a stage, from those of its kind, model and annotator in the store, or None.

    Seconds are assumed to grow with `Stage.size`; the median of the latest is used.
    """
    worker = {name: canonical(stage.inputs().get(name)) for name in ("model", "annotator")}
    alike = [
        record
        for record in _latest_records(store.root / stage.name)
        if record.get("size") and worker == {name: record["fields"].get(name) for name in worker}
    ]
    rates = [record["seconds"] / record["size"] for record in alike if _like(record["size"], stage.size())]
    return statistics.median(rates) * stage.size() if rates else None


def _like(size: float, other: float) -> bool:
    """Tell whether one rate fits both sizes: the pass over a few target prompts is mostly the loading of the model."""
    return max(size, other) <= _MOST_TIMES * min(size, other)


def _latest_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of the most recently finished stages of one kind."""
    files = sorted(folder.glob("*/stage.json"), key=lambda file: file.stat().st_mtime_ns)[-_REMEMBERED:]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]
