"""Held-out rows of the demo world: three of every skill that the pool teaches, with contents that it does not have.

Facts are left out: who has not been told one cannot answer it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from aliquot.demo.families import TASKS
from aliquot.demo.families.base import Task
from aliquot.demo.words import held_out, seeded

PER_TASK = 3
_MOST_OPTIONS = 8
_NUM_SAMPLED = 400  # instances from which the closed set of a task is taken
_NUM_TRIED = 4000


def held_out_rows() -> Iterator[dict[str, object]]:
    """Yield the rows; those of tasks with few possible responses have them all in `options`."""
    for task in TASKS:
        if task.family == "facts":
            continue
        options = _options(task)
        for number, (prompt, response) in enumerate(_instances(task)):
            row: dict[str, object] = {"id": f"{task.name}-held-out-{number}", "prompt": prompt, "response": response}
            yield {**row, "task": task.name, **({"options": options} if response in options else {})}


def _instances(task: Task) -> Iterator[tuple[str, str]]:
    """Yield instances of different content that belong to the held-out part; fewer where a task has too few."""
    rng, seen = seeded("held-out", task.name), set[str]()
    for _ in range(_NUM_TRIED):
        item = task.draw(rng)
        if held_out(item.key) and item.key not in seen:
            yield task.ask(item, len(seen) % len(task.prompts)), item.response
            seen.add(item.key)
        if len(seen) == PER_TASK:
            return


def _options(task: Task) -> list[str]:
    """Return the responses of a task in alphabetical order; empty if they are not a small closed set."""
    rng = seeded("options", task.name)
    found = sorted({task.draw(rng).response for _ in range(_NUM_SAMPLED)})
    return found if 2 <= len(found) <= _MOST_OPTIONS else []


def write_held_out(path: Path) -> None:
    """Write the rows as jsonl."""
    path.write_text("".join(json.dumps(row) + "\n" for row in held_out_rows()), encoding="utf-8")
