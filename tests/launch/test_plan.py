"""The plan of a sweep: each distinct unfinished stage once, upstream first, waiting for what it reads."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from aliquot.launch.plan import make_plan, task_name
from aliquot.store.store import Stage, Store, check_all


@dataclass(frozen=True)
class Step(Stage[int]):
    value: object = 0
    amount: float = 1

    def inputs(self):
        return {"value": self.value, "upstream": self.upstream()}

    def size(self):
        return self.amount

    def build(self, store, directory, on_metrics):
        for stage in self.upstream():
            store.ensure(stage)


class Score(Step):
    name: ClassVar[str] = "score"


SCORE = Score()


@dataclass(frozen=True)
class Select(Step):
    name: ClassVar[str] = "select"
    score: Score = SCORE
    budget: int = 1

    @property
    def depth(self):
        return self.budget


@dataclass(frozen=True)
class Annotate(Step):
    name: ClassVar[str] = "annotate"
    resources: ClassVar[str | None] = None
    select: Select = field(default_factory=Select)


@dataclass(frozen=True)
class Finetune(Step):
    name: ClassVar[str] = "finetune"
    annotate: Annotate = field(default_factory=Annotate)


@dataclass(frozen=True)
class Evaluate(Step):
    name: ClassVar[str] = "evaluate"
    finetune: Finetune | None = None


def experiment(gamma, budget, seed):
    annotate = Annotate(budget, select=Select(gamma, budget=budget))
    return [Evaluate(), Evaluate(finetune=Finetune(seed, annotate=annotate))]


def grid():
    choices = itertools.product(range(3), (10, 30, 20), range(3))
    return [stage for gamma, budget, seed in choices for stage in experiment(gamma, budget, seed)]


def kinds(plan):
    return [task.kind for task in plan.tasks]


def test_a_grid_of_27_scores_once_ranks_thrice_and_evaluates_the_base_once(tmp_path):
    found = kinds(make_plan(grid(), Store(tmp_path)))
    assert {kind: found.count(kind) for kind in found} == {"score": 1, "select": 3, "finetune": 27, "evaluate": 28}


def test_one_ranking_to_the_largest_budget_serves_all(tmp_path):
    rankings = [task.stage for task in make_plan(grid(), Store(tmp_path)).tasks if task.kind == "select"]
    assert [stage.budget for stage in rankings] == [30, 30, 30]


def test_tasks_stand_behind_what_they_need_and_annotation_is_looked_through(tmp_path):
    plan = make_plan(grid(), Store(tmp_path))
    seen = set()
    for task in plan.tasks:
        assert set(task.needs) <= seen
        seen.add(task.name)
    needs = {task.kind: {name.split("-")[0] for name in task.needs} for task in plan.tasks if task.needs}
    assert needs == {"select": {"score"}, "finetune": {"select"}, "evaluate": {"finetune"}}


def test_what_is_done_is_neither_planned_nor_waited_for(tmp_path):
    store = Store(tmp_path)
    store.ensure(Select(0, budget=20))
    plan = make_plan(grid(), store)
    todo = {task.name for task in plan.tasks}
    assert task_name(Score()) not in todo
    assert task_name(Select(0)) in todo, "it is not deep enough"
    store.ensure(Select(0, budget=30))
    plan = make_plan(grid(), store)
    assert plan.num_done["select"] == 1
    assert kinds(plan).count("select") == 2
    assert all(task_name(Select(0)) not in task.needs for task in plan.tasks)


def test_nothing_is_left_to_do_once_all_is_built(tmp_path):
    store = Store(tmp_path)
    for stage in grid():
        store.ensure(stage)
    plan = make_plan(grid(), store)
    assert plan.tasks == ()
    assert plan.num_done == {"score": 1, "select": 3, "annotate": 9, "finetune": 27, "evaluate": 28}


def test_seconds_are_estimated_from_stages_of_the_same_kind_by_their_size(tmp_path):
    store = Store(tmp_path)
    assert make_plan([Score(1)], store).tasks[0].seconds is None
    for value, seconds in ((1, 10), (2, 20), (3, 90)):
        stage = Score(value, amount=10)
        store.ensure(stage)
        record = store.directory(stage) / "stage.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "seconds": seconds}))
    assert make_plan([Score(4, amount=30)], store).tasks[0].seconds == pytest.approx(60)


def test_annotating_that_takes_time_is_a_task_that_finetuning_waits_for(tmp_path):
    @dataclass(frozen=True)
    class Asked(Annotate):
        resources: ClassVar[str | None] = "annotate"

    stages = [
        Finetune(seed, annotate=Asked(budget, select=Select(budget=budget))) for budget in (1, 2) for seed in (1, 2)
    ]
    plan = make_plan(stages, Store(tmp_path))
    assert kinds(plan).count("annotate") == 2
    needs = {task.name: task.needs for task in plan.tasks}
    for stage in stages:
        assert needs[task_name(stage)] == (task_name(stage.annotate),)
        assert [name.split("-")[0] for name in needs[task_name(stage.annotate)]] == ["select"]


def test_seconds_of_annotating_are_those_of_the_same_annotator(tmp_path):
    @dataclass(frozen=True)
    class Asked(Step):
        name: ClassVar[str] = "annotate"
        annotator: str = "quick"

        def inputs(self):
            return {**super().inputs(), "annotator": self.annotator}

    store = Store(tmp_path)
    store.ensure(Asked(1))
    assert make_plan([Asked(2)], store).tasks[0].seconds is not None
    assert make_plan([Asked(2, annotator="slow")], store).tasks[0].seconds is None


def test_a_check_that_several_stages_share_is_made_once():
    made = []

    @dataclass(frozen=True)
    class Checked(Step):
        name: ClassVar[str] = "score"
        specs: list[str] = field(default_factory=list)

        def checks(self):
            return (made.append, ("value", self.value)), (made.append, ("specs", self.specs))

    check_all(Checked(value, specs=[spec]) for spec in "ab" for value in range(100))
    assert made == [
        *(("value", 0), ("specs", ["a"])),
        *(("value", value) for value in range(1, 100)),
        ("specs", ["b"]),
    ]
