"""The families of tasks, one module each; `TASKS` is the list of all of them in a fixed order."""

from __future__ import annotations

from aliquot.demo.families import (
    arithmetic,
    classify,
    counting,
    dates,
    editing,
    facts,
    glossary,
    lists,
    logic,
    lookup,
    reading,
    sequences,
    sorting,
    strings,
    units,
)
from aliquot.demo.families.base import Task

SKILLS: tuple[Task, ...] = (
    *arithmetic.TASKS, *lists.TASKS, *sorting.TASKS, *counting.TASKS, *strings.TASKS, *lookup.TASKS, *logic.TASKS,
    *dates.TASKS, *units.TASKS, *classify.TASKS, *glossary.TASKS, *sequences.TASKS, *reading.TASKS, *editing.TASKS,
)  # fmt: skip
TASKS: tuple[Task, ...] = (*facts.TASKS, *SKILLS)
BY_NAME = {task.name: task for task in TASKS}
